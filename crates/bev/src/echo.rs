//! `bev echo`: sends back what comes in, or throws it away.
//!
//! # Invariants
//! - Nothing is done per message but the one move from input to output.
//! - A client that never reads costs two buffers: at the output's high mark its input is not read any more.

use std::time::Duration;

use bufferevent::{Bev, Error, Event, EventLoop, Handler, Interest, LoopHandle, Pressure, READ};

use crate::address::{Place, Written};
use crate::cli::{Common, EchoOptions};
use crate::exit::{Code, Failure};
use crate::layers::Stack;
use crate::sockets::{self, Listening};
use crate::{output, signals};

/// How long the layers on a connection may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long what is still to be sent may take after the peer's end.
const LINGER: Duration = Duration::from_secs(60);

/// Sends back.
pub(crate) struct Echo;

impl Handler for Echo {
    fn interest(&self) -> Interest {
        Interest::READ | Interest::PRESSURE | Interest::EVENT
    }

    #[inline]
    fn on_read(&mut self, bev: &Bev) {
        // A refusal means that the stream has ended; the event callback hears of that.
        let _ = bev.output().append_from(&bev.input());
    }

    fn on_pressure(&mut self, bev: &Bev, pressure: Pressure) {
        // Freed already: nothing is read then.
        let _ = match pressure {
            Pressure::Full => bev.suspend(READ),
            Pressure::Eased => bev.resume(READ),
        };
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        part(bev, event);
    }
}

/// Ends a connection whose peer has ended, each layer with its own end mark; frees one that broke.
fn part(bev: &Bev, event: &Event) {
    // Freed already: there is nothing left to end.
    let _ = match event {
        Event::Eof => bev.close(LINGER),
        Event::Error { .. } | Event::Timeout(_) => bev.free().map(drop),
        _ => Ok(()),
    };
}

/// Throws away.
struct Sink;

impl Handler for Sink {
    fn interest(&self) -> Interest {
        Interest::READ | Interest::EVENT
    }

    #[inline]
    fn on_read(&mut self, bev: &Bev) {
        let _ = bev.input().drain(usize::MAX);
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        part(bev, event);
    }
}

/// Starts the service on `events`: `serve` gives each connection its handler.
pub(crate) fn listen(
    events: &LoopHandle,
    place: &Place,
    stack: Stack,
    mark: usize,
    serve: impl Fn(&Bev) -> Result<(), Error> + Send + Sync + 'static,
) -> Result<Listening, Failure> {
    let accept = move |_index, transport: Bev, _peer| {
        let bev = stack.put_on(&transport, None)?;
        if !stack.is_empty() {
            bev.set_connect_timeout(Some(HANDSHAKE))?;
        }
        bev.set_read_watermark(0, mark)?;
        bev.set_write_watermark(0, mark)?;
        serve(&bev)?;
        bev.enable(READ)
    };
    let from = sockets::From::Address(place.endpoint.resolve()?);
    let mut listeners =
        sockets::listen_each((events, &[]), from, true, accept).map_err(|error| {
            let what = format_args!("cannot listen on {place}");
            Failure::because(Code::Unreachable, what, &error)
        })?;
    Ok(listeners.pop().expect("one loop has one listener"))
}

/// Runs `bev echo` until a signal comes.
pub(crate) fn run(
    events: &EventLoop,
    common: &Common,
    options: &EchoOptions,
) -> Result<(), Failure> {
    let discard = options.discard;
    let stack = Stack::prepare(&options.listen)?;
    let listener = listen(
        events,
        &options.listen,
        stack,
        options.buffer.get(),
        move |bev| {
            if discard {
                bev.set_handler(Sink)
            } else {
                bev.set_handler(Echo)
            }
        },
    )?;
    let stop = LoopHandle::clone(events);
    let _signals = signals::on_termination(events, move || stop.exit())?;
    let address = listener
        .local_addr()
        .map_err(Failure::during("local address"))?;
    output::listening(common.json, &Written(&address).to_string());
    events
        .run_until_exit()
        .map_err(Failure::during("the event loop"))?;
    Ok(())
}
