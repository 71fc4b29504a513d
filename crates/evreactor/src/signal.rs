//! Signals as events of the loop.
//!
//! Each watcher has a socket pair of its own. The process-wide handler (of the `signal-hook` crate, which lets any number
//! of them share one signal) writes a byte, the loop reads it and calls the watcher.
//!
//! # Invariants
//! - In the handler nothing happens but that one write.
//! - Of what the process was delivered, a watcher is called once per delivery, as long as its pipe (some hundred bytes) has room.
//!   Deliveries that the kernel merges are one.
//! - The watcher's closure is taken out of its slot while it runs, so it may drop its own [`Signal`].
//!
//! Source: libevent's `signal.c`, `evsig_cb`.

use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use evreactor_core::sync::Mutex;
use evreactor_core::{Priority, Ready, Target};
use signal_hook::SigId;
use signal_hook::low_level::{pipe, unregister};

use crate::backend::Interest;
use crate::handle::LoopHandle;
use crate::source::Registration;

/// Bytes read at a time: one per delivery, so one read is mostly enough.
const BYTES_PER_READ: usize = 64;

impl LoopHandle {
    /// Has the loop call `watcher` for each delivery of a signal, until the [`Signal`] is dropped. A loop that
    /// watches a signal does not run out of work.
    ///
    /// The signal's default action (to end the process, mostly) does not happen any more, also not after the last watcher is gone.
    ///
    /// # Errors
    /// What the system says, and `InvalidInput` or a panic of `signal-hook` for signals that cannot be caught (SIGKILL, SIGSTOP, SIGSEGV, …).
    ///
    /// # Examples
    /// ```
    /// let events = evreactor::EventLoop::new()?;
    /// let handle = events.clone();
    /// let signal = events.signal(signal_hook::consts::SIGUSR2, move || handle.exit())?;
    /// signal_hook::low_level::raise(signal_hook::consts::SIGUSR2)?;
    /// events.run()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "evsignal_new")]
    pub fn signal(
        &self,
        signum: i32,
        watcher: impl FnMut() + Send + 'static,
    ) -> io::Result<Signal> {
        if signal_hook::consts::FORBIDDEN.contains(&signum) {
            let message = format!("signal {signum} cannot be watched");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        sender.set_nonblocking(true)?;
        let target = Arc::new(Watch {
            handle: self.clone(),
            receiver,
            slot: Mutex::new(Slot::Idle(Box::new(watcher))),
            registration: Mutex::new(None),
        });
        let registration = self.register(
            &target.receiver,
            Interest::READ,
            Priority(0),
            target.clone(),
            0,
        )?;
        *target.registration.lock() = Some(registration);
        let id = pipe::register(signum, sender).inspect_err(|_| target.end())?;
        Ok(Signal { id, target })
    }
}

/// A signal that is watched, until this is dropped.
#[must_use = "dropping this ends the watch"]
pub struct Signal {
    id: SigId,
    target: Arc<Watch>,
}

impl Drop for Signal {
    fn drop(&mut self) {
        unregister(self.id);
        self.target.end();
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The receiving end of one watcher.
struct Watch {
    handle: LoopHandle,
    /// Before `receiver`: a registration goes before its descriptor.
    registration: Mutex<Option<Registration>>,
    receiver: UnixStream,
    slot: Mutex<Slot>,
}

/// Idle --taken--> Running --put back--> Idle; from either, `end` --> Ended.
enum Slot {
    Idle(Box<dyn FnMut() + Send>),
    Running,
    Ended,
}

impl Watch {
    /// The watcher is not called again.
    fn end(&self) {
        let former = std::mem::replace(&mut *self.slot.lock(), Slot::Ended);
        let registration = self.registration.lock().take();
        drop(registration);
        drop(former);
    }

    fn take(&self) -> Option<Box<dyn FnMut() + Send>> {
        let mut slot = self.slot.lock();
        match std::mem::replace(&mut *slot, Slot::Running) {
            Slot::Idle(watcher) => Some(watcher),
            Slot::Running => None,
            Slot::Ended => {
                *slot = Slot::Ended;
                None
            }
        }
    }

    fn put_back(&self, watcher: Box<dyn FnMut() + Send>) {
        let mut slot = self.slot.lock();
        match *slot {
            Slot::Running => *slot = Slot::Idle(watcher),
            Slot::Idle(_) | Slot::Ended => {
                drop(slot); // Before the watcher, which is user code.
                drop(watcher);
            }
        }
    }
}

impl Target for Watch {
    fn run(&self, _key: u64) {}

    fn expired(&self, _key: u64) {}

    fn ready(&self, _key: u64, _ready: Ready) {
        // All is read and re-armed before the first call: a watcher may end this.
        let mut deliveries = 0;
        let mut bytes = [0; BYTES_PER_READ];
        loop {
            match (&self.receiver).read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => deliveries += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if let Some(registration) = &*self.registration.lock()
            && let Err(error) = registration.rearm()
        {
            tracing::error!(%error, "a signal's pipe could not be re-armed");
        }
        for _ in 0..deliveries {
            let Some(mut watcher) = self.take() else {
                return;
            };
            self.handle.shared.guard("signal watcher", &mut watcher);
            self.put_back(watcher);
        }
    }
}
