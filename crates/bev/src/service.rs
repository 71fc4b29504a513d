//! `bev relay`: its routes, from the start to the end, with every reload in between.
//!
//! The first worker of each route is on the loop of the main thread, which also watches the signals and shows the statistics; the others
//! are on a pool's threads.
//!
//! # Reload
//! ```text
//! Idle --SIGHUP--> Reading --read--> Resting --a second later--> Idle, or Reading if there was a SIGHUP meanwhile
//! ```
//! Files are read and names are looked up on a thread of its own; the loops go on. What was read is taken over on the main loop: new places
//! are bound first, and only when all is there does anything change.
//!
//! # Invariants
//! - A reload changes all that it can or nothing. What it refuses, it says.
//! - However many SIGHUPs come, one reload is under way at a time, and a second passes from one to the next.
//! - A worker's loop that fails ends the relay: its connections are lost, and nobody would notice otherwise.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bufferevent::evreactor::{self, LoopPool};
use bufferevent::{Direction, EventLoop, LoopHandle, Rate, RateGroup};

use crate::access::AccessLog;
use crate::address::Endpoint;
use crate::cli::{Common, RelayOptions};
use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::exit::{Code, Failure};
use crate::gate::{Gate, RouteId};
use crate::names::{Choice, Names};
use crate::output::{self, Sink, Spool};
use crate::relay::{Prepared, Relay};
use crate::session::Sessions;
use crate::signals;
use crate::stats::{Snapshot, Totals};
use crate::systemd::{self, Given};
use crate::worker::{Lane, Shared};

/// How long the workers' loops may take to end when the relay ends. They end after the callback that runs, so reaching this is a
/// failure.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The time from one reload to the next.
const REST: Duration = Duration::from_secs(1);

/// All routes, at work.
struct Service {
    options: RelayOptions,
    /// The first is the main loop.
    loops: Vec<LoopHandle>,
    /// The same, with what is on them.
    lanes: Vec<Lane>,
    gate: Arc<Gate>,
    descriptors: Descriptors,
    given: Given,
    resolver: Choice,
    access: Option<AccessLog>,
    /// What all clients share, where a rate is said.
    group: RateGroup,
    state: Mutex<State>,
}

/// Touched on the main loop's thread alone; the lock makes it shareable.
struct State {
    routes: Vec<Relay>,
    /// Closed by a reload, with sessions left.
    former: Vec<Relay>,
    /// What closed routes have counted whose sessions are gone, by worker.
    retired: Vec<Totals>,
    next: RouteId,
    drain: Duration,
    reload: Reload,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reload {
    Idle,
    /// Under way, or just over; `again` when there was another signal since.
    Busy {
        again: bool,
    },
}

/// What a reload has read.
struct Read {
    config: Config,
    routes: Vec<Prepared>,
    /// Each loop's resolver.
    names: Vec<Names>,
}

/// Runs `bev relay` until a signal comes. Each worker but the first gets a loop that `loops` makes.
pub(crate) fn run(
    given: Given,
    loops: evreactor::Builder,
    common: &Common,
    options: &RelayOptions,
) -> Result<(), Failure> {
    let config = Config::read(options)?;
    let prepared = config.prepare(&[])?;
    let access = match &config.access {
        Some((path, format)) => Some(AccessLog::open(path, *format).map_err(|error| {
            Failure::because(Code::Usage, "cannot write the access log", &error)
        })?),
        None => None,
    };
    let events = crate::event_loop(common)?;
    let pool = match NonZeroUsize::new(config.workers.get() - 1) {
        Some(others) => Some(start_pool(&events, loops, others)?),
        None => None,
    };
    let main = Lane::new(&events);
    let mut lanes = vec![main.clone()];
    if let Some((_, others)) = &pool {
        lanes.extend(others.iter().cloned());
    }
    let handles: Vec<_> = lanes.iter().map(|lane| lane.events.clone()).collect();
    let names = common.resolver.on_each(&handles)?;
    let descriptors = Descriptors::in_use();
    let limit = descriptors.connections(config.max_connections, prepared.len(), lanes.len());
    let gate = Arc::new(Gate::new(limit, &events));
    let service = Arc::new(Service {
        options: options.clone(),
        state: Mutex::new(State {
            routes: Vec::new(),
            former: Vec::new(),
            retired: vec![Totals::default(); lanes.len()],
            next: 0,
            drain: config.drain,
            reload: Reload::Idle,
        }),
        loops: handles,
        lanes,
        gate,
        descriptors,
        given,
        resolver: common.resolver.clone(),
        access: access.clone(),
        group: RateGroup::new(&events),
    });
    let _signals = service.watch(&events)?;
    service.take_over(&prepared, &names, config.rate_total)?;
    if let Some(period) = options.stats {
        let spool = Spool::start(Sink::Stdout, output::UNREAD_STATISTICS);
        let reporter = Reporter {
            service: service.clone(),
            spool: spool.map_err(Failure::during("starting a thread"))?,
            json: common.json,
            period,
        };
        reporter.report(0, Instant::now());
    }
    for route in &service.state().routes {
        output::listening(common.json, &route.to_string());
    }
    systemd::ready();
    let ran = events.run_until_exit();
    systemd::stopping();
    main.sessions.cut();
    let stopped = pool.map_or(Ok(()), |(pool, _)| pool.shut_down(STOP_WITHIN));
    let verdict = service.verdict();
    if let Some(access) = access {
        access.spool.flush(output::FLUSH_WITHIN);
    }
    ran.map_err(Failure::during("the event loop"))?;
    verdict?;
    stopped.map_err(Failure::during("a worker"))
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the signals, as long as what it gives is there.
    fn watch(self: &Arc<Self>, events: &EventLoop) -> Result<Vec<signals::Signals>, Failure> {
        let ends = Arc::downgrade(self);
        let reloads = ends.clone();
        Ok(vec![
            signals::on_termination(events, move || {
                if let Some(service) = ends.upgrade() {
                    systemd::stopping();
                    let drain = service.state().drain;
                    service.gate.drain(drain);
                }
            })?,
            signals::on_reload(events, move || {
                if let Some(service) = reloads.upgrade() {
                    service.reload();
                }
            })?,
        ])
    }

    /// Has the routes be what was prepared: all of them, or, if that cannot be, as they were.
    fn take_over(
        &self,
        prepared: &[Prepared],
        names: &[Names],
        rate_total: Option<Rate>,
    ) -> Result<(), Failure> {
        let shared = Shared {
            access: self.access.clone(),
            group: rate_total.map(|_| self.group.clone()),
        };
        let mut state = self.state();
        // For each new route the one at the same place, which goes on; for the others, new listeners.
        let mut next = state.next;
        let mut kept = Vec::new();
        let mut bound = Vec::new();
        for route in prepared {
            let same = |(nth, relay): (usize, &Relay)| {
                relay.endpoint() == &route.listen.endpoint && !kept.contains(&Some(nth))
            };
            let here = state.routes.iter().enumerate().position(same);
            kept.push(here);
            bound.push(match here {
                Some(here) => {
                    state.routes[here].check(route)?;
                    None
                }
                None => {
                    next += 1;
                    let relay = Relay::bind(
                        next,
                        (&self.lanes, names),
                        &self.gate,
                        route,
                        &self.given,
                        &shared,
                    );
                    Some(relay?)
                }
            });
        }
        // From here on nothing fails.
        state.next = next;
        for direction in [Direction::Read, Direction::Write] {
            self.group.set_rate(direction, rate_total);
        }
        let routes = std::mem::take(&mut state.routes);
        let mut before: Vec<_> = routes.into_iter().map(Some).collect();
        for ((route, here), bound) in prepared.iter().zip(kept).zip(bound) {
            let relay = match (here.and_then(|here| before[here].take()), bound) {
                (Some(relay), _) => {
                    relay.change(route, names, &shared);
                    relay
                }
                (None, Some(bound)) => bound.serve(),
                (None, None) => continue,
            };
            state.routes.push(relay);
        }
        for gone in before.into_iter().flatten() {
            gone.close();
            state.former.push(gone);
        }
        state.retire();
        Ok(())
    }

    /// Reads everything anew, and takes it over.
    fn reload(self: &Arc<Self>) {
        if self.gate.is_draining() {
            return;
        }
        let mut state = self.state();
        match state.reload {
            Reload::Idle => state.reload = Reload::Busy { again: false },
            Reload::Busy { .. } => {
                state.reload = Reload::Busy { again: true };
                return;
            }
        }
        let places = state.routes.iter().map(Relay::endpoint).cloned();
        let held: Vec<_> = places.collect();
        drop(state);
        systemd::reloading();
        if let Some(access) = &self.access {
            access.spool.reopen();
        }
        let service = self.clone();
        let read = move || {
            let read = service.read(&held);
            let main = service.loops[0].clone();
            // A loop that is gone has nothing to reload.
            let _ = main.post(move || service.reloaded(read));
        };
        if let Err(error) = std::thread::Builder::new()
            .name("reload".into())
            .spawn(read)
        {
            self.reloaded(Err(Failure::because(
                Code::Runtime,
                "starting a thread",
                &error,
            )));
        }
    }

    /// Reads everything: files, certificates, names. It may block, so it is not for a loop's thread.
    fn read(&self, held: &[Endpoint]) -> Result<Read, Failure> {
        let config = Config::read(&self.options)?;
        Ok(Read {
            routes: config.prepare(held)?,
            names: self.resolver.on_each(&self.loops)?,
            config,
        })
    }

    /// Everything was read, or could not be.
    fn reloaded(self: &Arc<Self>, read: Result<Read, Failure>) {
        let taken = match read {
            // The routes are closed already, and stay so.
            Ok(_) if self.gate.is_draining() => return,
            Ok(read) => self
                .take_over(&read.routes, &read.names, read.config.rate_total)
                .map(|()| (read.routes.len(), read.config)),
            Err(failure) => Err(failure),
        };
        match taken {
            Ok((routes, config)) => {
                let workers = self.lanes.len();
                let limit = self
                    .descriptors
                    .connections(config.max_connections, routes, workers);
                self.gate.set_limit(limit);
                self.state().drain = config.drain;
                if config.workers.get() != self.loops.len() {
                    tracing::warn!("another number of workers takes effect at the next start");
                }
                if config.access.as_ref().map(|(path, _)| path)
                    != self.access.as_ref().map(|access| &access.path)
                {
                    tracing::warn!("another access log takes effect at the next start");
                }
                tracing::info!(routes, "reloaded");
            }
            Err(failure) => tracing::error!("not reloaded, all is as it was: {failure}"),
        }
        systemd::ready();
        let service = self.clone();
        let rested = move || {
            let former = std::mem::replace(&mut service.state().reload, Reload::Idle);
            if former == (Reload::Busy { again: true }) {
                service.reload();
            }
        };
        // A closed loop has nothing to reload.
        if let Ok(timer) = self.loops[0].after(REST, rested) {
            timer.detach();
        }
    }

    /// What all routes have counted.
    fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let mut rest = state.retired.clone();
        for relay in &state.former {
            Totals::add_each(&mut rest, &relay.totals());
        }
        Snapshot {
            routes: state.routes.iter().map(Relay::read).collect(),
            rest,
        }
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

impl State {
    /// Forgets closed routes whose sessions are gone; what they have counted stays.
    fn retire(&mut self) {
        let Self {
            former, retired, ..
        } = self;
        former.retain(|relay| {
            let totals = relay.totals();
            let active: u64 = totals.iter().map(Totals::active).sum();
            if active == 0 {
                Totals::add_each(retired, &totals);
            }
            active > 0
        });
    }
}

/// The loops of all workers but the first, and what is on them.
fn start_pool(
    main: &LoopHandle,
    loops: evreactor::Builder,
    count: NonZeroUsize,
) -> Result<(LoopPool, Vec<Lane>), Failure> {
    /// Ends the relay when a worker's loop has ended, whose sessions are cut.
    struct EndsAll(LoopHandle, Arc<Sessions>);
    impl Drop for EndsAll {
        fn drop(&mut self) {
            self.1.cut();
            self.0.exit();
        }
    }
    let main = main.clone();
    let sessions: Vec<Arc<Sessions>> = (0..count.get()).map(|_| Arc::default()).collect();
    let own = sessions.clone();
    let pool = LoopPool::builder(count)
        .name("worker")
        .loops(loops)
        .start_with(move |nth, _| Ok::<_, Infallible>(EndsAll(main.clone(), own[nth].clone())))
        .map_err(Failure::during("the workers"))?;
    let lanes = pool.handles().iter().cloned().zip(sessions);
    let lanes = lanes.map(|(events, sessions)| Lane { events, sessions });
    let lanes = lanes.collect();
    Ok((pool, lanes))
}

/// Says a line of statistics once per `period`.
struct Reporter {
    service: Arc<Service>,
    spool: Spool,
    json: bool,
    period: Duration,
}

impl Reporter {
    /// The next line, and those after it; `before` bytes had passed at `since`.
    fn report(self, before: u64, since: Instant) {
        let events = self.service.loops[0].clone();
        let timer = events.after(self.period, move || {
            let snapshot = self.service.snapshot();
            let mut line = snapshot.line(self.json, before, since.elapsed());
            line.push('\n');
            self.spool.say(line.into_bytes());
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
        let (pool, _) =
            start_pool(&events, EventLoop::builder(), NonZeroUsize::MIN).expect("a pool");
        events.exit_after(limit).expect("the loop is there");
        pool.handles()[0].exit();
        let outcome = events.run_until_exit().expect("the loop runs");
        assert_eq!(outcome, Outcome::Exit);
        assert!(since.elapsed() < limit, "the loop ended for want of news");
    }
}
