//! Signals, and system calls that signals interrupt. One test at a time: signals belong to the process.
#![cfg(unix)]

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::thread::JoinHandleExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bufferevent_testkit::{fault, spec};
use common::{Log, each_backend, ms};
use evreactor::{Interest, Outcome, Priority};
use signal_hook::consts::{SIGKILL, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::low_level::raise;

#[test]
fn several_watchers_hear_of_one_signal_and_each_ends_alone() {
    each_backend(|builder| {
        spec!(L2);
        let events = builder.build().expect("a loop");
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let [first, second] = [0, 1].map(|which| {
            let count = counts[which].clone();
            let watcher = move || {
                count.fetch_add(1, Ordering::SeqCst);
            };
            events
                .signal(SIGUSR1, watcher)
                .expect("the signal can be watched")
        });
        let read = || [0, 1].map(|which| counts[which].load(Ordering::SeqCst));
        assert_eq!(
            events.poll().expect("the loop runs"),
            Outcome::Done,
            "a watcher keeps the loop"
        );
        assert_eq!(read(), [0, 0]);
        raise(SIGUSR1).expect("it has a handler");
        while read() != [1, 1] {
            events.run_once().expect("the loop runs");
        }
        // Twice before the loop looks: both deliveries count.
        raise(SIGUSR1).expect("it has a handler");
        raise(SIGUSR1).expect("it has a handler");
        while read() != [3, 3] {
            events.run_once().expect("the loop runs");
        }
        drop(first);
        raise(SIGUSR1).expect("it has a handler");
        while read() != [3, 4] {
            events.run_once().expect("the loop runs");
        }
        drop(second);
        raise(SIGUSR1).expect("the default action does not come back");
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        assert_eq!(read(), [3, 4]);
    });
}

#[test]
fn a_watcher_may_end_itself_panic_and_outlive_its_loop() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let own = Arc::new(Mutex::new(None));
        let inner = own.clone();
        let end_itself = move || drop(inner.lock().expect("not poisoned").take());
        let signal = events
            .signal(SIGUSR2, end_itself)
            .expect("the signal can be watched");
        *own.lock().expect("not poisoned") = Some(signal);
        raise(SIGUSR2).expect("it has a handler");
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);

        let mut calls = 0;
        let handle = events.clone();
        let panicking = move || {
            calls += 1;
            if calls == 1 {
                panic!("on purpose");
            }
            handle.exit();
        };
        let signal = events
            .signal(SIGUSR2, panicking)
            .expect("the signal can be watched");
        raise(SIGUSR2).expect("it has a handler");
        events.run_once().expect("the loop runs");
        assert_eq!(events.stats().panics, 1);
        raise(SIGUSR2).expect("it has a handler");
        assert_eq!(
            events.run().expect("the loop runs"),
            Outcome::Exit,
            "it was put back"
        );
        drop(events);
        raise(SIGUSR2).expect("it has a handler");
        drop(signal);
    });
}

#[test]
fn what_cannot_be_caught_is_refused() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        for signum in [SIGKILL, 100_000] {
            assert!(events.signal(signum, || ()).is_err(), "{signum}");
        }
        assert_eq!(
            events.run().expect("the loop runs"),
            Outcome::Empty,
            "nothing is left behind"
        );
    });
}

/// Thousands of signals hit the loop's thread, most of them in its wait; nothing gets lost, late or wrong.
#[test]
fn interrupted_system_calls_are_no_errors() {
    const ROUNDS: usize = 2_000;
    each_backend(|builder| {
        fault!(F23);
        let hit = Arc::new(AtomicBool::new(false));
        let handler = signal_hook::flag::register(SIGWINCH, hit.clone()).expect("it can be caught");
        let (near, mut far) = UnixStream::pair().expect("descriptors are left");
        let (ready, started) = std::sync::mpsc::channel();
        let server = std::thread::spawn(move || {
            let events = builder.build().expect("a loop");
            near.set_nonblocking(true).expect("a socket can be");
            let stream = Arc::new(near);
            let (inner, slot) = (stream.clone(), Arc::new(Mutex::new(None)));
            let own = slot.clone();
            let handle = events.clone();
            let log = Log::acting(move |_| {
                let mut byte = [0];
                loop {
                    match (&*inner).read(&mut byte) {
                        Ok(0) => return handle.exit(),
                        Ok(_) => (&*inner).write_all(&byte).expect("one byte has room"),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                let own: std::sync::MutexGuard<'_, Option<evreactor::Registration>> =
                    own.lock().expect("not poisoned");
                own.as_ref()
                    .expect("it was set")
                    .rearm()
                    .expect("the source is there");
            });
            let registration =
                events.register(&*stream, Interest::READ, Priority(0), log.clone(), 1);
            *slot.lock().expect("not poisoned") = Some(registration.expect("it can be watched"));
            let began = std::time::Instant::now();
            let on_time = Arc::new(AtomicBool::new(false));
            let told = on_time.clone();
            let timer = move || told.store(began.elapsed() >= ms(10), Ordering::SeqCst);
            events
                .after(ms(10), timer)
                .expect("the loop is there")
                .detach();
            ready.send(events.clone()).expect("it is waited for");
            assert_eq!(
                events
                    .run_until_exit()
                    .expect("no interruption is an error"),
                Outcome::Exit
            );
            slot.lock().expect("not poisoned").take();
            assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
            assert_eq!(events.stats().panics, 0);
            assert!(
                on_time.load(Ordering::SeqCst),
                "the timer was early or never came"
            );
        });
        let handle = started.recv().expect("the loop is made");
        let thread = server.as_pthread_t();
        let mut byte = [0];
        for round in 0..ROUNDS {
            // SAFETY: the thread was not joined, so its id is valid.
            assert_eq!(unsafe { libc::pthread_kill(thread, SIGWINCH) }, 0);
            far.write_all(&[round as u8]).expect("the server is there");
            handle.post(|| ()).expect("the loop is there");
            // SAFETY: as above.
            assert_eq!(unsafe { libc::pthread_kill(thread, SIGWINCH) }, 0);
            far.read_exact(&mut byte).expect("the server answers");
            assert_eq!(byte[0], round as u8);
        }
        drop(far);
        server.join().expect("the server saw no error");
        assert!(hit.load(Ordering::SeqCst), "signals were delivered");
        signal_hook::low_level::unregister(handler);
    });
}
