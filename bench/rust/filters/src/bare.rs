//! rustls and flate2 by themselves, in memory: what there is to reach.

use std::hint::black_box;
use std::io::{Read as _, Write as _};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use rustls::{ClientConnection, Connection, HandshakeKind, ServerConnection};

use crate::Outcome;
use crate::clock::{Measured, Stretch};
use crate::handshakes;
use crate::material::{Material, Tls};
use crate::stream::Progress;

/// What one record holds.
const RECORD: usize = 16 * 1024;

/// The two ends of a connection.
fn ends(tls: &Tls) -> Outcome<(Connection, Connection)> {
    let client = ClientConnection::new(tls.client.clone(), Tls::name())?;
    let server = ServerConnection::new(tls.server.clone())?;
    Ok((client.into(), server.into()))
}

/// Carries all records that `from` has to `to`, by way of `wire`.
fn carry(from: &mut Connection, to: &mut Connection, wire: &mut Vec<u8>) -> Outcome<()> {
    wire.clear();
    while from.wants_write() {
        from.write_tls(wire)?;
    }
    let mut rest = &wire[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest)?;
        to.process_new_packets()?;
    }
    Ok(())
}

fn shake_hands(a: &mut Connection, b: &mut Connection, wire: &mut Vec<u8>) -> Outcome<()> {
    while a.is_handshaking() || b.is_handshaking() || b.wants_write() {
        carry(a, b, wire)?;
        carry(b, a, wire)?;
    }
    Ok(())
}

/// A stream one way, a record at a time (which measured better than several): encrypted into one `Vec`, and from there decrypted
/// into another.
pub(crate) fn tls(material: &Material, tls: &Tls, seconds: f64) -> Outcome<Measured> {
    let (mut client, mut server) = ends(tls)?;
    let mut wire = Vec::new();
    shake_hands(&mut client, &mut server, &mut wire)?;
    let mut plain = vec![0; RECORD];
    let mut progress = Progress::stream_by(&material.text, RECORD, seconds);
    loop {
        if let Some(measured) = progress.measured {
            return Ok(measured);
        }
        let message = progress.next().ok_or("the last message has arrived")?;
        client.writer().write_all(message)?;
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest)?;
            let state = server.process_new_packets()?;
            let count = state.plaintext_bytes_to_read();
            server.reader().read_exact(&mut plain[..count])?;
            if progress.compares() {
                progress.compare(&plain[..count])?;
            }
            progress.arrived(count);
        }
    }
}

/// Handshakes and the byte behind them, without a socket.
pub(crate) fn handshakes(tls: &Tls, seconds: f64) -> Outcome<Measured> {
    let mut wire = Vec::new();
    let one = || {
        let (mut client, mut server) = ends(tls)?;
        shake_hands(&mut client, &mut server, &mut wire)?;
        server.writer().write_all(b"x")?;
        carry(&mut server, &mut client, &mut wire)?;
        client.reader().read_exact(&mut [0])?;
        Ok(client.handshake_kind() == Some(HandshakeKind::Resumed))
    };
    handshakes::timed(seconds, one, tls)
}

fn compress(text: &[u8], out: &mut Vec<u8>) -> Outcome<()> {
    out.clear();
    Compress::new(Compression::new(6), true).compress_vec(text, out, FlushCompress::Finish)?;
    Ok(())
}

/// The whole text compressed from one slice into a `Vec` with all its room, and back.
pub(crate) fn zlib(material: &Material, seconds: f64) -> Outcome<Measured> {
    let mut compressed = Vec::with_capacity(material.text.len());
    let mut plain = Vec::with_capacity(material.text.len());
    let mut bytes = 0;
    let stretch = Stretch::begin(seconds);
    while !stretch.is_over() {
        compress(black_box(&material.text), &mut compressed)?;
        plain.clear();
        Decompress::new(true).decompress_vec(
            black_box(&compressed),
            &mut plain,
            FlushDecompress::Finish,
        )?;
        bytes += plain.len() as u64;
    }
    let measured = stretch.end(bytes);
    if plain != material.text {
        return Err("the text has changed on its way".into());
    }
    Ok(measured)
}

/// How many times shorter the text becomes at level 6.
pub(crate) fn text_ratio(material: &Material) -> Outcome<String> {
    let mut compressed = Vec::with_capacity(material.text.len());
    compress(&material.text, &mut compressed)?;
    let ratio = material.text.len() as f64 / compressed.len() as f64;
    Ok(format!(r#"{{"ratio": {ratio}}}"#))
}
