//! Closures as targets.

use std::sync::Arc;

use evreactor_core::sync::Mutex;
use evreactor_core::{Ready, Target};

/// A closure that is called once, by whatever comes first.
pub(crate) struct Once<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send + 'static> Once<F> {
    pub(crate) fn target(closure: F) -> Arc<dyn Target> {
        Arc::new(Self(Mutex::new(Some(closure))))
    }

    fn call(&self) {
        // The lock is released before the closure runs.
        let closure = self.0.lock().take();
        if let Some(closure) = closure {
            closure();
        }
    }
}

impl<F: FnOnce() + Send + 'static> Target for Once<F> {
    fn run(&self, _key: u64) {
        self.call();
    }

    fn expired(&self, _key: u64) {
        self.call();
    }

    fn ready(&self, _key: u64, _ready: Ready) {
        self.call();
    }
}
