//! Filters that have what real ones have and is easy to get wrong, and a handler that writes down what it hears.

#![allow(dead_code, reason = "each test takes of this what it needs")]

pub(crate) mod kinds;
pub(crate) mod stacks;

use std::sync::{Arc, Mutex};

use bufferevent_core::{Bev, Error, Event, Handler, Kind, Mode};
use bufferevent_filter::{Filter, Sink, Verdict, Wants};
use evbuffer::EvBuffer;

/// Moves what fits.
pub(crate) fn pass(source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode) -> Result<Verdict, Error> {
    sink.append_from(source);
    Ok(if source.is_empty() {
        Verdict::NeedInput
    } else {
        Verdict::Full
    })
}

/// Takes all there is at once and gives what fits, in either direction: bytes sit inside it.
#[derive(Default)]
pub(crate) struct Hoarder {
    up: EvBuffer,
    down: EvBuffer,
    /// Gives nothing down before a flush.
    patient: bool,
}

impl Hoarder {
    /// One that gives nothing down before a flush.
    pub(crate) fn patient() -> Self {
        Self {
            patient: true,
            ..Self::default()
        }
    }
}

impl Filter for Hoarder {
    fn name(&self) -> &'static str {
        "hoarder"
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.up.append(source).expect("a test has memory");
        pass(&mut self.up, sink, mode)
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        self.down.append(source).expect("a test has memory");
        if self.patient && mode == Mode::Normal {
            return Ok(Verdict::NeedInput);
        }
        pass(&mut self.down, sink, mode)
    }
}

const HELLO: &[u8] = b"hello;";

/// Exchanges a greeting with its like before it passes anything.
pub(crate) struct Greeting {
    to_say: &'static [u8],
    to_hear: &'static [u8],
}

impl Greeting {
    pub(crate) fn new() -> Self {
        Self {
            to_say: HELLO,
            to_hear: HELLO,
        }
    }
}

impl Filter for Greeting {
    fn name(&self) -> &'static str {
        "greeting"
    }

    fn input(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        let mut byte = [0];
        while !self.to_hear.is_empty() && source.remove(&mut byte) == 1 {
            if byte[0] != self.to_hear[0] {
                return Err(Error::new(Kind::Peer, "greeting", "handshake"));
            }
            self.to_hear = &self.to_hear[1..];
        }
        if !self.to_hear.is_empty() {
            return Ok(Verdict::NeedInput);
        }
        pass(source, sink, mode)
    }

    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        let early = !source.is_empty() && !self.to_hear.is_empty();
        assert!(!early, "the user's bytes come behind the handshake");
        let said = sink.append_slice(self.to_say);
        self.to_say = &self.to_say[said..];
        if !self.to_say.is_empty() {
            return Ok(Verdict::Full);
        }
        pass(source, sink, mode)
    }

    fn wants(&self) -> Wants {
        Wants {
            read: !self.to_hear.is_empty(),
            write: !self.to_say.is_empty(),
        }
    }

    fn handshaking(&self) -> bool {
        !self.to_hear.is_empty() || !self.to_say.is_empty()
    }
}

/// What a handler has heard.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// All of it.
    pub(crate) order: Vec<String>,
    /// What came once.
    pub(crate) ends: Vec<String>,
    pub(crate) errors: Vec<Error>,
}

pub(crate) type Heard = Arc<Mutex<Notes>>;

struct Listener(Heard);

impl Handler for Listener {
    fn on_read(&mut self, bev: &Bev) {
        let note = format!("read {}", bev.input().len());
        self.0.lock().unwrap().order.push(note);
    }

    fn on_write(&mut self, _: &Bev) {
        self.0.lock().unwrap().order.push("write".into());
    }

    fn on_event(&mut self, _: &Bev, event: &Event) {
        let mut notes = self.0.lock().unwrap();
        let note = match event {
            Event::Connected => {
                notes.order.push("connected".into());
                return;
            }
            Event::Eof => "eof".into(),
            Event::Written => "written".into(),
            Event::Error { error, .. } => {
                notes.errors.push(error.clone());
                format!("error {} {}", error.layer(), error.operation())
            }
            other => format!("{other:?}"),
        };
        notes.order.push(note.clone());
        notes.ends.push(note);
    }
}

/// Writes down what `bev` tells, and takes nothing.
pub(crate) fn listen(bev: &Bev) -> Heard {
    let heard = Heard::default();
    bev.set_handler(Listener(heard.clone())).unwrap();
    heard
}

/// Takes all that waits in the input.
pub(crate) fn contents(bev: &Bev) -> Vec<u8> {
    let mut bytes = vec![0; bev.input().len()];
    let count = bev.read(&mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}
