//! A cipher suite that encrypts nothing, so that a test can forge whatever record a peer with the right keys could send.

use std::sync::{Arc, OnceLock};

use bufferevent_tls::rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
    UnsupportedOperationError,
};
use bufferevent_tls::rustls::crypto::{CipherSuiteCommon, CryptoProvider, ring};
use bufferevent_tls::rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion,
    SupportedCipherSuite, Tls13CipherSuite,
};

struct Null;

impl Tls13AeadAlgorithm for Null {
    fn encrypter(&self, _: AeadKey, _: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Self)
    }

    fn decrypter(&self, _: AeadKey, _: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Self)
    }

    fn key_len(&self) -> usize {
        16
    }

    fn extract_keys(
        &self,
        _: AeadKey,
        _: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

impl MessageEncrypter for Null {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        _: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&[message.typ.into()]);
        Ok(OutboundOpaqueMessage::new(
            ContentType::ApplicationData,
            ProtocolVersion::TLSv1_2,
            payload,
        ))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        length + 1
    }
}

impl MessageDecrypter for Null {
    fn decrypt<'a>(
        &mut self,
        message: InboundOpaqueMessage<'a>,
        _: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        message.into_tls13_unpadded_message()
    }
}

/// A provider with that suite alone.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    let base = provider.cipher_suites.iter().find_map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) => Some(*suite),
        SupportedCipherSuite::Tls12(_) => None,
    });
    let base = base.unwrap();
    // The library wants one that stays; all tests share it.
    static SUITE: OnceLock<Tls13CipherSuite> = OnceLock::new();
    let suite = SUITE.get_or_init(|| Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: CipherSuite::TLS13_AES_256_GCM_SHA384,
            hash_provider: base.common.hash_provider,
            confidentiality_limit: u64::MAX,
        },
        hkdf_provider: base.hkdf_provider,
        aead_alg: &Null,
        quic: None,
    });
    provider.cipher_suites = vec![SupportedCipherSuite::Tls13(suite)];
    Arc::new(provider)
}

/// A record as a peer with the right keys would send it.
pub(crate) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = (content.len() as u16 + 1).to_be_bytes();
    [&[23, 3, 3, high, low][..], content, &[kind]].concat()
}
