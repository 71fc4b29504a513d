//! `bev demo`: an echo service, a tunnel of two relays in front of it, and clients that push data through all and check what
//! comes back.
//!
//! All of it is in one process, on one loop and one thread:
//! ```text
//! clients ==> entry ==> exit ==> echo
//!         <==       <==      <==
//!       plain   tls+zlib   plain
//! ```
//! The certificates are made at the start.
//!
//! # Invariants
//! - Every byte that comes back is compared with the stream that was sent, made again from its seed.
//! - A stall is a failure, not a wait: see [`STALL`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bufferevent::evbuffer::EvBuffer;
use bufferevent::{
    Address, Bev, Calls, Event, EventLoop, Handler, Interest, LoopHandle, Pressure, READ,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::address::{Endpoint, Place};
use crate::cert::Identity;
use crate::cli::{Common, DemoOptions};
use crate::config::Route;
use crate::data::Stream;
use crate::echo::{self, Echo};
use crate::exit::{Chain, Code, Failure};
use crate::gate::Gate;
use crate::layers::{self, Stack};
use crate::limits::Limits;
use crate::meter::Meter;
use crate::names::Names;
use crate::output;
use crate::relay::{Prepared, Relay};
use crate::stats::{Bytes, Counter, Totals, per_second};
use crate::systemd::Given;
use crate::worker::{Lane, Shared};

/// A connection on which nothing moves for so long has lost its wake-up: nobody here waits for anything from outside.
const STALL: Duration = Duration::from_secs(20);

/// How often the progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// What the clients share.
struct Run {
    events: LoopHandle,
    /// Bytes that went out and that came back as they went.
    sent: Counter,
    checked: Counter,
    callbacks: Counter,
    /// Clients that are not done, and the first failure.
    state: Mutex<(usize, Option<Failure>)>,
}

impl Run {
    fn state(&self) -> MutexGuard<'_, (usize, Option<Failure>)> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client_done(&self) {
        let mut state = self.state();
        state.0 -= 1;
        if state.0 == 0 {
            self.events.exit();
        }
    }

    fn fail(&self, failure: Failure) {
        self.state().1.get_or_insert(failure);
        self.events.exit();
    }
}

/// One client: the handler of its connection.
struct Client {
    number: usize,
    run: Arc<Run>,
    source: Stream,
    to_send: u64,
    check: Stream,
    to_receive: u64,
    received: EvBuffer,
}

impl Client {
    /// Writes until the output is at its mark, and the end behind the last byte.
    fn fill(&mut self, bev: &Bev) {
        while self.to_send > 0 && bev.room() > 0 {
            let chunk = self.source.chunk();
            let count = chunk
                .len()
                .min(usize::try_from(self.to_send).unwrap_or(usize::MAX));
            // A refusal means that the connection broke; the event callback hears of that.
            if bev.write(&chunk[..count]).is_err() {
                return;
            }
            self.source.advance(count);
            self.to_send -= count as u64;
            self.run.sent.add(count as u64);
            if self.to_send == 0 {
                let _ = bev.finish();
            }
        }
    }

    fn fail(&self, code: Code, why: &str) {
        self.run.fail(Failure::new(
            code,
            format!("connection {}: {why}", self.number),
        ));
    }

    /// Compares what came.
    fn check(&mut self) {
        let count = self.received.len() as u64;
        let offset = self.run.checked.get();
        if count > self.to_receive {
            return self.fail(Code::Mismatch, "more came back than was sent");
        }
        for segment in self.received.segments() {
            if self.check.take_equal(segment).is_err() {
                let why = format!(
                    "a byte came back changed, {} after the start",
                    Bytes(offset)
                );
                return self.fail(Code::Mismatch, &why);
            }
        }
        self.received.drain(usize::MAX);
        self.to_receive -= count;
        self.run.checked.add(count);
    }
}

impl Handler for Client {
    fn interest(&self) -> Interest {
        Interest::READ | Interest::WRITE | Interest::EVENT
    }

    fn on_read(&mut self, bev: &Bev) {
        self.run.callbacks.add(1);
        if bev.read_buffer(&mut self.received).is_ok() {
            self.check();
        }
    }

    fn on_write(&mut self, bev: &Bev) {
        self.run.callbacks.add(1);
        self.fill(bev);
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        self.run.callbacks.add(1);
        match event {
            Event::Connected => self.fill(bev),
            Event::Eof if self.to_receive > 0 => {
                let why = format!("ended with {} missing", Bytes(self.to_receive));
                self.fail(Code::Mismatch, &why);
            }
            Event::Eof => {
                self.run.client_done();
                // Its end is out: what came back came behind it.
                let _ = bev.free();
            }
            Event::Error { error, .. } => self.fail(Code::Runtime, &Chain(error).to_string()),
            Event::Timeout(_) => self.fail(Code::Runtime, "nothing moves any more"),
            _ => {}
        }
    }
}

/// A handler whose callbacks are counted.
struct Counted<H> {
    handler: H,
    callbacks: Arc<Counter>,
}

impl<H: Handler> Handler for Counted<H> {
    fn interest(&self) -> Interest {
        self.handler.interest()
    }

    fn on_read(&mut self, bev: &Bev) {
        self.callbacks.add(1);
        self.handler.on_read(bev);
    }

    fn on_write(&mut self, bev: &Bev) {
        self.callbacks.add(1);
        self.handler.on_write(bev);
    }

    fn on_pressure(&mut self, bev: &Bev, pressure: Pressure) {
        self.callbacks.add(1);
        self.handler.on_pressure(bev, pressure);
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        self.callbacks.add(1);
        self.handler.on_event(bev, event);
    }
}

/// Runs `bev demo`.
pub(crate) fn run(
    events: &EventLoop,
    common: &Common,
    options: &DemoOptions,
) -> Result<(), Failure> {
    let identity = Identity::generate(&[]).map_err(Failure::during("making certificates"))?;
    let (near, far) = layers::tunnel(&options.layers, &identity)?;
    for meter in near.meters().chain(far.meters()) {
        meter.count_time();
    }
    let anywhere = Place::listen("tcp:127.0.0.1:0").map_err(Failure::during("address"))?;
    let echo_callbacks = Arc::new(Counter::default());
    let counting = echo_callbacks.clone();
    let plain = Stack::default();
    let echo = echo::listen(
        events,
        &anywhere,
        plain.clone(),
        options.buffer.get(),
        move |bev| {
            bev.set_handler(Counted {
                handler: Echo,
                callbacks: counting.clone(),
            })
        },
    )?;
    let service = echo
        .local_addr()
        .map_err(Failure::during("local address"))?;
    let limits = Limits {
        buffer: options.buffer,
        connect: Some(STALL),
        handshake: Some(STALL),
        ..Limits::default()
    };
    let gate = Arc::new(Gate::new(None, events));
    let given = Given::none();
    let lanes = [Lane::new(events)];
    let names = [common.resolver.on(events)?];
    let route = |id, name: &str, below: &Stack, to: &Address, above: &Stack| {
        let route = Route {
            name: name.into(),
            listen: anywhere.clone(),
            connect: at(to)?,
            limits: limits.clone(),
        };
        let listen = anywhere.endpoint.resolve()?;
        let prepared = Prepared::with_layers(&route, Some(listen), below.clone(), above.clone());
        let bound = Relay::bind(
            id,
            (&lanes, &names),
            &gate,
            &prepared,
            &given,
            &Shared::default(),
        )?;
        Ok::<_, Failure>(bound.serve())
    };
    let exit = route(1, "exit", &far, &service, &plain)?;
    let entry = route(2, "entry", &plain, exit.local_addr(), &near)?;
    let run = Arc::new(Run {
        events: LoopHandle::clone(events),
        sent: Counter::default(),
        checked: Counter::default(),
        callbacks: Counter::default(),
        state: Mutex::new((options.connections.get(), None)),
    });
    let bar = progress(options.bytes);
    show(&run, &bar);
    let at_entry = at(entry.local_addr())?.endpoint;
    let began = Instant::now();
    for number in 0..options.connections.get() {
        connect(&run, (&names[0], &at_entry), number, options)
            .map_err(Failure::during("connecting"))?;
    }
    events
        .run_until_exit()
        .map_err(Failure::during("the event loop"))?;
    bar.finish_and_clear();
    if let Some(failure) = run.state().1.take() {
        return Err(failure);
    }
    let report = Report {
        options,
        elapsed: began.elapsed(),
        run: &run,
        entry: entry.read().totals(),
        exit: exit.read().totals(),
        layers: near
            .meters()
            .map(|meter| ("entry", &**meter))
            .chain(far.meters().map(|meter| ("exit", &**meter)))
            .collect(),
        echo_callbacks: echo_callbacks.get(),
        turns: events.stats(),
        calls: Calls::of_thread(),
    };
    output::say(&if common.json {
        report.json()
    } else {
        report.table()
    });
    Ok(())
}

/// The place of something that listens in this process.
fn at(address: &Address) -> Result<Place, Failure> {
    match address {
        Address::Tcp(address) => Ok(Place {
            endpoint: Endpoint::Tcp(*address),
            layers: Vec::new(),
        }),
        other => Err(Failure::new(
            Code::Runtime,
            format!("{other} is no TCP address"),
        )),
    }
}

/// Starts a client with its share of the bytes.
fn connect(
    run: &Arc<Run>,
    (names, entry): (&Names, &Endpoint),
    number: usize,
    options: &DemoOptions,
) -> Result<(), bufferevent::Error> {
    let clients = options.connections.get() as u64;
    let share = options.bytes / clients + u64::from((number as u64) < options.bytes % clients);
    let stream = Stream::new(options.seed.wrapping_add(number as u64));
    let client = Client {
        number,
        run: run.clone(),
        source: stream.clone(),
        to_send: share,
        check: stream,
        to_receive: share,
        received: EvBuffer::new(),
    };
    let mark = options.buffer.get();
    let bev = names.connect(&run.events, entry, Limits::default().pace())?;
    bev.set_handler(client)?;
    bev.set_read_watermark(0, mark)?;
    // Refilled when half is out, so that the socket always has something to send.
    bev.set_write_watermark(mark / 2, mark)?;
    bev.set_idle_timeout(Some(STALL))?;
    bev.enable(READ)?;
    if share == 0 {
        bev.finish()?;
    }
    Ok(())
}

/// A bar on standard error, where that is a terminal; else nothing.
fn progress(bytes: u64) -> ProgressBar {
    const TEMPLATE: &str = "{bar:30} {bytes}/{total_bytes}, {binary_bytes_per_sec}, {eta} left";
    let bar = ProgressBar::new(bytes);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    bar
}

/// Shows the progress from time to time.
fn show(run: &Arc<Run>, bar: &ProgressBar) {
    if bar.is_hidden() {
        return;
    }
    bar.set_position(run.checked.get());
    let (again, bar) = (run.clone(), bar.clone());
    // A closed loop shows nothing any more.
    if let Ok(timer) = run.events.after(SHOW_EVERY, move || show(&again, &bar)) {
        timer.detach();
    }
}

/// What the demo did.
struct Report<'a> {
    options: &'a DemoOptions,
    elapsed: Duration,
    run: &'a Run,
    entry: Totals,
    exit: Totals,
    /// The relay that each layer belongs to, and what passed it.
    layers: Vec<(&'static str, &'a Meter)>,
    echo_callbacks: u64,
    turns: bufferevent::evreactor::Stats,
    calls: Calls,
}

impl Report<'_> {
    /// Waits, receives and sends: all but those that come once per connection.
    fn system_calls(&self) -> u64 {
        self.turns.polls + self.calls.receives + self.calls.sends
    }

    /// Bytes that were given to a socket, or taken from one, once each.
    fn hops(&self) -> u64 {
        let tunnel = match self.layers.first() {
            // What the bottom layer of the entry made, and took.
            Some((_, bottom)) => bottom.down.made.get() + bottom.up.taken.get(),
            None => self.entry.passed(),
        };
        let ends = self.run.sent.get() + self.run.checked.get();
        ends + tunnel + self.exit.passed()
    }

    fn table(&self) -> String {
        let Self {
            run,
            entry,
            exit,
            turns,
            calls,
            ..
        } = self;
        let (sent, back) = (run.sent.get(), run.checked.get());
        let mut rows = vec![
            (
                "data",
                format!(
                    "{} there and {} back over {} connections, half text, half random; every byte is right",
                    Bytes(sent),
                    Bytes(back),
                    self.options.connections
                ),
            ),
            (
                "relays",
                format!(
                    "entry {} up, {} down; exit {} up, {} down; moved without copying",
                    Bytes(entry.up),
                    Bytes(entry.down),
                    Bytes(exit.up),
                    Bytes(exit.down)
                ),
            ),
        ];
        rows.extend(
            self.layers
                .iter()
                .map(|(relay, meter)| ("layer", row(relay, meter))),
        );
        rows.extend([
            (
                "time",
                format!(
                    "{:.2} s: {}/s each way, {}/s through sockets",
                    self.elapsed.as_secs_f64(),
                    Bytes(per_second(back, self.elapsed)),
                    Bytes(per_second(self.hops(), self.elapsed))
                ),
            ),
            (
                "callbacks",
                format!(
                    "{} clients, {} relays, {} echo",
                    run.callbacks.get(),
                    entry.callbacks + exit.callbacks,
                    self.echo_callbacks
                ),
            ),
            (
                "loop",
                format!(
                    "{} turns, {} events, backend {}",
                    turns.turns,
                    turns.events,
                    run.events.backend()
                ),
            ),
            (
                "system calls",
                format!(
                    "{} waits + {} receives + {} sends = {}; {} per call",
                    turns.polls,
                    calls.receives,
                    calls.sends,
                    self.system_calls(),
                    Bytes(2 * self.hops() / self.system_calls().max(1))
                ),
            ),
            (
                "not counted",
                "what comes once per connection: socket, connect, accept, close".into(),
            ),
        ]);
        let lines = rows
            .iter()
            .map(|(name, value)| format!("{name:<13} {value}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn json(&self) -> String {
        let Self {
            run,
            entry,
            exit,
            turns,
            calls,
            ..
        } = self;
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|(relay, meter)| {
                json!({
                    "relay": relay,
                    "layer": meter.name,
                    "down": {"taken": meter.down.taken.get(), "made": meter.down.made.get()},
                    "up": {"taken": meter.up.taken.get(), "made": meter.up.made.get()},
                    "seconds": meter.seconds(),
                })
            })
            .collect();
        json!({
            "event": "demo",
            "bytes_sent": run.sent.get(),
            "bytes_checked": run.checked.get(),
            "relay_bytes_up": entry.up,
            "relay_bytes_down": entry.down,
            "exit_bytes_up": exit.up,
            "exit_bytes_down": exit.down,
            "layers": layers,
            "connections": self.options.connections,
            "seconds": self.elapsed.as_secs_f64(),
            "bytes_per_second": per_second(run.checked.get(), self.elapsed),
            "callbacks": {
                "clients": run.callbacks.get(),
                "relays": entry.callbacks + exit.callbacks,
                "echo": self.echo_callbacks,
            },
            "turns": turns.turns,
            "events": turns.events,
            "backend": run.events.backend(),
            "system_calls": {
                "waits": turns.polls,
                "receives": calls.receives,
                "sends": calls.sends,
                "total": self.system_calls(),
            },
        })
        .to_string()
    }
}

/// What a layer did, for people.
fn row(relay: &str, meter: &Meter) -> String {
    let ratio = |from: u64, to: u64| to as f64 / from.max(1) as f64;
    let (down, up) = (&meter.down, &meter.up);
    format!(
        "{relay} {:<5} out {} -> {} (x {:.3}), in {} -> {} (x {:.3}), {:.2} s",
        meter.name,
        Bytes(down.taken.get()),
        Bytes(down.made.get()),
        ratio(down.taken.get(), down.made.get()),
        Bytes(up.taken.get()),
        Bytes(up.made.get()),
        ratio(up.taken.get(), up.made.get()),
        meter.seconds()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that sent `bytes` bytes and is to check what came back.
    fn client(events: &EventLoop, bytes: u64) -> Client {
        let run = Run {
            events: LoopHandle::clone(events),
            sent: Counter::default(),
            checked: Counter::default(),
            callbacks: Counter::default(),
            state: Mutex::new((1, None)),
        };
        Client {
            number: 0,
            run: Arc::new(run),
            source: Stream::new(1),
            to_send: 0,
            check: Stream::new(1),
            to_receive: bytes,
            received: EvBuffer::new(),
        }
    }

    fn check(bytes: &[u8], expected: u64) -> Option<Code> {
        let events = EventLoop::new().expect("a loop");
        let mut client = client(&events, expected);
        client.received.append_slice(bytes).expect("appended");
        client.check();
        client.run.state().1.as_ref().map(Failure::code)
    }

    #[test]
    fn one_wrong_byte_or_one_too_many_is_a_mismatch() {
        let mut bytes = Stream::new(1).chunk().to_vec();
        let count = bytes.len() as u64;
        assert_eq!(check(&bytes, count), None);
        assert_eq!(check(&bytes, count - 1), Some(Code::Mismatch));
        bytes[4321] ^= 0x80;
        assert_eq!(check(&bytes, count), Some(Code::Mismatch));
    }
}
