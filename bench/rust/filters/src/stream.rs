//! What every stream operation agrees upon: how much is on its way, what is sent, and when the measurement begins.

use crate::Outcome;
use crate::clock::{Measured, Stretch};

/// Bytes that are written and have not arrived.
pub(crate) const WINDOW: u64 = 256 * 1024;

/// Bytes of one write.
pub(crate) const WRITE: usize = 64 * 1024;

/// Bytes that come before the measurement, and are compared.
const WARM_UP: u64 = 1 << 20;

/// A stream of the text, over and over, by how far it has been written and has arrived.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    text: &'a [u8],
    write: usize,
    window: u64,
    warm_up: u64,
    seconds: f64,
    sent: u64,
    arrived: u64,
    began_at: u64,
    stretch: Option<Stretch>,
    /// What was measured, once it was.
    pub(crate) measured: Option<Measured>,
}

impl<'a> Progress<'a> {
    /// Writes of [`WRITE`] bytes, [`WINDOW`] of them on their way.
    pub(crate) fn stream(text: &'a [u8], seconds: f64) -> Self {
        Self::stream_by(text, WRITE, seconds)
    }

    /// The same with writes of `write` bytes.
    pub(crate) fn stream_by(text: &'a [u8], write: usize, seconds: f64) -> Self {
        Self::new(text, write, WINDOW, WARM_UP, seconds)
    }

    /// Messages of `length`, each written when the one before has arrived. Only whole ones are measured.
    pub(crate) fn messages(text: &'a [u8], length: usize, seconds: f64) -> Self {
        Self::new(text, length, 1, length as u64, seconds)
    }

    fn new(text: &'a [u8], write: usize, window: u64, warm_up: u64, seconds: f64) -> Self {
        Self {
            text,
            write,
            window,
            warm_up,
            seconds,
            sent: 0,
            arrived: 0,
            began_at: 0,
            stretch: None,
            measured: None,
        }
    }

    /// What to write next; `None` while enough is on its way.
    pub(crate) fn next(&mut self) -> Option<&'a [u8]> {
        if self.sent - self.arrived >= self.window || self.measured.is_some() {
            return None;
        }
        // Writes begin where a whole one is left: the last part of the text is left out.
        let places = (self.text.len() / self.write) as u64;
        let at = (self.sent / self.write as u64 % places) as usize * self.write;
        self.sent += self.write as u64;
        Some(&self.text[at..][..self.write])
    }

    /// Whether what arrives is still compared.
    pub(crate) fn compares(&self) -> bool {
        self.stretch.is_none()
    }

    /// Compares what arrived with what was sent there.
    pub(crate) fn compare(&self, bytes: &[u8]) -> Outcome<()> {
        let turn = (self.text.len() / self.write * self.write) as u64;
        let expected = (self.arrived..).map(|at| self.text[(at % turn) as usize]);
        if bytes
            .iter()
            .zip(expected)
            .all(|(byte, expected)| *byte == expected)
        {
            Ok(())
        } else {
            Err("what arrives is not what was sent".into())
        }
    }

    /// Counts what arrived, begins the measurement after the warm-up and ends it when its time is over.
    pub(crate) fn arrived(&mut self, count: usize) {
        self.arrived += count as u64;
        match &self.stretch {
            None if self.arrived >= self.warm_up => {
                self.began_at = self.arrived;
                self.stretch = Some(Stretch::begin(self.seconds));
            }
            None => {}
            // A stream is as far ahead at the end as it was at the beginning; a message is there or it is not.
            Some(stretch)
                if self.measured.is_none()
                    && self.sent - self.arrived < self.window
                    && stretch.is_over() =>
            {
                self.measured = Some(stretch.end(self.arrived - self.began_at));
            }
            Some(_) => {}
        }
    }
}
