//! A descriptor that is closed behind the library's back. Alone in its process: nobody else may get its number meanwhile.

#![cfg(unix)]

mod common;

use std::io::Write as _;

use bufferevent_core::{Kind, READ};
use bufferevent_socket::Builder;
use bufferevent_testkit::{Log, Told, fault};
use common::everywhere;

#[test]
fn a_descriptor_that_was_closed_and_reused_harms_only_its_owner() {
    everywhere(|net| {
        fault!(F30);
        let (good, mut good_far) = net.bev_and_plain();
        good.enable(READ).unwrap();
        let (near, far) = net.plain_pair();
        let raw = std::os::fd::AsRawFd::as_raw_fd(&near);
        // SAFETY: the contract is broken on purpose, as a program might: the number is closed below while the bufferevent
        // has it. Nothing is unsound about a wrong number; it is somebody else's socket or none.
        #[allow(unsafe_code)]
        let bad = unsafe { Builder::new(&net.events).borrow_raw(raw) }.unwrap();
        let log = Log::new();
        bad.set_handler(log.watch()).unwrap();
        net.settle();
        drop(near);
        bad.enable(READ).unwrap();
        bad.write(b"into nothing").unwrap();
        net.settle();
        let failed = |told: &Told| matches!(told, Told::Error(_, Kind::System));
        assert!(log.events().iter().any(failed), "{:?}", log.events());
        // The number's next owner is heard, and the old one is not.
        let (next, mut next_far) = net.bev_and_plain();
        next.enable(READ).unwrap();
        next_far.write_all(b"next").unwrap();
        good_far.write_all(b"good").unwrap();
        net.until("both", || {
            next.input().len() == 4 && good.input().len() == 4
        });
        let _ = bad.free();
        next_far.write_all(b"more").unwrap();
        net.until("more", || next.input().len() == 8);
        drop(far);
    });
}
