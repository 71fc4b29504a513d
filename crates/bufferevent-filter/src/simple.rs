//! Filters that need no type of one's own: the one that changes nothing, and those made of two functions.

use std::fmt;

use bufferevent_core::{Error, Mode};
use evbuffer::EvBuffer;

use crate::filter::{Filter, Verdict, Wants};
use crate::sink::Sink;

/// The filter that changes nothing: it moves segments, and copies none.
///
/// Source: libevent's null filter, which stands in for a direction that is given none.
#[derive(Clone, Copy, Debug, Default)]
#[doc(alias = "be_null_filter")]
pub struct Identity;

/// Moves what fits.
pub(crate) fn pass(source: &mut EvBuffer, sink: &mut Sink<'_>) -> Verdict {
    sink.append_from(source);
    if source.is_empty() {
        Verdict::NeedInput
    } else {
        Verdict::Full
    }
}

impl Filter for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        Ok(pass(source, sink))
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        Ok(pass(source, sink))
    }
}

/// A filter made of two functions. See [`from_fn`].
pub struct FromFn<I, O> {
    name: &'static str,
    input: I,
    output: O,
}

/// Makes a filter of two functions, the input side first. Both have the contract of [`Filter::input`] and [`Filter::output`].
///
/// ```
/// use bufferevent_core::{Error, Mode, Options, READ};
/// use bufferevent_filter::{FilterExt, Sink, Verdict, from_fn};
/// use evbuffer::EvBuffer;
/// # use bufferevent_pair::pair;
///
/// fn upper(source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode) -> Result<Verdict, Error> {
///     let mut piece = [0; 256];
///     let room = sink.room().min(piece.len());
///     let count = source.remove(&mut piece[..room]);
///     piece[..count].make_ascii_uppercase();
///     sink.append_slice(&piece[..count]);
///     Ok(match (source.is_empty(), sink.room()) {
///         (true, _) => Verdict::NeedInput,
///         (false, 0) => Verdict::Full,
///         (false, _) => Verdict::Progress,
///     })
/// }
///
/// # let events = bufferevent_testkit::Loop::new();
/// let (near, far) = pair(&events)?;
/// let loud = near.filter(Options::CLOSE_ON_FREE, from_fn("upper", upper, upper))?;
/// far.enable(READ)?;
/// loud.write(b"quietly")?;
/// # events.run();
/// let mut heard = [0; 7];
/// far.read(&mut heard)?;
/// assert_eq!(&heard, b"QUIETLY");
/// # Ok::<(), Error>(())
/// ```
pub fn from_fn<I, O>(name: &'static str, input: I, output: O) -> FromFn<I, O>
where
    I: FnMut(&mut EvBuffer, &mut Sink<'_>, Mode) -> Result<Verdict, Error> + Send + 'static,
    O: FnMut(&mut EvBuffer, &mut Sink<'_>, Mode) -> Result<Verdict, Error> + Send + 'static,
{
    FromFn {
        name,
        input,
        output,
    }
}

impl<I, O> fmt::Debug for FromFn<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<I, O> Filter for FromFn<I, O>
where
    I: FnMut(&mut EvBuffer, &mut Sink<'_>, Mode) -> Result<Verdict, Error> + Send + 'static,
    O: FnMut(&mut EvBuffer, &mut Sink<'_>, Mode) -> Result<Verdict, Error> + Send + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        (self.input)(source, sink, mode)
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        (self.output)(source, sink, mode)
    }
}

/// A filter that is chosen at run time.
impl<F: Filter + ?Sized> Filter for Box<F> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        (**self).input(source, sink, mode)
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        (**self).output(source, sink, mode)
    }

    fn wants(&self) -> Wants {
        (**self).wants()
    }

    fn handshaking(&self) -> bool {
        (**self).handshaking()
    }
}
