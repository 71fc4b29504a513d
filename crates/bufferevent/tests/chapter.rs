//! The example programs against real peers: sockets of the standard library, in threads of their own, over loopback.
//!
//! Each program's code is the example's own file, included as a module; only its `main`, which reads arguments
//! and prints, is not run here.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bufferevent::{Address, EventLoop, Listener, LoopHandle};

/// Includes an example as a module. Its `main` is the program's alone.
macro_rules! example {
    ($name:ident, $path:literal) => {
        #[expect(dead_code, reason = "main is the program's alone")]
        #[path = $path]
        mod $name;
    };
}

example!(connect, "../examples/connect.rs");
example!(drain_count, "../examples/drain_count.rs");
example!(faucet, "../examples/faucet.rs");
example!(fibonacci, "../examples/fibonacci.rs");
example!(hash_server, "../examples/hash_server.rs");
example!(http_client, "../examples/http_client.rs");
example!(own_layer, "../examples/own_layer.rs");
example!(patience, "../examples/patience.rs");
example!(proxy, "../examples/proxy.rs");
example!(uppercase, "../examples/uppercase.rs");

/// A test that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has the loop end when the peer's thread does, however that ends.
struct ExitOnDrop(LoopHandle);

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        self.0.exit();
    }
}

/// Runs the loop until `peer`, in a thread of its own, is done.
fn run_against<T: Send + 'static>(
    events: &EventLoop,
    peer: impl FnOnce() -> T + Send + 'static,
) -> T {
    let exit = ExitOnDrop((*events).clone());
    let peer = thread::spawn(move || {
        let _exit = exit;
        peer()
    });
    events
        .run_until_exit()
        .expect("the loop is not running yet");
    peer.join().expect("the peer saw what it expected")
}

fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the example listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
    stream
}

fn address_of(listener: &Listener) -> SocketAddr {
    match listener.local_addr().expect("it is bound") {
        Address::Tcp(address) => address,
        other => panic!("{other} is not TCP"),
    }
}

/// A loop that ends in any case.
fn event_loop() -> EventLoop {
    let events = EventLoop::new().expect("the system has descriptors left");
    events.exit_after(PATIENCE).expect("the loop is there");
    events
}

/// A sink for an example's lines, and what it took.
fn lines() -> (
    impl FnMut(String) + Clone + Send + 'static,
    mpsc::Receiver<String>,
) {
    let (sender, receiver) = mpsc::channel();
    (
        move |line| sender.send(line).expect("the test listens"),
        receiver,
    )
}

#[test]
fn connect_tells_that_the_connection_stands() {
    let peer = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = peer.local_addr().expect("bound").to_string();
    let events = event_loop();
    let (report, told) = lines();
    let _bev = connect::connect(&events, &address, report).expect("a socket");
    events.run().expect("not running yet");
    peer.set_nonblocking(true).expect("a socket");
    let (mut stream, _) = peer.accept().expect("it has connected");
    assert_eq!(
        stream.read(&mut [0; 8]).expect("closed in order"),
        0,
        "freed, so closed"
    );
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["connected"]);
}

#[test]
fn connect_tells_that_nobody_is_there() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr());
    let events = event_loop();
    let (report, told) = lines();
    let address = address.expect("a free port").to_string();
    let _bev = connect::connect(&events, &address, report).expect("a socket");
    events.run().expect("not running yet");
    let told = told.try_iter().collect::<Vec<_>>();
    assert_eq!(told, ["socket: connect: the peer broke the stream"]);
}

/// Fetches from a peer that answers each request line by `answer`, and returns the request and the answer's bytes.
fn fetch(host: &str, answer: &'static [u8]) -> (String, Vec<u8>) {
    let peer = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = peer.local_addr().expect("bound").port();
    let served = thread::spawn(move || {
        let (stream, _) = peer.accept().expect("the client connects");
        let mut request = String::new();
        BufReader::new(&stream)
            .read_line(&mut request)
            .expect("a line");
        (&stream).write_all(answer).expect("the client reads");
        request
    });
    let events = event_loop();
    let (sender, told) = mpsc::channel();
    http_client::fetch(&events, (host, port), "/news", move |piece| {
        sender.send(piece).expect("the test listens");
    })
    .expect("a socket");
    events.run().expect("not running yet");
    let mut body = Vec::new();
    let mut ends = Vec::new();
    for piece in told.try_iter() {
        match piece {
            http_client::Told::Bytes(bytes) => body.extend(bytes),
            http_client::Told::Complete => ends.push("complete".to_owned()),
            http_client::Told::Failed(why) => ends.push(why),
        }
    }
    assert_eq!(ends, ["complete"]);
    (served.join().expect("the peer was asked"), body)
}

#[test]
fn http_client_fetches_by_host_name() {
    let (request, body) = fetch("localhost", b"<p>nothing new</p>\n");
    assert_eq!(request, "GET /news\r\n");
    assert_eq!(body, b"<p>nothing new</p>\n");
}

#[test]
fn http_client_tells_that_a_name_cannot_be_looked_up() {
    let events = event_loop();
    let (report, told) = mpsc::channel();
    // A name that no resolver is even asked for.
    http_client::fetch(&events, ("no\0name", 80), "/", move |piece| {
        report
            .send(
                matches!(piece, http_client::Told::Failed(why) if why.contains("not a host name")),
            )
            .expect("the test listens");
    })
    .expect("a socket");
    events.run().expect("not running yet");
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [true]);
}

#[test]
fn http_client_tells_that_no_address_answers() {
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr());
    let port = gone.expect("a free port").port();
    let events = event_loop();
    let (report, told) = mpsc::channel();
    http_client::fetch(&events, ("127.0.0.1", port), "/", move |piece| {
        let http_client::Told::Failed(why) = piece else {
            panic!("nobody is there")
        };
        report.send(why).expect("the test listens");
    })
    .expect("a socket");
    events.run().expect("not running yet");
    let told = told.try_iter().collect::<Vec<_>>();
    assert!(
        matches!(&told[..], [why] if why.starts_with("socket: connect")),
        "{told:?}"
    );
}

#[test]
fn drain_count_hears_of_128_bytes_and_not_of_fewer() {
    let events = event_loop();
    let (report, told) = lines();
    let listener = drain_count::listen(&events, "127.0.0.1:0", report).expect("a free port");
    let address = address_of(&listener);
    run_against(&events, move || {
        let mut stream = client(address);
        // Too little to hear of, twice; together it is enough.
        stream.write_all(&[b'a'; 100]).expect("it reads");
        stream.write_all(&[b'b'; 100]).expect("it reads");
        let first = told
            .recv_timeout(PATIENCE)
            .expect("200 bytes are more than 128");
        let name = stream.local_addr().expect("connected");
        let drained = first
            .strip_prefix("drained ")
            .and_then(|rest| rest.strip_suffix(&format!(" bytes from {name}")))
            .and_then(|count| count.parse::<usize>().ok())
            .expect("a line of the account");
        assert!(
            (128..=200).contains(&drained),
            "{drained} bytes were told of"
        );
        stream.write_all(&[b'c'; 27]).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("connected");
        let last = told.recv_timeout(PATIENCE).expect("the end");
        let left = 227 - drained;
        assert_eq!(
            last,
            format!("{name} closed: {drained} bytes drained, {left} left")
        );
        assert_eq!(stream.read(&mut [0; 8]).expect("closed in order"), 0);
    });
}

#[test]
fn uppercase_sends_everything_back_in_upper_case() {
    let events = event_loop();
    let listener = uppercase::listen(&events, "127.0.0.1:0").expect("a free port");
    let address = address_of(&listener);
    run_against(&events, move || {
        let mut stream = client(address);
        // Not a multiple of the piece, and in writes of their own.
        let text = "It was the best of times, it was the worst of times. ".repeat(1000);
        for part in text.as_bytes().chunks(777) {
            stream.write_all(part).expect("it reads");
            let mut answer = vec![0; part.len()];
            stream.read_exact(&mut answer).expect("it answers");
            assert_eq!(answer, part.to_ascii_uppercase());
        }
        stream.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(stream.read(&mut [0; 8]).expect("closed in order"), 0);
    });
}

#[test]
fn proxy_passes_both_ways_and_each_end_by_itself() {
    const BYTES: usize = 3_000_000; // Far more than any mark.
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let target = upstream.local_addr().expect("bound").to_string();
    let events = event_loop();
    let listener = proxy::listen(&events, "127.0.0.1:0", &target).expect("a free port");
    let address = address_of(&listener);
    let asked: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
    let answer: Vec<u8> = asked.iter().rev().copied().collect();
    run_against(&events, move || {
        let expected = (asked.clone(), answer.clone());
        let server = thread::spawn(move || {
            let (mut stream, _) = upstream.accept().expect("the proxy connects");
            let mut got = Vec::new();
            stream
                .read_to_end(&mut got)
                .expect("the client's end comes through");
            stream
                .write_all(&answer)
                .expect("the way back is open still");
            got
        });
        let mut stream = client(address);
        stream.write_all(&asked).expect("the proxy reads");
        stream.shutdown(Shutdown::Write).expect("connected");
        let mut got = Vec::new();
        stream
            .read_to_end(&mut got)
            .expect("the server's end comes through");
        assert!(got == expected.1, "{} bytes came back", got.len());
        assert!(server.join().expect("it was asked") == expected.0);
    });
}

#[test]
fn fibonacci_refills_for_as_long_as_the_peer_reads() {
    const NUMBERS: usize = 20_000; // Some 390 refills.
    let events = event_loop();
    let listener = fibonacci::listen(&events, "127.0.0.1:0").expect("a free port");
    let address = address_of(&listener);
    run_against(&events, move || {
        let stream = BufReader::new(client(address));
        let mut expected = (0_u64, 1_u64);
        for line in stream.lines().take(NUMBERS) {
            assert_eq!(line.expect("it writes"), expected.1.to_string());
            expected = (expected.1, expected.0.wrapping_add(expected.1));
        }
    });
}

/// Sends `lines` and the client's end in one go, and returns the answers until the server's end.
fn hashes(address: SocketAddr, lines: &[String]) -> Vec<String> {
    let stream = client(address);
    let all: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut writing = stream.try_clone().expect("a clone");
    let sent = thread::spawn(move || {
        writing.write_all(all.as_bytes()).expect("it reads");
        writing.shutdown(Shutdown::Write).expect("connected");
    });
    let answers = BufReader::new(stream).lines();
    let answers = answers.map(|line| line.expect("it answers")).collect();
    sent.join().expect("all was sent");
    answers
}

#[test]
fn hash_server_answers_in_order_from_other_threads_with_a_queue_of_two() {
    const CLIENTS: usize = 12;
    const LINES: usize = 30;
    let two = std::num::NonZeroUsize::new(2).expect("not zero");
    let hashers = hash_server::Hashers::start(two, two).expect("threads");
    let events = event_loop();
    let listener = hash_server::listen(&events, "127.0.0.1:0", &hashers).expect("a free port");
    let address = address_of(&listener);
    run_against(&events, move || {
        // One that goes away with lines at work, and one that is no text.
        let mut gone = client(address);
        gone.write_all(b"one\ntwo\nthree\n").expect("it reads");
        drop(gone);
        let mut endless = client(address);
        endless.write_all(&[b'x'; 10_000]).expect("it reads");
        // Ended or reset: it says nothing.
        assert_eq!(endless.read(&mut [0; 1]).unwrap_or(0), 0);
        let clients = (0..CLIENTS).map(|number| {
            thread::spawn(move || {
                let line = |nth| format!("line {nth} of client {number}");
                let lines: Vec<_> = (0..LINES).map(line).collect();
                let hash = |line: &String| format!("{:016x}", hash_server::digest(line.as_bytes()));
                let expected: Vec<_> = lines.iter().map(hash).collect();
                assert_eq!(hashes(address, &lines), expected);
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.join().expect("it got what it expected");
        }
    });
    assert_eq!(events.stats().panics, 0);
}

#[test]
fn hash_server_does_not_read_from_whom_does_not_read() {
    const LIMIT: usize = 64 << 20;
    let one = std::num::NonZeroUsize::MIN;
    let hashers = hash_server::Hashers::start(one, one).expect("a thread");
    let events = event_loop();
    let listener = hash_server::listen(&events, "127.0.0.1:0", &hashers).expect("a free port");
    let address = address_of(&listener);
    run_against(&events, move || {
        let mut deaf = client(address);
        let quiet = Duration::from_millis(200);
        deaf.set_write_timeout(Some(quiet)).expect("not zero");
        let lines = "x\n".repeat(32 * 1024);
        let mut taken = 0;
        while taken < LIMIT
            && let Ok(count) = deaf.write(lines.as_bytes())
        {
            taken += count;
        }
        assert!(taken < LIMIT, "{taken} bytes and no end");
        // Others are served all the same.
        let expected = format!("{:016x}", hash_server::digest(b"hello"));
        assert_eq!(hashes(address, &["hello".into()]), [expected]);
    });
}

#[test]
fn a_layer_of_ones_own_stands_between_the_peer_and_the_echo() {
    let events = event_loop();
    let (sender, tops) = mpsc::channel();
    // As the example listens, and the top of each stack is handed to the test.
    let listener = Listener::bind(&events, "127.0.0.1:0", move |socket, _peer| {
        let top = own_layer::stack(&socket)?;
        sender.send(top).expect("the test listens");
        Ok::<(), bufferevent::Error>(())
    });
    let listener = listener.expect("a free port");
    let address = address_of(&listener);
    // Open until the test has looked.
    let _stream = run_against(&events, move || {
        let mut stream = client(address);
        stream.write_all(b"Uryyb, jbeyq").expect("it reads");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("it answers");
        // Turned on the way in, and back on the way out.
        assert_eq!(&answer, b"Uryyb, jbeyq");
        stream
    });
    let top = tops.try_recv().expect("one connection");
    assert_eq!(own_layer::letters(&top), Some(20), "ten letters, both ways");
    assert_eq!(top.underlying().expect("the socket").underlying(), None);
}

#[test]
fn patience_answers_and_tells_a_silent_client_good_bye() {
    let events = event_loop();
    let (report, told) = lines();
    let patience = patience::Patience {
        line: Duration::from_millis(300),
        answer: PATIENCE,
        farewell: PATIENCE,
    };
    let listen = |patience, report| {
        patience::listen(&events, "127.0.0.1:0", patience, report).expect("a free port")
    };
    let listener = listen(patience, report.clone());
    let address = address_of(&listener);
    let line = PATIENCE;
    let patient = listen(patience::Patience { line, ..patience }, report);
    let there = address_of(&patient);
    run_against(&events, move || {
        let since = Instant::now();
        let mut stream = client(address);
        stream.write_all(b"four\nand half").expect("sent");
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("an end in order");
        assert_eq!(all, "4\ngood-bye: no line came\n");
        assert!(since.elapsed() >= Duration::from_millis(300));
        // One that goes by itself has its answers first.
        let mut stream = client(there);
        stream.write_all(b"one\r\nthree\n\n").expect("sent");
        stream.shutdown(Shutdown::Write).expect("a socket");
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("an end in order");
        assert_eq!(all, "3\n5\n0\n");
    });
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(told, ["no line came", "the client has ended"]);
}

#[test]
fn patience_frees_who_takes_no_answers_and_who_never_ends() {
    let events = event_loop();
    let (report, told) = lines();
    let patience = patience::Patience {
        line: Duration::from_millis(400),
        answer: Duration::from_millis(200),
        farewell: Duration::from_millis(200),
    };
    let listen = |patience, report| {
        patience::listen(&events, "127.0.0.1:0", patience, report).expect("a free port")
    };
    let listener = listen(patience, report.clone());
    let address = address_of(&listener);
    let line = PATIENCE;
    let patient = listen(patience::Patience { line, ..patience }, report);
    let there = address_of(&patient);
    run_against(&events, move || {
        // It asks until nothing more is taken, and reads none of the answers.
        let mut stream = client(there);
        while stream.write_all(&[b'\n'; 64 * 1024]).is_ok() {}
        drop(stream);
        // It reads the good-bye, and stays.
        let stream = client(address);
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        assert_eq!(line, "good-bye: no line came\n");
        let mut rest = Vec::new();
        assert_eq!(reader.read_to_end(&mut rest).expect("an end in order"), 0);
        // Reset, when the time for it is over.
        while (&stream).write_all(b"still here\n").is_ok() {}
    });
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(
        told,
        ["nobody takes the answers", "no line came", "no farewell"]
    );
}

#[test]
fn faucet_gives_each_client_its_rate_and_all_together_theirs() {
    const EACH: u64 = 400 << 10;
    const ALL: u64 = 600 << 10;
    let rate = |bytes| faucet::per_second(bytes).expect("not zero");
    let events = event_loop();
    let (listener, group) =
        faucet::listen(&events, "127.0.0.1:0", rate(EACH), rate(ALL)).expect("a free port");
    let address = address_of(&listener);
    let takes = move |bytes: u64| {
        let mut stream = client(address);
        let mut taken = vec![0; usize::try_from(bytes).expect("little")];
        stream.read_exact(&mut taken).expect("it goes on and on");
    };
    run_against(&events, move || {
        // A burst, and the rest at the rate.
        let since = Instant::now();
        takes(EACH / 2);
        let least = Duration::from_millis(400);
        assert!(since.elapsed() >= least, "{:?}", since.elapsed());
        // Three could have twice as much as there is for all.
        let since = Instant::now();
        let all: Vec<_> = (0..3)
            .map(|_| thread::spawn(move || takes(ALL / 6)))
            .collect();
        all.into_iter()
            .for_each(|one| one.join().expect("it has its share"));
        assert!(since.elapsed() >= least, "{:?}", since.elapsed());
    });
    let (_, written) = group.totals();
    assert!(written >= EACH / 2 + ALL / 2, "{written}");
}
