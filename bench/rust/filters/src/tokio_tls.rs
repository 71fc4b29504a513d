//! What a user of tokio-rustls writes: two tasks on the current-thread runtime, with the settings that ours has.

use std::cell::RefCell;
use std::rc::Rc;

use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Outcome;
use crate::clock::Measured;
use crate::handshakes;
use crate::material::{Material, Tls};
use crate::stream::{Progress, WRITE};

fn runtime() -> Outcome<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?)
}

/// A stream one way over loopback TCP.
pub(crate) fn stream(material: &Material, tls: &Tls, seconds: f64) -> Outcome<Measured> {
    runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let near = TcpStream::connect(listener.local_addr()?).await?;
        let (far, _) = listener.accept().await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let connector = TlsConnector::from(tls.client.clone());
        let acceptor = TlsAcceptor::from(tls.server.clone());
        let (near, far) =
            tokio::try_join!(connector.connect(Tls::name(), near), acceptor.accept(far))?;
        let (mut near, mut far) = (near, far);
        let progress = Rc::new(RefCell::new(Progress::stream(&material.text, seconds)));
        let arrived = Notify::new();
        let send = async {
            loop {
                let message = progress.borrow_mut().next();
                match message {
                    Some(message) => near.write_all(message).await?,
                    None => {
                        near.flush().await?;
                        arrived.notified().await;
                    }
                }
            }
        };
        let receive = async {
            let mut buffer = vec![0; WRITE];
            loop {
                let count = far.read(&mut buffer).await?;
                let mut progress = progress.borrow_mut();
                if progress.compares() {
                    progress.compare(&buffer[..count])?;
                }
                progress.arrived(count);
                if let Some(measured) = progress.measured {
                    return Outcome::Ok(measured);
                }
                arrived.notify_one();
            }
        };
        tokio::select! {
            measured = receive => measured,
            failed = async { let failed: Outcome<()> = send.await; failed } => {
                failed?;
                Err("the sender never ends".into())
            }
        }
    })
}

/// Handshakes over Unix-domain socket pairs, as in `handshakes`.
pub(crate) fn handshakes(tls: &Tls, seconds: f64) -> Outcome<Measured> {
    let runtime = runtime()?;
    let connector = TlsConnector::from(tls.client.clone());
    let acceptor = TlsAcceptor::from(tls.server.clone());
    let one = || {
        runtime.block_on(async {
            let (near, far) = UnixStream::pair()?;
            let client = async {
                let mut client = connector.connect(Tls::name(), near).await?;
                client.read_exact(&mut [0]).await?;
                std::io::Result::Ok(client)
            };
            let server = async {
                let mut server = acceptor.accept(far).await?;
                server.write_all(b"x").await?;
                server.flush().await?;
                std::io::Result::Ok(server)
            };
            let (client, _server) = tokio::try_join!(client, server)?;
            Ok(client.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
        })
    };
    handshakes::timed(seconds, one, tls)
}
