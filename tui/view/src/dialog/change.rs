//! A change to the host, from the question to the answer.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::change::{ChangeError, Failure, OpenMode, Plan, Request, UndoClass, Write};
use stalltop_model::{escaped, printable};

use crate::action::{ActionId, Context};
use crate::chrome;
use crate::job::{self, Job, JobState, WayOn};
use crate::key::{Key, KeyCode};
use crate::keymap::Keymap;
use crate::msg::Progress;
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::{Answer, Scroll, moving, paper};

/// A change, what was typed to confirm it, and the part of it that is in view.
#[derive(Debug)]
pub(crate) struct Change {
    pub job: Job,
    typed: String,
    /// What was typed is not the word that was asked for.
    wrong: bool,
    scroll: Scroll,
}

impl Change {
    pub(super) fn new(job: Job) -> Self {
        Self {
            job,
            typed: String::new(),
            wrong: false,
            scroll: Scroll::default(),
        }
    }

    /// Whether it waits for a person's decision.
    pub(crate) fn asks(&self) -> bool {
        matches!(self.job.state, JobState::Asking(_))
    }

    /// What goes on without the dialog: its result will be told in the footer.
    pub(crate) fn left_alone(self) -> Option<Job> {
        matches!(self.job.state, JobState::Applying { .. }).then_some(self.job)
    }

    pub(super) fn scroll(&mut self, action: ActionId) -> bool {
        self.scroll.act(action)
    }

    pub(super) fn key(&mut self, key: Key, keymap: &Keymap) -> Answer {
        if keymap.find(&[Context::Dialog], key) == Some(ActionId::Close) {
            return Answer::Close;
        }
        let confirm = keymap.find(&[Context::Confirm], key) == Some(ActionId::Confirm);
        match &self.job.state {
            JobState::Asking(plan) => {
                if let Some(word) = plan.confirm_word.as_deref() {
                    if !confirm {
                        self.wrong = false;
                        match (key.code, key.typed()) {
                            (KeyCode::Backspace, _) => drop(self.typed.pop()),
                            (_, Some(c))
                                if self.typed.chars().count() < word.chars().count() + 8 =>
                            {
                                self.typed.push(c);
                            }
                            // Letters belong to the word here: only the arrows and pages move.
                            (_, None) => self.move_by(key, keymap),
                            _ => {}
                        }
                        return Answer::Stay;
                    }
                    self.wrong = word != self.typed;
                }
                if confirm && !self.wrong {
                    return self.job.apply().map_or(Answer::Stay, Answer::Effect);
                }
            }
            JobState::Failed(_) => {
                let undo = keymap.find(&[Context::Pane], key) == Some(ActionId::Undo);
                match self.job.way_on() {
                    Some(WayOn::Force(request)) if confirm => return Answer::Plan(request),
                    Some(WayOn::PutBack(request)) if undo => return Answer::Plan(request),
                    _ if confirm => return Answer::Close,
                    _ => {}
                }
            }
            JobState::Planning | JobState::Applying { .. } => {}
        }
        self.move_by(key, keymap);
        Answer::Stay
    }

    fn move_by(&mut self, key: Key, keymap: &Keymap) {
        if let Some(action) = moving(key, keymap) {
            self.scroll.act(action);
        }
    }

    pub(super) fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let stack = [Context::Confirm, Context::Dialog];
        let enter = scene.key(&stack, ActionId::Confirm);
        let esc = scene.key(&stack, ActionId::Close);
        let undo = scene.key(&[Context::Pane], ActionId::Undo);
        let close = vec![
            (String::new(), Role::Text),
            (format!("{esc} close"), Role::Strong),
        ];
        let (title, lines, foot) = match &self.job.state {
            JobState::Planning => (
                "Reading what is there".to_owned(),
                vec![(describe(&self.job.request), Role::Text)],
                close,
            ),
            JobState::Asking(plan) => (
                capital(&plan.title),
                plan_lines(plan, usize::from(area.width).saturating_sub(8)),
                question(plan, (&self.typed, self.wrong), [&enter, &esc, &undo]),
            ),
            JobState::Applying { plan, progress } => {
                let leave =
                    format!("{esc} leaves it to go on by itself; its end is told in the footer");
                (
                    capital(&plan.title),
                    vec![(goes_on(plan, progress.as_ref()), Role::Strong)],
                    vec![(String::new(), Role::Text), (leave, Role::Dim)],
                )
            }
            JobState::Failed(failure) => {
                let how = failure.entry.as_deref().and_then(job::stopped);
                let title = how
                    .as_deref()
                    .map_or_else(|| "Not done".to_owned(), capital);
                let way = self.job.way_on().map(|way| match way {
                    WayOn::Force(_) if matches!(failure.error, ChangeError::KeptMoved { .. }) => {
                        format!("{enter} put back the switch alone, that file stays")
                    }
                    WayOn::Force(_) => format!("{enter} put the recorded value back all the same"),
                    WayOn::PutBack(Request::Undo {
                        entry: Some(id), ..
                    }) if failure.entry.as_ref().is_some_and(|e| e.id == id) => {
                        format!("{undo} undo what was written (`stalltop undo {id}`)")
                    }
                    WayOn::PutBack(_) => format!("{undo} go on with the undo"),
                });
                let foot = match way {
                    Some(way) => vec![
                        (String::new(), Role::Text),
                        (
                            format!("{way}      {esc} leave as it is"),
                            Role::DialogDanger,
                        ),
                    ],
                    None => close,
                };
                (title, failed(&self.job.request, failure), foot)
            }
        };
        paper(scene, area, buf, (&title, &lines, &foot), &self.scroll);
    }
}

/// What is being waited for.
fn goes_on(plan: &Plan, progress: Option<&Progress>) -> String {
    match (&plan.request, progress) {
        (Request::Stop { .. }, _) => "waiting for it to exit, then looking at what went …".into(),
        (_, Some(progress)) => chrome::progress(progress),
        (Request::DropCaches { .. }, None) => {
            "the kernel drops, which cannot be cut short …".into()
        }
        (_, None) => "writing, then reading back …".into(),
    }
}

/// Whether it can be undone, and what has to be pressed or typed.
fn question(
    plan: &Plan,
    (typed, wrong): (&str, bool),
    [enter, esc, undo]: [&str; 3],
) -> Vec<(String, Role)> {
    let mut lines = vec![(String::new(), Role::Text)];
    lines.push(match plan.undo {
        _ if plan.puts_back() => {
            (
                "puts back what was there; to go back, switch it again".into(),
                Role::Text,
            )
        }
        UndoClass::Exact => (
            format!("can be undone: {undo} here, or `stalltop undo` from any shell; the journal is written first"),
            Role::Ok,
        ),
        UndoClass::Partial => (
            format!("can be undone but for what the kernel forgets: {undo}, or `stalltop undo` from any shell"),
            Role::Warning,
        ),
        UndoClass::Never => ("cannot be undone".into(), Role::DialogDanger),
    });
    lines.push((String::new(), Role::Text));
    match &plan.confirm_word {
        Some(word) => {
            let word = printable(word);
            lines.push(match wrong {
                true => (
                    format!("that is not the word: type {word} and press {enter}, or {esc}"),
                    Role::DialogDanger,
                ),
                false => (
                    format!("type {word} and press {enter} to do it, {esc} leaves all as it is"),
                    Role::Text,
                ),
            });
            lines.push((format!("> {}▏", printable(typed)), Role::Input));
        }
        None => lines.push((
            format!("{enter} do it      {esc} leave as it is"),
            Role::Strong,
        )),
    }
    lines
}

/// Why it was not done, or not all of it, and what is in effect then.
fn failed(request: &Request, failure: &Failure) -> Vec<(String, Role)> {
    let mut lines = vec![(describe(request), Role::Dim), (String::new(), Role::Text)];
    let entry = failure.entry.as_deref();
    let written = entry.map_or(0, job::written);
    match &failure.error {
        ChangeError::Moved {
            path,
            expected,
            found,
        }
        | ChangeError::KeptMoved {
            path,
            expected,
            found,
        } => {
            lines.push((
                format!("{} has changed since", printable(path)),
                Role::Warning,
            ));
            lines.push((format!("  expected  {:?}", printable(expected)), Role::Text));
            lines.push((format!("  found     {:?}", printable(found)), Role::Text));
            if written == 0 {
                lines.push(("nothing was written".into(), Role::Text));
            }
            if matches!(failure.error, ChangeError::KeptMoved { .. }) {
                lines.push((
                    "stalltop did not write that file, and undo leaves it as it is now".into(),
                    Role::Text,
                ));
            }
        }
        ChangeError::Missing(reason) => {
            lines.push((printable(&reason.to_string()).into_owned(), Role::Warning));
            lines.push((format!("fix: {}", escaped(&reason.fix())), Role::DialogCode));
        }
        ChangeError::Instead { reason, instead } => {
            lines.push((printable(&reason.to_string()).into_owned(), Role::Warning));
            lines.push((format!("fix: {}", escaped(&reason.fix())), Role::Text));
            lines.push((format!("instead: {}", escaped(instead)), Role::DialogCode));
        }
        other => lines.push((escaped(&other.to_string()).into_owned(), Role::Warning)),
    }
    if let Some(entry) = entry
        && written > 0
    {
        let (done, not) = entry.plan.writes.split_at(written);
        for (what, writes) in [("in effect:", done), ("not written:", not)] {
            if !writes.is_empty() {
                lines.push((String::new(), Role::Text));
                lines.push((what.into(), Role::Dim));
            }
            let commands = writes.iter().flat_map(Write::commands);
            lines.extend(commands.map(|c| (format!("  {}", escaped(&c)), Role::DialogCode)));
        }
    }
    lines
}

/// A line's beginning with a capital letter.
fn capital(line: &str) -> String {
    let line = printable(line);
    let mut chars = line.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// What was asked, in words.
fn describe(request: &Request) -> String {
    match request {
        Request::Off { selector } => format!("switch off {}", printable(selector)),
        Request::On {
            selector,
            force: false,
        } => format!("switch {} back on", printable(selector)),
        Request::On { selector, .. } => format!("switch {} on", printable(selector)),
        Request::Remove { selector } => format!("remove {}", printable(selector)),
        Request::DropCaches { level: None } => "drop caches, with the value that fits".into(),
        Request::DropCaches { level: Some(n) } => format!("drop caches, value {n}"),
        Request::Stop { pid, .. } => format!("stop process {pid}"),
        Request::Undo { entry: None, .. } => "undo the last change".into(),
        Request::Undo { entry: Some(n), .. } => format!("undo change {n}"),
    }
}

/// Commands, before and after, notes, what is left.
fn plan_lines(plan: &Plan, width: usize) -> Vec<(String, Role)> {
    let mut lines = Vec::new();
    // What is confirmed is shown in full.
    let commands: Vec<Vec<String>> = plan.writes.iter().map(Write::commands).collect();
    let longest = commands
        .iter()
        .flatten()
        .map(|c| text::width(c))
        .max()
        .unwrap_or(0)
        // Room for the arrow with short values on either side.
        .min(width.saturating_sub(12));
    for (write, commands) in plan.writes.iter().zip(commands) {
        let value = |v: &Option<stalltop_model::Name>| match v {
            None => "?".to_owned(),
            Some(v) if v.is_empty() => "(nothing)".to_owned(),
            Some(v) => text::name(v, 30).into_owned(),
        };
        let change = match (write.mode, &write.before, &write.after) {
            (OpenMode::Mount | OpenMode::Unmount | OpenMode::Signal, ..) | (_, None, None) => {
                String::new()
            }
            (_, before, after) => format!("{} → {}", value(before), value(after)),
        };
        let last = commands.len().saturating_sub(1);
        for (n, command) in commands.iter().enumerate() {
            let command = escaped(command);
            let line = match n == last {
                true => {
                    let wide = longest.max(text::width(&command));
                    format!("{}   {change}", text::left(&command, wide))
                }
                false => command.into_owned(),
            };
            lines.push((line, Role::DialogCode));
        }
    }
    for note in &plan.notes {
        lines.push((format!("  · {}", printable(note)), Role::Text));
    }
    if !plan.left.is_empty() {
        lines.push(("left as it is:".into(), Role::Dim));
        for left in &plan.left {
            lines.push((
                format!("  {}: {}", printable(&left.what), printable(&left.why)),
                Role::Text,
            ));
        }
    }
    lines
}
