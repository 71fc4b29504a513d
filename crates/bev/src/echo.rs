//! `bev echo`: sends back what comes in, or throws it away.
//!
//! # Invariants
//! - Nothing is done per message but the one move from input to output.
//! - A client that never reads costs two buffers: at the output's high mark its input is not read any more.

use bufferevent::{Bev, Error, EventLoop, Handler, Interest, Listener, LoopHandle, Pressure, READ};

use crate::address::{Endpoint, Written};
use crate::cli::{Common, EchoOptions};
use crate::exit::{Code, Failure};
use crate::{BACKLOG, output, signals};

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
}

/// Starts the service on `events`: `serve` gives each connection its handler.
pub(crate) fn listen(
    events: &LoopHandle,
    endpoint: &Endpoint,
    mark: usize,
    mut serve: impl FnMut(&Bev) -> Result<(), Error> + Send + 'static,
) -> Result<Listener, Failure> {
    let accept = move |bev: Bev, _peer| {
        bev.set_read_watermark(0, mark)?;
        bev.set_write_watermark(0, mark)?;
        serve(&bev)?;
        bev.enable(READ)
    };
    Listener::builder(events)
        .backlog(BACKLOG)
        .nodelay(true)
        .replace_stale(true)
        .bind(endpoint.resolve()?, accept)
        .map_err(|error| {
            Failure::because(
                Code::Unreachable,
                format_args!("cannot listen on {endpoint}"),
                &error,
            )
        })
}

/// Runs `bev echo` until a signal comes.
pub(crate) fn run(
    events: &EventLoop,
    common: &Common,
    options: &EchoOptions,
) -> Result<(), Failure> {
    let discard = options.discard;
    let listener = listen(events, &options.listen, options.buffer.get(), move |bev| {
        if discard {
            bev.set_handler(Sink)
        } else {
            bev.set_handler(Echo)
        }
    })?;
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
