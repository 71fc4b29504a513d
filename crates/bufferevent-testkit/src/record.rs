//! Records of checks that ran: which row of the specification, on which type and backend, and how it ended.
//!
//! `cargo xtask spec`, `cargo xtask faults` and `cargo xtask conformance` are built from these records alone.
//!
//! # Invariants
//! - A record is written when its check *ends*, so it cannot claim what did not run.
//! - A check that panics leaves `failed`, whatever it claimed before.
//! - One record is one line, appended by one write: test processes share the folder without a lock. Each has a file of its own, in which its
//!   threads take turns: under Wine 8, two that append at once write over each other.
//! - Without the environment variable [`FOLDER`] nothing is written.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The environment variable that names the folder the records go to.
pub const FOLDER: &str = "BUFFEREVENT_RECORDS";

thread_local! {
    static WITHIN: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Which list an id belongs to: both have an `F1`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Book {
    /// The specification.
    Spec,
    /// The faults to survive.
    Faults,
}

/// Says on which type and backend the checks of this thread run, until `body` returns.
pub fn within<R>(kind: &str, backend: &str, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<(String, String)>);
    impl Drop for Restore {
        fn drop(&mut self) {
            WITHIN.with(|within| within.replace(self.0.take()));
        }
    }
    let before = WITHIN.with(|within| within.replace(Some((kind.into(), backend.into()))));
    let _restore = Restore(before);
    body()
}

/// A check that is running; its end is its record.
#[derive(Debug)]
#[must_use = "the record is written when this is dropped at the end of the check"]
pub struct Record {
    book: Book,
    ids: &'static [&'static str],
    package: &'static str,
    unsupported: bool,
}

impl Record {
    /// Starts a check of the rows `ids`. The macros [`spec!`](crate::spec) and [`fault!`](crate::fault) call this.
    pub fn new(book: Book, ids: &'static [&'static str], package: &'static str) -> Self {
        Self {
            book,
            ids,
            package,
            unsupported: false,
        }
    }

    /// The type does not support the row, *and* the check has seen the typed error and that nothing changed.
    pub fn unsupported(mut self) {
        self.unsupported = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(folder) = std::env::var_os(FOLDER) else {
            return;
        };
        let (kind, backend) = WITHIN
            .with(|within| within.borrow().clone())
            .unwrap_or_else(|| (self.package.to_string(), "-".to_string()));
        let result = match (std::thread::panicking(), self.unsupported) {
            (true, _) => "failed",
            (false, true) => "unsupported",
            (false, false) => "passed",
        };
        let book = match self.book {
            Book::Spec => "spec",
            Book::Faults => "faults",
        };
        let mut lines = String::new();
        for id in self.ids {
            lines.push_str(&format!("{book}\t{id}\t{kind}\t{backend}\t{result}\n"));
        }
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let path = Path::new(&folder).join(format!("{}.tsv", std::process::id()));
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| OpenOptions::new().create(true).append(true).open(&path))
            .and_then(|mut file| file.write_all(lines.as_bytes()));
        if let Err(error) = written {
            eprintln!(
                "cannot record {:?} in {}: {error}",
                self.ids,
                path.display()
            );
        }
    }
}

/// Records the rows of the specification that the rest of this block proves: `spec!(B1, B2);`.
#[macro_export]
macro_rules! spec {
    ($($id:ident),+ $(,)?) => {
        let _spec = $crate::record::Record::new(
            $crate::record::Book::Spec, &[$(stringify!($id)),+], env!("CARGO_PKG_NAME"));
    };
}

/// Records the faults that the rest of this block survives: `fault!(F1);`.
#[macro_export]
macro_rules! fault {
    ($($id:ident),+ $(,)?) => {
        let _fault = $crate::record::Record::new(
            $crate::record::Book::Faults, &[$(stringify!($id)),+], env!("CARGO_PKG_NAME"));
    };
}
