//! Keys and the mouse: who takes them.

use stalltop_model::Model;

use super::App;
use crate::action::{ACTIONS, ActionId, Context};
use crate::chrome::{self, Status};
use crate::dialog::{Answer, Dialog};
use crate::key::{Key, KeyCode};
use crate::msg::{Effect, Effects, Mouse, MouseKind};
use crate::theme::Role;

impl App {
    pub(super) fn key(&mut self, key: Key, model: &Model) -> Effects {
        self.status = None;
        if let Some(ActionId::QuitNow) = self.options.keymap.find(&[Context::Everywhere], key) {
            return Effects::one(Effect::Quit);
        }
        if self.dialog.is_some() {
            return self.dialog_key(key, model);
        }
        if self.typing {
            return self.type_filter(key, model);
        }
        match self.options.keymap.find(self.stack(), key) {
            Some(action) => self.act(action, model),
            None => {
                self.status = self.elsewhere(key);
                Effects::redraw()
            }
        }
    }

    /// Where a key that does nothing here does something.
    fn elsewhere(&self, key: Key) -> Option<Status> {
        let keymap = &self.options.keymap;
        let action = ACTIONS.iter().find(|a| keymap.keys(a.id).contains(&key))?;
        let places: Vec<&str> = action.contexts.iter().map(|c| c.title()).collect();
        let text = format!("{key} {}: only in {}", action.name, places.join(", "));
        Some(Status::new(Role::Notice, text))
    }

    fn dialog_key(&mut self, key: Key, model: &Model) -> Effects {
        let keymap = &self.options.keymap;
        let Some(dialog) = &mut self.dialog else {
            return Effects::none();
        };
        match dialog.key(key, keymap, self.panes.get(self.open).stack()) {
            Answer::Stay => Effects::redraw(),
            Answer::Close => {
                if let Some(Dialog::Change(change)) = self.dialog.take() {
                    self.going_on.extend(change.left_alone());
                }
                Effects::redraw()
            }
            Answer::Run(action) => {
                self.dialog = None;
                self.act(action, model)
            }
            Answer::Plan(request) => self.plan(request),
            Answer::Effect(effect) => Effects::one(effect),
        }
    }

    fn type_filter(&mut self, key: Key, model: &Model) -> Effects {
        let mut done = false;
        let mut moved = None;
        self.on_pane(model, |pane, scene| {
            let Some(filter) = pane.filter() else {
                done = true;
                return;
            };
            match key.code {
                KeyCode::Enter => done = true,
                KeyCode::Esc => {
                    filter.clear();
                    done = true;
                }
                KeyCode::Backspace => {
                    filter.pop();
                }
                KeyCode::Up => moved = Some(ActionId::Up),
                KeyCode::Down => moved = Some(ActionId::Down),
                _ => {
                    if let Some(c) = key.typed()
                        && filter.chars().count() < 100
                    {
                        filter.push(c);
                    }
                }
            }
            match moved {
                Some(action) => {
                    pane.update(action, scene);
                }
                None => pane.refresh(scene),
            }
        });
        self.typing &= !done;
        Effects::redraw()
    }

    pub(super) fn mouse(&mut self, mouse: Mouse, model: &Model) -> Effects {
        if let Some(dialog) = &mut self.dialog {
            return dialog.wheel(mouse.kind);
        }
        let tab = chrome::tab_at(self.size, mouse.column, mouse.row, &self.scene(model));
        match (mouse.kind, tab) {
            (MouseKind::Press, Some(pane)) => self.switch(pane, model),
            _ => {
                let reply = self.on_pane(model, |pane, scene| pane.mouse(mouse, scene));
                self.take(reply, model)
            }
        }
    }
}
