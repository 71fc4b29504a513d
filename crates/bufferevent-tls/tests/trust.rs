//! Whom a client trusts, whom a server lets in, and what each says when it does not.

mod common;

use bufferevent_testkit::{fault, spec};
use bufferevent_tls::rustls::CipherSuite;
use bufferevent_tls::rustls::crypto::{CryptoProvider, ring};
use bufferevent_tls::{Part, Reason, TlsClient, TlsServer, Versions};
use common::*;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, KeyIdMethod, KeyPair, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

const UNKNOWN_CA: u8 = 48;
const CERTIFICATE_UNKNOWN: u8 = 46;
const CERTIFICATE_EXPIRED: u8 = 45;
const CERTIFICATE_REVOKED: u8 = 44;
const HANDSHAKE_FAILURE: u8 = 40;
const CERTIFICATE_REQUIRED: u8 = 116;

fn revoking(authority: &Authority, serials: &[&SerialNumber]) -> String {
    let revoked_certs = serials
        .iter()
        .map(|serial| RevokedCertParams {
            serial_number: (*serial).clone(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        })
        .collect();
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2044, 1, 1),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&authority.0).unwrap().pem().unwrap()
}

#[test]
fn each_fault_of_a_certificate_has_its_own_reason() {
    fault!(F44);
    let setup = Setup::new();
    let authority = &setup.authority;
    let wrong = authority.issue(&["other.example"]);
    let expired = authority.issue_with(&[NAME], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = authority.issue_with(&[NAME], |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    });
    let unknown = Authority::named("another").issue(&[NAME]);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new([NAME.to_owned()]).unwrap();
    let own = Leaf {
        chain: own.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
        serial: None,
    };
    let serial = SerialNumber::from(7_u64);
    let revoked = authority.issue_with(&[NAME], |params| {
        params.serial_number = Some(serial.clone());
    });
    let list = revoking(authority, &[&serial]);
    for (leaf, reason, alert) in [
        (wrong, Reason::WrongName, CERTIFICATE_UNKNOWN),
        (expired, Reason::Expired, CERTIFICATE_EXPIRED),
        (early, Reason::NotYetValid, CERTIFICATE_EXPIRED),
        (unknown, Reason::UnknownIssuer, UNKNOWN_CA),
        (own, Reason::SelfSigned, CERTIFICATE_UNKNOWN),
        (revoked, Reason::Revoked, CERTIFICATE_REVOKED),
    ] {
        for versions in VERSIONS {
            let client = setup
                .client()
                .versions(versions)
                .revocation_lists_pem(list.as_bytes());
            let (client, server) = refused(&client, &serving(&leaf));
            assert_eq!(client, Some(reason));
            if reason != Reason::WrongName && reason != Reason::NotYetValid {
                assert_eq!(server, Some(Reason::Alert(alert)), "{reason:?}");
            }
            let trusting = setup.client().versions(versions);
            let trusting = trusting.dangerous_accept_any_certificate().build().unwrap();
            let server = serving(&leaf).build().unwrap();
            joined(trusting.filter().unwrap(), server.filter().unwrap());
        }
    }
    // The list does not stand in the way of others.
    let client = setup.client().revocation_lists_pem(list.as_bytes());
    let client = client.build().unwrap().filter().unwrap();
    joined(client, setup.server().build().unwrap().filter().unwrap());
}

#[test]
fn client_certificates_are_asked_for_or_required() {
    spec!(F6);
    fault!(F47);
    let setup = Setup::new();
    let members = Authority::named("members");
    let (member, other) = (
        members.issue(&["member"]),
        Authority::named("others").issue(&["other"]),
    );
    let serial = SerialNumber::from(9_u64);
    let expelled = members.issue_with(&["expelled"], |params| {
        params.serial_number = Some(serial.clone());
    });
    let list = revoking(&members, &[&serial]);
    for versions in VERSIONS {
        let roots = members.pem();
        let client = || setup.client().versions(versions);
        let as_leaf =
            |leaf: &Leaf| client().certificate(leaf.chain.as_bytes(), leaf.key.as_bytes());
        let required = setup.server().require_client_certificate(roots.as_bytes());
        let required = required.revocation_lists_pem(list.as_bytes());
        let asked = setup.server().ask_for_client_certificate(roots.as_bytes());
        for (server, client, shown) in [
            (&required, as_leaf(&member), 1),
            (&asked, as_leaf(&member), 1),
            (&asked, client(), 0),
        ] {
            let (client, server) = (client.build().unwrap(), server.build().unwrap());
            let (_, server) = joined(client.filter().unwrap(), server.filter().unwrap());
            assert_eq!(server.tls.peer_certificates().unwrap_or(&[]).len(), shown);
        }
        let (client_says, server_says) = refused(&client(), &required);
        assert_eq!(server_says, Some(Reason::NoCertificate));
        assert_eq!(client_says, Some(Reason::Alert(CERTIFICATE_REQUIRED)));
        for server in [&required, &asked] {
            // A client shows nothing that no authority of the server's has issued.
            let (_, says) = refused(&as_leaf(&other), server);
            assert_eq!(says, Some(Reason::UnknownIssuer));
        }
        let (_, says) = refused(&as_leaf(&expelled), &required);
        assert_eq!(says, Some(Reason::Revoked));
    }
}

#[test]
fn each_name_has_its_certificate() {
    spec!(F6);
    fault!(F45);
    let authority = Authority::new();
    let leaf = |names: &[&str]| authority.issue(names);
    let (default, exact, below) = (
        leaf(&["default.example", "127.0.0.1", "a.b.wild.example"]),
        leaf(&["one.example", "www.wild.example"]),
        leaf(&["*.wild.example"]),
    );
    let named = |builder: bufferevent_tls::ServerBuilder| {
        builder
            .certificate_for("One.Example", exact.chain.as_bytes(), exact.key.as_bytes())
            .certificate_for(
                "www.wild.example",
                exact.chain.as_bytes(),
                exact.key.as_bytes(),
            )
            .certificate_for(
                "*.wild.example",
                below.chain.as_bytes(),
                below.key.as_bytes(),
            )
    };
    let server = named(serving(&default)).build().unwrap();
    let roots = authority.pem();
    let client = |name: &str| TlsClient::builder(name).roots_pem(roots.as_bytes());
    for (name, sni) in [
        ("default.example", Some("default.example")),
        ("one.example", Some("one.example")),
        ("ONE.example", Some("one.example")),
        ("www.wild.example", Some("www.wild.example")),
        ("any.wild.example", Some("any.wild.example")),
        ("a.b.wild.example", Some("a.b.wild.example")),
        ("127.0.0.1", None),
    ] {
        let client = client(name).build().unwrap();
        let (_, server) = joined(client.filter().unwrap(), server.filter().unwrap());
        let heard = server.tls.server_name().map(str::to_ascii_lowercase);
        assert_eq!(heard.as_deref(), sni, "{name}");
    }
    let silent = client("default.example").without_sni().build().unwrap();
    let (_, end) = joined(silent.filter().unwrap(), server.filter().unwrap());
    assert_eq!(end.tls.server_name(), None);

    // Without a default, who asks for no name or an unknown one gets none.
    let strict = named(TlsServer::builder());
    for client in [
        client("stranger.example"),
        client("one.example").without_sni(),
        client("127.0.0.1"),
    ] {
        let (says, server) = refused(&client, &strict);
        assert_eq!(server, Some(Reason::UnknownName));
        assert!(matches!(says, Some(Reason::Alert(_))));
    }
}

/// A hello whose SNI is `name`, put in place of the extension that a client without SNI leaves out.
fn hello_asking_for(setup: &Setup, name: &[u8]) -> Vec<u8> {
    let client = setup.client().without_sni().build().unwrap();
    let hello = End::new(client.filter().unwrap()).emit(bufferevent_core::Mode::Normal);
    let length = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes();
    let entry = [&[0][..], &length(name), name].concat();
    let list = [&length(&entry)[..], &entry].concat();
    let extension = [&[0, 0][..], &length(&list), &list].concat();
    // record header 5, message header 4, version 2, random 32, then the session, the suites and the compressions.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    at += 1 + usize::from(hello[at]);
    let rest = [&hello[at + 2..], &extension].concat();
    let body = [&hello[9..at], &length(&rest), &rest].concat();
    let message = [&[1, 0][..], &length(&body), &body].concat();
    [&[22, 3, 1][..], &length(&message), &message].concat()
}

#[test]
fn names_that_are_none_are_refused_or_passed_over() {
    fault!(F45);
    let setup = Setup::new();
    let server = || End::new(setup.server().build().unwrap().filter().unwrap());
    let after = |name: &[u8]| {
        let mut server = server();
        server.hear(
            &hello_asking_for(&setup, name),
            bufferevent_core::Mode::Normal,
        );
        server
    };
    let answered = after(NAME.as_bytes());
    assert_eq!(
        answered.tls.server_name(),
        Some(NAME),
        "the hello is a good one"
    );
    let address = after(b"192.0.2.7");
    assert_eq!(address.tls.server_name(), None, "an address is no name");
    for name in [
        &[b'a'; 256][..],
        &[b'a'; 5000],
        b"",
        b"with space",
        b"nul\0.example",
    ] {
        let server = after(name);
        assert_eq!(server.reason(), Some(Reason::Protocol), "{name:?}");
    }
    for name in ["", "with space", &"a".repeat(256), "nul\0"] {
        let error = TlsClient::builder(name).roots_pem(setup.authority.pem().as_bytes());
        assert_eq!(error.build().unwrap_err().part(), Part::Name);
    }
}

#[test]
fn what_the_two_do_not_have_in_common_is_told() {
    fault!(F46);
    let setup = Setup::new();
    // Application protocols.
    let client = setup.client().alpn(["h2", "http/1.1"]);
    let server = setup.server().alpn(["imap"]);
    let (says, heard) = refused(&client, &server);
    assert_eq!(
        (says, heard),
        (
            Some(Reason::NoCommonProtocol),
            Some(Reason::NoCommonProtocol)
        )
    );
    let server = setup.server().alpn(["http/1.1"]).build().unwrap();
    let (client, server) = joined(
        client.build().unwrap().filter().unwrap(),
        server.filter().unwrap(),
    );
    assert_eq!(
        (client.tls.alpn(), server.tls.alpn()),
        (Some(&b"http/1.1"[..]), Some(&b"http/1.1"[..]))
    );
    // Versions.
    for (ours, theirs) in [
        (Versions::Tls12, Versions::Tls13),
        (Versions::Tls13, Versions::Tls12),
    ] {
        let (says, heard) = refused(
            &setup.client().versions(ours),
            &setup.server().versions(theirs),
        );
        assert_eq!(heard, Some(Reason::NoCommonVersion));
        assert_eq!(says, Some(Reason::NoCommonVersion));
    }
    // Suites.
    let only = |suite: CipherSuite| {
        let mut provider: CryptoProvider = ring::default_provider();
        provider.cipher_suites.retain(|has| has.suite() == suite);
        std::sync::Arc::new(provider)
    };
    let client = setup
        .client()
        .provider(only(CipherSuite::TLS13_AES_128_GCM_SHA256));
    let server = setup
        .server()
        .provider(only(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256));
    let client = client.versions(Versions::Tls13);
    let server = server.versions(Versions::Tls13);
    let (says, heard) = refused(&client, &server);
    assert_eq!(heard, Some(Reason::NoCommonSuite));
    assert_eq!(says, Some(Reason::Alert(HANDSHAKE_FAILURE)));
}

#[test]
fn what_cannot_work_is_said_before_the_first_connection() {
    let setup = Setup::new();
    let (chain, key) = (setup.leaf.chain.as_bytes(), setup.leaf.key.as_bytes());
    let other = setup.authority.issue(&[NAME]);
    let text = |error: bufferevent_tls::SetupError| (error.part(), error.to_string());
    let server = |chain: &[u8], key: &[u8]| text(TlsServer::new(chain, key).unwrap_err());
    assert_eq!(server(b"", key).0, Part::CertificateChain);
    assert_eq!(server(chain, b"").0, Part::PrivateKey);
    assert_eq!(
        server(chain, other.key.as_bytes()),
        (
            Part::PrivateKey,
            "private key: it is not the key of the first certificate".to_owned()
        )
    );
    let broken = setup.leaf.chain.replacen("MII", "???", 1);
    assert_eq!(server(broken.as_bytes(), key).0, Part::CertificateChain);
    assert_eq!(
        TlsServer::builder().build().unwrap_err().part(),
        Part::CertificateChain
    );
    let named = setup
        .server()
        .certificate_for("one.example", chain, other.key.as_bytes());
    assert_eq!(
        named.build().unwrap_err().to_string(),
        "private key for \"one.example\": it is not the key of the first certificate"
    );
    for name in ["*", "*.", "a..b", "white space", "*.*.example"] {
        let error = setup
            .server()
            .certificate_for(name, chain, key)
            .build()
            .unwrap_err();
        assert_eq!(error.part(), Part::Name, "{name}");
    }
    let twice = setup.server().certificate_for("a.example", chain, key);
    let twice = twice.certificate_for("A.example", chain, key).build();
    assert_eq!(twice.unwrap_err().part(), Part::Name);
    let part = |builder: bufferevent_tls::ClientBuilder| builder.build().unwrap_err().part();
    assert_eq!(part(setup.client().alpn([""])), Part::ApplicationProtocols);
    assert_eq!(part(setup.client().roots_pem(b"nothing")), Part::Roots);
    assert_eq!(
        part(setup.client().revocation_lists_pem(b"nothing")),
        Part::RevocationLists
    );
    assert_eq!(
        part(setup.client().certificate(chain, other.key.as_bytes())),
        Part::PrivateKey
    );
    let mut none = ring::default_provider();
    none.cipher_suites.clear();
    assert_eq!(part(setup.client().provider(none.into())), Part::Protocol);
}
