//! How many records go out for many small writes of one turn.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bufferevent::evbuffer::EvBuffer;
use bufferevent::filter::from_fn;
use bufferevent::{
    Bev, Error, Event, EventLoop, Filter, FilterExt as _, Mode, Options, READ, Sink, Verdict,
    on_event, on_read, pair,
};

use crate::Outcome;
use crate::material::Tls;
use crate::ours::{End, with_tls};

/// Bursts of small writes.
const BURSTS: usize = 100;

/// Writes of one burst; the lengths go from 1 to 100 bytes.
const WRITES: usize = 100;

/// The type of records that hold data.
const DATA: u8 = 23;

/// Counts the records in a stream.
#[derive(Default)]
struct Reader {
    header: Vec<u8>,
    body: usize,
}

impl Reader {
    /// How many records of data begin in `bytes`.
    fn count(&mut self, bytes: &[u8]) -> u64 {
        let mut found = 0;
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.body > 0 {
                let passed = self.body.min(rest.len());
                self.body -= passed;
                rest = &rest[passed..];
                continue;
            }
            self.header.push(rest[0]);
            rest = &rest[1..];
            if let [kind, _, _, high, low] = self.header[..] {
                found += u64::from(kind == DATA);
                self.body = usize::from(u16::from_be_bytes([high, low]));
                self.header.clear();
            }
        }
        found
    }
}

/// From where the writes of a burst are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum From {
    /// A callback: one turn of the loop.
    Callback,
    /// Outside of every callback, under the bufferevent's lock.
    Lock,
    /// Outside of every callback, each by itself.
    Nowhere,
}

/// Records of data per burst, on the wire below the TLS filter, by where the burst is written from.
pub(crate) fn count(tls: &Tls) -> Outcome<String> {
    let figure = |from| records_per_burst(tls, from);
    Ok(format!(
        r#"{{"callback": {}, "lock": {}, "outside": {}}}"#,
        figure(From::Callback)?,
        figure(From::Lock)?,
        figure(From::Nowhere)?
    ))
}

/// Writes one burst; returns its length.
fn burst(near: &Bev, number: usize) -> usize {
    let lengths = (0..WRITES).map(|write| 1 + (write * 37 + number) % 100);
    lengths
        .inspect(|length| {
            near.write(&[b'x'; 100][..*length])
                .expect("it is connected")
        })
        .sum()
}

fn records_per_burst(tls: &Tls, from: From) -> Outcome<f64> {
    let events = EventLoop::new()?;
    let (near, far) = pair(&events)?;
    let passed = Arc::new(AtomicU64::new(0));
    let near = near.filter(Options::CLOSE_ON_FREE, watch(passed.clone()))?;
    let near = with_tls(&near, tls, End::Client)?;
    let far = with_tls(&far, tls, End::Server)?;
    let connected = Rc::new(Cell::new(false));
    let connect = connected.clone();
    near.set_local_handler(on_event(move |_: &Bev, event: &Event| match event {
        Event::Connected => connect.set(true),
        other => panic!("{other:?}"),
    }))?;
    let (arrived, written) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (arrive, write, sender) = (arrived.clone(), written.clone(), near.clone());
    let mut bursts = 1..BURSTS;
    far.set_local_handler(on_read(move |far: &Bev| {
        arrive.set(arrive.get() + far.input().drain(usize::MAX).unwrap_or(0));
        if from == From::Callback && arrive.get() == write.get() {
            let written = bursts.next().map_or(0, |number| burst(&sender, number));
            write.set(write.get() + written);
        }
    }))?;
    far.enable(READ)?;
    while !connected.get() {
        events.poll()?;
    }
    let before = passed.load(Ordering::Relaxed);
    for number in 0..BURSTS {
        match from {
            // A single byte sets off the first; each burst that has arrived sets off the next.
            From::Callback if number == 0 => {
                written.set(1);
                near.write(b"x")?;
            }
            From::Callback => {}
            From::Lock => {
                let guard = near.lock()?;
                written.set(written.get() + burst(&near, number));
                drop(guard);
            }
            From::Nowhere => written.set(written.get() + burst(&near, number)),
        }
        while arrived.get() < written.get() {
            events.poll()?;
        }
    }
    Ok((passed.load(Ordering::Relaxed) - before) as f64 / BURSTS as f64)
}

/// A filter that counts the records of data that leave through it.
fn watch(passed: Arc<AtomicU64>) -> impl Filter {
    let mut reader = Reader::default();
    let count = move |source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode| {
        let mut bytes = vec![0; source.len().min(sink.room())];
        let count = source.remove(&mut bytes);
        passed.fetch_add(reader.count(&bytes[..count]), Ordering::Relaxed);
        sink.append_slice(&bytes[..count]);
        Ok::<_, Error>(verdict(source))
    };
    let pass = |source: &mut EvBuffer, sink: &mut Sink<'_>, _: Mode| {
        sink.append_from(source);
        Ok(verdict(source))
    };
    from_fn("records", pass, count)
}

fn verdict(source: &EvBuffer) -> Verdict {
    if source.is_empty() {
        Verdict::NeedInput
    } else {
        Verdict::Full
    }
}
