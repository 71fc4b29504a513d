//! Signals: a handler writes the signal's number into a pipe of the base, and the base tells the events that wait for it.
//!
//! # Invariants
//! - The handler touches one array of atomics and calls `write`, and leaves errno as it was.
//! - What handled a signal before its first event was added handles it again after its last one was removed.
//! - A signal belongs to the base that added an event for it last.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::pipe::PipeFlags;

use crate::event::layout::Event;
use crate::ffi::{Ref, errno, set_errno, system};

/// One more than the greatest signal's number.
const SIGNALS: usize = 65;

/// Bytes taken from the pipe at a time.
const BYTES_PER_READ: usize = 256;

/// The writing ends of the pipes that signals go to; -1 for none.
static PIPES: [AtomicI32; SIGNALS] = [const { AtomicI32::new(-1) }; SIGNALS];

extern "C" fn handler(signal: c_int) {
    let before = errno();
    let pipe = usize::try_from(signal)
        .ok()
        .and_then(|signal| PIPES.get(signal))
        .map_or(-1, |pipe| pipe.load(Ordering::Relaxed));
    let byte = signal as u8;
    if pipe >= 0 {
        // SAFETY: one byte of our own; a pipe that is full or closed makes this fail, which is all that can be done here.
        unsafe { libc::write(pipe, (&raw const byte).cast::<c_void>(), 1) };
    }
    set_errno(before);
}

/// The signals of a base.
pub(crate) struct Signals {
    pipe: Option<(OwnedFd, OwnedFd)>,
    events: Vec<Vec<Ref<Event>>>,
    before: Vec<Option<libc::sigaction>>,
}

impl Signals {
    pub(crate) fn new() -> Self {
        Self {
            pipe: None,
            events: (0..SIGNALS).map(|_| Vec::new()).collect(),
            before: vec![None; SIGNALS],
        }
    }

    fn open(&mut self) -> bool {
        self.pipe = system(rustix::pipe::pipe_with(
            PipeFlags::CLOEXEC | PipeFlags::NONBLOCK,
        ));
        self.pipe.is_some()
    }

    /// The descriptor that becomes readable when a signal came; it is opened with the first event.
    pub(crate) fn descriptor(&mut self) -> Option<c_int> {
        if self.pipe.is_none() && !self.open() {
            return None;
        }
        self.pipe.as_ref().map(|(read, _)| read.as_raw_fd())
    }

    pub(crate) fn add(&mut self, event: Ref<Event>) -> bool {
        let Some(number) = index(event) else {
            return false;
        };
        let Some((_, write)) = &self.pipe else {
            return false;
        };
        let pipe = write.as_raw_fd();
        if self.events[number].is_empty() {
            PIPES[number].store(pipe, Ordering::Relaxed);
            let Some(before) = install(number as c_int) else {
                return false;
            };
            self.before[number] = Some(before);
        }
        self.events[number].push(event);
        true
    }

    pub(crate) fn remove(&mut self, event: Ref<Event>) {
        let Some(number) = index(event) else { return };
        self.events[number].retain(|own| *own != event);
        if self.events[number].is_empty()
            && let Some(before) = self.before[number].take()
        {
            // SAFETY: what the system gave us as the action before.
            unsafe { libc::sigaction(number as c_int, &raw const before, std::ptr::null_mut()) };
            PIPES[number].store(-1, Ordering::Relaxed);
        }
    }

    /// As in a new process: with a pipe of its own.
    pub(crate) fn again(&mut self) -> bool {
        if self.pipe.is_none() {
            return true;
        }
        if !self.open() {
            return false;
        }
        let pipe = self
            .pipe
            .as_ref()
            .map_or(-1, |(_, write)| write.as_raw_fd());
        for (number, events) in self.events.iter().enumerate() {
            if !events.is_empty() {
                PIPES[number].store(pipe, Ordering::Relaxed);
            }
        }
        true
    }

    /// The signals that came, and how often.
    pub(crate) fn came(&self) -> Vec<(c_int, i16)> {
        let Some((read, _)) = &self.pipe else {
            return Vec::new();
        };
        let mut counts = [0_i16; SIGNALS];
        let mut bytes = [0_u8; BYTES_PER_READ];
        while let Ok(count @ 1..) = rustix::io::read(read.as_fd(), &mut bytes) {
            for byte in &bytes[..count] {
                if let Some(count) = counts.get_mut(usize::from(*byte)) {
                    *count = count.saturating_add(1);
                }
            }
            if count < bytes.len() {
                break;
            }
        }
        let came = counts.into_iter().enumerate();
        came.filter(|(_, count)| *count > 0)
            .map(|(number, count)| (number as c_int, count))
            .collect()
    }

    pub(crate) fn events_of(&self, signal: c_int) -> &[Ref<Event>] {
        let events = usize::try_from(signal).ok();
        events
            .and_then(|signal| self.events.get(signal))
            .map_or(&[], Vec::as_slice)
    }
}

fn index(event: Ref<Event>) -> Option<usize> {
    usize::try_from(event.fd.get())
        .ok()
        .filter(|number| (1..SIGNALS).contains(number))
}

/// Installs the handler; answers what was there.
fn install(signal: c_int) -> Option<libc::sigaction> {
    // SAFETY: all zeros are a valid action.
    let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
    // SAFETY: as above.
    let mut before = unsafe { std::mem::zeroed::<libc::sigaction>() };
    action.sa_sigaction = handler as extern "C" fn(c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: both are ours, and the handler is safe to run at any point: see its invariant.
    let result = unsafe {
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, &raw mut before)
    };
    (result == 0).then_some(before)
}
