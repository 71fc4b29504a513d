//! What every contender works with: one text, one certificate, one set of TLS settings.
//!
//! # Invariants
//! - All contenders of one run read the same files; the C peer too.
//! - TLS is 1.3 with AES-128-GCM and X25519 alone, the certificate ECDSA P-256, and clients verify it.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache};
use rustls::{CipherSuite, ClientConfig, NamedGroup, RootCertStore, ServerConfig, version};

use crate::Outcome;

/// The name that clients ask for.
const NAME: &str = "server.example";

/// Length of the text.
const TEXT: usize = 4 << 20;

/// Different words of the text.
const WORDS: usize = 6000;

/// Sessions that are remembered: more than are ever open here.
const SESSIONS: usize = 256;

/// Whether sessions are resumed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Resuming {
    Never,
    Sessions,
}

/// What was read from the folder.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) text: Vec<u8>,
    authority: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Settings for both ends.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) resuming: Resuming,
}

impl Tls {
    pub(crate) fn name() -> ServerName<'static> {
        ServerName::try_from(NAME).expect("a DNS name")
    }

    /// The name as text.
    pub(crate) const NAME: &'static str = NAME;
}

/// Writes all files, anew.
pub(crate) fn write(folder: &Path) -> Outcome<()> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "bench authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let authority = CertifiedIssuer::self_signed(params, key)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let leaf = CertificateParams::new([NAME.to_owned()])?.signed_by(&key, &authority)?;
    std::fs::write(folder.join("authority.pem"), authority.pem())?;
    std::fs::write(folder.join("chain.pem"), leaf.pem())?;
    std::fs::write(folder.join("key.pem"), key.serialize_pem())?;
    std::fs::write(folder.join("text"), text())?;
    Ok(())
}

/// The next number of a fixed sequence (xorshift64*).
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
}

/// Words of syllables, frequent and rare as in a language (Zipf), with numbers between them: about 3 to 1 at level 6.
fn text() -> Vec<u8> {
    const SYLLABLES: [&str; 24] = [
        "ba", "re", "ti", "on", "ver", "sta", "lo", "mi", "ne", "con", "de", "an", "th", "er",
        "ou", "pre", "ke", "su", "in", "al", "gra", "f", "qui", "y",
    ];
    let mut state = 20_260_601;
    let words: Vec<String> = (0..WORDS)
        .map(|_| {
            let length = 1 + random(&mut state) % 4;
            (0..length)
                .map(|_| SYLLABLES[random(&mut state) as usize % SYLLABLES.len()])
                .collect()
        })
        .collect();
    let mut text = Vec::with_capacity(TEXT + 64);
    while text.len() < TEXT {
        // The exponential of an even number: a rank is as likely as it is low.
        let even = random(&mut state) as f64 / (1_u64 << 48) as f64;
        let rank = (WORDS as f64).powf(even) as usize - 1;
        text.extend_from_slice(words[rank].as_bytes());
        match random(&mut state) % 24 {
            0 => text.extend_from_slice(b".\n"),
            1 => text.extend_from_slice(b", "),
            2 => text.extend_from_slice(format!(" {} ", random(&mut state) % 10_000).as_bytes()),
            _ => text.push(b' '),
        }
    }
    text.truncate(TEXT);
    text
}

/// The cryptography called `name`, with one cipher suite and one group.
pub(crate) fn provider(name: &str) -> Outcome<Arc<CryptoProvider>> {
    let mut provider = match name {
        "ring" => rustls::crypto::ring::default_provider(),
        "aws-lc-rs" => rustls::crypto::aws_lc_rs::default_provider(),
        _ => return Err(format!("`{name}` is no cryptography: ring, aws-lc-rs").into()),
    };
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
        .kx_groups
        .retain(|group| group.name() == NamedGroup::X25519);
    Ok(Arc::new(provider))
}

impl Material {
    pub(crate) fn read(folder: &Path) -> Outcome<Self> {
        Ok(Self {
            text: std::fs::read(folder.join("text"))?,
            authority: CertificateDer::from_pem_file(folder.join("authority.pem"))?,
            chain: vec![CertificateDer::from_pem_file(folder.join("chain.pem"))?],
            key: PrivateKeyDer::from_pem_file(folder.join("key.pem"))?,
        })
    }

    pub(crate) fn tls(&self, provider: Arc<CryptoProvider>, resuming: Resuming) -> Outcome<Tls> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        match resuming {
            Resuming::Never => {
                client.resumption = Resumption::disabled();
                server.session_storage = Arc::new(NoServerSessionStorage {});
                server.send_tls13_tickets = 0;
            }
            Resuming::Sessions => {
                client.resumption = Resumption::in_memory_sessions(SESSIONS);
                server.session_storage = ServerSessionMemoryCache::new(SESSIONS);
                server.send_tls13_tickets = 1;
            }
        }
        Ok(Tls {
            client: Arc::new(client),
            server: Arc::new(server),
            resuming,
        })
    }
}
