//! `bev relay`: joins each accepted connection to a new one.
//!
//! A relay has one worker per loop. The first is on the loop of the main thread, which also watches the signals and shows the
//! statistics; the others are on a pool's threads. How connections come to workers is the listener's business, who may come in is
//! the gate's (`gate.rs`), and what a worker does with them is in `worker.rs` and `session.rs`.
//!
//! # Invariants
//! - A connection stays with its worker; workers share the gate and nothing else.
//! - A worker's loop that fails ends the relay: its connections are lost, and nobody would notice otherwise.

use std::convert::Infallible;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bufferevent::evreactor::{self, LoopPool};
use bufferevent::{Address, EventLoop, Listener, LoopHandle};

use crate::address::{Endpoint, Place, Written};
use crate::cli::{Common, RelayOptions};
use crate::exit::{Code, Failure};
use crate::gate::Gate;
use crate::layers::Stack;
use crate::meter::LayerTotals;
use crate::names::Choice;
use crate::stats::Snapshot;
use crate::worker::Worker;
use crate::{BACKLOG, output, signals};

/// How long the workers' loops may take to end when the relay ends. They end after the callback that runs, so reaching this is a
/// failure.
const STOP_WITHIN: Duration = Duration::from_secs(5);

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
    workers: Vec<Arc<Worker>>,
    gate: Arc<Gate>,
    address: Address,
}

impl Relay {
    /// Starts to listen, with a worker on each of `loops`. The end of the first is the relay's end.
    pub(crate) fn start(
        loops: &[LoopHandle],
        listen: &Place,
        (connect, names): (&Place, &Choice),
        limits: &Limits,
    ) -> Result<Self, Failure> {
        let (below, above) = (Stack::prepare(listen)?, Stack::prepare(connect)?);
        Self::start_with(loops, listen, below, (connect, names), above, limits)
    }

    /// As [`start`](Self::start), with layers that are ready. Their meters count for the first worker.
    pub(crate) fn start_with(
        loops: &[LoopHandle],
        listen: &Place,
        below: Stack,
        (connect, names): (&Place, &Choice),
        above: Stack,
        limits: &Limits,
    ) -> Result<Self, Failure> {
        let (first, others) = loops.split_first().expect("a relay has a loop");
        let at = listen.endpoint.resolve()?;
        let upstream = &connect.endpoint;
        if leads_back(&at, upstream) {
            return Err(Failure::new(
                Code::Usage,
                format!("{listen} would relay to itself"),
            ));
        }
        let gate = Arc::new(Gate::new(limits.max_connections, first));
        let further = others.iter().map(|events| {
            let stacks = (below.for_another_thread(), above.for_another_thread());
            (events, stacks)
        });
        let further: Vec<_> = further.collect();
        let workers: Vec<_> = std::iter::once((first, (below, above)))
            .chain(further)
            .map(|(events, stacks)| {
                let upstream = (upstream, names.on(events)?);
                Ok(Worker::new(events, upstream, stacks, limits, &gate))
            })
            .collect::<Result<_, Failure>>()?;
        let accepting = workers.clone();
        let listeners = Listener::builder(first)
            .backlog(BACKLOG)
            .nodelay(true)
            .replace_stale(true)
            .bind_each(others, at, move |index, bev, peer| {
                accepting[index].accept(bev, peer)
            })
            .map_err(|error| {
                Failure::because(
                    Code::Unreachable,
                    format_args!("cannot listen on {listen}"),
                    &error,
                )
            })?;
        let address = listeners.first().expect("a relay has a listener");
        let address = address
            .local_addr()
            .map_err(Failure::during("local address"))?;
        gate.serve(listeners);
        Ok(Self {
            workers,
            gate,
            address,
        })
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> &Address {
        &self.address
    }

    /// What it has counted.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            workers: self.workers.iter().map(|one| one.counters.read()).collect(),
            layers: self
                .layers("listen", |worker| &worker.below)
                .chain(self.layers("connect", |worker| &worker.above))
                .collect(),
        }
    }

    /// The layers of one side, each with what passed it over all workers.
    fn layers(
        &self,
        side: &'static str,
        of: impl Fn(&Worker) -> &Stack,
    ) -> impl Iterator<Item = (&'static str, LayerTotals)> {
        let each = self.workers.iter().map(|worker| {
            let meters = of(worker).meters();
            meters.map(|meter| meter.read()).collect::<Vec<_>>()
        });
        // All workers have the same layers.
        let all = each.reduce(|all, one| {
            let both = all.into_iter().zip(one);
            both.map(|(all, one)| all.and(one)).collect()
        });
        all.into_iter().flatten().map(move |totals| (side, totals))
    }

    /// How the relay's end is told to whoever started it.
    fn verdict(&self) -> Result<(), Failure> {
        match self.gate.cut_sessions() {
            0 => Ok(()),
            1 => Err(Failure::new(Code::Cut, "1 connection cut")),
            left => Err(Failure::new(Code::Cut, format!("{left} connections cut"))),
        }
    }
}

/// Whether a relay that listens at `listen` would accept its own connections to `connect`, without end.
fn leads_back(listen: &Address, connect: &Endpoint) -> bool {
    match (listen, connect) {
        (Address::Tcp(listen), Endpoint::Tcp(connect)) if listen.port() == connect.port() => {
            listen.ip() == connect.ip()
                || (listen.ip().is_unspecified() && connect.ip().is_loopback())
        }
        // What other names mean is known when there is a connection.
        (Address::Tcp(listen), Endpoint::Name { host, port }) => {
            listen.port() == *port
                && host == "localhost"
                && (listen.ip().is_unspecified() || listen.ip().is_loopback())
        }
        (Address::Unix(listen), Endpoint::Unix(connect)) => listen == connect,
        _ => false,
    }
}

/// Runs `bev relay` until a signal comes. Each worker but the first gets a loop that `loops` makes.
pub(crate) fn run(
    events: &EventLoop,
    loops: evreactor::Builder,
    common: &Common,
    options: &RelayOptions,
) -> Result<(), Failure> {
    let pool = match NonZeroUsize::new(options.workers.get() - 1) {
        Some(others) => Some(start_pool(events, loops, others)?),
        None => None,
    };
    let mut handles = vec![LoopHandle::clone(events)];
    handles.extend(pool.iter().flat_map(LoopPool::handles).cloned());
    let relay = Relay::start(
        &handles,
        &options.listen,
        (&options.connect, &common.resolver),
        &options.limits(),
    )?;
    let relay = Arc::new(relay);
    let (gate, deadline) = (relay.gate.clone(), options.drain);
    let _signals = signals::on_termination(events, move || gate.drain(deadline))?;
    if let Some(period) = options.stats {
        let teller = output::Teller::start().map_err(Failure::during("starting a thread"))?;
        let reporter = Reporter {
            events: LoopHandle::clone(events),
            relay: relay.clone(),
            teller,
            json: common.json,
            period,
        };
        reporter.report(0, Instant::now());
    }
    output::listening(common.json, &Written(relay.local_addr()).to_string());
    events
        .run_until_exit()
        .map_err(Failure::during("the event loop"))?;
    let stopped = pool.map_or(Ok(()), |pool| pool.shut_down(STOP_WITHIN));
    relay.verdict()?;
    stopped.map_err(Failure::during("a worker"))
}

/// The loops of all workers but the first.
fn start_pool(
    main: &LoopHandle,
    loops: evreactor::Builder,
    count: NonZeroUsize,
) -> Result<LoopPool, Failure> {
    /// Ends the relay when a worker's loop has ended.
    struct EndsAll(LoopHandle);
    impl Drop for EndsAll {
        fn drop(&mut self) {
            self.0.exit();
        }
    }
    let main = main.clone();
    LoopPool::builder(count)
        .name("worker")
        .loops(loops)
        .start_with(move |_, _| Ok::<_, Infallible>(EndsAll(main.clone())))
        .map_err(Failure::during("the workers"))
}

/// Says a line of statistics once per `period`.
struct Reporter {
    events: LoopHandle,
    relay: Arc<Relay>,
    teller: output::Teller,
    json: bool,
    period: Duration,
}

impl Reporter {
    /// The next line, and those after it; `before` bytes had passed at `since`.
    fn report(self, before: u64, since: Instant) {
        let events = self.events.clone();
        let timer = events.after(self.period, move || {
            let snapshot = self.relay.snapshot();
            let line = snapshot.line(self.json, before, since.elapsed());
            self.teller.say(line);
            self.report(snapshot.totals().passed(), Instant::now());
        });
        // A closed loop has nothing to report any more.
        if let Ok(timer) = timer {
            timer.detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use bufferevent::evreactor::Outcome;

    use super::*;

    #[test]
    fn a_workers_end_is_the_relays_end() {
        let limit = Duration::from_secs(20);
        let since = Instant::now();
        let events = EventLoop::new().expect("a loop");
        let pool = start_pool(&events, EventLoop::builder(), NonZeroUsize::MIN).expect("a pool");
        events.exit_after(limit).expect("the loop is there");
        pool.handles()[0].exit();
        let outcome = events.run_until_exit().expect("the loop runs");
        assert_eq!(outcome, Outcome::Exit);
        assert!(since.elapsed() < limit, "the loop ended for want of news");
    }
}
