//! Sources on real descriptors, on every backend.
#![cfg(unix)]

mod common;

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bufferevent_testkit::{fault, spec};
use common::{Entry, Log, each_backend};
use evreactor::{EventLoop, Interest, LoopHandle, Outcome, Priority, Ready, Registration, Target};

fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().expect("descriptors are left");
    near.set_nonblocking(true).expect("a socket can be");
    (near, far)
}

fn watch(handle: &LoopHandle, source: &UnixStream, log: &Arc<Log>, key: u64) -> Registration {
    handle
        .register(source, Interest::BOTH, Priority(0), log.clone(), key)
        .expect("a socket can be watched")
}

fn read_all(mut source: &UnixStream) -> (usize, bool) {
    let (mut total, mut room) = (0, [0; 4096]);
    loop {
        match source.read(&mut room) {
            Ok(0) => return (total, true),
            Ok(count) => total += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (total, false),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The bits of all events on `key` since the last look.
fn bits(log: &Log, key: u64) -> Ready {
    log.take()
        .into_iter()
        .fold(Ready::EMPTY, |sum, entry| match entry {
            Entry::Ready(of, ready) if of == key => sum | ready,
            _ => sum,
        })
}

#[test]
fn readiness_is_reported_once_per_change() {
    each_backend(|builder| {
        spec!(L1);
        let events = builder.build().expect("a loop");
        let (near, mut far) = pair();
        let log = Log::new();
        let registration = watch(&events, &near, &log, 3);
        events.run_once().expect("the loop runs");
        assert_eq!(
            bits(&log, 3),
            Ready::WRITABLE,
            "an idle stream can be written, not read"
        );
        registration.rearm().expect("the source is there");
        events.poll().expect("the loop runs");
        if registration.features().edge_triggered {
            assert!(log.take().is_empty(), "nothing has changed");
        }

        registration
            .set_interest(Interest::READ)
            .expect("the source is there");
        events.poll().expect("the loop runs");
        log.take();
        for round in 1..=3 {
            registration.rearm().expect("the source is there");
            far.write_all(b"12345").expect("the peer is there");
            assert_eq!(events.run_once().expect("the loop runs"), Outcome::Done);
            assert!(bits(&log, 3).contains(Ready::READABLE), "round {round}");
            assert_eq!(read_all(&near), (5, false));
            events.poll().expect("the loop runs");
            assert!(
                log.take().is_empty(),
                "round {round}: one change, one event"
            );
        }
        drop(registration);
        far.write_all(b"x").expect("the peer is there");
        events.poll().expect("the loop runs");
        assert!(log.take().is_empty(), "it is not watched any more");
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
    });
}

#[test]
fn the_end_of_a_stream_is_readable_and_known_early_where_promised() {
    each_backend(|builder| {
        spec!(L1);
        let events = builder.build().expect("a loop");
        let (near, mut far) = pair();
        let log = Log::new();
        let registration = watch(&events, &near, &log, 1);
        registration
            .set_interest(Interest::READ)
            .expect("the source is there");
        events.poll().expect("the loop runs");
        log.take();
        registration.rearm().expect("the source is there");
        far.write_all(b"last").expect("the peer is there");
        far.shutdown(Shutdown::Write).expect("the peer is there");
        events.run_once().expect("the loop runs");
        let ready = bits(&log, 1);
        assert!(ready.contains(Ready::READABLE));
        if registration.features().early_close {
            assert!(ready.contains(Ready::READ_CLOSED), "{ready:?}");
        }
        assert_eq!(read_all(&near), (4, true));
    });
}

/// Echoes until the end, with nothing but what the loop tells it.
struct Echo {
    registrations: std::sync::Mutex<Vec<Option<Registration>>>,
    streams: Vec<UnixStream>,
    open: AtomicUsize,
}

impl Target for Echo {
    fn run(&self, _key: u64) {}
    fn expired(&self, _key: u64) {}
    fn ready(&self, key: u64, _ready: Ready) {
        let mut stream = &self.streams[key as usize];
        let mut room = [0; 64];
        loop {
            match stream.read(&mut room) {
                Ok(0) => {
                    let ended =
                        self.registrations.lock().expect("not poisoned")[key as usize].take();
                    drop(ended);
                    self.open.fetch_sub(1, Ordering::SeqCst);
                    return;
                }
                Ok(count) => stream
                    .write_all(&room[..count])
                    .expect("a short reply has room"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        if let Some(registration) = &self.registrations.lock().expect("not poisoned")[key as usize]
        {
            registration.rearm().expect("the source is there");
        }
    }
}

#[test]
fn many_streams_echo_until_nothing_is_left() {
    const STREAMS: usize = 100;
    const MESSAGES: usize = 20;
    each_backend(|builder| {
        spec!(L1);
        let events = builder.build().expect("a loop");
        let (near, far): (Vec<_>, Vec<_>) = (0..STREAMS).map(|_| pair()).unzip();
        let echo = Arc::new(Echo {
            registrations: std::sync::Mutex::default(),
            streams: near,
            open: AtomicUsize::new(STREAMS),
        });
        for (key, stream) in echo.streams.iter().enumerate() {
            let registration = events
                .register(
                    stream,
                    Interest::READ,
                    Priority(0),
                    echo.clone(),
                    key as u64,
                )
                .expect("a socket can be watched");
            echo.registrations
                .lock()
                .expect("not poisoned")
                .push(Some(registration));
        }
        let client = std::thread::spawn(move || {
            let mut reply = [0; 16];
            for _ in 0..MESSAGES {
                for mut stream in &far {
                    stream
                        .write_all(b"sixteen bytes ..")
                        .expect("the server is there");
                }
                for mut stream in &far {
                    stream.read_exact(&mut reply).expect("the server answers");
                    assert_eq!(&reply, b"sixteen bytes ..");
                }
            }
        });
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        client.join().expect("all replies came");
        assert_eq!(echo.open.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_late_event_does_not_reach_who_got_the_row_next() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let (first, mut first_far) = pair();
        let (second, mut second_far) = pair();
        let (third, _third_far) = pair();
        first_far.write_all(b"1").expect("the peer is there");
        second_far.write_all(b"2").expect("the peer is there");
        // Both are ready in one wait. The first to be called replaces the other, in the same row of the table.
        let slots: Arc<std::sync::Mutex<Vec<Option<Registration>>>> = Arc::default();
        let (handle, inner, newcomer) = (events.clone(), slots.clone(), Log::new());
        let (third, newcomers) = (Arc::new(third), newcomer.clone());
        let stream = third.clone();
        let log = Log::acting(move |entry| {
            let Entry::Ready(key, _) = entry else { return };
            let mut slots = inner.lock().expect("not poisoned");
            let Some(other) = slots[1 - key as usize].take() else {
                return;
            };
            let row = other.token().bits() as u32;
            drop(other);
            let new = handle
                .register(&*stream, Interest::READ, Priority(0), newcomers.clone(), 9)
                .expect("a socket can be watched");
            assert_eq!(new.token().bits() as u32, row, "the row is used again");
            slots.push(Some(new));
        });
        for (key, stream) in [&first, &second].into_iter().enumerate() {
            let registration = events
                .register(stream, Interest::READ, Priority(0), log.clone(), key as u64)
                .expect("a socket can be watched");
            slots.lock().expect("not poisoned").push(Some(registration));
        }
        events.run_once().expect("the loop runs");
        events.poll().expect("the loop runs");
        assert_eq!(log.keys().len(), 1, "the other one was gone");
        assert!(newcomer.take().is_empty(), "the late event was not for it");
        slots.lock().expect("not poisoned").clear();
    });
}

/// Closes `victim`, and gives its descriptor's number to `heir`, in one step: other tests open descriptors at the same time.
fn take_number_of(victim: UnixStream, heir: UnixStream) -> UnixStream {
    let number = victim.into_raw_fd();
    // SAFETY: both numbers are open and belong to this function alone.
    let moved = unsafe { libc::dup2(heir.as_raw_fd(), number) };
    assert_eq!(moved, number, "{}", io::Error::last_os_error());
    // SAFETY: the number is open, and was taken out of its only owner above.
    unsafe { UnixStream::from_raw_fd(number) }
}

#[test]
fn a_descriptor_reused_behind_the_loops_back_harms_nobody() {
    each_backend(|builder| {
        fault!(F30);
        let events = builder.build().expect("a loop");
        let log = Log::new();
        let (bystander, mut bystander_far) = pair();
        let kept = watch(&events, &bystander, &log, 1);

        // Reused: the same number, registered by its new owner.
        let (victim, victim_far) = pair();
        let orphan = watch(&events, &victim, &log, 2);
        let (reuser, mut reuser_far) = pair();
        let reuser = take_number_of(victim, reuser);
        let reused = watch(&events, &reuser, &log, 3);
        reused
            .set_interest(Interest::READ)
            .expect("it owns the number");
        assert!(
            orphan.set_interest(Interest::READ).is_err(),
            "the number is another's now"
        );
        drop(orphan); // Must not take the new owner's registration away.
        drop(victim_far);
        events.poll().expect("the loop runs");
        log.take();

        reused.rearm().expect("it owns the number");
        kept.set_interest(Interest::READ)
            .expect("the source is there");
        reuser_far.write_all(b"r").expect("the peer is there");
        bystander_far.write_all(b"b").expect("the peer is there");
        events.run_once().expect("the loop runs");
        let mut keys = log.keys();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [1, 3],
            "both live ones are served, the closed one is not"
        );

        // Idle afterwards: no event comes again and again for what is gone.
        read_all(&reuser);
        read_all(&bystander);
        let before = events.stats().events;
        for _ in 0..10 {
            events.poll().expect("the loop runs");
        }
        assert_eq!(events.stats().events, before);
        drop((reused, kept));
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
    });
}

#[test]
fn a_report_of_one_direction_leaves_the_other_watched() {
    each_backend(|builder| {
        let events = builder.build().unwrap();
        let (near, mut far) = pair();
        let log = Log::new();
        let _registration = watch(&events, &near, &log, 1);
        events.poll().unwrap();
        assert!(bits(&log, 1).contains(Ready::WRITABLE));
        // Nobody has met would-block since, so nobody has re-armed.
        far.write_all(b"x").unwrap();
        events.poll().unwrap();
        assert!(bits(&log, 1).contains(Ready::READABLE));
    });
}

#[test]
fn what_is_not_drained_does_not_spin() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let (near, mut far) = pair();
        far.write_all(b"never read").expect("the peer is there");
        let log = Log::new();
        let registration = watch(&events, &near, &log, 1);
        events.run_once().expect("the loop runs");
        let before = events.stats();
        events
            .exit_after(common::ms(20))
            .expect("the loop is there");
        assert_eq!(events.run().expect("the loop runs"), Outcome::Exit);
        let turns = events.stats().turns - before.turns;
        assert!(turns <= 4, "{turns} turns for one timer");
        drop(registration);
    });
}

#[test]
fn several_priorities_serve_the_most_urgent_before_they_look_again() {
    each_backend(|builder| {
        spec!(L2);
        let events = builder.priorities(3).build().expect("a loop");
        let streams: Vec<_> = (0..4).map(|_| pair()).collect();
        let log = Log::new();
        let mut registrations = Vec::new();
        for (key, priority) in [(0, 2), (1, 1), (2, 0), (3, 200)] {
            let registration = events
                .register(
                    &streams[key].0,
                    Interest::READ,
                    Priority(priority),
                    log.clone(),
                    key as u64,
                )
                .expect("a socket can be watched");
            registrations.push(registration);
        }
        for (_, far) in &streams {
            (&mut &*far).write_all(b"x").expect("the peer is there");
        }
        events.poll().expect("the loop runs");
        assert_eq!(log.keys(), [2], "one level per turn");
        // News for an urgent source overtakes what waits; news for a waiting one is merged, not queued twice.
        read_all(&streams[2].0);
        registrations[2].rearm().expect("the source is there");
        (&mut &streams[2].1)
            .write_all(b"y")
            .expect("the peer is there");
        (&mut &streams[0].1)
            .write_all(b"y")
            .expect("the peer is there");
        events.poll().expect("the loop runs");
        assert_eq!(log.keys(), [2]);
        events.poll().expect("the loop runs");
        assert_eq!(log.keys(), [1]);
        events.poll().expect("the loop runs");
        let mut last = log.keys();
        last.sort_unstable();
        assert_eq!(last, [0, 3], "beyond the last priority counts as the last");
        events.poll().expect("the loop runs");
        assert!(log.take().is_empty());

        registrations[3].set_priority(Priority(0));
        for (_, far) in &streams {
            (&mut &*far).write_all(b"z").expect("the peer is there");
        }
        for registration in &registrations {
            registration.rearm().expect("the source is there");
        }
        events.poll().expect("the loop runs");
        let mut first = log.keys();
        first.sort_unstable();
        assert_eq!(first, [2, 3], "it is urgent now");
    });
}

#[test]
fn a_break_keeps_the_events_that_were_not_served() {
    each_backend(|builder| {
        spec!(L2);
        for priorities in [1, 2] {
            let events = builder
                .clone()
                .priorities(priorities)
                .build()
                .expect("a loop");
            let streams: Vec<_> = (0..5).map(|_| pair()).collect();
            let handle = events.clone();
            let log = Log::acting(move |_| handle.break_now());
            let registrations: Vec<_> = (0..5)
                .map(|key| {
                    (&streams[key].1)
                        .write_all(b"x")
                        .expect("the peer is there");
                    events
                        .register(
                            &streams[key].0,
                            Interest::READ,
                            Priority(0),
                            log.clone(),
                            key as u64,
                        )
                        .expect("a socket can be watched")
                })
                .collect();
            let mut seen = Vec::new();
            for round in 1..=5 {
                assert_eq!(events.run().expect("the loop runs"), Outcome::Break);
                assert!(events.got_break() && !events.got_exit());
                seen.extend(log.keys());
                assert_eq!(seen.len(), round, "one callback per break");
            }
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4]);
            drop(registrations);
        }
    });
}

#[test]
fn registrations_outlive_their_loop_harmlessly() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let handle = events.clone();
        let (near, _far) = pair();
        let log = Log::new();
        let registration = watch(&events, &near, &log, 1);
        assert_eq!(Arc::strong_count(&log), 2);
        drop(events);
        assert_eq!(Arc::strong_count(&log), 1, "the loop let go of its target");
        assert!(registration.set_interest(Interest::READ).is_err());
        registration.set_priority(Priority(1));
        registration
            .rearm()
            .expect("edges need nothing, and one-shot finds nothing");
        registration.deregister();
        let refused = handle.register(&near, Interest::READ, Priority(0), log.clone(), 1);
        assert_eq!(
            refused.expect_err("the loop is gone").kind(),
            io::ErrorKind::NotConnected
        );
        assert_eq!(Arc::strong_count(&log), 1);
    });
}

#[test]
fn a_refused_registration_leaves_nothing_behind() {
    each_backend(|builder| {
        let events = builder.build().expect("a loop");
        let log = Log::new();
        let (near, _far) = pair();
        let first = watch(&events, &near, &log, 1);
        let second = events.register(&near, Interest::READ, Priority(0), log.clone(), 2);
        if events.backend() == "uring" {
            // A ring polls a descriptor as often as it is asked to: nothing is refused, and the number is the second one's.
            drop(second.expect("another poll"));
            assert!(first.set_interest(Interest::READ).is_err());
            return;
        }
        assert!(second.is_err(), "the descriptor is registered already");
        assert_eq!(Arc::strong_count(&log), 2);
        first
            .set_interest(Interest::READ)
            .expect("the first one still owns the number");
        drop(first);
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
    });
}

#[test]
fn a_source_may_be_watched_and_ended_from_other_threads_while_the_loop_waits() {
    each_backend(|builder| {
        spec!(L2);
        let events = builder.build().expect("a loop");
        let hold = events.hold();
        let handle = events.clone();
        let other = std::thread::spawn(move || {
            let (near, mut far) = pair();
            let (sender, receiver) = std::sync::mpsc::channel();
            let log = Log::acting(move |_| sender.send(()).expect("the test listens"));
            let registration = handle
                .register(&near, Interest::READ, Priority(0), log, 1)
                .expect("a socket can be watched");
            far.write_all(b"x").expect("the peer is there");
            receiver
                .recv_timeout(common::PATIENCE)
                .expect("the waiting loop heard of it");
            drop(hold);
            drop(registration); // The last thing that kept the loop: it must notice.
        });
        assert_eq!(events.run().expect("the loop runs"), Outcome::Empty);
        other.join().expect("the other thread ends");
    });
}

#[test]
fn the_loop_is_for_one_thread_and_its_parts_for_all() {
    fn everywhere<T: Send + Sync>() {}
    everywhere::<LoopHandle>();
    everywhere::<Registration>();
    assert_eq!(size_of::<Registration>(), 16);
    let _ = EventLoop::new();
}
