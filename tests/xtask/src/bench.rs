//! `cargo xtask bench`: measurements that need more than a benchmark harness.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use crate::idle;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What our programs cost, dispatch and interrupts included (as root): nothing attached,
    /// programs that do nothing and ours, in turns; per softirq under a flood in a network
    /// namespace of its own, per switch of tasks, and what a burner loses
    Probes {
        /// How long to measure
        #[arg(long = "for", default_value = "20s", value_parser = humantime::parse_duration)]
        time: Duration,
        /// The CPU to load
        #[arg(long, default_value_t = 0)]
        cpu: usize,
    },
    /// What the whole screen costs a quiet host, from outside: the kernel's accounting of it,
    /// and what a burner on each CPU loses while it runs
    Idle {
        /// How long the accounting runs
        #[arg(long = "for", default_value = "60s", value_parser = humantime::parse_duration)]
        time: Duration,
        /// How often the burners run with and without it
        #[arg(long, default_value_t = 10)]
        pairs: u32,
        /// How long each of these lasts
        #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
        phase: Duration,
        /// Another program to measure in its place, started the same way with --read-only
        #[arg(long)]
        program: Option<PathBuf>,
    },
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Probes { time, cpu } => probes(*time, *cpu),
        What::Idle {
            time,
            pairs,
            phase,
            program,
        } => {
            let program = match program {
                Some(program) => program.clone(),
                None => crate::build::program(&["--release", "--package", "stalltop"], &[])?,
            };
            idle::run(&program, *time, (*pairs).max(1), *phase)
        }
    }
}

fn probes(time: Duration, cpu: usize) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--package", "stalltop-tests"])
        .args(["--bin", "probes-bench", "--"])
        .args([time.as_secs().max(1).to_string(), cpu.to_string()])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .status()
        .context("start cargo")?;
    ensure!(status.success(), "the benchmark failed: {status}");
    Ok(())
}
