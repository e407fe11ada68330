//! The list of changes that stalltop made on this host since boot.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::Model;
use stalltop_model::change::{Entry, Outcome, Standing};

use crate::draw::{self, Pen};
use crate::list::List;
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

/// The newest change first.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub list: List<u64>,
}

impl Journal {
    pub(super) fn refresh(&mut self, model: &Model) {
        self.list
            .set(model.changes().iter().rev().map(|e| e.id).collect());
    }

    /// The selected entry.
    pub(super) fn chosen<'a>(&self, model: &'a Model) -> Option<&'a Entry> {
        let id = self.list.selected()?;
        model.changes().iter().find(|e| e.id == *id)
    }

    pub(super) fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let theme = scene.theme;
        let n = text::plural(scene.model.changes().len() as u64, "change");
        draw::section(
            buf,
            theme,
            area,
            0,
            ("CHANGES", &n, "newest first, Esc closes"),
        );
        let mut pen = Pen::new(buf, theme, area, 1);
        pen.gap(1)
            .right("no", 4, Role::Faint)
            .gap(2)
            .left("when", 10, Role::Faint)
            .left("state", 12, Role::Faint)
            .left("by", 18, Role::Faint)
            .put("what", Role::Faint);
        let body = draw::below(area, 2);
        if self.list.rows().is_empty() {
            Pen::new(buf, theme, body, 0).gap(3).put(
                "stalltop has changed nothing on this host since boot",
                Role::Dim,
            );
            return;
        }
        let view = self.list.view(body);
        for (y, at) in (0u16..).zip(view) {
            let entry = self
                .list
                .rows()
                .get(at)
                .and_then(|id| scene.model.changes().iter().find(|e| e.id == *id));
            let Some(entry) = entry else { continue };
            let (state, role) = state(entry);
            let mut pen = Pen::new(buf, theme, body, y);
            pen.gap(1)
                .right(&entry.id.to_string(), 4, Role::Dim)
                .gap(2)
                .left(&text::clock(entry.wall_ns), 10, Role::Text)
                .left(state, 12, role)
                .left(&text::name(&entry.by, 17), 18, Role::Dim)
                .put(&text::name(&entry.plan.title, 300), Role::Strong);
            if let Some(verdict) = scene.model.verdict(entry.id) {
                pen.gap(2).put(&verdict.to_string(), Role::Dim);
            }
            if at == self.list.cursor() {
                draw::highlight(buf, theme, body, y, Role::Cursor);
            }
        }
    }
}

fn state(entry: &Entry) -> (&'static str, Role) {
    match (entry.standing(), &entry.outcome) {
        (Standing::Nothing, _) => ("not done", Role::Critical),
        (Standing::Open, _) | (_, Outcome::Intended) => ("unfinished", Role::Warning),
        (Standing::Part, _) => ("in part", Role::Critical),
        (_, Outcome::Failed { .. }) => ("stopped", Role::Critical),
        (Standing::Whole, _) => ("in effect", Role::On),
        (Standing::Undone, _) => ("undone", Role::Off),
        (Standing::Settled, _) if entry.undoes.is_some() => ("undo", Role::Dim),
        (Standing::Settled, _) => ("done", Role::Dim),
    }
}
