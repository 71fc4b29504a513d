//! The client's side of the setup: whom it trusts, whom it asks for, who it is.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, Connection};

use crate::filter::{Shutdown, Tls};
use crate::material::revocation_lists;
use crate::material::{Identity, Roots, Versions, check_protocols, native_roots, provider};
use crate::setup::{Part, SetupError};
use crate::verify::{Telling, Trusting};

/// Sessions that a client remembers, so that they can be resumed: the names of that many servers.
const SESSIONS: usize = 256;

/// Makes the filters of a client's connections. Cheap to clone; clones share the settings and the sessions to resume.
///
/// ```
/// use bufferevent_core::{Options, READ};
/// use bufferevent_filter::FilterExt;
/// use bufferevent_pair::pair;
/// use bufferevent_tls::{TlsClient, TlsServer};
/// # let events = bufferevent_testkit::Loop::new();
/// # let made = rcgen::generate_simple_self_signed(["example.org".to_owned()])?;
/// # let (chain_pem, key_pem) = (made.cert.pem(), made.signing_key.serialize_pem());
///
/// let server = TlsServer::new(chain_pem.as_bytes(), key_pem.as_bytes())?;
/// let client = TlsClient::builder("example.org").roots_pem(chain_pem.as_bytes()).build()?;
///
/// let (near, far) = pair(&events)?;
/// let near = near.filter(Options::CLOSE_ON_FREE, client.filter()?)?;
/// let far = far.filter(Options::CLOSE_ON_FREE, server.filter()?)?;
/// far.enable(READ)?;
/// near.write(b"not for everybody")?;
/// # events.run();
/// assert_eq!(far.input().len(), 17);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: libevent `bufferevent_openssl_filter_new` with `BUFFEREVENT_SSL_CONNECTING`.
#[derive(Clone)]
#[doc(alias = "bufferevent_openssl_filter_new")]
#[doc(alias = "bufferevent_mbedtls_filter_new")]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    shutdown: Shutdown,
}

impl TlsClient {
    /// A client of the server with this name (or address), which trusts what the platform trusts.
    ///
    /// # Errors
    /// The name is none; the platform has no roots that can be read.
    pub fn new(name: &str) -> Result<Self, SetupError> {
        Self::builder(name).build()
    }

    /// Begins to describe a client of the server with this name (or address).
    pub fn builder(name: &str) -> ClientBuilder {
        ClientBuilder::new(name)
    }

    /// A client with settings of rustls' own.
    ///
    /// # Errors
    /// The name is none.
    pub fn from_config(config: Arc<ClientConfig>, name: &str) -> Result<Self, SetupError> {
        Ok(Self {
            config,
            name: server_name(name)?,
            shutdown: Shutdown::Clean,
        })
    }

    /// The same client for another server.
    ///
    /// # Errors
    /// The name is none.
    pub fn for_name(&self, name: &str) -> Result<Self, SetupError> {
        Ok(Self {
            name: server_name(name)?,
            ..self.clone()
        })
    }

    /// A filter for one connection.
    ///
    /// # Errors
    /// rustls refuses the settings; those that [`build`](ClientBuilder::build) made it does not.
    pub fn filter(&self) -> Result<Tls, SetupError> {
        let connection = ClientConnection::new(self.config.clone(), self.name.clone());
        let connection = connection.map_err(|error| {
            SetupError::new(Part::Protocol, "no connection can be made").because(error)
        })?;
        Ok(Tls::new(Connection::Client(connection), self.shutdown))
    }

    /// The settings, as rustls has them.
    #[must_use]
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("name", &self.name)
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, SetupError> {
    ServerName::try_from(name.to_owned()).map_err(|error| {
        SetupError::new(
            Part::Name,
            format!("{name:?} is neither a DNS name nor an address"),
        )
        .because(error)
    })
}

#[derive(Clone, Copy, Debug)]
enum Verify {
    Fully,
    Nothing,
}

#[derive(Clone, Copy, Debug)]
enum Sni {
    Sent,
    Omitted,
}

#[derive(Clone, Copy, Debug)]
enum Resuming {
    Sessions,
    Never,
}

/// How a [`TlsClient`] is made.
#[derive(Clone)]
#[must_use = "a builder makes nothing until `build` is called"]
pub struct ClientBuilder {
    name: String,
    roots: Roots,
    lists: Vec<Vec<u8>>,
    identity: Option<Identity>,
    protocols: Vec<Vec<u8>>,
    versions: Versions,
    provider: Option<Arc<CryptoProvider>>,
    verify: Verify,
    sni: Sni,
    resuming: Resuming,
    shutdown: Shutdown,
}

impl ClientBuilder {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            roots: Roots::default(),
            lists: Vec::new(),
            identity: None,
            protocols: Vec::new(),
            versions: Versions::default(),
            provider: None,
            verify: Verify::Fully,
            sni: Sni::Sent,
            resuming: Resuming::Sessions,
            shutdown: Shutdown::Clean,
        }
    }

    /// Trusts the certificates in this PEM, and no longer those of the platform.
    pub fn roots_pem(mut self, pem: &[u8]) -> Self {
        self.roots.add_pem(pem);
        self
    }

    /// Trusts this certificate, in DER, and no longer those of the platform.
    pub fn root(mut self, der: CertificateDer<'static>) -> Self {
        self.roots.add_der(der);
        self
    }

    /// Refuses certificates that these lists, as PEM, name as revoked. Of a certificate whose issuer has no list here nothing
    /// is known, and it is taken.
    pub fn revocation_lists_pem(mut self, pem: &[u8]) -> Self {
        self.lists.push(pem.to_vec());
        self
    }

    /// Shows this certificate, as PEM with its intermediate ones behind it, to a server that asks for one.
    pub fn certificate(mut self, chain_pem: &[u8], key_pem: &[u8]) -> Self {
        self.identity = Some(Identity::new(chain_pem, key_pem));
        self
    }

    /// Offers these application protocols, the best first.
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

    /// Does not tell the server for which name it asks. The certificate is verified against the name as ever.
    pub fn without_sni(mut self) -> Self {
        self.sni = Sni::Omitted;
        self
    }

    /// Resumes no session: every connection has a whole handshake.
    pub fn without_resumption(mut self) -> Self {
        self.resuming = Resuming::Never;
        self
    }

    /// Takes an end of the stream without a close_notify for an end like any other, if it comes between two records. What
    /// was sent last may then be missing, cut off by anybody on the way: for protocols that tell their own end.
    ///
    /// Source: libevent `bufferevent_openssl_set_allow_dirty_shutdown`.
    #[doc(alias = "bufferevent_openssl_set_allow_dirty_shutdown")]
    #[doc(alias = "BUFFEREVENT_SSL_DIRTY_SHUTDOWN")]
    pub fn allow_dirty_shutdown(mut self) -> Self {
        self.shutdown = Shutdown::Dirty;
        self
    }

    /// Takes any certificate of anybody: whoever stands on the way can read and change all that passes. For tests, and for
    /// who verifies [`peer_certificates`](Tls::peer_certificates) otherwise before trusting a byte.
    pub fn dangerous_accept_any_certificate(mut self) -> Self {
        self.verify = Verify::Nothing;
        self
    }

    /// Makes the client.
    ///
    /// # Errors
    /// Something that was given cannot be used; the error says what, and why.
    pub fn build(&self) -> Result<TlsClient, SetupError> {
        let name = server_name(&self.name)?;
        check_protocols(&self.protocols)?;
        let provider = provider(self.provider.as_ref())?;
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions.list())
            .map_err(|error| {
                SetupError::new(Part::Protocol, "not with this provider").because(error)
            })?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(&provider)?);
        let mut config = match &self.identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let certified = identity.certified(&provider)?;
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols.clone_from(&self.protocols);
        config.enable_sni = matches!(self.sni, Sni::Sent);
        config.resumption = match self.resuming {
            Resuming::Sessions => Resumption::in_memory_sessions(SESSIONS),
            Resuming::Never => Resumption::disabled(),
        };
        Ok(TlsClient {
            config: Arc::new(config),
            name,
            shutdown: self.shutdown,
        })
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, SetupError> {
        if let Verify::Nothing = self.verify {
            return Ok(Arc::new(Trusting(provider.clone())));
        }
        let roots = if self.roots.is_empty() {
            native_roots()?
        } else {
            self.roots.store()?
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(revocation_lists(&self.lists)?)
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| {
                SetupError::new(Part::RevocationLists, "they cannot be used").because(error)
            })?;
        Ok(Arc::new(Telling(verifier)))
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("name", &self.name)
            .field("versions", &self.versions)
            .field("verify", &self.verify)
            .field("sni", &self.sni)
            .field("resuming", &self.resuming)
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}
