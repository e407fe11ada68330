//! Leaving: what is being written is waited for, and who leaves is told what stays.

use std::io::Write as _;

use stalltop_collectors::Env;
use stalltop_collectors::change::Journal;
use stalltop_model::change::{Entry, Outcome, Plan, Standing};
use stalltop_model::printable;

use super::Ui;
use super::signals::{Signals, Told};
use super::worker::Done;
use crate::commands::undo_command;

impl Ui {
    /// Waits for what is being written, unless a second signal comes, and says what stays.
    pub(super) async fn leave(&mut self, signals: &mut Signals) {
        if let Some(line) = self.finishing() {
            say(&line);
        }
        // The threads end once nobody asks for more; then nothing more comes.
        (self.jobs, self.answers) = (None, None);
        while self.is_writing() {
            let done = tokio::select! {
                done = self.done.recv() => done,
                told = signals.next() => match told {
                    Told::End => break,
                    // One lost connection may say so more than once.
                    Told::Gone | Told::Resumed => continue,
                },
            };
            // A thread that failed answers nothing.
            let Some(done) = done else { break };
            self.ended(&done).iter().for_each(|line| say(line));
            self.done(done);
        }
        self.stays().iter().for_each(|line| say(line));
    }

    pub(super) fn is_writing(&self) -> bool {
        !self.writing.is_empty() || self.snapshot
    }

    /// What is waited for.
    pub(super) fn finishing(&self) -> Option<String> {
        let changes = self.writing.values().map(|plan| &*plan.title);
        let all: Vec<&str> = changes.chain(self.snapshot.then_some("files")).collect();
        let line = format!("finishing: {} (Ctrl-C does not wait)", all.join("; "));
        self.is_writing().then_some(line)
    }

    /// How something ended that was waited for.
    fn ended(&self, done: &Done) -> Vec<String> {
        match done {
            Done::Applied { job, result } => {
                let title = self.writing.get(job).map_or("", |plan| &plan.title);
                vec![match result {
                    Ok(_) => format!("done: {title}"),
                    Err(failure) => format!("{title}: {failure}"),
                }]
            }
            Done::Written(files) => {
                let line = |file: &Result<String, String>| match file {
                    Ok(path) => format!("written to {path}"),
                    Err(why) => why.clone(),
                };
                files.iter().map(line).collect()
            }
            Done::Msg(_) | Done::Journal(_) => Vec::new(),
        }
    }

    /// What this screen changed and leaves so, or did not see the end of.
    pub(super) fn stays(&self) -> Vec<String> {
        let changes = self.model.changes().iter();
        let made = changes.filter(|entry| self.made.contains(&entry.id));
        let cut_off = self.writing.values().map(|plan| self.cut_off(plan));
        let failed = self.failed.iter().cloned();
        made.filter_map(|entry| self.in_effect(entry))
            .chain(cut_off)
            .chain(failed)
            .collect()
    }

    /// What is known of a change whose end was not waited for.
    fn cut_off(&self, plan: &Plan) -> String {
        let ours = |e: &&Entry| e.outcome == Outcome::Intended && e.plan == *plan;
        let (undo, then) = match self.model.changes().iter().rev().find(ours) {
            Some(entry) if entry.standing().can_undo() => (
                self.undo(&entry.id.to_string()),
                "puts back what was written",
            ),
            _ => (self.undo("--list"), "says how far it came"),
        };
        format!("unfinished: {} ({undo} {then})", plan.title)
    }

    fn in_effect(&self, entry: &Entry) -> Option<String> {
        let title = &entry.plan.title;
        let what = match (entry.standing(), &entry.outcome) {
            (Standing::Part, Outcome::Failed { written, .. }) => {
                format!("{written} of {} writes: {title}", entry.plan.writes.len())
            }
            (standing, _) if standing.in_effect() => title.to_string(),
            _ => return None,
        };
        let undo = self.undo(&entry.id.to_string());
        Some(format!("still in effect: {what} ({undo})"))
    }

    fn undo(&self, argument: &str) -> String {
        let env = Env::live();
        let own = Journal::path_for(&env, None);
        undo_command(&env, self.journal.as_deref().unwrap_or(&own), argument)
    }
}

/// After a lost connection nobody reads it; the journal has it all the same.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", printable(line));
}
