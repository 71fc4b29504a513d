//! `cargo xtask bench relay`: thousands of slow readers and dribblers at `bev relay`, beside a hundred clients that are served.
//!
//! It is the test `crowd` of `bev`, on the optimised program and with the number that counts: memory is held against its budget, the times
//! of answers against those without a crowd.

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace::{cargo, run as run_command};

/// Clients of a crowd: with an upstream for each, close to the descriptors that a process may have.
const CROWD: u32 = 9_000;

pub(super) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let count: u32 = arguments.value("--clients")?.unwrap_or(CROWD);
    arguments.finish()?;
    let mut command = cargo(["test", "--release", "--package", "bev", "--test", "crowd"]);
    command
        .env("BEV_CROWD", count.to_string())
        .env("BEV_CROWD_JUDGE", "yes");
    run_command(&mut command)
}
