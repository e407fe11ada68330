//! Pane 5: what traces this host, and for whom; switches for it, and what was switched.

mod cost;
mod draw;
mod facts;
mod journal;
mod switch;
mod tally;
mod tree;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::Model;
use stalltop_model::change::Request;

use crate::action::{ActionId, Context};
use crate::list::List;
use crate::msg::{Mouse, MouseKind};
use crate::pane::{Pane, PaneId, Reply, Scene, Wish};
use crate::theme::Role;
use journal::Journal;
pub(crate) use switch::{clear_events, kprobes_master, read_by};
pub(crate) use tally::Tally;
use tree::{Key, Order, Row};

/// Events and BPF programs of others that are on.
pub(crate) fn things_on(model: &Model) -> u64 {
    Tally::of(&model.now().tracing).total()
}

/// The pane.
#[derive(Debug, Default)]
pub(crate) struct Tracing {
    wish: tree::Wish,
    list: List<Key>,
    rows: Vec<Row>,
    changes: Option<Journal>,
}

impl Tracing {
    /// Opens the list of changes.
    pub(crate) fn open_changes(&mut self) {
        self.changes = Some(Journal::default());
    }

    /// Closes it.
    pub(crate) fn close_changes(&mut self) {
        self.changes = None;
    }

    fn selected(&self) -> Option<&Row> {
        self.rows.get(self.list.cursor())
    }

    fn rebuild(&mut self, scene: &Scene<'_>) {
        self.rows = tree::build(scene, &self.wish, &self.list);
        self.list
            .set(self.rows.iter().map(|r| r.key.clone()).collect());
    }

    /// Folds or unfolds the selected row; `false` if it is so already, or has nothing below.
    fn fold(&mut self, open: Option<bool>) -> bool {
        let Some((key, is_open)) = self.selected().and_then(|r| Some((r.key.clone(), r.open?)))
        else {
            return false;
        };
        if open == Some(is_open) {
            return false;
        }
        if !self.wish.toggled.remove(&key) {
            self.wish.toggled.insert(key);
        }
        true
    }

    fn fold_all(&mut self) {
        let open: Vec<Key> = self
            .rows
            .iter()
            .filter(|r| r.open == Some(true))
            .map(|r| r.key.clone())
            .collect();
        if open.is_empty() {
            self.wish.toggled.clear();
        } else {
            self.wish.toggled.extend(open);
        }
    }

    fn go_to_parent(&mut self) {
        let at = self.list.cursor();
        let Some(depth) = self.rows.get(at).map(|r| r.depth) else {
            return;
        };
        if let Some(parent) = self.rows[..at].iter().rposition(|r| r.depth < depth) {
            self.list.select(parent);
        }
    }

    /// Asks for the change that an action means on the selected row.
    fn ask(&self, action: ActionId, scene: &Scene<'_>) -> Reply {
        let asked = match action {
            ActionId::ClearSetEvent => clear_events(scene),
            ActionId::KprobesMaster => Ok(kprobes_master(scene)),
            _ => switch::request(action, self.selected(), scene),
        };
        match asked {
            Ok(request) => Reply::Wish(Wish::Plan(request)),
            Err(why) => Reply::Wish(Wish::Say(Role::Warning, why)),
        }
    }

    fn journal(&mut self, action: ActionId, scene: &Scene<'_>) -> Option<Reply> {
        let journal = self.changes.as_mut()?;
        Some(match action {
            ActionId::Close | ActionId::Changes | ActionId::Quit => {
                self.changes = None;
                Reply::Done
            }
            ActionId::Open => journal.chosen(scene.model).map_or(Reply::Done, |entry| {
                let verdict = scene.model.verdict(entry.id);
                Reply::Wish(Wish::Show(journal::story(entry, verdict)))
            }),
            ActionId::Undo => match journal.chosen(scene.model) {
                Some(entry) => Reply::Wish(Wish::Plan(Request::Undo {
                    entry: Some(entry.id),
                    force: false,
                })),
                None => Reply::Wish(Wish::Say(
                    Role::Warning,
                    "there is no change to undo".into(),
                )),
            },
            action if journal.list.act(action) => Reply::Done,
            _ => return None,
        })
    }
}

impl Pane for Tracing {
    fn refresh(&mut self, scene: &Scene<'_>) {
        self.list.tick();
        self.rebuild(scene);
        if let Some(journal) = &mut self.changes {
            journal.refresh(scene.model);
        }
    }

    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        if self.changes.is_some() {
            return self.journal(action, scene).unwrap_or(Reply::NotMine);
        }
        match action {
            ActionId::Open => {
                if !self.fold(None) {
                    return match self.selected() {
                        Some(row) => Reply::Wish(Wish::Show(facts::of(row, scene))),
                        None => Reply::Done,
                    };
                }
            }
            ActionId::Fold => {
                if !self.fold(Some(false)) {
                    self.go_to_parent();
                }
            }
            ActionId::Unfold => drop(self.fold(Some(true))),
            ActionId::FoldAll => self.fold_all(),
            ActionId::ShowOurs => self.wish.show_ours = !self.wish.show_ours,
            ActionId::ShowKprobes => self.wish.show_kprobes = !self.wish.show_kprobes,
            ActionId::Sort => {
                let at = Order::ALL.iter().position(|o| *o == self.wish.order);
                self.wish.order = Order::ALL[at.map_or(0, |at| (at + 1) % Order::ALL.len())];
                self.list.release();
            }
            ActionId::Reverse => {
                self.wish.reverse = !self.wish.reverse;
                self.list.release();
            }
            ActionId::NextMatch | ActionId::PreviousMatch => {
                let hits: Vec<bool> = self.rows.iter().map(|r| r.hit).collect();
                self.list.seek(action == ActionId::NextMatch, |row| {
                    hits.get(row) == Some(&true)
                });
            }
            ActionId::Close if !self.wish.filter.is_empty() => self.wish.filter.clear(),
            ActionId::Switch
            | ActionId::SwitchSystem
            | ActionId::ClearSetEvent
            | ActionId::KprobesMaster
            | ActionId::TracingOn
            | ActionId::Tracer
            | ActionId::Remove
            | ActionId::StopHolder => return self.ask(action, scene),
            action => {
                return if self.list.act(action) {
                    Reply::Done
                } else {
                    Reply::NotMine
                };
            }
        }
        self.rebuild(scene);
        Reply::Done
    }

    fn mouse(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply {
        match mouse.kind {
            MouseKind::WheelUp => self.update(ActionId::Up, scene),
            MouseKind::WheelDown => self.update(ActionId::Down, scene),
            MouseKind::Drag => Reply::Done,
            MouseKind::Press => {
                if let Some(journal) = &mut self.changes {
                    journal.list.click(mouse.column, mouse.row);
                    return Reply::Done;
                }
                let before = self.list.cursor();
                if self.list.click(mouse.column, mouse.row) && self.list.cursor() == before {
                    self.fold(None);
                    self.rebuild(scene);
                }
                Reply::Done
            }
        }
    }

    fn stack(&self) -> &'static [Context] {
        if self.changes.is_some() {
            &[Context::Journal, Context::Pane, Context::Everywhere]
        } else {
            PaneId::Tracing.info().stack
        }
    }

    fn filter(&mut self) -> Option<&mut String> {
        self.changes.is_none().then_some(&mut self.wish.filter)
    }

    fn filtered(&self) -> &str {
        &self.wish.filter
    }

    fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        match &self.changes {
            Some(journal) => journal.render(scene, area, buf),
            None => self.draw(scene, area, buf),
        }
    }
}
