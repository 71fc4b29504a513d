//! A pair needs no descriptor and makes no system call. Alone in its process: it counts the descriptors.

#![cfg(target_os = "linux")]

use std::sync::Arc;

use bufferevent_core::{Options, READ};
use bufferevent_pair::pair_with;
use bufferevent_testkit::{Loop, record, spec};
use evreactor::EventLoop;
use evreactor_core::{AsHost, Host};

/// Runs a check on the virtual loop and on a real one over each backend.
fn on_every_loop(check: fn(&Arc<dyn Host>, &dyn Fn())) {
    record::within("pair", "virtual", || {
        let events = Loop::new();
        check(&events.as_host(), &|| events.run());
    });
    for backend in ["mio", "polling"] {
        record::within("pair", backend, || {
            let events = EventLoop::builder().backend(backend).build().unwrap();
            check(&events.as_host(), &|| {
                for _ in 0..4 {
                    events.poll().unwrap();
                }
            });
        });
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn it_needs_no_descriptor_and_no_system() {
    fn transfers() -> String {
        let counts = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        // Not the look at the counts itself.
        counts
            .lines()
            .filter(|line| line.starts_with("syscw"))
            .collect()
    }
    on_every_loop(|host, run| {
        spec!(P3);
        let before = descriptors();
        let (near, far) = pair_with(host, Options::DEFER_CALLBACKS).unwrap();
        near.set_timeouts(Some(std::time::Duration::from_secs(5)), None)
            .unwrap();
        far.enable(READ).unwrap();
        near.enable(READ).unwrap();
        run();
        let written = transfers();
        for _ in 0..100 {
            near.write(b"ping").unwrap();
            run();
            far.output().append_from(&far.input()).unwrap();
            run();
            near.input().drain(4).unwrap();
        }
        assert_eq!(written, transfers());
        assert_eq!(before, descriptors());
        assert_eq!((near.stats().read, far.stats().read), (400, 400));
    });
}
