//! Names to addresses without blocking a loop: `evdns_getaddrinfo`, by threads that ask the system's resolver.
//!
//! # Invariants
//! - An answer comes from the loop of the base that it was asked on, or at once; exactly one for each request.
//! - A request that was given up is answered with `EVUTIL_EAI_CANCEL`, and what the resolver still says is dropped.
//! - Threads end when nothing is left to look up. There are at most [`MAX_THREADS`]; more lookups wait.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{CString, c_int, c_short};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::EventfdFlags;

use crate::event::base::{Base, Wait};
use crate::event::create::{assign, unassigned};
use crate::event::layout::{EV_READ, Event};
use crate::ffi::{Opaque, Ref, Text, Value, system};
use crate::log;
use crate::util::resolve::{EAI_CANCEL, evutil_freeaddrinfo, evutil_getaddrinfo};

/// Lookups that go on at the same time.
const MAX_THREADS: usize = 8;

type Callback = extern "C" fn(c_int, *mut libc::addrinfo, Opaque);

/// `struct evdns_base`.
pub(crate) struct DnsBase {
    base: Ref<Base>,
    requests: RefCell<Vec<Ref<Request>>>,
}

/// `struct evdns_getaddrinfo_request`.
pub(crate) struct Request {
    dns: Ref<DnsBase>,
    event: Event,
    /// Open as long as the event watches it.
    _wake: Arc<OwnedFd>,
    answer: Arc<Mutex<Option<Answer>>>,
    callback: Callback,
    argument: Opaque,
    done: Cell<bool>,
}

/// What the resolver said: an error, or a list, which goes with this if nobody took it.
struct Answer {
    error: c_int,
    list: *mut libc::addrinfo,
}

// SAFETY: the list is plain memory that one owner at a time reads and frees.
unsafe impl Send for Answer {}

impl Drop for Answer {
    fn drop(&mut self) {
        evutil_freeaddrinfo(self.list);
    }
}

struct Job {
    name: Option<CString>,
    service: Option<CString>,
    hints: Option<[c_int; 4]>,
    answer: Arc<Mutex<Option<Answer>>>,
    wake: Arc<OwnedFd>,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    threads: usize,
}

/// The threads of one process. A child has none of its parent's, and the lock may have been held when it was made: so it gets a pool of
/// its own, and leaves the old one alone.
struct Pool {
    process: u32,
    jobs: Mutex<Jobs>,
}

static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

/// This process's pool.
fn pool() -> &'static Pool {
    let process = std::process::id();
    loop {
        let current = POOL.load(Ordering::Acquire);
        // SAFETY: null, or a pool that was leaked below.
        if let Some(pool) = unsafe { current.as_ref() }
            && pool.process == process
        {
            return pool;
        }
        let new = Box::into_raw(Box::new(Pool {
            process,
            jobs: Mutex::default(),
        }));
        let set = POOL.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire);
        if set.is_err() {
            // SAFETY: it was made just now, and another thread's was taken instead.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hints for streams of a family.
pub(crate) fn stream_hints(family: c_int) -> libc::addrinfo {
    from_numbers([0, family, libc::SOCK_STREAM, libc::IPPROTO_TCP])
}

fn from_numbers([flags, family, kind, protocol]: [c_int; 4]) -> libc::addrinfo {
    libc::addrinfo {
        ai_flags: flags,
        ai_family: family,
        ai_socktype: kind,
        ai_protocol: protocol,
        ai_addrlen: 0,
        ai_addr: std::ptr::null_mut(),
        ai_canonname: std::ptr::null_mut(),
        ai_next: std::ptr::null_mut(),
    }
}

/// Looks up and waits for the answer.
pub(crate) fn look_up(
    name: Text<'_>,
    service: Text<'_>,
    hints: &Value<libc::addrinfo>,
) -> (c_int, *mut libc::addrinfo) {
    let mut list = std::ptr::null_mut();
    let hints = Value::at(hints.address());
    let error = evutil_getaddrinfo(name, service, hints, crate::ffi::Out::to(&mut list));
    (error, list)
}

fn work(pool: &Pool) {
    loop {
        let job = {
            let mut jobs = locked(&pool.jobs);
            match jobs.waiting.pop_front() {
                Some(job) => job,
                None => {
                    jobs.threads -= 1;
                    return;
                }
            }
        };
        let hints = job.hints.map(from_numbers);
        let hints = hints
            .as_ref()
            .map_or(Value::none(), |hints| Value::at(hints));
        let name = job.name.as_deref().map_or(Text::none(), Text::of);
        let service = job.service.as_deref().map_or(Text::none(), Text::of);
        let (error, list) = look_up(name, service, &hints);
        *locked(&job.answer) = Some(Answer { error, list });
        // A counter that is full wakes as well.
        let _ = rustix::io::write(job.wake.as_fd(), &1_u64.to_ne_bytes());
    }
}

/// Has a thread do it; whether there is one.
fn submit(job: Job) -> bool {
    let pool = pool();
    let mut jobs = locked(&pool.jobs);
    if jobs.threads < MAX_THREADS {
        let thread = std::thread::Builder::new().name("evdns".into());
        let thread = thread.spawn(move || work(pool));
        match thread {
            Ok(_) => jobs.threads += 1,
            Err(_) if jobs.threads == 0 => return false,
            Err(_) => {}
        }
    }
    jobs.waiting.push_back(job);
    true
}

#[unsafe(no_mangle)]
extern "C" fn evdns_base_new(base: Option<Ref<Base>>, _flags: c_int) -> Option<Ref<DnsBase>> {
    Ref::make(DnsBase {
        base: base?,
        requests: RefCell::new(Vec::new()),
    })
}

/// Frees a resolver. Requests that wait are given up, and told so, whatever `fail` says: else a bufferevent would wait for ever.
#[unsafe(no_mangle)]
extern "C" fn evdns_base_free(dns: Option<Ref<DnsBase>>, _fail: c_int) {
    let Some(dns) = dns else { return };
    loop {
        let request = dns.requests.borrow().last().copied();
        let Some(request) = request else { break };
        evdns_getaddrinfo_cancel(Some(request));
    }
    // SAFETY: it came from `evdns_base_new`, C gives it up, and no request knows it.
    unsafe { dns.free() };
}

/// Asks; the answer comes to the callback, at once for what is no name. Answers what can be given up, if there is something.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn evdns_getaddrinfo(
    dns: Option<Ref<DnsBase>>,
    name: Text<'_>,
    service: Text<'_>,
    hints: Value<libc::addrinfo>,
    callback: Option<Callback>,
    argument: Opaque,
) -> Option<Ref<Request>> {
    let callback = callback?;
    let Some(dns) = dns else {
        log::warn("evdns_getaddrinfo: no evdns_base");
        callback(libc::EAI_FAIL, std::ptr::null_mut(), argument);
        return None;
    };
    let numbers = hints.get().map(|hints| {
        [
            hints.ai_flags,
            hints.ai_family,
            hints.ai_socktype,
            hints.ai_protocol,
        ]
    });
    // An address needs no thread.
    let [flags, family, kind, protocol] = numbers.unwrap_or([0; 4]);
    let numeric = from_numbers([flags | libc::AI_NUMERICHOST, family, kind, protocol]);
    let (error, list) = look_up(name, service, &Value::at(&raw const numeric));
    if error != libc::EAI_NONAME || name.get().is_none() {
        callback(error, list, argument);
        return None;
    }
    let request = begin(dns, name, service, numbers, callback, argument);
    if request.is_none() {
        callback(libc::EAI_MEMORY, std::ptr::null_mut(), argument);
    }
    request
}

fn begin(
    dns: Ref<DnsBase>,
    name: Text<'_>,
    service: Text<'_>,
    hints: Option<[c_int; 4]>,
    callback: Callback,
    argument: Opaque,
) -> Option<Ref<Request>> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let wake = Arc::new(system(rustix::event::eventfd(0, flags))?);
    let answer = Arc::new(Mutex::new(None));
    let request = Ref::make(Request {
        dns,
        event: unassigned(),
        _wake: wake.clone(),
        answer: answer.clone(),
        callback,
        argument,
        done: Cell::new(false),
    })?;
    let event = Ref::of(&request.event);
    let own = request.address().cast();
    assign(
        event,
        Some(dns.base),
        wake.as_raw_fd(),
        EV_READ,
        Some(answered),
        own,
    );
    let _guard = dns.base.guard();
    let job = Job {
        name: name.get().map(Into::into),
        service: service.get().map(Into::into),
        hints,
        answer,
        wake,
    };
    if dns.base.add(event, None) && submit(job) {
        dns.requests.borrow_mut().push(request);
        return Some(request);
    }
    dns.base.delete(event, Wait::No);
    // SAFETY: it was made just now and nobody knows it.
    unsafe { request.free() };
    None
}

/// Takes a request out of everything and tells what came of it.
fn finish(request: Ref<Request>, error: c_int, list: *mut libc::addrinfo) {
    if request.done.replace(true) {
        return;
    }
    {
        let _guard = request.dns.base.guard();
        request.dns.base.delete(Ref::of(&request.event), Wait::No);
        request
            .dns
            .requests
            .borrow_mut()
            .retain(|own| *own != request);
    }
    crate::event::forget(Ref::of(&request.event));
    let (callback, argument) = (request.callback, request.argument);
    // SAFETY: it is in no list any more; a thread that still works for it has its own handles of answer and wake.
    unsafe { request.free() };
    callback(error, list, argument);
}

extern "C" fn answered(_fd: c_int, _what: c_short, request: Opaque) {
    // SAFETY: the argument of a request's own event, which is deleted before the request goes.
    let Some(request) = (unsafe { std::mem::transmute::<Opaque, Option<Ref<Request>>>(request) })
    else {
        return;
    };
    let answer = locked(&request.answer).take();
    let Some(mut answer) = answer else { return };
    let list = std::mem::replace(&mut answer.list, std::ptr::null_mut());
    finish(request, answer.error, list);
}

/// Gives a request up: it is told `EVUTIL_EAI_CANCEL`, now.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn evdns_getaddrinfo_cancel(request: Option<Ref<Request>>) {
    if let Some(request) = request {
        finish(request, EAI_CANCEL, std::ptr::null_mut());
    }
}
