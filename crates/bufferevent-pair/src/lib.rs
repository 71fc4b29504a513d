//! Two bufferevents in memory: what is written to one is read from the other, moved and not copied.
//!
//! No descriptor and no system call, so a pair runs in a plain unit test, under a virtual clock, and shows everything that a
//! socket shows: marks, enabled directions, timeouts, flushing, half-close. Layers go on either end.
//!
//! ```
//! use bufferevent_core::{READ, on_read};
//! use bufferevent_pair::pair;
//!
//! let events = evreactor::EventLoop::new()?;
//! let (near, far) = pair(&events)?;
//! far.set_handler(on_read(|bev| drop(bev.output().append_from(&bev.input()))))?; // an echo
//! far.enable(READ)?;
//! near.enable(READ)?;
//! near.write(b"hello")?;
//! events.poll()?;
//! let mut answer = [0; 8];
//! let count = near.read(&mut answer)?;
//! assert_eq!(&answer[..count], b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//! - Both ends are one domain: one lock, one loop, one queue.
//! - Bytes pass only while the writer has WRITE enabled and the reader READ and room; until then they stay in the writer's
//!   output.
//! - An end that finishes, or is freed, is an EOF to the other, behind all bytes that had been taken; bytes that are written to an end whose
//!   partner is gone fail as on a broken pipe.
//!
//! Source: libevent `bufferevent_pair.c`. Differences: callbacks are deferred only where asked for, and freeing one end tells
//! the other.

#![forbid(unsafe_code)]

use bufferevent_core::{Bev, Bufferevent, Context, Direction, Error, Kind, NodeKey, Options, Step};
use evreactor_core::AsHost;

/// Makes two joined bufferevents on `host`, with default options.
///
/// # Errors
/// [`Kind::WrongThread`] from another thread than the loop's.
#[doc(alias = "bufferevent_pair_new")]
pub fn pair(host: &impl AsHost) -> Result<(Bev, Bev), Error> {
    pair_with(host, Options::EMPTY)
}

/// Makes two joined bufferevents on `host`. Both get `options`.
///
/// # Errors
/// As [`pair`].
#[doc(alias = "bufferevent_pair_new")]
pub fn pair_with(host: &impl AsHost, options: Options) -> Result<(Bev, Bev), Error> {
    let first = Bev::transport(host.as_host(), options, Pair { partner: None })?;
    let key = first.key()?;
    let second = first.beside(Pair { partner: Some(key) })?;
    let other = second.key()?;
    match first.layer::<Pair>() {
        Some(layer) => layer.with(|pair, _| pair.partner = Some(other))?,
        None => return Err(Error::new(Kind::Freed, NAME, "pair")),
    }
    Ok((first, second))
}

/// The other end of a pair.
pub trait Partner {
    /// The bufferevent at the other end of the pair that this one is, or stands on; `None` if there is no pair or the other
    /// end is gone.
    #[doc(alias = "bufferevent_pair_get_partner")]
    fn partner(&self) -> Option<Bev>;
}

impl Partner for Bev {
    fn partner(&self) -> Option<Bev> {
        let key = self.layer::<Pair>()?.with(|pair, _| pair.partner).ok()??;
        self.neighbour(key)
    }
}

const NAME: &str = "pair";

/// One end of a pair, as a type of bufferevent. Made by [`pair`].
#[derive(Debug)]
pub struct Pair {
    partner: Option<NodeKey>,
}

impl Bufferevent for Pair {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pull(&mut self, cx: &mut Context<'_>) -> Step {
        if let Some(partner) = self.partner {
            cx.fetch(partner);
        }
        if cx.end_arrived() {
            cx.end_input();
            return Step::Done;
        }
        // Nothing to fetch until the partner could not pass all that it had.
        let waits = self.partner.is_some_and(|partner| cx.has_output(partner));
        if waits { Step::Done } else { Step::Blocked }
    }

    fn push(&mut self, cx: &mut Context<'_>) -> Step {
        // While the pair is being made the first end has no partner yet; its bytes wait.
        let Some(partner) = self.partner else {
            return Step::Done;
        };
        if !cx.is_there(partner) {
            cx.fail(Direction::Write, Error::new(Kind::Peer, NAME, "write"));
            return Step::Done;
        }
        cx.pass(partner);
        if cx.finishing() {
            cx.send_end(partner);
            cx.end_output();
        }
        Step::Done
    }

    fn hears(&self, cx: &Context<'_>) -> bool {
        self.partner
            .is_some_and(|partner| cx.partner_active(partner))
    }

    fn freed(&mut self, cx: &mut Context<'_>, _close: bool) {
        if let Some(partner) = self.partner {
            cx.send_end(partner);
        }
    }
}
