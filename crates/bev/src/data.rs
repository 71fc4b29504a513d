//! Data that a seed determines: blocks of text and blocks of random bytes in turn.
//!
//! The sender makes the stream as it goes, and the receiver makes it again to compare with: nothing is stored but a block on each side.
//!
//! # Invariants
//! - The same seed gives the same bytes, on every machine.

/// Bytes of one block.
const BLOCK_BYTES: usize = 64 * 1024;

/// Eight bytes for each word, so that a word is one fixed-size copy; a power of two of them, so that bits choose one.
const WORDS: [&[u8; 8]; 16] = [
    b"buffer  ",
    b"water   ",
    b"mark    ",
    b"event   ",
    b"read    ",
    b"write   ",
    b"pipe    ",
    b"a       ",
    b"socket  ",
    b"loop    ",
    b"the     ",
    b"of      ",
    b"stream  ",
    b"layer   ",
    b"end.    ",
    b"then    ",
];

/// A stream of bytes without end.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    state: u64,
    block: Vec<u8>,
    /// Bytes of the block that were taken.
    taken: usize,
    text: bool,
}

impl Stream {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: seed,
            block: Vec::with_capacity(BLOCK_BYTES),
            taken: 0,
            text: false,
        }
    }

    /// The next bytes; never empty.
    pub(crate) fn chunk(&mut self) -> &[u8] {
        if self.taken == self.block.len() {
            self.next_block();
        }
        &self.block[self.taken..]
    }

    /// Takes `count` bytes, no more than the chunk has.
    pub(crate) fn advance(&mut self, count: usize) {
        self.taken += count;
        assert!(
            self.taken <= self.block.len(),
            "more taken than the chunk had"
        );
    }

    /// Whether `bytes` are the next ones, all of which are taken then. `Err` is the offset of the first that is not.
    pub(crate) fn take_equal(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut checked = 0;
        while checked < bytes.len() {
            let chunk = self.chunk();
            let count = chunk.len().min(bytes.len() - checked);
            let (here, there) = (&bytes[checked..checked + count], &chunk[..count]);
            if here != there {
                let same = here.iter().zip(there).take_while(|(a, b)| a == b).count();
                return Err(checked + same);
            }
            self.advance(count);
            checked += count;
        }
        Ok(())
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn next_block(&mut self) {
        self.block.clear();
        self.taken = 0;
        self.text = !self.text;
        while self.block.len() < BLOCK_BYTES {
            let mut bits = self.random();
            if !self.text {
                self.block.extend_from_slice(&bits.to_le_bytes());
                continue;
            }
            for _ in 0..16 {
                let word = WORDS[usize::try_from(bits & 15).expect("at most 15")];
                let length = word
                    .iter()
                    .position(|byte| *byte == b' ')
                    .map_or(word.len(), |end| end + 1);
                self.block.extend_from_slice(&word[..length]);
                bits >>= 4;
            }
            self.block.push(b'\n');
        }
        self.block.truncate(BLOCK_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_equals_itself_in_any_pieces() {
        let (mut source, mut check) = (Stream::new(7), Stream::new(7));
        for count in [1, 100, BLOCK_BYTES, 3, BLOCK_BYTES - 1]
            .into_iter()
            .cycle()
            .take(50)
        {
            let piece = source.chunk();
            let piece = piece[..count.min(piece.len())].to_vec();
            source.advance(piece.len());
            assert_eq!(check.take_equal(&piece), Ok(()));
        }
    }

    #[test]
    fn a_changed_byte_is_found_where_it_is() {
        let mut bytes = Stream::new(7).chunk().to_vec();
        bytes[1234] ^= 1;
        assert_eq!(Stream::new(7).take_equal(&bytes), Err(1234));
        assert_ne!(Stream::new(7).chunk(), Stream::new(8).chunk());
    }

    #[test]
    fn half_of_it_is_text() {
        let mut stream = Stream::new(1);
        for nth in 0..8 {
            let block = stream.chunk();
            assert_eq!(block.len(), BLOCK_BYTES);
            assert_eq!(block.is_ascii(), nth % 2 == 0);
            stream.advance(BLOCK_BYTES);
        }
    }
}
