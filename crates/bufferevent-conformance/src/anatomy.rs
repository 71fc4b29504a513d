//! A1 to A6: what a bufferevent is made of.

use std::sync::Arc;

use bufferevent_core::{Bev, Direction, Directions, Kind, Options, READ, TriggerOptions, WRITE};
use bufferevent_testkit::{Log, Through, spec};
use evbuffer::EvBuffer;

use crate::joint::{Check, Joint};

pub(crate) const CHECKS: &[Check] = &[
    (
        "bytes pass through two buffers and a transport",
        two_buffers,
    ),
    ("a layer cannot be told from what it stands on", any_type),
    (
        "the application takes from the input and adds to the output",
        ends_of_buffers,
    ),
    ("writing and draining restart what had stopped", restarts),
    (
        "a covered bufferevent keeps its marks and gives up its data",
        covered,
    ),
    ("what is below is found from the top", found_from_the_top),
    ("the loop can be asked for", the_loop),
    ("a new one writes and does not read", at_first),
];

fn two_buffers(joint: &dyn Joint) {
    spec!(A1);
    let (near, far) = joint.pair();
    near.disable(WRITE).unwrap();
    near.write(b"over there").unwrap();
    joint.settle();
    assert_eq!(
        (near.output().len(), far.input().len()),
        (10, 0),
        "it waits in the output"
    );
    far.enable(READ).unwrap();
    near.enable(WRITE).unwrap();
    joint.until("the bytes", || far.input().len() == 10);
    assert_eq!(
        (near.output().len(), near.input().len(), far.output().len()),
        (0, 0, 0)
    );
    let (sent, came) = (near.stats(), far.stats());
    assert_eq!(
        (sent.written, sent.read, came.read, came.written),
        (10, 0, 10, 0)
    );
    assert_eq!(joint.take(&far, 10), b"over there");
}

/// Asks an echo through whatever `near` and `far` are.
fn echo(joint: &dyn Joint, near: &Bev, far: &Bev) {
    far.set_handler(bufferevent_core::on_read(|bev| {
        bev.output().append_from(&bev.input()).unwrap();
    }))
    .unwrap();
    far.enable(READ).unwrap();
    near.write(b"say it again").unwrap();
    assert_eq!(joint.take(near, 12), b"say it again");
}

fn any_type(joint: &dyn Joint) {
    spec!(A2);
    let (near, far) = joint.pair();
    echo(joint, &near, &far);
    // A type of the user's own on one end: the same code, the same behaviour.
    let (near, far) = joint.pair();
    let near = near
        .over(Options::EMPTY, Through::new().named("mine").chunk(5))
        .unwrap();
    echo(joint, &near, &far);
    assert!(near.layer::<Through>().is_some());
}

fn ends_of_buffers(joint: &dyn Joint) {
    spec!(A3);
    // That `Input` has nothing that adds, and `Output` nothing that removes, the compiler says: see the crate's page.
    let (near, far) = joint.pair();
    far.disable(WRITE).unwrap();
    far.output().append(b"second").unwrap();
    far.output().append_bytes("third".into()).unwrap();
    near.write(b"first").unwrap();
    assert_eq!(joint.take(&far, 5), b"first");
    // What was taken came from the front of the input, and the output has only grown.
    assert_eq!(far.output().len(), 11);
    far.enable(WRITE).unwrap();
    assert_eq!(joint.take(&near, 11), b"secondthird");
}

fn restarts(joint: &dyn Joint) {
    spec!(A4);
    let (near, far) = joint.pair();
    far.set_read_watermark(0, 100).unwrap();
    far.enable(READ).unwrap();
    near.write(&[1; 10]).unwrap();
    joint.until("the first bytes", || far.input().len() == 10);
    // The writer has stopped for lack of data; adding starts it again.
    near.write(&[2; 240]).unwrap();
    joint.until("a full input", || far.input().len() == 100);
    joint.settle();
    assert_eq!(far.input().len(), 100, "the reader has stopped at its mark");
    // Draining starts it again, from here or from anywhere.
    assert_eq!(far.input().drain(60).unwrap(), 60);
    joint.until("the input to fill up again", || far.input().len() == 100);
    let mut rest = EvBuffer::new();
    assert_eq!(far.read_buffer(&mut rest).unwrap(), 100);
    joint.until("the rest", || far.input().len() == 90);
}

fn covered(joint: &dyn Joint) {
    spec!(A5);
    let (near, far) = joint.pair();
    let top = near.over(Options::EMPTY, Through::new()).unwrap();
    assert_eq!(top.underlying(), Some(near.clone()));

    far.write(b"for the layer").unwrap();
    joint.settle();
    let kind = |result: Result<(), bufferevent_core::Error>| result.unwrap_err().kind();
    let mut buffer = EvBuffer::new();
    buffer.append_slice(b"kept").unwrap();
    assert_eq!(kind(near.write(b"no")), Kind::Covered);
    assert_eq!(kind(near.write_buffer(&mut buffer)), Kind::Covered);
    assert_eq!(buffer.len(), 4, "a refusal takes nothing");
    assert_eq!(kind(near.read(&mut [0; 4]).map(drop)), Kind::Covered);
    assert_eq!(kind(near.read_buffer(&mut buffer).map(drop)), Kind::Covered);
    assert_eq!(kind(near.input().drain(1).map(drop)), Kind::Covered);
    assert_eq!(
        kind(near.output().append_from(&near.input()).map(drop)),
        Kind::Covered
    );
    assert_eq!(
        kind(top.output().append_from(&near.input()).map(drop)),
        Kind::Covered
    );
    assert_eq!(kind(near.set_handler(Log::new().watch())), Kind::Covered);
    assert_eq!(kind(near.replace_handler(None).map(drop)), Kind::Covered);
    assert_eq!(kind(near.enable(READ)), Kind::Covered);
    assert_eq!(kind(near.disable(WRITE)), Kind::Covered);
    assert_eq!(kind(near.finish()), Kind::Covered);
    assert_eq!(
        kind(near.trigger(READ, TriggerOptions::IGNORE_WATERMARKS)),
        Kind::Covered
    );
    assert_eq!(
        kind(near.over(Options::EMPTY, Through::new()).map(drop)),
        Kind::Covered
    );

    near.set_write_watermark(1, 1000).unwrap();
    near.set_read_watermark(0, 1000).unwrap();
    near.set_max_single_read(512).unwrap();
    near.set_timeouts(None, None).unwrap();
    assert_eq!(near.watermark(Direction::Write).high(), 1000);
    assert_eq!(near.max_single_read(), 512);
    top.enable(READ).unwrap();
    joint.until("the bytes on top", || top.input().len() == 13);
    assert_eq!(near.stats().read, 13);
}

fn found_from_the_top(joint: &dyn Joint) {
    spec!(A5);
    let (near, _far) = joint.pair();
    let middle = near
        .over(Options::EMPTY, Through::new().named("middle"))
        .unwrap();
    let top = middle
        .over(Options::EMPTY, Through::new().named("top"))
        .unwrap();
    let found = top.layer::<Through>().unwrap();
    assert_eq!(found.bev(), Some(top.clone()), "the first from the top");
    let name = |through: &mut Through, _: &mut bufferevent_core::Context<'_>| {
        bufferevent_core::Bufferevent::name(through)
    };
    assert_eq!(found.with(name).unwrap(), "top");
    assert_eq!(
        middle.layer::<Through>().unwrap().with(name).unwrap(),
        "middle"
    );
    assert_eq!(joint.place(&top).is_some(), joint.has_descriptor());
    assert_eq!(joint.place(&top), joint.place(&near));
}

fn the_loop(joint: &dyn Joint) {
    spec!(A5);
    let (near, far) = joint.pair();
    for bev in [near, far] {
        assert!(Arc::ptr_eq(&bev.host(), &joint.host()));
    }
}

fn at_first(joint: &dyn Joint) {
    spec!(A6);
    let (near, far) = joint.pair();
    assert_eq!((near.enabled(), far.enabled()), (WRITE, WRITE));
    near.write(b"x").unwrap();
    joint.settle();
    assert_eq!(
        (far.stats().read, far.input().len()),
        (0, 0),
        "nobody reads yet"
    );
    let top = far.over(Options::EMPTY, Through::new()).unwrap();
    assert_eq!(top.enabled(), WRITE);
    assert_eq!(top.enabled().and(Directions::READ), Directions::EMPTY);
}
