//! The figures to reach, and the judgement of what was measured.

use std::fmt;

use serde_json::{Value, json};

use super::statistics::Spread;
use crate::failure::Failure;

/// What a median is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
            Self::AtMost(limit) => write!(f, "at most {limit}"),
        }
    }
}

/// All that a run judged, in order. Quantities without a limit are noted for the reader.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    judged: usize,
    missed: Vec<String>,
    entries: Vec<Value>,
}

impl Judgement {
    /// Prints `what` with its spread, and whether its median is within `limit`.
    pub(super) fn judge(&mut self, what: &str, spread: Spread, limit: Option<Limit>) {
        let verdict = match limit {
            None => String::new(),
            Some(limit) if limit.holds(spread.median) => format!("{limit}: met"),
            Some(limit) => format!("{limit}: MISSED"),
        };
        println!("  {what:<46} {spread:<24.2} {verdict}");
        if let Some(limit) = limit {
            self.judged += 1;
            if !limit.holds(spread.median) {
                self.missed
                    .push(format!("{what} {:.2}, {limit}", spread.median));
            }
        }
        let met = limit.map(|limit| limit.holds(spread.median));
        self.entries.push(json!({
            "what": what, "measured": spread.json(), "limit": limit.map(|limit| limit.to_string()), "met": met,
        }));
    }

    /// A target that this run could not measure counts as missed.
    pub(super) fn not_measured(&mut self, what: &str, why: &str) {
        println!("  {what:<46} NOT MEASURED: {why}");
        self.judged += 1;
        self.missed.push(format!("{what} not measured ({why})"));
        self.entries
            .push(json!({"what": what, "measured": null, "why": why, "met": false}));
    }

    pub(super) fn json(&self) -> Value {
        Value::from(self.entries.clone())
    }

    /// Success when every target was met; else one line that names those that were not.
    pub(super) fn close(self, bench: &str) -> Result<(), Failure> {
        if self.missed.is_empty() {
            println!("{bench}: all {} targets met", self.judged);
            return Ok(());
        }
        let missed = self.missed.join("; ");
        Err(Failure::new(format!(
            "{bench}: {} of {} targets missed: {missed}",
            self.missed.len(),
            self.judged
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_judged_and_a_miss_is_named() {
        let spread = Spread {
            median: 1.2,
            low: 0.9,
            high: 1.5,
        };
        let mut judgement = Judgement::default();
        judgement.judge("noted", spread, None);
        judgement.judge("fast enough", spread, Some(Limit::AtLeast(1.2)));
        judgement.judge("cheap enough", spread, Some(Limit::AtMost(1.1)));
        let failure = judgement.close("bench net").unwrap_err().to_string();
        assert_eq!(
            failure,
            "bench net: 1 of 2 targets missed: cheap enough 1.20, at most 1.1"
        );
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let mut judgement = Judgement::default();
        judgement.not_measured("timers", "no bench of that name");
        assert!(judgement.close("bench buffer").is_err());
    }
}
