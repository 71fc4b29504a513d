//! THREADSAFE bufferevents polled by another thread's executor, while their loop runs: over sockets, with and without layers.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bufferevent::filter::FilterExt as _;
use bufferevent::{
    Address, AsyncBev, Bev, EventLoop, Listener, LoopHandle, Options, Zlib, pair_with, task,
};
use bufferevent_testkit::Random;
use futures_util::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes in each direction.
const BYTES: usize = 2_000_000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor: polls on this thread, and sleeps in between.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(result) => return result,
            Poll::Pending => thread::park(),
        }
    }
}

/// Sends and receives at once, with flushes, to both ends of the stream.
async fn exchange(bev: AsyncBev, seed: u64) -> io::Result<Vec<u8>> {
    let (mut reader, mut writer) = bev.split();
    let sending = async move {
        let mut random = Random::new(seed);
        let bytes = random.bytes(BYTES);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(random.within(1..20_000).min(rest.len()));
            writer.write_all(piece).await?;
            if random.once_in(4) {
                writer.flush().await?;
            }
            rest = behind;
        }
        writer.close().await
    };
    let receiving = async move {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await?;
        Ok(all)
    };
    let ((), all) = futures_util::future::try_join(sending, receiving).await?;
    Ok(all)
}

/// Has two threads exchange over two bufferevents while this one runs their loop.
fn exchange_elsewhere(events: &EventLoop, near: Bev, far: Bev) {
    let sides = [(near, 1), (far, 2)].map(|(bev, seed)| {
        let bev = AsyncBev::new(bev).unwrap();
        thread::spawn(move || block_on(exchange(bev, seed)))
    });
    let hold = events.hold();
    let stop = LoopHandle::clone(events);
    let watcher = thread::spawn(move || {
        let results = sides.map(|side| side.join().unwrap());
        stop.exit();
        results
    });
    events.run().unwrap();
    drop(hold);
    let [near, far] = watcher.join().unwrap();
    assert!(
        near.unwrap() == Random::new(2).bytes(BYTES),
        "other bytes at the near end"
    );
    assert!(
        far.unwrap() == Random::new(1).bytes(BYTES),
        "other bytes at the far end"
    );
}

#[test]
fn both_ends_of_a_pair_are_polled_by_other_threads() {
    let events = EventLoop::new().unwrap();
    let (near, far) = pair_with(&events, Options::THREADSAFE).unwrap();
    exchange_elsewhere(&events, near, far);
}

#[test]
fn both_ends_of_a_pair_with_layers_are_polled_by_other_threads() {
    let events = EventLoop::new().unwrap();
    let (near, far) = pair_with(&events, Options::THREADSAFE).unwrap();
    let zlib = |bev: Bev| bev.filter(Options::CLOSE_ON_FREE, Zlib::default()).unwrap();
    exchange_elsewhere(&events, zlib(near), zlib(far));
}

#[test]
fn deferred_and_unlocked_callbacks_wake_as_well() {
    let events = EventLoop::new().unwrap();
    let options = Options::THREADSAFE | Options::DEFER_CALLBACKS | Options::UNLOCK_CALLBACKS;
    let (near, far) = pair_with(&events, options).unwrap();
    exchange_elsewhere(&events, near, far);
}

#[test]
fn a_socket_is_polled_by_another_thread() {
    let events = EventLoop::new().unwrap();
    let (on, stop) = (events.clone(), events.clone());
    let listener = Listener::bind(&events, "127.0.0.1:0", move |bev, _| {
        // This end on the loop, the other on a thread of its own.
        let stop = stop.clone();
        let bev = AsyncBev::new(bev)?;
        task::spawn(&on, async move {
            let all = exchange(bev, 2).await.unwrap();
            assert!(
                all == Random::new(1).bytes(BYTES),
                "other bytes at the loop's end"
            );
            stop.exit();
        })?;
        Ok(())
    })
    .unwrap();
    let Address::Tcp(address) = listener.local_addr().unwrap() else {
        unreachable!("it was bound to one")
    };
    let socket = bufferevent::Builder::new(&events)
        .options(Options::THREADSAFE)
        .connect(address)
        .unwrap();
    let bev = AsyncBev::new(socket).unwrap();
    let client = thread::spawn(move || block_on(exchange(bev, 1)));
    events.run_until_exit().unwrap();
    let hold = events.hold();
    let stop = events.clone();
    let watcher = thread::spawn(move || {
        let result = client.join().unwrap();
        stop.exit();
        result
    });
    events.run_until_exit().unwrap();
    drop(hold);
    let all = watcher.join().unwrap().unwrap();
    assert!(
        all == Random::new(2).bytes(BYTES),
        "other bytes at the thread's end"
    );
    assert_eq!(events.stats().panics, 0);
}
