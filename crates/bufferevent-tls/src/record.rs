//! Where one TLS record ends and the next begins, and whether it is TLS at all.
//!
//! The session is fed one record at a time, so that what follows a close_notify stays in the buffer below for whoever takes the
//! layer off, and so that records can be counted.
//!
//! # Invariants
//! - [`Records::next`] never answers a piece that reaches into a second record.
//! - A header that cannot be one is answered alone: the session judges it before anything behind it is fed.
//!
//! Source: RFC 8446, section 5.1; RFC 5246, section 6.2.

use evbuffer::EvBuffer;

/// Type, version, length.
const HEADER: usize = 5;

/// What may follow a header: 2^14 bytes of content and what TLS 1.2 allows compression and encryption to add.
const MAX_BODY: usize = (1 << 14) + 2048;

/// What somebody speaks who does not speak TLS, as far as five bytes tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Spoken {
    /// HTTP as plain text, a request or a response.
    Http,
    /// The banner of SSH.
    Ssh,
    /// The hello of SSL 2, obsolete since RFC 6176.
    Ssl2,
    /// The greeting of an SMTP or FTP server, which waits for STARTTLS.
    Greeting,
    /// Something else.
    Unknown,
}

/// The place in the incoming stream of records.
#[derive(Debug, Default)]
pub(crate) struct Records {
    header: [u8; HEADER],
    /// Bytes of the header that have passed.
    have: usize,
    /// Bytes of the body that have not.
    body: usize,
    /// Whole records so far.
    passed: u64,
}

impl Records {
    /// How many bytes at the front of `source`, which has some, are to be fed next. They count as passed.
    pub(crate) fn next(&mut self, source: &EvBuffer) -> usize {
        let mut length = 0;
        if self.have < HEADER {
            length = source.copy_out(&mut self.header[self.have..]);
            self.have += length;
            if self.have < HEADER {
                return length;
            }
            self.body = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            if self.body > MAX_BODY || !self.is_plausible() {
                return length;
            }
        }
        let more = self.body.min(source.len() - length);
        self.body -= more;
        if self.body == 0 {
            self.have = 0;
            self.passed += 1;
        }
        length + more
    }

    /// Whether the stream stands between two records.
    pub(crate) fn is_between(&self) -> bool {
        self.have == 0
    }

    /// Whole records so far.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// What the peer speaks, if its first bytes are no TLS record.
    pub(crate) fn spoken_instead(&self) -> Option<Spoken> {
        if self.passed > 0 || self.have == 0 || self.is_plausible() {
            return None;
        }
        Some(match &self.header[..self.have] {
            [b'H', b'T', b'T', b'P', ..]
            | [b'G', b'E', b'T', b' ', ..]
            | [b'P', b'U', b'T', b' ', ..]
            | [b'P', b'O', b'S', b'T', ..]
            | [b'H', b'E', b'A', b'D', ..]
            | [b'P', b'R', b'I', b' ', ..]
            | [b'P', b'A', b'T', b'C', b'H', ..]
            | [b'D', b'E', b'L', b'E', b'T', ..]
            | [b'O', b'P', b'T', b'I', b'O', ..]
            | [b'C', b'O', b'N', b'N', b'E', ..] => Spoken::Http,
            [b'S', b'S', b'H', b'-', ..] => Spoken::Ssh,
            [b'2', b'2', b'0', b' ' | b'-', ..] => Spoken::Greeting,
            [length, _, 1, ..] if length & 0x80 != 0 => Spoken::Ssl2,
            _ => Spoken::Unknown,
        })
    }

    /// Whether what is known of the header could begin a record: change_cipher_spec to heartbeat, of version 3.
    fn is_plausible(&self) -> bool {
        match &self.header[..self.have] {
            [kind, major, ..] => (20..=24).contains(kind) && *major == 3,
            [kind] => (20..=24).contains(kind),
            [] => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces that `stream` is fed in when it comes `step` bytes at a time.
    fn pieces(stream: &[u8], step: usize) -> Vec<usize> {
        let mut records = Records::default();
        let mut source = EvBuffer::new();
        let mut pieces = Vec::new();
        for chunk in stream.chunks(step) {
            source.append_slice(chunk).unwrap();
            while !source.is_empty() {
                let length = records.next(&source);
                assert!(length > 0, "a source with bytes has a next piece");
                assert_eq!(source.drain(length), length);
                pieces.push(length);
            }
        }
        pieces
    }

    #[test]
    fn no_piece_reaches_into_a_second_record() {
        let stream = [
            &[22, 3, 1, 0, 2, 7, 7][..],
            &[23, 3, 3, 0, 0],
            &[21, 3, 3, 0, 1, 9],
        ]
        .concat();
        assert_eq!(pieces(&stream, 100), [7, 5, 6]);
        assert_eq!(pieces(&stream, 1), [1; 18]);
        assert_eq!(pieces(&stream, 4), [4, 3, 1, 4, 4, 2]);
    }

    #[test]
    fn a_header_that_cannot_be_one_comes_alone() {
        assert_eq!(pieces(&[22, 3, 1, 0xff, 0xff, 1, 2, 3], 100)[0], 5);
        assert_eq!(pieces(b"GET / HTTP/1.1\r\n", 100)[0], 5);
    }

    #[test]
    fn what_is_spoken_instead_is_told_from_the_first_bytes() {
        let spoken = |bytes: &[u8]| {
            let mut records = Records::default();
            records.next(&EvBuffer::from(bytes));
            records.spoken_instead()
        };
        assert_eq!(spoken(b"GET / HTTP/1.1\r\n"), Some(Spoken::Http));
        assert_eq!(spoken(b"HTTP/1.1 400 Bad"), Some(Spoken::Http));
        assert_eq!(spoken(b"SSH-2.0-x"), Some(Spoken::Ssh));
        assert_eq!(spoken(b"220 mail"), Some(Spoken::Greeting));
        assert_eq!(spoken(&[0x80, 0x2e, 1, 0, 2]), Some(Spoken::Ssl2));
        assert_eq!(spoken(&[0; 9]), Some(Spoken::Unknown));
        assert_eq!(spoken(&[22, 3]), None);
        assert_eq!(spoken(&[22, 3, 3, 0, 0, b'G']), None);
    }
}
