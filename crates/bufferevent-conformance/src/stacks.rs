//! Stacks of layers, on any other joint: a caller that holds the top cannot tell.
//!
//! Whoever has a layer takes part in the suite by a closure that puts it on one end of another joint:
//!
//! ```
//! use bufferevent_conformance::{Pairs, Stacks, check_all};
//! use bufferevent_filter::{FilterExt, Identity};
//!
//! check_all(&|| {
//!     let below = Box::new(Pairs::on_virtual_loop());
//!     Box::new(Stacks::of("filter", below, |bev, _end, options| {
//!         bev.filter(options, Identity)
//!     }))
//! });
//! ```

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bufferevent_core::{Bev, Direction, Error, Event, Kind, Options, on_event};
use bufferevent_filter::{FilterExt, Identity};
use bufferevent_testkit::{Through, Told};
use evreactor_core::Host;

use crate::joint::{Joint, Place};

/// What each layer's output may hold, in bytes, so that a slow peer is felt on top.
const MARK: usize = 16 * 1024;

/// What each layer of the reading side may read ahead, in bytes: the core's default.
const READ_AHEAD: usize = 64 * 1024;

/// Which end of a joint: a layer may have to be a client at the one and a server at the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The first of the two.
    Near,
    /// The second.
    Far,
}

/// How bytes get through a layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Passage {
    Moved,
    Rewritten,
}

/// Puts a layer, or more, on an end; answers the new top.
type Cover = Box<dyn Fn(&Bev, End, Options) -> Result<Bev, Error>>;

/// Stacks on the ends of another joint.
pub struct Stacks {
    below: Box<dyn Joint>,
    kind: String,
    cover: Cover,
    /// Bytes that the layers of both ends may hold together.
    holds: usize,
    /// CONNECTED events to wait for before the ends are handed out.
    handshakes: usize,
    /// What is heard of an end that was freed unfinished, if it is not what is below that tells.
    torn: Option<Told>,
    bytes: Passage,
}

impl Stacks {
    /// Three layers that pass bytes through, on the ends that `below` makes.
    #[must_use]
    pub fn on(below: Box<dyn Joint>) -> Self {
        Self::repeated("stack", below, 3, |bev, _, options| {
            bev.over(options, Through::new())
        })
    }

    /// A filter that changes nothing.
    #[must_use]
    pub fn filter_on(below: Box<dyn Joint>) -> Self {
        Self::of("filter", below, |bev, _, options| {
            bev.filter(options, Identity)
        })
    }

    /// Ten filters that change nothing.
    #[must_use]
    pub fn ten_filters_on(below: Box<dyn Joint>) -> Self {
        Self::repeated("ten filters", below, 10, |bev, _, options| {
            bev.filter(options, Identity)
        })
    }

    /// Whatever `cover` puts on an end, under the name `kind`. The options that it gets include `CLOSE_ON_FREE`.
    pub fn of(
        kind: &str,
        below: Box<dyn Joint>,
        cover: impl Fn(&Bev, End, Options) -> Result<Bev, Error> + 'static,
    ) -> Self {
        Self {
            kind: format!("{kind} on {}", below.kind()),
            below,
            cover: Box::new(cover),
            holds: READ_AHEAD + MARK,
            handshakes: 0,
            torn: None,
            bytes: Passage::Moved,
        }
    }

    /// As [`of`](Self::of), with so many of them on each other.
    pub fn repeated(
        kind: &str,
        below: Box<dyn Joint>,
        layers: usize,
        cover: impl Fn(&Bev, End, Options) -> Result<Bev, Error> + 'static,
    ) -> Self {
        let stacks = Self::of(kind, below, move |bev, end, options| {
            let mut top = cover(bev, end, options)?;
            for _ in 1..layers {
                top.set_write_watermark(0, MARK)?;
                top = cover(&top, end, options)?;
            }
            Ok(top)
        });
        stacks.holding(layers * (READ_AHEAD + MARK))
    }

    /// The layers of both ends may hold so many bytes together, if it is more than they may read ahead.
    #[must_use]
    pub fn holding(mut self, bytes: usize) -> Self {
        self.holds = self.holds.max(bytes);
        self
    }

    /// The layers have a handshake, and tell CONNECTED at both ends.
    #[must_use]
    pub fn shaking_hands(mut self) -> Self {
        self.handshakes = 2;
        self
    }

    /// The layers turn bytes into others: none that is written is the same memory when it is read.
    #[must_use]
    pub fn rewriting(mut self) -> Self {
        self.bytes = Passage::Rewritten;
        self
    }

    /// The layers have an end mark: a stream without it is truncated.
    #[must_use]
    pub fn marking_the_end(mut self) -> Self {
        self.torn = Some(Told::Error(Some(Direction::Read), Kind::Truncated));
        self
    }

    fn stack(&self, bev: &Bev, end: End, options: Options) -> Bev {
        bev.set_write_watermark(0, MARK)
            .expect("it is on top still");
        (self.cover)(bev, end, options | Options::CLOSE_ON_FREE).expect("nothing is on it yet")
    }

    /// Waits until both ends have told that they are connected.
    fn connect(&self, ends: [&Bev; 2]) {
        let connected = Rc::new(Cell::new(0));
        for bev in ends {
            let connected = connected.clone();
            let count = on_event(move |_: &Bev, event: &Event| {
                if matches!(event, Event::Connected) {
                    connected.set(connected.get() + 1);
                }
            });
            bev.set_local_handler(count).expect("it was just made");
        }
        let joint: &dyn Joint = self;
        joint.until("handshakes", || connected.get() == self.handshakes);
        for bev in ends {
            drop(bev.replace_handler(None).expect("it stands"));
        }
    }
}

impl Joint for Stacks {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn backend(&self) -> &str {
        self.below.backend()
    }

    fn make(&self, options: Options) -> (Bev, Bev) {
        let (near, far) = self.below.make(options);
        let near = self.stack(&near, End::Near, options);
        let far = self.stack(&far, End::Far, options);
        if self.handshakes > 0 {
            self.connect([&near, &far]);
        }
        (near, far)
    }

    fn host(&self) -> Arc<dyn Host> {
        self.below.host()
    }

    fn turn(&self) -> bool {
        self.below.turn()
    }

    fn advance(&self, span: Duration) {
        self.below.advance(span);
    }

    fn absorbs(&self) -> usize {
        self.below.absorbs() + self.holds
    }

    fn panics(&self) -> u64 {
        self.below.panics()
    }

    fn has_causes(&self) -> bool {
        self.below.has_causes()
    }

    fn place(&self, bev: &Bev) -> Option<Place> {
        self.below.place(bev)
    }

    fn has_descriptor(&self) -> bool {
        self.below.has_descriptor()
    }

    fn moves(&self) -> bool {
        match self.bytes {
            Passage::Moved => self.below.moves(),
            Passage::Rewritten => false,
        }
    }

    fn torn(&self) -> Told {
        self.torn.clone().unwrap_or_else(|| self.below.torn())
    }
}
