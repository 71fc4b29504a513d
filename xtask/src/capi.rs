//! `cargo xtask capi`: the C interface, built and installed as libevent is; or its C tests under valgrind, and Debian's programs on it.
//!
//! All code is in one shared object, `libevent_core-2.1.so.7`. The other names of libevent's are empty and need it, so a process has
//! the library once, whatever its programs and plugins were linked to.
//!
//! # Invariants
//! - Only functions of the C interface are visible from outside: what is exported is listed by the patterns of [`EXPORTS`].
//! - Nothing is written outside of the prefix and the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace;

const EXPORTS: &str = "{ global: event_*; evbuffer_*; bufferevent_*; ev_token_bucket_cfg_*; evconnlistener_*; evdns_*; evthread_*; \
evutil_*; evwatch_*; libevent_*; local: *; };\n";

/// The shared object with the code, and those that only need it; each with the name that linkers look for.
const CORE: (&str, &str) = ("libevent_core-2.1.so.7", "libevent_core.so");
const OTHERS: [(&str, &str); 3] = [
    ("libevent-2.1.so.7", "libevent.so"),
    ("libevent_extra-2.1.so.7", "libevent_extra.so"),
    ("libevent_pthreads-2.1.so.7", "libevent_pthreads.so"),
];
const ARCHIVE: &str = "libevent_core.a";
const OTHER_ARCHIVES: [&str; 3] = ["libevent.a", "libevent_extra.a", "libevent_pthreads.a"];
/// A program fails under it for an error of memory, or for memory that nobody can reach any more.
const VALGRIND: &str =
    "valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite";

/// What ring's assembly writes looks uninitialised to valgrind 3.19: a digest on the stack, so the keys that come of it, so whatever is encrypted. It
/// says so at two places, and at no other: where ring compares a record's tag (`open_within`), and where an encrypted record is sent (`sendto`).
/// As nothing is suppressed, the programs with TLS are judged for invalid memory and leaks alone.
const WITH_CRYPTOGRAPHY: &str = "--undef-value-errors=no";

const SYSTEM: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    if !cfg!(target_os = "linux") {
        return Err(Failure::new("capi: the C interface is for Linux only"));
    }
    let (test, programs) = (arguments.flag("--test"), arguments.flag("--programs"));
    let prefix = arguments.value::<PathBuf>("--prefix")?;
    arguments.finish()?;
    match (prefix, test, programs) {
        (Some(prefix), false, false) => install(&prefix),
        (None, true, false) => {
            under_valgrind()?;
            on_programs()
        }
        (None, false, true) => on_programs(),
        _ => Err(Failure::new(
            "capi: one of --prefix DIR, --test and --programs",
        )),
    }
}

/// Builds the archive, and installs it with all that C programs need into `prefix`.
pub(crate) fn install(prefix: &Path) -> Result<(), Failure> {
    let root = workspace::root();
    // The archive alone: together with the rlib, which tests link, it would not be optimised as a whole.
    let build = ["rustc", "--release", "--quiet", "-p", "bufferevent-capi"];
    workspace::run(workspace::cargo(build).args(["--crate-type", "staticlib"]))?;
    let archive = workspace::target_folder()?
        .join("release")
        .join("libbufferevent_capi.a");
    let library = prefix.join("lib");
    let packages = library.join("pkgconfig");
    make(&packages)?;
    headers(
        &root.join("crates/bufferevent-capi/include"),
        &prefix.join("include"),
    )?;
    copy(&archive, &library.join(ARCHIVE))?;
    // Names of functions stay; where in our sources they are, nobody needs who links the library: 26 MB of 33.
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg(library.join(ARCHIVE));
    workspace::run(&mut strip)?;
    let archive = library.join(ARCHIVE);
    for name in OTHER_ARCHIVES {
        link_name(ARCHIVE, &library.join(name))?;
    }
    let exports = library.join("libevent.exports");
    write(&exports, EXPORTS)?;
    let core = library.join(CORE.0);
    let mut link = Command::new("cc");
    link.args(["-shared", "-Wl,--gc-sections", "-o"])
        .arg(&core)
        .arg(format!("-Wl,-soname,{}", CORE.0))
        .arg(format!("-Wl,--version-script,{}", exports.display()))
        .arg("-Wl,--whole-archive")
        .arg(&archive)
        .arg("-Wl,--no-whole-archive")
        .args(SYSTEM);
    workspace::run(&mut link)?;
    fs::remove_file(&exports).map_err(Failure::during(exports.display()))?;
    link_name(CORE.0, &library.join(CORE.1))?;
    for (name, short) in OTHERS {
        let mut link = Command::new("cc");
        link.args(["-shared", "-nostdlib", "-Wl,--no-as-needed", "-o"])
            .arg(library.join(name))
            .arg(format!("-Wl,-soname,{name}"))
            .arg(&core)
            .arg("-Wl,-rpath,$ORIGIN");
        workspace::run(&mut link)?;
        // Linkers find the functions where they are.
        link_name(CORE.0, &library.join(short))?;
    }
    let prefix = fs::canonicalize(prefix).map_err(Failure::during(prefix.display()))?;
    for (name, libraries) in [
        ("libevent", "-levent"),
        ("libevent_core", "-levent_core"),
        ("libevent_extra", "-levent_extra"),
        ("libevent_pthreads", "-levent_pthreads"),
    ] {
        let text = format!(
            "prefix={}\nlibdir=${{prefix}}/lib\nincludedir=${{prefix}}/include\n\nName: {name}\n\
             Description: libevent's C interface, by bufferevent\nVersion: 2.1.12-stable\n\
             Libs: -L${{libdir}} {libraries} -Wl,-rpath,${{libdir}}\nLibs.private: {}\nCflags: -I${{includedir}}\n",
            prefix.display(),
            SYSTEM.join(" ")
        );
        write(&packages.join(format!("{name}.pc")), &text)?;
    }
    println!("capi: installed into {}", prefix.display());
    println!(
        "capi: export PKG_CONFIG_PATH={}/lib/pkgconfig, then: cc prog.c $(pkg-config --cflags --libs libevent)",
        prefix.display()
    );
    Ok(())
}

/// Runs the C tests with every program under valgrind.
fn under_valgrind() -> Result<(), Failure> {
    for (test, runner) in [
        ("c", VALGRIND.to_owned()),
        ("tls", format!("{VALGRIND} {WITH_CRYPTOGRAPHY}")),
    ] {
        let test = ["test", "-p", "bufferevent-capi", "--test", test];
        workspace::run(workspace::cargo(test).env("CAPI_RUNNER", runner))?;
    }
    Ok(())
}

/// Compiles programs as their authors would, by pkg-config, and runs them: with the shared objects and with the archive.
fn links(prefix: &Path) -> Result<(), Failure> {
    let library = prefix.join("lib");
    let asked = |arguments: &[&str]| -> Result<Vec<String>, Failure> {
        let mut command = Command::new("pkg-config");
        command
            .args(arguments)
            .env("PKG_CONFIG_PATH", library.join("pkgconfig"));
        let flags = workspace::output(&mut command).map_err(|error| {
            Failure::new(format!(
                "{error} (apt-get install pkg-config, if it is missing)"
            ))
        })?;
        Ok(flags.split_whitespace().map(String::from).collect())
    };
    let programs = workspace::root().join("crates/bufferevent-capi/tests/c");
    for (source, package) in [
        ("buffer", "libevent_core"),
        ("util", "libevent"),
        ("threads", "libevent_pthreads"),
    ] {
        let archive = library.join(format!("{package}.a")).display().to_string();
        let shared = asked(&["--cflags", "--libs", package])?;
        let mut with_archive = asked(&["--cflags", package])?;
        with_archive.push(archive);
        with_archive.extend(SYSTEM.map(String::from));
        for (kind, flags, needs) in [("shared", shared, true), ("static", with_archive, false)] {
            let program = prefix.join(format!("{source}-{kind}"));
            let mut compile = Command::new("cc");
            compile
                .arg(programs.join(source).with_extension("c"))
                .args(&flags)
                .args(["-lpthread", "-o"])
                .arg(&program);
            workspace::run(&mut compile)?;
            workspace::run(&mut Command::new(&program))?;
            let needed = workspace::output(Command::new("ldd").arg(&program))?;
            if needed.contains("libevent") != needs {
                return Err(Failure::new(format!(
                    "capi: {source}, {kind}, needs: {needed}"
                )));
            }
            fs::remove_file(&program).map_err(Failure::during(program.display()))?;
        }
    }
    println!("capi: programs link by pkg-config, shared and static, and run");
    Ok(())
}

/// Runs Debian's programs on the library.
fn on_programs() -> Result<(), Failure> {
    let prefix = workspace::target_folder()?.join("capi");
    install(&prefix)?;
    links(&prefix)?;
    crate::capi_exports::compare(&prefix.join("lib"))?;
    crate::capi_headers::compare(&prefix.join("include"), &prefix)?;
    crate::capi_programs::run(&prefix)
}

fn headers(from: &Path, to: &Path) -> Result<(), Failure> {
    make(to)?;
    for entry in fs::read_dir(from).map_err(Failure::during(from.display()))? {
        let entry = entry.map_err(Failure::during(from.display()))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            headers(&path, &target)?;
        } else {
            copy(&path, &target)?;
        }
    }
    Ok(())
}

fn make(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(Failure::during(folder.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::copy(from, to)
        .map(drop)
        .map_err(Failure::during(to.display()))
}

fn write(to: &Path, text: &str) -> Result<(), Failure> {
    fs::write(to, text).map_err(Failure::during(to.display()))
}

/// A symbolic link, in place of what was there.
fn link_name(to: &str, at: &Path) -> Result<(), Failure> {
    if fs::symlink_metadata(at).is_ok() {
        fs::remove_file(at).map_err(Failure::during(at.display()))?;
    }
    #[cfg(unix)]
    return std::os::unix::fs::symlink(to, at).map_err(Failure::during(at.display()));
    #[cfg(not(unix))]
    return copy(Path::new(to), at);
}
