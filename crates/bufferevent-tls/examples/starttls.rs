//! A server that speaks a little SMTP and puts TLS on when it is asked to:
//! `cargo run -p bufferevent-tls --example starttls -- chain.pem key.pem 127.0.0.1:2525`, then
//! `openssl s_client -starttls smtp -connect 127.0.0.1:2525`.

use std::error::Error as StdError;
use std::time::Duration;
use std::{env, fs};

use bufferevent_core::{Bev, Event, Handler, Options, READ};
use bufferevent_filter::{FilterExt as _, Filtering};
use bufferevent_socket::Listener;
use bufferevent_tls::{Tls, TlsServer};
use evbuffer::Eol;
use evreactor::EventLoop;

const PATIENCE: Duration = Duration::from_secs(10);

/// The longest line of a command, in bytes, its end included (RFC 5321, section 4.5.3.1.4).
const MAX_LINE: usize = 512;

/// Whether the stream is protected.
enum Cover {
    /// Not yet; this makes the filter.
    Plain(TlsServer),
    Tls,
}

struct Session(Cover);

impl Session {
    /// Answers one line. What comes after TLS was put on is another session's.
    fn answer(&mut self, bev: &Bev, line: &[u8]) -> Result<(), Box<dyn StdError>> {
        let verb = line.split(|byte| *byte == b' ').next().unwrap_or(line);
        match (verb.to_ascii_uppercase().as_slice(), &self.0) {
            (b"EHLO", Cover::Plain(_)) => bev.write(b"250-starttls.example\r\n250 STARTTLS\r\n")?,
            (b"STARTTLS", Cover::Plain(_)) if !bev.input().is_empty() => {
                // Somebody on the way may have put commands behind this one, to be taken for protected (RFC 3207, section 6).
                bev.write(b"554 nothing may follow STARTTLS\r\n")?;
                bev.free_when_written()?;
            }
            (b"STARTTLS", Cover::Plain(server)) => {
                bev.write(b"220 go ahead\r\n")?;
                let top = bev.put_on(Options::CLOSE_ON_FREE, Filtering::new(server.filter()?))?;
                top.set_connect_timeout(Some(PATIENCE))?;
                top.set_handler(Session(Cover::Tls))?;
            }
            (b"EHLO", Cover::Tls) => {
                let version = bev
                    .filter_of::<Tls>()
                    .and_then(|tls| tls.with(|tls| tls.protocol_version()).ok());
                let version = version.flatten().ok_or("no TLS below")?;
                bev.write(format!("250 protected by {version:?}\r\n").as_bytes())?;
            }
            (b"QUIT", _) => {
                bev.write(b"221 goodbye\r\n")?;
                bev.close(PATIENCE)?;
            }
            (b"NOOP", _) => bev.write(b"250 done\r\n")?,
            _ => bev.write(b"502 not here\r\n")?,
        }
        Ok(())
    }
}

impl Handler for Session {
    fn on_read(&mut self, bev: &Bev) {
        loop {
            let line = match bev.input().read_line(Eol::Crlf, MAX_LINE) {
                Ok(Some(line)) => line,
                Ok(None) => return,
                // Covered by TLS now, or a line without end.
                Err(_) => return,
            };
            if let Err(error) = self.answer(bev, &line) {
                eprintln!("{error}");
                let _ = bev.free();
                return;
            }
        }
    }

    fn on_event(&mut self, bev: &Bev, event: &Event) {
        match event {
            Event::Connected => {}
            Event::Error { error, .. } => {
                eprintln!("{error}");
                let _ = bev.free();
            }
            _ => {
                let _ = bev.free_when_written();
            }
        }
    }
}

fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = env::args().skip(1);
    let chain = fs::read(arguments.next().ok_or("which certificate chain?")?)?;
    let key = fs::read(arguments.next().ok_or("which key?")?)?;
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:2525".to_owned());
    let server = TlsServer::new(&chain, &key)?;

    let events = EventLoop::new()?;
    let listener = Listener::bind(&events, address.as_str(), move |bev, _peer| {
        bev.write(b"220 starttls.example ESMTP\r\n")?;
        bev.set_handler(Session(Cover::Plain(server.clone())))?;
        bev.enable(READ)
    })?;
    println!("listening at {}", listener.local_addr()?);
    events.run()?;
    Ok(())
}
