//! The tree on the screen.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::draw::{self, Pen};
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::tree::{Row, State, changed_text};
use super::{Tally, Tracing};

impl Tracing {
    pub(super) fn draw(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let theme = scene.theme;
        let mut detail = self.wish.order.title().to_owned();
        if !self.wish.filter.is_empty() {
            let hits = self.rows.iter().filter(|r| r.hit).count();
            detail = format!(
                "filter {:?}: {hits} match",
                text::name(&self.wish.filter, 30)
            );
        }
        if self.wish.show_ours {
            detail.push_str(" · ours shown");
        }
        if let Some(seq) = scene.past() {
            detail.push_str(&match scene.model.tracing.at(seq) {
                Some(_) => format!(" · as of {}", text::clock(scene.wall_ns())),
                None => format!("{}: older states are not kept", scene.as_of_newest()),
            });
        }
        draw::section(buf, theme, area, 0, ("TRACING", &detail, ""));
        let mut pen = Pen::new(buf, theme, area, 1);
        pen.gap(1);
        Tally::of(scene.tracing()).draw(&mut pen);
        let columns = Columns::of(area.width);
        let mut pen = Pen::new(buf, theme, area, 2);
        pen.gap(1)
            .left("what", columns.what, Role::Faint)
            .left("kind", columns.kind, Role::Faint)
            .right("hits", columns.hits, Role::Faint)
            .gap(2.min(columns.hits))
            .left("changed", columns.changed, Role::Faint)
            .put("held by, state", Role::Faint);
        let top = 3.min(area.height);
        let body = Rect::new(area.x, area.y + top, area.width, area.height - top);
        let view = self.list.view(body);
        for (y, (at, row)) in (0u16..).zip(
            self.rows
                .iter()
                .enumerate()
                .skip(view.start)
                .take(view.len()),
        ) {
            line(scene, body, buf, y, row, &columns);
            if at == self.list.cursor() {
                draw::highlight(buf, theme, body, y, Role::Cursor);
            }
        }
        if self.rows.is_empty() {
            let say = if !scene.started() {
                "waiting for the first sample"
            } else if self.wish.filter.is_empty() {
                "nothing traces this host"
            } else {
                "nothing matches the filter"
            };
            Pen::new(buf, theme, body, 0).gap(3).put(say, Role::Dim);
        }
    }
}

/// Widths of the columns.
struct Columns {
    what: usize,
    kind: usize,
    hits: usize,
    changed: usize,
}

impl Columns {
    fn of(width: u16) -> Self {
        let width = usize::from(width);
        Self {
            what: match width {
                0..60 => width.saturating_sub(14).max(8),
                60..100 => 35,
                100..150 => 46,
                _ => 62,
            },
            kind: match width {
                0..60 => 0,
                60..100 => 11,
                _ => 15,
            },
            hits: if width >= 130 { 12 } else { 0 },
            changed: if width >= 100 { 20 } else { 0 },
        }
    }
}

/// A name in at most `max` cells: with the customary short words before anything is cut.
fn shorter(name: &str, max: usize) -> Cow<'_, str> {
    if text::width(name) <= max {
        return Cow::Borrowed(name);
    }
    let short = name
        .replacen("raw_tracepoint", "raw_tp", 1)
        .replacen("tracepoint", "tp", 1)
        .replacen("cgroup_", "cg_", 1);
    Cow::Owned(text::cut(&short, max).into_owned())
}

fn line(scene: &Scene<'_>, body: Rect, buf: &mut Buffer, y: u16, row: &Row, columns: &Columns) {
    let mut pen = Pen::new(buf, scene.theme, body, y);
    let indent = usize::from(row.depth) * 2;
    pen.gap(1 + indent);
    let mut room = columns.what.saturating_sub(indent + 6);
    pen.put(
        match row.open {
            Some(true) => "▾ ",
            Some(false) => "▸ ",
            None => "  ",
        },
        Role::Line,
    );
    let (mark, role) = match row.state {
        State::On => ("● ", Role::On),
        State::Off => ("○ ", Role::Off),
        State::Armed => ("◐ ", Role::Armed),
        State::None => ("", Role::Dim),
    };
    if mark.is_empty() {
        room += 2;
    }
    pen.put(mark, role);
    let role = match (row.depth, row.state) {
        _ if row.missing.is_some() => Role::Dim,
        (0, _) => Role::Strong,
        (_, State::Off) => Role::Dim,
        _ => Role::Text,
    };
    pen.left(&shorter(&row.what, room), room, role);
    let mark = if row.changed.is_some() { "✱ " } else { "  " };
    pen.put(mark, Role::Changed);
    if let Some(reason) = &row.missing {
        pen.put(&text::name(&reason.to_string(), 200), Role::Warning)
            .put(" · fix: ", Role::Dim)
            .put(&text::name(&reason.fix(), 200), Role::Strong);
        return;
    }
    pen.left(
        &shorter(&row.kind, columns.kind.saturating_sub(1)),
        columns.kind,
        Role::Dim,
    );
    if columns.hits > 0 {
        let hits = row.hits.map_or_else(String::new, text::count);
        pen.right(&hits, columns.hits, Role::Text).gap(2);
    }
    if columns.changed > 0 {
        let changed = row.changed.map_or_else(String::new, changed_text);
        pen.left(&changed, columns.changed, Role::Changed);
    }
    if row.ours {
        pen.put("ours  ", Role::Ours);
    }
    pen.put(&row.note, Role::Dim);
}
