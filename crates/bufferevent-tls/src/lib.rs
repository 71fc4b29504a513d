//! TLS by rustls, as a filter on any bufferevent.
//!
//! A [`TlsClient`] or a [`TlsServer`] is made once, from certificates and settings, and then makes a filter for each connection.
//! The filter ([`Tls`]) knows nothing of sockets: it stands over a socket, a pair, or another filter, and a plain connection
//! that is already talking can be covered by it (STARTTLS).
//!
//! ```no_run
//! use bufferevent_core::{Options, READ, on_event};
//! use bufferevent_filter::FilterExt;
//! use bufferevent_socket::Socket;
//! use bufferevent_tls::TlsClient;
//! use std::time::Duration;
//!
//! let events = evreactor::EventLoop::new()?;
//! let client = TlsClient::new("example.org")?;
//! let address: std::net::SocketAddr = "192.0.2.1:443".parse()?;
//! let bev = Socket::connect_to(&events, address)?.filter(Options::CLOSE_ON_FREE, client.filter()?)?;
//! bev.set_connect_timeout(Some(Duration::from_secs(10)))?; // connection and handshake together
//! bev.set_handler(on_event(|_, event| println!("{event:?}")))?; // Connected, once the handshake is over
//! bev.write(b"sent as soon as it may be")?;
//! bev.enable(READ)?;
//! events.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a user sees
//! - CONNECTED comes after the handshake, which runs whatever directions are enabled. What was written before goes out after it;
//!   nothing is read before it.
//! - [`Deadline::Handshake`](bufferevent_core::Deadline::Handshake) bounds the handshake, from the moment that the transport stands, and
//!   [`set_connect_timeout`](bufferevent_core::Bev::set_connect_timeout) connection and handshake together, however slowly it
//!   goes forward.
//! - [`finish`](bufferevent_core::Bev::finish) sends a close_notify behind the last byte; reading goes on. A close_notify from
//!   the peer is an EOF; writing goes on.
//! - The end of what is below without a close_notify is an error of the kind [`Truncated`](bufferevent_core::Kind::Truncated), since anybody on the
//!   way could have cut the stream there; [`allow_dirty_shutdown`](ClientBuilder::allow_dirty_shutdown) takes it for an EOF.
//! - After the handshake the layer reads when the user does. With TLS 1.3 a client's handshake is over before the server has judged
//!   its certificate: who only writes does not hear of a refusal. And tickets that nobody read make a socket that is closed
//!   send a reset, as unread bytes always do.
//! - An error has a [`Failure`] as its source, which says why in one [`Reason`], and what rustls said.
//! - Small writes of one turn go out as one record, large ones as full ones.
//!
//! # STARTTLS
//! [`put_on`](bufferevent_core::Bev::put_on) covers a bufferevent that is already talking: what it has not sent yet goes out in
//! plain text before the handshake, and what it has read and nobody took is the handshake's first. A server drops no byte so;
//! a server that has to be safe against commands that somebody on the way put behind the STARTTLS checks that its
//! input is empty before it answers (RFC 3207, section 6; CVE-2011-0411).
//!
//! # Cryptography
//! Any [`CryptoProvider`](rustls::crypto::CryptoProvider) can be given to the builders, and none is installed for the process. Where none is given,
//! it is the one of ring (feature `ring`, the default) or of aws-lc-rs (feature `aws-lc-rs`).
//!
//! # What bounds a peer
//! | limit | value | what is counted |
//! |---|---|---|
//! | [`MAX_HANDSHAKE`] | 256 KiB | bytes of a handshake |
//! | [`MAX_IDLE_RECORDS`] | 128 | records in a row that bring the user nothing |
//! | of rustls | 64 KiB | one handshake message |
//! | of rustls | 32 | key updates, and empty records, between two records of data |
//! | of rustls | 4, 1, 2 | warning alerts; renegotiations asked for; change_cipher_specs of TLS 1.3 |
//!
//! With debug assertions on, rustls 0.23.46 has one that a peer can make fail: a broken record behind our own close_notify. The pump
//! catches that panic and frees the bufferevent; a release build answers the error.
//!
//! Source: libevent `bufferevent_ssl.h`, over OpenSSL there.

#![forbid(unsafe_code)]

mod client;
mod failure;
mod filter;
mod material;
mod record;
mod server;
mod session;
mod setup;
mod verify;

/// The filter's name in errors and statistics.
const NAME: &str = "tls";

pub use client::{ClientBuilder, TlsClient};
pub use failure::{Failure, Reason};
pub use filter::{MAX_HANDSHAKE, MAX_IDLE_RECORDS, Tls};
pub use material::Versions;
pub use record::Spoken;
pub use rustls;
pub use server::{ServerBuilder, TlsServer};
pub use setup::{Part, SetupError};
