//! Bytes as a list of choices: what a fuzzer, or a seed, says is to happen.
//!
//! # Invariants
//! - A choice takes one byte, or two where its range needs them, whatever comes of it: a mutation of one byte changes one choice.
//! - Behind the last byte every choice is the first one.

/// The choices that are left.
///
/// ```
/// use bufferevent_testkit::Choices;
/// let mut choices = Choices::new(&[7, 1]);
/// assert_eq!(choices.below(5), 2);
/// assert_eq!(choices.pick(&["none", "one"]), "one");
/// assert!(choices.is_over());
/// assert_eq!(choices.below(5), 0);
/// ```
#[derive(Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Those that `bytes` say.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all bytes were taken.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// A number below `bound`, which is not 0 and at most 65,536.
    pub fn below(&mut self, bound: usize) -> usize {
        debug_assert!((1..=1 << 16).contains(&bound));
        let number = match bound {
            ..=256 => usize::from(self.byte()),
            _ => usize::from(u16::from_le_bytes([self.byte(), self.byte()])),
        };
        number % bound
    }

    /// Whether something happens that happens once in `times`, for bytes that are evenly spread.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// One of `all`.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// The next `count` bytes, or as many as there are.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}
