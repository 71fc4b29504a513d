//! Certificates, keys and lists out of PEM, and the settings that clients and servers share.
//!
//! # Invariants
//! - A key and its certificate are checked against each other before anything is made of them.
//! - No provider is installed for the process: what is used here is given to each configuration.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SupportedProtocolVersion};

use crate::setup::{Part, SetupError};

/// The longest name of an application protocol, in bytes (RFC 7301, section 3.1).
const MAX_PROTOCOL_NAME: usize = 255;

/// Which versions of the protocol are spoken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum Versions {
    /// TLS 1.3, and 1.2 with peers that have no other.
    #[default]
    Tls12AndTls13,
    /// TLS 1.2 alone.
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

impl Versions {
    pub(crate) fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        use rustls::version::{TLS12, TLS13};
        static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            Self::Tls12AndTls13 => &BOTH,
            Self::Tls12 => &BOTH[1..],
            Self::Tls13 => &BOTH[..1],
        }
    }
}

/// The provider to use: the one that was given, else the one that this crate was built with.
pub(crate) fn provider(
    given: Option<&Arc<CryptoProvider>>,
) -> Result<Arc<CryptoProvider>, SetupError> {
    if let Some(provider) = given {
        return Ok(provider.clone());
    }
    #[cfg(feature = "aws-lc-rs")]
    return Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Ok(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err(SetupError::new(
        Part::Protocol,
        "no CryptoProvider was given, and the crate was built without one",
    ))
}

/// The certificates of a PEM file, in order; what else it holds is passed over.
pub(crate) fn certificates(
    pem: &[u8],
    part: Part,
) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let mut found = Vec::new();
    for (place, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        found.push(certificate.map_err(|error| {
            SetupError::new(part, format!("certificate {} cannot be read", place + 1))
                .because(error)
        })?);
    }
    if found.is_empty() {
        return Err(SetupError::new(part, "there is no certificate in it"));
    }
    Ok(found)
}

pub(crate) fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, SetupError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        SetupError::new(
            Part::PrivateKey,
            "there is no key in it that can be read (PKCS #8, PKCS #1 and SEC1, not encrypted)",
        )
        .because(error)
    })
}

pub(crate) fn revocation_lists(
    pems: &[Vec<u8>],
) -> Result<Vec<CertificateRevocationListDer<'static>>, SetupError> {
    let mut lists = Vec::new();
    for pem in pems {
        let before = lists.len();
        for list in CertificateRevocationListDer::pem_slice_iter(pem) {
            lists.push(list.map_err(|error| {
                SetupError::new(Part::RevocationLists, "a list cannot be read").because(error)
            })?);
        }
        if lists.len() == before {
            return Err(SetupError::new(
                Part::RevocationLists,
                "there is no list in it",
            ));
        }
    }
    Ok(lists)
}

/// A certificate chain and its key, as PEM, until they are read.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Identity {
    pub(crate) fn new(chain: &[u8], key: &[u8]) -> Self {
        Self {
            chain: chain.to_vec(),
            key: key.to_vec(),
        }
    }

    /// Reads both, and checks them against each other.
    pub(crate) fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, SetupError> {
        let chain = certificates(&self.chain, Part::CertificateChain)?;
        let key = key(&self.key)?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| {
                SetupError::new(Part::PrivateKey, "this kind of key is not supported")
                    .because(error)
            })?;
        let certified = CertifiedKey::new(chain, key);
        use rustls::{Error, InconsistentKeys};
        match certified.keys_match() {
            // A key that does not show its public half is taken at its word.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(error @ Error::InconsistentKeys(_)) => Err(SetupError::new(
                Part::PrivateKey,
                "it is not the key of the first certificate",
            )
            .because(error)),
            Err(error) => Err(SetupError::new(
                Part::CertificateChain,
                "the first certificate cannot be read",
            )
            .because(error)),
        }
    }
}

/// Certificates that are trusted, until they are read.
#[derive(Clone, Default)]
pub(crate) struct Roots {
    given: Vec<Given>,
}

#[derive(Clone)]
enum Given {
    Pem(Vec<u8>),
    Der(CertificateDer<'static>),
}

impl Roots {
    pub(crate) fn add_pem(&mut self, pem: &[u8]) {
        self.given.push(Given::Pem(pem.to_vec()));
    }

    pub(crate) fn add_der(&mut self, der: CertificateDer<'static>) {
        self.given.push(Given::Der(der));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    pub(crate) fn store(&self) -> Result<Arc<RootCertStore>, SetupError> {
        let mut store = RootCertStore::empty();
        let mut add = |certificate| {
            store.add(certificate).map_err(|error| {
                SetupError::new(Part::Roots, "a certificate cannot be one to trust").because(error)
            })
        };
        for given in &self.given {
            match given {
                Given::Der(der) => add(der.clone())?,
                Given::Pem(pem) => {
                    for certificate in certificates(pem, Part::Roots)? {
                        add(certificate)?;
                    }
                }
            }
        }
        Ok(Arc::new(store))
    }
}

/// The platform's roots. Single ones that cannot be read are passed over, as other programs do.
#[cfg(feature = "native-roots")]
pub(crate) fn native_roots() -> Result<Arc<RootCertStore>, SetupError> {
    let mut loaded = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(loaded.certs);
    if added > 0 {
        return Ok(Arc::new(store));
    }
    let error = SetupError::new(Part::Roots, "the platform has none that can be read");
    Err(match loaded.errors.pop() {
        Some(why) => error.because(why),
        None => error,
    })
}

#[cfg(not(feature = "native-roots"))]
pub(crate) fn native_roots() -> Result<Arc<RootCertStore>, SetupError> {
    Err(SetupError::new(
        Part::Roots,
        "none were given, and the crate was built without the feature `native-roots`",
    ))
}

pub(crate) fn check_protocols(protocols: &[Vec<u8>]) -> Result<(), SetupError> {
    match protocols
        .iter()
        .find(|name| name.is_empty() || name.len() > MAX_PROTOCOL_NAME)
    {
        None => Ok(()),
        Some(name) => Err(SetupError::new(
            Part::ApplicationProtocols,
            format!(
                "a name of {} bytes is not within 1 to {MAX_PROTOCOL_NAME}",
                name.len()
            ),
        )),
    }
}
