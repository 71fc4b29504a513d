//! The atomics of a model: loom's, with `SeqCst` as it is.
//!
//! loom takes a `SeqCst` access for an `AcqRel` one, and lets two threads that each write one place and then read the other's both miss
//! the other. It knows `fence(SeqCst)`, though. So what writes with `SeqCst` has a fence behind it here, which is how processors of today do
//! it: a read needs none then. A write whose ordering was weakened has none, and shows.

pub use loom::sync::atomic::{Ordering, fence};

use std::ops::Deref;

fn behind(order: Ordering) {
    if order == Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
}

macro_rules! atomics {
    ($($name:ident: $value:ty, { $($change:ident)* };)*) => { $(
        /// As std's.
        #[derive(Debug, Default)]
        pub struct $name(loom::sync::atomic::$name);

        impl $name {
            /// As std's.
            #[must_use]
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            /// As std's.
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, order);
                behind(order);
            }

            /// As std's.
            ///
            /// # Errors
            /// As std's.
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let result = self.0.compare_exchange(current, new, success, failure);
                behind(success);
                result
            }

            $(
                /// As std's.
                #[track_caller]
                pub fn $change(&self, value: $value, order: Ordering) -> $value {
                    let former = self.0.$change(value, order);
                    behind(order);
                    former
                }
            )*
        }

        /// For loads, and what has no ordering.
        impl Deref for $name {
            type Target = loom::sync::atomic::$name;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }
    )* };
}

atomics! {
    AtomicBool: bool, { swap fetch_and fetch_or fetch_xor };
    AtomicU8: u8, { swap fetch_add fetch_sub fetch_and fetch_or fetch_xor };
    AtomicU32: u32, { swap fetch_add fetch_sub fetch_and fetch_or fetch_xor };
    AtomicU64: u64, { swap fetch_add fetch_sub fetch_and fetch_or fetch_xor fetch_max };
    AtomicUsize: usize, { swap fetch_add fetch_sub fetch_and fetch_or fetch_xor };
}
