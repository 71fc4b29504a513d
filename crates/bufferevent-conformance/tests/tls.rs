//! The suite over the TLS filter, on pairs and on sockets, and with zlib above it and below it.

use bufferevent_conformance::{Completions, End, Joint, Pairs, Stacks, check_all};
use bufferevent_filter::FilterExt as _;
use bufferevent_tls::{TlsClient, TlsServer, Versions};
use bufferevent_zlib::Zlib;

const NAME: &str = "server.example";

/// What the sessions of both ends may hold, in bytes: a record each way, and the tickets that nobody has read.
const SESSIONS: usize = 128 * 1024;

/// What zlib's filters may hold, as in the suite over them.
const STAGED: usize = 2 * 256 * 1024;

/// A client and a server that trust each other.
fn setup(versions: Versions) -> (TlsClient, TlsServer) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("the name is one");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let client = TlsClient::builder(NAME)
        .roots_pem(chain.as_bytes())
        .versions(versions)
        .build()
        .expect("the certificate can be trusted");
    // A ticket that the client has not read when it is closed would make a reset of a socket's end.
    let server = TlsServer::builder()
        .certificate(chain.as_bytes(), key.as_bytes())
        .without_resumption()
        .build()
        .expect("the key is its");
    (client, server)
}

fn tls_on((client, server): &(TlsClient, TlsServer), below: Box<dyn Joint>) -> Box<dyn Joint> {
    let (client, server) = (client.clone(), server.clone());
    let stacks = Stacks::of("tls", below, move |bev, end, options| {
        let filter = match end {
            End::Near => client.filter(),
            End::Far => server.filter(),
        };
        bev.filter(options, filter.expect("it was built"))
    });
    let stacks = stacks.holding(SESSIONS).shaking_hands();
    Box::new(stacks.marking_the_end().rewriting())
}

/// Level 0, so that what the suite fills the way with does fill it.
fn zlib_on(below: Box<dyn Joint>) -> Stacks {
    let stacks = Stacks::of("zlib", below, |bev, _, options| {
        bev.filter(options, Zlib::builder().level(0).build()?)
    });
    stacks.holding(STAGED).marking_the_end().rewriting()
}

#[test]
fn tls13_on_pairs() {
    let ends = setup(Versions::Tls13);
    check_all(&|| tls_on(&ends, Box::new(Pairs::on_virtual_loop())));
}

#[test]
fn tls12_on_pairs() {
    let ends = setup(Versions::Tls12);
    check_all(&|| tls_on(&ends, Box::new(Pairs::on_virtual_loop())));
}

#[test]
fn tls_on_zlib_on_pairs() {
    let ends = setup(Versions::Tls13);
    check_all(&|| tls_on(&ends, Box::new(zlib_on(Box::new(Pairs::on_virtual_loop())))));
}

#[test]
fn tls_on_sockets() {
    use bufferevent_conformance::Sockets;
    let ends = setup(Versions::Tls13);
    #[cfg(unix)]
    check_all(&|| tls_on(&ends, Box::new(Sockets::tcp("mio"))));
    check_all(&|| tls_on(&ends, Box::new(Sockets::tcp("polling"))));
}

#[test]
fn zlib_on_tls_on_sockets() {
    use bufferevent_conformance::Sockets;
    use evreactor::DEFAULT_BACKEND as DEFAULT;
    let ends = setup(Versions::Tls13);
    check_all(&|| Box::new(zlib_on(tls_on(&ends, Box::new(Sockets::tcp(DEFAULT))))));
}

#[test]
fn tls_on_completions() {
    let ends = setup(Versions::Tls13);
    check_all(&|| tls_on(&ends, Box::new(Completions::fake())));
    #[cfg(any(target_os = "linux", windows))]
    check_all(&|| tls_on(&ends, Box::new(Completions::tcp())));
}

#[test]
fn zlib_on_tls_on_completions() {
    let ends = setup(Versions::Tls13);
    let stack = |below: Box<dyn Joint>| Box::new(zlib_on(tls_on(&ends, below)));
    check_all(&|| stack(Box::new(Completions::fake())));
    #[cfg(any(target_os = "linux", windows))]
    check_all(&|| stack(Box::new(Completions::tcp())));
}
