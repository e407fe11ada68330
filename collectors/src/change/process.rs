//! A process that is to be stopped: who it is, whether it may be, and the signal itself.
//!
//! A number alone is not a process: it is used again once its process has gone. So what is
//! confirmed is a number, a comm and a start time, and the signal goes to a descriptor of that
//! process (pidfd_open(2), Linux 5.3), compared once more after it was opened.

use std::io;
use std::os::fd::AsRawFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stalltop_model::change::stop::pid_of;
use stalltop_model::change::{StopSignal, Write};

use crate::{Env, file};

/// `PF_KTHREAD` of include/linux/sched.h, in the flags of `/proc/PID/stat`.
const PF_KTHREAD: u64 = 0x0020_0000;
/// How many parents are looked at: a chain that is longer has changed meanwhile.
const ANCESTORS: usize = 256;

/// What `/proc/PID/stat` says of a process (proc_pid_stat(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) comm: String,
    state: u8,
    parent: u32,
    flags: u64,
    threads: u64,
    /// When it was started, in clock ticks since boot.
    started: u64,
}

impl Process {
    /// Reads one.
    ///
    /// # Errors
    /// What the file system reports; `InvalidData` for a text that is no such file's.
    pub(super) fn read(env: &Env, pid: u32) -> io::Result<Self> {
        let text = std::fs::read(env.path(&format!("/proc/{pid}/stat")))?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// A comm may hold anything, brackets and newlines included: it ends at the last bracket.
    fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|b| *b == b'(')?;
        let close = text.iter().rposition(|b| *b == b')')?;
        let number = |word: &[u8]| file::number(word).map(|(n, _)| n);
        let rest: Vec<&[u8]> = file::words(text.get(close + 1..)?).collect();
        // The third field of the file is the first after the comm.
        let field = |n: usize| rest.get(n - 3).copied();
        Some(Self {
            pid: u32::try_from(number(text)?).ok()?,
            comm: String::from_utf8_lossy(text.get(open + 1..close)?).into_owned(),
            state: *field(3)?.first()?,
            parent: u32::try_from(number(field(4)?)?).ok()?,
            flags: number(field(9)?)?,
            threads: number(field(20)?)?,
            started: number(field(22)?)?,
        })
    }

    /// What stands for this process and no other: what a plan records and compares.
    pub(super) fn identity(&self) -> String {
        let over = if self.has_exited() { ", exited" } else { "" };
        format!(
            "{}, started at clock tick {}{over}",
            self.comm, self.started
        )
    }

    /// Whether nothing of it runs any more. Its first thread alone may end before the others.
    pub(super) fn has_exited(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }

    /// Why it is not stopped from here, if it is one of those that never are.
    pub(super) fn refusal(&self, env: &Env) -> Option<String> {
        if self.pid == 1 {
            return Some("it is init: without it the host, or the container, ends".into());
        }
        if self.pid == 2 || self.flags & PF_KTHREAD != 0 {
            return Some("it is a thread of the kernel, which no signal stops".into());
        }
        let thread_group = status(env, self.pid, "Tgid:").and_then(|v| v.trim().parse().ok());
        if let Some(group) = thread_group.filter(|group: &u32| *group != self.pid) {
            return Some(format!("it is a thread of process {group}: name that"));
        }
        let ours = own(env);
        match ours.iter().position(|pid| *pid == self.pid) {
            Some(0) => Some("it is stalltop itself: q quits".into()),
            Some(_) => Some("stalltop runs below it, and would end with it".into()),
            None => None,
        }
    }
}

/// A line's value in `/proc/PID/status`.
pub(super) fn status(env: &Env, pid: u32, key: &str) -> Option<String> {
    let text = file::read_text(&env.path(&format!("/proc/{pid}/status"))).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .map(str::to_owned)
}

/// This process and those that it comes from, the nearest first.
fn own(env: &Env) -> Vec<u32> {
    let mut all = Vec::new();
    let itself = std::fs::read(env.path("/proc/self/stat"))
        .ok()
        .and_then(|text| Process::parse(&text));
    let mut next = itself;
    while let Some(process) = next {
        all.push(process.pid);
        if process.parent == 0 || all.contains(&process.parent) || all.len() == ANCESTORS {
            break;
        }
        next = Process::read(env, process.parent).ok();
    }
    all
}

/// Sends the signal of a write to its process, if it is still the one that was confirmed.
///
/// # Errors
/// Nothing was sent: another process has the number, it is none that may be stopped, the host
/// is a recorded one, or the kernel refuses.
pub(super) fn send(env: &Env, write: &Write) -> io::Result<()> {
    let refuse = |why: &str| Err(io::Error::other(why.to_owned()));
    if env.root() != std::path::Path::new("/") {
        return refuse("a recorded host has no processes");
    }
    let (Some(number), Some(signal)) = (pid_of(&write.path), StopSignal::parse(&write.value))
    else {
        return refuse("no process, or no signal that stalltop sends");
    };
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return refuse("no such process");
    };
    // First the descriptor, then the look: what is found has the number now, and if it is the
    // one confirmed, it had it when the descriptor was opened.
    let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
    // /proc may be that of another PID namespace, where the number is somebody else's.
    let info = format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd());
    let info = file::read_text(&env.path(&info)).unwrap_or_default();
    let named = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    if named.map(str::trim) != Some(number.to_string().as_str()) {
        return refuse("/proc numbers processes otherwise than the kernel does for stalltop");
    }
    let process = Process::read(env, number)?;
    if write.before.as_deref() != Some(process.identity().as_str()) {
        return refuse("another process has this number now, or it runs another program");
    }
    if let Some(why) = process.refusal(env) {
        return refuse(&why);
    }
    let signal = match signal {
        StopSignal::Term => Signal::TERM,
        StopSignal::Kill => Signal::KILL,
    };
    Ok(pidfd_send_signal(&descriptor, signal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "812 (a) b\n(c) S 1 812 812 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 \
                        3 0 8123456 1 2 18446744073709551615\n";

    #[test]
    fn a_comm_may_hold_brackets() {
        let process = Process::parse(STAT.as_bytes()).unwrap();
        assert_eq!(
            process,
            Process {
                pid: 812,
                comm: "a) b\n(c".into(),
                state: b'S',
                parent: 1,
                flags: 4_194_560,
                threads: 3,
                started: 8_123_456,
            }
        );
        assert_eq!(
            process.identity(),
            "a) b\n(c, started at clock tick 8123456"
        );
        for cut in 0..STAT.len() - 30 {
            let short = Process::parse(&STAT.as_bytes()[..cut]);
            assert!(short.is_none_or(|p| p.started != 8_123_456), "{cut}");
        }
    }

    #[test]
    fn a_first_thread_that_ended_is_no_process_that_did() {
        let zombie = |threads: u64| {
            let mut process = Process::parse(STAT.as_bytes()).unwrap();
            (process.state, process.threads) = (b'Z', threads);
            process.has_exited()
        };
        assert!(zombie(1) && zombie(0) && !zombie(2));
    }

    #[test]
    fn we_and_who_started_us_are_not_stopped() {
        let env = Env::live();
        let ours = own(&env);
        assert_eq!(ours.first(), Some(&std::process::id()));
        assert!(ours.len() > 1, "{ours:?}");
        for pid in ours {
            let process = Process::read(&env, pid).unwrap();
            assert!(process.refusal(&env).is_some(), "{process:?}");
        }
    }

    #[test]
    fn nothing_is_sent_to_who_was_not_confirmed() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id();
        let env = Env::live();
        let process = Process::read(&env, pid).unwrap();
        let write = |before: &str| Write {
            path: format!("/proc/{pid}/stat").into(),
            mode: stalltop_model::change::OpenMode::Signal,
            value: "TERM".into(),
            item: None,
            before: Some(before.into()),
            after: None,
            kept: Vec::new(),
            undo: Vec::new(),
        };
        let older = format!("{}, started at clock tick 1", process.comm);
        assert!(send(&env, &write(&older)).is_err());
        assert!(send(&env, &write(&older.replace(&process.comm, "other"))).is_err());
        assert!(!Process::read(&env, pid).unwrap().has_exited());
        // The comm is the shell's until exec(2) is done.
        let right = Process::read(&env, pid).unwrap().identity();
        send(&env, &write(&right)).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(send(&env, &write(&right)).is_err(), "it is gone");
    }
}
