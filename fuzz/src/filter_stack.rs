//! Two stacks of the same filters, zlib and TLS among them, under whatever use the bytes say.
//!
//! It is the random test of the filter crate with its choices made by the fuzzer: what is held to stands there.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bufferevent_testkit::{Choices, Random};
use bufferevent_zlib::{FlushPolicy, Format, Zlib};

use crate::credentials::Agreement;

/// The stacks, and the model filters of the filter crate's own tests.
#[allow(unreachable_pub, reason = "the tests need more of it")]
#[path = "../../crates/bufferevent-filter/tests/support/mod.rs"]
mod support;

use support::kinds::{Counted, Does};
use support::stacks::{Kind, run as run_stacks};

/// Runs the stacks and the operations that `data` says.
pub fn run(data: &[u8]) {
    run_stacks::<Level>(data);
}

/// What one level of a stack does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Level {
    Model(Does),
    Zlib(FlushPolicy),
    Tls,
}

impl Level {
    /// Whether bytes may stay in it until a flush.
    fn keeps(self) -> bool {
        matches!(
            self,
            Self::Model(Does::Holds) | Self::Zlib(FlushPolicy::OnRequest)
        )
    }

    fn zlib(choices: &mut Choices<'_>, calls: &Arc<AtomicUsize>) -> (Self, [Counted; 2]) {
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
        let one = || {
            let filter = settings.clone().build();
            Counted::new(Box::new(filter.expect("the settings are possible")), calls)
        };
        (Self::Zlib(policy), [one(), one()])
    }

    fn model(
        does: Does,
        choices: &mut Choices<'_>,
        calls: &Arc<AtomicUsize>,
    ) -> (Self, [Counted; 2]) {
        let mut random = Random::new(choices.byte().into());
        let mut one = || does.filter(&mut random, calls);
        (Self::Model(does), [one(), one()])
    }
}

impl Kind for Level {
    const TRANSPORT: Self = Self::Model(Does::Nothing);

    fn chosen(
        choices: &mut Choices<'_>,
        below: &[Self],
        calls: &Arc<AtomicUsize>,
    ) -> (Self, [Counted; 2]) {
        let choice = choices.below(Does::ALL.len() + 4);
        // A handshake has to get through without a flush.
        let kept = below.iter().any(|level| level.keeps());
        // One is enough: each multiplies what passes below it.
        let encrypted = below.contains(&Self::Tls);
        match choice.checked_sub(Does::ALL.len()) {
            Some(0 | 1) if !kept && !encrypted => {
                let (client, server) = choices.pick(&Agreement::ALL).filters();
                let client = Counted::new(Box::new(client), calls);
                (Self::Tls, [client, Counted::new(Box::new(server), calls)])
            }
            Some(_) => Self::zlib(choices, calls),
            None => match Does::ALL[choice] {
                Does::Greets if kept => Self::model(Does::Nothing, choices, calls),
                does => Self::model(does, choices, calls),
            },
        }
    }

    fn transparent(choices: &mut Choices<'_>, calls: &Arc<AtomicUsize>) -> (Self, Counted) {
        let does = choices.pick(&[Does::Nothing, Does::Chunks, Does::Lies]);
        let (level, [filter, _]) = Self::model(does, choices, calls);
        (level, filter)
    }

    fn is_transparent(self) -> bool {
        matches!(self, Self::Model(does) if does.is_transparent())
    }

    fn shakes_hands(self) -> bool {
        matches!(self, Self::Tls | Self::Model(Does::Greets))
    }

    fn grows(self, bytes: usize) -> usize {
        match self {
            Self::Model(does) => does.grows(bytes),
            // A block and a flush for each byte; header and trailer.
            Self::Zlib(_) => 16 * bytes + 32,
            // A record for each byte; the handshake.
            Self::Tls => 40 * bytes + 4096,
        }
    }
}
