//! The project's own commands, one file per subcommand; this file only dispatches.
//!
//! `cargo xtask` is an alias in `.cargo/config.toml`.

mod bench;
mod build;
mod dist;
mod docs;
mod ebpf;
mod idle;
mod screenshots;
mod soak;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the fully static release binary
    Dist(dist::Args),
    /// Measure what a benchmark harness cannot
    Bench(bench::Args),
    /// Write the documents that are made from tables and doc comments
    Docs,
    /// Rebuild the committed eBPF object and its manifest, or check them
    Ebpf(ebpf::Args),
    /// Paint the pictures of the README from a recording
    Screenshots {
        /// Only these: overview, cores, tracing, cgroups
        names: Vec<String>,
    },
    /// Keep all of stalltop's probes on while locks are contended (as root), and see that nothing is
    /// lost, nothing stops and nothing grows
    Soak(soak::Args),
    /// Fetch other kernels, and run a command in a virtual machine with one
    Vm(Box<vm::Args>),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Dist(args) => dist::run(args),
        Command::Bench(args) => bench::run(&args),
        Command::Docs => docs::run(),
        Command::Ebpf(args) => ebpf::run(&args),
        Command::Screenshots { names } => screenshots::run(&names),
        Command::Soak(args) => soak::run(&args),
        Command::Vm(args) => vm::run(*args),
    }
}
