//! A range of a file as a part of a buffer.
//!
//! Who can send a file without reading it (a socket with sendfile) looks at the region itself;
//! for everyone else its bytes are read by positioned reads, a block at a time, when they are needed.
//!
//! # Invariants
//! - `offset + len` fits a file offset of the operating system (a signed 64-bit number).
//! - A region of a regular file lay inside the file when it was made. It may be cut since: then
//!   reading is an error, and never a signal, since nothing here maps memory.

use std::fs::File;
use std::io;

use crate::MAX_LEN;
use crate::error::{Error, ErrorKind};
use crate::sync::Arc;

/// A range of bytes of a file, counted among the bytes of a buffer without being read.
///
/// Clones share the open file; it is closed with the last of them.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use evbuffer::{EvBuffer, FileRegion};
///
/// let file = Arc::new(std::fs::File::open("Cargo.toml")?);
/// let mut buffer = EvBuffer::new();
/// buffer.append_file(FileRegion::new(file, 1, 7)?)?;
/// let mut name = [0; 7];
/// assert_eq!(buffer.remove(&mut name), 7);
/// assert_eq!(&name, b"package");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileRegion {
    file: Arc<File>,
    offset: u64,
    len: usize,
}

impl FileRegion {
    /// The `len` bytes of `file` from `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::BadRange`] when `offset + len` is no file offset, or when the file is a regular
    /// one and shorter than that; [`ErrorKind::Io`] when its length cannot be asked for.
    ///
    /// Source: libevent `evbuffer_file_segment_new`, which finds a short file only when it is sent.
    #[doc(alias = "evbuffer_file_segment_new")]
    #[doc(alias = "evbuffer_file_segment_free")]
    pub fn new(file: Arc<File>, offset: u64, len: usize) -> Result<Self, Error> {
        const DURING: &str = "file region";
        let bad = || Error::new(ErrorKind::BadRange, DURING);
        let end = u64::try_from(len)
            .ok()
            .and_then(|len| offset.checked_add(len))
            .ok_or_else(bad)?;
        if len > MAX_LEN || i64::try_from(end).is_err() {
            return Err(bad());
        }
        let metadata = file.metadata().map_err(|error| Error::io(DURING, error))?;
        if metadata.is_file() && end > metadata.len() {
            return Err(bad());
        }
        Ok(Self { file, offset, len })
    }

    /// All of a regular file as it is long now.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn whole(file: Arc<File>) -> Result<Self, Error> {
        let metadata = file
            .metadata()
            .map_err(|error| Error::io("file region", error))?;
        let len = usize::try_from(metadata.len())
            .map_err(|_| Error::new(ErrorKind::BadRange, "file region"))?;
        Self::new(file, 0, len)
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where in the file the region begins, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes the region has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the region has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves the beginning; `n` is at most `len`.
    pub(crate) fn advance(&mut self, n: usize) {
        debug_assert!(n <= self.len);
        self.len -= n;
        self.offset += n as u64; // Cannot overflow: the end was checked and does not move.
    }

    /// Cuts the first `n` bytes off as a region of their own; `n` is at most `len`.
    pub(crate) fn split_to(&mut self, n: usize) -> Self {
        let front = Self {
            file: self.file.clone(),
            offset: self.offset,
            len: n,
        };
        self.advance(n);
        front
    }

    /// Fills `dst` with the bytes from `skip` on, or says why it cannot.
    pub(crate) fn read_exact(
        &self,
        skip: usize,
        mut dst: &mut [u8],
        during: &'static str,
    ) -> Result<(), Error> {
        debug_assert!(skip + dst.len() <= self.len);
        let mut offset = self.offset + skip as u64;
        while !dst.is_empty() {
            match read_at(&self.file, dst, offset) {
                Ok(0) => return Err(Error::io(during, io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    dst = &mut dst[n..];
                    offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(during, error)),
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_at(file: &File, dst: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, dst, offset)
}

/// Moves the file's cursor as well, which nothing here looks at.
#[cfg(windows)]
fn read_at(file: &File, dst: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, dst, offset)
}
