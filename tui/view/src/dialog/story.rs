//! A change that was made, and what came of it.

use stalltop_model::change::{Outcome, UndoClass};
use stalltop_model::{Model, escaped, printable};

use super::report;
use crate::{job, text};

/// A change in full: the title, then its lines.
pub(super) fn of(model: &Model, change: u64) -> Vec<String> {
    let Some(entry) = model.changes().iter().find(|e| e.id == change) else {
        return vec![
            format!("Change {change}"),
            "it is not kept any more: stalltop undo --list shows all".into(),
        ];
    };
    let mut out = vec![
        format!("Change {}: {}", entry.id, printable(&entry.plan.title)),
        format!("{} by {}", text::date(entry.wall_ns), printable(&entry.by)),
    ];
    match &entry.outcome {
        Outcome::Intended => {
            out.push("the intent is journaled; whether it was written is not known".into());
        }
        Outcome::Done => out.push("done, and read back".into()),
        Outcome::Failed { why, .. } => {
            let how = job::stopped(entry).unwrap_or_else(|| "nothing was written".to_owned());
            out.push(format!("{how}: {}", printable(why)));
        }
        Outcome::Undone { by } => out.push(format!("undone by change {by}")),
    }
    if let Some(undoes) = entry.undoes {
        out.push(format!("it undoes change {undoes}"));
    }
    out.push(String::new());
    for write in &entry.plan.writes {
        let commands = write.commands();
        out.extend(commands.iter().map(|c| format!("  {}", escaped(c))));
    }
    if entry.plan.undo == UndoClass::Never && entry.undoes.is_none() {
        out.push("cannot be undone".into());
    }
    for note in &entry.plan.notes {
        out.push(format!("  · {}", printable(note)));
    }
    if entry.effect.is_some() {
        out.push(String::new());
        out.extend(report::lines(entry).into_iter().skip(1));
    }
    if let Some(verdict) = model.verdict(change) {
        out.push(String::new());
        out.push(format!("what it did: {verdict}"));
        out.extend(verdict.lines().iter().map(|line| format!("  {line}")));
    }
    out
}
