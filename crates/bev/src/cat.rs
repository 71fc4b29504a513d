//! `bev cat`: joins an address to standard input and output.
//!
//! Standard input may be a file, which no loop can wait for, so each of the two has a thread that does nothing but read or
//! write. The loop's side is one handler; threads post to it, and it answers through two bounded channels.
//!
//! # Invariants
//! - Standard input is read only against a credit; there are [`CREDITS`] of them, and one is given back when the output has
//!   room. So at most the mark and [`CREDITS`] pieces wait.
//! - One piece at a time is with the writing thread. While it is, what arrives waits in the input, which stops at its mark.
//! - The program ends when both directions have: standard input and what was read of it is sent, and the peer's end
//!   has come and all before it is written. On a terminal the peer's end is enough.
//! - Neither thread is waited for at the end: one may be stuck in a read that never returns.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bufferevent::evbuffer::EvBuffer;
use bufferevent::{
    Bev, Deadline, Direction, Event, EventLoop, Handler, Interest, LoopHandle, Pressure, READ,
};

use crate::cli::{CatOptions, Common};
use crate::exit::{Chain, Code, Failure};
use crate::layers::Stack;
use crate::limits::{Limits, TooLate};

/// Bytes that are read from standard input at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Pieces that may be under way from standard input: one is read while the other is taken over.
const CREDITS: usize = 2;

/// The two streams of the process and the connection between them, as the loop sees them.
struct Cat {
    events: LoopHandle,
    address: String,
    pieces: SyncSender<EvBuffer>,
    credits: SyncSender<()>,
    /// The peer's end alone ends the program.
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The writing thread has a piece.
    writing: bool,
    /// Credits that wait for room in the output.
    owed: usize,
    /// Nothing more is sent: the end is out, or cannot be.
    sent_all: bool,
    /// Nothing more comes.
    peer_ended: bool,
    failure: Option<Failure>,
}

/// Runs `bev cat`.
pub(crate) fn run(
    events: &EventLoop,
    common: &Common,
    options: &CatOptions,
) -> Result<(), Failure> {
    let stack = Stack::prepare(&options.connect)?;
    let names = common.resolver.on(events)?;
    let limits = Limits {
        resolve: options.resolve_timeout,
        connect: Some(options.connect_timeout),
        ..Limits::default()
    };
    let (pieces, to_write) = sync_channel(1);
    let (credits, granted) = sync_channel(CREDITS);
    let cat = Arc::new(Cat {
        events: LoopHandle::clone(events),
        address: options.connect.to_string(),
        pieces,
        credits,
        terminal: io::stdin().is_terminal(),
        state: Mutex::default(),
    });
    let unreachable = |error: bufferevent::Error| cat.unreachable(&error);
    let bev = names
        .connect(events, &options.connect.endpoint, limits.pace())
        .and_then(|transport| stack.put_on(&transport, None))
        .map_err(unreachable)?;
    let mark = options.buffer.get();
    bev.set_handler(Joint(cat.clone()))
        .and_then(|()| bev.set_read_watermark(0, mark))
        .and_then(|()| bev.set_write_watermark(0, mark))
        .and_then(|()| bev.set_connect_timeout(limits.connect))
        .and_then(|()| bev.enable(READ))
        .map_err(Failure::during("connecting"))?;
    let (reading, writing) = ((cat.clone(), bev.clone()), (cat.clone(), bev));
    let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name(name.into()).spawn(work);
        thread
            .map(drop)
            .map_err(Failure::during("starting a thread"))
    };
    start(
        "stdin",
        Box::new(move || read_standard_input(&reading.0, &reading.1, &granted)),
    )?;
    start(
        "stdout",
        Box::new(move || write_standard_output(&writing.0, &writing.1, &to_write)),
    )?;
    for _ in 0..CREDITS {
        cat.grant();
    }
    events
        .run_until_exit()
        .map_err(Failure::during("the event loop"))?;
    let failure = cat.state().failure.take();
    failure.map_or(Ok(()), Err)
}

/// The reading thread.
fn read_standard_input(cat: &Arc<Cat>, bev: &Bev, granted: &Receiver<()>) {
    let mut stdin = io::stdin().lock();
    while granted.recv().is_ok() {
        let mut piece = EvBuffer::new();
        let read = loop {
            match piece.read_from(&mut stdin, PIECE_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let (on_loop, bev) = (cat.clone(), bev.clone());
        let posted = match read {
            Ok(1..) => cat.events.post(move || on_loop.send(&bev, piece)),
            end => {
                // The last thing that this thread does.
                let _ = cat
                    .events
                    .post(move || on_loop.input_ended(&bev, end.map(drop)));
                return;
            }
        };
        if posted.is_err() {
            return;
        }
    }
}

/// The writing thread.
fn write_standard_output(cat: &Arc<Cat>, bev: &Bev, to_write: &Receiver<EvBuffer>) {
    let mut stdout = io::stdout().lock();
    for mut piece in to_write {
        let written = loop {
            match piece.write_to(&mut stdout, PIECE_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
                Ok(_) if !piece.is_empty() => {}
                Ok(_) => break stdout.flush(),
            }
        };
        let (on_loop, bev) = (cat.clone(), bev.clone());
        if cat
            .events
            .post(move || on_loop.written(&bev, written))
            .is_err()
        {
            return;
        }
    }
}

/// What happens on the loop's thread.
impl Cat {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self) {
        // There is room for every credit; only a thread that has ended does not take it.
        let _ = self.credits.try_send(());
    }

    /// A piece of standard input.
    fn send(&self, bev: &Bev, mut piece: EvBuffer) {
        // A refusal means that the peer takes no more; the event callback hears of that.
        let _ = bev.write_buffer(&mut piece);
        if bev.room() > 0 {
            self.grant();
        } else {
            self.state().owed += 1;
        }
    }

    /// The end of standard input.
    fn input_ended(&self, bev: &Bev, end: io::Result<()>) {
        if let Err(error) = end {
            self.fail(Failure::because(
                Code::Runtime,
                "cannot read standard input",
                &error,
            ));
            self.events.exit();
            return;
        }
        // It has ended before, if the peer takes no more.
        if bev.finish().is_err() {
            self.state().sent_all = true;
            self.settle(bev);
        }
    }

    /// The writing thread is done with its piece.
    fn written(&self, bev: &Bev, written: io::Result<()>) {
        if let Err(error) = written {
            self.fail(Failure::because(
                Code::Runtime,
                "cannot write standard output",
                &error,
            ));
            self.events.exit();
            return;
        }
        self.state().writing = false;
        self.hand_over(bev);
        self.settle(bev);
    }

    /// Gives what has arrived to the writing thread, if that is idle.
    fn hand_over(&self, bev: &Bev) {
        // Said first: outside of a handler, taking from the input reads on at once, and calls this again.
        if std::mem::replace(&mut self.state().writing, true) {
            return;
        }
        let mut piece = EvBuffer::new();
        // Freed: then there is nothing to take.
        if bev.read_buffer(&mut piece).is_ok_and(|count| count > 0) {
            // The thread has taken the piece before this one.
            let _ = self.pieces.try_send(piece);
        } else {
            self.state().writing = false;
        }
    }

    /// Ends the program if both directions have ended.
    fn settle(&self, bev: &Bev) {
        let state = self.state();
        let received_all = state.peer_ended && !state.writing && bev.input().is_empty();
        if received_all && (state.sent_all || self.terminal) {
            self.events.exit();
        }
    }

    fn fail(&self, failure: Failure) {
        // The first one is the cause.
        self.state().failure.get_or_insert(failure);
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Failure {
        let what = format_args!("cannot connect to {}", self.address);
        Failure::because(Code::Unreachable, what, error)
    }
}

/// The handler of the connection.
struct Joint(Arc<Cat>);

impl Handler for Joint {
    fn interest(&self) -> Interest {
        Interest::READ | Interest::PRESSURE | Interest::EVENT
    }

    fn on_read(&mut self, bev: &Bev) {
        self.0.hand_over(bev);
    }

    fn on_pressure(&mut self, _bev: &Bev, pressure: Pressure) {
        if pressure == Pressure::Eased {
            let owed = std::mem::take(&mut self.0.state().owed);
            for _ in 0..owed {
                self.0.grant();
            }
        }
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        let cat = &self.0;
        match event {
            Event::Eof => cat.state().peer_ended = true,
            Event::Written => cat.state().sent_all = true,
            Event::Error {
                direction: None,
                error,
            } => {
                cat.fail(cat.unreachable(error));
                cat.events.exit();
            }
            Event::Timeout(late @ Deadline::Connect) => {
                cat.fail(cat.unreachable(&TooLate(*late)));
                cat.events.exit();
            }
            Event::Error {
                direction: Some(direction),
                error,
            } => {
                let message = format!("{}: the connection broke: {}", cat.address, Chain(error));
                cat.fail(Failure::new(Code::Runtime, message));
                let mut state = cat.state();
                state.sent_all = true;
                state.peer_ended |= *direction == Direction::Read;
            }
            _ => {}
        }
        cat.settle(bev);
    }
}
