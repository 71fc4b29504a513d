//! The interface as a whole: what is declared, exported, and called by a test; and that it installs as libevent does.

#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{compile_files, here, library, succeeded};

/// Every file below a folder, with one of these endings.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let mut found = Vec::new();
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
    found
}

fn text_of(folders: &[&str], ending: &str) -> String {
    let paths = folders
        .iter()
        .flat_map(|folder| files(&here().join(folder), ending));
    paths
        .map(|path| std::fs::read_to_string(path).expect("text"))
        .collect()
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect()
}

/// Whether a function's name is one of the C interface.
fn is_ours(name: &str) -> bool {
    let prefixes = ["ev", "bufferevent_", "libevent_"];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Names that stand before a `(` in the headers' declarations.
fn declared(headers: &str) -> BTreeSet<String> {
    let declarations = headers.split("EVENT2_EXPORT_SYMBOL").skip(1);
    declarations
        .filter_map(|text| {
            let name = text.split('(').next()?;
            let name = name
                .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()?;
            is_ours(name).then(|| name.to_owned())
        })
        .collect()
}

/// Functions of the C interface in the shared object.
fn exported() -> BTreeSet<String> {
    let listed = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(library())
        .output()
        .expect("nm runs");
    succeeded("nm", &listed);
    let text = String::from_utf8(listed.stdout).expect("names");
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    names
        .filter(|name| is_ours(name))
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn every_function_of_libevents_headers_is_declared_and_exported() {
    let list = std::fs::read_to_string(here().join("tests/libevent-functions.txt"));
    let list = list.expect("the list");
    let headers = text_of(&["include"], "h");
    let (declared, exported, known) = (declared(&headers), exported(), words(&headers));
    let mut count = 0;
    for line in list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '[']))
    {
        count += 1;
        match line.split_once(' ') {
            Some((name, _)) => assert!(known.contains(name), "{name} is no macro"),
            None => {
                assert!(declared.contains(line), "{line} is not declared");
                assert!(exported.contains(line), "{line} is not exported");
            }
        }
    }
    assert!(count > 250, "{count}");
}

/// C without its comments.
fn code(text: &str) -> String {
    let mut parts = text.split("/*");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |code, part| {
        code + part.split_once("*/").map_or("", |(_, after)| after)
    })
}

/// Names with a `(` behind them.
fn called(code: &str) -> BTreeSet<&str> {
    let before = code.split('(').map(str::trim_end);
    before
        .filter_map(|text| {
            text.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
        })
        .collect()
}

#[test]
fn what_is_exported_is_declared_and_called_by_a_test() {
    let headers = text_of(&["include"], "h");
    let programs = code(&text_of(&["tests/c", "tests/chapter", "examples"], "c"));
    let (declared, called) = (declared(&headers), called(&programs));
    let exported = exported();
    for name in &exported {
        assert!(declared.contains(name), "{name} is in no header");
        assert!(
            called.contains(name.as_str()),
            "{name} is called by no test"
        );
    }
    for name in &declared {
        assert!(exported.contains(name), "{name} is declared only");
    }
}

#[test]
fn what_the_documents_say_is_missing_is_missing() {
    let list = here().join("../../docs/c-interface-missing.md");
    let list = std::fs::read_to_string(list).expect("the list");
    let exported = exported();
    let names: BTreeSet<_> = list.split('`').skip(1).step_by(2).collect();
    assert!(names.len() > 100, "{}", names.len());
    for name in names {
        assert!(!exported.contains(name), "{name} is there");
    }
}

#[test]
fn no_function_lets_a_panic_into_c() {
    let sources = text_of(&["src"], "rs");
    let unwinding = ["extern \"C", "-unwind\""].concat();
    assert!(!sources.contains(&unwinding));
    let total = sources.matches("#[unsafe(no_mangle)]").count();
    let plain = sources.split("#[unsafe(no_mangle)]").skip(1);
    let plain = plain.filter(|text| {
        let line = text.trim_start().lines().next().unwrap_or_default();
        line.contains("extern \"C\" fn")
    });
    assert_eq!(plain.count(), total);
}

/// As strict as compilers get: with `-std=c90` the system's headers hide half of what they have.
#[test]
fn each_header_stands_alone_in_strict_c() {
    let include = here().join("include");
    let headers = files(&include, "h");
    assert!(headers.len() > 15, "{headers:?}");
    for header in headers {
        for standard in ["-std=c90", "-std=c11"] {
            let checked = Command::new("cc")
                .args([standard, "-pedantic-errors", "-Wall", "-Wextra", "-Werror"])
                .args(["-fsyntax-only", "-include"])
                .arg(&header)
                .arg("-I")
                .arg(&include)
                .args(["-x", "c"])
                .arg(here().join("tests/c/nothing.c"))
                .output()
                .expect("cc runs");
            succeeded(&format!("{} {standard}", header.display()), &checked);
        }
    }
}

#[test]
fn the_guides_program_compiles() {
    let guide = std::fs::read_to_string(here().join("../../docs/guide/c.md")).expect("the guide");
    let program = guide
        .split("```c\n")
        .nth(1)
        .and_then(|text| text.split("```").next());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("guide.c");
    std::fs::write(&source, program.expect("a program")).expect("it can be written");
    compile_files(&[source], &[], folder.path());
}
