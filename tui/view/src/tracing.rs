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
use stalltop_model::change::Request;

use crate::action::{ActionId, Context};
use crate::listing::{ListPane, Listing};
use crate::msg::{Mouse, MouseKind};
use crate::pane::{Pane, PaneId, Reply, Scene, Wish};
use crate::theme::Role;
use journal::Journal;
pub(crate) use switch::{clear_events, kprobes_master, read_by};
pub(crate) use tally::Tally;
use tree::Row;

/// Events and BPF programs of others that are on.
pub(crate) fn things_on(scene: &Scene<'_>) -> u64 {
    Tally::of(scene.tracing()).total()
}

/// The pane.
#[derive(Debug, Default)]
pub(crate) struct Tracing {
    list: Listing<Row>,
    extra: tree::Extra,
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

    /// Asks for the change that an action means on the selected row.
    fn ask(&self, action: ActionId, scene: &Scene<'_>) -> Reply {
        let asked = match action {
            ActionId::ClearSetEvent => clear_events(scene),
            ActionId::KprobesMaster => Ok(kprobes_master(scene)),
            _ => switch::request(action, self.list.selected(), scene),
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
            ActionId::Open => journal
                .chosen(scene.model)
                .map_or(Reply::Done, |entry| Reply::Wish(Wish::Story(entry.id))),
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

impl ListPane for Tracing {
    type Row = Row;

    fn listing(&mut self) -> &mut Listing<Row> {
        &mut self.list
    }

    fn rebuild(&mut self, scene: &Scene<'_>) {
        let rows = tree::build(scene, self.extra, &self.list);
        self.list.set(rows);
    }

    fn enter(&mut self, scene: &Scene<'_>) -> Reply {
        self.list.selected().map_or(Reply::Done, |row| {
            Reply::Wish(Wish::Show(facts::of(row, scene)))
        })
    }
}

impl Pane for Tracing {
    fn refresh(&mut self, scene: &Scene<'_>) {
        self.refresh_list(scene);
        if let Some(journal) = &mut self.changes {
            journal.refresh(scene.model);
        }
    }

    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        if self.changes.is_some() {
            return self.journal(action, scene).unwrap_or(Reply::NotMine);
        }
        match action {
            ActionId::ShowOurs => self.extra.ours = !self.extra.ours,
            ActionId::ShowKprobes => self.extra.kprobes = !self.extra.kprobes,
            ActionId::Switch
            | ActionId::SwitchSystem
            | ActionId::ClearSetEvent
            | ActionId::KprobesMaster
            | ActionId::TracingOn
            | ActionId::Tracer
            | ActionId::Remove
            | ActionId::StopHolder => return self.ask(action, scene),
            _ => return self.act_on_list(action, scene),
        }
        self.rebuild(scene);
        Reply::Done
    }

    fn mouse(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply {
        match (&mut self.changes, mouse.kind) {
            (None, _) => self.mouse_on_list(mouse, scene),
            (Some(journal), MouseKind::Press) => {
                journal.list.click(mouse.column, mouse.row);
                Reply::Done
            }
            (Some(_), MouseKind::WheelUp) => self.update(ActionId::Up, scene),
            (Some(_), MouseKind::WheelDown) => self.update(ActionId::Down, scene),
            (Some(_), MouseKind::Drag) => Reply::Done,
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
        self.changes.is_none().then_some(&mut self.list.filter)
    }

    fn filtered(&self) -> &str {
        &self.list.filter
    }

    fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        match &self.changes {
            Some(journal) => journal.render(scene, area, buf),
            None => self.draw(scene, area, buf),
        }
    }
}
