//! The trait that every type of bufferevent implements: what libevent has in its operations table.
//!
//! A type moves bytes between its own two buffers and what is below it: a descriptor, a partner, or another
//! bufferevent. It never calls another layer and never calls the user: it changes its buffers through the
//! [`Context`], and the pump finds out from the change who has to run next.
//!
//! # Invariants
//! - Every call comes on the loop's thread, from the pump, with no state of the domain borrowed: a type may do
//!   whatever it likes, even free itself.
//! - [`pull`](Bufferevent::pull) is called only while there is room above, [`push`](Bufferevent::push) only while there is something to send
//!   and room below. Asking the context again costs little and is always right.
//! - [`Step::Again`] without having moved a byte brings no other step by itself: nothing spins. It says that the layer has more to
//!   give without a byte from below, so that the pump asks again when there is room.
//!
//! Source: libevent `bufferevent-internal.h`, `struct bufferevent_ops`.

use std::any::Any;

use evreactor_core::Ready;

use crate::context::Context;

/// What a step did, and when the next one is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Step {
    /// All that could be done now. Whatever changes the buffers' state asks again.
    Done,
    /// More could move without anything from below, or above: right now if bytes moved, else as soon as there is room.
    Again,
    /// The transport would block: nothing more until [`Bufferevent::ready`] says so.
    Blocked,
}

/// A type of bufferevent. Made into a [`Bev`](crate::Bev) by [`Bev::transport`](crate::Bev::transport),
/// [`Bev::beside`](crate::Bev::beside) or [`Bev::over`](crate::Bev::over).
///
/// A layer that passes bytes through unchanged is the smallest there is:
///
/// ```
/// use bufferevent_core::{Bufferevent, Context, Step};
///
/// struct Through;
///
/// impl Bufferevent for Through {
///     fn name(&self) -> &'static str {
///         "through"
///     }
///     fn pull(&mut self, cx: &mut Context<'_>) -> Step {
///         let moved = cx.lift(|below, own, room| below.move_to(room, own).unwrap_or(0));
///         if moved == 0 { cx.inherit_end() }
///         Step::Done
///     }
///     fn push(&mut self, cx: &mut Context<'_>) -> Step {
///         let moved = cx.lower(|own, below, room| own.move_to(room, below).unwrap_or(0));
///         if moved == 0 && cx.finishing() { cx.end_output() }
///         Step::Done
///     }
/// }
/// ```
pub trait Bufferevent: Any + Send {
    /// The type's name, as errors and statistics show it.
    fn name(&self) -> &'static str;

    /// The bufferevent was made and this is its place. A transport that has to wait for readiness says so here.
    fn attached(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// Moves bytes up: from what is below into the own input buffer, at most [`Context::room`] of them. When what is
    /// below has ended and nothing is left, ends the own input.
    fn pull(&mut self, cx: &mut Context<'_>) -> Step;

    /// Moves bytes down: from the own output buffer to what is below. When [`Context::finishing`] and nothing is
    /// left, emits the end mark and calls [`Context::end_output`].
    fn push(&mut self, cx: &mut Context<'_>) -> Step;

    /// The source that was registered under this bufferevent's key reports more than that it may be readable or writable.
    /// Remembers what it needs to, or fails a direction by the context; the pump asks for the steps that the readiness makes possible.
    /// Transports only.
    fn ready(&mut self, cx: &mut Context<'_>, ready: Ready) {
        let _ = (cx, ready);
    }

    /// What is below has connected. A layer with a handshake of its own starts it here; the others are connected too.
    fn below_connected(&mut self, cx: &mut Context<'_>) {
        cx.connected();
    }

    /// Whether the outside can still bring something while reading is enabled and has not ended: what keeps a
    /// bufferevent alive that nobody holds a handle of.
    fn hears(&self, cx: &Context<'_>) -> bool {
        let _ = cx;
        true
    }

    /// The bufferevent was freed. `close` tells whether a borrowed transport is to be closed with it.
    /// Called once; then the type is dropped.
    fn freed(&mut self, cx: &mut Context<'_>, close: bool) {
        let _ = (cx, close);
    }

    /// The loop calls this bufferevent's callbacks with another urgency from now on.
    fn set_priority(&mut self, priority: evreactor_core::Priority) {
        let _ = priority;
    }
}
