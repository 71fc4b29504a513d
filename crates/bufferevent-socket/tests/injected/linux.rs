//! System calls that fail on purpose: interrupted again and again, connections that are gone before they are accepted.
//!
//! Linux's `strace` injects the failures into a child of this program, which echoes a few hundred kilobytes over a
//! connection of its own. A storm of signals does what can be done without `strace`; only with it are the rows recorded.

use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};

use bufferevent_core::{READ, on_read};
use bufferevent_socket::{Builder, Listener};
use bufferevent_testkit::{Log, Told, fault, record};
use evreactor::EventLoop;

/// Bytes that go there and back.
const COUNT: usize = 300_000;

/// What is injected, as `strace` writes it: interruptions at every other call of a kind, so that no call is
/// tried in vain for ever.
const INTERRUPTED: [&str; 8] = [
    "recvfrom:error=EINTR:when=1+2",
    "sendto:error=EINTR:when=1+2",
    "sendmsg:error=EINTR:when=1+2",
    "accept4:error=EINTR:when=1+2",
    "epoll_wait:error=EINTR:when=1+2",
    "epoll_pwait2:error=EINTR:when=1+2",
    "sendfile:error=EINTR:when=1+2",
    "readv:error=EINTR:when=1+2",
];

const GONE: [&str; 2] = [
    "accept4:error=ECONNABORTED:when=1+2",
    "accept4:error=EPROTO:when=1+2",
];

/// An echo within one loop.
fn child(backend: &str) {
    let events = EventLoop::builder().backend(backend).build().unwrap();
    let listener = Listener::bind(&events, "127.0.0.1:0", |bev, _| {
        bev.set_handler(on_read(|bev| drop(bev.output().append_from(&bev.input()))))?;
        bev.enable(READ)
    })
    .unwrap();
    for _ in 0..3 {
        let log = Log::new();
        let address = listener.local_addr().unwrap();
        let bev = Builder::new(&events)
            .handler(log.take_all())
            .connect(&address)
            .unwrap();
        bev.enable(READ).unwrap();
        let path = std::env::current_exe().unwrap();
        let file = Arc::new(std::fs::File::open(path).unwrap());
        let region = evbuffer::FileRegion::new(file, 0, COUNT / 2).unwrap();
        bev.output().append_file(region).unwrap();
        for piece in 0..50_u8 {
            bev.output()
                .append_bytes(vec![piece; COUNT / 100].into())
                .unwrap();
        }
        bev.finish().unwrap();
        while !log.has(&Told::Eof) {
            assert!(
                !log.told()
                    .iter()
                    .any(|told| matches!(told, Told::Error(..))),
                "{:?}",
                log.events()
            );
            events.run_once().unwrap();
        }
        assert_eq!(log.received_len(), COUNT / 2 + 50 * (COUNT / 100));
    }
}

/// Runs the child under `strace` with an injection. `None` where there is no `strace` that may trace.
fn injected(backend: &str, injection: &str) -> Option<()> {
    let me = std::env::current_exe().unwrap();
    let (call, _) = injection.split_once(':').unwrap();
    let output = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-e",
            &format!("trace={call}"),
            "-e",
            &format!("inject={injection}"),
        ])
        .args(["-o", "/dev/null"])
        .arg(&me)
        .args(["--child", backend])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("ptrace") {
        return None;
    }
    assert!(output.status.success(), "{injection} on {backend}: {text}");
    Some(())
}

/// Signals without SA_RESTART, as fast as one thread sends them, while the echo runs.
#[allow(unsafe_code)]
fn storm(backend: &str) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY:
    // - The struct is plain data that zeroes fill validly: no flags, so no restart.
    // - The handler does nothing, so it is safe at any point of any thread.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()),
            0
        );
    }
    let done = Arc::new(Mutex::new(false));
    let seen = done.clone();
    // SAFETY: no arguments, no failure.
    let victim = unsafe { libc::pthread_self() };
    let sender = std::thread::spawn(move || {
        while !*seen.lock().unwrap() {
            // SAFETY: the victim joins this thread before it ends, so its name is valid.
            unsafe { libc::pthread_kill(victim, libc::SIGUSR1) };
        }
    });
    child(backend);
    *done.lock().unwrap() = true;
    sender.join().unwrap();
}

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, backend] = &arguments[..]
        && flag == "--child"
    {
        child(backend);
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        println!("injected: test");
        return ExitCode::SUCCESS;
    }
    for backend in ["mio", "polling"] {
        storm(backend);
        record::within("tcp", backend, || {
            let all = |injections: &[&str]| {
                injections
                    .iter()
                    .all(|injection| injected(backend, injection).is_some())
            };
            if injected(backend, GONE[0]).is_none() {
                println!("no strace here: failures of system calls were not injected on {backend}");
                return;
            }
            {
                fault!(F21);
                assert!(all(&GONE));
            }
            {
                fault!(F23);
                assert!(all(&INTERRUPTED));
            }
        });
    }
    println!("test injected ... ok");
    ExitCode::SUCCESS
}
