//! The trait that a filter implements: bytes in, bytes out, nothing else.
//!
//! A filter has two sides. Its *input* side turns what comes from the bufferevent below into what the user reads; its *output* side
//! turns what the user writes into what goes to the bufferevent below. It sees buffers and a limit, never a descriptor,
//! a clock or a user, so every filter is tested as a function.
//!
//! # Invariants
//! - A filter is called on the loop's thread with nothing of its domain borrowed: it may take its time and may panic.
//! - What it adds goes through a [`Sink`], which takes no more than its limit: a filter is cut short, not trusted.
//! - Nobody asks again by time: what a call leaves undone is found from the [`Verdict`] and from [`Filter::wants`].
//!
//! Source: libevent `bufferevent_filter_cb`, `enum bufferevent_filter_result`.

use bufferevent_core::{Error, Mode};
use evbuffer::EvBuffer;

use crate::sink::Sink;

/// What one call of a filter's side came to.
///
/// Progress is what the buffers show: bytes that left the source or entered the sink. The verdict says what stops the
/// filter now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[doc(alias = "bufferevent_filter_result")]
#[must_use]
pub enum Verdict {
    /// All that could be done with the source was; more bytes in the source may make more possible. Says nothing is held
    /// back for want of room.
    ///
    /// Bytes may stay in the source until their unit is whole, if it always fits into a small buffer: the bufferevent below stops
    /// reading at its high mark. A filter with units of any length takes what there is into itself.
    #[doc(alias = "BEV_NEED_MORE")]
    NeedInput,
    /// The sink was too small: more can come without any more input.
    Full,
    /// This call did a bounded piece of work and wants to be called again, with the same buffers as they are then. A filter that
    /// says so without having moved a byte is treated as if it had said [`NeedInput`](Self::NeedInput).
    #[doc(alias = "BEV_OK")]
    Progress,
    /// This side has ended. Input: the user's EOF comes behind the bytes in the sink, and what is left in the source is
    /// not this filter's. Output: the end mark is out, answered in [`Mode::Finished`] only.
    End,
}

/// What a filter needs for itself, whatever the user has enabled: the bytes of a handshake, an alert, a key update.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub struct Wants {
    /// Bytes from below, though the user may not be reading.
    pub read: bool,
    /// To be called for output, though the user may have written nothing.
    pub write: bool,
}

/// A filter: two pure sides, and what it wants.
///
/// ```
/// use bufferevent_core::{Error, Mode};
/// use bufferevent_filter::{Filter, Sink, Verdict};
/// use evbuffer::EvBuffer;
///
/// /// Shifts every letter by 13 places, in both directions.
/// struct Rot13;
///
/// fn turn(source: &mut EvBuffer, sink: &mut Sink<'_>) -> Verdict {
///     while !source.is_empty() && sink.room() > 0 {
///         let mut piece = [0; 512];
///         let length = sink.room().min(piece.len());
///         let length = source.remove(&mut piece[..length]);
///         for byte in &mut piece[..length] {
///             *byte = match *byte {
///                 b'a'..=b'm' | b'A'..=b'M' => *byte + 13,
///                 b'n'..=b'z' | b'N'..=b'Z' => *byte - 13,
///                 other => other,
///             };
///         }
///         sink.append_slice(&piece[..length]);
///     }
///     if source.is_empty() { Verdict::NeedInput } else { Verdict::Full }
/// }
///
/// impl Filter for Rot13 {
///     fn name(&self) -> &'static str {
///         "rot13"
///     }
///     fn input(&mut self, source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode) -> Result<Verdict, Error> {
///         Ok(turn(source, sink))
///     }
///     fn output(&mut self, source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode) -> Result<Verdict, Error> {
///         Ok(turn(source, sink))
///     }
/// }
/// ```
pub trait Filter: Send + 'static {
    /// The filter's name, as errors and statistics show it.
    fn name(&self) -> &'static str;

    /// Turns bytes from below (`source`) into bytes for the user (`sink`).
    ///
    /// [`Mode::Finished`]: what is below has come to its end, and `source` holds the last of it. A filter whose stream has an end
    /// of its own answers with an error if it has not come: `NeedInput` here is a clean EOF if the source is empty, and
    /// [`Truncated`](bufferevent_core::Kind::Truncated) if the filter leaves bytes in it.
    ///
    /// # Errors
    /// The stream is broken. What is in the sink by then is told first; the user then hears of the error.
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error>;

    /// Turns bytes from the user (`source`) into bytes for what is below (`sink`).
    ///
    /// [`Mode::Flush`]: emit all that is held back. [`Mode::Finished`]: the same, then the end mark; a filter that has none
    /// answers `NeedInput` once all is out.
    ///
    /// # Errors
    /// The stream cannot go on.
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error>;

    /// What the filter needs for itself. Asked after every call of either side, so one side may make work for the other.
    fn wants(&self) -> Wants {
        Wants::default()
    }

    /// Whether a handshake has yet to be completed. Asked when the filter is put on, and after every call: while it is so the
    /// bufferevent is connecting, no byte of the user's is given to [`output`](Self::output), and CONNECTED is told when it
    /// is over. An error before that is a failed connection.
    fn handshaking(&self) -> bool {
        false
    }
}
