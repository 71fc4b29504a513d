//! What Debian's libevent exports, what ours does, and what the documents say is missing: the three are compared name by name.
//!
//! # Invariants
//! - A name that ends with an underscore is libevent's own from file to file, and nobody else's.
//! - Every other name of libevent's is either exported by ours or listed in the documents, and never both.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::workspace;

/// libevent's shared objects, and Debian's packages that have them.
const THEIRS: [(&str, &str); 5] = [
    ("libevent-2.1.so.7", "libevent-2.1-7"),
    ("libevent_core-2.1.so.7", "libevent-core-2.1-7"),
    ("libevent_extra-2.1.so.7", "libevent-extra-2.1-7"),
    ("libevent_openssl-2.1.so.7", "libevent-openssl-2.1-7"),
    ("libevent_pthreads-2.1.so.7", "libevent-pthreads-2.1-7"),
];

const DOCUMENT: &str = "docs/c-interface-missing.md";

/// Compares the shared objects in `library` with the system's.
pub(crate) fn compare(library: &Path) -> Result<(), Failure> {
    let mut theirs = BTreeSet::new();
    for (name, package) in THEIRS {
        let found = workspace::output(Command::new("cc").arg(format!("-print-file-name={name}")))?;
        let path = Path::new(found.trim());
        if !path.is_absolute() {
            return Err(Failure::new(format!(
                "capi: {name} is missing: apt-get install {package}"
            )));
        }
        theirs.extend(exports(path)?);
    }
    let ours = exports(&library.join("libevent_core-2.1.so.7"))?;
    let document = workspace::root().join(DOCUMENT);
    let text = fs::read_to_string(&document).map_err(Failure::during(document.display()))?;
    let wrong = differences(&theirs, &ours, &listed(&text));
    if wrong.is_empty() {
        let missing = theirs.difference(&ours).count();
        println!(
            "capi: of {} names that libevent exports, {} are here and {missing} are listed as missing",
            theirs.len(),
            theirs.len() - missing
        );
        return Ok(());
    }
    Err(Failure::new(format!("capi: {}", wrong.join("\n      "))))
}

/// Names that a shared object has for others.
fn exports(path: &Path) -> Result<BTreeSet<String>, Failure> {
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only"]).arg(path);
    let text = workspace::output(&mut nm)?;
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    let names = names.filter(|name| !name.ends_with('_') && !name.starts_with('_'));
    Ok(names.map(ToOwned::to_owned).collect())
}

/// Names between back quotes; a path is none.
fn listed(document: &str) -> BTreeSet<String> {
    let quoted = document.split('`').skip(1).step_by(2);
    let is_name = |text: &&str| {
        text.chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    quoted.filter(is_name).map(ToOwned::to_owned).collect()
}

/// What does not fit together, a line for each name.
fn differences(
    theirs: &BTreeSet<String>,
    ours: &BTreeSet<String>,
    listed: &BTreeSet<String>,
) -> Vec<String> {
    let silent = theirs.iter().filter(|name| !ours.contains(*name));
    let silent = silent.filter(|name| !listed.contains(*name));
    let silent = silent.map(|name| format!("{name} is missing, and {DOCUMENT} does not say so"));
    let wrong = listed
        .iter()
        .filter(|name| ours.contains(*name) || !theirs.contains(*name));
    let wrong = wrong.map(|name| format!("{DOCUMENT} lists {name}, which is not missing"));
    silent.chain(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_way_to_differ_is_told() {
        let theirs = set(&["event_new", "evhttp_new", "evrpc_init"]);
        let ours = set(&["event_new", "bufferevent_tls_free"]);
        let told = |list: &[&str]| differences(&theirs, &ours, &set(list)).join(";");
        assert_eq!(told(&["evhttp_new", "evrpc_init"]), "");
        assert!(told(&["evhttp_new"]).starts_with("evrpc_init is missing"));
        assert!(told(&["evhttp_new", "evrpc_init", "event_new"]).contains("lists event_new"));
        assert!(told(&["evhttp_new", "evrpc_init", "never_was"]).contains("lists never_was"));
    }

    #[test]
    fn names_are_taken_from_the_document() {
        let text = "`event2/http.h`: `evhttp_new`,\n`evhttp_free`.";
        assert_eq!(listed(text), set(&["evhttp_new", "evhttp_free"]));
    }
}
