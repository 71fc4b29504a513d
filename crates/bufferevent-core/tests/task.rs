//! Futures on a loop: polled there, woken from anywhere, ended by their end, by `cancel`, by a panic, or with the loop.

mod common_async;

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};

use bufferevent_core::task::{Stopped, spawn, spawn_local};
use bufferevent_core::{AsyncBev, Kind};
use bufferevent_pair::pair;
use bufferevent_testkit::{Loop, fault};
use common_async::{counted, run, start};
use futures_util::io::{AsyncReadExt, AsyncWriteExt};

/// Tells by its drop that the future which owns it is gone.
struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A future that waits until it is opened, from any thread.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, Option<Waker>)>>);

impl Gate {
    fn open(&self) {
        let waker = {
            let mut gate = self.0.lock().unwrap();
            gate.0 = true;
            gate.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn passed(&self) {
        poll_fn(|cx| {
            let mut gate = self.0.lock().unwrap();
            if gate.0 {
                return Poll::Ready(());
            }
            gate.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[test]
fn a_task_results_in_what_its_future_does() {
    let events = Loop::new();
    let gate = Gate::default();
    let waits = gate.clone();
    let task = spawn(&events, async move {
        waits.passed().await;
        6 * 7
    })
    .unwrap();
    assert!(!task.is_over());
    let result = start(&events, task);
    events.run();
    assert!(!result.is_there());
    gate.open();
    events.run();
    assert_eq!(result.take(), Ok(42));
}

#[test]
fn a_future_that_cannot_be_sent_runs_on_its_thread_and_only_there() {
    let events = Loop::new();
    let seen = Rc::new(Cell::new(0));
    let counter = seen.clone();
    let task = spawn_local(&events, async move { counter.set(counter.get() + 1) }).unwrap();
    assert_eq!(seen.get(), 0, "not on the caller's stack");
    events.run();
    assert_eq!(
        (seen.get(), Rc::strong_count(&seen), task.is_over()),
        (1, 1, true)
    );

    let refused = std::thread::scope(|scope| {
        let elsewhere = || spawn_local(&events, async {}).map(drop).unwrap_err().kind();
        scope.spawn(elsewhere).join().unwrap()
    });
    assert_eq!(refused, Kind::WrongThread);
}

#[test]
fn a_task_is_spawned_woken_and_cancelled_from_other_threads() {
    let events = Loop::new();
    let gone = Arc::new(AtomicUsize::new(0));
    let (gate, mark) = (Gate::default(), Gone(gone.clone()));
    let waits = gate.clone();
    let on = std::thread::current().id();
    let elsewhere = std::thread::scope(|scope| {
        let spawned = scope.spawn(|| {
            let first = spawn(&events, async move {
                waits.passed().await;
                std::thread::current().id()
            });
            let second = spawn(&events, async move {
                let _mark = mark;
                pending::<()>().await;
            });
            (first.unwrap(), second.unwrap())
        });
        spawned.join().unwrap()
    });
    events.run();
    assert_eq!(gone.load(Ordering::Relaxed), 0);
    let (first, second) = elsewhere;
    std::thread::spawn(move || gate.open()).join().unwrap();
    assert_eq!(run(&events, first), Ok(on), "on the loop's thread");
    std::thread::scope(|scope| {
        scope.spawn(|| second.cancel());
    });
    events.run();
    assert_eq!(gone.load(Ordering::Relaxed), 1);
    assert_eq!(run(&events, second), Err(Stopped::Cancelled));
}

#[test]
fn wakes_from_four_threads_are_none_lost() {
    const WAKES: usize = 2_000;
    let events = Loop::new();
    let (sender, receiver) = mpsc::channel::<usize>();
    let waker = Arc::new(Mutex::new(None::<Waker>));
    let place = waker.clone();
    let sum = start(&events, async move {
        let (mut sum, mut got) = (0, 0);
        poll_fn(|cx| {
            // First the waker, then the look: the other way round is what loses wakes.
            *place.lock().unwrap() = Some(cx.waker().clone());
            while let Ok(number) = receiver.try_recv() {
                sum += number;
                got += 1;
            }
            if got == 4 * WAKES {
                Poll::Ready(sum)
            } else {
                Poll::Pending
            }
        })
        .await
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (sender, waker) = (sender.clone(), waker.clone());
            scope.spawn(move || {
                for number in 0..WAKES {
                    sender.send(number).unwrap();
                    let waker = waker.lock().unwrap().clone();
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
            });
        }
        // Turns while they wake: what was woken last is polled by one of these, or by the run below.
        for _ in 0..1_000 {
            events.turn();
        }
    });
    events.run();
    assert_eq!(sum.take(), 4 * (WAKES * (WAKES - 1) / 2));
}

#[test]
fn who_wakes_itself_is_polled_once_per_turn() {
    let events = Loop::new();
    let (restless, polls) = counted(poll_fn(|cx| {
        for _ in 0..3 {
            cx.waker().wake_by_ref();
        }
        Poll::<()>::Pending
    }));
    let restless = start(&events, restless);
    for _ in 0..5 {
        events.turn();
    }
    assert_eq!(polls.get(), 5);
    restless.cancel();
    events.run();
}

#[test]
fn many_wakes_before_a_turn_are_one_poll() {
    let events = Loop::new();
    let place = Rc::new(Cell::new(None));
    let waker = place.clone();
    let (waiting, polls) = counted(poll_fn(move |cx| {
        waker.set(Some(cx.waker().clone()));
        Poll::<()>::Pending
    }));
    let waiting = start(&events, waiting);
    events.run();
    let waker = place.take().unwrap();
    for _ in 0..10 {
        waker.wake_by_ref();
    }
    events.run();
    assert_eq!(polls.get(), 2);
    waiting.cancel();
    events.run();
    waker.wake(); // Nobody is there any more.
    assert!(events.is_idle());
}

#[test]
fn a_panic_ends_its_task_and_nothing_else() {
    fault!(F85);
    let events = Loop::new();
    let (near, far) = pair(&events).unwrap();
    let (mut near, mut far) = (AsyncBev::new(near).unwrap(), AsyncBev::new(far).unwrap());
    let broken = spawn_local(&events, async move {
        let mut asked = [0; 4];
        far.read_exact(&mut asked).await.unwrap();
        far.write_all(b"partial").await.unwrap();
        panic!("in a future");
    });
    let heard = run(&events, async move {
        near.write_all(b"ask!").await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        answer
    });
    assert_eq!(heard, "partial", "its bufferevent was dropped with it");
    assert_eq!(events.panics(), 1);
    let why: Result<(), Stopped> = run(&events, broken.unwrap());
    assert_eq!(why, Err(Stopped::Panicked));
}

#[test]
fn a_panic_in_the_drop_of_a_future_is_caught_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }
    let events = Loop::new();
    let bomb = Bomb;
    let task = spawn_local(&events, async move {
        let _bomb = bomb;
        pending::<()>().await;
    })
    .unwrap();
    events.run();
    task.cancel();
    events.run();
    assert_eq!(events.panics(), 1);
    assert_eq!(run(&events, task), Err(Stopped::Panicked));
}

#[test]
fn a_task_that_is_let_go_runs_on_and_a_cancelled_one_does_not() {
    let events = Loop::new();
    let gone = Arc::new(AtomicUsize::new(0));
    for cancelled in [false, true] {
        let gate = Gate::default();
        let (waits, mark, passed) = (gate.clone(), Gone(gone.clone()), gone.clone());
        let task = spawn_local(&events, async move {
            let _mark = mark;
            waits.passed().await;
            passed.fetch_add(10, Ordering::Relaxed);
        })
        .unwrap();
        events.run();
        gate.open();
        if cancelled {
            task.cancel(); // Woken and cancelled in one turn: it is not polled any more.
        }
    }
    events.run();
    assert_eq!(
        gone.load(Ordering::Relaxed),
        2 + 10,
        "both gone, one came past the gate"
    );
}

#[test]
fn a_loop_that_closes_drops_its_futures_and_tells_who_waits() {
    let events = Loop::new();
    let other = Loop::new();
    let gone = Arc::new(AtomicUsize::new(0));
    let waiting = |mark: Gone| async move {
        let _mark = mark;
        pending::<()>().await;
    };
    let polled = spawn(&events, waiting(Gone(gone.clone()))).unwrap();
    let local = spawn_local(&events, waiting(Gone(gone.clone()))).unwrap();
    let elsewhere = spawn_local(&other, waiting(Gone(gone.clone()))).unwrap();
    events.run();
    let never_polled = spawn(&events, waiting(Gone(gone.clone()))).unwrap();
    let (near, _far) = pair(&events).unwrap();
    let mut near = AsyncBev::new(near).unwrap();
    let bev = near.bev().clone();
    let reads = spawn_local(&events, async move { near.read(&mut [0; 1]).await.is_ok() }).unwrap();
    events.turn();

    let host = bev.host();
    drop(events);
    assert_eq!(gone.load(Ordering::Relaxed), 3);
    let refused = spawn(&host, async {}).map(drop).unwrap_err();
    assert_eq!(refused.kind(), Kind::LoopClosed);
    for task in [polled, local, never_polled] {
        assert_eq!(run(&other, task), Err(Stopped::Cancelled));
    }
    assert_eq!(run(&other, reads), Err(Stopped::Cancelled));
    assert!(!elsewhere.is_over(), "it is another loop's");
    drop(other);
    assert_eq!(gone.load(Ordering::Relaxed), 4);
}

#[test]
fn tasks_wait_for_tasks_in_constant_stack() {
    let events = Loop::new();
    let gate = Gate::default();
    let waits = gate.clone();
    let mut last = spawn_local(&events, async move {
        waits.passed().await;
        0_u32
    })
    .unwrap();
    for _ in 0..100_000 {
        let before = last;
        last = spawn_local(&events, async move { before.await.unwrap() + 1 }).unwrap();
    }
    events.run();
    gate.open();
    assert_eq!(run(&events, last), Ok(100_000));
}
