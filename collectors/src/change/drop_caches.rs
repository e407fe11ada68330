//! Dropping caches (Documentation/admin-guide/sysctl/vm.rst, `drop_caches`).
//!
//! The one change that cannot be undone, and that may take minutes: the kernel walks every
//! inode (`1`) or asks every shrinker of every memory cgroup, dying ones included (`2`).
//! [`start`] runs it on a thread of its own; what it did is measured and reported.

mod measure;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use stalltop_model::change::caches::{self, Droppable};
use stalltop_model::change::{
    ChangeError, Effect, Entry, Failure, OpenMode, Outcome, Plan, Request, UndoClass, Write,
};
use stalltop_model::{Reading, units};

use crate::Env;

use super::host::missing;
use super::journal::{Journal, OpenJournal};
use super::target::DROP_CACHES;
use super::writer::Writer;
use measure::{Figures, Memory};

/// The word that confirms it.
pub const WORD: &str = "drop";

/// How long figures are looked at after the write: newer kernels free zombies
/// asynchronously, within about 2 s (measured on 6.1 and 6.12).
const SETTLE: Duration = Duration::from_secs(2);
/// How often they are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// So many looks in a row without a change end the wait.
const STEADY: u32 = 5;

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Figures are being read before anything is done.
    Measuring,
    /// The kernel is dropping; this cannot be cut short.
    Dropping,
    /// Done; figures are read until they stand still.
    Settling,
}

/// The value that fits a host, and why ([`caches::fitting`]).
pub fn proposed(env: &Env) -> (u8, String) {
    let charged = Memory::read(env).map(|memory| Droppable {
        cache: memory.droppable_cache(),
        slab: memory.reclaimable_slab,
    });
    // What cannot be read is as if nothing were charged.
    caches::fitting((env.kernel.0, env.kernel.1), charged.ok())
}

/// Whether the kernel would let us: opening the file writes nothing, and asks all that a write
/// asks (only the root user may, capabilities do not count: fs/proc/proc_sysctl.c,
/// `test_perm`).
fn may_write(env: &Env) -> Result<(), ChangeError> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(env.path(DROP_CACHES))
        .map(drop)
        .map_err(|e| missing(env, DROP_CACHES, &e))
}

/// Works out the one write, and what it costs on this host. What would make it fail is found
/// out here, before anybody is asked for the word.
///
/// # Errors
/// [`ChangeError::Missing`] where the file cannot be written, [`ChangeError::Journal`] where
/// the journal cannot.
pub(super) fn plan(
    env: &Env,
    request: &Request,
    journal: &Journal,
    level: Option<u8>,
) -> Result<Plan, ChangeError> {
    let (fits, why) = proposed(env);
    let level = level.unwrap_or(fits);
    if !(1..=3).contains(&level) {
        return Err(ChangeError::BadSelector {
            selector: level.to_string().into(),
            why: "drop_caches takes 1 (page cache), 2 (dentries and inodes) or 3 (both)".into(),
        });
    }
    may_write(env)?;
    journal.may_write()?;
    let mut notes = Vec::new();
    match Memory::read(env) {
        Ok(memory) => {
            if level & 1 != 0 {
                notes.push(format!(
                    "{} of clean page cache go, to be read from disk again",
                    units::Bytes(memory.droppable_cache())
                ));
            }
            if level & 2 != 0 {
                notes.push(format!(
                    "{} of reclaimable slab (dentries, inodes) go, to be looked up again",
                    units::Bytes(memory.reclaimable_slab)
                ));
            }
            if memory.shmem > 0 {
                notes.push(format!(
                    "{} of tmpfs and shared memory stay, and so do zombie cgroups charged with them: \
                     only removing those files frees these",
                    units::Bytes(memory.shmem)
                ));
            }
        }
        Err(reason) => notes.push(format!("how much goes is not known: {reason}")),
    }
    notes.push(if level == fits {
        format!("{level} is proposed here: {why}")
    } else {
        format!("{fits} would be proposed here: {why}")
    });
    notes.push("it may take minutes, may stall the host meanwhile, and cannot be cut short".into());
    Ok(Plan {
        request: request.clone(),
        title: format!(
            "drop {}",
            [
                "page cache",
                "dentries and inodes",
                "page cache, dentries and inodes"
            ][usize::from(level) - 1]
        )
        .into(),
        writes: vec![Write {
            path: DROP_CACHES.into(),
            mode: OpenMode::Truncate,
            value: level.to_string().into(),
            item: None,
            before: None,
            after: None,
            kept: Vec::new(),
            undo: Vec::new(),
        }],
        undo: UndoClass::Never,
        notes: notes.into_iter().map(Into::into).collect(),
        left: Vec::new(),
        confirm_word: Some(WORD.into()),
    })
}

/// A drop that goes on, on its own thread.
#[derive(Debug)]
pub struct Running {
    started: Instant,
    stage: Stage,
    news: mpsc::Receiver<News>,
}

#[derive(Debug)]
enum News {
    Stage(Stage),
    End(Box<Result<Entry, Failure>>),
}

/// Begins a drop. Dropping what is returned does not stop it: nothing can.
///
/// # Errors
/// [`ChangeError::Refused`] where no thread can be had.
pub fn start(writer: &Writer, plan: &Plan) -> Result<Running, ChangeError> {
    let (send, news) = mpsc::channel();
    let (writer, plan) = (writer.clone(), plan.clone());
    let command = plan.writes.first().map(Write::command).unwrap_or_default();
    thread::Builder::new()
        .name("drop_caches".into())
        .spawn(move || {
            // Whoever waited may be gone: the drop goes on, and is journaled.
            let end = run(&writer, &plan, &mut |stage| {
                let _ = send.send(News::Stage(stage));
            });
            let _ = send.send(News::End(Box::new(end)));
        })
        .map_err(|e| ChangeError::Refused {
            command: command.into(),
            why: e.to_string().into(),
        })?;
    Ok(Running {
        started: Instant::now(),
        stage: Stage::Measuring,
        news,
    })
}

impl Running {
    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Waits at most `wait` for the end; `None` while it goes on.
    pub fn poll(&mut self, wait: Duration) -> Option<Result<Entry, Failure>> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(left) {
                Ok(News::Stage(stage)) => self.stage = stage,
                Ok(News::End(end)) => return Some(*end),
                Err(mpsc::RecvTimeoutError::Timeout) => return None,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Some(Err(Failure::from(ChangeError::Refused {
                        command: format!("echo > {DROP_CACHES}").into(),
                        why: "its thread ended without a result; the journal has what is known"
                            .into(),
                    })));
                }
            }
        }
    }
}

/// Drops, in this thread. The journal is locked only while it is written: the drop itself
/// may take minutes, in which others must be able to undo what they did.
pub(super) fn run(
    writer: &Writer,
    plan: &Plan,
    stage: &mut dyn FnMut(Stage),
) -> Result<Entry, Failure> {
    let env = writer.env();
    let [write] = &plan.writes[..] else {
        return Err(Failure::from(ChangeError::NothingToDo {
            why: "the plan has not the one write of a drop".into(),
        }));
    };
    Writer::check(&env, write)?;
    stage(Stage::Measuring);
    let before = Figures::take(&env);
    let mut entry = OpenJournal::open(&env, writer.journal())?.intend(plan, None)?;
    stage(Stage::Dropping);
    let started = Instant::now();
    let result = writer.write(&env, write);
    let took = started.elapsed();
    stage(Stage::Settling);
    let after = settled(&env);
    entry.outcome = match &result {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed {
            written: 0,
            why: error.to_string().into(),
        },
    };
    entry.effect = Some(Effect {
        rows: before.compared_with(&after),
        took_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
    });
    let journaled =
        OpenJournal::open(&env, writer.journal()).and_then(|mut journal| journal.outcome(&entry));
    match result.and(journaled) {
        Ok(()) => Ok(entry),
        Err(error) => Err(Failure {
            error,
            entry: Some(Box::new(entry)),
        }),
    }
}

/// The figures once they stand still, or at the end of [`SETTLE`]. memory.stat is read
/// once, at the end.
fn settled(env: &Env) -> Figures {
    let started = Instant::now();
    let mut zombies = measure::zombies(env);
    let mut steady = 0;
    while started.elapsed() < SETTLE && steady < STEADY {
        thread::sleep(LOOK);
        let now = measure::zombies(env);
        steady = if now == zombies { steady + 1 } else { 0 };
        zombies = now;
    }
    Figures::take(env)
}

/// What a drop did, a line each; says so where nothing was seen to happen.
pub fn report(effect: &Effect) -> Vec<String> {
    let show = |unit: &str, reading: &Reading<u64>| match (reading, unit) {
        (Reading::Off(reason), _) => format!("not measured ({reason})"),
        (Reading::Value(n), "bytes") => units::Bytes(*n).to_string(),
        (Reading::Value(n), "ns") => units::Duration(*n).to_string(),
        (Reading::Value(n), _) => units::Count(*n).to_string(),
    };
    let mut lines: Vec<String> = effect
        .rows
        .iter()
        .map(|row| {
            format!(
                "{:<18} {} -> {}",
                row.what,
                show(&row.unit, &row.before),
                show(&row.unit, &row.after)
            )
        })
        .collect();
    lines.push(format!("took {}", units::Duration(effect.took_ns)));
    if !effect.rows.iter().any(measure::is_better) {
        lines.push(
            "no effect seen: neither fewer zombie cgroups nor notably more free memory".into(),
        );
    }
    lines
}

#[cfg(test)]
mod tests;
