//! `cargo xtask vm`: machines with other kernels than this host's, without a root disk, without
//! root and without KVM. `vm fetch` gets kernels and the emulator, `vm KERNEL COMMAND` boots one
//! and runs a command there, `vm KERNEL NAME` a scenario of `tests/vm` or a live test.

pub(crate) mod apt;
pub(crate) mod cache;
mod fetch;
mod initramfs;
mod machine;
mod programs;
mod record;
mod scenario;
mod tools;

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
    /// The kernel to boot: 5.10, 6.1, 6.12 or 7.2
    #[arg(required = true)]
    kernel: Option<String>,
    #[command(flatten)]
    options: Options,
    /// What to run: one word is a scenario of tests/vm (i2, kprobes, ...) or a live test
    /// (live_cores), more are a command for the shell of busybox; `uname -a` if nothing is given
    command: Vec<String>,
}

#[derive(Subcommand)]
enum Action {
    /// Fetch kernels (all that the tests boot, if none is named), qemu, busybox, others' tools
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

struct Boot {
    kernel: String,
    options: Options,
    command: Vec<String>,
}

/// What machine it is to be. What is given on the command line comes before what a scenario says.
#[derive(clap::Args, Default)]
struct Options {
    /// CPUs of the machine, or all of qemu's -smp: `4,sockets=1,cores=2,threads=2` [default: 2]
    #[arg(long)]
    cpus: Option<String>,
    /// Memory of the machine, MiB [default: 768]
    #[arg(long)]
    memory: Option<u32>,
    /// qemu's CPU model [default: max]; `max,-hypervisor` makes the kernel believe in real spinlocks
    #[arg(long)]
    cpu: Option<String>,
    /// How cgroups are mounted [default: v2]
    #[arg(long, value_enum)]
    cgroup: Option<Cgroup>,
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
    /// Mount Debian's bpftrace, bpftool, perf and libbpf-tools, in PATH
    #[arg(long)]
    tools: bool,
    /// Where what the command leaves in /out goes
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// How long the command may take, boot not included [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    limit: Option<Duration>,
}

impl Options {
    /// These, and those of `other` where these say nothing.
    fn or(mut self, other: Self) -> Self {
        self.cpus = self.cpus.or(other.cpus);
        self.memory = self.memory.or(other.memory);
        self.cpu = self.cpu.or(other.cpu);
        self.cgroup = self.cgroup.or(other.cgroup);
        self.append.extend(other.append);
        self.file.extend(other.file);
        self.program.extend(other.program);
        self.test.extend(other.test);
        self.tools |= other.tools;
        self.out = self.out.or(other.out);
        self.limit = self.limit.or(other.limit);
        self
    }
}

/// The exit status where the machine gave none: it panicked or hung.
const NO_STATUS: u8 = 125;

pub(crate) fn run(args: Args) -> Result<()> {
    match (args.action, args.kernel) {
        (Some(Action::Fetch { kernels, again }), _) => fetch_all(&kernels, again),
        (Some(Action::Record { names }), _) => record::run(&names),
        (None, Some(kernel)) => {
            let boot = Boot {
                kernel,
                options: args.options,
                command: args.command,
            };
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
    println!("{}", tools::image(again)?.display());
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
        let (options, command) = match &self.command[..] {
            [] => (self.options, "uname -a".to_owned()),
            [test] if test.starts_with("live_") => {
                let test_options = Options {
                    test: vec![test.clone()],
                    memory: Some(1536),
                    ..Options::default()
                };
                let command = format!("STALLTOP_TEST_REQUIRE_ALL=1 {test} --test-threads=1");
                (self.options.or(test_options), command)
            }
            [name] if !name.contains([' ', '/']) => {
                let scenario = scenario::named(name)?;
                let mut options = self.options.or(scenario.options);
                for file in [scenario.library, scenario.script] {
                    options.file.push(file.display().to_string());
                }
                (options, format!("sh /t/{name}.sh"))
            }
            words => (self.options, words.join(" ")),
        };
        let tools = {
            let _lock = cache::lock()?;
            fetch::qemu(false)?;
            fetch::busybox(false)?;
            fetch::kernel(&self.kernel, false)?;
            options.tools.then(|| tools::image(false)).transpose()?
        };
        let mut files: Vec<_> = options
            .file
            .iter()
            .map(|file| file_pair(file))
            .collect::<Result<_>>()?;
        for name in &options.program {
            files.push((programs::program(name)?, format!("t/{name}")));
        }
        for name in &options.test {
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
            cpus: options.cpus.unwrap_or_else(|| "2".to_owned()),
            memory: options.memory.unwrap_or(768),
            cpu: options.cpu.unwrap_or_else(|| "max".to_owned()),
            cgroup: options.cgroup.unwrap_or(Cgroup::V2),
            append: options.append,
            files,
            tools,
            command,
            limit: options.limit.unwrap_or(Duration::from_secs(60)),
            out: options.out,
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
