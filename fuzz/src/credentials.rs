//! Keys, certificates and a source of randomness for TLS that are the same in every run.
//!
//! # Invariants
//! - Nothing here keeps a secret: keys are constants, and "random" bytes are a counter's.
//! - Ciphers and signatures are real, so what an adversary changes is found as it is in earnest. Under [`Crypto::Null`] records are
//!   not encrypted, so that bytes can say whatever a peer with the right keys could.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use bufferevent_tls::rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup, ring,
};
use bufferevent_tls::rustls::{Error, NamedGroup, PeerMisbehaved};
use bufferevent_tls::{Tls, TlsClient, TlsServer, Versions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// The suite that encrypts nothing, as the tests of the crate have it.
#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../../crates/bufferevent-tls/tests/common/null.rs"]
mod null;

pub(crate) use null::record as forged;

const NAME: &str = "server.example";

/// How records are protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Crypto {
    /// As in earnest.
    Real,
    /// Not at all; TLS 1.3 alone.
    Null,
}

/// What a client and a server agree upon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Agreement {
    Tls12,
    Tls13,
    Null,
}

impl Agreement {
    pub(crate) const ALL: [Self; 3] = [Self::Tls12, Self::Tls13, Self::Null];

    pub(crate) fn crypto(self) -> Crypto {
        match self {
            Self::Tls12 | Self::Tls13 => Crypto::Real,
            Self::Null => Crypto::Null,
        }
    }

    /// A client's filter and a server's, which fit.
    pub(crate) fn filters(self) -> (Tls, Tls) {
        static MADE: LazyLock<[(TlsClient, TlsServer); 3]> =
            LazyLock::new(|| Agreement::ALL.map(Agreement::made));
        let (client, server) = &MADE[self as usize];
        COUNTER.set(1);
        let made = "settings that made one filter make another";
        (client.filter().expect(made), server.filter().expect(made))
    }

    fn made(self) -> (TlsClient, TlsServer) {
        let (versions, mut provider) = match self {
            Self::Tls12 => (Versions::Tls12, ring::default_provider()),
            Self::Tls13 => (Versions::Tls13, ring::default_provider()),
            Self::Null => (Versions::Tls13, CryptoProvider::clone(&null::provider())),
        };
        provider.kx_groups = vec![&KnownExchange];
        provider.secure_random = &Counting;
        let provider = Arc::new(provider);
        let (root, chain, key) = certificates();
        let client = TlsClient::builder(NAME)
            .roots_pem(root.as_bytes())
            .without_resumption()
            .versions(versions)
            .provider(provider.clone())
            .build();
        let server = TlsServer::builder()
            .certificate(chain.as_bytes(), key.as_bytes())
            .without_resumption()
            .versions(versions)
            .provider(provider)
            .build();
        (
            client.expect("the constants fit"),
            server.expect("the constants fit"),
        )
    }
}

/// A root's certificate, one that it has signed for [`NAME`], and that one's key: all as PEM.
fn certificates() -> (String, String, String) {
    let made = "the constants make certificates";
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, key(1)).expect(made);
    let params = CertificateParams::new([NAME.to_owned()]).expect(made);
    let leaf = params.signed_by(&key(2), &root).expect(made);
    (root.pem(), leaf.pem(), key(2).serialize_pem())
}

/// The Ed25519 key whose 32 bytes are all `byte`. Its signatures are the same each time.
///
/// Source: RFC 8410, section 7.
fn key(byte: u8) -> KeyPair {
    let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    der.extend_from_slice(&[byte; 32]);
    KeyPair::try_from(der).expect("32 bytes are a key")
}

thread_local! {
    static COUNTER: Cell<u64> = const { Cell::new(1) };
}

/// "Random" bytes that begin again with every pair of filters.
#[derive(Debug)]
struct Counting;

impl Counting {
    fn next(bytes: &mut [u8]) {
        for byte in bytes {
            let state = COUNTER.get();
            COUNTER.set(
                state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1),
            );
            *byte = (state >> 56) as u8;
        }
    }
}

impl SecureRandom for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        Self::next(bytes);
        Ok(())
    }
}

/// A key exchange in which both shares make up the secret, and everybody can see both.
#[derive(Debug)]
struct KnownExchange;

struct Share([u8; 32]);

impl SupportedKxGroup for KnownExchange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut share = [0; 32];
        Counting::next(&mut share);
        Ok(Box::new(Share(share)))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Share {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] = peer
            .try_into()
            .map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let mut secret = self.0;
        for (byte, other) in secret.iter_mut().zip(peer) {
            *byte ^= other;
        }
        Ok(SharedSecret::from(&secret[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
