//! `cargo xtask soak`: all of stalltop's probes on, for minutes, on a host that is kept busy.
//!
//! The soak itself is a test that is otherwise ignored; here it gets the release build.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long
    #[arg(long = "for", default_value = "10m", value_parser = humantime::parse_duration)]
    time: Duration,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        args.time >= Duration::from_secs(180),
        "a soak takes 3 minutes at least: the first two show no growth"
    );
    let program = crate::build::program(&["--release", "--package", "stalltop"], &[])?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--package", "stalltop-tests"])
        .args(["--test", "live_locks", "--"])
        .args(["--ignored", "--nocapture", "a_soak_loses_nothing"])
        .env("STALLTOP_PROGRAM", program)
        .env("STALLTOP_SOAK", args.time.as_secs().to_string())
        .env("STALLTOP_TEST_REQUIRE_ALL", "1")
        .status()
        .context("start cargo")?;
    ensure!(status.success(), "the soak failed: {status}");
    Ok(())
}
