//! Verifiers of a server's certificate: the usual one, which also tells a self-signed certificate, and none.
//!
//! # Invariants
//! - What [`Telling`] refuses is what rustls refuses: it changes the word, never the answer.
//! - [`Trusting`] is used where the builder was told so by a method that says it is dangerous, and nowhere else.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

/// The certificate was issued by its own subject, and is not among those that are trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SelfSigned;

impl fmt::Display for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("self-signed certificate")
    }
}

impl StdError for SelfSigned {}

/// Tells a self-signed certificate from one of an unknown issuer.
#[derive(Debug)]
pub(crate) struct Telling(pub(crate) Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for Telling {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer)
                if is_self_issued(end_entity) =>
            {
                CertificateError::Other(OtherError(Arc::new(SelfSigned))).into()
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.0.root_hint_subjects()
    }
}

/// Takes every certificate whose key the server has.
#[derive(Debug)]
pub(crate) struct Trusting(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether the certificate's issuer is its subject, byte for byte. A certificate that cannot be read is not.
///
/// Source: RFC 5280, section 4.1: `Certificate ::= SEQUENCE { tbs SEQUENCE { [0] version?, serial, algorithm, issuer,
/// validity, subject, … } … }`.
fn is_self_issued(certificate: &[u8]) -> bool {
    const VERSION: u8 = 0xa0;
    let compare = || -> Option<bool> {
        let (_, certificate, _) = element(certificate)?;
        let (_, mut fields, _) = element(certificate)?;
        if fields.first() == Some(&VERSION) {
            fields = element(fields)?.2;
        }
        let (_, _, fields) = element(fields)?; // serial
        let (_, _, fields) = element(fields)?; // algorithm
        let (_, issuer, fields) = element(fields)?;
        let (_, _, fields) = element(fields)?; // validity
        let (_, subject, _) = element(fields)?;
        Some(issuer == subject)
    };
    compare().unwrap_or(false)
}

/// The first DER element: its tag, its content, and what follows it. Lengths up to four bytes.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = digits
                .iter()
                .fold(0_u64, |sum, digit| sum << 8 | u64::from(*digit));
            (usize::try_from(length).ok()?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn der_that_is_cut_is_no_element_and_no_certificate() {
        let der = [0x30, 3, 2, 1, 9];
        assert_eq!(element(&der), Some((0x30, &[2, 1, 9][..], &[][..])));
        for cut in 0..der.len() {
            assert_eq!(element(&der[..cut]), None);
        }
        assert_eq!(element(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
        assert!(!is_self_issued(&der));
        assert!(!is_self_issued(&[]));
    }
}
