//! Handlers: the user's callbacks, with the state they share in `&mut self`.
//!
//! libevent has three function pointers and one `cbarg`; here they are one object. Closures become a handler by
//! [`on_read`], [`on_write`] and [`on_event`], which chain.
//!
//! # Invariants
//! - A handler that runs is never entered again: what fires meanwhile is remembered and told after it.
//! - It runs with nothing of the bufferevent borrowed, so every operation is legal inside, `free` included.
//! - It is dropped outside of any borrow too.
//!
//! Source: libevent `bufferevent_setcb`.

use std::any::Any;

use crate::bev::Bev;
use crate::event::Event;
use crate::set::set;

set! {
    /// Which callbacks a handler has. What it has not is never delivered, and costs nothing.
    pub struct Interest(u8) {
        /// [`Handler::on_read`].
        READ = 1;
        /// [`Handler::on_write`].
        WRITE = 2;
        /// [`Handler::on_event`].
        EVENT = 4;
        /// [`Handler::on_pressure`].
        PRESSURE = 8;
        /// All of them.
        ALL = 15;
    }
}

/// The output has crossed its high-water mark, in one way or the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Pressure {
    /// It holds as much as the mark allows, or more: stop writing if you can.
    Full,
    /// It has fallen below the mark again.
    Eased,
}

/// The callbacks of a bufferevent.
///
/// ```
/// use bufferevent_core::{Bev, Event, Handler};
///
/// /// Counts what comes in.
/// struct Count { bytes: usize }
///
/// impl Handler for Count {
///     fn on_read(&mut self, bev: &Bev) {
///         self.bytes += bev.input().drain(usize::MAX).unwrap_or(0);
///     }
///     fn on_event(&mut self, bev: &Bev, event: &Event) {
///         println!("{event:?} after {} bytes", self.bytes);
///         let _ = bev.free();
///     }
/// }
/// ```
pub trait Handler: Any {
    /// Which callbacks this handler has. Asked for once, when it is set.
    fn interest(&self) -> Interest {
        Interest::ALL
    }

    /// A read has left the input at or above its low-water mark.
    #[doc(alias = "bufferevent_data_cb")]
    #[doc(alias = "evbuffercb")]
    fn on_read(&mut self, bev: &Bev) {
        let _ = bev;
    }

    /// A write has left the output at or below its low-water mark.
    #[doc(alias = "bufferevent_data_cb")]
    #[doc(alias = "evbuffercb")]
    fn on_write(&mut self, bev: &Bev) {
        let _ = bev;
    }

    /// The output has reached its high-water mark, or fallen below it again.
    fn on_pressure(&mut self, bev: &Bev, pressure: Pressure) {
        let _ = (bev, pressure);
    }

    /// Something other than bytes happened.
    ///
    /// The default frees the bufferevent: at once on an error or a timeout, at an EOF once the output is written.
    #[doc(alias = "bufferevent_event_cb")]
    #[doc(alias = "everrorcb")]
    fn on_event(&mut self, bev: &Bev, event: &Event) {
        default_on_event(bev, event);
    }
}

/// What an event does to a bufferevent whose handler does not care: free it at an end, keep it otherwise.
pub(crate) fn default_on_event(bev: &Bev, event: &Event) {
    // A failure here means that the bufferevent is already gone, which is what was wanted.
    match event {
        Event::Error { .. } | Event::Timeout(_) => drop(bev.free()),
        Event::Eof => drop(bev.free_when_written()),
        Event::Connected | Event::Sent | Event::Written | Event::Triggered(_) => {}
    }
}

/// A handler made of closures. See [`on_read`].
#[derive(Clone, Copy, Debug)]
pub struct Callbacks<R, W, E> {
    read: R,
    write: W,
    event: E,
}

/// The place of a closure that was not given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absent;

/// A closure for reads or writes, or none.
pub trait DataCallback: 'static {
    /// Whether there is one.
    const PRESENT: bool = true;
    /// Runs it.
    fn call(&mut self, bev: &Bev);
}

/// A closure for events, or none.
pub trait EventCallback: 'static {
    /// Runs it.
    fn call(&mut self, bev: &Bev, event: &Event);
}

impl<F: FnMut(&Bev) + 'static> DataCallback for F {
    fn call(&mut self, bev: &Bev) {
        self(bev);
    }
}

impl DataCallback for Absent {
    const PRESENT: bool = false;
    fn call(&mut self, _: &Bev) {}
}

impl<F: FnMut(&Bev, &Event) + 'static> EventCallback for F {
    fn call(&mut self, bev: &Bev, event: &Event) {
        self(bev, event);
    }
}

impl EventCallback for Absent {
    fn call(&mut self, bev: &Bev, event: &Event) {
        default_on_event(bev, event);
    }
}

/// A handler that runs `read` on data and does with events what [`Handler::on_event`] does by default.
///
/// ```
/// use bufferevent_core::{Event, on_read};
/// let echo = on_read(|bev| drop(bev.output().append_from(&bev.input())))
///     .on_event(|bev, event| if matches!(event, Event::Eof) { drop(bev.free_when_written()) });
/// # let _ = echo;
/// ```
pub fn on_read<R: FnMut(&Bev) + 'static>(read: R) -> Callbacks<R, Absent, Absent> {
    Callbacks {
        read,
        write: Absent,
        event: Absent,
    }
}

/// A handler that runs `write` when the output has drained. See [`on_read`].
pub fn on_write<W: FnMut(&Bev) + 'static>(write: W) -> Callbacks<Absent, W, Absent> {
    Callbacks {
        read: Absent,
        write,
        event: Absent,
    }
}

/// A handler that runs `event` on events. See [`on_read`].
pub fn on_event<E: FnMut(&Bev, &Event) + 'static>(event: E) -> Callbacks<Absent, Absent, E> {
    Callbacks {
        read: Absent,
        write: Absent,
        event,
    }
}

impl<R, W, E> Callbacks<R, W, E> {
    /// The same handler with `read` for data.
    pub fn on_read<F: FnMut(&Bev) + 'static>(self, read: F) -> Callbacks<F, W, E> {
        Callbacks {
            read,
            write: self.write,
            event: self.event,
        }
    }

    /// The same handler with `write` for drained output.
    pub fn on_write<F: FnMut(&Bev) + 'static>(self, write: F) -> Callbacks<R, F, E> {
        Callbacks {
            read: self.read,
            write,
            event: self.event,
        }
    }

    /// The same handler with `event` for events.
    pub fn on_event<F: FnMut(&Bev, &Event) + 'static>(self, event: F) -> Callbacks<R, W, F> {
        Callbacks {
            read: self.read,
            write: self.write,
            event,
        }
    }
}

impl<R: DataCallback, W: DataCallback, E: EventCallback> Handler for Callbacks<R, W, E> {
    fn interest(&self) -> Interest {
        let mut interest = Interest::EVENT;
        if R::PRESENT {
            interest.insert(Interest::READ);
        }
        if W::PRESENT {
            interest.insert(Interest::WRITE);
        }
        interest
    }

    fn on_read(&mut self, bev: &Bev) {
        self.read.call(bev);
    }

    fn on_write(&mut self, bev: &Bev) {
        self.write.call(bev);
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        self.event.call(bev, event);
    }
}
