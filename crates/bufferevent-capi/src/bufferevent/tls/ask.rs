//! What a connection knows: what was agreed upon, who the peer is, and why it failed.

use std::cell::OnceCell;
use std::error::Error as StdError;
use std::ffi::{CString, c_char, c_int};
use std::fmt::Write as _;

use bufferevent_tls::rustls::ProtocolVersion;
use bufferevent_tls::{Failure, Reason, Tls};

use crate::bufferevent::Bev;
use crate::bufferevent::tls::Layer;
use crate::ffi::{Out, Ref, code};

/// Asks the layer of a bufferevent; `None` for one that is not of TLS.
fn ask<R>(bev: Option<Ref<Bev>>, question: impl FnOnce(&Layer) -> R) -> Option<R> {
    let bev = bev?;
    let _guard = bev.guard();
    bev.tls().map(question)
}

/// A text that is made once.
fn kept(place: &OnceCell<CString>, text: Option<Vec<u8>>) -> *const c_char {
    let Some(text) = text else {
        return std::ptr::null();
    };
    place
        .get_or_init(|| CString::new(text).unwrap_or_default())
        .as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_get_version(bev: Option<Ref<Bev>>) -> c_int {
    let version = ask(bev, |layer| layer.session.borrow().protocol_version());
    match version.flatten() {
        Some(version @ (ProtocolVersion::TLSv1_2 | ProtocolVersion::TLSv1_3)) => {
            c_int::from(u16::from(version))
        }
        _ => 0,
    }
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_get_cipher(bev: Option<Ref<Bev>>) -> *const c_char {
    let name = ask(bev, |layer| {
        let suite = layer.session.borrow().cipher_suite();
        let name = suite.and_then(|suite| suite.as_str());
        kept(&layer.texts.cipher, name.map(Into::into))
    });
    name.unwrap_or(std::ptr::null())
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_get_alpn(bev: Option<Ref<Bev>>) -> *const c_char {
    let name = ask(bev, |layer| {
        let name = layer.session.borrow().alpn().map(Into::into);
        kept(&layer.texts.alpn, name)
    });
    name.unwrap_or(std::ptr::null())
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_get_server_name(bev: Option<Ref<Bev>>) -> *const c_char {
    let name = ask(bev, |layer| {
        let name = layer.session.borrow().server_name().map(Into::into);
        kept(&layer.texts.server_name, name)
    });
    name.unwrap_or(std::ptr::null())
}

/// One of the peer's certificates, its own first, as DER; the bytes stay as long as the bufferevent does.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_get_peer_certificate(
    bev: Option<Ref<Bev>>,
    index: usize,
    der: Out<*const u8>,
    len: Out<usize>,
) -> c_int {
    let found = ask(bev, |layer| {
        // They do not change any more once the handshake has shown them, and no renegotiation does.
        let session = layer.session.borrow();
        let certificate = session.peer_certificates().and_then(|all| all.get(index));
        certificate.map(|certificate| (certificate.as_ptr(), certificate.len()))
    });
    let Some((place, count)) = found.flatten() else {
        return -1;
    };
    der.set(place);
    len.set(count);
    0
}

#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_is_resumed(bev: Option<Ref<Bev>>) -> c_int {
    let resumed = ask(bev, |layer| layer.session.borrow().is_resumed());
    c_int::from(resumed.unwrap_or(false))
}

/// `enum bufferevent_tls_reason`.
fn number(reason: Reason) -> c_int {
    match reason {
        Reason::NotTls(_) => 1,
        Reason::WrongName => 2,
        Reason::Expired => 3,
        Reason::NotYetValid => 4,
        Reason::UnknownIssuer => 5,
        Reason::SelfSigned => 6,
        Reason::Revoked => 7,
        Reason::BadCertificate => 8,
        Reason::NoCertificate => 9,
        Reason::NoCommonVersion => 10,
        Reason::NoCommonSuite => 11,
        Reason::NoCommonProtocol => 12,
        Reason::UnknownName => 13,
        Reason::Alert(_) => 14,
        Reason::BadRecord => 15,
        Reason::Protocol => 16,
        Reason::NoCloseNotify => 17,
        Reason::EndInHandshake => 18,
        Reason::HandshakeTooLong => 19,
        Reason::IdleRecords => 20,
        Reason::Local => 21,
        _ => 22,
    }
}

/// Why it failed; 0 if it has not.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_get_reason(bev: Option<Ref<Bev>>) -> c_int {
    let reason = ask(bev, |layer| {
        let failure = layer.failure.borrow();
        let error = failure.as_ref()?;
        Some(Failure::of(error).map_or(22, |failure| number(failure.reason())))
    });
    reason.flatten().unwrap_or(0)
}

/// The same in words; null if it has not failed.
#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_get_error(bev: Option<Ref<Bev>>) -> *const c_char {
    let text = ask(bev, |layer| {
        let failure = layer.failure.borrow();
        let text = failure.as_ref().map(|error| {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                let more = error.to_string();
                if !text.contains(&more) {
                    // A string takes whatever is written.
                    let _ = write!(text, ": {more}");
                }
                source = error.source();
            }
            text.into_bytes()
        });
        kept(&layer.texts.failure, text)
    });
    text.unwrap_or(std::ptr::null())
}

/// Has both ends use new keys (TLS 1.3).
#[unsafe(no_mangle)]
extern "C" fn bufferevent_tls_refresh_keys(bev: Option<Ref<Bev>>) -> c_int {
    let refreshed = ask(bev, |layer| {
        let refreshed = layer
            .session
            .try_borrow_mut()
            .is_ok_and(|mut session| Tls::refresh_traffic_keys(&mut session).is_ok());
        if refreshed {
            layer.go_on();
        }
        refreshed
    });
    code(refreshed == Some(true))
}
