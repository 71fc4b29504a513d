//! Writes of 100 bytes from one thread into a connection whose loop runs on another, over loopback TCP; a third thread takes what
//! arrives.
//!
//! # Invariants
//! - What arrives is counted, and its end compared with what was written: nothing is lost, and a fast wrong program is no result.
//! - The writer looks at what waits every [`BETWEEN_LOOKS`] writes, and yields while it is more than [`MOST_WAITING`]: memory is
//!   bounded, and the rate is that of the whole way.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bufferevent::{Builder, Calls, EventLoop, Options};

use crate::Outcome;

/// Bytes of one write.
const MESSAGE: usize = 100;

/// Writes between two looks at what waits.
const BETWEEN_LOOKS: u64 = 64;

/// Bytes that may wait in the output.
const MOST_WAITING: usize = 1 << 20;

/// Bytes that the receiver takes at a time.
const PIECE: usize = 256 * 1024;

/// Takes all that arrives; answers how many bytes.
fn receive(mut stream: TcpStream) -> std::io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut taken = 0;
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(taken),
            count => taken += count as u64,
        }
    }
}

pub(crate) fn run(seconds: f64) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    near.set_nodelay(true)?;
    let (far, _) = listener.accept()?;
    let receiver = thread::spawn(move || receive(far));

    let (started, bev) = mpsc::channel();
    let looping = thread::spawn(move || -> Result<_, String> {
        let events = EventLoop::new().map_err(|error| error.to_string())?;
        let bev = Builder::new(&events)
            .options(Options::THREADSAFE)
            .stream(near);
        let bev = bev.map_err(|error| error.to_string())?;
        started
            .send((bev, events.clone()))
            .map_err(|error| error.to_string())?;
        events.run_until_exit().map_err(|error| error.to_string())?;
        Ok((Calls::of_thread().sends, events.stats()))
    });
    let (bev, events) = bev.recv()?;

    let message = [b'x'; MESSAGE];
    let span = Duration::from_secs_f64(seconds);
    let began = Instant::now();
    let mut writes = 0_u64;
    let mut yields = 0_u64;
    while began.elapsed() < span {
        for _ in 0..BETWEEN_LOOKS {
            bev.write(&message)?;
        }
        writes += BETWEEN_LOOKS;
        while bev.output().len() > MOST_WAITING {
            thread::yield_now();
            yields += 1;
        }
    }
    // All the way: what still waits is part of what was asked for.
    bev.finish()?;
    let taken = receiver.join().map_err(|_| "the receiver panicked")??;
    let wall = began.elapsed().as_secs_f64();
    events.exit();
    let (sends, stats) = looping.join().map_err(|_| "the loop panicked")??;
    if taken != writes * MESSAGE as u64 {
        return Err(format!("{taken} bytes of {writes} writes arrived").into());
    }
    println!(
        r#"{{"writes": {writes}, "wall_s": {wall}, "sends": {sends}, "waits": {}, "wakes": {}, "yields": {yields}}}"#,
        stats.polls, stats.wakes
    );
    Ok(())
}
