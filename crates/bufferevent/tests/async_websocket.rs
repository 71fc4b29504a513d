//! A WebSocket library from crates.io on `AsyncBev`, unchanged: over TCP, over TLS and zlib on TCP, and over a pair without a
//! descriptor; with itself, and with a client that somebody else wrote (python3's standard library and forty lines).

use std::future::Future as _;
use std::io;
#[cfg(unix)]
use std::process::{Command, Stdio};
use std::time::Duration;

use async_tungstenite::tungstenite::{Bytes, Error, Message};
use async_tungstenite::{WebSocketStream, accept_async, client_async};
use bufferevent::filter::FilterExt as _;
use bufferevent::task::{self, Task};
use bufferevent::{
    Address, AsyncBev, Bev, EventLoop, Listener, LoopHandle, Options, Socket, TlsClient, TlsServer,
    Zlib, pair,
};
use bufferevent_testkit::Random;
use futures_util::{AsyncWriteExt as _, StreamExt as _};

/// A test that has not ended by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that a client sends.
const MESSAGES: usize = 60;

/// Sends every message back until the peer closes. Returns how many.
async fn serve(bev: AsyncBev) -> Result<usize, Error> {
    let mut stream = accept_async(bev).await?;
    let mut echoed = 0;
    while let Some(message) = stream.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            stream.send(message).await?;
            echoed += 1;
        }
    }
    // The library leaves the stream to its owner: without this, layers would tell the client of a stream that broke off.
    stream.into_inner().close().await?;
    Ok(echoed)
}

/// Messages from nothing to 300 KiB, all under way before the first answer is read: both sides write against a full output.
async fn talk(bev: AsyncBev) -> Result<(), Error> {
    let (stream, response) = client_async("ws://localhost/chat", bev).await?;
    assert_eq!(response.status(), 101);
    let mut random = Random::new(4);
    let messages: Vec<_> = (0..MESSAGES)
        .map(|at| {
            let count = if at % 20 == 7 {
                300_000
            } else {
                random.below(2_000)
            };
            Message::Binary(Bytes::from(random.bytes(count)))
        })
        .collect();
    let (mut sink, mut stream) = stream.split();
    let sent = messages.clone();
    let sending = async move {
        for message in sent {
            sink.send(message).await?;
        }
        Ok::<_, Error>(sink)
    };
    let receiving = async {
        for message in &messages {
            let answer = stream.next().await.expect("an answer to each")?;
            assert!(answer == *message, "another message came back");
        }
        Ok::<_, Error>(stream)
    };
    let (sink, stream) = futures_util::future::try_join(sending, receiving).await?;
    let mut whole = WebSocketStream::reunite(sink, stream).expect("halves of one");
    whole.close(None).await?;
    while let Some(message) = whole.next().await {
        assert!(message?.is_close());
    }
    Ok(())
}

/// Runs a client's and a server's future to their ends.
fn run(events: &EventLoop, server: AsyncBev, client: AsyncBev) {
    let served = task::spawn(events, serve(server)).unwrap();
    let talked = task::spawn(events, talk(client)).unwrap();
    let stop = LoopHandle::clone(events);
    let both: Task<usize> = task::spawn(events, async move {
        let (talked, served) = (talked.await, served.await);
        stop.exit();
        talked.unwrap().expect("the client's end");
        served.unwrap().expect("the server's end")
    })
    .unwrap();
    finish(events, both, MESSAGES);
}

/// Runs the loop until `task` is over and has stopped it.
fn finish(events: &EventLoop, task: Task<usize>, expected: usize) {
    events.exit_after(PATIENCE).unwrap();
    events.run_until_exit().unwrap();
    assert!(task.is_over(), "it hangs");
    let mut task = std::pin::pin!(task);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let result = task.as_mut().poll(&mut cx);
    assert_eq!(result, std::task::Poll::Ready(Ok(expected)));
}

/// Two TCP sockets that are connected, accepted and all.
fn sockets(events: &EventLoop) -> (Bev, Bev) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let stop = LoopHandle::clone(events);
    let listener = Listener::bind(events, "127.0.0.1:0", move |bev, _| {
        sender.send(bev).expect("the test waits");
        stop.exit();
        Ok(())
    })
    .unwrap();
    let Address::Tcp(address) = listener.local_addr().unwrap() else {
        unreachable!("it was bound to one")
    };
    let client = Socket::connect_to(events, address).unwrap();
    events.run_until_exit().unwrap();
    (receiver.try_recv().expect("it was accepted"), client)
}

/// TLS, and zlib in it, on both.
fn layered((server, client): (Bev, Bev)) -> (Bev, Bev) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let tls_server = TlsServer::builder()
        .certificate(chain.as_bytes(), key.as_bytes())
        .build()
        .unwrap();
    let tls_client = TlsClient::builder("localhost")
        .roots_pem(chain.as_bytes())
        .build()
        .unwrap();
    let server = server.filter(Options::CLOSE_ON_FREE, tls_server.filter().unwrap());
    let client = client.filter(Options::CLOSE_ON_FREE, tls_client.filter().unwrap());
    let zlib = |bev: Bev| bev.filter(Options::CLOSE_ON_FREE, Zlib::default()).unwrap();
    (zlib(server.unwrap()), zlib(client.unwrap()))
}

fn both((server, client): (Bev, Bev)) -> (AsyncBev, AsyncBev) {
    (
        AsyncBev::new(server).unwrap(),
        AsyncBev::new(client).unwrap(),
    )
}

#[test]
fn over_a_pair() {
    let events = EventLoop::new().unwrap();
    let (server, client) = both(pair(&events).unwrap());
    run(&events, server, client);
}

#[test]
fn over_tcp() {
    let events = EventLoop::new().unwrap();
    let (server, client) = both(sockets(&events));
    run(&events, server, client);
}

#[test]
fn over_zlib_over_tls_over_tcp() {
    let events = EventLoop::new().unwrap();
    let (server, client) = both(layered(sockets(&events)));
    run(&events, server, client);
}

#[test]
fn over_zlib_over_tls_over_a_pair() {
    let events = EventLoop::new().unwrap();
    let (server, client) = both(layered(pair(&events).unwrap()));
    run(&events, server, client);
}

#[test]
fn a_stream_that_breaks_off_is_an_error_of_the_library_with_our_cause() {
    let events = EventLoop::new().unwrap();
    let (server, client) = both(layered(pair(&events).unwrap()));
    let serving = task::spawn(&events, async move {
        let mut stream = accept_async(server).await.unwrap();
        stream.next().await.expect("an end").unwrap_err()
    })
    .unwrap();
    let stop = events.clone();
    let asking = task::spawn(&events, async move {
        let (stream, _) = client_async("ws://localhost/", client).await.unwrap();
        drop(stream); // Neither a close frame nor an end mark of zlib or TLS.
        let Error::Io(error) = serving.await.unwrap() else {
            panic!("another kind of error")
        };
        let cause = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<bufferevent::Error>());
        assert_eq!(
            cause.map(bufferevent::Error::kind),
            Some(bufferevent::Kind::Truncated)
        );
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        stop.exit();
        1
    })
    .unwrap();
    finish(&events, asking, 1);
}

/// A WebSocket client by hand, on blocking sockets.
#[cfg(unix)]
const PYTHON: &str = r#"
import base64, hashlib, os, socket, struct, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=50)
key = base64.b64encode(os.urandom(16)).decode()
s.sendall((f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
f = s.makefile("rb")
assert b" 101 " in f.readline()
accept = None
while (line := f.readline().strip()):
    name, _, value = line.decode().partition(": ")
    if name.lower() == "sec-websocket-accept":
        accept = value
guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
assert accept == base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()
def send(opcode, data):
    mask = os.urandom(4)
    n = len(data)
    size = bytes([0x80 | n]) if n < 126 else bytes([0xFE]) + struct.pack(">H", n) if n < 65536 else bytes([0xFF]) + struct.pack(">Q", n)
    s.sendall(bytes([0x80 | opcode]) + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
def receive():
    head, n = f.read(2)
    if n == 126: n = struct.unpack(">H", f.read(2))[0]
    elif n == 127: n = struct.unpack(">Q", f.read(8))[0]
    return head & 15, f.read(n)
for n in [0, 5, 125, 126, 4000, 70000]:
    data = os.urandom(n)
    send(2, data)
    assert receive() == (2, data), n
send(9, b"ping"); assert receive() == (10, b"ping")
send(8, struct.pack(">H", 1000)); assert receive()[0] == 8
assert f.read() == b""
print("talked")
"#;

#[test]
#[cfg(unix)] // Where the checks ask for python3.
fn with_a_client_that_somebody_else_wrote() {
    let events = EventLoop::new().unwrap();
    let (on, stop) = (events.clone(), events.clone());
    let (sender, receiver) = std::sync::mpsc::channel();
    let listener = Listener::bind(&events, "127.0.0.1:0", move |bev, _| {
        let (bev, stop) = (AsyncBev::new(bev)?, stop.clone());
        let served = task::spawn(&on, async move {
            let served = serve(bev).await;
            stop.exit();
            served.expect("the server's end")
        })?;
        sender.send(served).expect("the test waits");
        Ok(())
    })
    .unwrap();
    let Address::Tcp(address) = listener.local_addr().unwrap() else {
        unreachable!("it was bound to one")
    };
    let client = Command::new("python3")
        .args(["-c", PYTHON, &address.port().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let late = events.clone();
    let patience = events.after(PATIENCE, move || late.exit()).unwrap();
    events.run_until_exit().unwrap();
    drop(patience);
    let served = receiver.try_recv().expect("it was accepted");
    // The bufferevent was given up behind its last byte, and leaves in the loop's next turns.
    while !served.is_over() {
        events.run_once().unwrap();
    }
    let output = std::thread::spawn(|| client.wait_with_output());
    drop(listener);
    events.run().unwrap();
    let output = output.join().unwrap().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "talked");
    finish_count(served, 6);
}

#[cfg(unix)]
fn finish_count(task: Task<usize>, expected: usize) {
    let mut task = std::pin::pin!(task);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let result = task.as_mut().poll(&mut cx);
    assert_eq!(result, std::task::Poll::Ready(Ok(expected)));
}
