//! What a type brings to the suite, and what every check stands on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bufferevent_core::{Bev, Error, Kind, Options, READ};
use bufferevent_socket::SocketExt as _;
use bufferevent_testkit::Told;
use evreactor_core::Host;

/// Two joined bufferevents at a time, of one type on one loop.
pub trait Joint {
    /// The type's name in the records: `"pair"`, `"tcp"`.
    fn kind(&self) -> &str;

    /// The backend's name in the records: `"virtual"`, `"mio"`.
    fn backend(&self) -> &str;

    /// Two joined bufferevents, connected, both with `options`.
    fn make(&self, options: Options) -> (Bev, Bev);

    /// The loop that they run on.
    fn host(&self) -> Arc<dyn Host>;

    /// Runs what can be run now, without letting time pass. Returns whether there was anything.
    fn turn(&self) -> bool;

    /// Lets time pass, firing each timer at its moment.
    fn advance(&self, span: Duration);

    /// Bytes that may vanish between the two, at most: what the system's buffers hold.
    fn absorbs(&self) -> usize;

    /// Panics in callbacks that the loop has caught.
    fn panics(&self) -> u64;

    /// Whether there is a descriptor below.
    fn has_descriptor(&self) -> bool;

    /// Whether what is written to one end is the same memory when it is read from the other.
    fn moves(&self) -> bool {
        !self.has_descriptor()
    }

    /// Whether an error of the transport has the system's own cause, or one in its place.
    fn has_causes(&self) -> bool {
        self.has_descriptor()
    }

    /// Descriptor, local and peer address, as asked for at this bufferevent of the stack; `None` where the answer is that there are none.
    ///
    /// # Panics
    /// If only some of them are there, or the refusal is another than `Unsupported`.
    #[allow(
        clippy::unnecessary_cast,
        reason = "descriptors are numbers of another width elsewhere"
    )]
    fn place(&self, bev: &Bev) -> Option<Place> {
        place_of(
            bev.fd().map(|fd| fd as u64),
            bev.local_addr().map(|address| address.to_string()),
            bev.peer_addr().map(|address| address.to_string()),
        )
    }

    /// What one end hears when the other is freed that had not finished: EOF, or that the stream was cut off, where the type has an end mark
    /// of its own.
    fn torn(&self) -> Told {
        Told::Eof
    }
}

/// Where a stack stands: descriptor, local and peer address.
pub type Place = (u64, String, String);

/// All of a place, or nothing of it.
///
/// # Panics
/// If it is neither.
pub(crate) fn place_of(
    fd: Option<u64>,
    local: Result<String, Error>,
    peer: Result<String, Error>,
) -> Option<Place> {
    match (fd, local, peer) {
        (Some(fd), Ok(local), Ok(peer)) => Some((fd, local, peer)),
        (None, Err(local), Err(peer)) => {
            assert_eq!(local.kind(), Kind::Unsupported);
            assert_eq!(peer.kind(), Kind::Unsupported);
            None
        }
        other => panic!("neither a place nor none: {other:?}"),
    }
}

/// Turns without any event after which nothing more is expected. Data sent on a loopback device has arrived by then, with
/// [`BREATH`] between them.
const QUIET_TURNS: usize = 3;

/// A pause between two quiet turns of a loop with descriptors.
const BREATH: Duration = Duration::from_millis(1);

/// How long nothing must have left for the system to be as full as it gets: TCP acknowledges 40 ms later what nobody reads, and
/// fills the last of a small window 200 ms later.
const JAMMED: Duration = Duration::from_millis(300);

/// How long a check waits for something that has to come, in real time.
const PATIENCE: Duration = Duration::from_secs(20);

impl dyn Joint + '_ {
    /// Runs until nothing more happens by itself.
    pub(crate) fn settle(&self) {
        let mut quiet = 0;
        while quiet < QUIET_TURNS {
            if self.turn() {
                quiet = 0;
                continue;
            }
            quiet += 1;
            // On a busy machine the system itself needs its turn before what was sent has arrived.
            if self.has_descriptor() {
                std::thread::sleep(BREATH);
            }
        }
    }

    /// Runs until `done`, without letting virtual time pass.
    ///
    /// # Panics
    /// If it does not come about.
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        let mut quiet = 0;
        while !done() {
            if self.turn() {
                quiet = 0;
                continue;
            }
            // In memory nothing comes from outside: what has not come by now never will.
            quiet += 1;
            let hopes = if self.has_descriptor() {
                start.elapsed() < PATIENCE
            } else {
                quiet < QUIET_TURNS
            };
            assert!(hopes, "in vain: {what}");
            std::thread::yield_now();
        }
    }

    /// Two joined bufferevents with default options.
    pub(crate) fn pair(&self) -> (Bev, Bev) {
        self.make(Options::EMPTY)
    }

    /// Fills the way from `near` until it has `count` bytes left in its output. The far end must not be reading. Returns how
    /// many bytes that took.
    pub(crate) fn stuff(&self, near: &Bev, count: usize) -> usize {
        // More than the way can hold, at once: on a busy machine the system may take more of it later than it took at first.
        let written = self.absorbs() + count.max(64 * 1024);
        near.write(&vec![b'x'; written])
            .expect("it may be written to");
        self.settle();
        assert!(near.output().len() >= count, "nothing stops it");
        written
    }

    /// As [`stuff`](Self::stuff), until nothing more will leave: for what counts the time since something did.
    pub(crate) fn jam(&self, near: &Bev, count: usize) -> usize {
        let written = self.stuff(near, count);
        let mut left = near.output().len();
        let mut since = Instant::now();
        while self.has_descriptor() && since.elapsed() < JAMMED {
            self.settle();
            let before = std::mem::replace(&mut left, near.output().len());
            if left != before {
                since = Instant::now();
            }
        }
        written
    }

    /// Reads `count` bytes at `bev`, whenever they come.
    pub(crate) fn take(&self, bev: &Bev, count: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        bev.enable(READ).expect("it has not ended");
        self.until("bytes to take", || {
            let mut bytes = vec![0; count - taken.len()];
            let read = bev.read(&mut bytes).expect("it may be read from");
            taken.extend_from_slice(&bytes[..read]);
            taken.len() == count
        });
        taken
    }
}

/// One check, and its name.
pub(crate) type Check = (&'static str, fn(&dyn Joint));
