//! What hickory's futures run on: our loop, and nothing else.
//!
//! A [`Task`] is a future that the loop polls in its turns, when something has woken it. [`Runtime`] is the handle that hickory makes sockets
//! and timers through.
//!
//! # Why not the core's `task`
//! Its tasks belong to their loop's thread, and what drops one of them is that loop's next turn; they are a feature of the core that
//! connecting by name does not need. Here a resolver that is dropped takes its futures along at once, on whichever thread, and a future that is polled is
//! known by its task: hickory asks for timers, and tells of servers, without saying for whom.
//!
//! # Rules
//! 1. A future is polled on the loop's thread alone, with its task noted for this thread: hickory makes timers without saying on what.
//! 2. All futures belong to one set, [`Tasks`], which the resolver owns. Sockets, timers and channels hold tasks, which hold futures,
//!    which hold sockets: dropping the set's futures is what takes this apart, whatever the loop does.
//! 3. A future is dropped with nothing of ours locked but itself.
//! 4. One that panics is dropped, and the loop logs and counts it.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use std::{fmt, io};

use async_trait::async_trait;
use evreactor::{LoopHandle, Ready};
use evreactor_core::sync::{Arc, Mutex, Weak};
use evreactor_core::{Host as _, Phase, Target, TimerKey};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::{RuntimeProvider, Spawn, Time};
use slab::Slab;

use super::net::{Tcp, Udp};

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// The task that this thread polls.
    static CURRENT: RefCell<Option<Arc<Task>>> = const { RefCell::new(None) };
}

/// Notes, for the task that is being polled, what went wrong with a server. hickory goes on to the next one and forgets why.
pub(crate) fn note(error: &NetError) {
    CURRENT.with_borrow(|task| {
        if let Some(task) = task {
            *task.noted.lock() = Some(error.clone());
        }
    });
}

/// What was noted last for the task that is being polled.
pub(crate) fn noted() -> Option<NetError> {
    CURRENT.with_borrow(|task| task.as_ref()?.noted.lock().take())
}

/// The tasks of one resolver.
#[derive(Default)]
pub(crate) struct Tasks {
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    tasks: Slab<Arc<Task>>,
    closed: bool,
}

impl Tasks {
    /// Drops all futures, and those to come.
    pub(crate) fn close(&self) {
        let tasks = {
            let mut live = self.live.lock();
            live.closed = true;
            std::mem::take(&mut live.tasks)
        };
        for (_, task) in tasks {
            task.end();
        }
    }
}

/// A future on a loop.
struct Task {
    me: Weak<Task>,
    events: LoopHandle,
    future: Mutex<Option<BoxFuture>>,
    /// The loop has been asked to poll it.
    queued: AtomicBool,
    noted: Mutex<Option<NetError>>,
    tasks: Weak<Tasks>,
    key: usize,
}

impl Task {
    /// Drops the future, unless it is being polled by this very thread: then it ends by itself.
    fn end(&self) {
        let future = self.future.lock().take();
        drop(future);
    }

    fn forget(&self) {
        if let Some(tasks) = self.tasks.upgrade() {
            let task = tasks.live.lock().tasks.try_remove(self.key);
            drop(task);
        }
    }

    fn poll(self: &Arc<Self>) {
        struct Restore(Option<Arc<Task>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.replace(self.0.take());
            }
        }
        let mut place = self.future.lock();
        let Some(future) = place.as_mut() else {
            return;
        };
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        let over = match polled {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(())) => place.take(),
            Err(payload) => {
                self.events.caught_panic("resolver", &*payload);
                place.take()
            }
        };
        drop(place);
        drop(over);
        self.forget();
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let events = self.events.clone();
            // A closed loop polls nothing any more.
            let _ = events.schedule(Phase::Turn, self, 0);
        }
    }
}

impl Target for Task {
    fn run(&self, _key: u64) {
        self.queued.store(false, Ordering::Release);
        if let Some(me) = self.me.upgrade() {
            me.poll();
        }
    }

    fn expired(&self, _key: u64) {}

    fn ready(&self, _key: u64, _ready: Ready) {}
}

/// A future that the drop of this drops.
pub(crate) struct Running(Weak<Task>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = self.0.upgrade() {
            task.end();
            task.forget();
        }
    }
}

/// The loop, as hickory sees it.
#[derive(Clone)]
pub(crate) struct Runtime {
    events: LoopHandle,
    tasks: Weak<Tasks>,
}

impl Runtime {
    pub(crate) fn new(events: LoopHandle, tasks: &Arc<Tasks>) -> Self {
        Self {
            events,
            tasks: Arc::downgrade(tasks),
        }
    }

    /// Has the loop run `future`, until it is over or what is returned is dropped.
    pub(crate) fn run(&self, future: impl Future<Output = ()> + Send + 'static) -> Running {
        let Some(tasks) = self.tasks.upgrade() else {
            return Running(Weak::new());
        };
        let task = {
            let mut live = tasks.live.lock();
            if live.closed {
                return Running(Weak::new());
            }
            let place = live.tasks.vacant_entry();
            let task = Arc::new_cyclic(|me| Task {
                me: me.clone(),
                events: self.events.clone(),
                future: Mutex::new(Some(Box::pin(future))),
                queued: AtomicBool::new(false),
                noted: Mutex::new(None),
                tasks: self.tasks.clone(),
                key: place.key(),
            });
            place.insert(task.clone());
            task
        };
        let running = Running(Arc::downgrade(&task));
        task.wake();
        running
    }
}

impl Spawn for Runtime {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        // It ends with the handles that hickory has of it, or with the resolver.
        std::mem::forget(self.run(future));
    }
}

impl RuntimeProvider for Runtime {
    type Handle = Self;
    type Timer = Timer;
    type Udp = Udp;
    type Tcp = Tcp;

    fn create_handle(&self) -> Self {
        self.clone()
    }

    fn connect_tcp(
        &self,
        server_addr: SocketAddr,
        bind_addr: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Tcp>>>> {
        let events = self.events.clone();
        Box::pin(async move { Tcp::connect(&events, server_addr, bind_addr, timeout).await })
    }

    fn bind_udp(
        &self,
        local_addr: SocketAddr,
        _server_addr: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Udp>>>> {
        let bound = Udp::bind(&self.events, local_addr);
        Box::pin(std::future::ready(bound))
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

/// Timers on the loop that polls.
pub(crate) struct Timer;

#[async_trait]
impl Time for Timer {
    async fn delay_for(duration: Duration) {
        Sleep::new(duration).await;
    }

    async fn timeout<F: 'static + Future + Send>(
        duration: Duration,
        future: F,
    ) -> io::Result<F::Output> {
        let mut future = Box::pin(future);
        let mut sleep = Sleep::new(duration);
        std::future::poll_fn(move |cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            Pin::new(&mut sleep)
                .poll(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }
}

/// A time to wait for, which begins when it is polled first.
pub(crate) struct Sleep {
    duration: Duration,
    armed: Option<(LoopHandle, TimerKey, Arc<Alarm>)>,
}

#[derive(Default)]
struct Alarm {
    fired: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Sleep {
    pub(crate) fn new(duration: Duration) -> Self {
        Self {
            duration,
            armed: None,
        }
    }

    /// Begins anew.
    pub(crate) fn restart(&mut self) {
        if let Some((events, timer, alarm)) = &self.armed
            && !alarm.fired.load(Ordering::Acquire)
            && events.rearm(*timer, events.now() + self.duration)
        {
            return;
        }
        self.armed = None;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.armed.is_none() {
            let current = CURRENT.with_borrow(|task| Some(task.as_ref()?.events.clone()));
            let Some(events) = current else {
                // Nobody else polls what this crate's tasks are made of.
                return Poll::Pending;
            };
            let alarm = Arc::new(Alarm::default());
            let at = events.now() + self.duration;
            let Ok(timer) = events.arm(at, alarm.clone(), 0) else {
                return Poll::Pending;
            };
            self.armed = Some((events, timer, alarm));
        }
        let Some((_, _, alarm)) = &self.armed else {
            return Poll::Pending;
        };
        if alarm.fired.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let old = alarm.waker.lock().replace(cx.waker().clone());
        drop(old);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((events, timer, _)) = &self.armed {
            events.disarm(*timer);
        }
    }
}

impl Target for Alarm {
    fn run(&self, _key: u64) {}

    fn expired(&self, _key: u64) {
        self.fired.store(true, Ordering::Release);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn ready(&self, _key: u64, _ready: Ready) {}
}
