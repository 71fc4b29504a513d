//! The filters of the stacks, two of each: one for either end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bufferevent_core::{Error, Mode};
use bufferevent_filter::{Filter, Filtering, Sink, Verdict, Wants};
use bufferevent_testkit::Random;
use bufferevent_zlib::{FlushPolicy, Format, Zlib};
use evbuffer::EvBuffer;

use crate::choices::Choices;
use crate::credentials::Agreement;

/// The model filters of the filter crate's own tests.
#[allow(unreachable_pub, reason = "the tests need more of it")]
#[path = "../../../crates/bufferevent-filter/tests/support/mod.rs"]
mod support;

use support::kinds::Does;

/// What one level of a stack does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Model(Does),
    Zlib(FlushPolicy),
    Tls,
}

impl Kind {
    /// Stands for the bufferevent at the bottom, which changes nothing.
    pub(super) const TRANSPORT: Self = Self::Model(Does::Nothing);

    /// Whether the other end need not know that it is there.
    pub(super) fn is_transparent(self) -> bool {
        matches!(self, Self::Model(does) if does.is_transparent())
    }

    pub(super) fn shakes_hands(self) -> bool {
        matches!(self, Self::Tls | Self::Model(Does::Greets))
    }

    /// Whether bytes may stay in it until a flush.
    fn keeps(self) -> bool {
        matches!(
            self,
            Self::Model(Does::Holds) | Self::Zlib(FlushPolicy::OnRequest)
        )
    }

    /// How many bytes at most `bytes` become on their way down, written one at a time.
    pub(super) fn grows(self, bytes: usize) -> usize {
        match self {
            Self::Model(Does::Nothing | Does::Chunks | Does::Holds | Does::Lies) => bytes,
            Self::Model(Does::Expands) => 2 * bytes,
            Self::Model(Does::Frames) => 2 * bytes + 1,
            Self::Model(Does::Greets) => bytes + 6,
            // A block and a flush for each byte; header and trailer.
            Self::Zlib(_) => 16 * bytes + 32,
            // A record for each byte; the handshake.
            Self::Tls => 40 * bytes + 4096,
        }
    }
}

/// How the two filters of a level are made.
pub(super) enum Recipe {
    Model {
        does: Does,
        seed: u64,
    },
    Zlib {
        settings: bufferevent_zlib::Builder,
        policy: FlushPolicy,
    },
    Tls(Agreement),
}

impl Recipe {
    /// One that can stand on `below`.
    pub(super) fn chosen(choices: &mut Choices<'_>, below: &[Kind]) -> Self {
        let choice = choices.below(Does::ALL.len() + 4);
        // A handshake has to get through without a flush.
        let kept = below.iter().any(|kind| kind.keeps());
        // One is enough: each multiplies what passes below it.
        let encrypted = below.contains(&Kind::Tls);
        match choice.checked_sub(Does::ALL.len()) {
            Some(0 | 1) if !kept && !encrypted => Self::Tls(choices.pick(&Agreement::ALL)),
            Some(_) => Self::zlib(choices),
            None => Self::Model {
                does: match Does::ALL[choice] {
                    Does::Greets if kept => Does::Nothing,
                    does => does,
                },
                seed: choices.byte().into(),
            },
        }
    }

    fn zlib(choices: &mut Choices<'_>) -> Self {
        let policy = choices.pick(&[
            FlushPolicy::EachBurst,
            FlushPolicy::EachBurstFull,
            FlushPolicy::OnRequest,
        ]);
        let format = choices.pick(&[Format::Zlib, Format::Deflate, Format::Gzip]);
        let settings = Zlib::builder()
            .format(format)
            .level(choices.below(10) as u32)
            .output_window_bits(9 + choices.byte() % 7)
            .flush(policy);
        Self::Zlib { settings, policy }
    }

    /// A filter that the other end need not know of.
    pub(super) fn transparent(
        choices: &mut Choices<'_>,
        calls: &Arc<AtomicUsize>,
    ) -> (Filtering<Counted>, Kind) {
        let does = choices.pick(&[Does::Nothing, Does::Chunks, Does::Lies]);
        let seed = choices.byte().into();
        let (filter, _) = Self::Model { does, seed }.filters(calls);
        (Filtering::new(filter), Kind::Model(does))
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Model { does, .. } => Kind::Model(*does),
            Self::Zlib { policy, .. } => Kind::Zlib(*policy),
            Self::Tls(_) => Kind::Tls,
        }
    }

    /// One for either end.
    pub(super) fn filters(&self, calls: &Arc<AtomicUsize>) -> (Counted, Counted) {
        let counted = |inner: Box<dyn Filter>| Counted {
            inner,
            calls: calls.clone(),
        };
        match self {
            Self::Model { does, seed } => {
                let mut random = Random::new(*seed);
                let uncounted = Arc::default();
                let mut one = || counted(Box::new(does.filter(&mut random, &uncounted)));
                (one(), one())
            }
            Self::Zlib { settings, .. } => {
                let one = || settings.clone().build().expect("the settings are possible");
                (counted(Box::new(one())), counted(Box::new(one())))
            }
            Self::Tls(agreement) => {
                let (client, server) = agreement.filters();
                (counted(Box::new(client)), counted(Box::new(server)))
            }
        }
    }
}

/// Counts the calls: what spins shows there.
pub(super) struct Counted {
    inner: Box<dyn Filter>,
    calls: Arc<AtomicUsize>,
}

impl Filter for Counted {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inner.input(source, sink, mode)
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inner.output(source, sink, mode)
    }
    fn wants(&self) -> Wants {
        self.inner.wants()
    }
    fn handshaking(&self) -> bool {
        self.inner.handshaking()
    }
}
