//! Any command by a few letters of its name.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::action::{ACTIONS, Action, ActionId, Context};
use crate::draw::{self, Pen};
use crate::key::{Key, KeyCode};
use crate::keymap::Keymap;
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::Answer;

/// What was typed, and which of the commands that match is chosen.
#[derive(Debug)]
pub(crate) struct Palette {
    stack: &'static [Context],
    typed: String,
    /// None until somebody moves to one, where no command's name has the letters: Enter must
    /// not do what only a word of its description is like.
    chosen: Option<usize>,
}

impl Palette {
    pub(super) fn new(stack: &'static [Context]) -> Self {
        Self {
            stack,
            typed: String::new(),
            chosen: Some(0),
        }
    }

    /// What is chosen once something was typed: the best match, if it matches by name.
    fn choose(&mut self) {
        let best = self.found();
        let named = |a: &&&Action| score(a.name, &self.typed).is_some();
        self.chosen = best.first().filter(named).map(|_| 0);
    }

    /// The commands that match, the best first.
    fn found(&self) -> Vec<&'static Action> {
        let mut found: Vec<(bool, u32, &Action)> = ACTIONS
            .iter()
            .filter(|a| a.id != ActionId::Palette && a.id != ActionId::Close)
            .filter(|a| a.contexts.iter().any(|c| self.stack.contains(c)))
            .filter_map(|a| {
                let by_name = score(a.name, &self.typed);
                let by_doc = score(a.doc, &self.typed);
                Some((by_name.is_some(), by_name.or(by_doc)?, a))
            })
            .collect();
        found.sort_by_key(|(named, score, a)| (std::cmp::Reverse((*named, *score)), a.id as usize));
        found.into_iter().map(|(_, _, a)| a).collect()
    }

    pub(super) fn step(&mut self, action: ActionId) -> bool {
        let last = self.found().len().saturating_sub(1);
        self.chosen = Some(match action {
            ActionId::Up => self.chosen.map_or(0, |chosen| chosen.saturating_sub(1)),
            ActionId::Down => self.chosen.map_or(0, |chosen| (chosen + 1).min(last)),
            _ => return false,
        });
        true
    }

    pub(super) fn key(&mut self, key: Key, keymap: &Keymap) -> Answer {
        match key.code {
            KeyCode::Up => drop(self.step(ActionId::Up)),
            KeyCode::Down => drop(self.step(ActionId::Down)),
            KeyCode::Enter => {
                let found = self.found();
                return match self.chosen.and_then(|chosen| found.get(chosen)) {
                    Some(action) => Answer::Run(action.id),
                    None => Answer::Stay,
                };
            }
            KeyCode::Backspace => {
                if self.typed.pop().is_none() {
                    return Answer::Close;
                }
                self.choose();
            }
            _ => {
                if let Some(c) = key.typed() {
                    if self.typed.chars().count() < 60 {
                        self.typed.push(c);
                    }
                    self.choose();
                } else if keymap.find(&[Context::Dialog], key) == Some(ActionId::Close) {
                    return Answer::Close;
                }
            }
        }
        Answer::Stay
    }

    pub(super) fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let found = self.found();
        let width = area.width.saturating_sub(4).min(90);
        let height = area.height.min(18);
        let inner = draw::popup(buf, scene.theme, area, (width, height), "Command");
        let mut pen = Pen::new(buf, scene.theme, inner, 0);
        pen.put(":", Role::Strong)
            .put(&format!("{}▏", self.typed), Role::Input);
        let rows = usize::from(inner.height.saturating_sub(2));
        let top = self
            .chosen
            .map_or(0, |chosen| (chosen + 1).saturating_sub(rows));
        for (y, (i, action)) in (2u16..).zip(found.iter().enumerate().skip(top).take(rows)) {
            let key = scene.key(self.stack, action.id);
            let mut pen = Pen::new(buf, scene.theme, inner, y);
            let chosen = self.chosen == Some(i);
            pen.put(if chosen { "▸ " } else { "  " }, Role::Strong);
            name(&mut pen, action.name, &self.typed);
            pen.gap(18usize.saturating_sub(text::width(action.name)))
                .left(&key, 10, Role::Dim)
                .put(action.doc, Role::Dim);
            if chosen {
                draw::highlight(buf, scene.theme, inner, y, Role::Cursor);
            }
        }
        if found.is_empty() {
            Pen::new(buf, scene.theme, inner, 2).put("no command is called that", Role::Dim);
        }
    }
}

/// The name, with the letters that matched marked.
fn name(pen: &mut Pen<'_>, name: &str, typed: &str) {
    let mut wanted = typed.chars().filter(|c| *c != ' ').peekable();
    let all = score(name, typed).is_some();
    let mut bytes = [0; 4];
    for c in name.chars() {
        let hit = all && wanted.next_if(|w| w.eq_ignore_ascii_case(&c)).is_some();
        pen.put(
            c.encode_utf8(&mut bytes),
            if hit { Role::Match } else { Role::Strong },
        );
    }
}

/// How well the letters of `typed` are found in `text`, in order; `None` if they are not.
/// Letters in a row and at beginnings of words count more, early ones too.
fn score(text: &str, typed: &str) -> Option<u32> {
    let mut total = 100u32;
    let mut chars = text.chars().enumerate();
    let mut before = ' ';
    let mut run = 0;
    for wanted in typed.chars().filter(|c| *c != ' ') {
        loop {
            let (at, c) = chars.next()?;
            let begins = !before.is_alphanumeric();
            before = c;
            if !c.eq_ignore_ascii_case(&wanted) {
                run = 0;
                continue;
            }
            run += 1;
            total += 4 * run + if begins { 12 } else { 0 } + 8u32.saturating_sub(at as u32);
            break;
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_win() {
        let mut palette = Palette::new(crate::pane::PaneId::Tracing.info().stack);
        palette.typed = "th".into();
        assert_eq!(palette.found()[0].name, "theme");
        palette.typed = "cse".into();
        assert_eq!(palette.found()[0].name, "clear-set-event");
        palette.typed = "zzz".into();
        assert!(palette.found().is_empty());
        palette.typed.clear();
        assert!(palette.found().len() > 30);
    }

    #[test]
    fn enter_runs_nothing_that_only_a_description_is_like() {
        let mut palette = Palette::new(crate::pane::PaneId::Overview.info().stack);
        let keymap = Keymap::builtin().unwrap();
        let mut typed = |text: &str| {
            for c in text.chars() {
                palette.key(Key::plain(KeyCode::Char(c)), &keymap);
            }
            let run = palette.key(Key::plain(KeyCode::Enter), &keymap);
            palette.typed.clear();
            matches!(run, Answer::Run(_))
        };
        assert!(typed("theme"));
        // `heat` is a command of the Cores pane alone.
        assert!(!typed("heat"));
    }

    #[test]
    fn letters_must_be_in_order() {
        assert!(score("sort", "st").is_some());
        assert!(score("sort", "ts").is_none());
        assert!(score("kprobes", "k") > score("back", "k"));
    }
}
