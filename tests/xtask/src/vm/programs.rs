//! Programs of this workspace as they run on any kernel here: static, so they need no library of
//! the guest's (a static-pie of the glibc target).

use std::path::PathBuf;

use anyhow::Result;

use crate::build;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// With `--target`, the flag does not reach build scripts.
const STATIC: (&str, &str) = ("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");

/// Emulated, what is not optimized at all is too slow to keep up with its own probes.
const FASTER: (&str, &str) = ("CARGO_PROFILE_DEV_OPT_LEVEL", "1");

/// A program: `stalltop`, or one of the test package's (`bpf-holder`).
pub(super) fn program(name: &str) -> Result<PathBuf> {
    let package = match name {
        "stalltop" => "stalltop",
        _ => "stalltop-tests",
    };
    let args = [
        "--quiet",
        "--target",
        TARGET,
        "--package",
        package,
        "--bin",
        name,
    ];
    build::program(&args, &[STATIC, FASTER])
}

/// An integration test of the test package, as a program that runs its tests.
pub(super) fn test(name: &str) -> Result<build::Test> {
    let package = "stalltop-tests";
    let args = [
        "--quiet",
        "--target",
        TARGET,
        "--package",
        package,
        "--test",
        name,
    ];
    build::test(&args, &[STATIC])
}
