//! Our headers beside Debian's libevent-dev: a program that compiles against the one has to mean the same with the other.
//!
//! # Invariants
//! - Every function that both declare has the same prototype, as the compiler writes it (`-aux-info`).
//! - Every number that libevent's headers name has that name and value in ours: macros, enumerators, sizes and places of public structs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::workspace;

/// Headers that both have. Debian's 2.1 has no `watch.h` yet, and all of its `dns.h`.
const HEADERS: [&str; 11] = [
    "event2/buffer.h",
    "event2/buffer_compat.h",
    "event2/bufferevent.h",
    "event2/bufferevent_compat.h",
    "event2/bufferevent_struct.h",
    "event2/event.h",
    "event2/event_compat.h",
    "event2/event_struct.h",
    "event2/listener.h",
    "event2/thread.h",
    "event2/util.h",
];

/// Public structs, and their public members.
const LAYOUTS: &[(&str, &[&str])] = &[
    (
        "struct event",
        &[
            "ev_fd",
            "ev_base",
            "ev_events",
            "ev_res",
            "ev_timeout",
            "ev_evcallback",
        ],
    ),
    (
        "struct bufferevent",
        &[
            "ev_base",
            "be_ops",
            "ev_read",
            "ev_write",
            "input",
            "output",
            "wm_read",
            "wm_write",
            "readcb",
            "writecb",
            "errorcb",
            "cbarg",
            "timeout_read",
            "timeout_write",
            "enabled",
        ],
    ),
    ("struct event_watermark", &["low", "high"]),
    ("struct evbuffer_ptr", &["pos"]),
    ("struct evbuffer_iovec", &["iov_base", "iov_len"]),
    (
        "struct evbuffer_cb_info",
        &["orig_size", "n_added", "n_deleted"],
    ),
    (
        "struct evthread_lock_callbacks",
        &["lock_api_version", "alloc", "free", "lock", "unlock"],
    ),
    (
        "struct evthread_condition_callbacks",
        &[
            "condition_api_version",
            "alloc_condition",
            "free_condition",
            "signal_condition",
            "wait_condition",
        ],
    ),
];

/// What begins a name of libevent's; configuration (`EVENT__`) and versions are each library's own.
const PREFIXES: [&str; 7] = [
    "EV_", "EVLOOP_", "EVBUF", "EVENT_", "EVUTIL_", "BEV_", "LEV_OPT_",
];

/// Compares the headers in `include` with the system's.
pub(crate) fn compare(include: &Path, folder: &Path) -> Result<(), Failure> {
    let ours = Side {
        include: Some(include),
        folder,
    };
    let theirs = Side {
        include: None,
        folder,
    };
    if !theirs.compile("#include <event2/event.h>\n", &["-fsyntax-only"])? {
        return Err(Failure::new(
            "capi: libevent's headers are missing: apt-get install libevent-dev",
        ));
    }
    let (their_functions, our_functions) = (theirs.prototypes()?, ours.prototypes()?);
    let mut wrong = differences(&their_functions, &our_functions);
    let names = theirs.numbers()?;
    let (their_values, our_values) = (theirs.values(&names)?, ours.values(&names)?);
    wrong.extend(differences(&their_values, &our_values));
    if wrong.is_empty() {
        println!(
            "capi: {} prototypes, and {} numbers, sizes and places are those of libevent's headers",
            their_functions.len(),
            their_values.len()
        );
        return Ok(());
    }
    Err(Failure::new(format!("capi: {}", wrong.join("\n      "))))
}

/// What is not the same, a line for each.
fn differences(theirs: &BTreeMap<String, String>, ours: &BTreeMap<String, String>) -> Vec<String> {
    let differing = theirs
        .iter()
        .filter(|(name, what)| ours.get(*name) != Some(*what));
    let told = differing.map(|(name, what)| {
        let own = ours.get(name).map_or("missing", String::as_str);
        format!("{name} is `{what}` in libevent's headers, and in ours {own}")
    });
    told.collect()
}

/// One of the two sets of headers.
struct Side<'a> {
    /// `None` for the system's.
    include: Option<&'a Path>,
    folder: &'a Path,
}

impl Side<'_> {
    fn command(&self, source: &str, arguments: &[&str]) -> Result<Command, Failure> {
        let file = self.folder.join("headers.c");
        fs::write(&file, source).map_err(Failure::during(file.display()))?;
        let mut command = Command::new("cc");
        command.arg("-w").args(arguments).arg(&file);
        if let Some(include) = self.include {
            command.arg("-I").arg(include);
        }
        Ok(command)
    }

    fn compile(&self, source: &str, arguments: &[&str]) -> Result<bool, Failure> {
        let mut command = self.command(source, arguments)?;
        let done = command
            .output()
            .map_err(Failure::during(workspace::shown(&command)))?;
        Ok(done.status.success())
    }

    fn preprocessed(&self, source: &str, arguments: &[&str]) -> Result<String, Failure> {
        workspace::output(&mut self.command(source, arguments)?)
    }

    /// Functions of libevent's, and their prototypes.
    fn prototypes(&self) -> Result<BTreeMap<String, String>, Failure> {
        let file = self.folder.join("prototypes.txt");
        let into = file.display().to_string();
        if !self.compile(&includes(), &["-fsyntax-only", "-aux-info", &into])? {
            return Err(Failure::new("capi: the headers do not compile"));
        }
        let text = fs::read_to_string(&file).map_err(Failure::during(file.display()))?;
        Ok(text.lines().filter_map(prototype).collect())
    }

    /// Names of numbers: macros that come to nothing but digits and operators, and enumerators.
    fn numbers(&self) -> Result<BTreeSet<String>, Failure> {
        let macros = self.preprocessed(&includes(), &["-dM", "-E"])?;
        let names: Vec<_> = macros
            .lines()
            .filter_map(|line| line.strip_prefix("#define ")?.split_once(' '))
            .map(|(name, _)| name)
            .filter(|name| is_theirs(name) && !name.contains('('))
            .collect();
        // The name as a text, which is not replaced, and what it is replaced by.
        let asked: String = names
            .iter()
            .map(|name| format!("\"{name}\" {name}\n"))
            .collect();
        let text = self.preprocessed(&format!("{}{asked}", includes()), &["-E", "-P"])?;
        let mut numbers: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix('"')?.split_once("\" "))
            .filter(|(_, value)| is_number(value))
            .map(|(name, _)| name.to_owned())
            .collect();
        let whole = self.preprocessed(&includes(), &["-E", "-P"])?;
        let enums = whole.split("enum ").skip(1);
        let bodies = enums.filter_map(|text| {
            let (before, rest) = text.split_once('{')?;
            let body = rest.split_once('}')?.0;
            (!before.contains([';', ')'])).then_some(body)
        });
        for body in bodies {
            let words = body.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            numbers.extend(words.filter(|word| is_theirs(word)).map(ToOwned::to_owned));
        }
        Ok(numbers)
    }

    /// The value of each name, and sizes and places.
    fn values(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, String>, Failure> {
        let mut program = format!(
            "{}#include <netdb.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{\n",
            includes()
        );
        for name in names {
            program.push_str(&format!(
                "printf(\"{name} %lld\\n\", (long long)({name}));\n"
            ));
        }
        for (name, members) in LAYOUTS {
            program.push_str(&format!(
                "printf(\"sizeof({name}) %zu\\n\", sizeof({name}));\n"
            ));
            for member in *members {
                let place = format!("offsetof({name}, {member})");
                program.push_str(&format!("printf(\"{place} %zu\\n\", {place});\n"));
            }
        }
        program.push_str("return 0;\n}\n");
        let binary = self.folder.join("headers");
        let to = binary.display().to_string();
        workspace::run(&mut self.command(&program, &["-o", &to])?)?;
        let text = workspace::output(&mut Command::new(&binary))?;
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        Ok(lines
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}

fn includes() -> String {
    let lines = HEADERS.map(|header| format!("#include <{header}>\n"));
    lines.concat()
}

fn is_theirs(name: &str) -> bool {
    let is_own = name.starts_with("EVENT__") || name.ends_with('_');
    !is_own && PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_number(value: &str) -> bool {
    let value = value.replace("(short)", "").replace("(int)", "");
    let has_digit = value.contains(|letter: char| letter.is_ascii_digit());
    let plain = |letter: char| letter.is_ascii_hexdigit() || "xXuUlL()|<~+- ".contains(letter);
    has_digit && value.chars().all(plain)
}

/// A line of `-aux-info`: where it is declared, and the prototype. Those of libevent's headers only.
fn prototype(line: &str) -> Option<(String, String)> {
    let (place, text) = line.split_once("*/")?;
    if !place.contains("/event2/") {
        return None;
    }
    let text = text.trim().trim_start_matches("extern ");
    let text = text.split("/*").next()?.trim();
    let name = text.split(" (").next()?;
    let name = name.rsplit([' ', '*']).next()?;
    Some((name.to_owned(), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prototype_is_read() {
        let line = "/* /usr/include/event2/event.h:1203:NC */ extern int event_add (struct event *, const struct timeval *);";
        let (name, text) = prototype(line).expect("one of libevent's");
        assert_eq!(name, "event_add");
        assert_eq!(
            text,
            "int event_add (struct event *, const struct timeval *);"
        );
        assert_eq!(
            prototype("/* /usr/include/stdio.h:1:NC */ extern int puts (const char *);"),
            None
        );
    }

    #[test]
    fn numbers_are_told_from_code() {
        assert!(is_number("(0x02|0x04)") && is_number("-1") && is_number("1u<<16"));
        assert!(!is_number("event_assign") && !is_number("") && !is_number("struct event"));
    }

    #[test]
    fn what_is_missing_or_other_is_told() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
            pairs.iter().map(owned).collect()
        };
        let theirs = map(&[("EV_READ", "2"), ("EV_WRITE", "4")]);
        assert!(differences(&theirs, &theirs).is_empty());
        assert_eq!(differences(&theirs, &map(&[("EV_READ", "3")])).len(), 2);
    }
}
