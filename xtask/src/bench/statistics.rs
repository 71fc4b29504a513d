//! Medians and ranges of a few measurements.

use std::fmt;

use serde_json::{Value, json};

/// The median and the range of one quantity over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Spread {
    /// Of at least one measurement.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1).expect("a round was measured");
        let median = (sorted[last / 2] + sorted[last.div_ceil(2)]) / 2.0;
        Self {
            median,
            low: sorted[0],
            high: sorted[last],
        }
    }

    /// Of `ours / theirs`, each pair from one round.
    pub(super) fn of_ratios(ours: &[f64], theirs: &[f64]) -> Self {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        Self::of(&ratios)
    }

    pub(super) fn scaled(self, by: f64) -> Self {
        Self {
            median: self.median * by,
            low: self.low * by,
            high: self.high * by,
        }
    }

    pub(super) fn json(self) -> Value {
        json!({"median": self.median, "low": self.low, "high": self.high})
    }
}

/// `median (low..high)`, with as many digits behind the point as the formatter's precision says.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let text = format!(
            "{:.digits$} ({:.digits$}..{:.digits$})",
            self.median, self.low, self.high
        );
        // `pad` would take the precision for a length to cut at.
        write!(f, "{text:>width$}", width = f.width().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(
            Spread::of(&[4.0, 1.0, 3.0, 2.0]),
            Spread {
                median: 2.5,
                low: 1.0,
                high: 4.0
            }
        );
        assert_eq!(
            Spread::of(&[7.0]),
            Spread {
                median: 7.0,
                low: 7.0,
                high: 7.0
            }
        );
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was half as fast in the second round: the ratio is the same.
        let spread = Spread::of_ratios(&[30.0, 15.0], &[20.0, 10.0]);
        assert_eq!(
            spread,
            Spread {
                median: 1.5,
                low: 1.5,
                high: 1.5
            }
        );
    }

    #[test]
    fn it_is_shown_with_the_digits_asked_for() {
        let spread = Spread::of(&[1.25, 2.5, 3.75]);
        assert_eq!(format!("{spread:.1}"), "2.5 (1.2..3.8)");
        assert_eq!(format!("{spread:>12.0}"), "    2 (1..4)");
    }
}
