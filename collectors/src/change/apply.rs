//! Carrying out a plan: journal, look again, write, read back, journal.
//!
//! The order is what makes a change safe to interrupt at any point. The intent is on
//! disk before the first write, with what each file read before; so whatever a crash
//! leaves behind, every item reads either `before` (not written yet) or `after`
//! (written), and undo can tell which.

use std::io;

use stalltop_model::change::stop::pid_of;
use stalltop_model::change::{
    ChangeError, Entry, Failure, OpenMode, Outcome, Plan, Request, Write,
};

use crate::Env;

use super::drop_caches;
use super::journal::{Journal, OpenJournal};
use super::target::Target;
use super::writer::Writer;
use super::{stop, undo};

/// How far a change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Writes done and read back.
    pub done: usize,
    /// Writes of the plan.
    pub of: usize,
}

/// Carries out a plan; gives the journal's entry of it. `progress` is called before the
/// first write and after each.
///
/// # Errors
/// [`Failure`]: nothing is written once a value has moved, the kernel refuses a write, or
/// does not show what was written. What was written until then is in the journal.
pub fn apply(
    writer: &Writer,
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
) -> Result<Entry, Failure> {
    if matches!(plan.request, Request::DropCaches { .. }) {
        return drop_caches::run(writer, plan, &mut |_| ());
    }
    let env = writer.env();
    let mut journal = OpenJournal::open(&env, writer.journal())?;
    let undoes = still_to_undo(&env, &journal, plan)?;
    for write in &plan.writes {
        Writer::check(&env, write)?;
        check_signal(plan, write)?;
    }
    look_ahead(&env, plan)?;
    let held = stop::Before::look(&env, plan);

    let itself = undoes.first().filter(|_| plan.puts_back()).copied();
    let mut entry = journal.intend(plan, itself)?;
    let of = plan.writes.len();
    progress(Progress { done: 0, of });
    for (n, write) in plan.writes.iter().enumerate() {
        if let Err((error, wrote)) = step(writer, &env, write) {
            entry.outcome = Outcome::Failed {
                written: u32::try_from(n + usize::from(wrote)).unwrap_or(u32::MAX),
                why: error.to_string().into(),
            };
            journal.outcome(&entry).map_err(|e| Failure {
                error: e,
                entry: Some(Box::new(entry.clone())),
            })?;
            return Err(Failure {
                error,
                entry: Some(Box::new(entry)),
            });
        }
        progress(Progress { done: n + 1, of });
    }
    finish(&env, &mut journal, &mut entry, &undoes)?;
    // Others must be able to undo what they did while a process takes its time.
    drop(journal);
    if let Some(held) = held {
        entry.effect = Some(held.compare(&env));
        let written = OpenJournal::open(&env, writer.journal())
            .and_then(|mut journal| journal.outcome(&entry));
        written.map_err(|error| Failure {
            error,
            entry: Some(Box::new(entry.clone())),
        })?;
    }
    Ok(entry)
}

/// Signals are sent for a request that names their process, and for nothing that a journal says.
fn check_signal(plan: &Plan, write: &Write) -> Result<(), ChangeError> {
    let asked = matches!(plan.request, Request::Stop { pid, .. }
        if pid_of(&write.path) == Some(pid));
    if write.mode != OpenMode::Signal || asked {
        return Ok(());
    }
    Err(ChangeError::Refused {
        command: write.command().into(),
        why: "nobody asked for this process to be stopped".into(),
    })
}

/// The entries that a plan undoes, or some of them, the newest first; they must still be to be
/// undone.
fn still_to_undo(env: &Env, journal: &OpenJournal, plan: &Plan) -> Result<Vec<u64>, ChangeError> {
    let id = match plan.request {
        Request::Undo {
            entry: Some(id), ..
        } => id,
        Request::On { .. } | Request::Off { .. } => return put_back(env, &journal.journal, plan),
        _ => return Ok(Vec::new()),
    };
    match journal.journal.entry(id) {
        Some(entry) if journal.journal.can_undo(entry) => Ok(vec![id]),
        Some(Entry {
            outcome: Outcome::Undone { by },
            ..
        }) => Err(ChangeError::NothingToDo {
            why: format!("{id} was undone meanwhile, by {by}").into(),
        }),
        _ => Err(ChangeError::NothingToDo {
            why: format!("the journal has no entry {id} to undo any more").into(),
        }),
    }
}

/// The entries that the writes of a switch put back: those without an undo of their own.
fn put_back(env: &Env, journal: &Journal, plan: &Plan) -> Result<Vec<u64>, ChangeError> {
    let mut ids = Vec::new();
    for write in plan.writes.iter().filter(|w| w.undo.is_empty()) {
        let after = write.after.as_deref().unwrap_or_default();
        let target = Writer::check(env, write)?;
        let Some(id) = journal.reversed_by(target, &write.path, after) else {
            return Err(ChangeError::NothingToDo {
                why: format!("what changed {} was undone meanwhile", write.path).into(),
            });
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    Ok(ids)
}

/// Looks at every file before anything is written, where the plan's own writes do not
/// bring about what the later ones expect.
fn look_ahead(env: &Env, plan: &Plan) -> Result<(), ChangeError> {
    let plain = |w: &Write| {
        matches!(
            Writer::check(env, w),
            Ok(Target::Enable
                | Target::TracingOn
                | Target::CurrentTracer
                | Target::KprobesEnabled
                | Target::Process)
        )
    };
    if plan.writes.iter().all(plain) {
        for write in &plan.writes {
            look(env, Writer::check(env, write)?, write)?;
        }
    }
    Ok(())
}

/// Fails if the file, or what the write relies on, does not read as planned.
fn look(env: &Env, target: Target, write: &Write) -> Result<(), ChangeError> {
    if let Some(before) = &write.before {
        let found = target.read(env, &write.path, write.item.as_deref());
        expect(target, &write.path, before, found)?;
    }
    for kept in &write.kept {
        let target = super::target::classify(env, &kept.path).unwrap_or(target);
        expect(
            target,
            &kept.path,
            &kept.value,
            target.read(env, &kept.path, None),
        )?;
    }
    Ok(())
}

fn expect(
    target: Target,
    path: &str,
    expected: &str,
    found: io::Result<String>,
) -> Result<(), ChangeError> {
    let found = found.unwrap_or_else(|e| format!("({e})"));
    if target.same(&found, expected) {
        return Ok(());
    }
    Err(ChangeError::Moved {
        path: path.into(),
        expected: expected.into(),
        found: found.into(),
    })
}

/// Looks, writes, reads back. An error comes with whether the kernel took the write.
fn step(writer: &Writer, env: &Env, write: &Write) -> Result<(), (ChangeError, bool)> {
    let target = Writer::check(env, write).map_err(|e| (e, false))?;
    look(env, target, write).map_err(|e| (e, false))?;
    writer.write(env, write).map_err(|e| (e, false))?;
    let Some(after) = &write.after else {
        return Ok(());
    };
    let found = target
        .read(env, &write.path, write.item.as_deref())
        .unwrap_or_else(|e| format!("({e})"));
    if target.took(&found, after) {
        return Ok(());
    }
    let error = ChangeError::NotTaken {
        path: write.path.clone(),
        wanted: after.clone(),
        found: found.into(),
    };
    Err((error, true))
}

/// Journals that all is done, and which entries are undone by it. A switch undoes an entry once
/// all of that reads again as it did before, by this switch or by earlier ones as well.
fn finish(
    env: &Env,
    journal: &mut OpenJournal,
    entry: &mut Entry,
    undoes: &[u64],
) -> Result<(), Failure> {
    entry.outcome = Outcome::Done;
    let mut written = journal.outcome(entry);
    for id in undoes {
        let undo = matches!(entry.plan.request, Request::Undo { .. });
        let undone = journal.journal.entry(*id);
        if let Some(mut undone) = undone.filter(|e| undo || undo::is_back(env, e)).cloned() {
            undone.outcome = Outcome::Undone { by: entry.id };
            written = written.and_then(|()| journal.outcome(&undone));
        }
    }
    written.map_err(|error| Failure {
        error,
        entry: Some(Box::new(entry.clone())),
    })
}
