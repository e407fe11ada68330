//! The tree on the screen.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::draw::{self, Pen};
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::cost::{self, Figure};
use super::tree::{Row, State, changed_text};
use super::{Tally, Tracing};

impl Tracing {
    pub(super) fn draw(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let theme = scene.theme;
        let mut detail = self.list.order_title();
        if let Some(filter) = self.list.filter_title() {
            detail = format!("{filter}: {} match", self.list.hits());
        }
        if self.extra.ours {
            detail.push_str(" · ours shown");
        }
        if let Some(seq) = scene.past() {
            detail.push_str(&match scene.model.tracing.at(seq) {
                Some(_) => format!(" · as of {}", text::clock(scene.wall_ns())),
                None => format!("{}: older states are not kept", scene.as_of_newest()),
            });
        }
        let total = cost::total(scene);
        draw::section(buf, theme, area, 0, ("TRACING", &detail, &total));
        let mut pen = Pen::new(buf, theme, area, 1);
        pen.gap(1);
        let state = scene.tracing();
        if state.reading_since_ns > 0 {
            let hanging = scene.until_ns().saturating_sub(state.reading_since_ns);
            let late = format!("▲ as of {} ago: a look hangs · ", text::ago(hanging));
            pen.put(&late, Role::Critical);
        }
        Tally::of(state).draw(&mut pen);
        let columns = Columns::of(area.width);
        let mut pen = Pen::new(buf, theme, area, 2);
        pen.gap(1)
            .left("what", columns.what, Role::Faint)
            .left("kind", columns.kind, Role::Faint)
            .right("hits/s", columns.hits, Role::Faint)
            .right("ns/hit", columns.ns, Role::Faint)
            .right(columns.share_title(), columns.share, Role::Faint)
            .gap(2.min(columns.share))
            .left("changed", columns.changed, Role::Faint)
            .put("held by, state", Role::Faint);
        let body = draw::below(area, 3);
        self.list.draw(scene, body, buf, |buf, y, row| {
            line(scene, body, buf, y, row, &columns);
        });
        if self.list.rows().is_empty() {
            let say = if !scene.started() {
                "waiting for the first sample"
            } else if self.list.filter.is_empty() {
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
    ns: usize,
    share: usize,
    changed: usize,
}

impl Columns {
    fn of(width: u16) -> Self {
        let width = usize::from(width);
        Self {
            what: match width {
                0..60 => width.saturating_sub(10).max(8),
                60..100 => 32,
                100..150 => 42,
                _ => 54,
            },
            kind: match width {
                0..100 => 0,
                100..130 => 11,
                _ => 15,
            },
            hits: if width >= 60 { 9 } else { 0 },
            ns: if width >= 60 { 8 } else { 0 },
            share: match width {
                0..40 => 0,
                40..60 => 9,
                60..100 => 10,
                100..130 => 13,
                _ => 15,
            },
            changed: if width >= 130 { 20 } else { 0 },
        }
    }

    fn share_title(&self) -> &'static str {
        if self.share > 12 {
            "% of one CPU"
        } else {
            "% CPU"
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
    let indent = usize::from(row.place.depth) * 2;
    pen.gap(1 + indent);
    let mut room = columns.what.saturating_sub(indent + 6);
    pen.put(
        match row.place.open {
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
    let role = match (row.place.depth, row.state) {
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
    let shown = |figure: Option<Figure>, show: fn(Figure) -> String| {
        let role = match figure {
            Some(Figure::Value(..)) => Role::Text,
            _ => Role::Faint,
        };
        (figure.map_or_else(String::new, show), role)
    };
    let (hits, role) = shown(row.cost.hits, Figure::rate);
    pen.right(&hits, columns.hits, role);
    let (ns, role) = shown(row.cost.ns, Figure::ns);
    pen.right(&ns, columns.ns, role);
    let (mut share, role) = shown(row.cost.share, Figure::percent);
    // With its deviation, where there is room and it is worth a look.
    if columns.share > 14
        && let Some(deviation) = row.cost.deviation.filter(|d| *d >= 0.0005)
    {
        share = format!("{share} ±{}", cost::percent(deviation));
    }
    let role = match row.cost.share {
        Some(Figure::Value(share, _)) if share >= 0.1 => Role::Warning,
        _ if row.place.depth == 0 && role == Role::Text => Role::Strong,
        _ => role,
    };
    pen.right(&share, columns.share, role)
        .gap(2.min(columns.share));
    if columns.changed > 0 {
        let changed = row.changed.map_or_else(String::new, changed_text);
        pen.left(&changed, columns.changed, Role::Changed);
    }
    if row.ours {
        pen.put("ours  ", Role::Ours);
    }
    if !row.warn.is_empty() {
        pen.put(&row.warn, Role::Warning);
        if !row.note.is_empty() {
            pen.put(" · ", Role::Dim);
        }
    }
    pen.put(&row.note, Role::Dim);
}
