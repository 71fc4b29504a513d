//! What a service manager hands over and wants to hear: sockets that listen already, and the steps of the service's life.
//!
//! This is systemd's protocol, which others speak too. Without it in the environment, nothing is handed over and nobody is told.
//!
//! # Invariants
//! - Sockets are taken over once, before anything else has a descriptor: what the environment says is believed.
//!
//! Source: sd_listen_fds(3), sd_notify(3).

#[cfg(target_os = "linux")]
pub(crate) use linux::{Given, ready, reloading, stopping};
#[cfg(not(target_os = "linux"))]
pub(crate) use nowhere::{Given, ready, reloading, stopping};

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;

    use sd_notify::NotifyState;

    use crate::exit::{Code, Failure};

    /// Sockets that came with the process.
    #[derive(Debug)]
    pub(crate) struct Given(Vec<(Option<String>, OwnedFd)>);

    impl Given {
        /// No sockets.
        pub(crate) fn none() -> Self {
            Self(Vec::new())
        }

        /// Takes over what this process was given.
        pub(crate) fn of_process() -> Result<Self, Failure> {
            let given = sd_listen_fds::get()
                .map_err(|error| Failure::because(Code::Usage, "LISTEN_FDS", &error))?;
            let given = given.into_iter();
            Ok(Self(
                given.map(|(name, fd)| (name, fd.into_std())).collect(),
            ))
        }

        /// The socket of this name, or with this number.
        pub(crate) fn socket(&self, name: &str) -> Result<OwnedFd, Failure> {
            let named = self
                .0
                .iter()
                .find(|(given, _)| given.as_deref() == Some(name));
            let numbered = || self.0.get(name.parse::<usize>().ok()?);
            let Some((_, socket)) = named.or_else(numbered) else {
                let names = self
                    .0
                    .iter()
                    .enumerate()
                    .map(|(nth, (name, _))| match name {
                        Some(name) => format!("fd:{name}"),
                        None => format!("fd:{nth}"),
                    });
                let there = match names.collect::<Vec<_>>() {
                    none if none.is_empty() => "no socket".into(),
                    some => some.join(", "),
                };
                let why = format!("no fd:{name} was handed over; there is {there}");
                return Err(Failure::new(Code::Usage, why));
            };
            let unusable = |error: &dyn std::error::Error| {
                let what = format_args!("fd:{name} cannot be listened at");
                Failure::because(Code::Usage, what, error)
            };
            let socket = socket.try_clone().map_err(|error| unusable(&error))?;
            let listener = std::net::TcpListener::from(socket);
            // Of whatever family: this asks for nothing but a socket.
            listener
                .set_nonblocking(true)
                .map_err(|error| unusable(&error))?;
            Ok(listener.into())
        }
    }

    /// The service takes connections.
    pub(crate) fn ready() {
        tell(&[NotifyState::Ready]);
    }

    /// The service reads its configuration; [`ready`] follows.
    pub(crate) fn reloading() {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    /// The service takes no more connections.
    pub(crate) fn stopping() {
        tell(&[NotifyState::Stopping]);
    }

    fn tell(state: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(state) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use crate::exit::{Code, Failure};

    /// Sockets that came with the process: there are none.
    #[derive(Debug)]
    pub(crate) struct Given;

    impl Given {
        pub(crate) fn none() -> Self {
            Self
        }

        pub(crate) fn of_process() -> Result<Self, Failure> {
            Ok(Self)
        }

        pub(crate) fn socket(&self, name: &str) -> Result<std::net::TcpListener, Failure> {
            let why = format!("no fd:{name} was handed over: this system has no such thing");
            Err(Failure::new(Code::Usage, why))
        }
    }

    pub(crate) fn ready() {}

    pub(crate) fn reloading() {}

    pub(crate) fn stopping() {}
}
