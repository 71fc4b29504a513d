//! What the tests share: the backends to run on, a clock to set by hand, and a target that keeps a log.

#![allow(dead_code, reason = "each test file uses its part")]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use bufferevent_testkit::record;
use evreactor::{
    Builder, Clock, EventLoop, Host, LoopHandle, Moment, Phase, Priority, Ready, Target, TimerKey,
};

#[cfg(unix)]
mod oneshot;

/// Longer than any machine needs for what is waited for: only a failing test waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a check on every backend: those built in, one that joins through the public trait and has no edges, and on Linux io_uring.
pub(crate) fn each_backend(check: impl Fn(Builder)) {
    static JOIN: Once = Once::new();
    #[cfg(unix)]
    JOIN.call_once(|| {
        evreactor::register_backend("oneshot", || Ok(Box::new(oneshot::Oneshot::new()?)))
            .expect("the name is free");
    });
    #[cfg(target_os = "linux")]
    bufferevent_iocp::register();
    for name in evreactor::backend_names() {
        if ["mio", "polling", "oneshot", "uring"].contains(&name) {
            record::within("reactor", name, || {
                check(EventLoop::builder().backend(name))
            });
        }
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn set(&self, now: Moment) {
        assert!(now >= self.now(), "a clock does not go back");
        self.0.store(now.as_nanos(), Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, span: Duration) {
        self.set(self.now() + span);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn at_ms(at: u64) -> Moment {
    Moment::ZERO + ms(at)
}

pub(crate) fn count(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}

/// What a target was called for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Entry {
    Run(u64),
    Expired(u64),
    Ready(u64, Ready),
}

/// Done in a call, with the key of the call.
type Act = Box<dyn FnMut(Entry) + Send>;

/// A target that writes down its calls, and then does what the test wants done.
#[derive(Default)]
pub(crate) struct Log {
    entries: Mutex<Vec<Entry>>,
    act: Mutex<Option<Act>>,
}

impl Log {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn acting(act: impl FnMut(Entry) + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            act: Mutex::new(Some(Box::new(act))),
        })
    }

    /// What was called since the last time.
    pub(crate) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.entries.lock().expect("no test panics with it"))
    }

    /// The keys of [`take`](Self::take).
    pub(crate) fn keys(&self) -> Vec<u64> {
        let key = |entry| match entry {
            Entry::Run(key) | Entry::Expired(key) | Entry::Ready(key, _) => key,
        };
        self.take().into_iter().map(key).collect()
    }

    fn called(&self, entry: Entry) {
        self.entries
            .lock()
            .expect("no test panics with it")
            .push(entry);
        let act = self.act.lock().expect("no test panics with it").take();
        if let Some(mut act) = act {
            act(entry);
            *self.act.lock().expect("no test panics with it") = Some(act);
        }
    }
}

impl Target for Log {
    fn run(&self, key: u64) {
        self.called(Entry::Run(key));
    }

    fn expired(&self, key: u64) {
        self.called(Entry::Expired(key));
    }

    fn ready(&self, key: u64, ready: Ready) {
        self.called(Entry::Ready(key, ready));
    }
}

pub(crate) fn arm(handle: &LoopHandle, at: Moment, log: &Arc<Log>, key: u64) -> TimerKey {
    handle.arm(at, log.clone(), key).expect("the loop is there")
}

pub(crate) fn schedule(handle: &LoopHandle, phase: Phase, log: &Arc<Log>, key: u64) {
    handle
        .schedule(phase, log.clone(), key)
        .expect("the loop is there");
}

pub(crate) const fn deferred(priority: u8) -> Phase {
    Phase::Deferred(Priority(priority))
}
