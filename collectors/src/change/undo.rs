//! Undoing a journal entry, item by item, in the opposite order.
//!
//! Each item is looked at: one that reads what it read before the change is done with
//! (it was never written, or somebody put it back); one that reads what the change made
//! of it is put back; anything else has moved since, and undo stops there unless forced.
//! A filter or trigger that has moved stops it as well; forced, that file stays as it is now,
//! for stalltop never wrote it. What belonged to an instance that was removed is done with.

use std::collections::{HashMap, HashSet};
use std::io;

use stalltop_model::change::{
    ChangeError, Entry, Kept, Left, Outcome, Plan, Request, Standing, UndoClass, UndoWrite, Write,
};
use stalltop_model::{Name, printable};

use crate::Env;

use super::journal::Journal;
use super::target::{Target, classify};
use super::writer::Writer;

/// Works out how to undo one entry (`None`: the newest that can be). The plan has no
/// writes where everything is as it was already; applying it marks the entry as undone.
///
/// # Errors
/// [`ChangeError::Moved`] and [`ChangeError::KeptMoved`] without `force`; [`ChangeError::NothingToDo`] where the entry is
/// undone already, of an earlier boot, or not to be undone at all.
pub(crate) fn plan(
    env: &Env,
    journal: &Journal,
    id: Option<u64>,
    force: bool,
) -> Result<Plan, ChangeError> {
    let entry = find(journal, id)?;
    let mut draft = Draft {
        env,
        force,
        writes: Vec::new(),
        notes: Vec::new(),
        left: Vec::new(),
        coming: HashSet::new(),
        arming: HashSet::new(),
        will_read: HashMap::new(),
        as_before: 0,
    };
    if let Outcome::Failed { written, why } = &entry.outcome {
        draft.notes.push(
            format!(
                "it stopped after {written} of {} writes: {why}",
                entry.plan.writes.len()
            )
            .into(),
        );
    } else if entry.outcome == Outcome::Intended {
        draft
            .notes
            .push("it was interrupted: what was written of it is put back".into());
    }
    let writes = &entry.plan.writes;
    for (n, write) in writes.iter().enumerate().rev() {
        draft.add(write, &writes[..n])?;
    }
    if draft.as_before > 0 {
        draft.notes.push(
            format!(
                "{} of {} are as they were already",
                draft.as_before,
                entry.plan.writes.len()
            )
            .into(),
        );
    }
    Ok(Plan {
        request: Request::Undo {
            entry: Some(entry.id),
            force,
        },
        title: format!("undo {}: {}", entry.id, entry.plan.title).into(),
        writes: draft.writes,
        undo: UndoClass::Never,
        notes: draft.notes,
        left: draft.left,
        confirm_word: None,
    })
}

/// Whether everything that an entry switched is again as it found it. Whether a trigger arms an
/// event besides is up to others ([`Target::took`]).
pub(crate) fn is_back(env: &Env, entry: &Entry) -> bool {
    let mut seen = HashSet::new();
    let changed = entry.plan.writes.iter().filter(|w| !w.undo.is_empty());
    // Of several writes to one file the first found it as it was.
    let mut first = changed.filter(|w| seen.insert((&w.path, &w.item)));
    first.all(|write| {
        let Some(before) = &write.before else {
            return false;
        };
        if gone_instance(env, &write.path).is_some() {
            return true;
        }
        classify(env, &write.path).is_some_and(|target| {
            let found = target.read(env, &write.path, write.item.as_deref());
            found.is_ok_and(|found| target.took(&found, before))
        })
    })
}

fn find(journal: &Journal, id: Option<u64>) -> Result<&Entry, ChangeError> {
    let nothing = |why: String| ChangeError::NothingToDo { why: why.into() };
    let Some(id) = id else {
        return journal
            .last_undoable()
            .ok_or_else(|| nothing("the journal has no change of this boot to undo".to_owned()));
    };
    let entry = journal.entry(id).ok_or_else(|| {
        nothing(format!(
            "the journal has no entry {id} (stalltop undo --list)"
        ))
    })?;
    if journal.can_undo(entry) {
        return Ok(entry);
    }
    Err(nothing(match &entry.outcome {
        Outcome::Undone { by } => format!("{id} is undone already, by {by}"),
        _ if !journal.is_current(entry) => {
            format!("{id} is from an earlier boot, and what it changed went with that boot")
        }
        _ if entry.undoes.is_some() => {
            format!("{id} is an undo itself; make the change again instead")
        }
        _ if entry.standing() == Standing::Nothing => {
            format!("{id} failed before it wrote anything")
        }
        _ => format!("{id} ({}) cannot be undone", entry.plan.title),
    }))
}

struct Draft<'a> {
    env: &'a Env,
    force: bool,
    writes: Vec<Write>,
    notes: Vec<Name>,
    left: Vec<Left>,
    /// Events (`GROUP/NAME`) that earlier writes of this plan make again: their files are
    /// not there yet.
    coming: HashSet<String>,
    /// Folders of events whose triggers earlier writes of this plan put back: these arm the
    /// event, so its `enable` will read otherwise than now.
    arming: HashSet<String>,
    /// What a file that this plan writes will read when the writes so far are made.
    will_read: HashMap<(Name, Option<Name>), Name>,
    as_before: usize,
}

/// The folder of the event that a file belongs to.
fn event_dir(path: &str) -> Option<&str> {
    let dir = path.rsplit_once('/')?.0;
    dir.contains("/events/").then_some(dir)
}

/// `GROUP/NAME` of the event that a file belongs to.
fn event_of(path: &str) -> Option<&str> {
    event_dir(path)?
        .rsplit_once("/events/")
        .map(|(_, item)| item)
}

impl Draft<'_> {
    /// Adds what undoes one write of the entry; `earlier` are those made before it.
    fn add(&mut self, done: &Write, earlier: &[Write]) -> Result<(), ChangeError> {
        let (Some(undo), Some(before)) = (done.undo.first(), &done.before) else {
            return Ok(());
        };
        let mut write = reverse(done, undo);
        if let Some(instance) = gone_instance(self.env, &write.path) {
            let left = Left {
                what: format!("instance {}", printable(instance)).into(),
                why: "the instance is gone: nothing to undo there".into(),
            };
            if !self.left.contains(&left) {
                self.left.push(left);
            }
            return Ok(());
        }
        let target = match Writer::check(self.env, &write) {
            Ok(target) => target,
            Err(error) => return self.leave_or(done, error),
        };
        if self.is_to_come(target, &done.path) {
            self.writes.push(write);
            return Ok(());
        }
        let key = (write.path.clone(), write.item.clone());
        let found = match self.will_read.get(&key) {
            Some(value) => value.clone(),
            None => match target.read(self.env, &write.path, write.item.as_deref()) {
                Ok(found) => found.into(),
                Err(e) => {
                    let error = moved(&write.path, write.before.as_ref(), &format!("({e})"));
                    return self.leave_or(done, error);
                }
            },
        };
        let expected = write.before.clone().unwrap_or_default();
        if !target.same(&found, &expected) || target.same(before, &expected) {
            // Several writes to one file (triggers, one by one) are a chain: it may stand at
            // any of its links.
            let on_the_way = earlier
                .iter()
                .filter(|w| w.path == done.path && w.item == done.item)
                .filter_map(|w| w.before.as_deref())
                .any(|value| target.same(&found, value));
            if target.same(&found, before) || on_the_way {
                self.as_before += 1;
                return Ok(());
            }
            if !self.force {
                return Err(moved(&write.path, Some(&expected), &found));
            }
            self.notes.push(
                format!(
                    "{} has moved since: {} expected, {} found, overwritten",
                    printable(&write.path),
                    printable(&expected),
                    printable(&found)
                )
                .into(),
            );
            write.before = Some(found);
        }
        self.check_kept(&mut write)?;
        match (target, &write.item, event_dir(&write.path)) {
            (Target::Dynamic, Some(item), _) => self.coming.insert(item.to_string()),
            (Target::Trigger, _, Some(dir)) => self.arming.insert(dir.to_owned()),
            _ => false,
        };
        self.will_read.insert(key, before.clone());
        self.writes.push(write);
        Ok(())
    }

    /// Whether a file cannot be looked at yet because an earlier write of this plan brings
    /// about what it will read. Apply looks right before it writes.
    fn is_to_come(&self, target: Target, path: &str) -> bool {
        event_of(path).is_some_and(|item| self.coming.contains(item))
            || (target == Target::Enable
                && event_dir(path).is_some_and(|dir| self.arming.contains(dir)))
    }

    /// Forced, leaves out what cannot be undone any more.
    fn leave_or(&mut self, done: &Write, error: ChangeError) -> Result<(), ChangeError> {
        if !self.force {
            return Err(error);
        }
        self.left.push(Left {
            what: done.path.clone(),
            why: error.to_string().into(),
        });
        Ok(())
    }

    /// Filter and triggers are part of what was there: moved, they stop an undo as well.
    fn check_kept(&mut self, write: &mut Write) -> Result<(), ChangeError> {
        for kept in &mut write.kept {
            let target = classify(self.env, &kept.path).unwrap_or(Target::Filter);
            // The same change may have taken the filter away: by then it is put back.
            let found = match self.will_read.get(&(kept.path.clone(), None)) {
                Some(value) => value.to_string(),
                None => target
                    .read(self.env, &kept.path, None)
                    .unwrap_or_else(|e| format!("({e})")),
            };
            if target.same(&found, &kept.value) {
                continue;
            }
            if !self.force {
                return Err(ChangeError::KeptMoved {
                    path: kept.path.clone(),
                    expected: kept.value.clone(),
                    found: found.into(),
                });
            }
            self.notes.push(
                format!(
                    "{} has moved since: {} then, {} now; it stays as it is now",
                    printable(&kept.path),
                    printable(&kept.value),
                    printable(&found)
                )
                .into(),
            );
            *kept = Kept {
                path: kept.path.clone(),
                value: found.into(),
            };
        }
        Ok(())
    }
}

/// The instance that a file belongs to, if it has been removed since: what was switched there
/// went with it. Not so where tracefs is no longer mounted, which says nothing.
fn gone_instance<'a>(env: &Env, path: &'a str) -> Option<&'a str> {
    let mounts = env.mounts.iter().filter_map(|m| match m.fs.as_str() {
        "tracefs" => Some(format!("{}/instances", m.at)),
        "debugfs" => Some(format!("{}/tracing/instances", m.at)),
        _ => None,
    });
    for instances in mounts {
        let Some(rest) = path
            .strip_prefix(instances.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            continue;
        };
        let name = rest.split('/').next().unwrap_or_default();
        if matches!(name, "" | "." | "..") || !env.path(&instances).is_dir() {
            return None;
        }
        let there = std::fs::symlink_metadata(env.path(&format!("{instances}/{name}")));
        return there
            .is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
            .then_some(name);
    }
    None
}

fn moved(path: &str, expected: Option<&Name>, found: &str) -> ChangeError {
    ChangeError::Moved {
        path: path.into(),
        expected: expected.cloned().unwrap_or_default(),
        found: found.into(),
    }
}

/// The write that undoes another.
fn reverse(done: &Write, undo: &UndoWrite) -> Write {
    Write {
        path: undo.path.clone(),
        mode: undo.mode,
        value: undo.value.clone(),
        item: done.item.clone(),
        before: done.after.clone(),
        after: done.before.clone(),
        kept: done.kept.clone(),
        undo: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use stalltop_model::change::OpenMode;

    use super::*;

    #[test]
    fn events_are_named_by_their_paths() {
        assert_eq!(
            event_of("/sys/kernel/tracing/instances/a/events/st/x/enable"),
            Some("st/x")
        );
        assert_eq!(event_of("/sys/kernel/tracing/tracing_on"), None);
        assert_eq!(
            reverse(
                &Write {
                    path: "/a".into(),
                    mode: OpenMode::Append,
                    value: "-:a/b".into(),
                    item: Some("a/b".into()),
                    before: Some("p:a/b x".into()),
                    after: Some("".into()),
                    kept: Vec::new(),
                    undo: Vec::new(),
                },
                &UndoWrite {
                    path: "/a".into(),
                    mode: OpenMode::Append,
                    value: "p:a/b x".into(),
                }
            )
            .before
            .as_deref(),
            Some("")
        );
    }
}
