//! One route: a place to listen at, joined to a place to connect to.
//!
//! A route has one worker per loop. How connections come to workers is the listener's business, who may come in is the gate's
//! (`gate.rs`), and what a worker does with them is in `worker.rs` and `session.rs`. Several routes, and their reload, are `service.rs`.
//!
//! # Invariants
//! - A connection stays with its worker; workers share the gate and nothing else.
//! - A route that is bound accepts nobody before it is served.

use std::sync::Arc;

use bufferevent::Address;

use crate::address::{Endpoint, Place, Written};
use crate::config::Route;
use crate::exit::{Code, Failure};
use crate::gate::{Gate, RouteId};
use crate::layers::Stack;
use crate::limits::Limits;
use crate::meter::LayerTotals;
use crate::names::Names;
use crate::sockets::{self, Listening};
use crate::stats::{RouteTotals, Totals};
use crate::systemd::Given;
use crate::worker::{Lane, Plan, Shared, Worker};

/// A route that is ready: its files are read, and where it listens is known.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) name: Arc<str>,
    pub(crate) listen: Place,
    /// Where that is; `None` for a place that is listened at already, and for a socket that is handed over.
    at: Option<Address>,
    pub(crate) upstream: Endpoint,
    pub(crate) below: Stack,
    pub(crate) above: Stack,
    pub(crate) limits: Limits,
}

impl Prepared {
    /// Opens what a route names, and looks up where it listens unless that place is `held`. This may block.
    pub(crate) fn of(route: &Route, held: &[Endpoint]) -> Result<Self, Failure> {
        let (below, above) = (
            Stack::prepare(&route.listen)?,
            Stack::prepare(&route.connect)?,
        );
        let place = &route.listen.endpoint;
        let at = match place {
            Endpoint::Given(_) => None,
            place if held.contains(place) => None,
            place => Some(place.resolve()?),
        };
        Ok(Self::with_layers(route, at, below, above))
    }

    /// The same, with all of it ready. The layers' meters count for the first worker.
    pub(crate) fn with_layers(
        route: &Route,
        at: Option<Address>,
        below: Stack,
        above: Stack,
    ) -> Self {
        Self {
            name: route.name.as_str().into(),
            listen: route.listen.clone(),
            at,
            upstream: route.connect.endpoint.clone(),
            below,
            above,
            limits: route.limits.clone(),
        }
    }

    fn plan(&self, below: Stack, above: Stack, names: &Names, shared: &Shared) -> Plan {
        Plan {
            name: self.name.clone(),
            upstream: self.upstream.clone(),
            below,
            above,
            limits: self.limits.clone(),
            names: names.clone(),
            shared: shared.clone(),
        }
    }
}

/// A route at work.
pub(crate) struct Relay {
    id: RouteId,
    endpoint: Endpoint,
    workers: Vec<Arc<Worker>>,
    gate: Arc<Gate>,
    address: Address,
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Its listeners hold its workers, which hold the gate, which holds the listeners.
        self.close();
    }
}

/// A route that listens and accepts nobody yet.
pub(crate) struct Bound {
    relay: Relay,
    listeners: Vec<Listening>,
    limit: Option<std::num::NonZeroU64>,
}

impl Bound {
    /// Accepts from here on.
    pub(crate) fn serve(self) -> Relay {
        let Self {
            relay,
            listeners,
            limit,
        } = self;
        relay.gate.open(relay.id, limit);
        relay.gate.serve(relay.id, listeners);
        relay
    }
}

impl Relay {
    /// Starts to listen, with a worker on each lane, which has its resolver in `names`. If the bound route is dropped, nothing has
    /// happened.
    pub(crate) fn bind(
        id: RouteId,
        (lanes, names): (&[Lane], &[Names]),
        gate: &Arc<Gate>,
        prepared: &Prepared,
        given: &Given,
        shared: &Shared,
    ) -> Result<Bound, Failure> {
        let Prepared { below, above, .. } = prepared;
        let each = lanes.iter().zip(names).enumerate();
        let workers: Vec<_> = each
            .map(|(nth, (lane, names))| {
                let (below, above) = match nth {
                    0 => (below.clone(), above.clone()),
                    _ => (below.for_another_thread(), above.for_another_thread()),
                };
                let plan = prepared.plan(below, above, names, shared);
                Worker::new(lane, id, plan, gate)
            })
            .collect();
        let listeners = listen(prepared, given, &workers)?;
        let address = listeners.first().expect("a relay has a listener");
        let address = address
            .local_addr()
            .map_err(Failure::during("local address"))?;
        Ok(Bound {
            relay: Self {
                id,
                endpoint: prepared.listen.endpoint.clone(),
                workers,
                gate: gate.clone(),
                address,
            },
            listeners,
            limit: prepared.limits.max_connections,
        })
    }

    /// Whether it may become what was prepared for the same place.
    pub(crate) fn check(&self, prepared: &Prepared) -> Result<(), Failure> {
        if leads_back(&self.address, &prepared.upstream) {
            return Err(to_itself(&prepared.listen));
        }
        Ok(())
    }

    /// What comes in from here on gets this; what is there keeps what it has.
    pub(crate) fn change(&self, prepared: &Prepared, names: &[Names], shared: &Shared) {
        for (nth, (worker, names)) in self.workers.iter().zip(names).enumerate() {
            let former = worker.plan();
            let stack = |stack: &Stack, former: &Stack| {
                let own = match nth {
                    0 => stack.clone(),
                    _ => stack.for_another_thread(),
                };
                own.counting_on(former)
            };
            let below = stack(&prepared.below, &former.below);
            let above = stack(&prepared.above, &former.above);
            worker.set_plan(prepared.plan(below, above, names, shared));
        }
        self.gate
            .set_route_limit(self.id, prepared.limits.max_connections);
    }

    /// Takes no more connections. Those that are there go on.
    pub(crate) fn close(&self) {
        self.gate.close(self.id);
    }

    /// Where it listens, as written.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> &Address {
        &self.address
    }

    /// What each worker has counted.
    pub(crate) fn totals(&self) -> Vec<Totals> {
        self.workers.iter().map(|one| one.counters.read()).collect()
    }

    /// What it has counted, with its layers.
    pub(crate) fn read(&self) -> RouteTotals {
        let plan = self.workers.first().map(|worker| worker.plan());
        RouteTotals {
            name: plan.map_or_else(|| "".into(), |plan| plan.name.clone()),
            workers: self.totals(),
            layers: self
                .layers("listen", |plan| &plan.below)
                .chain(self.layers("connect", |plan| &plan.above))
                .collect(),
        }
    }

    /// The layers of one side, each with what passed it over all workers.
    fn layers(
        &self,
        side: &'static str,
        of: impl Fn(&Plan) -> &Stack,
    ) -> impl Iterator<Item = (&'static str, LayerTotals)> {
        let each = self.workers.iter().map(|worker| {
            let plan = worker.plan();
            let meters = of(&plan).meters();
            meters.map(|meter| meter.read()).collect::<Vec<_>>()
        });
        // All workers have the same layers.
        let all = each.reduce(|all, one| {
            let both = all.into_iter().zip(one);
            both.map(|(all, one)| all.and(one)).collect()
        });
        all.into_iter().flatten().map(move |totals| (side, totals))
    }
}

fn listen(
    prepared: &Prepared,
    given: &Given,
    workers: &[Arc<Worker>],
) -> Result<Vec<Listening>, Failure> {
    let Prepared {
        listen,
        upstream,
        at,
        ..
    } = prepared;
    let (first, others) = workers.split_first().expect("a relay has a worker");
    let others: Vec<_> = others.iter().map(|worker| worker.events.clone()).collect();
    let accepting = workers.to_vec();
    let accept = move |index: usize, bev, peer| {
        let worker: &Arc<Worker> = &accepting[index];
        worker.accept(bev, peer)
    };
    let listen_each = |from| sockets::listen_each((&first.events, &others), from, false, accept);
    let listeners = match &listen.endpoint {
        Endpoint::Given(name) => {
            let socket = given.socket(name)?;
            let listeners = listen_each(sockets::From::Given(socket));
            if let Ok([listener, ..]) = listeners.as_deref()
                && let Ok(at) = listener.local_addr()
                && leads_back(&at, upstream)
            {
                return Err(to_itself(listen));
            }
            listeners
        }
        endpoint => {
            // Looked up beforehand, unless somebody else held the place then.
            let at = at.clone().map_or_else(|| endpoint.resolve(), Ok)?;
            if leads_back(&at, upstream) {
                return Err(to_itself(listen));
            }
            listen_each(sockets::From::Address(at))
        }
    };
    listeners.map_err(|error| {
        let what = format_args!("cannot listen on {listen}");
        Failure::because(Code::Unreachable, what, &error)
    })
}

fn to_itself(listen: &Place) -> Failure {
    Failure::new(Code::Usage, format!("{listen} would relay to itself"))
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
                && host.trim_end_matches('.') == "localhost"
                && (listen.ip().is_unspecified() || listen.ip().is_loopback())
        }
        (Address::Unix(listen), Endpoint::Unix(connect)) => listen == connect,
        _ => false,
    }
}

/// The address as it is told when it listens.
impl std::fmt::Display for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Written(&self.address).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use bufferevent::EventLoop;

    use super::*;
    use crate::names::Choice;

    #[test]
    fn a_route_that_is_dropped_lets_go_of_its_gate_and_its_place() {
        let events = EventLoop::new().unwrap();
        let gate = Arc::new(Gate::new(None, &events));
        let route = Route {
            name: "one".into(),
            listen: Place::listen("tcp:127.0.0.1:0").unwrap(),
            connect: Place::connect("tcp:127.0.0.1:9").unwrap(),
            limits: Limits::default(),
        };
        let plain = Stack::default();
        let prepared = Prepared::with_layers(&route, None, plain.clone(), plain);
        let (given, shared) = (Given::none(), Shared::default());
        let names = [Choice::System.on(&events).unwrap()];
        let lanes = [Lane::new(&events)];
        let bound = Relay::bind(1, (&lanes, &names), &gate, &prepared, &given, &shared).unwrap();
        let relay = bound.serve();
        let Address::Tcp(at) = *relay.local_addr() else {
            panic!("{relay}")
        };
        let weak = Arc::downgrade(&gate);
        drop((relay, gate));
        assert!(weak.upgrade().is_none(), "they hold each other");
        // What the loop was told of the listener goes with its turn, and the place is free.
        events.poll().unwrap();
        assert!(std::net::TcpListener::bind(at).is_ok());
    }
}
