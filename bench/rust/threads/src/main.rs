//! The benchmark of threads, our side: echo servers with and without THREADSAFE, echo servers on several loops, and
//! writes from one thread into a connection of another.
//!
//! ```text
//! threads echo confined|threadsafe     serves echoes on one loop until it is ended
//! threads workers N                    serves echoes on N loops until it is ended
//! threads write SECONDS                writes from another thread; prints one line of JSON
//! ```
//!
//! The servers are started like every other server of the benchmarks: `bench/c/peer.h` says how. `write` does what
//! `bench/c/threads_libevent.c` does, step by step.

#![forbid(unsafe_code)]

mod write;

use std::error::Error;
use std::num::NonZeroUsize;

use bufferevent::evreactor::LoopPool;
use bufferevent::{Bev, EventLoop, Listener, Options, READ, on_read};

/// Anything that goes wrong ends the program with its reason.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// As `BACKLOG` of `bench/c/peer.h`.
const BACKLOG: u16 = 4096;

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["echo", "confined"] => echo(Options::EMPTY),
        ["echo", "threadsafe"] => echo(Options::THREADSAFE),
        ["workers", count] => workers(count.parse()?),
        ["write", seconds] => write::run(seconds.parse()?),
        _ => Err("usage: threads echo confined|threadsafe, workers N, write SECONDS".into()),
    }
}

fn serve(bev: &Bev) -> Result<(), bufferevent::Error> {
    bev.set_handler(on_read(|bev| drop(bev.output().append_from(&bev.input()))))?;
    bev.enable(READ)
}

fn echo(options: Options) -> Outcome<()> {
    let events = EventLoop::new()?;
    let listener = Listener::builder(&events)
        .nodelay(true)
        .backlog(BACKLOG)
        .options(options)
        .bind("127.0.0.1:0", |bev, _peer| serve(&bev))?;
    println!("{}", listener.local_addr()?);
    events.run()?;
    Ok(())
}

fn workers(count: NonZeroUsize) -> Outcome<()> {
    let pool = LoopPool::builder(count).start()?;
    let [first, others @ ..] = pool.handles() else {
        return Err("a pool has a loop".into());
    };
    let listeners = Listener::builder(first)
        .nodelay(true)
        .backlog(BACKLOG)
        .bind_each(others, "127.0.0.1:0", |_index, bev, _peer| serve(&bev))?;
    println!("{}", listeners[0].local_addr()?);
    loop {
        std::thread::park(); // Until it is ended.
    }
}
