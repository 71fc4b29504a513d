//! `cargo xtask mutants`: applies each checked-in mutation to a copy of the tree; a check must turn red.
//!
//! `xtask/mutants/THEME.mutants` hold them; an entry is called THEME/NAME:
//!
//! ```text
//! == drain-keeps-length
//! rows: B1
//! file: crates/evbuffer/src/lib.rs
//! test: -p evbuffer --test model
//! quick: yes
//! --- old
//!         self.len -= n;
//! --- new
//!         let _ = n;
//! --- end
//! ```
//!
//! `test:` is what follows `cargo test`; `quick: yes` puts the mutation into the short form that
//! `cargo xtask ci` runs; lines before the first `==` and between entries that begin with `#` are remarks.
//!
//! # Invariants
//! - The working tree is never changed: the copy lives in the target directory, and keeps the time
//!   stamps of unchanged files so that builds are incremental.
//! - A mutation counts as caught only if the checks pass without it, it compiles, and then a check
//!   fails or does not end within [`PATIENCE`].
//! - A mutation whose old text is not there exactly once is a failure: it has gone stale.
//! - Every group of rows of the specification (the letter of their ids) has at least one mutation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::rows::{Book, Scope};
use crate::workspace;

/// How long one test program may run before a mutation counts as having hung it.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a running test program is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// One change that a check must notice.
#[derive(Debug, Eq, PartialEq)]
struct Mutation {
    name: String,
    rows: String,
    file: String,
    test: Vec<String>,
    quick: bool,
    old: String,
    new: String,
}

/// What came of one mutation.
#[derive(Debug)]
enum Fate {
    /// A check turned red: this one.
    Caught(String),
    /// Every check passed all the same.
    Survived,
    /// The mutated tree does not compile, so nothing was checked.
    DoesNotCompile,
}

/// Runs all mutations, or those of the short form, or those whose name contains a given word.
pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let quick = arguments.flag("--quick");
    let named = arguments.positional();
    arguments.finish()?;
    let mut mutations = read_all(&workspace::root().join("xtask/mutants"))?;
    let without = groups_without(&mutations);
    mutations.retain(|mutation| !quick || mutation.quick);
    mutations.retain(|mutation| {
        named
            .as_ref()
            .is_none_or(|word| mutation.name.contains(word))
    });
    if mutations.is_empty() {
        return Err(Failure::new("mutants: none is selected"));
    }
    try_all(&mutations)?;
    if without.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "mutants: no mutation is about the rows {}",
        without.iter().collect::<String>()
    )))
}

/// The groups of rows in scope that no mutation names.
fn groups_without(mutations: &[Mutation]) -> BTreeSet<char> {
    let group = |id: &str| id.chars().next().expect("ids are not empty");
    let named: BTreeSet<char> = mutations
        .iter()
        .flat_map(|mutation| mutation.rows.split(' '))
        .map(group)
        .collect();
    let in_scope = Book::Spec
        .rows()
        .iter()
        .filter(|row| row.scope == Scope::Now);
    in_scope
        .map(|row| group(row.id))
        .filter(|group| !named.contains(group))
        .collect()
}

/// All of one file.
pub(crate) fn check_theme(theme: &str) -> Result<(), Failure> {
    let mut mutations = read_all(&workspace::root().join("xtask/mutants"))?;
    mutations.retain(|mutation| mutation.name.starts_with(theme));
    try_all(&mutations)
}

/// The short form, for `cargo xtask ci`.
pub(crate) fn check_quick() -> Result<(), Failure> {
    let mut mutations = read_all(&workspace::root().join("xtask/mutants"))?;
    mutations.retain(|mutation| mutation.quick);
    try_all(&mutations)
}

fn try_all(mutations: &[Mutation]) -> Result<(), Failure> {
    let folder = workspace::target_folder()?.join("mutants");
    let copy = Copy {
        tree: folder.join("tree"),
        target: folder.join("target"),
    };
    copy.synchronize(workspace::root())?;
    for mutation in mutations {
        mutation.apply(&copy.read(&mutation.file)?)?;
    }
    // A check that is red already would catch anything.
    for test in mutations
        .iter()
        .map(|mutation| &mutation.test)
        .collect::<BTreeSet<_>>()
    {
        let line = test.join(" ");
        match copy.check(test)? {
            Fate::Survived => {}
            Fate::Caught(by) => {
                return Err(Failure::new(format!(
                    "mutants: {by} fails without any mutation"
                )));
            }
            Fate::DoesNotCompile => {
                return Err(Failure::new(format!(
                    "mutants: `cargo test {line}` does not compile unmutated"
                )));
            }
        }
    }
    let mut wrong = 0;
    for mutation in mutations {
        let began = Instant::now();
        let fate = copy.check_mutated(mutation)?;
        let told = match fate {
            Fate::Caught(by) => format!("caught by {by}"),
            Fate::Survived => "SURVIVED: no check turned red".into(),
            Fate::DoesNotCompile => "DOES NOT COMPILE: it proves nothing".into(),
        };
        wrong += usize::from(!told.starts_with("caught"));
        println!(
            "{:<48} {:<8} {told} ({:.1} s)",
            mutation.name,
            mutation.rows,
            began.elapsed().as_secs_f32()
        );
    }
    if wrong > 0 {
        return Err(Failure::new(format!(
            "mutants: {wrong} of {} were not caught",
            mutations.len()
        )));
    }
    println!("mutants: all {} were caught", mutations.len());
    Ok(())
}

impl Mutation {
    /// The file's text with the change made.
    fn apply(&self, text: &str) -> Result<String, Failure> {
        match text.matches(&self.old).count() {
            1 => Ok(text.replacen(&self.old, &self.new, 1)),
            count => Err(Failure::new(format!(
                "mutant {}: its old text is {count} times in {}, and must be there once",
                self.name, self.file
            ))),
        }
    }
}

/// A copy of the workspace that may be broken at will.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Makes the copy equal to `source`, touching only files that differ.
    fn synchronize(&self, source: &Path) -> Result<(), Failure> {
        mirror(source, &self.tree, true).map_err(Failure::during(self.tree.display()))
    }

    fn read(&self, file: &str) -> Result<String, Failure> {
        fs::read_to_string(self.tree.join(file)).map_err(Failure::during(file))
    }

    fn check_mutated(&self, mutation: &Mutation) -> Result<Fate, Failure> {
        let sound = self.read(&mutation.file)?;
        let path = self.tree.join(&mutation.file);
        fs::write(&path, mutation.apply(&sound)?).map_err(Failure::during(path.display()))?;
        let fate = self.check(&mutation.test);
        fs::write(&path, sound).map_err(Failure::during(path.display()))?;
        fate
    }

    /// Builds and runs `cargo test` with these arguments, each test program by itself so that one that hangs can be ended.
    fn check(&self, test: &[String]) -> Result<Fate, Failure> {
        let (selection, filter) = match test.iter().position(|word| word == "--") {
            Some(at) => (&test[..at], &test[at + 1..]),
            None => (test, &[][..]),
        };
        let mut build = workspace::cargo(["test", "--no-run", "--quiet", "--message-format=json"]);
        build
            .args(selection)
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target);
        if selection.iter().any(|word| word == "loom") {
            build
                .env("RUSTFLAGS", "--cfg loom")
                .env("CARGO_TARGET_DIR", self.target.with_extension("loom"));
        }
        let built = build
            .stderr(Stdio::null())
            .output()
            .map_err(Failure::during("cargo test --no-run"))?;
        if !built.status.success() {
            return Ok(Fate::DoesNotCompile);
        }
        let programs = workspace::executables(&String::from_utf8_lossy(&built.stdout));
        if programs.is_empty() {
            return Err(Failure::new(format!(
                "`cargo test {}` has no test program",
                test.join(" ")
            )));
        }
        for (program, package) in programs {
            let mut command = Command::new(&program);
            command.args(filter).current_dir(package);
            if !passes(&mut command)? {
                let name = program.file_stem().unwrap_or_default().to_string_lossy();
                let name = name.rsplit_once('-').map_or(&*name, |(name, _hash)| name);
                return Ok(Fate::Caught(name.into()));
            }
        }
        Ok(Fate::Survived)
    }
}

/// Whether the program ends well, in time.
fn passes(command: &mut Command) -> Result<bool, Failure> {
    let shown = workspace::shown(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(Failure::during(&shown))?;
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(Failure::during(&shown))? {
            return Ok(status.success());
        }
        if began.elapsed() > PATIENCE {
            child
                .kill()
                .and_then(|()| child.wait())
                .map_err(Failure::during(&shown))?;
            return Ok(false);
        }
        thread::sleep(GLANCE);
    }
}

/// Copies what differs and removes what is gone. Builds and the repository's own data stay behind.
fn mirror(from: &Path, to: &Path, is_root: bool) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    let left_behind =
        |name: &str| is_root && (name == ".git" || name.starts_with("target")) || name == "target";
    let mut kept = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if left_behind(&name.to_string_lossy()) {
            continue;
        }
        let (source, copy) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            mirror(&source, &copy, false)?;
        } else {
            let bytes = fs::read(&source)?;
            if fs::read(&copy).ok().as_ref() != Some(&bytes) {
                fs::write(&copy, bytes)?;
            }
        }
        kept.insert(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !kept.contains(&entry.file_name()) {
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

fn read_all(folder: &Path) -> Result<Vec<Mutation>, Failure> {
    let entries = fs::read_dir(folder).map_err(Failure::during(folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(Failure::during(folder.display()))?.path());
    }
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "mutants")
    });
    paths.sort();
    let mut mutations: Vec<Mutation> = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).map_err(Failure::during(path.display()))?;
        let theme = path.file_stem().unwrap_or_default().to_string_lossy();
        for mut mutation in parse(&text).map_err(Failure::during(path.display()))? {
            mutation.name = format!("{theme}/{}", mutation.name);
            if mutations.iter().any(|other| other.name == mutation.name) {
                return Err(Failure::new(format!(
                    "{}: two mutants are {}",
                    path.display(),
                    mutation.name
                )));
            }
            mutations.push(mutation);
        }
    }
    Ok(mutations)
}

fn parse(text: &str) -> Result<Vec<Mutation>, Failure> {
    let mut lines = text.lines();
    let mut mutations = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("== ") {
            mutations.push(parse_one(name, &mut lines)?);
        } else if !line.is_empty() && !line.starts_with('#') {
            return Err(Failure::new(format!(
                "`{line}` stands outside of every mutation"
            )));
        }
    }
    Ok(mutations)
}

fn parse_one<'a>(
    name: &str,
    lines: &mut impl Iterator<Item = &'a str>,
) -> Result<Mutation, Failure> {
    let refuse = |why: &str| Failure::new(format!("mutant {name}: {why}"));
    let (mut rows, mut file, mut test, mut quick) = (None, None, None, false);
    loop {
        let line = lines.next().ok_or_else(|| refuse("has no `--- old`"))?;
        match line.split_once(": ") {
            Some(("rows", value)) => rows = Some(value.to_string()),
            Some(("file", value)) => file = Some(value.to_string()),
            Some(("test", value)) => {
                test = Some(value.split_whitespace().map(String::from).collect())
            }
            Some(("quick", "yes")) => quick = true,
            _ if line == "--- old" => break,
            _ => return Err(refuse(&format!("`{line}` is not understood"))),
        }
    }
    let mut until = |end: &str| {
        let mut block = String::new();
        loop {
            match lines.next() {
                Some(line) if line == end => return Ok(block),
                Some(line) => {
                    block.push_str(line);
                    block.push('\n');
                }
                None => return Err(refuse(&format!("has no `{end}`"))),
            }
        }
    };
    let (old, new) = (until("--- new")?, until("--- end")?);
    if old.is_empty() || old == new {
        return Err(refuse("changes nothing"));
    }
    let rows: String = rows.ok_or_else(|| refuse("has no `rows:`"))?;
    let exists = |id: &str| Book::Spec.row(id).is_some() || Book::Faults.row(id).is_some();
    if let Some(unknown) = rows.split(' ').find(|id| !exists(id)) {
        return Err(refuse(&format!("there is no row {unknown}")));
    }
    Ok(Mutation {
        name: name.into(),
        rows,
        file: file.ok_or_else(|| refuse("has no `file:`"))?,
        test: test.ok_or_else(|| refuse("has no `test:`"))?,
        quick,
        old,
        new,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "\
# A remark.
== skip-the-check
rows: B1 F5
file: src/lib.rs
test: -p evbuffer --test model -- drain
quick: yes
--- old
    check();
--- new
--- end
";

    #[test]
    fn an_entry_is_read() {
        let [mutation] = &parse(ENTRY).unwrap()[..] else {
            panic!("one entry")
        };
        assert_eq!(
            (mutation.name.as_str(), mutation.rows.as_str()),
            ("skip-the-check", "B1 F5")
        );
        assert_eq!(
            mutation.test,
            ["-p", "evbuffer", "--test", "model", "--", "drain"]
        );
        assert!(mutation.quick);
        assert_eq!(
            (mutation.old.as_str(), mutation.new.as_str()),
            ("    check();\n", "")
        );
    }

    #[test]
    fn old_text_must_be_there_exactly_once() {
        let mutation = &parse(ENTRY).unwrap()[0];
        assert_eq!(mutation.apply("a\n    check();\nb\n").unwrap(), "a\nb\n");
        assert!(
            mutation
                .apply("a\nb\n")
                .unwrap_err()
                .to_string()
                .contains("0 times")
        );
        assert!(
            mutation
                .apply("    check();\n    check();\n")
                .unwrap_err()
                .to_string()
                .contains("2 times")
        );
    }

    #[test]
    fn an_entry_with_a_part_missing_is_refused() {
        for part in [
            "rows: B1 F5\n",
            "file: src/lib.rs\n",
            "--- new\n",
            "--- end\n",
            "    check();\n",
        ] {
            assert!(parse(&ENTRY.replace(part, "")).is_err(), "without `{part}`");
        }
        assert!(
            parse(&ENTRY.replace("B1 F5", "B1 B99")).is_err(),
            "a row that no book has"
        );
        assert!(parse("stray\n").is_err());
    }

    #[test]
    fn a_group_of_rows_without_a_mutation_is_found() {
        let without = groups_without(&parse(ENTRY).unwrap());
        assert!(
            without.contains(&'C') && without.contains(&'R') && !without.contains(&'B'),
            "{without:?}"
        );
    }

    #[test]
    fn the_entries_of_the_project_are_read_and_apply() {
        let root = workspace::root();
        for mutation in read_all(&root.join("xtask/mutants")).unwrap() {
            mutation
                .apply(&fs::read_to_string(root.join(&mutation.file)).unwrap())
                .unwrap();
        }
    }
}
