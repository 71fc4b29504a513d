//! The part of a loop that every thread may hold.
//!
//! # Invariants
//! - A handle keeps the loop's tables alive, not the loop: after the loop is gone its operations answer
//!   [`LoopClosed`], or do nothing.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use evreactor_core::sync::ThreadNumber;
use evreactor_core::{AsHost, Host, LoopClosed, Moment, Phase, Priority, Target, TimerKey};

use crate::backend::{Features, Interest, Registrar};
use crate::shared::{Call, Shared};
use crate::source::{AsSource, Registration, raw_of};
use crate::stats::Stats;
use crate::task::Once;

/// A loop, as seen from anywhere: cheap to clone, usable on any thread.
#[derive(Clone)]
pub struct LoopHandle {
    pub(crate) shared: Arc<Shared>,
}

impl LoopHandle {
    /// The loop as those see it who know only the traits of `evreactor-core`.
    #[must_use]
    pub fn host(&self) -> Arc<dyn Host> {
        self.shared.clone()
    }

    /// The name of the loop's backend.
    #[doc(alias = "event_base_get_method")]
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.shared.backend_name
    }

    /// What the loop's backend can do.
    #[doc(alias = "event_base_get_features")]
    #[must_use]
    pub fn features(&self) -> Features {
        self.shared.features
    }

    /// The loop's backend, for the crate that made it: as `&dyn Any` it can be downcast.
    #[must_use]
    pub fn registrar(&self) -> &dyn Registrar {
        &*self.shared.registrar
    }

    /// Has `target` told, with `key`, whenever `source` may be able to move.
    ///
    /// Once is enough for the life of the source: what is ready is reported at once, then every change (see
    /// [`Features::edge_triggered`] for the exception). The source should be in non-blocking mode.
    ///
    /// # Contract
    /// Keep the source open until the [`Registration`] is dropped. Breaking this is not unsound, see there.
    ///
    /// # Errors
    /// What the system says (out of memory, a regular file, already registered), or `NotConnected` with
    /// [`LoopClosed`] inside.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(unix)] {
    /// use std::io::Write;
    /// use std::os::unix::net::UnixStream;
    /// use std::sync::Arc;
    /// use evreactor::{EventLoop, Interest, LoopHandle, Priority, Ready, Target};
    ///
    /// struct ExitWhenReadable(LoopHandle);
    /// impl Target for ExitWhenReadable {
    ///     fn run(&self, _key: u64) {}
    ///     fn expired(&self, _key: u64) {}
    ///     fn ready(&self, key: u64, ready: Ready) {
    ///         assert_eq!(key, 7);
    ///         if ready.contains(Ready::READABLE) {
    ///             self.0.exit();
    ///         }
    ///     }
    /// }
    ///
    /// let events = EventLoop::new()?;
    /// let (near, mut far) = UnixStream::pair()?;
    /// near.set_nonblocking(true)?;
    /// let target = Arc::new(ExitWhenReadable(events.clone()));
    /// let registration = events.register(&near, Interest::BOTH, Priority(0), target, 7)?;
    /// far.write_all(b"hello")?;
    /// events.run()?;
    /// drop(registration); // before `near` is closed
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "event_add")]
    #[doc(alias = "event_new")]
    #[doc(alias = "event_assign")]
    pub fn register(
        &self,
        source: &impl AsSource,
        interest: Interest,
        priority: Priority,
        target: Arc<dyn Target>,
        key: u64,
    ) -> io::Result<Registration> {
        let call = Call { target, key };
        Registration::new(&self.shared, Some(raw_of(source)), interest, priority, call)
    }

    /// Makes a source without a descriptor, on which only the backend itself can report: how completion backends
    /// tell a target of a completion.
    ///
    /// # Errors
    /// `NotConnected` with [`LoopClosed`] inside.
    pub fn attach(
        &self,
        priority: Priority,
        target: Arc<dyn Target>,
        key: u64,
    ) -> io::Result<Registration> {
        Registration::new(
            &self.shared,
            None,
            Interest::BOTH,
            priority,
            Call { target, key },
        )
    }

    /// Has the loop call `task` at the start of its next turn. From another thread this wakes the loop.
    ///
    /// # Errors
    /// [`LoopClosed`] if the loop is gone; the task is dropped.
    #[doc(alias = "event_active")]
    pub fn post(&self, task: impl FnOnce() + Send + 'static) -> Result<(), LoopClosed> {
        self.schedule(Phase::Turn, Once::target(task), 0)
    }

    /// Has the loop call `task` once `delay` has passed.
    ///
    /// # Errors
    /// [`LoopClosed`] if the loop is gone; the task is dropped.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// let events = evreactor::EventLoop::new()?;
    /// let handle = events.clone();
    /// let timer = events.after(Duration::from_millis(1), move || handle.exit())?;
    /// events.run()?;
    /// assert!(!timer.cancel(), "it has fired");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "evtimer_new")]
    #[doc(alias = "event_base_once")]
    pub fn after(
        &self,
        delay: Duration,
        task: impl FnOnce() + Send + 'static,
    ) -> Result<Timer, LoopClosed> {
        let key = self.arm(self.now() + delay, Once::target(task), 0)?;
        Ok(Timer {
            handle: Some(self.clone()),
            key,
        })
    }

    /// Keeps [`run`](crate::EventLoop::run) from ending for lack of work, until the guard is dropped.
    #[doc(alias = "EVLOOP_NO_EXIT_ON_EMPTY")]
    pub fn hold(&self) -> Hold {
        self.shared.hold();
        Hold {
            shared: self.shared.clone(),
        }
    }

    /// Has the running mode return after the current turn; if none is running, the next one after its first turn.
    #[doc(alias = "event_base_loopexit")]
    pub fn exit(&self) {
        self.shared.request_exit();
    }

    /// [`exit`](Self::exit) once `delay` has passed. Until then this counts as a timer.
    ///
    /// # Errors
    /// [`LoopClosed`] if the loop is gone.
    #[doc(alias = "event_base_loopexit")]
    pub fn exit_after(&self, delay: Duration) -> Result<(), LoopClosed> {
        let handle = self.clone();
        self.after(delay, move || handle.exit()).map(Timer::detach)
    }

    /// Has the running mode return after the current callback; if none is running, the next one at once. What was ready stays so.
    #[doc(alias = "event_base_loopbreak")]
    pub fn break_now(&self) {
        self.shared.request_break();
    }

    /// Whether the last run ended because of [`exit`](Self::exit).
    #[doc(alias = "event_base_got_exit")]
    #[must_use]
    pub fn got_exit(&self) -> bool {
        self.shared.got_exit.load(Ordering::SeqCst)
    }

    /// Whether the last run ended because of [`break_now`](Self::break_now).
    #[doc(alias = "event_base_got_break")]
    #[must_use]
    pub fn got_break(&self) -> bool {
        self.shared.got_break.load(Ordering::SeqCst)
    }

    /// When the loop has to look at its timers next, at the latest: what a virtual clock may be set to when nothing
    /// else is going on. `None` without timers.
    #[must_use]
    pub fn next_timer(&self) -> Option<Moment> {
        self.shared.next_timer()
    }

    /// What the loop did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }
}

impl AsHost for LoopHandle {
    fn as_host(&self) -> Arc<dyn Host> {
        self.host()
    }
}

impl AsHost for crate::EventLoop {
    fn as_host(&self) -> Arc<dyn Host> {
        self.host()
    }
}

impl Host for LoopHandle {
    fn thread(&self) -> ThreadNumber {
        self.shared.thread()
    }

    fn now(&self) -> Moment {
        self.shared.now()
    }

    fn clock_now(&self) -> Moment {
        self.shared.clock_now()
    }

    fn schedule(&self, phase: Phase, target: Arc<dyn Target>, key: u64) -> Result<(), LoopClosed> {
        self.shared.schedule(phase, target, key)
    }

    fn arm(&self, at: Moment, target: Arc<dyn Target>, key: u64) -> Result<TimerKey, LoopClosed> {
        self.shared.arm(at, target, key)
    }

    fn rearm(&self, timer: TimerKey, at: Moment) -> bool {
        self.shared.rearm(timer, at)
    }

    fn disarm(&self, timer: TimerKey) -> bool {
        self.shared.disarm(timer)
    }

    fn tell_closed(&self, target: Weak<dyn Target>) -> Result<(), LoopClosed> {
        self.shared.tell_closed(target)
    }

    fn caught_panic(&self, what: &'static str, payload: &(dyn Any + Send)) {
        self.shared.caught_panic(what, payload);
    }
}

impl fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopHandle")
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}

/// Keeps a loop running although it has nothing to wait for.
#[must_use = "dropping the guard lets the loop end"]
pub struct Hold {
    shared: Arc<Shared>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.release_hold();
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

/// A timer of [`LoopHandle::after`]; dropping it cancels it.
#[derive(Debug)]
#[must_use = "dropping the timer cancels it; `detach` lets it run"]
pub struct Timer {
    /// `None` once detached.
    handle: Option<LoopHandle>,
    key: TimerKey,
}

impl Timer {
    /// Starts over: the task is called once `delay` has passed from now. Returns whether it had not been called yet.
    #[doc(alias = "evtimer_add")]
    pub fn restart(&self, delay: Duration) -> bool {
        self.handle
            .as_ref()
            .is_some_and(|handle| handle.rearm(self.key, handle.now() + delay))
    }

    /// Cancels the timer. Returns whether it had not fired.
    #[doc(alias = "evtimer_del")]
    #[doc(alias = "event_remove_timer")]
    pub fn cancel(mut self) -> bool {
        self.handle
            .take()
            .is_some_and(|handle| handle.disarm(self.key))
    }

    /// Lets the timer fire without anybody holding it.
    pub fn detach(mut self) {
        self.handle = None;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.disarm(self.key);
        }
    }
}
