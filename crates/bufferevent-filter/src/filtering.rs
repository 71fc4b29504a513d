//! The layer that runs a [`Filter`]: a bufferevent over any other.
//!
//! A pull runs the filter's input side from the input below into the own input; a push runs its output side from the own output
//! into the output below. In between the layer keeps what the core has to know of the filter: that it is full, that it wants
//! something for itself, that its handshake is not over.
//!
//! ```text
//!     own input  <--input()---  below's input          a pull: at most the own high mark
//!     own output ---output()->  below's output         a push: at most the high mark below
//! ```
//!
//! # Invariants
//! - A filter is never asked more than [`CALLS_PER_STEP`] times in a step, and a step that moved nothing does not bring the next: a filter
//!   that lies cannot spin.
//! - What a filter holds back for want of room is asked for again as soon as there is room, without a byte from either end.
//! - A side that has ended, or failed, is not called again.
//! - While the handshake is under way the output side sees none of the user's bytes.
//!
//! Source: libevent `bufferevent_filter.c`, `be_filter_process_input`, `be_filter_process_output`.

use std::mem::ManuallyDrop;

use bufferevent_core::{BelowEnd, Bufferevent, Context, Direction, Error, Kind, Mode, Step};
use evbuffer::EvBuffer;

use crate::filter::{Filter, Verdict, Wants};
use crate::sink::Sink;

/// How often a filter is asked in one step. One that works in small pieces shares its domain's turn with the other layers after
/// that many.
const CALLS_PER_STEP: usize = 32;

/// How often a filter may change what it wants without a byte having moved, before nobody is told of it any more.
const IDLE_CHANGES: u8 = 8;

/// How far a filter's handshake is.
///
/// Wait --a call after which the filter has none--> Over
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Handshake {
    Wait,
    Over,
}

/// How far the output side is.
///
/// Open --full--> Holds --all that was held is out--> Open
/// Open, Holds --end mark out, or failed--> Ended
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outward {
    Open,
    /// The filter has bytes that did not fit below.
    Holds,
    Ended,
}

/// A bufferevent that is a filter over the one below it.
///
/// Put on by [`FilterExt::filter`](crate::FilterExt::filter), found by [`FilterExt::filter_of`](crate::FilterExt::filter_of).
#[derive(Debug)]
#[doc(alias = "bufferevent_filter_new")]
pub struct Filtering<F> {
    filter: F,
    handshake: Handshake,
    outward: Outward,
    /// What the core was told last of what the filter wants.
    told: Wants,
    /// Changes of it since a byte last moved.
    idle_changes: u8,
}

/// What came of the calls in one step.
struct Run {
    verdict: Result<Verdict, Error>,
    /// Bytes that left the source or entered the sink, whichever is more.
    moved: usize,
    /// The source was empty afterwards.
    drained: bool,
    /// There was no room from the start.
    cramped: bool,
}

impl<F: Filter> Filtering<F> {
    /// A layer that runs `filter`.
    #[must_use]
    pub fn new(filter: F) -> Self {
        let handshake = if filter.handshaking() {
            Handshake::Wait
        } else {
            Handshake::Over
        };
        Self {
            filter,
            handshake,
            outward: Outward::Open,
            told: Wants::default(),
            idle_changes: 0,
        }
    }

    /// The filter.
    #[must_use]
    pub fn get(&self) -> &F {
        &self.filter
    }

    /// The filter, to be changed. What it wants afterwards is found by [`changed`](Self::changed).
    pub(crate) fn get_mut(&mut self) -> &mut F {
        &mut self.filter
    }

    /// The filter was changed from outside: hears what it wants now.
    pub(crate) fn changed(&mut self, cx: &mut Context<'_>) {
        self.idle_changes = 0;
        self.settle(cx, 0);
    }

    /// Tells the core what is different of the filter after a call that moved so many bytes.
    fn settle(&mut self, cx: &mut Context<'_>, moved: usize) {
        if self.handshake == Handshake::Wait && !self.filter.handshaking() {
            self.handshake = Handshake::Over;
            cx.connected();
        }
        let mut wants = self.filter.wants();
        wants.write |= self.outward == Outward::Holds;
        let changed = wants != self.told;
        if moved > 0 {
            self.idle_changes = 0;
        } else if changed {
            self.idle_changes = self.idle_changes.saturating_add(1);
        }
        // One side's bytes may be what the other was waiting for, also where the want is the same.
        let goes_on = moved > 0 && wants != Wants::default();
        if goes_on || (changed && self.idle_changes <= IDLE_CHANGES) {
            self.told = wants;
            cx.set_wants(wants.read, wants.write);
        }
    }

    /// The input side has failed, and has said all that it will.
    fn input_failed(&mut self, cx: &mut Context<'_>, error: Error) {
        // An alert that says why goes out before anybody hears of the end.
        if self.filter.wants().write && self.outward != Outward::Ended {
            let alert = self.run_output(cx, Mode::Normal);
            self.settle(cx, alert.map_or(0, |alert| alert.moved));
        }
        match self.handshake {
            Handshake::Wait => cx.connect_failed(error),
            Handshake::Over => cx.fail(Direction::Read, error),
        }
    }

    /// The source has ended, and the filter asks for more. What it leaves of it is part of something that will never be whole.
    fn below_has_ended(&mut self, cx: &mut Context<'_>, end: BelowEnd, whole: bool) {
        let operation = match (end, self.handshake) {
            (BelowEnd::Failed(error), _) => return self.input_failed(cx, error),
            (BelowEnd::Eof, Handshake::Over) if whole => return cx.end_input(),
            (BelowEnd::Eof, Handshake::Over) => "input",
            (BelowEnd::Eof, Handshake::Wait) => "handshake",
        };
        let error = Error::new(Kind::Truncated, self.filter.name(), operation);
        self.input_failed(cx, error);
    }

    /// Runs the output side once. `None`: a buffer that it needs is lent out, and whoever has it asks again.
    fn run_output(&mut self, cx: &mut Context<'_>, mode: Mode) -> Option<Run> {
        let Self {
            filter, handshake, ..
        } = self;
        let mut result = None;
        cx.lower(|own, below, room| {
            let mut none = ManuallyDrop::new(EvBuffer::new());
            let source = match handshake {
                Handshake::Wait => &mut *none,
                Handshake::Over => own,
            };
            let run = run(source, below, room, |source, sink| {
                filter.output(source, sink, mode)
            });
            ManuallyDrop::into_inner(none).forget_empty();
            let moved = run.moved;
            result = Some(run);
            moved
        });
        result
    }

    /// The end mark of the output is out, as far as this layer goes.
    fn finish_output(&mut self, cx: &mut Context<'_>, drained: bool) {
        if drained && cx.finishing() {
            self.outward = Outward::Ended;
            cx.end_output();
        } else if !drained && !self.filter.wants().read {
            // Nothing more will ever come that could make it take the rest.
            self.outward = Outward::Ended;
            let error = Error::new(Kind::Misuse, self.filter.name(), "finish");
            cx.fail(Direction::Write, error);
        }
    }
}

/// Calls a side until something else than its own pace stops it.
fn run(
    source: &mut EvBuffer,
    buffer: &mut EvBuffer,
    room: usize,
    mut call: impl FnMut(&mut EvBuffer, &mut Sink<'_>) -> Result<Verdict, Error>,
) -> Run {
    let before = source.len();
    let mut sink = Sink::new(buffer, room);
    let mut verdict = Ok(Verdict::Progress);
    for _ in 0..CALLS_PER_STEP {
        let here = (source.len(), sink.room());
        verdict = call(source, &mut sink);
        match verdict {
            Ok(Verdict::Progress) if (source.len(), sink.room()) != here => {}
            Ok(Verdict::Progress) => {
                verdict = Ok(Verdict::NeedInput);
                break;
            }
            Ok(Verdict::NeedInput | Verdict::Full | Verdict::End) | Err(_) => break,
        }
    }
    let taken = before.saturating_sub(source.len());
    Run {
        verdict,
        moved: taken.max(room - sink.room()),
        drained: source.is_empty(),
        cramped: room == 0,
    }
}

impl<F: Filter> Bufferevent for Filtering<F> {
    fn name(&self) -> &'static str {
        self.filter.name()
    }

    fn attached(&mut self, cx: &mut Context<'_>) {
        if self.handshake == Handshake::Wait {
            cx.connect_begun();
        }
        self.settle(cx, 0);
    }

    fn below_connected(&mut self, cx: &mut Context<'_>) {
        match self.handshake {
            Handshake::Over => cx.connected(),
            Handshake::Wait => {}
        }
    }

    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        let ended = match (cx.below_ended(), self.handshake) {
            // The user does not want to hear of it yet: it is told when reading is enabled.
            (Some(_), Handshake::Over) if !cx.reading() => None,
            (ended, Handshake::Over | Handshake::Wait) => ended,
        };
        let mode = match (&ended, cx.mode()) {
            (Some(BelowEnd::Eof), _) => Mode::Finished,
            (_, Mode::Normal) => Mode::Normal,
            (_, Mode::Flush | Mode::Finished) => Mode::Flush,
        };
        let filter = &mut self.filter;
        let mut result = None;
        cx.lift(|below, own, room| {
            let run = run(below, own, room, |source, sink| {
                filter.input(source, sink, mode)
            });
            let moved = run.moved;
            result = Some(run);
            moved
        });
        // A buffer is lent out, and whoever has it asks again.
        let Some(run) = result else {
            return Step::Done;
        };
        self.settle(cx, run.moved);
        match (run.verdict, ended) {
            (Err(error), _) => self.input_failed(cx, error),
            (Ok(Verdict::End), _) => cx.end_input(),
            // More can come without anything from below: the core must not wait for that.
            (Ok(Verdict::Full | Verdict::Progress), _) => return Step::Again,
            (Ok(Verdict::NeedInput), None) => {}
            // Not its last word: it moved something, or could not. A handshake brings nothing up, and needs no room.
            (Ok(Verdict::NeedInput), Some(_))
                if !run.drained
                    && (run.moved > 0 || (run.cramped && self.handshake == Handshake::Over)) =>
            {
                return Step::Again;
            }
            (Ok(Verdict::NeedInput), Some(end)) => self.below_has_ended(cx, end, run.drained),
        }
        Step::Done
    }

    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        if self.outward == Outward::Ended {
            return Step::Done;
        }
        // Only what the filter wants is asked for while writing is disabled.
        let writing = !self.told.write || cx.writing();
        // What the filter holds is the user's, and stays while writing is disabled; what it wants to say for itself goes.
        if !writing && self.handshake == Handshake::Over && !self.filter.wants().write {
            return Step::Done;
        }
        let mode = match self.handshake {
            Handshake::Over if writing => cx.mode(),
            Handshake::Over | Handshake::Wait => Mode::Normal,
        };
        let Some(run) = self.run_output(cx, mode) else {
            return Step::Done;
        };
        let shaking = self.handshake;
        self.outward = match &run.verdict {
            Ok(Verdict::Full | Verdict::Progress) => Outward::Holds,
            Ok(Verdict::NeedInput | Verdict::End) => Outward::Open,
            Err(_) => Outward::Ended,
        };
        self.settle(cx, run.moved);
        match run.verdict {
            Err(error) if self.handshake == Handshake::Wait => cx.connect_failed(error),
            Err(error) => cx.fail(Direction::Write, error),
            Ok(Verdict::Full | Verdict::Progress) => return Step::Again,
            // The handshake took this call; the end mark comes with the next.
            Ok(_) if shaking == Handshake::Wait || mode != Mode::Finished => {}
            Ok(Verdict::End) => self.finish_output(cx, true),
            Ok(Verdict::NeedInput) if run.moved > 0 => return Step::Again,
            Ok(Verdict::NeedInput) => self.finish_output(cx, run.drained),
        }
        Step::Done
    }
}
