//! `cargo xtask layers`: who may import whom, checked against `cargo metadata`.
//!
//! [`CRATES`] is the rule: each crate's floor, its column, and every direct dependency that it may have.
//!
//! # Invariants
//! - Imports go down only: what a crate may import of ours stands on a lower floor, so never beside it.
//! - The pure column (no descriptor, no clock, no thread) never imports from the I/O column, nor an
//!   operating-system crate directly.
//! - A crate that is not in the table, or imports what its entry does not list, is a violation: the
//!   table is widened on purpose or not at all.
//! - Dependencies under `cfg(loom)` and those of tests and build scripts are not the product's and are not judged.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace::{self, Graph};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Column {
    /// Knows no descriptor, no clock, no thread.
    Pure,
    /// Talks to the operating system.
    Io,
    /// Stands above both columns: the facade, the program, tests, tools.
    Above,
}

/// What one crate may import.
struct Crate {
    name: &'static str,
    floor: u8,
    column: Column,
    /// Crates of this workspace.
    ours: &'static [&'static str],
    /// Crates of others.
    others: &'static [&'static str],
    /// Every crate that it may pull in at all, directly or not, where that is promised.
    closure: Option<&'static [&'static str]>,
}

const CRATES: &[Crate] = &[
    Crate {
        name: "evbuffer",
        floor: 0,
        column: Column::Pure,
        ours: &[],
        others: &["bytes", "memchr"],
        closure: Some(&["bytes", "memchr"]),
    },
    Crate {
        name: "evreactor-core",
        floor: 0,
        column: Column::Pure,
        ours: &[],
        others: &["parking_lot", "crossbeam-channel"],
        closure: None,
    },
    Crate {
        name: "evreactor",
        floor: 1,
        column: Column::Io,
        ours: &["evreactor-core"],
        others: &[
            "mio",
            "polling",
            "crossbeam-channel",
            "slab",
            "socket2",
            "tracing",
            "signal-hook",
            "libc",
        ],
        closure: None,
    },
    Crate {
        name: "bufferevent-core",
        floor: 1,
        column: Column::Pure,
        ours: &["evbuffer", "evreactor-core"],
        others: &["bytes", "futures-io", "tracing"],
        closure: None,
    },
    Crate {
        name: "bufferevent-pair",
        floor: 2,
        column: Column::Pure,
        ours: &["bufferevent-core", "evbuffer", "evreactor-core"],
        others: &[],
        closure: None,
    },
    Crate {
        name: "bufferevent-filter",
        floor: 2,
        column: Column::Pure,
        ours: &["bufferevent-core", "evbuffer"],
        others: &["bytes"],
        closure: None,
    },
    Crate {
        name: "bufferevent-zlib",
        floor: 3,
        column: Column::Pure,
        ours: &["bufferevent-core", "bufferevent-filter", "evbuffer"],
        others: &["bytes", "flate2"],
        closure: None,
    },
    Crate {
        name: "bufferevent-tls",
        floor: 3,
        column: Column::Pure,
        ours: &["bufferevent-core", "bufferevent-filter", "evbuffer"],
        others: &["bytes", "rustls", "rustls-native-certs"],
        closure: None,
    },
    Crate {
        name: "bufferevent-socket",
        floor: 2,
        column: Column::Io,
        ours: &[
            "bufferevent-core",
            "evbuffer",
            "evreactor",
            "evreactor-core",
        ],
        others: &["socket2", "tracing", "libc", "rustix"],
        closure: None,
    },
    Crate {
        name: "bufferevent-dns",
        floor: 2,
        column: Column::Io,
        ours: &["bufferevent-core", "evreactor", "evreactor-core"],
        others: &[
            "async-trait",
            "dns-lookup",
            "futures-io",
            "futures-util",
            "hickory-resolver",
            "idna",
            "libc",
            "resolv-conf",
            "slab",
            "socket2",
            "tracing",
        ],
        closure: None,
    },
    Crate {
        name: "bufferevent-iocp",
        floor: 2,
        column: Column::Io,
        ours: &[
            "bufferevent-core",
            "evbuffer",
            "evreactor",
            "evreactor-core",
        ],
        others: &[
            "io-uring",
            "libc",
            "slab",
            "socket2",
            "tracing",
            "windows-sys",
        ],
        closure: None,
    },
    Crate {
        name: "bufferevent",
        floor: 4,
        column: Column::Above,
        ours: &[
            "bufferevent-core",
            "bufferevent-dns",
            "bufferevent-filter",
            "bufferevent-iocp",
            "bufferevent-pair",
            "bufferevent-socket",
            "bufferevent-tls",
            "bufferevent-zlib",
            "evbuffer",
            "evreactor",
            "evreactor-core",
        ],
        others: &[],
        closure: None,
    },
    Crate {
        name: "bufferevent-capi",
        floor: 5,
        column: Column::Above,
        ours: &[
            "bufferevent-core",
            "bufferevent-filter",
            "bufferevent-tls",
            "evbuffer",
            "evreactor-core",
        ],
        others: &["bytes", "libc", "parking_lot", "rustix"],
        closure: None,
    },
    Crate {
        name: "bev",
        floor: 5,
        column: Column::Above,
        ours: &["bufferevent"],
        others: &[
            "clap",
            "crossbeam-channel",
            "hdrhistogram",
            "indicatif",
            "ipnet",
            "rcgen",
            "rustix",
            "sd-listen-fds",
            "sd-notify",
            "serde",
            "serde_json",
            "signal-hook",
            "slab",
            "toml",
            "tracing",
            "tracing-subscriber",
        ],
        closure: None,
    },
    Crate {
        name: "bufferevent-testkit",
        floor: 2,
        column: Column::Pure,
        ours: &["bufferevent-core", "evbuffer", "evreactor-core"],
        others: &["bytes"],
        closure: None,
    },
    Crate {
        name: "bufferevent-conformance",
        floor: 4,
        column: Column::Above,
        ours: &[
            "bufferevent-core",
            "bufferevent-filter",
            "bufferevent-iocp",
            "bufferevent-pair",
            "bufferevent-socket",
            "bufferevent-testkit",
            "bufferevent-tls",
            "bufferevent-zlib",
            "evbuffer",
            "evreactor",
            "evreactor-core",
        ],
        others: &["bytes", "socket2"],
        closure: None,
    },
    Crate {
        name: "xtask",
        floor: 0,
        column: Column::Above,
        ours: &[],
        others: &["serde_json"],
        closure: None,
    },
];

/// Crates whose purpose is to call the operating system. No pure crate may import one directly, whatever the table says.
const OPERATING_SYSTEM: &[&str] = &[
    "io-uring",
    "libc",
    "mio",
    "nix",
    "polling",
    "rustix",
    "signal-hook",
    "signal-hook-registry",
    "socket2",
    "tokio",
    "winapi",
    "windows-sys",
];

/// Prints every violation of the rule; succeeds when there is none.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.finish()?;
    check()
}

/// The same, for `cargo xtask ci`.
pub(crate) fn check() -> Result<(), Failure> {
    let violations = violations(CRATES, &workspace::metadata(Graph::Whole)?);
    for violation in &violations {
        println!("{violation}");
    }
    match violations.len() {
        0 => {
            println!(
                "layers: the imports of {} crates go down only",
                CRATES.len()
            );
            Ok(())
        }
        count => Err(Failure::new(format!(
            "layers: {count} violations, listed above"
        ))),
    }
}

fn violations(table: &[Crate], metadata: &Value) -> Vec<String> {
    let members = strings(&metadata["workspace_members"]);
    let packages: Vec<&Value> = list(&metadata["packages"])
        .filter(|package| members.contains(&text(&package["id"])))
        .collect();
    let ours: Vec<&str> = packages
        .iter()
        .map(|package| text(&package["name"]))
        .collect();
    let mut found = Vec::new();
    for entry in table.iter().filter(|entry| !ours.contains(&entry.name)) {
        found.push(format!(
            "{}: in the table but not in the workspace",
            entry.name
        ));
    }
    for package in packages {
        let name = text(&package["name"]);
        let Some(entry) = table.iter().find(|entry| entry.name == name) else {
            found.push(format!(
                "{name}: not in the table of xtask/src/layers.rs; say what it may import"
            ));
            continue;
        };
        for import in imports(package) {
            let allowed = if ours.contains(&import) {
                entry.ours
            } else {
                entry.others
            };
            if !allowed.contains(&import) {
                found.push(format!(
                    "{name} imports {import}: {}",
                    reason(table, entry, import)
                ));
            } else if entry.column == Column::Pure && OPERATING_SYSTEM.contains(&import) {
                found.push(format!(
                    "{name} imports {import}: pure crates import no operating-system crate"
                ));
            }
        }
        if let Some(promised) = entry.closure {
            for pulled in closure(metadata, text(&package["id"])) {
                if !promised.contains(&pulled) {
                    found.push(format!(
                        "{name} pulls in {pulled}: only {} are promised",
                        promised.join(", ")
                    ));
                }
            }
        }
    }
    found
}

/// Why `entry` may not import `import`, as far as the floors and columns tell.
fn reason(table: &[Crate], entry: &Crate, import: &str) -> String {
    let Some(other) = table.iter().find(|other| other.name == import) else {
        return "not among the crates of others that its entry lists".into();
    };
    if entry.column == Column::Pure && other.column == Column::Io {
        "the pure column never imports from the I/O column".into()
    } else if other.floor == entry.floor {
        format!(
            "both stand on floor {}, and imports never go sideways",
            entry.floor
        )
    } else if other.floor > entry.floor {
        format!(
            "floor {} stands above floor {}, and imports go down only",
            other.floor, entry.floor
        )
    } else {
        "lower, but not listed in its entry".into()
    }
}

/// The names of a package's normal dependencies, but for those of loom's models.
fn imports(package: &Value) -> BTreeSet<&str> {
    list(&package["dependencies"])
        .filter(|dependency| dependency["kind"].is_null() && !is_loom(&dependency["target"]))
        .map(|dependency| text(&dependency["name"]))
        .collect()
}

/// The names of all that the package `id` pulls in when it is built.
fn closure<'a>(metadata: &'a Value, id: &str) -> BTreeSet<&'a str> {
    let node = |id: &str| list(&metadata["resolve"]["nodes"]).find(|node| text(&node["id"]) == id);
    let mut pulled: BTreeSet<&str> = BTreeSet::new();
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        let Some(node) = node(id) else { continue };
        for dependency in list(&node["deps"]) {
            let normal = list(&dependency["dep_kinds"])
                .any(|kind| kind["kind"].is_null() && !is_loom(&kind["target"]));
            if normal && pulled.insert(text(&dependency["pkg"])) {
                open.push(text(&dependency["pkg"]));
            }
        }
    }
    list(&metadata["packages"])
        .filter(|package| pulled.contains(text(&package["id"])))
        .map(|package| text(&package["name"]))
        .collect()
}

fn is_loom(target: &Value) -> bool {
    target
        .as_str()
        .is_some_and(|target| target.contains("loom"))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> Vec<&str> {
    list(value).map(text).collect()
}

/// A string field of cargo's metadata; those named here are always there.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A crate and what it imports.
    type Imports<'a> = (&'a str, &'a [&'a str]);

    /// Metadata of a workspace of these crates; those that the table does not name are not members of it.
    fn workspace_of(crates: &[Imports<'_>]) -> Value {
        let packages: Vec<Value> = crates
            .iter()
            .map(|(name, imports)| {
                let dependencies: Vec<Value> = imports
                    .iter()
                    .map(|import| json!({"name": import, "kind": null, "target": null}))
                    .collect();
                json!({"id": name, "name": name, "dependencies": dependencies})
            })
            .collect();
        let nodes: Vec<Value> = crates
            .iter()
            .map(|(name, imports)| {
                let deps: Vec<Value> = imports
                    .iter()
                    .map(|import| json!({"pkg": import, "dep_kinds": [{"kind": null, "target": null}]}))
                    .collect();
                json!({"id": name, "deps": deps})
            })
            .collect();
        let members: Vec<&str> = crates
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| CRATES.iter().any(|c| c.name == *name))
            .collect();
        json!({"workspace_members": members, "packages": packages, "resolve": {"nodes": nodes}})
    }

    /// What the rule says of the named crates alone.
    fn found(crates: &[Imports<'_>]) -> Vec<String> {
        let absent = ": in the table but not in the workspace";
        let all = violations(CRATES, &workspace_of(crates));
        all.into_iter()
            .filter(|violation| !violation.ends_with(absent))
            .collect()
    }

    #[test]
    fn the_table_itself_goes_down_only() {
        for entry in CRATES {
            for import in entry.ours {
                let other = CRATES
                    .iter()
                    .find(|other| other.name == *import)
                    .expect("an entry lists what exists");
                assert!(
                    other.floor < entry.floor,
                    "{} may import {import}",
                    entry.name
                );
                assert!(
                    entry.column != Column::Pure || other.column == Column::Pure,
                    "pure {} may import {import}",
                    entry.name
                );
            }
            let system = |name: &&&str| OPERATING_SYSTEM.contains(*name);
            assert!(
                entry.column != Column::Pure || !entry.others.iter().any(|name| system(&name)),
                "{}",
                entry.name
            );
        }
    }

    #[test]
    fn what_the_table_allows_passes() {
        let fine = found(&[
            ("evbuffer", &["bytes", "memchr"]),
            ("bytes", &[]),
            ("memchr", &[]),
            ("evreactor-core", &["parking_lot"]),
            ("bufferevent-core", &["evbuffer", "evreactor-core"]),
        ]);
        assert_eq!(fine, Vec::<String>::new());
    }

    /// Each way to break the rule is found, and is told as what it is.
    #[test]
    fn every_kind_of_violation_is_found() {
        let evreactor: Imports<'_> = ("evreactor", &[]);
        let cases: [(&[Imports<'_>], &str); 6] = [
            (
                &[("evreactor-core", &["evbuffer"]), ("evbuffer", &[])],
                "never go sideways",
            ),
            (
                &[
                    ("evbuffer", &["bufferevent-core"]),
                    ("bufferevent-core", &[]),
                ],
                "go down only",
            ),
            (
                &[("bufferevent-core", &["evreactor"]), evreactor],
                "never imports from the I/O column",
            ),
            (
                &[("bev", &["evreactor"]), evreactor],
                "not listed in its entry",
            ),
            (
                &[("bufferevent-core", &["libc"])],
                "not among the crates of others",
            ),
            (
                &[
                    ("evbuffer", &["bytes"]),
                    ("bytes", &["serde"]),
                    ("serde", &[]),
                ],
                "evbuffer pulls in serde",
            ),
        ];
        for (crates, expected) in cases {
            let found = found(crates);
            assert!(
                found.iter().any(|violation| violation.contains(expected)),
                "{expected}: {found:?}"
            );
        }
    }

    #[test]
    fn an_operating_system_crate_in_the_pure_column_is_found_even_when_the_table_lists_it() {
        let table = [Crate {
            name: "bufferevent-core",
            floor: 1,
            column: Column::Pure,
            ours: &[],
            others: &["libc"],
            closure: None,
        }];
        let found = violations(&table, &workspace_of(&[("bufferevent-core", &["libc"])]));
        assert!(
            found
                .iter()
                .any(|violation| violation.contains("operating-system crate")),
            "{found:?}"
        );
    }

    #[test]
    fn a_crate_that_no_one_placed_is_found() {
        let mut metadata = workspace_of(&[]);
        metadata["workspace_members"] = json!(["newcomer"]);
        metadata["packages"] = json!([{"id": "newcomer", "name": "newcomer", "dependencies": []}]);
        let found = violations(&[], &metadata);
        assert!(
            found[0].starts_with("newcomer: not in the table"),
            "{found:?}"
        );
    }

    #[test]
    fn loom_and_test_dependencies_are_not_the_products() {
        let mut metadata = workspace_of(&[("evbuffer", &[])]);
        metadata["packages"][0]["dependencies"] = json!([
            {"name": "loom", "kind": null, "target": "cfg(loom)"},
            {"name": "proptest", "kind": "dev", "target": null},
        ]);
        assert_eq!(imports(&metadata["packages"][0]), BTreeSet::new());
    }
}
