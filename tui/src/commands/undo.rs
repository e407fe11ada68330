//! `stalltop undo`.

use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;

use anyhow::Context;
use stalltop_collectors::change::{self, Journal};
use stalltop_model::change::{ChangeError, Entry, Outcome, Plan, Request};
use stalltop_model::{escaped, printable};

use super::confirm::{Desk, ask, confirm, read_journal, refused, say};
use crate::cli::ChangeArgs;

/// Undoes the newest change, or the one given.
pub(crate) fn one(id: Option<u64>, force: bool, args: &ChangeArgs) -> anyhow::Result<ExitCode> {
    let desk = match Desk::new(args) {
        Ok(desk) => desk,
        Err(error) => return Ok(refused(&error)),
    };
    match plan(&desk, id, force) {
        Ok(plan) => desk.decide(&plan, Desk::apply),
        Err(error) => {
            let status = refused(&error);
            if let Some(would) = forced(&error) {
                eprintln!("stalltop: it moved since stalltop changed it; --force to {would}");
            }
            Ok(status)
        }
    }
}

/// What `--force` would do where a value has moved since.
fn forced(error: &ChangeError) -> Option<&'static str> {
    match error {
        ChangeError::KeptMoved { .. } => {
            Some("put back the switch alone, and leave that file as it is now")
        }
        ChangeError::Moved { .. } => Some("undo it all the same"),
        _ => None,
    }
}

/// Plans an undo. A value that has moved stops it; on a terminal it asks whether to go on.
fn plan(desk: &Desk<'_>, entry: Option<u64>, force: bool) -> Result<Plan, ChangeError> {
    let error = match desk.plan(&Request::Undo { entry, force }) {
        Err(error) if !force => error,
        other => return other,
    };
    let can_ask = io::stdin().is_terminal() && !desk.args.yes && !desk.args.dry_run;
    let Some(would) = forced(&error).filter(|_| can_ask) else {
        return Err(error);
    };
    eprintln!("stalltop: {}", escaped(&error.to_string()));
    let question = format!("it moved since stalltop changed it; type force to {would}: ");
    if ask(&question) == "force" {
        return desk.plan(&Request::Undo { entry, force: true });
    }
    Err(ChangeError::NotConfirmed {
        how: "left as it is".into(),
    })
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
    let left = undo_each(&desk, &entries, force)?;
    if left.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("stalltop: not undone:");
    for (entry, why) in &left {
        eprintln!(
            "  {:>4}  {}: {}",
            entry.id,
            printable(&entry.plan.title),
            escaped(why)
        );
    }
    Ok(ExitCode::FAILURE)
}

/// Undoes entries one after the other; gives those that were not, with why. One that is not does
/// not hold up the others, but for those that concern the same files: what they would put back
/// is not there yet.
fn undo_each<'a>(
    desk: &Desk<'_>,
    entries: &[&'a Entry],
    force: bool,
) -> anyhow::Result<Vec<(&'a Entry, String)>> {
    let mut left: Vec<(&Entry, String)> = Vec::new();
    // Each is planned only when those after it are undone: they may concern the same files.
    for entry in entries {
        if let Some((other, _)) = left.iter().find(|(other, _)| share_files(other, entry)) {
            let why = format!("it concerns files of {}, which is not undone", other.id);
            left.push((entry, why));
            continue;
        }
        let plan = match plan(desk, Some(entry.id), force) {
            Ok(plan) => plan,
            // Somebody else was faster.
            Err(error @ ChangeError::NothingToDo { .. }) => {
                say(&escaped(&error.to_string()));
                continue;
            }
            Err(error) => {
                let hint = forced(&error).map(|would| format!("; --force to {would}"));
                left.push((entry, format!("{error}{}", hint.unwrap_or_default())));
                continue;
            }
        };
        desk.show(&plan)?;
        let done = change::apply(&desk.writer, &plan, &mut |_| ());
        if let Err(failure) = &done {
            left.push((entry, failure.error.to_string()));
        }
        desk.report(&plan, done);
    }
    Ok(left)
}

/// Whether two changes concern the same file, or one what lies below a mount of the other.
fn share_files(a: &Entry, b: &Entry) -> bool {
    let below = |path: &str, of: &str| {
        path.strip_prefix(of)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    a.plan.writes.iter().any(|x| {
        b.plan.writes.iter().any(|y| {
            (x.path == y.path && x.item == y.item)
                || below(&x.path, &y.path)
                || below(&y.path, &x.path)
        })
    })
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
