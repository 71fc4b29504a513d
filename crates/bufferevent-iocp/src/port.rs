//! The port: a driver and its desk, as a backend of the reactor.
//!
//! # Invariants
//! - The desk's lock is held for one change of state, never around a call of the system, of a driver's wait, or of user code.
//! - The driver is used by the loop's thread alone. Others stage what they want at the desk, and wake.
//! - The order of locks is: the loop's own, the driver, the desk. Nothing calls the loop with the desk locked.
//! - With the backend the driver goes, and with the driver every operation: a port without one answers that the loop is closed.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use evbuffer::EvBuffer;
use evreactor::{
    Backend, Events, Features, Interest, LoopHandle, NameTaken, RawSource, Registrar, Token,
};
use evreactor_core::sync::{Arc, Mutex, ThreadNumber, Weak, thread_number};
use socket2::Socket;

use crate::desk::{Desk, Trash};
use crate::driver::{Driver, Lane, Operation, Verb, Waker};

/// How long bytes that a freed bufferevent has handed over may take to leave: what the system itself gives a closed
/// socket is of this order.
const LINGER: Duration = Duration::from_secs(30);

/// How long a socket may take to come to rest before it is given back: cancelling is a matter of one turn.
const TO_REST: Duration = Duration::from_secs(1);

/// A driver, and what is under way on it. Every loop whose backend was made with [`register_driver`] has one.
pub struct Port {
    me: Weak<Port>,
    thread: ThreadNumber,
    waker: std::sync::Arc<dyn Waker>,
    watches: bool,
    driver: Mutex<Option<Box<dyn Driver>>>,
    desk: Mutex<Desk>,
    trash: Mutex<Trash>,
}

/// Makes a backend of a driver, and makes it known by a name.
///
/// # Errors
/// [`NameTaken`] if the name has a backend already.
pub fn register_driver(
    name: &'static str,
    constructor: impl Fn() -> io::Result<Box<dyn Driver>> + Send + Sync + 'static,
) -> Result<(), NameTaken> {
    evreactor::register_backend(name, move || {
        Ok(Box::new(PortBackend {
            port: Port::new(constructor()?),
        }))
    })
}

impl Port {
    pub(crate) fn new(driver: Box<dyn Driver>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            thread: thread_number(),
            waker: driver.waker(),
            watches: driver.watches(),
            driver: Mutex::new(Some(driver)),
            desk: Mutex::new(Desk::default()),
            trash: Mutex::new(Trash::default()),
        })
    }

    /// The port of a loop; `None` if its backend is none of this crate's.
    #[must_use]
    pub fn of(events: &LoopHandle) -> Option<Arc<Self>> {
        let registrar: &dyn Any = events.registrar();
        registrar.downcast_ref::<Self>()?.me.upgrade()
    }

    /// Sockets and listeners that are open, those among them that were let go of and have an operation under way.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.desk.lock().lanes()
    }

    /// Calls `look` with the driver, if it is of that type: for a test's script. `None` on another thread than the loop's, while the
    /// driver is at work, and after the loop has closed.
    pub fn with_driver<D: Driver, R>(&self, look: impl FnOnce(&mut D) -> R) -> Option<R> {
        let mut driver = (self.thread == thread_number())
            .then(|| self.driver.try_lock())
            .flatten()?;
        let driver: &mut dyn Any = &mut **driver.as_mut()?;
        driver.downcast_mut().map(look)
    }

    /// Changes the state of a lane.
    #[inline]
    pub(crate) fn desk<R>(&self, change: impl FnOnce(&mut Desk) -> R) -> R {
        change(&mut self.desk.lock())
    }

    /// As [`desk`](Self::desk), from wherever a bufferevent may be freed.
    pub(crate) fn desk_from_anywhere<R>(&self, change: impl FnOnce(&mut Desk) -> R) -> R {
        let result = self.desk(change);
        self.wake_elsewhere();
        result
    }

    /// The loop finds what was staged in its next wait: if it may be in one, that has to end.
    fn wake_elsewhere(&self) {
        if self.thread != thread_number()
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "the loop could not be woken");
        }
    }

    /// Lets go of a lane. What it has handed over still goes out, for a while.
    pub(crate) fn detach(&self, events: &LoopHandle, lane: Lane, verb: Verb) {
        let (sends, lacks_hold) =
            self.desk_from_anywhere(|desk| (desk.detach(lane, verb), desk.lacks_hold()));
        if lacks_hold {
            let hold = events.hold();
            self.desk(|desk| desk.keep(hold));
        }
        if !sends {
            return;
        }
        let Some(port) = self.me.upgrade() else {
            return;
        };
        // A closed loop ends what is under way by itself.
        if let Ok(timer) = events.after(LINGER, move || {
            port.desk_from_anywhere(|desk| desk.give_up(lane));
        }) {
            self.desk(|desk| desk.linger(lane, timer));
        }
    }

    /// Takes in what has completed by now, without a turn of the loop.
    pub(crate) fn look(&self) -> io::Result<()> {
        if self.thread != thread_number() {
            return Ok(());
        }
        self.drive(Some(Duration::ZERO))
    }

    /// Ends what is under way on a lane, waits until it is over, and takes the socket.
    pub(crate) fn take(&self, lane: Lane) -> io::Result<(Option<Socket>, EvBuffer)> {
        let start = Instant::now();
        while !self.desk(|desk| desk.stop(lane)) {
            if start.elapsed() > TO_REST {
                let why = "bytes that were handed over have not left yet";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
            }
            self.drive(Some(Duration::from_millis(1)))?;
        }
        self.desk(|desk| desk.take(lane))
            .ok_or_else(crate::desk::closed)
    }

    /// One round of the driver: hands over, waits, takes in. Then drops what is done with.
    fn drive(&self, timeout: Option<Duration>) -> io::Result<()> {
        let waited = {
            let mut driver = self.driver.lock();
            let Some(driver) = driver.as_mut() else {
                return Err(crate::desk::closed());
            };
            let busy = self.desk(|desk| {
                desk.hand_over(&mut **driver);
                desk.is_busy()
            });
            let waited = driver.wait(if busy { Some(Duration::ZERO) } else { timeout });
            let mut desk = self.desk.lock();
            driver.reap(&mut |completion| desk.complete(completion));
            waited
        };
        self.empty_trash();
        waited
    }

    /// Dropping foreign memory runs code of its owner's: with nothing locked, and a panic ends there.
    fn empty_trash(&self) {
        let mut trash = std::mem::take(&mut *self.trash.lock());
        self.desk(|desk| desk.swap_trash(&mut trash));
        if catch_unwind(AssertUnwindSafe(|| trash.clear())).is_err() {
            tracing::error!("the drop of bytes that were sent panicked");
        }
        *self.trash.lock() = trash;
    }

    /// Ends every operation, and the driver.
    fn close(&self) {
        let driver = self.driver.lock().take();
        // First the driver: no socket is closed while anything is under way on it.
        drop(driver);
        let staged = self.desk(Desk::close);
        drop(staged);
        self.empty_trash();
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("lanes", &self.lanes())
            .finish_non_exhaustive()
    }
}

impl Registrar for Port {
    fn features(&self) -> Features {
        if self.watches {
            Features::NONE.with_edges().with_early_close()
        } else {
            Features::NONE
        }
    }

    fn register(&self, source: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        if !self.watches {
            let why = "this loop completes operations and does not watch descriptors";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        self.desk_from_anywhere(|desk| {
            desk.push_operation(Operation::Watch {
                token,
                source,
                interest,
            });
        });
        Ok(())
    }

    fn modify(&self, source: RawSource, token: Token, interest: Interest) -> io::Result<()> {
        self.register(source, token, interest)
    }

    fn deregister(&self, _source: RawSource, token: Token) -> io::Result<()> {
        self.desk_from_anywhere(|desk| desk.push_operation(Operation::Unwatch { token }));
        Ok(())
    }

    fn wake(&self) -> io::Result<()> {
        self.waker.wake()
    }
}

/// The waiting half.
struct PortBackend {
    port: Arc<Port>,
}

impl Backend for PortBackend {
    fn registrar(&self) -> std::sync::Arc<dyn Registrar> {
        self.port.clone()
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Events) -> io::Result<()> {
        let waited = self.port.drive(timeout);
        self.port.desk(|desk| {
            for (token, ready) in desk.take_told() {
                events.push(token, ready);
            }
        });
        waited
    }
}

impl Drop for PortBackend {
    fn drop(&mut self) {
        self.port.close();
    }
}
