//! `cargo xtask conformance`: the matrix of rows and of the types and backends they were checked on.
//!
//! # Invariants
//! - A cell is what the records say and nothing else: passed, failed, unsupported, or missing.
//! - A row that names a type (S, P) is expected of that type alone; A, C, O and G rows of every type.

use std::collections::BTreeSet;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::records::{self, Outcome, Record};
use crate::rows::{Book, Row, Scope};

/// The types of this workspace, as the suite names them, and the series of rows that name each.
const TYPES: &[(&str, char)] = &[
    ("pair", 'P'),
    ("tcp", 'S'),
    #[cfg(unix)]
    ("unix", 'S'),
];
const BACKENDS: [&str; 2] = ["mio", "polling"];

/// A type on a backend.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Column {
    kind: String,
    backend: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cell {
    Passed,
    Failed,
    Unsupported,
    Missing,
    /// The row is about another type.
    Foreign,
}

/// Prints the matrix. Fails when a cell failed or is missing.
pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let records = records::gather(&mut arguments)?;
    arguments.finish()?;
    let columns = columns(&records);
    let width = columns
        .iter()
        .map(|column| column.kind.len().max(column.backend.len()))
        .max()
        .unwrap_or(0)
        + 2;
    for line in [
        |column: &Column| column.kind.clone(),
        |column: &Column| column.backend.clone(),
    ] {
        println!(
            "{:<5}{}",
            "",
            columns
                .iter()
                .map(|column| format!("{:>width$}", line(column)))
                .collect::<String>()
        );
    }
    let mut seen = Vec::new();
    for row in Book::Spec
        .rows()
        .iter()
        .filter(|row| expected_of_types(row))
    {
        let cells: Vec<Cell> = columns
            .iter()
            .map(|column| judge(row, column, &records))
            .collect();
        let words = cells
            .iter()
            .map(|cell| format!("{:>width$}", shown(*cell)))
            .collect::<String>();
        println!("{:<5}{words}  {}", row.id, row.title);
        seen.extend(cells);
    }
    let count = |wanted: Cell| seen.iter().filter(|cell| **cell == wanted).count();
    let summary = format!(
        "{} cells passed, {} failed, {} missing, {} unsupported",
        count(Cell::Passed),
        count(Cell::Failed),
        count(Cell::Missing),
        count(Cell::Unsupported)
    );
    if count(Cell::Failed) + count(Cell::Missing) > 0 {
        return Err(Failure::new(format!("conformance: {summary}")));
    }
    println!("conformance: {summary}");
    Ok(())
}

/// What the workspace promises, and what else the suite ran on (a scripted transport, say).
fn columns(records: &[Record]) -> BTreeSet<Column> {
    let promised = TYPES
        .iter()
        .flat_map(|(kind, _)| BACKENDS.map(|backend| (*kind, backend)));
    let seen = records
        .iter()
        .filter(|r| r.backend != "-")
        .map(|r| (r.kind.as_str(), r.backend.as_str()));
    promised
        .chain(seen)
        .map(|(kind, backend)| Column {
            kind: kind.into(),
            backend: backend.into(),
        })
        .collect()
}

fn series(row: &Row) -> char {
    row.id.chars().next().expect("ids are not empty")
}

fn expected_of_types(row: &Row) -> bool {
    row.scope == Scope::Now && matches!(series(row), 'A' | 'C' | 'O' | 'G' | 'S' | 'P')
}

fn judge(row: &Row, column: &Column, records: &[Record]) -> Cell {
    let outcomes: Vec<Outcome> = records
        .iter()
        .filter(|r| {
            r.book == Book::Spec
                && r.id == row.id
                && r.kind == column.kind
                && r.backend == column.backend
        })
        .map(|r| r.outcome)
        .collect();
    let own_series = TYPES
        .iter()
        .find(|(kind, _)| *kind == column.kind)
        .map(|(_, series)| *series);
    let names_another = matches!(series(row), 'S' | 'P') && own_series != Some(series(row));
    if outcomes.contains(&Outcome::Failed) {
        Cell::Failed
    } else if outcomes.contains(&Outcome::Passed) {
        Cell::Passed
    } else if outcomes.contains(&Outcome::Unsupported) {
        Cell::Unsupported
    } else if names_another || own_series.is_none() {
        Cell::Foreign
    } else {
        Cell::Missing
    }
}

fn shown(cell: Cell) -> &'static str {
    match cell {
        Cell::Passed => "ok",
        Cell::Failed => "FAIL",
        Cell::Unsupported => "unsup",
        Cell::Missing => "?",
        Cell::Foreign => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(id: &str, kind: &str, records: &[Record]) -> Cell {
        let column = Column {
            kind: kind.into(),
            backend: "mio".into(),
        };
        judge(Book::Spec.row(id).unwrap(), &column, records)
    }

    fn record(kind: &str, outcome: Outcome) -> Record {
        Record {
            book: Book::Spec,
            id: "C5".into(),
            kind: kind.into(),
            backend: "mio".into(),
            outcome,
        }
    }

    #[test]
    fn a_cell_is_what_was_recorded_on_its_own_type() {
        let records = [
            record("tcp", Outcome::Passed),
            record("pair", Outcome::Unsupported),
        ];
        assert_eq!(cell("C5", "tcp", &records), Cell::Passed);
        assert_eq!(cell("C5", "pair", &records), Cell::Unsupported);
        assert_eq!(cell("C6", "tcp", &records), Cell::Missing);
        let failed = [
            record("tcp", Outcome::Passed),
            record("tcp", Outcome::Failed),
        ];
        assert_eq!(cell("C5", "tcp", &failed), Cell::Failed);
    }

    #[test]
    fn a_row_that_names_a_type_is_expected_of_it_alone() {
        assert_eq!(cell("P1", "pair", &[]), Cell::Missing);
        assert_eq!(cell("P1", "tcp", &[]), Cell::Foreign);
        assert_eq!(cell("S1", "tcp", &[]), Cell::Missing);
        assert_eq!(
            cell("A1", "scripted", &[]),
            Cell::Foreign,
            "what no one promised is not missing"
        );
    }

    #[test]
    fn records_without_a_backend_make_no_column() {
        let mut own = record("bufferevent-core", Outcome::Passed);
        own.backend = "-".into();
        let scripted = record("scripted", Outcome::Passed);
        let kinds: Vec<String> = columns(&[own, scripted])
            .into_iter()
            .map(|column| column.kind)
            .collect();
        assert!(
            kinds.contains(&"scripted".into()) && !kinds.contains(&"bufferevent-core".into()),
            "{kinds:?}"
        );
    }
}
