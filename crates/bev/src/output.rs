//! What the program says: lines on standard output, the log, the access log.
//!
//! # Invariants
//! - What is said once, at the start or at the end, is written at once.
//! - A loop that has connections waits for no reader and for no disk: what comes again and again goes through a [`Spool`], whose thread
//!   writes. If it cannot keep up, because a pipe is full or a disk is, lines are left out and counted; connections go on.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::files;

/// Lines of statistics that may wait for a reader: those that come when as many wait are left out, and the next one says more.
pub(crate) const UNREAD_STATISTICS: usize = 4;

/// Lines of a log that may wait: some thousand connections that end at once.
pub(crate) const UNREAD_LINES: usize = 8192;

/// How long the end of the program waits for lines that are still to be written.
pub(crate) const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// How often it is said that lines were left out.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Debug)]
pub(crate) enum Sink {
    Stdout,
    Stderr,
    /// Appended to, and opened anew on demand: whoever rotates the file has moved it away.
    File(PathBuf),
}

/// A thread that writes lines, and may wait for whoever reads them. It ends with the last handle.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    work: SyncSender<Work>,
    counts: Arc<Counts>,
    thread: Arc<Thread>,
}

/// The thread, and before there is one what it is to do.
#[derive(Debug)]
struct Thread {
    begun: Once,
    idle: Mutex<Option<(Writer, Receiver<Work>)>>,
}

#[derive(Debug)]
enum Work {
    Line(Vec<u8>),
    Reopen,
}

/// Lines, as far as they have come.
#[derive(Debug, Default)]
struct Counts {
    /// Left out, and not complained of yet.
    lost: AtomicU64,
    /// Given to the thread.
    said: AtomicU64,
    /// Done with: written, or lost to an error.
    done: Mutex<u64>,
    progress: Condvar,
}

impl Counts {
    fn done(&self) -> MutexGuard<'_, u64> {
        // Nothing that can panic runs under the lock.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spool {
    /// Starts the thread, with room for so many lines.
    ///
    /// # Errors
    /// The file cannot be opened, or there can be no thread.
    pub(crate) fn start(sink: Sink, lines: usize) -> io::Result<Self> {
        let spool = Self::when_needed(sink, lines)?;
        let mut begun = Ok(());
        spool.thread.begun.call_once(|| begun = spool.begin());
        begun.map(|()| spool)
    }

    /// As [`start`](Self::start), but the thread comes with the first line. Where little is ever said that saves more than the thread: with
    /// a second one in the process each call of the system is dearer, since the table of descriptors is shared.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn when_needed(sink: Sink, lines: usize) -> io::Result<Self> {
        let (work, orders) = sync_channel(lines);
        let counts = Arc::new(Counts::default());
        let writer = Writer {
            file: sink.open()?,
            sink,
            counts: counts.clone(),
            complained: None,
        };
        let thread = Arc::new(Thread {
            begun: Once::new(),
            idle: Mutex::new(Some((writer, orders))),
        });
        Ok(Self {
            work,
            counts,
            thread,
        })
    }

    fn begin(&self) -> io::Result<()> {
        let idle = self.thread.idle.lock();
        let Some((mut writer, orders)) = idle.unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        std::thread::Builder::new()
            .name("output".into())
            .spawn(move || writer.run(&orders))?;
        Ok(())
    }

    /// Has a line written, or leaves it out. The line has its end.
    pub(crate) fn say(&self, line: Vec<u8>) {
        // Without a thread nobody takes the line: it is counted as lost below.
        self.thread.begun.call_once(|| drop(self.begin()));
        let count = match self.work.try_send(Work::Line(line)) {
            Ok(()) => &self.counts.said,
            Err(_) => &self.counts.lost,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Opens the file anew, behind the lines that wait.
    pub(crate) fn reopen(&self) {
        // A queue that is full has lines to write: the next time will do.
        let _ = self.work.try_send(Work::Reopen);
    }

    /// Waits until all that this thread has said is written, or for `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let said = self.counts.said.load(Ordering::Relaxed);
        let waits = |done: &mut u64| *done < said;
        let done = self.counts.done();
        drop(self.counts.progress.wait_timeout_while(done, limit, waits));
    }
}

impl Sink {
    fn open(&self) -> io::Result<Option<File>> {
        match self {
            Self::Stdout | Self::Stderr => Ok(None),
            Self::File(path) => {
                let file = files::append_to(path);
                let named = |error: io::Error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                };
                file.map(Some).map_err(named)
            }
        }
    }
}

#[derive(Debug)]
struct Writer {
    sink: Sink,
    file: Option<File>,
    counts: Arc<Counts>,
    complained: Option<Instant>,
}

impl Writer {
    fn run(&mut self, orders: &Receiver<Work>) {
        for order in orders {
            match order {
                Work::Line(line) => {
                    if let Err(error) = self.write(&line) {
                        self.counts.lost.fetch_add(1, Ordering::Relaxed);
                        self.complain(Some(&error));
                    } else {
                        self.complain(None);
                    }
                    *self.counts.done() += 1;
                    self.counts.progress.notify_all();
                }
                Work::Reopen => match self.sink.open() {
                    Ok(file) => self.file = file,
                    Err(error) => tracing::warn!(%error, "the access log goes on in its old file"),
                },
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match (&self.sink, &mut self.file) {
            (Sink::Stdout, _) => write_out(line),
            (Sink::Stderr, _) => io::stderr().lock().write_all(line),
            (Sink::File(_), Some(file)) => file.write_all(line),
            (Sink::File(_), None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Says in the log how many lines were left out, once in a while. The log itself has nobody to tell.
    fn complain(&mut self, error: Option<&io::Error>) {
        let now = Instant::now();
        let recently = self
            .complained
            .is_some_and(|last| now.duration_since(last) < COMPLAIN_EVERY);
        if matches!(self.sink, Sink::Stderr)
            || recently
            || self.counts.lost.load(Ordering::Relaxed) == 0
        {
            return;
        }
        let lost = self.counts.lost.swap(0, Ordering::Relaxed);
        self.complained = Some(now);
        match error {
            Some(error) => tracing::warn!(lost, %error, "lines could not be written"),
            None => tracing::warn!(lost, "lines were left out: nobody reads them as fast"),
        }
    }
}

fn write_out(line: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line).and_then(|()| out.flush())
}

/// The log's way out: events go through a spool, whole.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(pub(crate) Spool);

impl Write for LogWriter {
    /// One call is one event: that is how the log writes.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.say(event.to_vec());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says a line.
pub(crate) fn say(line: &str) {
    // Nobody listens any more; the service goes on.
    let _ = write_out(format!("{line}\n").as_bytes());
}

/// Says where the program listens.
pub(crate) fn listening(json: bool, address: &str) {
    if json {
        say(&serde_json::json!({"event": "listening", "address": address}).to_string());
    } else {
        say(&format!("listening on {address}"));
    }
}
