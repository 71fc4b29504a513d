//! The backends of this crate, by name.
//!
//! # Invariants
//! - Registering a second time changes nothing: whoever needs a name asks for it.

use std::sync::Once;

use crate::fake::Fake;
use crate::port::register_driver;
use crate::unavailable::Unavailable;

/// The name of this system's completion backend: `iocp` on Windows, `uring` elsewhere.
pub const BACKEND: &str = if cfg!(windows) { "iocp" } else { "uring" };

/// The name of the backend without a system: [`Fake::calm`].
pub const BACKEND_FAKE: &str = "fake";

/// Makes the backend [`BACKEND_FAKE`] known.
pub fn register_fake() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(taken) = register_driver(BACKEND_FAKE, || Ok(Box::new(Fake::calm()))) {
            tracing::error!(%taken, "the fake backend could not be registered");
        }
    });
}

/// Makes the backend [`BACKEND`] known to loops that are built from now on, by name or by environment.
///
/// Whether it can be used here is found out when a loop is built with it; [`available`] tells beforehand.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(taken) = register_system() {
            tracing::error!(%taken, "the completion backend could not be registered");
        }
    });
}

/// Whether this system has the backend [`BACKEND`].
///
/// # Errors
/// What was refused, and what to do about it.
pub fn available() -> Result<(), Unavailable> {
    try_system()
}

/// A builder of loops with the backend [`BACKEND`]; where the system has none, with the default one, which is logged.
///
/// On a loop that fell back, this crate's [`Builder`](crate::Builder) answers `Unsupported`; `bufferevent-socket`'s works on both.
///
/// # Errors
/// None today; a future system may refuse both.
pub fn builder() -> Result<evreactor::Builder, Unavailable> {
    register();
    let builder = evreactor::EventLoop::builder();
    Ok(match available() {
        Ok(()) => builder.backend(BACKEND),
        Err(why) => {
            tracing::warn!(%why, "no completion backend; using {}", evreactor::DEFAULT_BACKEND);
            builder.backend(evreactor::DEFAULT_BACKEND)
        }
    })
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use crate::driver::Driver;
    use crate::port::register_driver;
    use crate::unavailable::Unavailable;
    use crate::uring::Uring;

    /// How a ring is made, where the defaults do not suit.
    #[derive(Clone, Copy, Debug, Default)]
    #[non_exhaustive]
    pub struct RingOptions {
        /// Entries of the submission queue; 1,024 by default.
        pub submissions: Option<u32>,
        /// Entries of the completion queue; 8,192 by default.
        pub completions: Option<u32>,
        /// Sends of so many bytes or more are not copied by the kernel (`SEND_ZC`). None by default: on the loopback device, and wherever the
        /// network card cannot do it, the kernel copies all the same, later and at a higher price.
        pub zero_copy: Option<usize>,
    }

    impl RingOptions {
        /// Makes a backend of such rings known by a name.
        ///
        /// # Errors
        /// [`NameTaken`](evreactor::NameTaken) if the name has a backend already.
        pub fn register(self, name: &'static str) -> Result<(), evreactor::NameTaken> {
            register_driver(name, move || Ok(Box::new(self.make()?) as Box<dyn Driver>))
        }

        fn make(self) -> Result<Uring, Unavailable> {
            Uring::new(self.submissions, self.completions, self.zero_copy)
        }
    }

    pub(super) fn register_system() -> Result<(), evreactor::NameTaken> {
        register_driver(super::BACKEND, || {
            let ring = RingOptions::default().make().map_err(io::Error::from)?;
            Ok(Box::new(ring) as Box<dyn Driver>)
        })
    }

    pub(super) fn try_system() -> Result<(), Unavailable> {
        RingOptions::default().make().map(drop)
    }
}

#[cfg(target_os = "linux")]
pub use linux::RingOptions;
#[cfg(target_os = "linux")]
use linux::{register_system, try_system};

#[cfg(windows)]
mod windows {
    use std::io;

    use crate::driver::Driver;
    use crate::iocp::Iocp;
    use crate::port::register_driver;
    use crate::unavailable::Unavailable;

    pub(super) fn register_system() -> Result<(), evreactor::NameTaken> {
        register_driver(super::BACKEND, || {
            let port = Iocp::new().map_err(io::Error::from)?;
            Ok(Box::new(port) as Box<dyn Driver>)
        })
    }

    pub(super) fn try_system() -> Result<(), Unavailable> {
        Iocp::new().map(drop)
    }
}

#[cfg(windows)]
use windows::{register_system, try_system};

#[cfg(not(any(target_os = "linux", windows)))]
fn register_system() -> Result<(), evreactor::NameTaken> {
    register_driver(BACKEND, || {
        try_system()?;
        Ok(Box::new(Fake::calm()))
    })
}

#[cfg(not(any(target_os = "linux", windows)))]
fn try_system() -> Result<(), Unavailable> {
    Err(Unavailable::new(
        "there is no completion backend for this system",
        "io_uring is Linux's, completion ports are Windows'; use the default backend",
        None,
    ))
}
