//! Between a buffer and a descriptor: the system calls that move bytes.
//!
//! # Invariants
//! - One call here is one system call that moves bytes.
//! - What goes by [`By::Socket`] raises no SIGPIPE.

use std::cell::RefCell;
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use evbuffer::{Block, EvBuffer, Pool};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use crate::buffer::{Buffer, End};
use crate::ffi::{self, Ref, descriptor, system};

/// A read up to here is copied, so that the block that it was read into can serve the next one.
const READ_COPY_MAX: usize = 2 * 1024;

/// Which system calls move bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum By {
    /// `recv` and `send`: 3 % of an echo cheaper than the others. What is no socket answers `ENOTSOCK`.
    Socket,
    /// `read` and `write`.
    Any,
}

/// What a thread reads into.
#[derive(Default)]
struct Scratch {
    pool: Pool,
    /// The block of the last read, if its bytes were copied out.
    block: Option<Block>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A descriptor as something to write to.
struct Target(BorrowedFd<'static>, By);

impl io::Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(match self.1 {
            By::Socket => rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?,
            By::Any => rustix::io::write(self.0, bytes)?,
        })
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut nothing_else = SendAncillaryBuffer::default();
        Ok(match self.1 {
            By::Socket => {
                rustix::net::sendmsg(self.0, slices, &mut nothing_else, SendFlags::NOSIGNAL)?
            }
            By::Any => rustix::io::writev(self.0, slices)?,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    /// Reads once, at most `max` bytes, whatever is frozen. 0 is the end; an error is in errno.
    pub(crate) fn read_from(&self, fd: BorrowedFd<'_>, max: usize, by: By) -> Option<usize> {
        let count = SCRATCH.with_borrow_mut(|scratch| self.read_by(scratch, fd, max, by))?;
        self.changed(count, 0);
        Some(count)
    }

    #[inline(always)]
    fn read_by(
        &self,
        scratch: &mut Scratch,
        fd: BorrowedFd<'_>,
        max: usize,
        by: By,
    ) -> Option<usize> {
        let block = match &mut scratch.block {
            Some(block) => block,
            empty @ None => match scratch.pool.take() {
                Ok(block) => empty.insert(block),
                Err(_) => return no_memory(),
            },
        };
        let max = max.min(block.len());
        let room = &mut block[..max];
        let count = system(match by {
            By::Socket => rustix::net::recv(fd, room, RecvFlags::empty()).map(|(count, _)| count),
            By::Any => rustix::io::read(fd, room),
        })?;
        let added = if count <= READ_COPY_MAX {
            self.with(|own| own.append_slice(&block[..count]))
        } else {
            self.take_block(scratch, count)
        };
        added.map_or_else(|_| no_memory(), |()| Some(count))
    }

    /// The block itself, with `count` bytes in it, becomes a part of the buffer.
    #[inline(never)]
    fn take_block(&self, scratch: &mut Scratch, count: usize) -> Result<(), evbuffer::Error> {
        match scratch.block.take() {
            Some(block) => self.with(|own| own.append_block(block, count)),
            None => Ok(()),
        }
    }

    /// Writes once, at most `max` bytes, whatever is frozen. An error is in errno.
    pub(crate) fn write_to(&self, fd: BorrowedFd<'static>, max: usize, by: By) -> Option<usize> {
        let written = self.with(|own| {
            let first = own.chunk();
            // Usually all there is lies in one piece.
            if by == By::Socket && first.len() == own.len() && first.len() <= max {
                let sent = rustix::net::send(fd, first, SendFlags::NOSIGNAL)?;
                if sent == own.len() {
                    own.clear();
                    return Ok(sent);
                }
                return Ok(own.drain(sent));
            }
            self.write_part(own, fd, max, by)
        });
        match written {
            Ok(count) => {
                self.changed(0, count);
                Some(count)
            }
            Err(error) => failed(&error),
        }
    }

    #[inline(never)]
    fn write_part(
        &self,
        own: &mut EvBuffer,
        fd: BorrowedFd<'static>,
        max: usize,
        by: By,
    ) -> io::Result<usize> {
        if self.drains_to_fd.get()
            && let Some(region) = own.front_file()
        {
            let mut offset = region.offset();
            let count = region.len().min(max);
            let sent = rustix::fs::sendfile(fd, region.file().as_fd(), Some(&mut offset), count);
            return match sent {
                // The file was cut since it was added: what is missing never comes.
                Ok(0) => Err(io::Error::from_raw_os_error(libc::EIO)),
                Ok(sent) => Ok(own.drain(sent)),
                Err(error) => Err(error.into()),
            };
        }
        own.write_to(&mut Target(fd, by), max)
    }
}

#[cold]
fn no_memory() -> Option<usize> {
    ffi::set_errno(libc::ENOMEM);
    None
}

#[cold]
fn failed(error: &io::Error) -> Option<usize> {
    ffi::set_errno(error.raw_os_error().unwrap_or(libc::EIO));
    None
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_read(buffer: Option<Ref<Buffer>>, fd: c_int, most: c_int) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    if buffer.is_frozen(End::Back) {
        return -1;
    }
    let Some(fd) = descriptor(fd) else {
        ffi::set_errno(libc::EBADF);
        return -1;
    };
    let max = buffer.max_read.get();
    let max = usize::try_from(most).map_or(max, |most| most.min(max));
    buffer
        .read_from(fd, max, By::Any)
        .map_or(-1, |count| count as c_int)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_write_atmost(buffer: Option<Ref<Buffer>>, fd: c_int, most: isize) -> c_int {
    let Some(buffer) = buffer else { return -1 };
    let _guard = buffer.guard();
    if buffer.is_frozen(End::Front) {
        return -1;
    }
    let len = buffer.len();
    let max = usize::try_from(most).map_or(len, |most| most.min(len));
    if max == 0 {
        return -1;
    }
    let Some(fd) = descriptor(fd) else {
        ffi::set_errno(libc::EBADF);
        return -1;
    };
    let max = max.min(c_int::MAX as usize);
    buffer
        .write_to(fd, max, By::Any)
        .map_or(-1, |count| count as c_int)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_write(buffer: Option<Ref<Buffer>>, fd: c_int) -> c_int {
    evbuffer_write_atmost(buffer, fd, -1)
}
