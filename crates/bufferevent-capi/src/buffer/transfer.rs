//! From buffer to buffer, and between a buffer and a descriptor.

use std::cell::RefCell;
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use evbuffer::{Block, EvBuffer, Pool};

use crate::buffer::{Buffer, End};
use crate::ffi::{self, Ref, code, descriptor, system};

/// A read up to here is copied, so that the block that it was read into can serve the next one.
const READ_COPY_MAX: usize = 2 * 1024;

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

#[unsafe(no_mangle)]
pub(crate) extern "C" fn evbuffer_add_buffer(
    to: Option<Ref<Buffer>>,
    from: Option<Ref<Buffer>>,
) -> c_int {
    let (Some(to), Some(from)) = (to, from) else {
        return -1;
    };
    let _guards = to.guard_both(from);
    if to == from || from.is_empty() {
        return 0;
    }
    if to.is_frozen(End::Back) || from.is_frozen(End::Front) {
        return -1;
    }
    code(to.move_all(from).is_some())
}

impl Buffer {
    /// Moves all of another buffer behind what is here, whatever is frozen; answers how many bytes.
    pub(crate) fn move_all(&self, from: Ref<Buffer>) -> Option<usize> {
        self.move_some(from, usize::MAX)
    }

    /// Moves up to `count` bytes from another buffer, whatever is frozen; answers how many. The source's callbacks run first.
    pub(crate) fn move_some(&self, from: Ref<Buffer>, count: usize) -> Option<usize> {
        let moved = self.with(|to| from.with(|from| from.move_to(count, to)).ok())?;
        from.changed(0, moved);
        self.changed(moved, 0);
        Some(moved)
    }
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_remove_buffer(
    from: Option<Ref<Buffer>>,
    to: Option<Ref<Buffer>>,
    count: usize,
) -> c_int {
    let (Some(from), Some(to)) = (from, to) else {
        return -1;
    };
    let _guards = to.guard_both(from);
    if count == 0 || to == from {
        return 0;
    }
    if to.is_frozen(End::Back) || from.is_frozen(End::Front) {
        return -1;
    }
    match to.move_some(from, count.min(c_int::MAX as usize)) {
        Some(moved) => moved as c_int,
        None => -1,
    }
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_prepend_buffer(to: Option<Ref<Buffer>>, from: Option<Ref<Buffer>>) -> c_int {
    let (Some(to), Some(from)) = (to, from) else {
        return -1;
    };
    let _guards = to.guard_both(from);
    let count = from.len();
    if to == from || count == 0 {
        return 0;
    }
    if to.is_frozen(End::Front) || from.is_frozen(End::Front) {
        return -1;
    }
    let done = to.with(|to| from.with(|from| to.prepend(from)).is_ok());
    if done {
        from.changed(0, count);
        to.changed(count, 0);
    }
    code(done)
}

/// Adds another buffer's bytes without moving or copying them.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_add_buffer_reference(
    to: Option<Ref<Buffer>>,
    from: Option<Ref<Buffer>>,
) -> c_int {
    let (Some(to), Some(from)) = (to, from) else {
        return -1;
    };
    let _guards = to.guard_both(from);
    let count = from.len();
    if count == 0 && to != from {
        return 0;
    }
    if to == from || to.is_frozen(End::Back) {
        return -1;
    }
    let done = to.with(|to| from.with(|from| to.add_reference_of(from)).is_ok());
    if done {
        to.changed(count, 0);
    }
    code(done)
}

/// A descriptor as something to write to.
struct Target(BorrowedFd<'static>);

impl io::Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0, bytes)?)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(self.0, slices)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    /// Reads once, at most `max` bytes, whatever is frozen. 0 is the end; an error is in errno.
    pub(crate) fn read_from(&self, fd: BorrowedFd<'_>, max: usize) -> Option<usize> {
        let count = SCRATCH.with_borrow_mut(|scratch| self.read_by(scratch, fd, max))?;
        self.changed(count, 0);
        Some(count)
    }

    fn read_by(&self, scratch: &mut Scratch, fd: BorrowedFd<'_>, max: usize) -> Option<usize> {
        let no_memory = || {
            ffi::set_errno(libc::ENOMEM);
            None
        };
        let Some(mut block) = scratch.block.take().or_else(|| scratch.pool.take().ok()) else {
            return no_memory();
        };
        let max = max.min(block.len());
        let Some(count) = system(rustix::io::read(fd, &mut block[..max])) else {
            scratch.block = Some(block);
            return None;
        };
        let added = if count <= READ_COPY_MAX {
            let added = self.with(|own| own.append_slice(&block[..count]));
            scratch.block = Some(block);
            added
        } else {
            self.with(|own| own.append_block(block, count))
        };
        added.map_or_else(|_| no_memory(), |()| Some(count))
    }

    /// Writes once, at most `max` bytes, whatever is frozen. An error is in errno.
    pub(crate) fn write_to(&self, fd: BorrowedFd<'static>, max: usize) -> Option<usize> {
        let written = self.with(|own| {
            if self.drains_to_fd.get()
                && let Some(region) = own.front_file()
            {
                let mut offset = region.offset();
                let count = region.len().min(max);
                let sent =
                    rustix::fs::sendfile(fd, region.file().as_fd(), Some(&mut offset), count);
                return match sent {
                    // The file was cut since it was added: what is missing never comes.
                    Ok(0) => Err(io::Error::from_raw_os_error(libc::EIO)),
                    Ok(sent) => Ok(own.drain(sent)),
                    Err(error) => Err(error.into()),
                };
            }
            write_memory(own, fd, max)
        });
        match written {
            Ok(count) => {
                self.changed(0, count);
                Some(count)
            }
            Err(error) => {
                ffi::set_errno(error.raw_os_error().unwrap_or(libc::EIO));
                None
            }
        }
    }
}

fn write_memory(own: &mut EvBuffer, fd: BorrowedFd<'static>, max: usize) -> io::Result<usize> {
    own.write_to(&mut Target(fd), max)
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
    buffer.read_from(fd, max).map_or(-1, |count| count as c_int)
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
    buffer.write_to(fd, max).map_or(-1, |count| count as c_int)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_write(buffer: Option<Ref<Buffer>>, fd: c_int) -> c_int {
    evbuffer_write_atmost(buffer, fd, -1)
}
