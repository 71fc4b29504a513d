//! Waiting for descriptors: epoll, or poll where that was asked for, since epoll knows no regular files.
//!
//! Events of C are level-triggered unless they say `EV_ET`, and several may wait for one descriptor. The backends of `evreactor` are
//! edge-triggered or one-shot, so this is a backend of its own, on rustix.
//!
//! # Invariants
//! - What the system reports on a descriptor is the union of what its events wait for; a change of it is told to the system at once, so that
//!   its refusal is the answer of `event_add`.
//! - All events of a descriptor are edge-triggered, or none is.

use std::ffi::{c_int, c_short};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::event::layout::{EV_CLOSED, EV_ET, EV_IO, EV_READ, EV_WRITE, Event};
use crate::ffi::{Ref, descriptor, system};

/// Reports taken from the system in one wait, at first and at most.
const REPORTS_AT_FIRST: usize = 32;
const REPORTS_AT_MOST: usize = 4096;

/// What a base waits with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    Epoll,
    Poll,
}

impl Method {
    pub(crate) const ALL: [Self; 2] = [Self::Epoll, Self::Poll];

    pub(crate) fn name(self) -> &'static std::ffi::CStr {
        match self {
            Self::Epoll => c"epoll",
            Self::Poll => c"poll",
        }
    }

    /// The environment variable that forbids it.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Epoll => "EVENT_NOEPOLL",
            Self::Poll => "EVENT_NOPOLL",
        }
    }

    /// `EV_FEATURE_ET`, `O1`, `FDS`, `EARLY_CLOSE`.
    pub(crate) fn features(self) -> c_int {
        match self {
            Self::Epoll => 1 | 2 | 8,
            Self::Poll => 4 | 8,
        }
    }
}

/// Events of one descriptor.
#[derive(Default)]
struct Slot {
    events: Vec<Ref<Event>>,
    /// What was told to the system: bits of `EV_IO` and `EV_ET`.
    told: c_short,
}

impl Slot {
    fn wanted(&self) -> c_short {
        let wanted = self
            .events
            .iter()
            .map(|event| event.events.get() & (EV_IO | EV_ET));
        wanted.fold(0, |sum, one| sum | one)
    }
}

/// The table of descriptors, and what waits for them.
pub(crate) struct Poller {
    method: Method,
    epoll: Option<Arc<OwnedFd>>,
    slots: Vec<Slot>,
    reports: Vec<epoll::Event>,
    /// Descriptor, and what happened there.
    ready: Vec<(c_int, c_short)>,
}

fn epoll_flags(wanted: c_short) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, wanted & EV_READ != 0);
    flags.set(EventFlags::OUT, wanted & EV_WRITE != 0);
    flags.set(EventFlags::RDHUP, wanted & EV_CLOSED != 0);
    flags.set(EventFlags::ET, wanted & EV_ET != 0);
    flags
}

fn data(fd: c_int) -> EventData {
    EventData::new_u64(u64::try_from(fd).unwrap_or(u64::MAX))
}

impl Poller {
    pub(crate) fn new(method: Method) -> Option<Self> {
        let epoll = match method {
            Method::Epoll => Some(Arc::new(system(epoll::create(CreateFlags::CLOEXEC))?)),
            Method::Poll => None,
        };
        Some(Self {
            method,
            epoll,
            slots: Vec::new(),
            reports: Vec::with_capacity(REPORTS_AT_FIRST),
            ready: Vec::new(),
        })
    }

    pub(crate) fn method(&self) -> Method {
        self.method
    }

    /// As in a new process, which shares the old descriptor with its parent.
    pub(crate) fn again(&mut self) -> bool {
        if self.method == Method::Epoll {
            let Some(epoll) = system(epoll::create(CreateFlags::CLOEXEC)) else {
                return false;
            };
            self.epoll = Some(Arc::new(epoll));
        }
        let mut done = true;
        for fd in 0..self.slots.len() {
            self.slots[fd].told = 0;
            done &= self.tell(fd);
        }
        done
    }

    pub(crate) fn add(&mut self, event: Ref<Event>) -> bool {
        let Ok(fd) = usize::try_from(event.fd.get()) else {
            return false;
        };
        if self.slots.len() <= fd {
            self.slots
                .resize_with((fd + 1).next_power_of_two(), Slot::default);
        }
        let slot = &mut self.slots[fd];
        if !slot.events.is_empty() && (slot.told ^ event.events.get()) & EV_ET != 0 {
            return false; // A descriptor has edges for all, or for none.
        }
        slot.events.push(event);
        if self.tell(fd) {
            return true;
        }
        self.slots[fd].events.pop();
        false
    }

    pub(crate) fn remove(&mut self, event: Ref<Event>) {
        let Some(fd) = usize::try_from(event.fd.get()).ok() else {
            return;
        };
        let Some(slot) = self.slots.get_mut(fd) else {
            return;
        };
        if let Some(at) = slot.events.iter().position(|own| *own == event) {
            slot.events.remove(at);
            // The descriptor may be closed already: then the system has forgotten it by itself.
            let _ = self.tell(fd);
        }
    }

    /// Tells the system what is wanted of a descriptor, if that has changed.
    fn tell(&mut self, index: usize) -> bool {
        let slot = &mut self.slots[index];
        let (told, wanted) = (slot.told, slot.wanted());
        let Some(epoll) = self.epoll.as_ref().filter(|_| told != wanted) else {
            slot.told = wanted;
            return true;
        };
        let number = index as c_int;
        let Some(fd) = descriptor(number) else {
            return false;
        };
        let flags = epoll_flags(wanted);
        let result = if wanted == 0 {
            slot.told = 0;
            return epoll::delete(epoll, fd).is_ok();
        } else if told == 0 {
            match epoll::add(epoll, fd, data(number), flags) {
                Err(Errno::EXIST) => epoll::modify(epoll, fd, data(number), flags),
                result => result,
            }
        } else {
            match epoll::modify(epoll, fd, data(number), flags) {
                // It was closed, and its number is another's now.
                Err(Errno::NOENT) => epoll::add(epoll, fd, data(number), flags),
                result => result,
            }
        };
        let done = system(result).is_some();
        if done {
            slot.told = wanted;
        }
        done
    }

    /// All that a wait needs, so that the table may change while it goes on.
    pub(crate) fn begin_wait(&mut self) -> Waiting {
        let mut waiting = Waiting {
            epoll: self.epoll.clone(),
            reports: std::mem::take(&mut self.reports),
            numbers: Vec::new(),
            asked: Vec::new(),
        };
        if self.method == Method::Poll {
            for (fd, slot) in self.slots.iter().enumerate() {
                let wanted = slot.wanted() & EV_IO;
                let number = fd as c_int;
                let Some(fd) = descriptor(number).filter(|_| wanted != 0) else {
                    continue;
                };
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, wanted & EV_READ != 0);
                flags.set(PollFlags::OUT, wanted & EV_WRITE != 0);
                flags.set(PollFlags::RDHUP, wanted & EV_CLOSED != 0);
                waiting.numbers.push(number);
                waiting.asked.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        waiting
    }

    /// Takes what a wait found.
    pub(crate) fn end_wait(&mut self, waiting: Waiting) {
        self.ready.clear();
        for report in &waiting.reports {
            if let Ok(fd) = c_int::try_from(report.data.u64()) {
                self.ready.push((fd, happened(report.flags)));
            }
        }
        for (fd, report) in waiting.numbers.iter().zip(&waiting.asked) {
            let what = happened_in_poll(report.revents());
            if what != 0 {
                self.ready.push((*fd, what));
            }
        }
        self.reports = waiting.reports;
        if self.reports.len() == self.reports.capacity() && self.reports.len() < REPORTS_AT_MOST {
            self.reports.reserve(self.reports.len() * 2);
        }
    }

    /// What one wait found.
    pub(crate) fn take_ready(&mut self) -> Vec<(c_int, c_short)> {
        std::mem::take(&mut self.ready)
    }

    /// Gives the list back, so that its memory serves the next wait.
    pub(crate) fn give_back(&mut self, ready: Vec<(c_int, c_short)>) {
        self.ready = ready;
    }

    /// The number of events of a descriptor, and each of them by its index.
    pub(crate) fn events_of(&self, fd: c_int) -> &[Ref<Event>] {
        let slot = usize::try_from(fd).ok().and_then(|fd| self.slots.get(fd));
        slot.map_or(&[], |slot| &slot.events)
    }
}

/// One wait.
pub(crate) struct Waiting {
    epoll: Option<Arc<OwnedFd>>,
    reports: Vec<epoll::Event>,
    numbers: Vec<c_int>,
    asked: Vec<PollFd<'static>>,
}

impl Waiting {
    /// Waits; `false` for an error, which is in errno then.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> bool {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        self.reports.clear();
        let waited = match &self.epoll {
            Some(epoll) => {
                let spare = rustix::buffer::spare_capacity(&mut self.reports);
                epoll::wait(epoll.as_fd(), spare, timeout.as_ref())
            }
            None => rustix::event::poll(&mut self.asked, timeout.as_ref()),
        };
        match waited {
            Ok(_) | Err(Errno::INTR) => true,
            Err(error) => system::<()>(Err(error)).is_some(),
        }
    }
}

#[inline(always)]
fn happened(flags: EventFlags) -> c_short {
    if flags == EventFlags::IN {
        return EV_READ; // As nearly always.
    }
    happened_otherwise(flags)
}

#[inline(never)]
fn happened_otherwise(flags: EventFlags) -> c_short {
    let broken = flags.contains(EventFlags::ERR)
        || (flags.contains(EventFlags::HUP) && !flags.contains(EventFlags::RDHUP));
    if broken {
        return EV_READ | EV_WRITE;
    }
    let mut what = 0;
    what |= if flags.contains(EventFlags::IN) {
        EV_READ
    } else {
        0
    };
    what |= if flags.contains(EventFlags::OUT) {
        EV_WRITE
    } else {
        0
    };
    what |= if flags.contains(EventFlags::RDHUP) {
        EV_CLOSED
    } else {
        0
    };
    what
}

fn happened_in_poll(flags: PollFlags) -> c_short {
    let broken = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
    let mut what = if flags.intersects(broken) {
        EV_READ | EV_WRITE
    } else {
        0
    };
    what |= if flags.contains(PollFlags::IN) {
        EV_READ
    } else {
        0
    };
    what |= if flags.contains(PollFlags::OUT) {
        EV_WRITE
    } else {
        0
    };
    what |= if flags.contains(PollFlags::RDHUP) {
        EV_CLOSED
    } else {
        0
    };
    what
}
