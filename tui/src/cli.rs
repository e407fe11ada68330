//! Arguments.

mod locks;
pub(crate) mod selftest;
mod stall;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use stalltop_collectors::Env;
use stalltop_collectors::stalls::Asked;

use locks::Locks;
use stall::{Sample, StallArg};

/// A top for kernel stalls: which core stalls, what traces this host and at whose
/// request, which cgroups are slow; and the switches to turn it off and on again.
#[derive(Debug, Parser)]
#[command(name = "stalltop", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) live: LiveArgs,

    #[command(flatten)]
    pub(crate) screen: ScreenArgs,

    /// Never change this host
    #[arg(long, global = true)]
    pub(crate) read_only: bool,

    /// The journal of changes [default: /run/stalltop/journal]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) journal: Option<PathBuf>,
}

impl Cli {
    /// Reads the arguments. An option of the screen before a subcommand would be taken and do
    /// nothing: that is an error, which says where the option belongs.
    pub(crate) fn read<T>(arguments: impl IntoIterator<Item = T>) -> Result<Self, clap::Error>
    where
        T: Into<OsString> + Clone,
    {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        if let Some((subcommand, _)) = matches.subcommand() {
            let misplaced = command.get_arguments().find(|arg| {
                let given = || matches.value_source(arg.get_id().as_str());
                !arg.is_global_set() && given() == Some(ValueSource::CommandLine)
            });
            if let Some(option) = misplaced.and_then(Arg::get_long) {
                let text = format!(
                    "--{option} before {subcommand} would do nothing: if {subcommand} takes it, write\n\
                     stalltop {subcommand} --{option} ..."
                );
                return Err(command.error(ErrorKind::ArgumentConflict, text));
            }
        }
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// How a live host is measured.
#[derive(Args, Clone, Debug)]
pub(crate) struct LiveArgs {
    /// Time between samples, for example 500ms or 2s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = tick)]
    pub(crate) tick: Duration,

    /// Measure from /proc alone, without loading eBPF programs
    #[arg(long)]
    pub(crate) no_bpf: bool,

    /// From when on is it a stall, for all kinds or for one of pending, handler, ksoftirqd,
    /// irqs-off, no-resched and real-time: 5ms, handler=20ms, irqs-off=off [default: 5ms, on a
    /// virtual machine 10ms; real-time at least 100ms, unless named]
    #[arg(long, value_name = "[KIND=]TIME", value_delimiter = ',', value_parser = stall::parse)]
    pub(crate) stall: Vec<StallArg>,

    /// When to look 1,000 times a second who holds a CPU, at about 2 % of it: auto is for 10 s
    /// after a stall and where you look, on 4 CPUs at once at most
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    pub(crate) sample: Sample,

    /// When every wait for a lock of the kernel is measured: auto is all the time while you look
    /// or it costs less than 0.5 % of a CPU, else in short windows that keep within that; off
    /// leaves the share of samples in locks
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    pub(crate) locks: Locks,
}

impl LiveArgs {
    /// What is asked for of stalls.
    pub(crate) fn stalls(&self) -> Asked {
        stall::asked(&self.stall)
    }
}

/// How the screen looks.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScreenArgs {
    /// Colour theme; an unknown name lists them
    #[arg(long, value_name = "NAME")]
    pub(crate) theme: Option<String>,

    /// Other keys: a TOML file with lines such as undo = ["u", "ctrl-z"]
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,

    /// Draw with ASCII only, for terminals without block characters
    #[arg(long)]
    pub(crate) ascii: bool,
}

/// How a change to this host is made.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChangeArgs {
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Do it without asking
    #[arg(long, short)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) root: RootArgs,

    /// `--journal`, which any command takes.
    #[arg(skip)]
    pub(crate) journal: Option<PathBuf>,

    /// `--read-only`, which any command takes.
    #[arg(skip)]
    pub(crate) read_only: bool,

    /// Whether a word is needed that `--yes` does not stand for.
    #[arg(skip)]
    pub(crate) by_word: ByWord,
}

/// What confirms a change without a person at a terminal.
#[derive(Clone, Debug, Default)]
pub(crate) enum ByWord {
    /// `--yes`, whatever word a person would type.
    #[default]
    OrYes,
    /// Only the word that a person would type, from `--confirm` where that was given.
    Only(Option<String>),
}

impl ChangeArgs {
    /// The host that is meant.
    pub(crate) fn env(&self) -> Env {
        Env::at(&self.root.root)
    }
}

/// Where the host's files are.
#[derive(Args, Clone, Debug)]
pub(crate) struct RootArgs {
    /// Another root than / for /proc and /sys: a recorded tree
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    pub(crate) root: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what traces on this host: events, probes, BPF programs, and who holds them
    #[command(after_help = AUDIT_STATUS)]
    Audit {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
        /// Every event, also of subsystems with many that are on
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        root: RootArgs,
    },
    /// Switch events, kprobes, recording or a tracer off
    #[command(after_help = SELECTORS)]
    Off {
        /// What, as the kernel writes it (below)
        #[arg(required = true, value_name = "SELECTOR")]
        selectors: Vec<String>,
        /// Remove dynamic events (GROUP:NAME); undo makes them again
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Switch on again what stalltop switched off
    #[command(after_help = SELECTORS)]
    On {
        /// What, as the kernel writes it (below)
        #[arg(required = true, value_name = "SELECTOR")]
        selectors: Vec<String>,
        /// Also what stalltop did not switch off
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Free caches, and with them zombie cgroups; cannot be undone
    DropCaches {
        /// 1 page cache, 2 dentries and inodes, 3 both [default: what fits this kernel]
        #[arg(value_name = "1|2|3", value_parser = clap::value_parser!(u8).range(1..=3))]
        level: Option<u8>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Stop a process that holds probes which only it can detach; asks for a word, cannot be undone
    #[command(after_help = STOP_STATUS)]
    Stop {
        /// The process (stalltop audit names holders)
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        pid: u32,
        /// Send KILL, once TERM was sent and it still runs
        #[arg(long)]
        kill: bool,
        /// Do it without asking: the word that would have to be typed, the process's name. A
        /// number that belongs to another process by now is not stopped
        #[arg(long, value_name = "WORD", conflicts_with = "dry_run")]
        confirm: Option<String>,
        /// Show what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        root: RootArgs,
    },
    /// Put back what a change changed, also after a crash or a lost connection
    Undo {
        /// Its number [default: the newest change]
        #[arg(conflicts_with_all = ["list", "all"])]
        id: Option<u64>,
        /// List the journal
        #[arg(long, conflicts_with = "all")]
        list: bool,
        /// The list as a JSON array of journal entries
        #[arg(long, requires = "list")]
        json: bool,
        /// Undo all changes of this boot, the newest first
        #[arg(long)]
        all: bool,
        /// Also where a value has moved since
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Write what is measured to a file, to be replayed anywhere
    Record {
        /// The recording; it must not exist yet
        file: PathBuf,
        /// Stop after this time, for example 30s [default: at Ctrl-C]
        #[arg(long = "for", value_name = "TIME", value_parser = length)]
        duration: Option<Duration>,
        #[command(flatten)]
        live: LiveArgs,
    },
    /// Show a recording in the same screens, without privileges
    Replay {
        /// The recording
        file: PathBuf,
        /// How many times faster than it was recorded
        #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = speed)]
        speed: f64,
        #[command(flatten)]
        screen: ScreenArgs,
    },
    /// Say what works on this host, what does not, why, and what mends it
    #[command(after_help = DOCTOR_STATUS)]
    Doctor {
        /// As a JSON array of checks
        #[arg(long)]
        json: bool,
    },
    /// Make known trouble on this host, for a short time, and say what stalltop saw of it
    #[command(after_help = selftest::STATUS)]
    Selftest(Box<selftest::SelftestArgs>),
    /// Name addresses of a process's user stack (for stalltop itself)
    #[command(hide = true)]
    NameUserStack {
        /// The process
        pid: u32,
        /// The addresses, in hexadecimal
        #[arg(value_parser = hexadecimal)]
        addresses: Vec<u64>,
    },
    /// Print one JSON object per tick
    Stream {
        /// Stop after this time, for example 5s [default: at Ctrl-C]
        #[arg(long = "for", value_name = "TIME", value_parser = length)]
        duration: Option<Duration>,
        /// Print a recording's frames instead of this host's
        #[arg(long, value_name = "FILE", conflicts_with_all = ["duration", "tick", "no_bpf", "stall", "sample", "locks"])]
        from: Option<PathBuf>,
        #[command(flatten)]
        live: LiveArgs,
    },
}

const AUDIT_STATUS: &str = "\
Exit status: 0 also where a section is not known (its reason is printed), 1 where none is, \
2 bad usage.";

const DOCTOR_STATUS: &str = "\
Exit status: 0 whatever works and does not (--json has it per check), 2 bad usage.";

const STOP_STATUS: &str = "\
TERM is sent, then waited 5 s for the exit. Where a unit or a container holds the probes, \
the command that stops all of it is shown instead of run.
Exit status: 0 it exited, 1 it still runs, refused or not confirmed, 2 bad usage or no such \
process, 3 it holds nothing.";

const SELECTORS: &str = "\
Selectors:
  sched:sched_switch         one event            sched:* or sched:   a subsystem
  set_event                  all events of the top-level instance
  tracing_on, current_tracer recording, the tracer
  INSTANCE/...               any of these in a tracefs instance; */... in all of them
  kprobes:NAME               a dynamic event (GROUP:NAME)
  kprobes                    all kprobes of this host (debugfs kprobes/enabled)
  tracefs, debugfs           its mount
Exit status: 0 done, 1 refused, failed or not confirmed, 2 bad usage or selector, \
3 nothing to do.";

fn tick(text: &str) -> Result<Duration, String> {
    let tick = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    let (least, most) = (Duration::from_millis(50), Duration::from_secs(600));
    if tick < least || tick > most {
        return Err("a tick is 50ms to 10min long".to_owned());
    }
    Ok(tick)
}

/// How long something goes on.
fn length(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(3_652 * 24 * 3_600);
    let length = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if length > MOST {
        return Err("it ends after 10 years at most: without it, at Ctrl-C".to_owned());
    }
    Ok(length)
}

fn hexadecimal(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|e| e.to_string())
}

fn speed(text: &str) -> Result<f64, String> {
    match text.strip_suffix('x').unwrap_or(text).parse::<f64>() {
        Ok(speed) if (0.01..=100_000.0).contains(&speed) => Ok(speed),
        Ok(_) => Err("a speed is 0.01 to 100000".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_option_of_the_screen_before_a_subcommand_is_no_silent_nothing() {
        let read = |text: &str| Cli::read(text.split_whitespace());
        assert!(read("stalltop --stall 5ms").is_ok());
        assert!(read("stalltop stream --stall 5ms").is_ok());
        assert!(read("stalltop --read-only stream").is_ok());
        for wrong in [
            "--stall 5ms stream",
            "--no-bpf doctor",
            "--tick 1s record x",
        ] {
            let error = read(&format!("stalltop {wrong}")).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
            assert!(error.to_string().contains("would do nothing"), "{error}");
        }
    }

    #[test]
    fn ticks_and_speeds_are_bounded() {
        assert!(tick("1ms").is_err() && tick("1h").is_err() && tick("x").is_err());
        assert_eq!(tick("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(speed("16x"), Ok(16.0));
        assert_eq!(length("36h"), Ok(Duration::from_secs(36 * 3_600)));
        for absurd in ["300000000000y", "11y", "99999999999999999999s", "-1s", ""] {
            assert!(length(absurd).is_err(), "{absurd}");
        }
        assert!(speed("0").is_err() && speed("nan").is_err() && speed("inf").is_err());
    }
}
