//! Changes to a host: what is planned, what was done, what can be undone.
//!
//! These are descriptions only. The code that reads and writes the host is in
//! stalltop-collectors, module `change`, and nowhere else.

pub mod caches;
mod standing;
pub mod stop;
pub mod ways;

pub use standing::Standing;

use serde::{Deserialize, Serialize};

use crate::name::is_hostile;
use crate::{Name, Reason};

/// What a person asks for, before anything was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Switch off what the selector names (`sched:*`, `INSTANCE/irq:*`, `kprobes:NAME`,
    /// `kprobes`, `set_event`, `tracing_on`, `current_tracer`).
    Off {
        /// As the kernel writes it.
        selector: Name,
    },
    /// Switch back on what the journal says was on; with `force`, anything.
    On {
        /// As the kernel writes it.
        selector: Name,
        /// Whether things that the journal does not know may be switched on too.
        force: bool,
    },
    /// Remove a dynamic event (`GROUP:NAME`); undo re-creates it from its definition.
    Remove {
        /// `GROUP:NAME`.
        selector: Name,
    },
    /// Write `/proc/sys/vm/drop_caches`.
    DropCaches {
        /// 1 page cache, 2 dentries and inodes, 3 both; `None` for the value that fits
        /// this kernel and what is charged.
        level: Option<u8>,
    },
    /// Send a signal to a process that holds probes which nobody else can detach.
    Stop {
        /// The process.
        pid: u32,
        /// Which; `None` for `TERM`, and for `KILL` once this very process was sent that.
        signal: Option<StopSignal>,
    },
    /// Undo one journal entry.
    Undo {
        /// Its number; `None` for the last one that is not undone.
        entry: Option<u64>,
        /// Whether to go on although a value has moved since.
        force: bool,
    },
}

/// The signals that stop a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopSignal {
    /// `SIGTERM`: it may clean up first, or ignore it.
    #[serde(rename = "TERM")]
    Term,
    /// `SIGKILL`: at once.
    #[serde(rename = "KILL")]
    Kill,
}

impl StopSignal {
    /// As kill(1) takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Kill => "KILL",
        }
    }

    /// The signal of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Term, Self::Kill]
            .into_iter()
            .find(|s| s.as_str() == name)
    }
}

/// How a write opens its file. It matters: truncating `set_event` clears it, and
/// truncating `dynamic_events` or a `trigger` file removes all that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenMode {
    /// `O_WRONLY`.
    Plain,
    /// `O_WRONLY|O_TRUNC`, the shell's `>`.
    Truncate,
    /// `O_WRONLY|O_APPEND`, the shell's `>>`.
    Append,
    /// No write: mount(2) of a file system of type `value` on `path`.
    Mount,
    /// No write: umount(2) of `path`.
    Unmount,
    /// No write: the signal `value` to the process whose `/proc/PID/stat` is `path`, if its comm
    /// and start time are still those of `before` (pidfd_send_signal(2)).
    Signal,
}

/// One literal write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The file.
    pub path: Name,
    /// How it is opened.
    pub mode: OpenMode,
    /// The bytes written, without the trailing newline.
    pub value: Name,
    /// The part of the file that `before` and `after` speak of, where that is not all of
    /// it: `GROUP/NAME` in `dynamic_events`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Name>,
    /// What the file (or the item) read when this was planned, empty for an item that is
    /// not there; `None` where the file cannot be read.
    pub before: Option<Name>,
    /// What it must read afterwards; `None` where the file cannot be read back.
    pub after: Option<Name>,
    /// What belongs to the state recorded and must read the same right before this write
    /// and right before its undo: the filter and triggers of an event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Kept>,
    /// What undoes it; empty if nothing does.
    pub undo: Vec<UndoWrite>,
}

/// A file that a write relies on and leaves as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The file.
    pub path: Name,
    /// What it read when this was planned, without comment lines.
    pub value: Name,
}

impl Write {
    /// The shell commands that do the same, in full: one for each line that is written, so that
    /// each can be read and pasted by itself. The kernel takes lines appended one by one as it
    /// takes them at once (kernel/trace/trace.c, `trace_parse_run_command`).
    pub fn commands(&self) -> Vec<String> {
        if self.mode == OpenMode::Append && self.value.contains('\n') {
            let lines = self.value.lines();
            return lines.map(|line| self.command_of(line)).collect();
        }
        vec![self.command_of(&self.value)]
    }

    /// The shell command that does the same, on one line.
    pub fn command(&self) -> String {
        self.commands().join("; ")
    }

    fn command_of(&self, value: &str) -> String {
        let arrow = match self.mode {
            OpenMode::Plain | OpenMode::Truncate => ">",
            OpenMode::Append => ">>",
            OpenMode::Mount => {
                let fs = shell_word(value);
                return format!("mount -t {fs} {fs} {}", shell_word(&self.path));
            }
            OpenMode::Unmount => return format!("umount {}", shell_word(&self.path)),
            OpenMode::Signal => {
                let pid = stop::pid_of(&self.path).map_or_else(String::new, |pid| pid.to_string());
                return format!("kill -{} {pid}", shell_word(value));
            }
        };
        if value.is_empty() {
            return format!("echo {arrow} {}", shell_word(&self.path));
        }
        format!(
            "echo {} {arrow} {}",
            shell_word(value),
            shell_word(&self.path)
        )
    }
}

/// One write that undoes another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoWrite {
    /// The file.
    pub path: Name,
    /// How it is opened.
    pub mode: OpenMode,
    /// The bytes written.
    pub value: Name,
}

/// Quotes a word for a POSIX shell where it needs quoting. One with characters that a terminal
/// would obey or hide is written in escapes (`$'a\tb'`, POSIX.1-2024, 2.2.4): it can be shown and
/// pasted as it is, and means exactly these bytes.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if !word.chars().any(is_hostile) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let mut out = String::from("$'");
    for c in word.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str(r"\n"),
            '\t' => out.push_str(r"\t"),
            c if is_hostile(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.push_str(&format!(r"\x{byte:02x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// Whether a change can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoClass {
    /// Every value that was there is put back.
    Exact,
    /// Put back but for what the kernel forgets (hit counts of a re-created event, a tracer's buffer).
    Partial,
    /// Cannot be undone.
    Never,
}

/// A change, read and worked out, not yet done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What was asked.
    pub request: Request,
    /// One line: `switch off 30 events of the top-level instance`.
    pub title: Name,
    /// The literal writes, in order.
    pub writes: Vec<Write>,
    /// Whether it can be undone.
    pub undo: UndoClass,
    /// What it costs, who is affected, what it does not do: one sentence each.
    pub notes: Vec<Name>,
    /// Things named by the request that need no write, or that cannot be switched from
    /// outside, with who to stop instead.
    pub left: Vec<Left>,
    /// The word that must be typed to confirm; `None` for a plain Enter.
    pub confirm_word: Option<Name>,
}

/// Something a plan leaves as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// What.
    pub what: Name,
    /// Why: already off, held by a process (`stop netdata[812], netdata.service`), ...
    pub why: Name,
}

/// Why a plan cannot be made or carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum ChangeError {
    /// The selector is not understood.
    #[error("{selector}: {why}")]
    BadSelector {
        /// As given.
        selector: Name,
        /// What is wrong with it.
        why: Name,
    },
    /// The selector names nothing on this host.
    #[error("{selector} matches nothing on this host{hint}")]
    NothingMatches {
        /// As given.
        selector: Name,
        /// `; did you mean ...`, or empty.
        hint: Name,
    },
    /// Everything is already as asked.
    #[error("nothing to do: {why}")]
    NothingToDo {
        /// For example `sched:sched_switch is already off`.
        why: Name,
    },
    /// A source is missing.
    #[error("{0}; to mend it: {fix}", fix = .0.fix())]
    Missing(Reason),
    /// It cannot be done on this host, but something else can.
    #[error("{reason}; instead: {instead}")]
    Instead {
        /// Why not.
        reason: Reason,
        /// What can be done in its place, in one line: commands, who to stop.
        instead: Name,
    },
    /// A value moved since it was planned or done; nothing (more) was written.
    #[error("{path} has changed: expected {expected:?}, found {found:?}")]
    Moved {
        /// The file.
        path: Name,
        /// What it should read.
        expected: Name,
        /// What it reads.
        found: Name,
    },
    /// A filter or trigger that stalltop has not written moved since its event was switched;
    /// nothing was written. Forced, an undo puts back `enable` and leaves this file.
    #[error(
        "{path} has changed: expected {expected:?}, found {found:?}; stalltop did not write it, \
         and undo leaves it as it is now"
    )]
    KeptMoved {
        /// The file.
        path: Name,
        /// What it read when the change was made.
        expected: Name,
        /// What it reads.
        found: Name,
    },
    /// The kernel refused a write.
    #[error("{command}: {why}")]
    Refused {
        /// The shell form of the write.
        command: Name,
        /// errno's text.
        why: Name,
    },
    /// The value read back is not the one written.
    #[error("{path} reads {found:?} after writing {wanted:?}")]
    NotTaken {
        /// The file.
        path: Name,
        /// What it should read.
        wanted: Name,
        /// What it reads.
        found: Name,
    },
    /// The journal cannot be used; nothing is changed without it.
    #[error("journal {path}: {why}")]
    Journal {
        /// Its path.
        path: Name,
        /// What is wrong, with the line number for a damaged entry.
        why: Name,
    },
    /// Opened read-only, or replaying.
    #[error("read-only: {why}")]
    ReadOnly {
        /// `--read-only`, or a replay.
        why: Name,
    },
    /// It needs a confirmation that was not given.
    #[error("not confirmed: {how}")]
    NotConfirmed {
        /// How to confirm.
        how: Name,
    },
}

/// How far a journaled change got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Outcome {
    /// The intent is on disk; the writes may or may not have happened (a crash shows this).
    Intended,
    /// All writes done and read back.
    Done,
    /// Stopped after `written` writes; those are in effect and can be undone.
    Failed {
        /// Writes that took effect.
        written: u32,
        /// Why it stopped.
        why: Name,
    },
    /// Undone by a later entry.
    Undone {
        /// That entry's number.
        by: u64,
    },
}

/// A before-and-after report of a change whose effect is measured (drop_caches).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// What was measured: `zombie cgroups`, `memory.stat read`, `free memory`, ...
    pub rows: Vec<EffectRow>,
    /// How long the write itself took, ns.
    pub took_ns: u64,
}

/// One line of an [`Effect`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectRow {
    /// What was measured.
    pub what: Name,
    /// Unit: `count`, `ns`, `bytes`.
    pub unit: Name,
    /// Before the change.
    pub before: crate::Reading<u64>,
    /// After it.
    pub after: crate::Reading<u64>,
}

/// One entry of the journal, and the `change` line of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Number, ascending from 1.
    pub id: u64,
    /// `CLOCK_REALTIME`, ns since 1970.
    pub wall_ns: u64,
    /// Who did it: `SUDO_USER` or the login name, and the pid.
    pub by: Name,
    /// The boot it belongs to (`/proc/sys/kernel/random/boot_id`): changes do not outlive a boot.
    pub boot: Name,
    /// What was planned.
    pub plan: Plan,
    /// How far it got.
    pub outcome: Outcome,
    /// The entry that this one undoes.
    pub undoes: Option<u64>,
    /// What it changed, where that is measured.
    pub effect: Option<Effect>,
}

/// Why a change stopped, and what was written down of it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// Why.
    pub error: ChangeError,
    /// The journal's entry, where the change had begun: its outcome says how much was written,
    /// and `stalltop undo` puts that back. `None` where nothing was.
    pub entry: Option<Box<Entry>>,
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        Self { error, entry: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shell_safe() {
        let write = Write {
            path: "/t/set_event".into(),
            mode: OpenMode::Truncate,
            value: "".into(),
            item: None,
            before: None,
            after: None,
            kept: Vec::new(),
            undo: Vec::new(),
        };
        assert_eq!(write.command(), "echo > /t/set_event");
        let mount = Write {
            mode: OpenMode::Mount,
            value: "tracefs".into(),
            ..write
        };
        assert_eq!(mount.command(), "mount -t tracefs tracefs /t/set_event");
        assert_eq!(
            shell_word("p:x do_sys_open $(rm)'"),
            r"'p:x do_sys_open $(rm)'\'''"
        );
    }

    #[test]
    fn words_that_a_terminal_would_obey_are_written_in_escapes() {
        for (word, shown) in [
            ("p:a/b\tvfs_read", r"$'p:a/b\tvfs_read'"),
            ("a\nb'c\\d", r"$'a\nb\'c\\d'"),
            ("\x1b[2J\x7f", r"$'\x1b[2J\x7f'"),
            ("\u{9b}1m \u{202e}x", r"$'\xc2\x9b1m \xe2\x80\xaex'"),
        ] {
            assert_eq!(shell_word(word), shown);
            assert_eq!(crate::name::escaped(shown), shown, "as it is");
            // A shell makes the word of it again.
            let mut bash = std::process::Command::new("bash");
            if let Ok(said) = bash.arg("-c").arg(format!("printf %s {shown}")).output() {
                assert_eq!(String::from_utf8_lossy(&said.stdout), word);
            }
        }
    }

    #[test]
    fn a_definition_of_several_lines_is_one_command_a_line_and_never_cut() {
        let long = format!("p:a/b vfs_read {}", "x".repeat(2_000));
        let mut write = Write {
            path: "/t/dynamic_events".into(),
            mode: OpenMode::Append,
            value: format!("{long}\np:a/b vfs_write").into(),
            item: Some("a/b".into()),
            before: None,
            after: None,
            kept: Vec::new(),
            undo: Vec::new(),
        };
        let first = format!("echo '{long}' >> /t/dynamic_events");
        let second = "echo 'p:a/b vfs_write' >> /t/dynamic_events";
        assert_eq!(write.commands(), [first.as_str(), second]);
        assert_eq!(write.command(), format!("{first}; {second}"));
        // Truncating twice would keep the last line only.
        write.mode = OpenMode::Truncate;
        assert_eq!(write.commands().len(), 1);
    }
}
