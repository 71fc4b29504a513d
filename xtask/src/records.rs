//! The records that tests leave behind: what was checked, on which type and backend, and how it ended.
//!
//! `bufferevent-testkit` writes them (its `record` module says how); this reads them back.
//!
//! # Invariants
//! - The folder is emptied before the tests run: a record is of this run or of none.
//! - An id that no book has, or a line that is none of the testkit's, is a failure and not skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::rows::Book;
use crate::workspace;

/// The environment variable by which the tests learn of the folder.
const FOLDER: &str = "BUFFEREVENT_RECORDS";

/// How one check ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// The typed error came and nothing changed, and the check has seen both.
    Unsupported,
}

/// One check that ran.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) book: Book,
    pub(crate) id: String,
    /// The type it ran on, or the package whose test it is.
    pub(crate) kind: String,
    /// The backend it ran on, or `-`.
    pub(crate) backend: String,
    pub(crate) outcome: Outcome,
}

/// An empty folder for the records of the tests to come.
pub(crate) fn fresh_folder() -> Result<PathBuf, Failure> {
    let folder = workspace::target_folder()?.join("records");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Failure::during(folder.display()))?;
    }
    fs::create_dir_all(&folder).map_err(Failure::during(folder.display()))?;
    Ok(folder)
}

/// Makes the tests that `command` runs leave their records in `folder`.
pub(crate) fn recording<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.env(FOLDER, folder)
}

/// The records that a command asks for: those of `--records DIR`, or of all integration tests, run now.
///
/// Tests that fail leave their records too; the caller shows them.
pub(crate) fn gather(arguments: &mut Arguments) -> Result<Vec<Record>, Failure> {
    if let Some(folder) = arguments.value::<PathBuf>("--records")? {
        return read(&folder);
    }
    let folder = fresh_folder()?;
    let mut tests = workspace::cargo([
        "test",
        "--workspace",
        "--exclude",
        "xtask",
        "--tests",
        "--no-fail-fast",
    ]);
    let tests = workspace::run(recording(&mut tests, &folder));
    let records = read(&folder)?;
    match tests {
        // Nothing was recorded, so the tests were not built: that is what to tell.
        Err(failure) if records.is_empty() => Err(failure),
        Err(failure) => {
            eprintln!("xtask: {failure}");
            Ok(records)
        }
        Ok(()) => Ok(records),
    }
}

/// Reads all records in `folder`.
pub(crate) fn read(folder: &Path) -> Result<Vec<Record>, Failure> {
    let entries = fs::read_dir(folder).map_err(Failure::during(folder.display()))?;
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.map_err(Failure::during(folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "tsv") {
            let lines = fs::read_to_string(&path).map_err(Failure::during(path.display()))?;
            for line in lines.lines() {
                records.push(parse(line)?);
            }
        }
    }
    Ok(records)
}

fn parse(line: &str) -> Result<Record, Failure> {
    let refuse = |why: &str| Failure::new(format!("record `{}`: {why}", line.replace('\t', " ")));
    let [book, id, kind, backend, outcome] = line.split('\t').collect::<Vec<_>>()[..] else {
        return Err(refuse("five fields are expected"));
    };
    let book = [Book::Spec, Book::Faults]
        .into_iter()
        .find(|candidate| candidate.name() == book);
    let book = book.ok_or_else(|| refuse("no such book"))?;
    let row = book.row(id).ok_or_else(|| refuse("no such row"))?;
    let outcome = match outcome {
        "passed" => Outcome::Passed,
        "failed" => Outcome::Failed,
        "unsupported" => Outcome::Unsupported,
        _ => return Err(refuse("no such outcome")),
    };
    Ok(Record {
        book,
        id: row.id.into(),
        kind: kind.into(),
        backend: backend.into(),
        outcome,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_testkit_is_read() {
        let record = parse("spec\tC5\ttcp\tmio\tpassed").unwrap();
        assert_eq!((record.book, record.id.as_str()), (Book::Spec, "C5"));
        assert_eq!(
            (record.kind.as_str(), record.backend.as_str()),
            ("tcp", "mio")
        );
        assert_eq!(record.outcome, Outcome::Passed);
    }

    #[test]
    fn an_unknown_row_is_refused_and_not_counted() {
        for line in [
            "spec\tB99\tevbuffer\t-\tpassed",
            "spec\tB1\tevbuffer\t-\tmaybe",
            "book\tB1\tx\t-\tpassed",
            "B1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
