//! `cargo xtask windows`: clippy, the tests of all crates, and the product's demo, built for Windows and run under Wine.
//!
//! # What is needed
//! | what | where from |
//! |---|---|
//! | Rust's standard library for `x86_64-pc-windows-gnu` | `rustup target add x86_64-pc-windows-gnu` |
//! | a C compiler and a linker for it | `apt-get install gcc-mingw-w64-x86-64-win32`, or the like |
//! | Wine | `apt-get install wine64 wine`; tried with 8.0 |
//!
//! What is missing is said in one line each. All else is set up here: Wine's folder, and the one library that Wine 8 lacks.
//!
//! # Invariants
//! - What is built, and Wine's folder, lie in `target-win/`; the ordinary builds stay as they are.
//! - What ran under Wine is called "tested under Wine", never "on Windows": there, `cargo xtask ci` runs the same tests.
//! - `ci` does the type check where the first two are there, and says in one line where not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::arguments::Arguments;
use crate::ci::TestCount;
use crate::failure::Failure;
use crate::records::{self, Outcome};
use crate::workspace::{output, root, run as run_command};

const TARGET: &str = "x86_64-pc-windows-gnu";

const COMPILER: &str = "x86_64-w64-mingw32-gcc";

const ARCHIVER: &str = "x86_64-w64-mingw32-ar";

/// Crates that are not for Windows: libevent's C interface, and this program.
const WITHOUT: [&str; 2] = ["bufferevent-capi", "xtask"];

/// Bytes of each demo: Wine is no place for speed.
const DEMO_BYTES: &str = "8MiB";

/// A lint that takes `const` blocks of `thread_local!` for none where the target keeps them by key.
const FALSE_ALARM: &str = "clippy::missing_const_for_thread_local";

/// What builds for Windows.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
}

/// Runs everything, or the type check alone.
pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let check_only = arguments.flag("--check");
    arguments.finish()?;
    if cfg!(windows) {
        return Err(Failure::new(
            "windows: this is Windows: `cargo xtask ci` runs the tests here",
        ));
    }
    let (toolchain, missing) = toolchain();
    let wine = wine();
    let mut missing = missing;
    if wine.is_none() && !check_only {
        missing.push("Wine (`apt-get install wine64 wine`)".into());
    }
    for what in &missing {
        println!("windows: missing: {what}");
    }
    let (Some(toolchain), true) = (toolchain, missing.is_empty()) else {
        return Err(Failure::new(format!(
            "windows: {} of the tools are not here, listed above",
            missing.len()
        )));
    };
    if check_only {
        return type_check(&toolchain);
    }
    let wine = wine.ok_or_else(|| Failure::new("windows: there is no Wine"))?;
    everything(&toolchain, &wine)
}

/// The quick form for `ci`.
pub(crate) fn quick() -> Result<(), Failure> {
    if cfg!(windows) {
        return Ok(());
    }
    match toolchain() {
        (Some(toolchain), missing) if missing.is_empty() => type_check(&toolchain),
        (_, missing) => {
            println!(
                "windows: not type-checked here, for want of {}",
                missing.join("; ")
            );
            Ok(())
        }
    }
}

fn type_check(toolchain: &Toolchain) -> Result<(), Failure> {
    let mut command = toolchain.cargo("check");
    everywhere(command.arg("--all-targets"));
    run_command(&mut command)?;
    println!("windows: all crates and their tests pass the type check for {TARGET}");
    Ok(())
}

fn everything(toolchain: &Toolchain, wine: &Path) -> Result<(), Failure> {
    let version = output(Command::new(wine).arg("--version").env("WINEDEBUG", "-all"))?;
    let version = version.trim().to_owned();
    println!("windows: {TARGET}, under {version}");
    let prefix = prepare(wine)?;

    let mut clippy = toolchain.cargo("clippy");
    everywhere(clippy.arg("--all-targets")).args(["--", "-D", "warnings", "-A", FALSE_ALARM]);
    run_command(&mut clippy)?;

    let records = records::fresh_folder()?;
    let mut tests = toolchain.cargo("test");
    everywhere(tests.arg("--no-fail-fast"));
    under_wine(&mut tests, wine, &prefix);
    let mut count = TestCount::default();
    count.count(records::recording(&mut tests, &records))?;
    suite_ran(&records)?;

    for backend in ["polling", "iocp"] {
        let mut demo = toolchain.cargo("run");
        demo.args(["--package", "bev", "--", "demo"]);
        demo.args(["--bytes", DEMO_BYTES, "--backend", backend]);
        under_wine(&mut demo, wine, &prefix);
        run_command(&mut demo)?;
    }
    println!("windows: {count}, and the demo on both backends, tested under {version}");
    Ok(())
}

/// The suite has run over completion ports, and said so: the row of the specification that ordinary checks cannot prove.
pub(crate) fn suite_ran(folder: &Path) -> Result<(), Failure> {
    let records = records::read(folder)?;
    let passed = records.iter().any(|record| {
        record.id == "I1" && record.backend == "iocp" && record.outcome == Outcome::Passed
    });
    if passed {
        println!("windows: I1 is proved: the suite over completion ports");
        return Ok(());
    }
    Err(Failure::new(
        "windows: no test has recorded I1 for the backend `iocp`",
    ))
}

impl Toolchain {
    /// Cargo for Windows, in the root.
    fn cargo(&self, what: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        command
            .current_dir(root())
            .arg(what)
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO")
            .env("RUSTC", &self.rustc)
            .env("RUSTDOC", self.rustc.with_file_name("rustdoc"))
            .env("CARGO_BUILD_TARGET", TARGET)
            .env("CARGO_TARGET_DIR", folder())
            .env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", COMPILER)
            .env("CC_x86_64_pc_windows_gnu", COMPILER)
            .env("AR_x86_64_pc_windows_gnu", ARCHIVER)
            .env("CARGO_INCREMENTAL", "0")
            // Line numbers for what fails; more would be gigabytes.
            .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
        // Cargo finds its own sub-commands beside itself, and not those of another toolchain.
        if let Some(beside) = self.cargo.parent() {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(beside.to_path_buf()).chain(std::env::split_paths(&path));
            if let Ok(path) = std::env::join_paths(folders) {
                command.env("PATH", path);
            }
        }
        command
    }
}

fn everywhere(command: &mut Command) -> &mut Command {
    command.arg("--workspace");
    for without in WITHOUT {
        command.args(["--exclude", without]);
    }
    command
}

fn under_wine(command: &mut Command, wine: &Path, prefix: &Path) {
    command
        .env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", wine)
        .env("WINEPREFIX", prefix)
        .env("WINEDEBUG", "-all")
        .env_remove("DISPLAY");
}

fn folder() -> PathBuf {
    root().join("target-win")
}

/// A toolchain that builds for Windows, and what is missing to use it. The one that runs this comes first, then the system's.
fn toolchain() -> (Option<Toolchain>, Vec<String>) {
    let running = std::env::var_os("CARGO").map(PathBuf::from);
    let pairs = running
        .map(|cargo| (cargo.clone(), cargo.with_file_name("rustc")))
        .into_iter()
        .chain([("/usr/bin/cargo".into(), "/usr/bin/rustc".into())]);
    let found = pairs
        .filter(|(cargo, rustc)| cargo.is_file() && has_target(rustc))
        .map(|(cargo, rustc)| Toolchain { cargo, rustc })
        .next();
    let mut missing = Vec::new();
    if found.is_none() {
        missing.push(format!(
            "Rust's standard library for {TARGET} (`rustup target add {TARGET}`)"
        ));
    }
    if on_path(COMPILER).is_none() {
        missing.push(format!(
            "{COMPILER} (`apt-get install gcc-mingw-w64-x86-64-win32`)"
        ));
    }
    (found, missing)
}

fn has_target(rustc: &Path) -> bool {
    let Ok(told) = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null())
        .output()
    else {
        return false;
    };
    let library = String::from_utf8_lossy(&told.stdout);
    let Ok(files) = std::fs::read_dir(library.trim()) else {
        return false;
    };
    files
        .flatten()
        .any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

fn wine() -> Option<PathBuf> {
    // Debian keeps the program itself out of the path; what is in it is a script that may want the 32-bit one.
    let own = PathBuf::from("/usr/lib/wine/wine64");
    Some(own)
        .filter(|program| program.is_file())
        .or_else(|| on_path("wine64"))
        .or_else(|| on_path("wine"))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|program| program.is_file())
}

/// Makes Wine's folder, once, with the library that Wine 8 lacks.
fn prepare(wine: &Path) -> Result<PathBuf, Failure> {
    let prefix = folder().join("wine");
    let system = prefix.join("drive_c/windows/system32");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(wine);
        under_wine(&mut command, wine, &prefix);
        // It grumbles about windows and sound, which nobody needs here.
        command.stderr(Stdio::null()).stdout(Stdio::null());
        run_command(command.args(arguments))
    };
    if !prefix.join("system.reg").is_file() {
        println!("windows: making Wine's folder");
        std::fs::create_dir_all(&prefix).map_err(Failure::during(prefix.display()))?;
        run(&["wineboot", "-i"])?;
        let version = ["reg", "add", r"HKCU\Software\Wine", "/v", "Version"];
        run(&[&version[..], &["/d", "win10", "/f"]].concat())?;
    }
    let library = system.join("bcryptprimitives.dll");
    if !library.is_file() {
        let mut compile = Command::new(COMPILER);
        compile
            .args(["-O2", "-shared", "-o"])
            .arg(&library)
            .arg(root().join("xtask/windows/bcryptprimitives.c"))
            .arg("-ladvapi32");
        run_command(&mut compile)?;
    }
    Ok(prefix)
}
