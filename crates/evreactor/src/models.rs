//! Models of a loop's shared half, run by loom in every order of steps that matters: posting against falling asleep. `cargo xtask loom`
//! runs them.
//!
//! The loop is this crate's [`Shared`], with a backend that only counts how often it is woken. loom lets a load that is not `SeqCst` read an
//! older value, as a processor may.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use evreactor_core::sync::atomic::{AtomicUsize, Ordering};
use evreactor_core::sync::thread;
use evreactor_core::{Clock, Host as _, Moment, Phase, Ready, Target};

use crate::backend::{Features, Interest, Registrar};
use crate::shared::Shared;
use crate::source::{RawSource, Token};

/// Time stands still.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Moment {
        Moment::ZERO
    }
}

/// Counts the wake-ups.
struct Woken(AtomicUsize);

impl Registrar for Woken {
    fn features(&self) -> Features {
        Features::NONE
    }
    fn register(&self, _: RawSource, _: Token, _: Interest) -> io::Result<()> {
        Ok(())
    }
    fn modify(&self, _: RawSource, _: Token, _: Interest) -> io::Result<()> {
        Ok(())
    }
    fn deregister(&self, _: RawSource, _: Token) -> io::Result<()> {
        Ok(())
    }
    fn wake(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Counts its calls.
struct Calls(AtomicUsize);

impl Target for Calls {
    fn run(&self, _: u64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn expired(&self, _: u64) {}
    fn ready(&self, _: u64, _: Ready) {}
}

fn a_loop() -> (Arc<Shared>, Arc<Woken>) {
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let shared = Shared::new(Arc::new(Still), "modelled", woken.clone(), 1);
    (Arc::new(shared), woken)
}

fn run_turn(shared: &Shared) {
    for _ in 0..shared.turn_len() {
        if let Some(call) = shared.pop_turn() {
            call.target.run(call.key);
        }
    }
}

#[test]
fn no_call_is_scheduled_behind_a_loop_that_sleeps() {
    loom::model(|| {
        let (shared, woken) = a_loop();
        let calls = Arc::new(Calls(AtomicUsize::new(0)));
        let posters: Vec<_> = (0..2)
            .map(|_| {
                let (shared, calls) = (shared.clone(), calls.clone());
                thread::spawn(move || {
                    let posted = shared.schedule(Phase::Turn, calls, 0);
                    posted.expect("it is not closed");
                })
            })
            .collect();
        // One turn of the loop, as `event_loop.rs` makes it: it says that it lies down, looks once more, and waits.
        let wait = shared.lie_down();
        for poster in posters {
            poster.join().expect("no panic");
        }
        let wakes = woken.0.load(Ordering::Relaxed);
        assert!(wakes <= 1, "one wake-up per sleep");
        assert!(
            wait == Some(Duration::ZERO) || wakes == 1,
            "it sleeps on a call"
        );
        shared.get_up();
        run_turn(&shared);
        assert_eq!(calls.0.load(Ordering::Relaxed), 2);
        assert_eq!(shared.lie_down(), None, "nothing is left");
    });
}

#[test]
fn an_exit_that_is_asked_for_ends_the_wait() {
    loom::model(|| {
        let (shared, woken) = a_loop();
        let asker = thread::spawn({
            let shared = shared.clone();
            move || shared.request_exit()
        });
        let wait = shared.lie_down();
        asker.join().expect("no panic");
        let wakes = woken.0.load(Ordering::Relaxed);
        assert!(wait == Some(Duration::ZERO) || wakes == 1);
        shared.get_up();
        assert!(shared.take_exit());
    });
}
