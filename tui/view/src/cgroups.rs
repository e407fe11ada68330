//! Pane 6: memory cgroups, zombies, and what reading them costs.

mod draw;
mod rows;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::Model;
use stalltop_model::units::Window;

use crate::action::{ActionId, Context};
use crate::listing::{ListPane, Listing};
use crate::msg::{Effect, Mouse};
use crate::pane::{Pane, PaneId, Reply, Scene, Wish};
use crate::theme::Role;
use rows::Row;

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
        Some(trend) if trend.is_steady() => format!(" (steady over {})", Window(trend.span_ns)),
        Some(trend) => format!(" ({trend})"),
        None => String::new(),
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
    list: Listing<Row>,
    /// One sorted list in place of the tree.
    flat: bool,
}

impl ListPane for Cgroups {
    type Row = Row;

    fn listing(&mut self) -> &mut Listing<Row> {
        &mut self.list
    }

    fn rebuild(&mut self, scene: &Scene<'_>) {
        let rows = rows::build(scene.model, self.flat, &self.list);
        self.list.set(rows);
    }

    fn enter(&mut self, scene: &Scene<'_>) -> Reply {
        let row = self.list.selected();
        let cgroups = scene.sample().cgroups.value();
        let found = row.zip(cgroups).and_then(|(row, cgroups)| {
            let cgroup = cgroups.rows.iter().find(|c| c.path == row.path)?;
            Some(draw::facts(cgroup, cgroups, scene))
        });
        found.map_or(Reply::Done, |lines| Reply::Wish(Wish::Show(lines)))
    }
}

impl Pane for Cgroups {
    fn refresh(&mut self, scene: &Scene<'_>) {
        self.refresh_list(scene);
    }

    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        match action {
            // What has others below it has figures of its own, too.
            ActionId::Open => return self.enter(scene),
            ActionId::ReadNow => {
                return self.list.selected().map_or(Reply::Done, |row| {
                    Reply::Effect(Effect::ReadCgroupNow(row.path.clone()))
                });
            }
            ActionId::Flat => {
                self.flat = !self.flat;
                self.list.release();
            }
            _ => return self.act_on_list(action, scene),
        }
        self.rebuild(scene);
        Reply::Done
    }

    fn mouse(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply {
        self.mouse_on_list(mouse, scene)
    }

    fn stack(&self) -> &'static [Context] {
        PaneId::Cgroups.info().stack
    }

    fn filter(&mut self) -> Option<&mut String> {
        Some(&mut self.list.filter)
    }

    fn filtered(&self) -> &str {
        &self.list.filter
    }

    fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        self.draw(scene, area, buf);
    }
}
