//! Answers each line with its hash, which takes a while: other threads compute it and write the answer themselves.
//!
//! ```text
//! cargo run --example hash_server -- 127.0.0.1:7000
//! ```
//!
//! The callback hands a line over and returns, so the loop goes on with the other connections. The bufferevents are `THREADSAFE`:
//! whoever has computed writes the answer and lets the connection read on, from its own thread. (Without that option the thread
//! would `post` a closure that does the same on the loop's thread.)
//!
//! # Who waits for whom
//! - A connection has at most one line at work, so its answers come in order. Meanwhile it is suspended: that is the mark of being
//!   at work or in line.
//! - The queue has a fixed size. Who finds it full stays suspended, with its line unread, and is resumed when a place is free.
//! - A client that does not read its answers is not read either. The kernel's buffers fill up, and the sender stops.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bufferevent::evbuffer::Eol;
use bufferevent::{
    Bev, Direction, Error, Event, EventLoop, Handler, Interest, Listener, LoopHandle, Options,
    Pressure, READ, Reasons, TriggerOptions,
};

/// The longest line, in bytes.
const MAX_LINE: usize = 4096;

/// Bytes that may wait in each direction of a connection, apart from one read.
const MARK: usize = 16 * 1024;

/// How long the last answers may take to be read after the client's end.
const LINGER: Duration = Duration::from_secs(10);

/// Jobs that wait for a thread.
const QUEUE: usize = 64;

/// How often the hash is taken of itself: slow on purpose.
const ROUNDS: u32 = 20_000;

/// The hash of a line: FNV-1a, again and again.
pub(crate) fn digest(line: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let first = line.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    (0..ROUNDS).fold(first, |hash, _| hash.to_le_bytes().iter().fold(hash, fnv))
}

/// A line, and who is to have the answer.
struct Job {
    client: Bev,
    line: Vec<u8>,
}

/// What the loop and the threads share.
struct Queue {
    state: Mutex<State>,
    size: NonZeroUsize,
    /// There is a job, or there will be none any more.
    news: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Found the queue full. Suspended, so each is here once.
    in_line: Vec<Bev>,
    is_closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a place. If not, `client` is let on when there is one. Only the loop's thread fills places, so this one
    /// is still free when the job is there.
    fn has_place(&self, client: &Bev) -> bool {
        let mut state = self.state();
        let has_place = state.jobs.len() < self.size.get();
        if !has_place {
            state.in_line.push(client.clone());
        }
        has_place
    }

    fn add(&self, job: Job) {
        self.state().jobs.push_back(job);
        self.news.notify_one();
    }

    /// The next job, and who may have its place; `None` when all is over. All of those in line may try: the first of them may be
    /// gone, or have no whole line, and would not pass the place on.
    fn take(&self) -> Option<(Job, Vec<Bev>)> {
        let mut state = self.state();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some((job, std::mem::take(&mut state.in_line)));
            }
            state = self
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Threads that compute. They end when this is dropped.
pub(crate) struct Hashers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Hashers {
    pub(crate) fn start(threads: NonZeroUsize, queue: NonZeroUsize) -> std::io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            size: queue,
            news: Condvar::new(),
        });
        let mut hashers = Self {
            queue: queue.clone(),
            threads: Vec::new(),
        };
        for index in 0..threads.get() {
            let queue = queue.clone();
            let thread = std::thread::Builder::new().name(format!("hasher-{index}"));
            hashers.threads.push(thread.spawn(move || work(&queue))?);
        }
        Ok(hashers)
    }
}

impl Drop for Hashers {
    fn drop(&mut self) {
        self.queue.state().is_closed = true;
        self.queue.news.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// What each thread does.
fn work(queue: &Queue) {
    while let Some((Job { client, line }, in_line)) = queue.take() {
        for next in in_line {
            // Gone meanwhile: then it needs no place.
            let _ = go_on(&next);
        }
        let answer = format!("{:016x}\n", digest(&line));
        // Held, so that the loop sees the answer and the permission to read on as one.
        let Ok(_lock) = client.lock() else { continue };
        // The client may be gone meanwhile: then nobody wants the answer.
        let _ = client
            .write(answer.as_bytes())
            .and_then(|()| go_on(&client));
    }
}

/// Lets a connection read on, and has its read callback look at what it has already.
fn go_on(client: &Bev) -> Result<(), Error> {
    client.resume(READ)?;
    client.trigger(READ, TriggerOptions::EMPTY)
}

/// One connection. All of this runs on the loop's thread.
struct Client {
    queue: Arc<Queue>,
    /// The peer has ended; its last lines may still be here.
    has_ended: bool,
}

impl Client {
    fn next_line(&self, bev: &Bev) -> Result<(), Error> {
        let is_busy = bev
            .suspended(Direction::Read)
            .contains(Reasons::APPLICATION);
        if is_busy || bev.room() == 0 {
            return Ok(());
        }
        // First: whoever lets it on, from another thread, finds it suspended.
        bev.suspend(READ)?;
        if !self.queue.has_place(bev) {
            return Ok(());
        }
        match bev.input().read_line(Eol::Crlf, MAX_LINE)? {
            Some(line) => {
                let client = bev.clone();
                self.queue.add(Job { client, line });
                Ok(())
            }
            None if self.has_ended => bev.close(LINGER),
            None => bev.resume(READ),
        }
    }
}

impl Handler for Client {
    fn interest(&self) -> Interest {
        Interest::READ | Interest::PRESSURE | Interest::EVENT
    }

    fn on_read(&mut self, bev: &Bev) {
        if self.next_line(bev).is_err() {
            // Not a line, or freed already.
            let _ = bev.free();
        }
    }

    fn on_pressure(&mut self, bev: &Bev, pressure: Pressure) {
        if pressure == Pressure::Eased {
            self.on_read(bev);
        }
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        match event {
            Event::Eof => {
                self.has_ended = true;
                self.on_read(bev);
            }
            Event::Error { .. } => drop(bev.free()),
            _ => {}
        }
    }
}

/// Listens at `address`.
pub(crate) fn listen(
    events: &LoopHandle,
    address: &str,
    hashers: &Hashers,
) -> Result<Listener, Error> {
    let queue = hashers.queue.clone();
    Listener::builder(events)
        .options(Options::THREADSAFE)
        .nodelay(true)
        .bind(address, move |bev, _peer| {
            bev.set_read_watermark(0, MARK)?;
            bev.set_write_watermark(0, MARK)?;
            bev.set_handler(Client {
                queue: queue.clone(),
                has_ended: false,
            })?;
            bev.enable(READ)
        })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".into());
    let events = EventLoop::new()?;
    let threads = std::thread::available_parallelism()?;
    let queue = NonZeroUsize::new(QUEUE).ok_or("a queue has a place")?;
    let hashers = Hashers::start(threads, queue)?;
    let listener = listen(&events, &address, &hashers)?;
    println!("listening on {}", listener.local_addr()?);
    events.run()?;
    Ok(())
}
