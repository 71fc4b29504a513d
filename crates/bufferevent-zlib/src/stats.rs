//! How much went through a filter, each way.

/// Bytes of one direction before and after compression.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub struct Volume {
    /// Bytes as the user sees them.
    pub plain: u64,
    /// Bytes as the peer sees them: headers and trailers count.
    pub compressed: u64,
}

impl Volume {
    /// Plain bytes for each compressed one; `None` before the first.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.compressed > 0).then(|| self.plain as f64 / self.compressed as f64)
    }

    pub(crate) fn count(&mut self, plain: usize, compressed: usize) {
        self.plain += plain as u64;
        self.compressed += compressed as u64;
    }
}

/// What went through a filter so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub struct ZlibStats {
    /// What was read.
    pub input: Volume,
    /// What was written.
    pub output: Volume,
    /// Streams that were read to their ends, their checksums right: more than one with gzip alone.
    pub members: u64,
}
