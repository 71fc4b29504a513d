//! Files that the program reads whole: configurations, names, certificates and keys.
//!
//! # Invariants
//! - No more is read than the kind of file may have, whatever the file says of its length: a device or a pipe has none.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The bytes of a file, which may also be a pipe; at most `limit` of them.
///
/// # Errors
/// What the system says; a file that is longer.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let why = format!("it has more than {limit} bytes, which no such file has");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// The same, as text.
pub(crate) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8"))
}
