//! F30: a descriptor that is closed behind the loop's back. Alone in its program: nobody else opens a descriptor meanwhile, which would
//! get the number that was closed.
#![cfg(unix)]

mod common;

use std::os::unix::net::UnixStream;

use bufferevent_testkit::fault;
use common::{Log, each_backend};
use evreactor::{Interest, Priority};

#[test]
fn a_descriptor_closed_behind_the_loops_back_makes_no_event() {
    each_backend(|builder| {
        fault!(F30);
        let events = builder.build().expect("a loop");
        let log = Log::new();
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        near.set_nonblocking(true).expect("it can be set");
        let dangling = events
            .register(&near, Interest::BOTH, Priority::default(), log.clone(), 2)
            .expect("it is watched");
        // The registration outlives its descriptor.
        drop((near, far));
        events.poll().expect("the loop runs");
        log.take();
        events.poll().expect("the loop runs");
        assert!(log.take().is_empty(), "what is gone is told of no more");
        drop(dangling);
    });
}
