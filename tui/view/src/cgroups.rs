//! Pane 6: memory cgroups, zombies, and what reading them costs.

mod draw;
mod rows;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::{Model, Name};

use crate::action::{ActionId, Context};
use crate::list::List;
use crate::msg::{Effect, Mouse, MouseKind};
use crate::pane::{Pane, PaneId, Reply, Scene, Wish};
use crate::theme::Role;
use rows::{Order, Row};

/// The role of the time that a read of memory.stat takes.
pub(crate) fn read_role(ns: u64) -> Role {
    match ns {
        0..1_000_000 => Role::Text,
        1_000_000..5_000_000 => Role::Notice,
        5_000_000..50_000_000 => Role::Warning,
        _ => Role::Critical,
    }
}

/// ` (+12/min over 2 min)`, or nothing while no trend is known.
pub(crate) fn trend(model: &Model) -> String {
    match model.cgroups.zombies_per_minute() {
        Some((rate, span_ns)) if rate.abs() >= 0.5 => {
            format!(" ({rate:+.0}/min over {})", span(span_ns))
        }
        Some((_, span_ns)) => format!(" (steady over {})", span(span_ns)),
        None => String::new(),
    }
}

/// `2 min`, `45 s`.
fn span(ns: u64) -> String {
    match ns / 1_000_000_000 {
        seconds @ 0..90 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

/// From this age on a figure's age is told, ns.
const STALE_NS: u64 = 10_000_000_000;

/// ` as of 25s ago`, for figures read longer ago than a glance takes them to be.
pub(crate) fn stale(now_ns: u64, read_at_ns: u64) -> String {
    let age_ns = now_ns.saturating_sub(read_at_ns);
    if read_at_ns == 0 || age_ns < STALE_NS {
        return String::new();
    }
    format!(" as of {} ago", crate::text::ago(age_ns))
}

/// The pane.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    wish: rows::Wish,
    list: List<Name>,
    rows: Vec<Row>,
}

impl Cgroups {
    fn rebuild(&mut self, scene: &Scene<'_>) {
        self.rows = rows::build(scene.model, &self.wish, &self.list);
        self.list
            .set(self.rows.iter().map(|r| r.path.clone()).collect());
    }

    fn fold(&mut self, open: Option<bool>) -> bool {
        let Some(row) = self.rows.get(self.list.cursor()) else {
            return false;
        };
        let Some(is_open) = row.open.filter(|is| open != Some(*is)) else {
            return false;
        };
        let path = row.path.clone();
        if is_open {
            self.wish.folded.insert(path);
        } else {
            self.wish.folded.remove(&path);
        }
        true
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

    fn fold_all(&mut self) {
        if self.wish.folded.is_empty() {
            let inner = self
                .rows
                .iter()
                .filter(|r| r.open == Some(true) && r.depth > 0);
            self.wish.folded = inner.map(|r| r.path.clone()).collect();
        } else {
            self.wish.folded.clear();
        }
    }

    fn facts(&self, scene: &Scene<'_>) -> Reply {
        let path = self.list.selected();
        let cgroups = scene.sample().cgroups.value();
        let found = path.zip(cgroups).and_then(|(path, cgroups)| {
            let cgroup = cgroups.rows.iter().find(|c| c.path == *path)?;
            Some(draw::facts(cgroup, cgroups, scene))
        });
        found.map_or(Reply::Done, |lines| Reply::Wish(Wish::Show(lines)))
    }
}

impl Pane for Cgroups {
    fn refresh(&mut self, scene: &Scene<'_>) {
        self.list.tick();
        self.rebuild(scene);
    }

    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        match action {
            ActionId::Open => return self.facts(scene),
            ActionId::Fold => {
                if !self.fold(Some(false)) {
                    self.go_to_parent();
                }
            }
            ActionId::Unfold => drop(self.fold(Some(true))),
            ActionId::FoldAll => self.fold_all(),
            ActionId::Flat => {
                self.wish.flat = !self.wish.flat;
                self.list.release();
            }
            ActionId::Sort => {
                let at = Order::ALL.iter().position(|o| *o == self.wish.order);
                self.wish.order = Order::ALL[at.map_or(0, |at| (at + 1) % Order::ALL.len())];
                self.list.release();
            }
            ActionId::Reverse => {
                self.wish.reverse = !self.wish.reverse;
                self.list.release();
            }
            ActionId::ReadNow => {
                return match self.list.selected() {
                    Some(path) => Reply::Effect(Effect::ReadCgroupNow(path.clone())),
                    None => Reply::Done,
                };
            }
            ActionId::NextMatch | ActionId::PreviousMatch => {
                let hits: Vec<bool> = self.rows.iter().map(|r| r.hit).collect();
                self.list.seek(action == ActionId::NextMatch, |row| {
                    hits.get(row) == Some(&true)
                });
            }
            ActionId::Close if !self.wish.filter.is_empty() => self.wish.filter.clear(),
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
                let before = self.list.cursor();
                if self.list.click(mouse.column, mouse.row)
                    && self.list.cursor() == before
                    && self.fold(None)
                {
                    self.rebuild(scene);
                }
                Reply::Done
            }
        }
    }

    fn stack(&self) -> &'static [Context] {
        PaneId::Cgroups.info().stack
    }

    fn filter(&mut self) -> Option<&mut String> {
        Some(&mut self.wish.filter)
    }

    fn filtered(&self) -> &str {
        &self.wish.filter
    }

    fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        self.draw(scene, area, buf);
    }
}
