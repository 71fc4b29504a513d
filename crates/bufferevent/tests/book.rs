//! The book in `docs/`: every page can be reached, every link leads somewhere, and every page with code is run.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages in `folder` and below.
fn pages_in(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the book is here") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            pages_in(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    pages_in(&root().join("docs"), &mut pages);
    pages
}

/// The targets of a page's links that are files of this workspace.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap_or(target))
}

#[test]
fn every_page_is_in_the_summary() {
    let docs = root().join("docs");
    let summary = read(&docs.join("SUMMARY.md"));
    let listed: Vec<_> = links(&summary).map(|link| docs.join(link)).collect();
    for page in pages() {
        if !page.ends_with("SUMMARY.md") {
            assert!(
                listed.contains(&page),
                "{} is not in SUMMARY.md",
                page.display()
            );
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut files = pages();
    for name in [
        "README",
        "ARCHITECTURE",
        "CONTRIBUTING",
        "CHANGELOG",
        "SECURITY",
    ] {
        files.push(root().join(name).with_extension("md"));
    }
    let mut seen = 0;
    for file in files {
        let text = read(&file);
        let folder = file.parent().expect("a file stands in a folder");
        for link in links(&text) {
            seen += 1;
            assert!(
                folder.join(link).exists(),
                "{}: {link} is not there",
                file.display()
            );
        }
    }
    assert!(seen > 50, "{seen} links were found");
}

#[test]
fn every_page_with_code_is_run() {
    let run = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/book.rs"));
    for page in pages() {
        if read(&page).contains("```rust") {
            let name = page
                .strip_prefix(root())
                .expect("the book is in the workspace");
            let included = format!("\"../../../{}\"", name.display()).replace('\\', "/");
            assert!(
                run.contains(&included),
                "src/book.rs does not include {included}"
            );
        }
    }
}
