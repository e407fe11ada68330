//! The journal: every change is written down, and on disk, before it is made.
//!
//! One record per line, JSON: an [`Entry`] with its plan when a change is about to be
//! made, later its outcome. Lines are only ever appended, each flushed with fsync(2), so
//! the journal outlives the process that wrote it: after SIGKILL or a lost connection
//! `stalltop undo` finds what was intended, and looks item by item at what was done.
//!
//! The default is a file in /run, which goes when the host reboots, as the changes do.
//! A journal kept elsewhere holds entries of earlier boots: shown, never undone.

mod file;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stalltop_model::Name;
use stalltop_model::change::{ChangeError, Effect, Entry, OpenMode, Outcome, Plan, Request, Write};

use crate::Env;

use super::target::{self, Target};
use file::LockedFile;

/// Where the journal is unless `--journal` says otherwise.
pub const DEFAULT_PATH: &str = "/run/stalltop/journal";

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record {
    /// A change is about to be made.
    Entry(Box<Entry>),
    /// How it went.
    Outcome {
        id: u64,
        wall_ns: u64,
        outcome: Outcome,
        #[serde(default)]
        effect: Option<Effect>,
    },
    /// Line `line` was cut off while it was being written. Nothing was changed on its
    /// account: a change begins only when its line is complete and on disk.
    Torn { line: u64 },
}

/// A line that is not understood. It stays in the file as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Line number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
    /// Whether it is only a line cut off while it was being written: no change was made
    /// on its account, or (an outcome) the entry it belongs to still reads as intended.
    pub torn: bool,
}

/// What a journal holds.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    path: PathBuf,
    boot: Name,
    entries: Vec<Entry>,
    damage: Vec<Damage>,
    lines: u64,
    ends_within_line: bool,
}

impl Journal {
    /// The journal's path: `given`, or [`DEFAULT_PATH`] on the host of `env`.
    pub fn path_for(env: &Env, given: Option<&Path>) -> PathBuf {
        given.map_or_else(|| env.path(DEFAULT_PATH), Path::to_owned)
    }

    /// Reads a journal; one that does not exist yet is empty. Nothing is created.
    ///
    /// # Errors
    /// [`ChangeError::Journal`] where the file cannot be read or must not be trusted
    /// (a link, another user's, writable by others).
    pub fn read(env: &Env, path: &Path) -> Result<Self, ChangeError> {
        let bytes = file::read(path)?;
        Ok(Self::parse(path, boot_id(env), &bytes))
    }

    /// What the bytes of a journal hold; `boot` is the running boot's id. Lines that cannot be
    /// read are [`damage`](Self::damage), not an error.
    pub fn parse(path: &Path, boot: Name, bytes: &[u8]) -> Self {
        let mut journal = Self {
            path: path.to_owned(),
            boot,
            ends_within_line: !bytes.is_empty() && !bytes.ends_with(b"\n"),
            ..Self::default()
        };
        let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        for line in whole.split(|b| *b == b'\n') {
            journal.lines += 1;
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice::<Record>(line) {
                Ok(record) => journal.take(record),
                Err(e) => journal.damage.push(Damage {
                    line: journal.lines,
                    why: e.to_string(),
                    torn: false,
                }),
            }
        }
        if bytes.is_empty() {
            journal.lines = 0;
        }
        let (last, cut) = (journal.lines, journal.ends_within_line);
        if let Some(damage) = journal.damage.iter_mut().find(|d| cut && d.line == last) {
            damage.torn = true;
        }
        journal
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Entry(entry) => self.entries.push(*entry),
            Record::Outcome {
                id,
                outcome,
                effect,
                ..
            } => {
                if let Some(entry) = self.entries.iter_mut().find(|e| e.id == id) {
                    entry.outcome = outcome;
                    if effect.is_some() {
                        entry.effect = effect;
                    }
                }
            }
            Record::Torn { line } => {
                for damage in self.damage.iter_mut().filter(|d| d.line == line) {
                    damage.torn = true;
                }
            }
        }
    }

    /// Whether it could be written to, as far as its permissions and its mount tell: nothing is
    /// created and nothing is locked.
    ///
    /// # Errors
    /// [`ChangeError::Journal`].
    pub fn may_write(&self) -> Result<(), ChangeError> {
        file::may_write(&self.path)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All entries, the oldest first, with their last known outcome.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Lines that are not understood.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// An entry by its number.
    pub fn entry(&self, id: u64) -> Option<&Entry> {
        self.entries.iter().find(|e| e.id == id)
    }

    /// Whether an entry belongs to the running boot: changes do not outlive a boot.
    pub fn is_current(&self, entry: &Entry) -> bool {
        entry.boot == self.boot
    }

    /// Whether [`Request::Undo`] would take this entry.
    pub fn can_undo(&self, entry: &Entry) -> bool {
        self.is_current(entry) && entry.standing().can_undo()
    }

    /// The newest entry that can be undone.
    pub fn last_undoable(&self) -> Option<&Entry> {
        self.entries.iter().rev().find(|e| self.can_undo(e))
    }

    /// The newest write of a change still in force that switched off what `path` switches;
    /// what it read before says how it was.
    pub fn switched_off(&self, path: &str) -> Option<&Write> {
        self.entries
            .iter()
            .rev()
            .filter(|e| self.can_undo(e))
            .filter(|e| matches!(e.plan.request, Request::Off { .. } | Request::Remove { .. }))
            .flat_map(|e| &e.plan.writes)
            .find(|w| *w.path == *path)
    }

    /// The number of the newest entry still in force that found `path` as `after` and left it
    /// otherwise: to write `after` there is to put back what that entry changed.
    pub(crate) fn reversed_by(&self, target: Target, path: &str, after: &str) -> Option<u64> {
        let is = |value: Option<&str>| value.is_some_and(|value| target.took(value, after));
        self.entries
            .iter()
            .rev()
            .filter(|e| self.can_undo(e))
            .find(|e| {
                e.plan
                    .writes
                    .iter()
                    .any(|w| *w.path == *path && is(w.before.as_deref()) && !is(w.after.as_deref()))
            })
            .map(|e| e.id)
    }

    /// The number of the newest entry still in force that removed a dynamic event.
    pub(crate) fn removed(&self, item: &str) -> Option<u64> {
        self.entries
            .iter()
            .rev()
            .filter(|e| self.can_undo(e))
            .filter(|e| matches!(e.plan.request, Request::Remove { .. }))
            .find(|e| {
                e.plan
                    .writes
                    .iter()
                    .any(|w| w.item.as_deref() == Some(item))
            })
            .map(|e| e.id)
    }

    /// Whether a mount at `at` is stalltop's own.
    pub(crate) fn mounted(&self, at: &str) -> bool {
        self.entries
            .iter()
            .filter(|e| self.can_undo(e))
            .flat_map(|e| &e.plan.writes)
            .any(|w| w.mode == OpenMode::Mount && *w.path == *at)
    }

    fn next_id(&self) -> u64 {
        // A line that is not understood may have held an entry: its number stays free.
        let known = self.entries.iter().map(|e| e.id).max().unwrap_or(0);
        known
            .saturating_add(self.damage.len() as u64)
            .saturating_add(1)
    }
}

/// A journal open for writing, locked against other instances until dropped.
pub(crate) struct OpenJournal {
    file: LockedFile,
    pub(crate) journal: Journal,
}

impl OpenJournal {
    /// Opens (or creates) and locks a journal. Waits a little for another instance.
    pub(crate) fn open(env: &Env, path: &Path) -> Result<Self, ChangeError> {
        let mut file = LockedFile::open(path)?;
        let bytes = file.contents()?;
        let journal = Journal::parse(path, boot_id(env), &bytes);
        Ok(Self { file, journal })
    }

    /// Writes down what is about to be done; on return it is on disk.
    pub(crate) fn intend(
        &mut self,
        plan: &Plan,
        undoes: Option<u64>,
    ) -> Result<Entry, ChangeError> {
        let entry = Entry {
            id: self.journal.next_id(),
            wall_ns: wall_ns(),
            by: who(),
            boot: self.journal.boot.clone(),
            plan: plan.clone(),
            outcome: Outcome::Intended,
            undoes,
            effect: None,
        };
        self.append(&Record::Entry(Box::new(entry.clone())))?;
        self.journal.entries.push(entry.clone());
        Ok(entry)
    }

    /// Writes down how an entry went; on return it is on disk.
    pub(crate) fn outcome(&mut self, entry: &Entry) -> Result<(), ChangeError> {
        self.append(&Record::Outcome {
            id: entry.id,
            wall_ns: wall_ns(),
            outcome: entry.outcome.clone(),
            effect: entry.effect.clone(),
        })
    }

    /// Ends a line that another instance was killed in, so that the next one stands for itself.
    fn end_line(&mut self) -> Result<(), ChangeError> {
        if !std::mem::take(&mut self.journal.ends_within_line) {
            return Ok(());
        }
        let line = self.journal.lines;
        let complete = self.journal.damage.iter().all(|d| d.line != line);
        self.file.append(b"\n")?;
        if complete {
            return Ok(());
        }
        self.append(&Record::Torn { line })
    }

    fn append(&mut self, record: &Record) -> Result<(), ChangeError> {
        self.end_line()?;
        let mut line = serde_json::to_vec(record)
            .map_err(|e| file::error(self.file.path(), &e.to_string()))?;
        line.push(b'\n');
        self.file.append(&line)
    }
}

/// The running boot's id; empty where the kernel does not tell it.
fn boot_id(env: &Env) -> Name {
    target::text_or_empty(env, "/proc/sys/kernel/random/boot_id").into()
}

fn wall_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Who is at the keyboard, as far as the environment tells, and our pid.
fn who() -> Name {
    let name = ["SUDO_USER", "LOGNAME", "USER"]
        .iter()
        .find_map(|var| std::env::var(var).ok().filter(|v| !v.is_empty()))
        .unwrap_or_else(|| match rustix::process::getuid() {
            uid if uid.is_root() => "root".to_owned(),
            uid => format!("uid {}", uid.as_raw()),
        });
    format!("{name}[{}]", std::process::id()).into()
}

#[cfg(test)]
mod tests;
