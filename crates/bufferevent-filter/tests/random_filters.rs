//! Random stacks of filters under random use: whatever happens, all bytes arrive in order, no mark is exceeded, nothing is
//! stuck and nothing spins. `support/stacks.rs` says how; the filters are identity, chunking, expanding, holding, framing with an end of
//! its own, greeting first, lying.
//!
//! `FILTER_SEEDS` says how many runs; what fails names its seed.

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bufferevent_testkit::{Choices, Random, spec};
use support::kinds::{Counted, Does};
use support::stacks::{Kind, run};

/// Runs of the test, each with its own seed, unless `FILTER_SEEDS` says otherwise.
const SEEDS: u64 = 500;

/// Bytes of choices for one run: some of them leave the last operations to the calm.
const CHOICES: usize = 300;

impl Kind for Does {
    const TRANSPORT: Self = Self::Nothing;

    fn chosen(
        choices: &mut Choices<'_>,
        below: &[Self],
        calls: &Arc<AtomicUsize>,
    ) -> (Self, [Counted; 2]) {
        let does = match choices.pick(&Self::ALL) {
            // A greeting has to get through without a flush.
            Self::Greets if below.contains(&Self::Holds) => Self::Nothing,
            does => does,
        };
        let mut random = Random::new(choices.byte().into());
        let mut filter = || does.filter(&mut random, calls);
        (does, [filter(), filter()])
    }

    fn transparent(choices: &mut Choices<'_>, calls: &Arc<AtomicUsize>) -> (Self, Counted) {
        let does = choices.pick(&[Self::Nothing, Self::Chunks, Self::Lies]);
        let mut random = Random::new(choices.byte().into());
        (does, does.filter(&mut random, calls))
    }

    fn is_transparent(self) -> bool {
        self.is_transparent()
    }

    fn shakes_hands(self) -> bool {
        self == Self::Greets
    }

    fn grows(self, bytes: usize) -> usize {
        self.grows(bytes)
    }
}

/// Says which seed it was.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}", self.0);
        }
    }
}

#[test]
fn whatever_happens_all_bytes_arrive_and_nothing_spins() {
    spec!(F2);
    spec!(F3);
    spec!(F7);
    let seeds = std::env::var("FILTER_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(SEEDS);
    for seed in 0..seeds {
        let _seed = Seed(seed);
        run::<Does>(&Random::new(seed).bytes(CHOICES));
    }
}
