//! `cargo xtask spec` and `cargo xtask faults`: which rows have a passing record, and which have not.
//!
//! # Invariants
//! - A row is proved when some check of it passed and none failed. *Unsupported* alone proves nothing.
//! - Success means that every row in today's scope is proved.

use std::path::Path;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::records::{self, Outcome, Record};
use crate::rows::{Book, Row, Scope};

/// What the records say of one row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Proved {
        checks: usize,
    },
    Failed,
    Missing,
    /// Nothing passed or failed, and nothing had to: the row belongs to later work.
    Later,
}

/// Prints the book's rows with their verdicts; with `--missing` only those that still need a passing record.
pub(crate) fn run(book: Book, mut arguments: Arguments) -> Result<(), Failure> {
    let missing_only = arguments.flag("--missing");
    let records = records::gather(&mut arguments)?;
    arguments.finish()?;
    for row in book.rows() {
        let verdict = judge(book, row, &records);
        let (word, shown_always) = match verdict {
            Verdict::Proved { checks } => (format!("proved by {checks}"), false),
            Verdict::Failed => ("FAILED".into(), true),
            Verdict::Missing => ("missing".into(), true),
            Verdict::Later => ("later".into(), false),
        };
        if shown_always || !missing_only {
            println!("{:<4} {word:<13} {}", row.id, row.title);
        }
    }
    gate(book, &records)
        .map(|proved| println!("{}: all {proved} rows in scope are proved", book.name()))
}

/// The check of `cargo xtask ci`: how many rows are proved, or which in scope are not.
pub(crate) fn gate_folder(book: Book, folder: &Path) -> Result<(), Failure> {
    let proved = gate(book, &records::read(folder)?)?;
    println!("{}: all {proved} rows in scope are proved", book.name());
    Ok(())
}

fn gate(book: Book, records: &[Record]) -> Result<usize, Failure> {
    let verdicts = || {
        book.rows()
            .iter()
            .map(|row| (row.id, judge(book, row, records)))
    };
    let of = |wanted: Verdict| {
        verdicts()
            .filter(|(_, verdict)| *verdict == wanted)
            .map(|(id, _)| id)
            .collect::<Vec<_>>()
    };
    let (failed, missing) = (of(Verdict::Failed), of(Verdict::Missing));
    let proved = verdicts()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Proved { .. }))
        .count();
    if failed.is_empty() && missing.is_empty() {
        return Ok(proved);
    }
    let list = |what: &str, ids: &[&str]| {
        if ids.is_empty() {
            String::new()
        } else {
            format!("; {} {what}: {}", ids.len(), ids.join(" "))
        }
    };
    Err(Failure::new(format!(
        "{}: {proved} rows proved{}{}",
        book.name(),
        list("failed", &failed),
        list("without a passing record", &missing)
    )))
}

fn judge(book: Book, row: &Row, records: &[Record]) -> Verdict {
    let outcomes = || {
        records
            .iter()
            .filter(|r| r.book == book && r.id == row.id)
            .map(|r| r.outcome)
    };
    let checks = outcomes()
        .filter(|outcome| *outcome == Outcome::Passed)
        .count();
    if outcomes().any(|outcome| outcome == Outcome::Failed) {
        Verdict::Failed
    } else if checks > 0 {
        Verdict::Proved { checks }
    } else {
        match row.scope {
            Scope::Now => Verdict::Missing,
            Scope::Later => Verdict::Later,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(book: Book, id: &str, outcome: Outcome) -> Record {
        Record {
            book,
            id: id.into(),
            kind: "evbuffer".into(),
            backend: "-".into(),
            outcome,
        }
    }

    fn verdict(id: &str, records: &[Record]) -> Verdict {
        judge(Book::Spec, Book::Spec.row(id).unwrap(), records)
    }

    #[test]
    fn a_failed_check_outweighs_those_that_passed() {
        let passed = record(Book::Spec, "B1", Outcome::Passed);
        let failed = record(Book::Spec, "B1", Outcome::Failed);
        assert_eq!(
            verdict("B1", std::slice::from_ref(&passed)),
            Verdict::Proved { checks: 1 }
        );
        assert_eq!(verdict("B1", &[passed, failed]), Verdict::Failed);
    }

    #[test]
    fn neither_unsupported_nor_the_other_book_is_a_proof() {
        assert_eq!(
            verdict("G6", &[record(Book::Spec, "G6", Outcome::Unsupported)]),
            Verdict::Missing
        );
        assert_eq!(
            verdict("F1", &[record(Book::Faults, "F1", Outcome::Passed)]),
            Verdict::Missing
        );
    }

    #[test]
    fn the_gate_names_what_is_missing_and_opens_when_nothing_is() {
        let all = |book: Book| -> Vec<Record> {
            book.rows()
                .iter()
                .map(|row| record(book, row.id, Outcome::Passed))
                .collect()
        };
        for book in [Book::Spec, Book::Faults] {
            let mut records = all(book);
            assert_eq!(gate(book, &records).unwrap(), book.rows().len());
            let gone = records.remove(0).id;
            let failure = gate(book, &records).unwrap_err().to_string();
            assert!(
                failure.contains("1 without a passing record") && failure.ends_with(&gone),
                "{failure}"
            );
        }
    }
}
