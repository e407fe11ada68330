//! `cargo xtask screenshots`: runs the test package's program of that name, which draws with the
//! real view; here it would make every other command wait for the view to be built.

use std::process::Command;

use anyhow::{Context, Result, ensure};

pub(crate) fn run(names: &[String]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "run",
            "--quiet",
            "--package",
            "stalltop-tests",
            "--bin",
            "screenshots",
            "--",
        ])
        .args(names)
        .status()
        .context("cargo")?;
    ensure!(status.success(), "no pictures were made");
    Ok(())
}
