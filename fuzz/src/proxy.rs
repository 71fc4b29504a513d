//! The front of a stream that may be a PROXY header, in pieces: by chance, or a right one that is damaged.
//!
//! # What is held to
//! - The answer depends neither on the pieces nor on what follows: a refusal stays one, and a header is the same.
//! - What goes up is what stands behind the header, and nothing goes up before it.
//! - A header that is read and written again is read the same.

use bufferevent_core::{Kind, Mode};
use bufferevent_filter::proxy::{
    Addresses, Header, MAX_HEADER, Parsed, ProxyReceive, Version, parse,
};
use bufferevent_filter::{Filter as _, Sink, Verdict};
use evbuffer::EvBuffer;

use bufferevent_testkit::Choices;

/// Reads the header that `data` says.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let stream = stream(&mut choices);
    let cuts: Vec<usize> = (0..choices.below(8)).map(|_| choices.below(300)).collect();
    let whole = parse(&stream);
    // Every shorter part may become what the whole is, and nothing else.
    for cut in 0..stream.len().min(MAX_HEADER + 1) {
        match parse(&stream[..cut]) {
            Ok(Parsed::Partial) => {}
            decided => assert_eq!(decided, whole, "{cut} of {stream:?}"),
        }
    }
    let (told, up, kind) = received(&stream, &cuts);
    match whole {
        Ok(Parsed::Whole { header, length }) => {
            assert_eq!(told.as_ref(), Some(&header));
            assert_eq!(up, stream[length..]);
            assert_eq!(kind, None);
            again(&header);
        }
        Ok(Parsed::Partial) => assert_eq!((told, up, kind), (None, vec![], None)),
        Err(_) => {
            assert_eq!((told, up), (None, vec![]));
            assert!(matches!(kind, Some(Kind::Peer | Kind::Limit)));
        }
    }
}

/// A right header that is then damaged, or the bytes as they are.
fn stream(choices: &mut Choices<'_>) -> Vec<u8> {
    let version = choices.pick(&[Version::V1, Version::V2]);
    let how = choices.below(8);
    let mut stream = match how {
        0 => Vec::new(),
        1 => Header::unknown(version).to_bytes(),
        2 => b"\r\n\r\n\0\r\nQUIT\n".to_vec(),
        3 => b"PROXY ".to_vec(),
        _ => {
            let ports = u16::from_le_bytes([choices.byte(), choices.byte()]);
            let source = if how & 1 == 0 {
                ([choices.byte(), 0, 2, 7], ports).into()
            } else {
                ([u16::from(choices.byte()), 0, 0, 0, 0, 0, 0, 7], ports).into()
            };
            let destination = ([127, 0, 0, 1], !ports).into();
            Header::of_addresses(version, source, destination).to_bytes()
        }
    };
    for _ in 0..choices.below(4) {
        let at = choices.below(stream.len().max(1));
        let byte = choices.byte();
        if let Some(damaged) = stream.get_mut(at) {
            *damaged = byte;
        }
    }
    let behind = choices.below(1 << 10);
    stream.extend(choices.take(behind));
    stream
}

/// The same stream through the filter, cut as `cuts` say.
fn received(stream: &[u8], cuts: &[usize]) -> (Option<Header>, Vec<u8>, Option<Kind>) {
    let mut filter = ProxyReceive::new();
    let (mut source, mut up) = (EvBuffer::new(), EvBuffer::new());
    let mut rest = stream;
    let mut cuts = cuts.iter();
    let mut failed = None;
    loop {
        let cut = cuts.next().map_or(rest.len(), |cut| (*cut).min(rest.len()));
        let (piece, behind) = rest.split_at(cut);
        source.append_slice(piece).expect("there is memory");
        rest = behind;
        match filter.input(
            &mut source,
            &mut Sink::new(&mut up, usize::MAX),
            Mode::Normal,
        ) {
            Ok(verdict) => assert_eq!(verdict, Verdict::NeedInput),
            Err(error) => failed = Some(error.kind()),
        }
        if filter.handshaking() {
            assert!(up.is_empty());
        }
        if rest.is_empty() {
            break;
        }
    }
    let mut bytes = vec![0; up.len()];
    up.remove(&mut bytes);
    (filter.header().cloned(), bytes, failed)
}

fn again(header: &Header) {
    if header.version() == Version::V1 && matches!(header.addresses(), Addresses::Unix { .. }) {
        panic!("version 1 has no paths");
    }
    let bytes = header.to_bytes();
    let Ok(Parsed::Whole {
        header: read,
        length,
    }) = parse(&bytes)
    else {
        panic!("{header:?} is written as {bytes:?}");
    };
    assert_eq!(length, bytes.len());
    assert_eq!(read.addresses(), header.addresses());
}
