//! Names of a process's user stack, in a process of their own.
//!
//! Naming an address reads the files that the process has mapped. They may lie on a file system
//! that hangs, may be cut short while they are mapped (which is SIGBUS for the reader), and are
//! as large and as broken as their owner likes. So the reading is done by a short-lived child,
//! `stalltop name-user-stack`, which may hang or die alone; the parent waits a bounded time.
//! The process itself is neither stopped nor traced.

use std::collections::VecDeque;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{Process, Source};
use blazesym::symbolize::{Input, Symbolizer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use stalltop_model::{Name, Reading, Reason};

/// The hidden subcommand that names addresses.
pub const SUBCOMMAND: &str = "name-user-stack";

/// How long a child may take.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a child lives that nobody ends.
const LONGEST: Duration = Duration::from_secs(2);
/// Between two children at least: naming is for a person to read, not for every stall of a storm.
const REST: Duration = Duration::from_millis(500);
/// Stacks whose names are kept, and for how long.
const KNOWN: usize = 64;
const FRESH: Duration = Duration::from_secs(10);
/// Bytes of an answer at most: 32 names of 512 bytes, with quotes.
const MOST_BYTES: usize = 64 * 1024;
/// Address space of a child: large binaries are mapped whole.
const MOST_MEMORY: u64 = 2 << 30;

/// A stack and its names. Not for long: a process may run another program, or move its code.
#[derive(Debug)]
struct Known {
    tgid: u32,
    comm: Name,
    addresses: Vec<u64>,
    names: Vec<Name>,
    since: Instant,
}

/// Starts the children, one at a time.
#[derive(Debug)]
pub struct UserStacks {
    program: PathBuf,
    last: Option<Instant>,
    /// What was named of late: a culprit comes back with the same stack.
    known: VecDeque<Known>,
    /// A child that was killed but does not end: it waits for a file system.
    stuck: Option<Child>,
}

impl UserStacks {
    /// `program` is stalltop's own binary.
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            last: None,
            known: VecDeque::with_capacity(KNOWN),
            stuck: None,
        }
    }

    /// Replaces the addresses (as text) of a user stack by names. Where that cannot be done, they
    /// stay.
    pub(super) fn name_stack(&mut self, tgid: u32, comm: &Name, stack: &mut Reading<Vec<Name>>) {
        let Reading::Value(names) = stack else { return };
        let address = |name: &Name| u64::from_str_radix(name.strip_prefix("0x")?, 16).ok();
        let Some(addresses) = names.iter().map(address).collect::<Option<Vec<_>>>() else {
            return;
        };
        self.known.retain(|known| known.since.elapsed() < FRESH);
        let same = |known: &&Known| {
            known.tgid == tgid && *known.comm == **comm && known.addresses == addresses
        };
        if let Some(known) = self.known.iter().find(same) {
            names.clone_from(&known.names);
        } else if let Reading::Value(named) = self.name(tgid, &addresses)
            && named.len() == addresses.len()
        {
            if self.known.len() == KNOWN {
                self.known.pop_front();
            }
            names.clone_from(&named);
            self.known.push_back(Known {
                tgid,
                comm: Name::clone(comm),
                addresses,
                names: named,
                since: Instant::now(),
            });
        }
    }

    /// Names the addresses of a process, innermost first. What has no symbol is its address.
    pub fn name(&mut self, tgid: u32, addresses: &[u64]) -> Reading<Vec<Name>> {
        let what = || Name::from("naming of user stacks");
        if self.last.is_some_and(|last| last.elapsed() < REST) {
            return Reading::Off(Reason::OverBudget { what: what() });
        }
        if let Some(child) = &mut self.stuck {
            if !matches!(child.try_wait(), Ok(Some(_))) {
                return Reading::Off(Reason::Busy {
                    by: format!(
                        "stalltop {SUBCOMMAND}, pid {}, which waits for a file",
                        child.id()
                    )
                    .into(),
                });
            }
            self.stuck = None;
        }
        let answer = self.ask(tgid, addresses);
        // Counted from the end, so that a slow child is followed by a rest, too.
        self.last = Some(Instant::now());
        match answer {
            Ok(names) => Reading::Value(names),
            Err(why) => Reading::Off(Reason::Refused {
                what: what(),
                why: why.into(),
            }),
        }
    }

    fn ask(&mut self, tgid: u32, addresses: &[u64]) -> Result<Vec<Name>, String> {
        let mut child = Command::new(&self.program)
            .arg(SUBCOMMAND)
            .arg(tgid.to_string())
            .args(addresses.iter().map(|address| format!("{address:x}")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("{}: {e}", self.program.display()))?;
        let until = Instant::now() + PATIENCE;
        let mut text = Vec::new();
        let read = match child.stdout.take() {
            Some(mut out) => read_until(&mut out, &mut text, until),
            None => Err("no pipe".into()),
        };
        // It has closed its end, or took too long; either way it is not waited for.
        let _ = child.kill();
        if !matches!(child.try_wait(), Ok(Some(_))) {
            self.stuck = Some(child);
        }
        read?;
        serde_json::from_slice(&text).map_err(|_| "its files could not be read".to_owned())
    }
}

/// Reads to the end, or fails at `until` or at too much.
fn read_until(
    out: &mut std::process::ChildStdout,
    text: &mut Vec<u8>,
    until: Instant,
) -> Result<(), String> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("it took longer than {} ms", PATIENCE.as_millis()));
        }
        let wait = Timespec::try_from(left).map_err(|e| e.to_string())?;
        let mut fds = [PollFd::new(&*out, PollFlags::IN)];
        poll(&mut fds, Some(&wait)).map_err(|e| e.to_string())?;
        if fds[0].revents().is_empty() {
            continue;
        }
        let mut buffer = [0; 4096];
        let n = out.read(&mut buffer).map_err(|e| e.to_string())?;
        if n == 0 {
            return Ok(());
        }
        text.extend_from_slice(&buffer[..n]);
        if text.len() > MOST_BYTES {
            return Err("its symbols are absurdly long".into());
        }
    }
}

/// Bounds this process, which is the child: one that eats memory or time ends by itself, and so
/// does one whose parent is gone. Where a limit is refused, the parent's patience remains.
pub fn limit_child() {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // A thread is the simplest alarm: it needs no handler.
    let _ = std::thread::Builder::new().spawn(|| {
        std::thread::sleep(LONGEST);
        std::process::exit(1);
    });
    for (resource, most) in [(Resource::As, MOST_MEMORY), (Resource::Cpu, 2)] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        let _ = setrlimit(resource, limit);
    }
}

/// What the child does: names the addresses of a process by the symbols of the files that it
/// maps. Code that a runtime made keeps its addresses.
///
/// # Errors
/// What cannot be read, in a line.
pub fn symbolize(tgid: u32, addresses: &[u64]) -> Result<Vec<String>, String> {
    let mut process = Process::new(tgid.into());
    process.debug_syms = false;
    // The file /tmp/perf-PID.map is named by whoever can write there, and may be any file at all.
    process.perf_map = false;
    let source = Source::Process(process);
    let symbolizer = Symbolizer::builder()
        .enable_code_info(false)
        .enable_inlined_fns(false)
        .build();
    let symbols = symbolizer
        .symbolize(&source, Input::AbsAddr(addresses))
        .map_err(|e| format!("{e:#}"))?;
    Ok(symbols
        .iter()
        .zip(addresses)
        .map(|(symbol, address)| match symbol.as_sym() {
            Some(symbol) => symbol.name.chars().take(200).collect(),
            None => format!("{address:#x}"),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_of_this_test() -> u64 {
        std::hint::black_box(7)
    }

    #[test]
    fn our_own_functions_are_named() {
        assert_eq!(a_function_of_this_test(), 7);
        let address = a_function_of_this_test as *const () as u64;
        let names = symbolize(std::process::id(), &[address, 1]).unwrap();
        assert!(names[0].contains("a_function_of_this_test"), "{names:?}");
        assert_eq!(names[1], "0x1");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        // One more than the kernel's largest pid.
        assert!(symbolize(1 << 22 | 1, &[1]).is_err());
    }

    #[test]
    fn a_child_that_hangs_says_nothing_or_lies_gives_a_reason() {
        let script = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("child");
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
            (dir, path)
        };
        for (text, why) in [
            ("exec sleep 100", "longer than"),
            ("exit 1", "could not be read"),
            ("echo '[1, 2]'", "could not be read"),
            ("exec cat /dev/zero", "absurdly long"),
        ] {
            let (_dir, path) = script(text);
            match UserStacks::new(path).name(1, &[1]) {
                Reading::Off(reason) => assert!(reason.to_string().contains(why), "{reason}"),
                Reading::Value(names) => panic!("{text}: {names:?}"),
            }
        }
        let (_dir, path) = script(r#"echo '["main", "0x1"]'"#);
        let mut stacks = UserStacks::new(path);
        let names = stacks.name(1, &[1]);
        assert_eq!(names, Reading::Value(vec!["main".into(), "0x1".into()]));
        // The next at once is too soon.
        assert!(stacks.name(1, &[1]).reason().is_some());
    }
}
