//! Messages of every power of two through five stacks, and whether any length falls off a cliff.
//!
//! # Invariants
//! - What a length is worth is the best of its rounds: whatever else runs on the machine only ever takes away.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::programs::Programs;
use crate::bench::statistics::Spread;
use crate::bench::target::{Judgement, Limit};
use crate::failure::Failure;

/// How much longer a measurement of a rate is than that of one length of one stack: there are a hundred of them.
pub(super) const SHARE: f64 = 5.0;

/// What the rate of a length has to be of that of half the length. Less is a cliff.
const CLIFF: Limit = Limit::AtLeast(0.8);

pub(super) const STACKS: [&str; 5] = ["plain", "identity", "zlib", "tls", "tls+zlib"];

/// Bytes per second of CPU time, by length of the message in bytes.
pub(super) type Rates = BTreeMap<u32, f64>;

/// One curve for each of [`STACKS`].
pub(super) struct Sweep(pub(super) Vec<Rates>);

pub(super) fn measure(
    programs: &Programs,
    rounds: usize,
    seconds: f64,
    judgement: &mut Judgement,
) -> Result<Sweep, Failure> {
    let mut sweep = Sweep(vec![Rates::new(); STACKS.len()]);
    for round in 0..rounds {
        for turn in 0..STACKS.len() {
            let at = (turn + round) % STACKS.len();
            eprintln!("round {} of {rounds}: sweep of {}", round + 1, STACKS[at]);
            let words = ["sweep", &seconds.to_string()];
            keep(&mut sweep.0[at], &programs.ours(&words, &[STACKS[at]])?);
        }
    }
    println!("\none message at a time over loopback TCP, MiB/s by length");
    show(&sweep);
    for (stack, rates) in STACKS.iter().zip(&sweep.0) {
        let (length, step) = steepest(rates);
        let what = format!("{stack}: worst step, to {length} B");
        judgement.judge(&what, Spread::of(&[step]), Some(CLIFF));
    }
    Ok(sweep)
}

/// Keeps the better of what is known and what was measured.
fn keep(best: &mut Rates, measured: &Value) {
    for (length, rate) in measured.as_object().into_iter().flatten() {
        if let (Ok(length), Some(rate)) = (length.parse(), rate.as_f64()) {
            let best = best.entry(length).or_insert(rate);
            *best = best.max(rate);
        }
    }
}

/// The length with the lowest ratio to the one before it, and that ratio.
fn steepest(rates: &Rates) -> (u32, f64) {
    let steps = rates.iter().zip(rates.iter().skip(1));
    steps
        .map(|((_, before), (length, rate))| (*length, rate / before))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((0, f64::NAN))
}

fn show(sweep: &Sweep) {
    println!(
        "  {:>8}{}",
        "bytes",
        STACKS.map(|name| format!("{name:>12}")).concat()
    );
    for length in sweep.0[0].keys() {
        let figure = |rates: &Rates| {
            let rate = rates.get(length).copied().unwrap_or(f64::NAN);
            format!("{:>12.2}", rate / f64::from(1 << 20))
        };
        println!(
            "  {length:>8}{}",
            sweep.0.iter().map(figure).collect::<String>()
        );
    }
}

impl Sweep {
    pub(super) fn json(&self) -> Value {
        let named = STACKS.iter().zip(&self.0);
        named
            .map(|(stack, rates)| (stack.to_string(), json!(rates)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steepest_step_is_found_and_noise_only_takes_away() {
        let mut rates = Rates::new();
        keep(
            &mut rates,
            &json!({"1": 10.0, "2": 9.0, "4": 30.0, "8": 20.0}),
        );
        assert_eq!(steepest(&rates).0, 8);
        keep(&mut rates, &json!({"1": 5.0, "8": 40.0}));
        assert_eq!(steepest(&rates), (2, 0.9));
    }
}
