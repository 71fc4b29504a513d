//! The names of libevent: the table in `docs/names.md` and the `#[doc(alias)]`es in the sources say the same.
//!
//! rustdoc's search knows an item by its aliases alone, so a name that the table has and the sources have not would not be
//! found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that older programs use, and slips that people search for: each leads somewhere, whatever the table says.
const OBSOLETE: [&str; 16] = [
    "evbuffercb",
    "everrorcb",
    "EVBUFFER_READ",
    "EVBUFFER_WRITE",
    "EVBUFFER_EOF",
    "EVBUFFER_ERROR",
    "EVBUFFER_TIMEOUT",
    "EVBUFFER_INPUT",
    "EVBUFFER_OUTPUT",
    "bufferevent_new",
    "bufferevent_base_set",
    "bufferevent_settimeout",
    "BEV_EVENT_WRITE",
    "BEV_TIMEOUT",
    "bufferevent_connect",
    "bufferevent_base_connect",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Adds the aliases of every source file in `folder` and below.
fn collect_aliases(folder: &Path, aliases: &mut BTreeSet<String>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            collect_aliases(&path, aliases);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read(&path);
            let found = text
                .split("#[doc(alias = \"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next());
            aliases.extend(found.map(str::to_owned));
        }
    }
}

fn aliases() -> BTreeSet<String> {
    let mut aliases = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates")).expect("the workspace is here") {
        let source = entry.expect("the folder can be read").path().join("src");
        collect_aliases(&source, &mut aliases);
    }
    aliases
}

/// The table's rows: the name, and whether something here answers to it.
fn table() -> Vec<(String, bool)> {
    let rows = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.strip_suffix('`')?.to_owned();
        let ours = cells.next()?;
        Some((name, !matches!(ours, "none" | "later")))
    };
    read(&root().join("docs/names.md"))
        .lines()
        .filter_map(rows)
        .collect()
}

#[test]
fn every_name_that_the_table_has_an_answer_to_is_an_alias() {
    let aliases = aliases();
    let table = table();
    assert!(table.len() > 200, "the table has {} rows", table.len());
    let lost: Vec<_> = table
        .iter()
        .filter(|(name, answered)| *answered && !aliases.contains(name))
        .collect();
    assert!(lost.is_empty(), "rustdoc does not find {lost:?}");
}

#[test]
fn no_alias_leads_to_what_the_table_says_is_not_there() {
    let aliases = aliases();
    let stale: Vec<_> = table()
        .into_iter()
        .filter(|(name, answered)| !answered && aliases.contains(name))
        .collect();
    assert!(
        stale.is_empty(),
        "docs/names.md is behind the sources on {stale:?}"
    );
}

#[test]
fn obsolete_names_and_slips_are_found() {
    let aliases = aliases();
    let table = table();
    for name in OBSOLETE {
        assert!(aliases.contains(name), "rustdoc does not find {name}");
        assert!(
            table.contains(&(name.to_owned(), true)),
            "docs/names.md has no answer to {name}"
        );
    }
}

#[test]
fn a_name_has_one_row() {
    let mut seen = BTreeSet::new();
    for (name, _) in table() {
        assert!(
            seen.insert(name.clone()),
            "{name} stands in docs/names.md twice"
        );
    }
}
