//! The server's side of the setup: which certificate for which name, and whom it lets in.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
    ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{Connection, ServerConfig, ServerConnection};

use crate::filter::{Shutdown, Tls};
use crate::material::{Identity, Roots, Versions, check_protocols, provider, revocation_lists};
use crate::setup::{Part, SetupError};

/// Sessions that a server remembers, so that clients can resume them.
const SESSIONS: usize = 1024;

/// The longest DNS name, in bytes, as text.
const MAX_NAME: usize = 253;

/// Makes the filters of a server's connections. Cheap to clone; clones share the settings and the sessions to resume.
///
/// Source: libevent `bufferevent_openssl_filter_new` with `BUFFEREVENT_SSL_ACCEPTING`.
#[derive(Clone)]
#[doc(alias = "bufferevent_openssl_filter_new")]
#[doc(alias = "bufferevent_mbedtls_filter_new")]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    shutdown: Shutdown,
}

impl TlsServer {
    /// A server with one certificate, as PEM with its intermediate ones behind it.
    ///
    /// # Errors
    /// The certificate or the key cannot be read, or one is not the other's.
    pub fn new(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, SetupError> {
        Self::builder().certificate(chain_pem, key_pem).build()
    }

    /// Begins to describe a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// A server with settings of rustls' own.
    #[must_use]
    pub fn from_config(config: Arc<ServerConfig>) -> Self {
        Self {
            config,
            shutdown: Shutdown::Clean,
        }
    }

    /// A filter for one connection.
    ///
    /// # Errors
    /// rustls refuses the settings; those that [`build`](ServerBuilder::build) made it does not.
    pub fn filter(&self) -> Result<Tls, SetupError> {
        let connection = ServerConnection::new(self.config.clone()).map_err(|error| {
            SetupError::new(Part::Protocol, "no connection can be made").because(error)
        })?;
        Ok(Tls::new(Connection::Server(connection), self.shutdown))
    }

    /// The settings, as rustls has them.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default)]
enum Clients {
    #[default]
    Unasked,
    Asked,
    Required,
}

/// How sessions are resumed.
#[derive(Clone, Default)]
enum Resuming {
    #[default]
    Sessions,
    Tickets(Arc<dyn ProducesTickets>),
    Never,
}

/// How a [`TlsServer`] is made.
#[derive(Clone, Default)]
#[must_use = "a builder makes nothing until `build` is called"]
pub struct ServerBuilder {
    default: Option<Identity>,
    named: Vec<(String, Identity)>,
    clients: Clients,
    client_roots: Roots,
    lists: Vec<Vec<u8>>,
    protocols: Vec<Vec<u8>>,
    versions: Versions,
    provider: Option<Arc<CryptoProvider>>,
    resuming: Resuming,
    shutdown: Shutdown,
}

impl ServerBuilder {
    /// Shows this certificate, as PEM with its intermediate ones behind it, to clients that ask for no name, or for one
    /// that has no certificate of its own.
    pub fn certificate(mut self, chain_pem: &[u8], key_pem: &[u8]) -> Self {
        self.default = Some(Identity::new(chain_pem, key_pem));
        self
    }

    /// Shows this certificate to clients that ask for `name`: one name, or `*.` and a domain for every name directly
    /// below it. One name goes before `*`.
    pub fn certificate_for(mut self, name: &str, chain_pem: &[u8], key_pem: &[u8]) -> Self {
        let name = name.to_ascii_lowercase();
        self.named.push((name, Identity::new(chain_pem, key_pem)));
        self
    }

    /// Asks clients for a certificate that was issued by one of these, as PEM, and verifies it if there is one.
    pub fn ask_for_client_certificate(mut self, roots_pem: &[u8]) -> Self {
        self.clients = Clients::Asked;
        self.client_roots.add_pem(roots_pem);
        self
    }

    /// Refuses clients without a certificate that was issued by one of these, as PEM.
    pub fn require_client_certificate(mut self, roots_pem: &[u8]) -> Self {
        self.clients = Clients::Required;
        self.client_roots.add_pem(roots_pem);
        self
    }

    /// Refuses client certificates that these lists, as PEM, name as revoked.
    pub fn revocation_lists_pem(mut self, pem: &[u8]) -> Self {
        self.lists.push(pem.to_vec());
        self
    }

    /// Speaks these application protocols, the best first. A client that offers some, and none of these, is refused.
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.protocols = protocols
            .into_iter()
            .map(|name| name.as_ref().to_vec())
            .collect();
        self
    }

    /// Speaks these versions of the protocol.
    pub fn versions(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Uses this cryptography.
    pub fn provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Gives the sessions to the clients to keep, sealed by `tickets`, instead of remembering them here: also for a server of
    /// several processes. Each provider of rustls has one, as `rustls::crypto::ring::Ticketer`.
    pub fn tickets(mut self, tickets: Arc<dyn ProducesTickets>) -> Self {
        self.resuming = Resuming::Tickets(tickets);
        self
    }

    /// Resumes no session: every connection has a whole handshake.
    pub fn without_resumption(mut self) -> Self {
        self.resuming = Resuming::Never;
        self
    }

    /// As [`ClientBuilder::allow_dirty_shutdown`](crate::ClientBuilder::allow_dirty_shutdown).
    #[doc(alias = "bufferevent_openssl_set_allow_dirty_shutdown")]
    pub fn allow_dirty_shutdown(mut self) -> Self {
        self.shutdown = Shutdown::Dirty;
        self
    }

    /// Makes the server.
    ///
    /// # Errors
    /// There is no certificate; or something that was given cannot be used. The error says what, and why.
    pub fn build(&self) -> Result<TlsServer, SetupError> {
        check_protocols(&self.protocols)?;
        let provider = provider(self.provider.as_ref())?;
        let names = self.names(&provider)?;
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions.list())
            .map_err(|error| {
                SetupError::new(Part::Protocol, "not with this provider").because(error)
            })?
            .with_client_cert_verifier(self.verifier(&provider)?)
            .with_cert_resolver(Arc::new(names));
        config.alpn_protocols.clone_from(&self.protocols);
        match &self.resuming {
            Resuming::Sessions => {
                config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
            }
            Resuming::Tickets(tickets) => config.ticketer = tickets.clone(),
            Resuming::Never => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        Ok(TlsServer {
            config: Arc::new(config),
            shutdown: self.shutdown,
        })
    }

    fn names(&self, provider: &CryptoProvider) -> Result<Names, SetupError> {
        if self.default.is_none() && self.named.is_empty() {
            return Err(SetupError::new(Part::CertificateChain, "none was given"));
        }
        let mut names = Names::default();
        if let Some(identity) = &self.default {
            names.default = Some(Arc::new(identity.certified(provider)?));
        }
        for (name, identity) in &self.named {
            let certified = identity
                .certified(provider)
                .map_err(|error| error.of(name))?;
            let (map, key) = match name.strip_prefix("*.") {
                Some(domain) => (&mut names.below, domain),
                None => (&mut names.exact, name.as_str()),
            };
            if !is_name(key) {
                let problem = format!("{name:?} is not a DNS name, nor `*.` and one");
                return Err(SetupError::new(Part::Name, problem));
            }
            if map.insert(key.to_owned(), Arc::new(certified)).is_some() {
                let problem = format!("{name:?} was given twice");
                return Err(SetupError::new(Part::Name, problem));
            }
        }
        Ok(names)
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, SetupError> {
        if let Clients::Unasked = self.clients {
            return Ok(WebPkiClientVerifier::no_client_auth());
        }
        let roots = self.client_roots.store()?;
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(revocation_lists(&self.lists)?)
            .allow_unknown_revocation_status();
        if let Clients::Asked = self.clients {
            verifier = verifier.allow_unauthenticated();
        }
        verifier.build().map_err(|error| {
            SetupError::new(Part::RevocationLists, "they cannot be used").because(error)
        })
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("versions", &self.versions)
            .field("clients", &self.clients)
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}

/// The certificates of a server, by the name that is asked for, in lower case.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the domain that the name is directly below.
    below: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let below = || self.below.get(name.split_once('.')?.1);
            self.exact.get(&name).or_else(below)
        });
        named.or(self.default.as_ref()).cloned()
    }
}

/// Whether `name` has the form of a DNS name in lower case.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| plain(byte) || byte == b'-' || byte == b'_')
    };
    name.len() <= MAX_NAME && name.split('.').all(label)
}
