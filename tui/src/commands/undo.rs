//! `stalltop undo`.

use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;

use anyhow::Context;
use stalltop_collectors::change::{self, Journal};
use stalltop_model::change::{ChangeError, Entry, Outcome, Plan, Request};
use stalltop_model::printable;

use super::confirm::{Desk, ask, confirm, read_journal, refused, report, say};
use crate::cli::ChangeArgs;

/// Undoes the newest change, or the one given.
pub(crate) fn one(id: Option<u64>, force: bool, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let desk = match Desk::new(args) {
        Ok(desk) => desk,
        Err(error) => return Ok(refused(&error)),
    };
    match plan(&desk, id, force) {
        Ok(plan) => desk.decide(&plan, Desk::apply),
        Err(error) => Ok(refused(&error)),
    }
}

/// Plans an undo. A value that has moved stops it; on a terminal it asks whether to go on.
fn plan(desk: &Desk<'_>, entry: Option<u64>, force: bool) -> Result<Plan, ChangeError> {
    match desk.plan(&Request::Undo { entry, force }) {
        Err(error @ (ChangeError::Moved { .. } | ChangeError::KeptMoved { .. })) if !force => {
            let kept = matches!(error, ChangeError::KeptMoved { .. });
            let can_ask = io::stdin().is_terminal() && !desk.args.yes && !desk.args.dry_run;
            if !can_ask {
                eprintln!(
                    "stalltop: {}",
                    if kept {
                        "it moved since; --force puts back the switch alone, and that file stays"
                    } else {
                        "it moved since stalltop changed it; --force undoes it all the same"
                    }
                );
                return Err(error);
            }
            eprintln!("stalltop: {}", printable(&error.to_string()));
            let question = if kept {
                "type force to put back the switch alone, that file stays as it is now: "
            } else {
                "it moved since stalltop changed it; type force to undo it all the same: "
            };
            if ask(question) == "force" {
                desk.plan(&Request::Undo { entry, force: true })
            } else {
                Err(ChangeError::NotConfirmed {
                    how: "left as it is".into(),
                })
            }
        }
        other => other,
    }
}

/// Undoes every change of this boot, the newest first.
pub(crate) fn all(force: bool, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let start = || {
        let desk = Desk::new(args)?;
        let journal = desk.journal()?;
        Ok((desk, journal))
    };
    let (desk, journal) = match start() {
        Ok(both) => both,
        Err(error) => return Ok(refused(&error)),
    };
    let entries: Vec<&Entry> = journal
        .entries()
        .iter()
        .rev()
        .filter(|e| journal.can_undo(e))
        .collect();
    if entries.is_empty() {
        return Ok(refused(&ChangeError::NothingToDo {
            why: "the journal has no change of this boot to undo".into(),
        }));
    }
    say(&match entries.len() {
        1 => "undo 1 change".to_owned(),
        n => format!("undo {n} changes, the newest first"),
    });
    for entry in &entries {
        say(&format!(
            "  {:>4}  {}",
            entry.id,
            printable(&entry.plan.title)
        ));
    }
    if args.dry_run {
        say("dry run: nothing was changed; stalltop undo ID --dry-run shows the writes of one");
        return Ok(ExitCode::SUCCESS);
    }
    let confirmed = desk.may_write().and_then(|()| confirm(desk.given(), None));
    if let Err(error) = confirmed {
        return Ok(refused(&error));
    }
    // Each is planned only when those after it are undone: they may concern the same files.
    for entry in entries {
        let plan = match plan(&desk, Some(entry.id), force) {
            Ok(plan) => plan,
            Err(error) => return Ok(refused(&error)),
        };
        desk.show(&plan)?;
        let done = change::apply(&desk.writer, &plan, &mut |_| ());
        let failed = done.is_err();
        let status = report(&plan, done);
        if failed {
            return Ok(status);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the journal, for a person or as JSON.
pub(crate) fn list(json: bool, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let env = args.env();
    let path = Journal::path_for(&env, args.journal.as_deref());
    let journal = match read_journal(&env, &path) {
        Ok(journal) => journal,
        Err(error) => return Ok(refused(&error)),
    };
    let mut out = io::stdout().lock();
    let printed = if json {
        print_json(&mut out, &journal)
    } else {
        print(&mut out, &journal)
    };
    printed
        .and_then(|()| out.flush())
        .context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// The entries, each with what the journal alone does not say: the time as text, whether it
/// is of this boot, and whether undo would take it.
fn print_json(out: &mut impl io::Write, journal: &Journal) -> io::Result<()> {
    let mut all = Vec::new();
    for entry in journal.entries() {
        let mut value = serde_json::to_value(entry)?;
        value["when"] = when(entry.wall_ns).into();
        value["this_boot"] = journal.is_current(entry).into();
        value["can_undo"] = journal.can_undo(entry).into();
        all.push(value);
    }
    serde_json::to_writer_pretty(&mut *out, &all)?;
    writeln!(out)
}

fn print(out: &mut impl io::Write, journal: &Journal) -> io::Result<()> {
    if journal.entries().is_empty() {
        return writeln!(
            out,
            "no changes in {}",
            printable(&journal.path().to_string_lossy())
        );
    }
    writeln!(
        out,
        "{:>4}  {:<25}  {:<16}  {:<22}  CHANGE",
        "ID", "WHEN", "BY", "STATE"
    )?;
    for entry in journal.entries() {
        writeln!(
            out,
            "{:>4}  {:<25}  {:<16}  {:<22}  {}",
            entry.id,
            when(entry.wall_ns),
            printable(&entry.by),
            state(journal, entry),
            printable(&entry.plan.title)
        )?;
    }
    Ok(())
}

/// Local time, with its offset from UTC.
fn when(wall_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(wall_ns)).map_or_else(
        |_| "?".to_owned(),
        |at| {
            at.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%F %T %z")
                .to_string()
        },
    )
}

fn state(journal: &Journal, entry: &Entry) -> String {
    let state = match &entry.outcome {
        Outcome::Intended => "interrupted".to_owned(),
        Outcome::Done => "done".to_owned(),
        Outcome::Failed { written: 0, .. } => "failed, nothing done".to_owned(),
        Outcome::Failed { written, .. } => {
            format!("failed after {written} of {}", entry.plan.writes.len())
        }
        Outcome::Undone { by } => format!("undone by {by}"),
    };
    if journal.is_current(entry) {
        state
    } else {
        format!("{state}, earlier boot")
    }
}
