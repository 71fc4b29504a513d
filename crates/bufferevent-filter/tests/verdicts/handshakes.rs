//! Handshakes: before the user's first byte, whether or not the user reads; and how they fail, with an alert that goes out.

use bufferevent_core::{Error, Event, Kind, Mode, Options, READ};
use bufferevent_filter::{Filter, FilterExt, Identity, Sink, Verdict, Wants};
use bufferevent_testkit::spec;
use evbuffer::EvBuffer;

use crate::joined;
use crate::support::{Greeting, contents, listen, pass};

#[test]
fn a_handshake_completes_while_reading_is_disabled_and_before_any_byte_of_the_users() {
    spec!(F1);
    let (events, near, far) = joined();
    let near = near.filter(Options::EMPTY, Greeting::new()).unwrap();
    // One that stands above it and does not read, either.
    let top = near.filter(Options::EMPTY, Identity).unwrap();
    let heard = listen(&top);
    top.write(b"early").unwrap();
    events.run();
    assert_eq!(heard.lock().unwrap().order, Vec::<String>::new());
    let far = far.filter(Options::EMPTY, Greeting::new()).unwrap();
    let other = listen(&far);
    events.run();
    assert_eq!(heard.lock().unwrap().order, ["connected", "write"]);
    assert_eq!(other.lock().unwrap().order, ["connected"]);
    far.enable(READ).unwrap();
    events.run();
    assert_eq!(contents(&far), b"early");
}

#[test]
fn an_end_within_a_handshake_is_a_failed_connection() {
    spec!(F4);
    let (events, near, far) = joined();
    let top = near.filter(Options::EMPTY, Greeting::new()).unwrap();
    let heard = listen(&top);
    far.free().unwrap();
    events.run();
    let heard = heard.lock().unwrap();
    assert_eq!(heard.ends.len(), 1, "{:?}", heard.order);
    assert_eq!(heard.errors[0].layer(), "greeting");
}

/// Fails on the first byte, with something to say about it.
#[derive(Default)]
struct Alerting {
    alert: bool,
}

impl Filter for Alerting {
    fn name(&self) -> &'static str {
        "alerting"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        _: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        if source.is_empty() {
            return Ok(Verdict::NeedInput);
        }
        self.alert = true;
        Err(Error::new(Kind::Peer, "alerting", "input"))
    }
    fn output(
        &mut self,
        source: &mut EvBuffer,
        sink: &mut Sink<'_>,
        mode: Mode,
    ) -> Result<Verdict, Error> {
        if std::mem::take(&mut self.alert) {
            sink.append_slice(b"alert");
        }
        pass(source, sink, mode)
    }
    fn wants(&self) -> Wants {
        Wants {
            read: false,
            write: self.alert,
        }
    }
}

#[test]
fn an_alert_goes_out_though_the_handler_frees_all_on_the_error() {
    spec!(F4);
    let (events, near, far) = joined();
    let top = near
        .filter(Options::CLOSE_ON_FREE, Alerting::default())
        .unwrap();
    top.set_handler(bufferevent_core::on_event(|bev, event| {
        if let Event::Error { .. } = event {
            bev.free().unwrap();
        }
    }))
    .unwrap();
    top.enable(READ).unwrap();
    far.enable(READ).unwrap();
    far.write(b"x").unwrap();
    events.run();
    assert!(top.is_freed());
    assert_eq!(contents(&far), b"alert");
}

/// Refuses whatever comes as the answer of its handshake, and says so.
#[derive(Default)]
struct Refusing {
    alert: bool,
}

impl Filter for Refusing {
    fn name(&self) -> &'static str {
        "refusing"
    }
    fn input(
        &mut self,
        source: &mut EvBuffer,
        _: &mut Sink<'_>,
        _: Mode,
    ) -> Result<Verdict, Error> {
        if source.is_empty() {
            return Ok(Verdict::NeedInput);
        }
        self.alert = true;
        Err(Error::new(Kind::Peer, "refusing", "handshake"))
    }
    fn output(&mut self, _: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode) -> Result<Verdict, Error> {
        if std::mem::take(&mut self.alert) {
            sink.append_slice(b"alert");
        }
        Ok(Verdict::NeedInput)
    }
    fn wants(&self) -> Wants {
        Wants {
            read: true,
            write: self.alert,
        }
    }
    fn handshaking(&self) -> bool {
        true
    }
}

#[test]
fn an_alert_goes_out_when_a_handshake_fails() {
    spec!(F4);
    let (events, near, far) = joined();
    let top = near
        .filter(Options::CLOSE_ON_FREE, Refusing::default())
        .unwrap();
    let heard = listen(&top);
    far.enable(READ).unwrap();
    far.write(b"x").unwrap();
    events.run();
    assert_eq!(heard.lock().unwrap().order, ["error refusing handshake"]);
    assert_eq!(contents(&far), b"alert");
    assert_eq!(top.write(b"x").unwrap_err().kind(), Kind::Ended);
}
