//! The model of a filter: passes bytes through unchanged, in ways that real filters have and that are easy to get wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bufferevent_core::{Bufferevent, Context, Mode, Step};
use evbuffer::EvBuffer;

/// What each side of a handshake sends, and waits for.
const HELLO: &[u8] = b"hello, other side;";

/// A layer that passes bytes through.
///
/// ```
/// use bufferevent_core::{Options, READ};
/// use bufferevent_pair::pair;
/// use bufferevent_testkit::{Loop, Through};
///
/// let events = Loop::new();
/// let (near, far) = pair(&events)?;
/// let top = near.over(Options::EMPTY, Through::new().chunk(2))?; // two bytes per step
/// far.write(b"hello")?;
/// top.enable(READ)?;
/// events.run();
/// assert_eq!(top.input().len(), 5);
/// # Ok::<(), bufferevent_core::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Through {
    name: &'static str,
    chunk: usize,
    after_a_move: Step,
    holds: bool,
    held: EvBuffer,
    handshake: Handshake,
    calls: Option<Arc<AtomicUsize>>,
}

/// How far the handshake is.
///
/// None                                       (no handshake)
/// Fresh --attached--> Said{false} --hello sent--> Said{true} --hello seen--> None
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Handshake {
    None,
    Fresh,
    Said { sent: bool, seen: bool },
}

impl Through {
    /// A layer that moves all there is at once.
    pub fn new() -> Self {
        Self {
            name: "through",
            chunk: usize::MAX,
            after_a_move: Step::Again,
            holds: false,
            held: EvBuffer::new(),
            handshake: Handshake::None,
            calls: None,
        }
    }

    /// Counts in `calls` how often it is asked to move something: what spins shows there.
    pub fn counted(mut self, calls: &Arc<AtomicUsize>) -> Self {
        self.calls = Some(calls.clone());
        self
    }

    /// The same under another name.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Moves at most `bytes` per step.
    pub fn chunk(mut self, bytes: usize) -> Self {
        self.chunk = bytes;
        self
    }

    /// Moves all that fits and leaves it to others to ask again, as the smallest layer there is does.
    pub fn terse(mut self) -> Self {
        self.chunk = usize::MAX;
        self.after_a_move = Step::Done;
        self
    }

    /// Keeps what it was given to send until a flush or the end, as a compressor does.
    pub fn holding(mut self) -> Self {
        self.holds = true;
        self
    }

    /// Exchanges a greeting with such a layer at the other end before it passes anything, and tells CONNECTED then.
    pub fn greeting(mut self) -> Self {
        self.handshake = Handshake::Fresh;
        self
    }

    fn greet(&mut self, cx: &mut Context<'_>) {
        if self.handshake == Handshake::Fresh {
            self.handshake = Handshake::Said {
                sent: false,
                seen: false,
            };
            cx.connect_begun();
            cx.set_wants(true, true);
        }
    }

    fn greeted(&mut self, cx: &mut Context<'_>, sent: bool, seen: bool) {
        if sent && seen {
            self.handshake = Handshake::None;
            cx.set_wants(false, false);
            cx.connected();
        } else {
            self.handshake = Handshake::Said { sent, seen };
            cx.set_wants(!seen, !sent);
        }
    }

    fn count(&self) {
        if let Some(calls) = &self.calls {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether what it holds may go on now.
    fn lets_go(&self, cx: &Context<'_>) -> bool {
        !self.holds || cx.mode() != Mode::Normal
    }
}

impl Default for Through {
    fn default() -> Self {
        Self::new()
    }
}

impl Bufferevent for Through {
    fn name(&self) -> &'static str {
        self.name
    }

    fn attached(&mut self, cx: &mut Context<'_>) {
        self.greet(cx);
    }

    fn below_connected(&mut self, cx: &mut Context<'_>) {
        // With a greeting, it is connected when that is over.
        if self.handshake == Handshake::None {
            cx.connected();
        }
    }

    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        self.count();
        if let Handshake::Said { sent, seen: false } = self.handshake {
            let mut seen = false;
            cx.lift(|below, _, _| {
                let mut hello = [0; HELLO.len()];
                if below.copy_out(&mut hello) == HELLO.len() {
                    assert_eq!(hello, HELLO, "the other side says something else");
                    below.drain(HELLO.len());
                    seen = true;
                }
                0
            });
            if seen {
                self.greeted(cx, sent, true);
                return Step::Again;
            }
            cx.inherit_end();
            return Step::Done;
        }
        if self.handshake != Handshake::None {
            return Step::Done;
        }
        let chunk = self.chunk;
        let moved = cx.lift(|below, own, room| {
            below
                .move_to(room.min(chunk), own)
                .expect("a test has memory")
        });
        if moved == 0 {
            cx.inherit_end();
            return Step::Done;
        }
        self.after_a_move
    }

    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        self.count();
        if let Handshake::Said { sent: false, seen } = self.handshake {
            cx.lower(|_, below, _| {
                below.append_slice(HELLO).expect("a test has memory");
                HELLO.len()
            });
            self.greeted(cx, true, seen);
            return Step::Again;
        }
        if self.handshake != Handshake::None {
            return Step::Done;
        }
        let chunk = self.chunk;
        if !self.holds {
            let moved = cx.lower(|own, below, room| {
                own.move_to(room.min(chunk), below)
                    .expect("a test has memory")
            });
            if moved > 0 {
                return self.after_a_move;
            }
        } else {
            let emits = self.lets_go(cx);
            let held = &mut self.held;
            let moved = cx.lower(|own, below, room| {
                let taken = own.move_to(chunk, held).expect("a test has memory");
                let given = if emits {
                    held.move_to(room, below).expect("a test has memory")
                } else {
                    0
                };
                taken + given
            });
            if moved > 0 {
                return self.after_a_move;
            }
        }
        if cx.finishing() && self.held.is_empty() {
            cx.end_output();
        }
        Step::Done
    }
}
