//! Models of the pool and its threads, run by loom. `cargo xtask loom` runs them.

#![cfg(loom)]

use evbuffer::Pool;

#[test]
fn blocks_that_come_home_from_two_threads_stay_within_the_limit() {
    loom::model(|| {
        let pool = Pool::new(1);
        let (here, there) = (pool.take().unwrap(), pool.take().unwrap());
        let thread = loom::thread::spawn(move || drop(there));
        drop(here);
        thread.join().unwrap();
        assert_eq!(pool.idle(), 1);
        drop(pool.take().unwrap());
        assert_eq!(pool.idle(), 1);
    });
}
