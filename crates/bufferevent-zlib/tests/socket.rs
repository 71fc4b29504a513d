//! The filter on real sockets, against bare flate2 on the standard library's.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bufferevent_core::{Bev, Event, Kind, Options, READ, on_event};
use bufferevent_filter::FilterExt;
use bufferevent_socket::Builder;
use bufferevent_testkit::{Log, Told};
use bufferevent_zlib::{Format, Zlib};
use evreactor::EventLoop;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

/// A test that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    far.set_write_timeout(Some(PATIENCE)).unwrap();
    (near, far)
}

fn over_socket(events: &EventLoop, stream: TcpStream, filter: Zlib) -> (Bev, Log) {
    let bev = Builder::new(events).stream(stream).unwrap();
    let top = bev.filter(Options::CLOSE_ON_FREE, filter).unwrap();
    let log = Log::new();
    top.set_handler(log.take_all()).unwrap();
    top.enable(READ).unwrap();
    (top, log)
}

/// Runs the loop until `done`, or fails.
fn until(events: &EventLoop, what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        events.poll().unwrap();
        thread::yield_now();
    }
}

#[test]
fn a_megabyte_each_way_and_a_clean_end() {
    for format in [Format::Zlib, Format::Gzip] {
        let events = EventLoop::new().unwrap();
        let (near, far) = connected();
        let plain: Vec<u8> = (0..1_000_000_u32)
            .flat_map(|n| (n / 7 % 251).to_string().into_bytes())
            .take(1 << 20)
            .collect();
        let expected = plain.clone();
        let peer = thread::spawn(move || {
            let mut back = far.try_clone().unwrap();
            let mut got = Vec::new();
            let answer = match format {
                Format::Gzip => {
                    GzDecoder::new(far).read_to_end(&mut got).unwrap();
                    let mut writer = GzEncoder::new(Vec::new(), Compression::new(6));
                    writer.write_all(&got).unwrap();
                    writer.finish().unwrap()
                }
                _ => {
                    ZlibDecoder::new(far).read_to_end(&mut got).unwrap();
                    let mut writer = ZlibEncoder::new(Vec::new(), Compression::new(6));
                    writer.write_all(&got).unwrap();
                    writer.finish().unwrap()
                }
            };
            back.write_all(&answer).unwrap();
            back.shutdown(Shutdown::Write).unwrap();
            got
        });
        let (top, log) = over_socket(
            &events,
            near,
            Zlib::builder().format(format).build().unwrap(),
        );
        top.write(&plain).unwrap();
        top.finish().unwrap();
        until(&events, "the answer's end", || log.has(&Told::Eof));
        assert!(log.received() == expected);
        assert!(peer.join().unwrap() == expected);
        let stats = top
            .filter_of::<Zlib>()
            .unwrap()
            .with(|filter| filter.stats())
            .unwrap();
        assert_eq!((stats.input.plain, stats.output.plain), (1 << 20, 1 << 20));
        assert!(stats.output.ratio().unwrap() > 3.0);
    }
}

#[test]
fn a_connection_that_breaks_off_is_truncated() {
    let events = EventLoop::new().unwrap();
    let (near, mut far) = connected();
    let (top, _) = over_socket(&events, near, Zlib::default());
    let (tell, told) = std::sync::mpsc::channel();
    top.set_handler(on_event(move |_, event| {
        if let Event::Error { error, .. } = event {
            tell.send((error.kind(), error.layer())).unwrap();
        } else {
            panic!("{event:?}");
        }
    }))
    .unwrap();
    let mut writer = ZlibEncoder::new(Vec::new(), Compression::new(6));
    writer.write_all(b"half of what was meant").unwrap();
    writer.flush().unwrap();
    far.write_all(writer.get_ref()).unwrap();
    drop(far);
    let mut heard = None;
    until(&events, "the error", || {
        heard = told.try_recv().ok();
        heard.is_some()
    });
    assert_eq!(heard, Some((Kind::Truncated, "zlib")));
    assert_eq!(top.input().len(), 22);
}
