//! Files as parts of a buffer: `evbuffer_file_segment`, `evbuffer_add_file`.
//!
//! A buffer that goes to a descriptor takes the file itself, which is sent without being read. Any other takes a copy of its bytes,
//! which is made once per segment. Nothing is mapped: a file that is cut would end the process.
//!
//! # Invariants
//! - The descriptor is closed, if it is ours to close, and then the cleanup function runs, once, when nobody counts on the segment:
//!   neither the program nor a buffer. That is never while a buffer is borrowed.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use evbuffer::FileRegion;

use crate::buffer::reference::{lent, run_unborrowed};
use crate::buffer::{Buffer, End};
use crate::ffi::{self, Opaque, Ref, code, descriptor, system};

/// `EVBUF_FS_CLOSE_ON_FREE`.
const CLOSE_ON_FREE: c_uint = 1;
/// `EVBUF_FS_DISABLE_SENDFILE`.
const DISABLE_SENDFILE: c_uint = 4;

type Cleanup = extern "C" fn(Ref<Segment>, c_int, Opaque);

/// `struct evbuffer_file_segment`.
pub(crate) struct Segment {
    users: Cell<u32>,
    file: RefCell<Option<Arc<File>>>,
    offset: u64,
    len: usize,
    flags: c_uint,
    /// The bytes, once they were read.
    bytes: RefCell<Option<Bytes>>,
    cleanup: Cell<Option<(Cleanup, Opaque)>>,
}

impl Ref<Segment> {
    fn let_go(self) {
        let users = self.users.get() - 1;
        self.users.set(users);
        if users > 0 {
            return;
        }
        drop(self.file.take());
        if let Some((cleanup, argument)) = self.cleanup.take() {
            cleanup(self, self.flags as c_int, argument);
        }
        // SAFETY: it was made by `evbuffer_file_segment_new`, and nobody counts on it any more.
        unsafe { self.free() };
    }

    /// All its bytes.
    fn read(self) -> Option<Bytes> {
        if let Some(bytes) = &*self.bytes.borrow() {
            return Some(bytes.clone());
        }
        let file = self.file.borrow().clone()?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(self.len).ok()?;
        bytes.resize(self.len, 0);
        file.read_exact_at(&mut bytes, self.offset).ok()?;
        let bytes = Bytes::from(bytes);
        *self.bytes.borrow_mut() = Some(bytes.clone());
        Some(bytes)
    }
}

/// A buffer's part of a segment.
struct Part {
    segment: Ref<Segment>,
    bytes: Bytes,
}

// SAFETY: who uses a buffer in several threads gave it a lock; segments share what the C interface says is used under it.
unsafe impl Send for Part {}
// SAFETY: as above.
unsafe impl Sync for Part {}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let segment = self.segment;
        run_unborrowed(move || segment.let_go());
    }
}

/// How long the file is, from `offset` on, where the program does not say.
fn length_from(fd: c_int, offset: u64) -> Option<u64> {
    let stat = system(rustix::fs::fstat(descriptor(fd)?))?;
    u64::try_from(stat.st_size).ok()?.checked_sub(offset)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_file_segment_new(
    fd: c_int,
    offset: i64,
    length: i64,
    flags: c_uint,
) -> Option<Ref<Segment>> {
    let borrowed = descriptor(fd)?;
    let offset = u64::try_from(offset).ok()?;
    let len = match length {
        -1 => length_from(fd, offset)?,
        length => u64::try_from(length).ok()?,
    };
    offset
        .checked_add(len)
        .filter(|end| i64::try_from(*end).is_ok())?;
    let len = usize::try_from(len).ok()?;
    let close = flags & CLOSE_ON_FREE != 0;
    let file = if close {
        None
    } else {
        let own = system(rustix::io::fcntl_dupfd_cloexec(borrowed, 0))?;
        Some(Arc::new(File::from(own)))
    };
    let segment = Ref::make(Segment {
        users: Cell::new(1),
        file: RefCell::new(file),
        offset,
        len,
        flags,
        bytes: RefCell::new(None),
        cleanup: Cell::new(None),
    })?;
    if close {
        // SAFETY: the flag says that the descriptor is ours from here on.
        let own = unsafe { File::from_raw_fd(fd) };
        *segment.file.borrow_mut() = Some(Arc::new(own));
    }
    Some(segment)
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_file_segment_free(segment: Option<Ref<Segment>>) {
    if let Some(segment) = segment {
        segment.let_go();
    }
}

#[unsafe(no_mangle)]
extern "C" fn evbuffer_file_segment_add_cleanup_cb(
    segment: Option<Ref<Segment>>,
    cleanup: Option<Cleanup>,
    argument: Opaque,
) {
    if let Some(segment) = segment {
        segment
            .cleanup
            .set(cleanup.map(|cleanup| (cleanup, argument)));
    }
}

/// Adds `length` bytes of a segment from `offset` on; all that follow for -1.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_add_file_segment(
    buffer: Option<Ref<Buffer>>,
    segment: Option<Ref<Segment>>,
    offset: i64,
    length: i64,
) -> c_int {
    let (Some(buffer), Some(segment)) = (buffer, segment) else {
        return -1;
    };
    let _guard = buffer.guard();
    let Ok(offset) = usize::try_from(offset) else {
        return -1;
    };
    let Some(left) = segment.len.checked_sub(offset) else {
        return -1;
    };
    let len = match length {
        -1 => left,
        length => match usize::try_from(length) {
            Ok(length) if length <= left => length,
            Ok(_) | Err(_) => return -1,
        },
    };
    if buffer.is_frozen(End::Back) {
        return -1;
    }
    // Who wants to hear of its end has to be asked by a segment that knows it.
    let whole_file = buffer.drains_to_fd.get()
        && segment.flags & DISABLE_SENDFILE == 0
        && segment.cleanup.get().is_none();
    let file = segment.file.borrow().clone();
    if whole_file && let Some(file) = file {
        let region = FileRegion::new(file, segment.offset + offset as u64, len);
        return code(
            region.is_ok_and(|region| {
                buffer.change(End::Back, |own| own.append_file(region).is_ok())
            }),
        );
    }
    let Some(bytes) = segment.read() else {
        return -1;
    };
    segment.users.set(segment.users.get() + 1);
    let part = lent(Part {
        segment,
        bytes: bytes.slice(offset..offset + len),
    });
    code(buffer.change(End::Back, |own| own.append_bytes(part).is_ok()))
}

/// Adds a range of a file, which is closed when it is no longer needed.
#[unsafe(no_mangle)]
extern "C" fn evbuffer_add_file(
    buffer: Option<Ref<Buffer>>,
    fd: c_int,
    offset: i64,
    length: i64,
) -> c_int {
    if buffer.is_none() {
        ffi::set_errno(libc::EINVAL);
        return -1;
    }
    let Some(segment) = evbuffer_file_segment_new(fd, offset, length, CLOSE_ON_FREE) else {
        return -1;
    };
    let result = evbuffer_add_file_segment(buffer, Some(segment), 0, -1);
    segment.let_go();
    result
}
