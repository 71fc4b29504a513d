//! How much may come out of what came in: the guard against decompression bombs.
//!
//! # Invariants
//! - Counts are of the whole stream, all members of it, so that the work a peer can cause stays in proportion to what it has sent.
//! - The absolute limit is exact. The ratio is looked at after each piece, so it is overstepped by one piece at most.

use std::num::NonZeroU32;

use crate::cause::Cause;
use crate::settings::Builder;

/// Both counts of what was read, and what they may come to.
#[derive(Debug)]
pub(crate) struct Guard {
    max_ratio: Option<NonZeroU32>,
    ratio_free: u64,
    max_output: Option<u64>,
    compressed: u64,
    plain: u64,
}

impl Guard {
    pub(crate) fn new(settings: &Builder) -> Self {
        Self {
            max_ratio: settings.max_ratio,
            ratio_free: settings.ratio_free,
            max_output: settings.max_output,
            compressed: 0,
            plain: 0,
        }
    }

    /// Compressed bytes so far.
    pub(crate) fn compressed(&self) -> u64 {
        self.compressed
    }

    /// Plain bytes so far.
    pub(crate) fn plain(&self) -> u64 {
        self.plain
    }

    /// How many more plain bytes may come, `at_most` of them; 0 says that the next one is too many.
    pub(crate) fn left(&self, at_most: usize) -> usize {
        self.max_output.map_or(at_most, |limit| {
            usize::try_from(limit - self.plain.min(limit)).map_or(at_most, |left| left.min(at_most))
        })
    }

    /// Counts compressed bytes that brought nothing: of headers, trailers, padding.
    pub(crate) fn count_around(&mut self, compressed: usize) {
        self.compressed += compressed as u64;
    }

    /// Counts what one piece of work took and gave.
    pub(crate) fn count(&mut self, compressed: usize, plain: usize) -> Result<(), Cause> {
        self.compressed += compressed as u64;
        self.plain += plain as u64;
        if let Some(limit) = self.max_output.filter(|&limit| self.plain > limit) {
            return Err(Cause::MaxOutput { limit });
        }
        let too_many = self.max_ratio.is_some_and(|ratio| {
            let allowed = self.compressed.saturating_mul(ratio.get().into());
            self.plain > self.ratio_free && self.plain > allowed
        });
        if too_many {
            return Err(Cause::Ratio {
                compressed: self.compressed,
                plain: self.plain,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(ratio: u32, free: u64, max_output: Option<u64>) -> Guard {
        Guard {
            max_ratio: NonZeroU32::new(ratio),
            ratio_free: free,
            max_output,
            compressed: 0,
            plain: 0,
        }
    }

    #[test]
    fn the_ratio_counts_above_what_is_free_and_is_of_all_so_far() {
        let mut guard = guard(100, 1000, None);
        assert_eq!(guard.count(1, 1000), Ok(()));
        assert_eq!(guard.count(9, 0), Ok(()), "late input counts too");
        assert!(matches!(
            guard.count(0, 1),
            Err(Cause::Ratio {
                compressed: 10,
                plain: 1001
            })
        ));
        guard.count_around(1);
        assert_eq!(guard.count(0, 99), Ok(()), "exactly at the ratio");
    }

    #[test]
    fn the_absolute_limit_is_exact() {
        let mut guard = guard(0, 0, Some(10));
        assert_eq!(guard.left(4), 4);
        assert_eq!(guard.count(1, 10), Ok(()));
        assert_eq!(guard.left(4), 0);
        assert_eq!(guard.count(0, 1), Err(Cause::MaxOutput { limit: 10 }));
        assert_eq!(guard.left(4), 0);
    }
}
