//! Files that the program reads whole (configurations, names, certificates and keys), and those that it writes to.
//!
//! # Invariants
//! - No more is read than the kind of file may have, whatever the file says of its length: a device or a pipe has none.
//! - Nobody is waited for without a limit: a pipe that nobody writes to, or that nobody reads, is told as that.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

/// How long a pipe may take from the beginning of its reading to its end. Whoever makes a configuration on the way takes less.
const PIPE_WITHIN: Duration = Duration::from_secs(5);

/// The bytes of a file, which may also be a pipe; at most `limit` of them.
///
/// # Errors
/// What the system says; a file that is longer; a pipe that does not end in time, or out of which nothing comes.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = system::for_reading(path)?;
    let bytes = if file.metadata()?.is_file() {
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        bytes
    } else {
        system::read_pipe(file, limit.saturating_add(1), PIPE_WITHIN)?
    };
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

/// A file whose end is written to, made if there is none.
///
/// # Errors
/// What the system says; a pipe that nobody reads.
pub(crate) fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    system::for_writing(&mut options, path)
}

#[cfg(unix)]
mod system {
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    use super::*;

    /// Opening waits for nobody at the other end.
    const NONBLOCK: i32 = OFlags::NONBLOCK.bits().cast_signed();

    pub(super) fn for_reading(path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(NONBLOCK).open(path)
    }

    pub(super) fn for_writing(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
        let file = options.custom_flags(NONBLOCK).open(path).map_err(|error| {
            let no_reader = rustix::io::Errno::NXIO.raw_os_error();
            if error.raw_os_error() == Some(no_reader) {
                return io::Error::new(error.kind(), "it is a pipe that nobody reads");
            }
            error
        })?;
        // From here on it is waited for: only the thread that writes does.
        let flags = fcntl_getfl(&file)?;
        fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
        Ok(file)
    }

    /// At most `most` bytes of what does not tell its length, until its end.
    pub(super) fn read_pipe(mut file: File, most: u64, limit: Duration) -> io::Result<Vec<u8>> {
        let until = Instant::now() + limit;
        let (mut bytes, mut piece) = (Vec::new(), [0; 16 * 1024]);
        while (bytes.len() as u64) < most {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut watched = [PollFd::new(&file, PollFlags::IN)];
            match poll(&mut watched, Some(&left)) {
                Ok(0) => {
                    let why = format!("it is a pipe that has not ended within {limit:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match file.read(&mut piece) {
                Ok(0) if bytes.is_empty() => {
                    let why = "nothing comes out of it; a pipe that was read before is empty";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error)
                    if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted]
                        .contains(&error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }
}

/// Where nothing but a file has a path.
#[cfg(not(unix))]
mod system {
    use super::*;

    pub(super) fn for_reading(path: &Path) -> io::Result<File> {
        File::open(path)
    }

    pub(super) fn for_writing(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
        options.open(path)
    }

    pub(super) fn read_pipe(file: File, most: u64, _limit: Duration) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
