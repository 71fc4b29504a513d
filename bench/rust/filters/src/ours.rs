//! Ours: streams and single messages through stacks of filters, both ends on one loop.

use std::cell::RefCell;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::str::FromStr;

use bufferevent::filter::Identity;
use bufferevent::{
    Bev, Builder, Event, EventLoop, FilterExt as _, Options, READ, TlsClient, TlsServer, Zlib,
    on_read, pair,
};

use crate::Outcome;
use crate::clock::Measured;
use crate::material::{Material, Tls};
use crate::stream::{Progress, WINDOW};

/// The longest message of a sweep.
const LONGEST: usize = 1 << 20;

/// What is below the filters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Below {
    Socket,
    Pair,
}

/// The filters of a stack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stack {
    Plain,
    Identity,
    Zlib,
    Tls,
    TlsZlib,
}

impl FromStr for Stack {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "plain" => Ok(Self::Plain),
            "identity" => Ok(Self::Identity),
            "zlib" => Ok(Self::Zlib),
            "tls" => Ok(Self::Tls),
            "tls+zlib" => Ok(Self::TlsZlib),
            _ => Err(format!("no stack `{name}`")),
        }
    }
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Client,
    Server,
}

/// Two joined ends without a filter.
fn below(events: &EventLoop, below: Below) -> Outcome<(Bev, Bev)> {
    let (near, far) = match below {
        Below::Pair => pair(events)?,
        Below::Socket => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let near = TcpStream::connect(listener.local_addr()?)?;
            let (far, _) = listener.accept()?;
            for end in [&near, &far] {
                end.set_nodelay(true)?;
            }
            let bev = |stream| Builder::new(events).stream(stream);
            (bev(near)?, bev(far)?)
        }
    };
    Ok((near, far))
}

/// TLS on `bev`.
pub(crate) fn with_tls(bev: &Bev, tls: &Tls, end: End) -> Outcome<Bev> {
    let filter = match end {
        End::Client => TlsClient::from_config(tls.client.clone(), Tls::NAME)?.filter()?,
        End::Server => TlsServer::from_config(tls.server.clone()).filter()?,
    };
    Ok(bev.filter(Options::CLOSE_ON_FREE, filter)?)
}

fn with_zlib(bev: &Bev) -> Outcome<Bev> {
    Ok(bev.filter(Options::CLOSE_ON_FREE, Zlib::builder().level(6).build()?)?)
}

fn stacked(bev: Bev, stack: Stack, tls: &Tls, end: End) -> Outcome<Bev> {
    // What is below takes as much as may be on its way, and no more: a stack without a mark would take everything at once.
    bev.set_write_watermark(0, WINDOW as usize)?;
    Ok(match stack {
        Stack::Plain => bev,
        Stack::Identity => bev.filter(Options::CLOSE_ON_FREE, Identity)?,
        Stack::Zlib => with_zlib(&bev)?,
        Stack::Tls => with_tls(&bev, tls, end)?,
        Stack::TlsZlib => with_zlib(&with_tls(&bev, tls, end)?)?,
    })
}

/// Writes from `near` until `progress` has measured.
fn run(
    events: &EventLoop,
    near: &Bev,
    far: &Bev,
    progress: Progress<'static>,
) -> Outcome<Measured> {
    let progress = Rc::new(RefCell::new(progress));
    let send = |near: &Bev, progress: &RefCell<Progress<'static>>| {
        while let Some(message) = { progress.borrow_mut().next() } {
            near.write(message).expect("the near end takes all");
        }
    };
    let arrived = {
        let (near, progress) = (near.clone(), progress.clone());
        move |far: &Bev| {
            let compares = progress.borrow().compares();
            let count = if compares {
                let mut bytes = vec![0; far.input().len()];
                let count = far.read(&mut bytes).expect("it has been read");
                let compared = progress.borrow().compare(&bytes[..count]);
                compared.expect("the bytes that were sent");
                count
            } else {
                far.input().drain(usize::MAX).expect("it is there")
            };
            progress.borrow_mut().arrived(count);
            send(&near, &progress);
        }
    };
    let over = progress.clone();
    let ended = move |_: &Bev, event: &Event| {
        let goes_on = matches!(event, Event::Connected) || over.borrow().measured.is_some();
        assert!(goes_on, "the stream ended: {event:?}");
    };
    far.set_local_handler(on_read(arrived).on_event(ended.clone()))?;
    near.set_local_handler(bufferevent::on_event(ended))?;
    far.enable(READ)?;
    near.enable(READ)?;
    send(near, &progress);
    loop {
        events.run_once()?;
        if let Some(measured) = progress.borrow().measured {
            return Ok(measured);
        }
    }
}

/// A text that lives as long as the program, for handlers that borrow it.
fn text(material: &Material) -> &'static [u8] {
    Box::leak(material.text.clone().into_boxed_slice())
}

/// A stream one way through `stack`.
pub(crate) fn stream(
    material: &Material,
    tls: &Tls,
    on: Below,
    stack: Stack,
    seconds: f64,
) -> Outcome<Measured> {
    let events = EventLoop::new()?;
    let (near, far) = below(&events, on)?;
    let near = stacked(near, stack, tls, End::Client)?;
    let far = stacked(far, stack, tls, End::Server)?;
    let measured = run(
        &events,
        &near,
        &far,
        Progress::stream(text(material), seconds),
    )?;
    near.free()?;
    far.free()?;
    Ok(measured)
}

/// Messages of every power of two, one at a time, over a socket: `seconds` of CPU time for each length.
pub(crate) fn sweep(material: &Material, tls: &Tls, stack: Stack, seconds: f64) -> Outcome<String> {
    let text = text(material);
    let mut figures = Vec::new();
    let mut length = 1;
    while length <= LONGEST {
        let events = EventLoop::new()?;
        let (near, far) = below(&events, Below::Socket)?;
        let near = stacked(near, stack, tls, End::Client)?;
        let far = stacked(far, stack, tls, End::Server)?;
        let progress = Progress::messages(text, length, seconds);
        let measured = run(&events, &near, &far, progress)?;
        figures.push(format!(
            r#""{length}": {}"#,
            measured.amount as f64 / measured.cpu_s
        ));
        length *= 2;
    }
    Ok(format!("{{{}}}", figures.join(", ")))
}
