//! `cargo xtask vm`: machines with other kernels than this host's, without a root disk, without
//! root and without KVM. `vm fetch` gets kernels and the emulator, `vm KERNEL COMMAND` boots one
//! and runs a command there.

pub(crate) mod apt;
pub(crate) mod cache;
mod fetch;
mod initramfs;
mod machine;
mod programs;
mod record;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;

use machine::{Cgroup, Job};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    boot: Option<Boot>,
}

#[derive(Subcommand)]
enum Action {
    /// Fetch kernels (all that the tests boot, if none is named), qemu and busybox
    Fetch {
        /// 5.10, 6.1, 6.12 or 7.2
        kernels: Vec<String>,
        /// Fetch again what is there already: today's packages
        #[arg(long)]
        again: bool,
    },
    /// Record the fixtures of tests/fixtures anew
    Record {
        /// Their folders' names, or `host` for this machine (as root); all machines, if none
        names: Vec<String>,
    },
}

#[derive(clap::Args)]
struct Boot {
    /// The kernel to boot: 5.10, 6.1, 6.12 or 7.2
    kernel: String,
    /// CPUs of the machine, or all of qemu's -smp: `4,sockets=1,cores=2,threads=2`
    #[arg(long, default_value = "2")]
    cpus: String,
    /// Memory of the machine, MiB
    #[arg(long, default_value_t = 768)]
    memory: u32,
    /// qemu's CPU model; `max,-hypervisor` makes the kernel believe in real spinlocks
    #[arg(long, default_value = "max")]
    cpu: String,
    /// How cgroups are mounted
    #[arg(long, value_enum, default_value = "v2")]
    cgroup: Cgroup,
    /// A further kernel parameter, such as lockdown=integrity
    #[arg(long, value_name = "PARAMETER")]
    append: Vec<String>,
    /// A file to bring along, as /t/NAME or at the path after the colon; /t is in PATH
    #[arg(long, value_name = "FILE[:PATH]")]
    file: Vec<String>,
    /// A program of this workspace to bring along, built static, as /t/NAME: stalltop, bpf-holder
    #[arg(long, value_name = "NAME")]
    program: Vec<String>,
    /// An integration test to bring along, built static, as /t/NAME: live_tracing
    #[arg(long, value_name = "NAME")]
    test: Vec<String>,
    /// Where what the command leaves in /out goes
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// How long the command may take, boot not included
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    limit: Duration,
    /// What to run, by the shell of busybox; `uname -a` if nothing is given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// The exit status where the machine gave none: it panicked or hung.
const NO_STATUS: u8 = 125;

pub(crate) fn run(args: Args) -> Result<()> {
    match (args.action, args.boot) {
        (Some(Action::Fetch { kernels, again }), _) => fetch_all(&kernels, again),
        (Some(Action::Record { names }), _) => record::run(&names),
        (None, Some(boot)) => {
            let status = boot.job()?.run().unwrap_or_else(|error| {
                eprintln!("{error:#}");
                NO_STATUS
            });
            std::process::exit(status.into());
        }
        (None, None) => anyhow::bail!("name a kernel"),
    }
}

fn fetch_all(kernels: &[String], again: bool) -> Result<()> {
    let _lock = cache::lock()?;
    println!("{}", fetch::qemu(again)?.program.display());
    println!("{}", fetch::busybox(again)?.display());
    let tested = || {
        fetch::TESTED
            .iter()
            .map(|name| (*name).to_owned())
            .collect()
    };
    let names = if kernels.is_empty() {
        tested()
    } else {
        kernels.to_vec()
    };
    for name in names {
        println!("{} {}", name, fetch::kernel(&name, again)?.release);
    }
    Ok(())
}

impl Boot {
    fn job(self) -> Result<Job> {
        let command = if self.command.is_empty() {
            "uname -a".to_owned()
        } else {
            self.command.join(" ")
        };
        {
            let _lock = cache::lock()?;
            fetch::qemu(false)?;
            fetch::busybox(false)?;
            fetch::kernel(&self.kernel, false)?;
        }
        let mut files: Vec<_> = self
            .file
            .iter()
            .map(|file| file_pair(file))
            .collect::<Result<_>>()?;
        for name in &self.program {
            files.push((programs::program(name)?, format!("t/{name}")));
        }
        for name in &self.test {
            let test = programs::test(name)?;
            files.push((test.program, format!("t/{name}")));
            // In PATH: a path of this host may lie where the machine mounts something, as in /tmp.
            for program in test.starts {
                let (program, to) = file_pair(&program.display().to_string())?;
                if !files.iter().any(|(_, there)| *there == to) {
                    files.push((program, to));
                }
            }
        }
        Ok(Job {
            kernel: self.kernel,
            cpus: self.cpus,
            memory: self.memory,
            cpu: self.cpu,
            cgroup: self.cgroup,
            append: self.append,
            files,
            command,
            limit: self.limit,
            out: self.out,
        })
    }
}

/// `FILE` or `FILE:PATH`: the file on this host, and where it goes, without the leading slash.
fn file_pair(text: &str) -> Result<(PathBuf, String)> {
    match text.split_once(':') {
        Some((from, to)) => Ok((from.into(), to.trim_start_matches('/').to_owned())),
        None => {
            let from = PathBuf::from(text);
            let name = from
                .file_name()
                .and_then(|name| name.to_str())
                .with_context(|| format!("{text} names no file"))?;
            Ok((from.clone(), format!("t/{name}")))
        }
    }
}
