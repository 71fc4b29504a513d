//! One address for several loops: who gets which connection, on both ways to share and on both backends.

#![cfg(unix)] // Backends are asked for by their names there.

use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bufferevent_core::{Bev, Error, READ, on_read};
use bufferevent_socket::{Address, Listener, ListenerBuilder, Sharing};
use evreactor::{EventLoop, Host as _, LoopPool};
use socket2::{SockAddr, Socket, Type};

/// How long something that has to come is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

const LOOPS: usize = 3;

fn loopback() -> Address {
    Address::Tcp(([127, 0, 0, 1], 0).into())
}

/// A client that gives up after [`PATIENCE`].
fn connect(address: &Address) -> Socket {
    let to = match address {
        Address::Tcp(address) => SockAddr::from(*address),
        Address::Unix(path) => SockAddr::unix(path).expect("a short path"),
        other => panic!("{other}"),
    };
    let socket = Socket::new(to.domain(), Type::STREAM, None).expect("a socket");
    socket.connect(&to).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// An echo service whose first byte is the number of the loop that serves.
fn serve(index: usize, bev: &Bev) -> Result<(), Error> {
    bev.set_handler(on_read(|bev| drop(bev.output().append_from(&bev.input()))))?;
    bev.write(&[u8::try_from(index).expect("few loops")])?;
    bev.enable(READ)
}

/// Reads the number, and has something echoed.
fn ask(client: &mut Socket) -> usize {
    client.write_all(b"question").expect("sent");
    let mut answer = [0; 9];
    client.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer[1..], b"question");
    answer[0].into()
}

/// A pool, an address to share, and what shall come of it.
struct Case {
    pool: LoopPool,
    sharing: Sharing,
    address: Address,
    _folder: tempfile::TempDir,
}

impl Case {
    fn new(backend: &str, sharing: Sharing, address: Option<Address>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = address.unwrap_or_else(|| Address::Unix(folder.path().join("socket")));
        let count = NonZeroUsize::new(LOOPS).expect("not zero");
        let loops = EventLoop::builder().backend(backend);
        Self {
            pool: LoopPool::builder(count)
                .loops(loops)
                .start()
                .expect("a pool"),
            sharing,
            address,
            _folder: folder,
        }
    }

    fn builder(&self) -> ListenerBuilder<'_> {
        Listener::builder(&self.pool.handles()[0]).sharing(self.sharing)
    }

    fn bind(
        &self,
        accept: impl Fn(usize, Bev, Address) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Vec<Listener> {
        let others = &self.pool.handles()[1..];
        self.builder()
            .bind_each(others, &self.address, accept)
            .expect("bound")
    }

    /// Stops one loop of the pool. Its first turn of rest is waited for, so that it takes nothing more.
    fn block(&self, index: usize) -> Sender<()> {
        let (release, released) = channel::<()>();
        let (sender, entered) = channel();
        self.pool.handles()[index]
            .post(move || {
                sender.send(()).expect("the test listens");
                // Released, or the test has ended.
                let _ = released.recv_timeout(PATIENCE);
            })
            .expect("the loop is there");
        entered.recv_timeout(PATIENCE).expect("the loop is blocked");
        release
    }
}

fn each_backend(check: impl Fn(&str)) {
    for backend in ["mio", "polling"] {
        check(backend);
    }
}

/// Waits until `value` says what it should.
fn wait_for(what: &str, value: impl Fn() -> usize, wanted: usize) {
    let deadline = Instant::now() + PATIENCE;
    while value() != wanted {
        assert!(
            Instant::now() < deadline,
            "{what}: {} instead of {wanted}",
            value()
        );
        std::thread::yield_now();
    }
}

#[test]
fn handed_out_connections_come_in_turn_and_stay_with_their_loop() {
    each_backend(|backend| {
        for address in [Some(loopback()), None] {
            let case = Case::new(backend, Sharing::HandOut, address);
            let threads: Vec<_> = case.pool.handles().iter().map(|h| h.thread()).collect();
            let listeners = case.bind(move |index, bev, _peer| {
                assert_eq!(bev.host().thread(), threads[index]);
                serve(index, &bev)
            });
            assert_eq!(listeners.len(), 1);
            let address = listeners[0].local_addr().expect("bound");
            let mut clients: Vec<_> = (0..3 * LOOPS).map(|_| connect(&address)).collect();
            let indices: Vec<_> = clients.iter_mut().map(ask).collect();
            assert_eq!(indices, [0, 1, 2, 0, 1, 2, 0, 1, 2], "{backend}");
            assert_eq!(listeners[0].accepted(), 9);
            assert_eq!(case.pool.stats().panics, 0);
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn with_queues_every_loop_gets_some_of_many_connections_at_one_port() {
    each_backend(|backend| {
        let case = Case::new(backend, Sharing::Queues, Some(loopback()));
        let threads: Vec<_> = case.pool.handles().iter().map(|h| h.thread()).collect();
        let listeners = case.bind(move |index, bev, _peer| {
            assert_eq!(bev.host().thread(), threads[index]);
            serve(index, &bev)
        });
        let addresses: Vec<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("bound"))
            .collect();
        assert_eq!(addresses.len(), LOOPS);
        assert!(addresses.iter().all(|address| *address == addresses[0]));
        // That a loop gets none of them: 3 * (2/3)^96, once in 10^16.
        let mut clients: Vec<_> = (0..96).map(|_| connect(&addresses[0])).collect();
        let mut counts = [0; LOOPS];
        for client in &mut clients {
            counts[ask(client)] += 1;
        }
        assert!(
            counts.iter().all(|&count| count > 0),
            "{backend}: {counts:?}"
        );
        for (listener, count) in listeners.iter().zip(counts) {
            assert_eq!(listener.accepted(), count);
        }
        assert_eq!(case.pool.stats().panics, 0);
    });
}

#[test]
fn a_unix_path_is_handed_out_whatever_was_asked_for() {
    let case = Case::new("mio", Sharing::Queues, None);
    let listeners = case.bind(|index, bev, _peer| serve(index, &bev));
    assert_eq!(listeners.len(), 1);
}

#[test]
fn a_port_that_is_taken_is_refused_also_by_those_who_share_it() {
    for sharing in [Sharing::Queues, Sharing::HandOut] {
        let case = Case::new("mio", sharing, Some(loopback()));
        let listeners = case.bind(|index, bev, _peer| serve(index, &bev));
        let address = listeners[0].local_addr().expect("bound");
        let others = &case.pool.handles()[1..];
        let error = case
            .builder()
            .bind_each(others, &address, |_, _, _| {})
            .expect_err("somebody listens there");
        let source = error.io_error().map(std::io::Error::kind);
        assert_eq!(source, Some(std::io::ErrorKind::AddrInUse));
        // It is free again when all are gone.
        drop(listeners);
        let again = case.builder().bind_each(others, &address, |_, _, _| {});
        again.expect("bound again");
    }
}

#[test]
fn a_loop_that_is_busy_is_not_handed_more_than_a_turns_share() {
    const CLIENTS: usize = 200;
    const SHARE: usize = 64;
    each_backend(|backend| {
        let mut case = Case::new(backend, Sharing::HandOut, Some(loopback()));
        // Two loops, so that the numbers are known.
        let two = NonZeroUsize::new(2).expect("not zero");
        case.pool = LoopPool::builder(two)
            .loops(EventLoop::builder().backend(backend))
            .start()
            .expect("a pool");
        let counts: Arc<[AtomicUsize; 2]> = Arc::default();
        let counted = counts.clone();
        let listeners = case.bind(move |index, bev, _peer| {
            counted[index].fetch_add(1, Ordering::SeqCst);
            serve(index, &bev)
        });
        let release = case.block(1);
        let address = listeners[0].local_addr().expect("bound");
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(&address)).collect();
        let count = |index: usize| counts[index].load(Ordering::SeqCst);
        wait_for("the loop that is awake", || count(0), CLIENTS - SHARE);
        assert_eq!(count(1), 0);
        release.send(()).expect("it still waits");
        wait_for("the loop that was busy", || count(1), SHARE);
        for client in &mut clients {
            ask(client);
        }
    });
}

#[test]
fn a_loop_that_is_gone_gets_nothing_and_nobody_is_lost() {
    each_backend(|backend| {
        let case = Case::new(backend, Sharing::HandOut, Some(loopback()));
        let listeners = case.bind(|index, bev, _peer| serve(index, &bev));
        let gone = &case.pool.handles()[1];
        gone.exit();
        wait_for("the loop's end", || gone.post(|| {}).is_err().into(), 1);
        let address = listeners[0].local_addr().expect("bound");
        let mut clients: Vec<_> = (0..6).map(|_| connect(&address)).collect();
        let indices: Vec<_> = clients.iter_mut().map(ask).collect();
        assert!(
            indices.iter().all(|index| [0, 2].contains(index)),
            "{indices:?}"
        );
        assert!(indices.contains(&2), "{indices:?}");
    });
}

#[test]
fn what_was_handed_out_is_closed_with_the_listener() {
    each_backend(|backend| {
        let case = Case::new(backend, Sharing::HandOut, Some(loopback()));
        let (sender, served): (Sender<usize>, Receiver<usize>) = channel();
        let sender = std::sync::Mutex::new(sender);
        let listeners = case.bind(move |index, bev, _peer| {
            let sender = sender.lock().expect("no test panics with it");
            sender.send(index).expect("the test listens");
            serve(index, &bev)
        });
        let release = case.block(1);
        let address = listeners[0].local_addr().expect("bound");
        let mut clients: Vec<_> = (0..2).map(|_| connect(&address)).collect();
        wait_for("accepted", || listeners[0].accepted() as usize, 2);
        assert_eq!(served.recv_timeout(PATIENCE), Ok(0));
        drop(listeners);
        release.send(()).expect("it still waits");
        assert_eq!(clients[1].read(&mut [0; 1]).expect("closed"), 0);
        assert_eq!(ask(&mut clients[0]), 0);
        assert!(served.try_recv().is_err(), "the callback was called");
    });
}

#[test]
fn a_panic_of_the_callback_costs_its_connection_alone() {
    each_backend(|backend| {
        let case = Case::new(backend, Sharing::HandOut, Some(loopback()));
        let once = AtomicUsize::new(0);
        let listeners = case.bind(move |index, bev, _peer| {
            assert!(once.fetch_add(1, Ordering::SeqCst) != 1, "meant to fail");
            serve(index, &bev)
        });
        let address = listeners[0].local_addr().expect("bound");
        let mut clients = Vec::new();
        for nth in 0..4 {
            let mut client = connect(&address);
            if nth == 1 {
                assert_eq!(client.read(&mut [0; 1]).expect("closed"), 0);
            } else {
                ask(&mut client);
                clients.push(client);
            }
        }
        assert_eq!(case.pool.stats().panics, 1);
    });
}
