//! `cargo xtask loom`: the models, which loom runs in every order of steps that matters.
//!
//! # Invariants
//! - The code under a model is the shipped code: `--cfg loom` changes the primitives below it and nothing else.
//! - `--mutants` plants the mutations of `xtask/mutants/loom.mutants`; a model must fail each.

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::mutants;
use crate::workspace;

/// What has models: the arguments of `cargo test`, and a part of the models' names.
const MODELS: [&[&str]; 3] = [
    &["-p", "evbuffer", "--test", "models"],
    &["-p", "evreactor", "--lib", "models"],
    &[
        "-p",
        "bufferevent-core",
        "--features",
        "async",
        "--test",
        "models",
    ],
];

/// Runs the models, or the mutations of them.
pub(crate) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let planted = arguments.flag("--mutants");
    arguments.finish()?;
    if planted {
        return mutants::check_theme("loom/");
    }
    check()
}

/// Runs the models: the form for `cargo xtask ci`.
pub(crate) fn check() -> Result<(), Failure> {
    for model in MODELS {
        let mut command = workspace::cargo(["test", "--profile", "loom"]);
        command
            .args(model)
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", workspace::target_folder()?.join("loom"));
        workspace::run(&mut command)?;
    }
    Ok(())
}
