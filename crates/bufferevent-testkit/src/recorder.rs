//! A handler that remembers what it was told, in order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bufferevent_core::{
    Bev, Deadline, Direction, Event, EventFlags, Handler, Interest, Kind, Pressure,
};

/// One thing that a handler was told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Told {
    /// The read callback, with so many bytes in the input.
    Read(usize),
    /// The write callback, with so many bytes in the output.
    Write(usize),
    /// The output has crossed its high mark.
    Pressure(Pressure),
    /// [`Event::Connected`].
    Connected,
    /// [`Event::Timeout`].
    Timeout(Deadline),
    /// [`Event::Sent`].
    Sent,
    /// [`Event::Written`].
    Written,
    /// [`Event::Eof`].
    Eof,
    /// [`Event::Error`]: in which direction, and of which kind.
    Error(Option<Direction>, Kind),
    /// [`Event::Triggered`].
    Triggered(EventFlags),
    /// An event that this version does not know.
    Unknown,
}

impl Told {
    /// Whether it came by the event callback.
    #[must_use]
    pub fn is_event(&self) -> bool {
        !matches!(self, Self::Read(_) | Self::Write(_) | Self::Pressure(_))
    }
}

impl From<&Event> for Told {
    fn from(event: &Event) -> Self {
        match event {
            Event::Connected => Self::Connected,
            Event::Timeout(deadline) => Self::Timeout(*deadline),
            Event::Sent => Self::Sent,
            Event::Written => Self::Written,
            Event::Eof => Self::Eof,
            Event::Error { direction, error } => Self::Error(*direction, error.kind()),
            Event::Triggered(flags) => Self::Triggered(*flags),
            _ => Self::Unknown,
        }
    }
}

#[derive(Default)]
struct Inner {
    told: Vec<Told>,
    received: Vec<u8>,
    errors: Vec<bufferevent_core::Error>,
}

/// What a [`Recorder`] wrote down, for the test to look at.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Inner>>);

impl Log {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler that writes here and leaves the bytes where they are.
    #[must_use]
    pub fn watch(&self) -> Recorder {
        Recorder {
            log: self.clone(),
            takes: false,
            interest: Interest::ALL,
        }
    }

    /// A handler that writes here, and takes all bytes here too.
    #[must_use]
    pub fn take_all(&self) -> Recorder {
        Recorder {
            log: self.clone(),
            takes: true,
            interest: Interest::ALL,
        }
    }

    /// All that was told so far.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        self.inner().told.clone()
    }

    /// All that was told since this was last asked, which is forgotten then.
    pub fn news(&self) -> Vec<Told> {
        std::mem::take(&mut self.inner().told)
    }

    /// The events that were told so far.
    #[must_use]
    pub fn events(&self) -> Vec<Told> {
        self.inner()
            .told
            .iter()
            .filter(|told| told.is_event())
            .cloned()
            .collect()
    }

    /// Whether `what` was told.
    #[must_use]
    pub fn has(&self, what: &Told) -> bool {
        self.inner().told.contains(what)
    }

    /// How many read callbacks there were.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.inner()
            .told
            .iter()
            .filter(|told| matches!(told, Told::Read(_)))
            .count()
    }

    /// How many write callbacks there were.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.inner()
            .told
            .iter()
            .filter(|told| matches!(told, Told::Write(_)))
            .count()
    }

    /// The bytes that were taken so far.
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        self.inner().received.clone()
    }

    /// How many bytes were taken so far.
    #[must_use]
    pub fn received_len(&self) -> usize {
        self.inner().received.len()
    }

    /// The errors of the error events so far.
    #[must_use]
    pub fn errors(&self) -> Vec<bufferevent_core::Error> {
        self.inner().errors.clone()
    }

    /// Writes down.
    pub fn add(&self, told: Told) {
        self.inner().told.push(told);
    }
}

/// A handler that writes down what it is told. Made by a [`Log`].
///
/// Unlike the default of [`Handler::on_event`] it frees nothing.
pub struct Recorder {
    log: Log,
    takes: bool,
    interest: Interest,
}

impl Recorder {
    /// The same with some callbacks only.
    #[must_use]
    pub fn only(mut self, interest: Interest) -> Self {
        self.interest = interest;
        self
    }
}

impl Handler for Recorder {
    fn interest(&self) -> Interest {
        self.interest
    }

    fn on_read(&mut self, bev: &Bev) {
        self.log.add(Told::Read(bev.input().len()));
        if self.takes {
            let mut bytes = vec![0; bev.input().len()];
            let count = bev
                .read(&mut bytes)
                .expect("a handler may read its own input");
            self.log.inner().received.extend_from_slice(&bytes[..count]);
        }
    }

    fn on_write(&mut self, bev: &Bev) {
        self.log.add(Told::Write(bev.output().len()));
    }

    fn on_pressure(&mut self, _: &Bev, pressure: Pressure) {
        self.log.add(Told::Pressure(pressure));
    }

    fn on_event(&mut self, _: &Bev, event: &Event) {
        if let Event::Error { error, .. } = event {
            self.log.inner().errors.push(error.clone());
        }
        self.log.add(Told::from(event));
    }
}
