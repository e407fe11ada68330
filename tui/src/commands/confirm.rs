//! What every changing command shows, asks, and reports.

use std::io::{self, BufRead, IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use stalltop_collectors::Env;
use stalltop_collectors::change::{self, Failure, Journal, Writer};
use stalltop_collectors::live::{Live, Options};
use stalltop_model::change::{
    ChangeError, Entry, Plan, Request, Standing, UndoClass, Write, shell_word,
};
use stalltop_model::{escaped, printable};

use crate::cli::{ByWord, ChangeArgs};

/// Nothing was to be done: everything is as asked for already.
const NOTHING_TO_DO: u8 = 3;

/// Writes shown before the rest is only counted; `--dry-run` shows all.
const SHOWN: usize = 40;

/// The widest column of commands.
const WIDEST: usize = 100;

/// A host to change, with its journal.
pub(crate) struct Desk<'a> {
    pub(crate) args: &'a ChangeArgs,
    pub(crate) env: Env,
    pub(crate) writer: Writer,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(args: &'a ChangeArgs) -> Result<Self, ChangeError> {
        let env = args.env();
        let options = Options {
            env: env.clone(),
            // Looking is no change.
            read_only: args.read_only && !args.dry_run,
            ..Options::default()
        };
        Ok(Self {
            args,
            env,
            writer: Live::writer(&options, args.journal.as_deref())?,
        })
    }

    /// The journal as it is now; says on stderr what is wrong with it.
    pub(crate) fn journal(&self) -> Result<Journal, ChangeError> {
        read_journal(&self.env, self.writer.journal())
    }

    /// Plans a request, with who holds what where that can be found out.
    pub(crate) fn plan(&self, request: &Request) -> Result<Plan, ChangeError> {
        let journal = self.journal()?;
        change::plan_now(&self.env, request, &journal, None)
    }

    /// Shows a plan, asks, and has it carried out and told of by `carry_out`.
    pub(crate) fn decide(
        &self,
        plan: &Plan,
        carry_out: impl FnOnce(&Self, &Plan) -> ExitCode,
    ) -> anyhow::Result<ExitCode> {
        self.show(plan)?;
        if self.args.dry_run {
            say("dry run: nothing was changed");
            return Ok(ExitCode::SUCCESS);
        }
        if let Err(error) = self.confirm(plan) {
            return Ok(refused(&error));
        }
        Ok(carry_out(self, plan))
    }

    /// Prints what is to be done: the literal commands, what they change, whether it can
    /// be undone.
    pub(crate) fn show(&self, plan: &Plan) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let limit = if self.args.dry_run { usize::MAX } else { SHOWN };
        print_plan(&mut out, plan, limit)
            .and_then(|()| self.print_undo(&mut out, plan))
            .and_then(|()| out.flush())
            .context("cannot write to standard output")
    }

    fn print_undo(&self, out: &mut impl io::Write, plan: &Plan) -> io::Result<()> {
        let undo = self.undo_command("");
        match plan.undo {
            _ if plan.puts_back() => Ok(()),
            UndoClass::Exact => writeln!(out, "  can be undone: {undo}"),
            UndoClass::Partial => writeln!(out, "  can be undone in part: {undo}"),
            UndoClass::Never => writeln!(out, "  cannot be undone"),
        }
    }

    /// The command that undoes a change here.
    fn undo_command(&self, argument: &str) -> String {
        undo_command(&self.env, self.writer.journal(), argument)
    }

    /// Does the writes of a plan, reports.
    pub(crate) fn apply(&self, plan: &Plan) -> ExitCode {
        self.report(plan, change::apply(&self.writer, plan, &mut |_| ()))
    }

    /// Says how it went; gives the exit status.
    pub(crate) fn report(&self, plan: &Plan, done: Result<Entry, Failure>) -> ExitCode {
        match done {
            Ok(entry) => {
                match plan.request {
                    Request::Undo { .. } if plan.writes.is_empty() => {
                        say("nothing was left to undo; the journal says so now");
                    }
                    _ => say(&format!("done, journal entry {}", entry.id)),
                }
                ExitCode::SUCCESS
            }
            Err(failure) => {
                let status = refused(&failure.error);
                let hint = failure.entry.and_then(|entry| self.after_failure(&entry));
                if let Some(hint) = hint {
                    eprintln!("stalltop: {hint}");
                }
                status
            }
        }
    }

    /// What is left of a change that failed, and the command for that; `None` where it is of a
    /// kind that leaves nothing to put back.
    fn after_failure(&self, entry: &Entry) -> Option<String> {
        let id = entry.id;
        match entry.standing() {
            Standing::Nothing => Some(format!("nothing was written (journal entry {id})")),
            standing if standing.can_undo() => Some(format!(
                "journal entry {id} has what was written of it; {} puts it back",
                self.undo_command(&id.to_string())
            )),
            _ => entry.undoes.map(|undone| {
                format!(
                    "a part of change {undone} is put back; {} goes on with the rest",
                    self.undo_command(&undone.to_string())
                )
            }),
        }
    }

    /// Asks for a confirmation, unless an option gave it. What could not be journaled is not
    /// asked for.
    pub(crate) fn confirm(&self, plan: &Plan) -> Result<(), ChangeError> {
        self.may_write()?;
        confirm(self.given(), plan.confirm_word.as_deref())
    }

    /// Whether the journal can be written: nothing is changed without it.
    pub(crate) fn may_write(&self) -> Result<(), ChangeError> {
        self.journal()?.may_write()
    }

    /// What the arguments say of a confirmation.
    pub(crate) fn given(&self) -> Given<'a> {
        match &self.args.by_word {
            ByWord::Only(Some(word)) => Given::Word(word),
            ByWord::Only(None) => Given::NoWord,
            ByWord::OrYes if self.args.yes => Given::Yes,
            ByWord::OrYes => Given::Nothing,
        }
    }
}

/// The command that undoes a change (its number; none: the newest), for a person to run: with the
/// journal's name where it is another than this host's own.
pub(crate) fn undo_command(env: &Env, journal: &Path, argument: &str) -> String {
    let mut command = "stalltop undo".to_owned();
    if !argument.is_empty() {
        command += " ";
        command += argument;
    }
    if journal != Journal::path_for(env, None) {
        // It may be pasted into a shell that is elsewhere.
        let path = std::path::absolute(journal).unwrap_or_else(|_| journal.to_owned());
        command += &format!(" --journal {}", shell_word(&path.to_string_lossy()));
    }
    command
}

/// Plans a request, shows the plan, asks, and has it carried out and told of by `carry_out`.
pub(crate) fn change<'a>(
    request: &Request,
    args: &'a ChangeArgs,
    carry_out: impl FnOnce(&Desk<'a>, &Plan) -> ExitCode,
) -> anyhow::Result<ExitCode> {
    let planned = Desk::new(args).and_then(|desk| desk.plan(request).map(|plan| (desk, plan)));
    match planned {
        Ok((desk, plan)) => desk.decide(&plan, carry_out),
        Err(error) => Ok(refused(&error)),
    }
}

/// What the arguments say of a confirmation.
#[derive(Clone, Copy)]
pub(crate) enum Given<'a> {
    /// Nothing: a person is asked.
    Nothing,
    /// `--yes`.
    Yes,
    /// Nothing, and `--confirm` would have given the word: `--yes` is not for this.
    NoWord,
    /// `--confirm WORD`.
    Word(&'a str),
}

/// Asks for a confirmation, by a word where one is needed, unless it is `given`.
pub(crate) fn confirm(given: Given<'_>, word: Option<&str>) -> Result<(), ChangeError> {
    let not = |how: &str| Err(ChangeError::NotConfirmed { how: how.into() });
    match (given, word) {
        (Given::Yes, _) => return Ok(()),
        (Given::Word(given), Some(word)) if given == word => return Ok(()),
        (Given::Word(_), Some(word)) => {
            return not(&format!("the word is {word}, --confirm gave another one"));
        }
        _ => {}
    }
    if !io::stdin().is_terminal() {
        return match (given, word) {
            (Given::NoWord, Some(word)) => not(&format!(
                "there is no terminal to ask on; --confirm {} confirms",
                shell_word(word)
            )),
            _ => not("there is no terminal to ask on; --yes confirms"),
        };
    }
    let answer = match word {
        Some(word) => ask(&format!(
            "type {word} to go on, anything else leaves all as it is: "
        )),
        None => ask("go on? [y/N] "),
    };
    let yes = match word {
        Some(word) => answer == word,
        None => matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"),
    };
    if yes { Ok(()) } else { not("left as it is") }
}

/// Reads a journal; says on stderr what is wrong with it.
pub(crate) fn read_journal(env: &Env, path: &Path) -> Result<Journal, ChangeError> {
    let journal = Journal::read(env, path)?;
    for damage in journal.damage() {
        let what = if damage.torn {
            "was cut off while it was written; nothing was changed on its account"
        } else {
            "is damaged and not used; it stays in the file"
        };
        eprintln!(
            "stalltop: journal {}, line {}: {what} ({})",
            printable(&path.to_string_lossy()),
            damage.line,
            printable(&damage.why)
        );
    }
    Ok(journal)
}

/// Prints a line. A reader that went away does not stop a change half-way.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Asks on the terminal; no answer is an empty one.
pub(crate) fn ask(question: &str) -> String {
    eprint!("{question}");
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer).is_err() {
        answer.clear();
    }
    answer.trim().to_owned()
}

fn print_plan(out: &mut impl io::Write, plan: &Plan, limit: usize) -> io::Result<()> {
    writeln!(out, "{}", printable(&plan.title))?;
    let shown = &plan.writes[..plan.writes.len().min(limit)];
    let commands: Vec<Vec<String>> = shown.iter().map(Write::commands).collect();
    let width = commands
        .iter()
        .flatten()
        .map(String::len)
        .filter(|w| *w <= WIDEST)
        .max()
        .unwrap_or(0);
    for (write, commands) in shown.iter().zip(&commands) {
        for (n, command) in commands.iter().enumerate() {
            // What is confirmed is shown in full.
            let command = escaped(command);
            match effect(write).filter(|_| n + 1 == commands.len()) {
                Some(effect) => writeln!(out, "  {command:<width$}   {effect}")?,
                None => writeln!(out, "  {command}")?,
            }
        }
    }
    if plan.writes.len() > shown.len() {
        let more = plan.writes.len() - shown.len();
        writeln!(out, "  and {more} more (--dry-run shows all)")?;
    }
    for note in &plan.notes {
        writeln!(out, "  {}", printable(note))?;
    }
    for left in &plan.left {
        writeln!(
            out,
            "  left: {}: {}",
            printable(&left.what),
            printable(&left.why)
        )?;
    }
    Ok(())
}

/// `1 -> 0`, where the values are short; that an event is made or removed needs no more.
fn effect(write: &Write) -> Option<String> {
    let (before, after) = (write.before.as_deref()?, write.after.as_deref()?);
    if write.item.is_some() {
        return Some(
            if after.is_empty() {
                "removed"
            } else {
                "made again"
            }
            .to_owned(),
        );
    }
    let show = |value: &str| match value {
        "" => "(none)".to_owned(),
        value => printable(&value.replace('\n', "; ")).into_owned(),
    };
    Some(format!("{} -> {}", show(before), show(after)))
}

/// Says why not; gives the exit status.
pub(crate) fn refused(error: &ChangeError) -> ExitCode {
    eprintln!("stalltop: {}", escaped(&error.to_string()));
    ExitCode::from(status_of(error))
}

/// 2 for what was asked, 3 for nothing to do, 1 for the rest.
fn status_of(error: &ChangeError) -> u8 {
    match error {
        ChangeError::BadSelector { .. } | ChangeError::NothingMatches { .. } => 2,
        ChangeError::NothingToDo { .. } => NOTHING_TO_DO,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stalltop_model::change::{Left, OpenMode};

    #[test]
    fn a_plan_reads_as_commands_and_is_harmless_to_a_terminal() {
        let write = |path: &str| Write {
            path: path.into(),
            mode: OpenMode::Truncate,
            value: "0".into(),
            item: None,
            before: Some("1".into()),
            after: Some("0".into()),
            kept: Vec::new(),
            undo: Vec::new(),
        };
        let plan = Plan {
            request: Request::Off {
                selector: "a:*".into(),
            },
            title: "switch off 2 events\x1b[2J".into(),
            writes: vec![write("/t/a"), write("/t/longer")],
            undo: UndoClass::Exact,
            notes: vec!["note".into()],
            left: vec![Left {
                what: "x".into(),
                why: "held\nby".into(),
            }],
            confirm_word: None,
        };
        let mut out = Vec::new();
        print_plan(&mut out, &plan, 1).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "switch off 2 events^[[2J\n\
             \x20 echo 0 > /t/a   1 -> 0\n\
             \x20 and 1 more (--dry-run shows all)\n\
             \x20 note\n\
             \x20 left: x: held^Jby\n"
        );
        let mut out = Vec::new();
        print_plan(&mut out, &plan, 9).unwrap();
        assert!(
            String::from_utf8(out)
                .unwrap()
                .contains("  echo 0 > /t/a        1 -> 0\n")
        );
    }

    #[test]
    fn a_word_is_confirmed_by_that_word_only() {
        let word = Some("netdata");
        assert!(confirm(Given::Yes, word).is_ok());
        assert!(confirm(Given::Word("netdata"), word).is_ok());
        for other in ["", "yes", "Netdata", "netdata "] {
            let error = confirm(Given::Word(other), word).unwrap_err().to_string();
            assert!(error.contains("the word is netdata"), "{error}");
        }
    }

    #[test]
    fn exit_statuses() {
        let name = || "x".into();
        let bad = ChangeError::BadSelector {
            selector: name(),
            why: name(),
        };
        assert_eq!(status_of(&bad), 2);
        assert_eq!(status_of(&ChangeError::NothingToDo { why: name() }), 3);
        assert_eq!(status_of(&ChangeError::NotConfirmed { how: name() }), 1);
    }
}
