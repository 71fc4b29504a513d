//! `bev cert`: a certificate authority and one certificate issued by it, for trying things.
//!
//! # Invariants
//! - No file is ever overwritten.
//! - The authority's key is used once and written nowhere: it can issue nothing more.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use bufferevent::dns::ascii_host;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use crate::cli::{CertOptions, Common};
use crate::exit::{Code, Failure};
use crate::output;

/// What the certificate is for, where no names are given.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate, its key, and who issued it, as PEM.
pub(crate) struct Identity {
    pub(crate) ca: String,
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Identity {
    /// A fresh one for these names and addresses, which servers and clients may show.
    pub(crate) fn generate(names: &[String]) -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::new(Vec::new())?;
        let called = &mut authority.distinguished_name;
        called.push(
            DnType::CommonName,
            "bev cert: an authority for trying things",
        );
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer_key = KeyPair::generate()?;
        let ca = authority.self_signed(&issuer_key)?.pem();
        let issuer = Issuer::new(authority, issuer_key);

        let names = match names {
            [] => NAMES.map(String::from).to_vec(),
            names => names.iter().map(|name| in_ascii(name)).collect(),
        };
        let mut leaf = CertificateParams::new(names.clone())?;
        if let Some(first) = names.first() {
            leaf.distinguished_name.push(DnType::CommonName, first);
        }
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Self {
            ca,
            chain: leaf.signed_by(&key, &issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// A name of any script as certificates have it. What is no host name (an address, a wildcard) stays what it is.
fn in_ascii(name: &str) -> String {
    ascii_host(name).unwrap_or_else(|_| name.to_owned())
}

/// Runs `bev cert`.
pub(crate) fn run(common: &Common, options: &CertOptions) -> Result<(), Failure> {
    let identity = Identity::generate(&options.names)
        .map_err(|error| Failure::because(Code::Usage, "cannot make a certificate", &error))?;
    std::fs::create_dir_all(&options.out).map_err(|error| {
        let what = format_args!("cannot make the folder {}", options.out.display());
        Failure::because(Code::Usage, what, &error)
    })?;
    let files = [
        ("ca.pem", &identity.ca),
        ("cert.pem", &identity.chain),
        ("key.pem", &identity.key),
    ];
    let path = |name: &str| options.out.join(name);
    // All or none, as far as can be seen beforehand.
    if let Some((name, _)) = files.iter().find(|(name, _)| path(name).exists()) {
        let message = format!(
            "{} is there already; bev cert overwrites nothing",
            path(name).display()
        );
        return Err(Failure::new(Code::Usage, message));
    }
    for (name, pem) in files {
        let path = path(name);
        write(&path, pem).map_err(|error| {
            let what = format_args!("cannot write {}", path.display());
            Failure::because(Code::Runtime, what, &error)
        })?;
    }
    let [ca, cert, key] = files.map(|(name, _)| path(name).display().to_string());
    output::say(&if common.json {
        json!({"event": "cert", "ca": ca, "cert": cert, "key": key}).to_string()
    } else {
        format!("server: +tls,cert={cert},key={key}\nclient: +tls,ca={ca}")
    });
    Ok(())
}

/// A new file that its owner alone may read.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}
