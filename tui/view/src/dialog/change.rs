//! A change to the host, from the question to the answer.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::change::{ChangeError, OpenMode, Plan, Request, UndoClass};
use stalltop_model::printable;

use crate::action::{ActionId, Context};
use crate::chrome;
use crate::key::{Key, KeyCode};
use crate::keymap::Keymap;
use crate::msg::{Effect, Progress};
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::{Answer, Scroll, moving, paper};

/// What was asked, how far it is, and the part of it that is in view.
#[derive(Debug)]
pub(crate) struct Change {
    request: Request,
    stage: Stage,
    scroll: Scroll,
}

#[derive(Debug)]
enum Stage {
    /// The host is being read.
    Planning,
    /// What would be written is on the screen.
    Asking {
        plan: Box<Plan>,
        typed: String,
        /// What was typed is not the word that was asked for.
        wrong: bool,
    },
    /// It is being written.
    Applying {
        plan: Box<Plan>,
        progress: Option<Progress>,
    },
    /// It could not be planned or done.
    Refused(ChangeError),
}

impl Change {
    pub(super) fn new(request: Request) -> Self {
        Self {
            request,
            stage: Stage::Planning,
            scroll: Scroll::default(),
        }
    }

    /// Whether it waits for a person's decision.
    pub(crate) fn asks(&self) -> bool {
        matches!(self.stage, Stage::Asking { .. })
    }

    /// Takes a plan, if it is the one that was asked for.
    pub(crate) fn planned(&mut self, request: &Request, result: Result<Box<Plan>, ChangeError>) {
        if *request == self.request && matches!(self.stage, Stage::Planning) {
            self.stage = match result {
                Ok(plan) => Stage::Asking {
                    plan,
                    typed: String::new(),
                    wrong: false,
                },
                Err(error) => Stage::Refused(error),
            };
        }
    }

    /// Takes news of the writes.
    pub(crate) fn progress(&mut self, news: Progress) {
        if let Stage::Applying { progress, .. } = &mut self.stage {
            *progress = Some(news);
        }
    }

    /// It could not be done.
    pub(crate) fn failed(&mut self, error: ChangeError) {
        self.stage = Stage::Refused(error);
    }

    pub(super) fn scroll(&mut self, action: ActionId) -> bool {
        self.scroll.act(action)
    }

    /// Whether going on in spite of a refusal makes sense: an undo whose value has moved.
    fn forceable(&self) -> Option<Request> {
        match (&self.stage, &self.request) {
            (
                Stage::Refused(ChangeError::Moved { .. } | ChangeError::KeptMoved { .. }),
                Request::Undo {
                    entry,
                    force: false,
                },
            ) => Some(Request::Undo {
                entry: *entry,
                force: true,
            }),
            _ => None,
        }
    }

    pub(super) fn key(&mut self, key: Key, keymap: &Keymap) -> Answer {
        let confirm = keymap.find(&[Context::Confirm], key) == Some(ActionId::Confirm);
        let close = keymap.find(&[Context::Dialog], key) == Some(ActionId::Close);
        if close {
            // What is being written goes on; its result will be told in the footer.
            return Answer::Close;
        }
        if confirm && let Some(request) = self.forceable() {
            self.request = request.clone();
            self.stage = Stage::Planning;
            return Answer::Effect(Effect::Plan(request));
        }
        match &mut self.stage {
            Stage::Asking { plan, typed, wrong } => {
                if let Some(word) = &plan.confirm_word
                    && !confirm
                {
                    *wrong = false;
                    match (key.code, key.typed()) {
                        (KeyCode::Backspace, _) => drop(typed.pop()),
                        (_, Some(c)) if typed.chars().count() < word.chars().count() + 8 => {
                            typed.push(c);
                        }
                        // Letters belong to the word here: only the arrows and pages move.
                        (_, None) => {
                            if let Some(action) = moving(key, keymap) {
                                self.scroll.act(action);
                            }
                        }
                        _ => {}
                    }
                    return Answer::Stay;
                }
                if !confirm {
                    if let Some(action) = moving(key, keymap) {
                        self.scroll.act(action);
                    }
                    return Answer::Stay;
                }
                if plan
                    .confirm_word
                    .as_deref()
                    .is_some_and(|word| word != typed)
                {
                    *wrong = true;
                    return Answer::Stay;
                }
                let plan = plan.clone();
                self.stage = Stage::Applying {
                    plan: plan.clone(),
                    progress: None,
                };
                Answer::Effect(Effect::Apply(plan))
            }
            Stage::Refused(_) if confirm => Answer::Close,
            _ => {
                if let Some(action) = moving(key, keymap) {
                    self.scroll.act(action);
                }
                Answer::Stay
            }
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
        let (title, lines, foot) = match &self.stage {
            Stage::Planning => (
                "Reading what is there".to_owned(),
                vec![(describe(&self.request), Role::Text)],
                close,
            ),
            Stage::Asking { plan, typed, wrong } => (
                title(plan),
                plan_lines(plan, usize::from(area.width).saturating_sub(8)),
                question(plan, (typed, *wrong), [&enter, &esc, &undo]),
            ),
            Stage::Applying { plan, progress } => {
                let news = progress.as_ref().map_or_else(
                    || "writing, then reading back …".to_owned(),
                    chrome::progress,
                );
                let news = match plan.request {
                    Request::Stop { .. } => {
                        "waiting for it to exit, then looking at what went …".into()
                    }
                    _ => news,
                };
                let leave =
                    format!("{esc} leaves it to go on by itself; its end is told in the footer");
                (
                    title(plan),
                    vec![(news, Role::Strong)],
                    vec![(String::new(), Role::Text), (leave, Role::Dim)],
                )
            }
            Stage::Refused(error) => {
                let lines = refusal(&self.request, error);
                let foot = match self.forceable() {
                    Some(_) => {
                        let forced = match error {
                            ChangeError::KeptMoved { .. } => {
                                "put back the switch alone, that file stays"
                            }
                            _ => "put the recorded value back all the same",
                        };
                        vec![
                            (String::new(), Role::Text),
                            (
                                format!("{enter} {forced}      {esc} leave as it is"),
                                Role::DialogDanger,
                            ),
                        ]
                    }
                    None => close,
                };
                ("Not done".to_owned(), lines, foot)
            }
        };
        paper(scene, area, buf, (&title, &lines, &foot), &self.scroll);
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
        _ if matches!(plan.request, Request::Undo { .. }) => {
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

/// Why it was not done.
fn refusal(request: &Request, error: &ChangeError) -> Vec<(String, Role)> {
    let mut lines = vec![(describe(request), Role::Dim), (String::new(), Role::Text)];
    match error {
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
            lines.push(("nothing was written".into(), Role::Text));
            if matches!(error, ChangeError::KeptMoved { .. }) {
                lines.push((
                    "stalltop did not write that file, and undo leaves it as it is now".into(),
                    Role::Text,
                ));
            }
        }
        ChangeError::Missing(reason) => {
            lines.push((printable(&reason.to_string()).into_owned(), Role::Warning));
            lines.push((
                format!("fix: {}", printable(&reason.fix())),
                Role::DialogCode,
            ));
        }
        ChangeError::Instead { reason, instead } => {
            lines.push((printable(&reason.to_string()).into_owned(), Role::Warning));
            lines.push((format!("fix: {}", printable(&reason.fix())), Role::Text));
            lines.push((format!("instead: {}", printable(instead)), Role::DialogCode));
        }
        other => lines.push((printable(&other.to_string()).into_owned(), Role::Warning)),
    }
    lines
}

fn title(plan: &Plan) -> String {
    let title = printable(&plan.title);
    let mut chars = title.chars();
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
    let commands: Vec<String> = plan
        .writes
        .iter()
        .map(|w| printable(&w.command()).into_owned())
        .collect();
    let longest = commands
        .iter()
        .map(|c| text::width(c))
        .max()
        .unwrap_or(0)
        // Room for the arrow with short values on either side.
        .min(width.saturating_sub(12));
    for (write, command) in plan.writes.iter().zip(commands) {
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
        lines.push((
            format!(
                "{}   {change}",
                text::left(&command, longest.max(text::width(&command)))
            ),
            Role::DialogCode,
        ));
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
