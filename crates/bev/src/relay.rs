//! `bev relay`: joins each accepted connection to a new one.
//!
//! # Life
//! ```text
//! Serving --SIGTERM--> Draining --last session ends--> exit 0
//!                         `-- deadline, or a second signal, with sessions left --> exit 5
//! ```
//!
//! # Invariants
//! - At most `--max-connections` sessions are there at once: at the limit the listener is disabled, and clients wait in
//!   the system's queue.
//! - No callback of the library runs while the relay's lock is held.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bufferevent::{Address, Bev, EventLoop, Listener, LoopHandle};

use crate::address::{Place, Written};
use crate::cli::{Common, RelayOptions};
use crate::exit::{Code, Failure};
use crate::layers::Stack;
use crate::stats::Counters;
use crate::{BACKLOG, output, session, signals};

/// What a relay lets its sessions have.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Bytes that wait in each direction of a session, apart from one read.
    pub(crate) buffer: NonZeroUsize,
    /// Sessions at once.
    pub(crate) max_connections: Option<NonZeroU64>,
    /// Without a byte in either direction.
    pub(crate) idle_timeout: Option<Duration>,
    /// Until the upstream answers, and until the layers on either side have shaken hands.
    pub(crate) connect_timeout: Option<Duration>,
}

/// A relay at work.
pub(crate) struct Relay {
    pub(crate) events: LoopHandle,
    pub(crate) upstream: Address,
    /// The layers on what is accepted, and on what is connected.
    pub(crate) below: Stack,
    pub(crate) above: Stack,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    phase: Mutex<Phase>,
}

enum Phase {
    /// Bound, the listener not yet here.
    Starting,
    Serving(Listener),
    Draining,
    /// The deadline passed, or a second signal came.
    Cut,
}

impl Relay {
    /// Starts to listen on `events`.
    pub(crate) fn start(
        events: &LoopHandle,
        listen: &Place,
        connect: &Place,
        limits: Limits,
    ) -> Result<Arc<Self>, Failure> {
        let (below, above) = (Stack::prepare(listen)?, Stack::prepare(connect)?);
        Self::start_with(events, listen, below, connect, above, limits)
    }

    /// As [`start`](Self::start), with layers that are ready.
    pub(crate) fn start_with(
        events: &LoopHandle,
        listen: &Place,
        below: Stack,
        connect: &Place,
        above: Stack,
        limits: Limits,
    ) -> Result<Arc<Self>, Failure> {
        let at = listen.endpoint.resolve()?;
        let upstream = connect.endpoint.resolve()?;
        if leads_back(&at, &upstream) {
            return Err(Failure::new(
                Code::Usage,
                format!("{listen} would relay to itself"),
            ));
        }
        let relay = Arc::new(Self {
            events: events.clone(),
            upstream,
            below,
            above,
            limits,
            counters: Counters::default(),
            phase: Mutex::new(Phase::Starting),
        });
        let accepting = relay.clone();
        let listener = Listener::builder(events)
            .backlog(BACKLOG)
            .nodelay(true)
            .replace_stale(true)
            .bind(at, move |bev, peer| accepting.accept(&bev, peer))
            .map_err(|error| {
                Failure::because(
                    Code::Unreachable,
                    format_args!("cannot listen on {listen}"),
                    &error,
                )
            })?;
        *relay.phase() = Phase::Serving(listener);
        Ok(relay)
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> Result<Address, Failure> {
        match &*self.phase() {
            Phase::Serving(listener) => listener
                .local_addr()
                .map_err(Failure::during("local address")),
            Phase::Starting | Phase::Draining | Phase::Cut => {
                Err(Failure::new(Code::Runtime, "the relay does not listen"))
            }
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        // Nothing that can panic runs under the lock, and the phase is whole at every point.
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        self.limits
            .max_connections
            .is_some_and(|limit| self.counters.active() >= limit.get())
    }

    fn accept(self: &Arc<Self>, client: &Bev, peer: Address) -> Result<(), bufferevent::Error> {
        self.counters.accepted.add(1);
        if self.is_full()
            && let Phase::Serving(listener) = &*self.phase()
        {
            listener.disable();
        }
        session::join(self, client, peer)
    }

    /// A session is gone.
    pub(crate) fn ended(&self) {
        let was_full = self.is_full();
        self.counters.ended.add(1);
        match &*self.phase() {
            Phase::Serving(listener) if was_full => listener.enable(),
            Phase::Draining if self.counters.active() == 0 => self.events.exit(),
            Phase::Starting | Phase::Serving(_) | Phase::Draining | Phase::Cut => {}
        }
    }

    /// Stops accepting and ends with the last session, or after `deadline`. Called again, it ends at once.
    fn drain(self: &Arc<Self>, deadline: Duration) {
        let next = match &*self.phase() {
            Phase::Starting | Phase::Serving(_) => Phase::Draining,
            Phase::Draining | Phase::Cut => Phase::Cut,
        };
        let draining = matches!(next, Phase::Draining);
        let former = std::mem::replace(&mut *self.phase(), next);
        // A listener closes here, with the lock released.
        drop(former);
        if !draining || self.counters.active() == 0 {
            self.events.exit();
            return;
        }
        tracing::info!(active = self.counters.active(), "draining");
        let relay = self.clone();
        match self.events.after(deadline, move || relay.cut()) {
            Ok(timer) => timer.detach(),
            Err(_) => self.cut(),
        }
    }

    fn cut(&self) {
        *self.phase() = Phase::Cut;
        self.events.exit();
    }

    /// How the relay's end is told to whoever started it.
    fn verdict(&self) -> Result<(), Failure> {
        match (&*self.phase(), self.counters.active()) {
            (Phase::Cut, active @ 1..) => {
                let connections = if active == 1 {
                    "connection"
                } else {
                    "connections"
                };
                Err(Failure::new(
                    Code::Cut,
                    format!("{active} {connections} cut"),
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a relay that listens at `listen` would accept its own connections to `connect`, without end.
fn leads_back(listen: &Address, connect: &Address) -> bool {
    match (listen, connect) {
        (Address::Tcp(listen), Address::Tcp(connect)) if listen.port() == connect.port() => {
            listen.ip() == connect.ip()
                || (listen.ip().is_unspecified() && connect.ip().is_loopback())
        }
        (listen, connect) => listen == connect,
    }
}

/// Runs `bev relay` until a signal comes.
pub(crate) fn run(
    events: &EventLoop,
    common: &Common,
    options: &RelayOptions,
) -> Result<(), Failure> {
    let relay = Relay::start(events, &options.listen, &options.connect, options.limits())?;
    let draining = relay.clone();
    let deadline = options.drain;
    let _signals = signals::on_termination(events, move || draining.drain(deadline))?;
    if let Some(period) = options.stats {
        report(&relay, common.json, period, 0, Instant::now());
    }
    output::listening(common.json, &Written(&relay.local_addr()?).to_string());
    events
        .run_until_exit()
        .map_err(Failure::during("the event loop"))?;
    relay.verdict()
}

/// Says a line of statistics once per `period`.
fn report(relay: &Arc<Relay>, json: bool, period: Duration, before: u64, since: Instant) {
    let reporting = relay.clone();
    let timer = relay.events.after(period, move || {
        let counters = &reporting.counters;
        output::say(&counters.line(json, before, since.elapsed()));
        let passed = counters.up.get() + counters.down.get();
        report(&reporting, json, period, passed, Instant::now());
    });
    // A closed loop has nothing to report any more.
    if let Ok(timer) = timer {
        timer.detach();
    }
}
