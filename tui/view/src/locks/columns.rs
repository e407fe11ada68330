//! The columns of the table of locks, and a row in them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::draw::Pen;
use crate::glyph;
use crate::pane::Scene;
use crate::text::{self, NONE};
use crate::theme::Role;

use super::rows::{By, HISTORY, Of, Order, Row, SUSPECTED};
use super::{Locks, names};

/// Widths of the columns; 0 for those that there is no room for.
pub(super) struct Columns {
    of: Of,
    by: By,
    kind: usize,
    name: usize,
    /// Wait per second, or the share of samples.
    wait: usize,
    /// Waits per second, or samples.
    count: usize,
    longest: usize,
    mean: usize,
    history: usize,
    waiter: usize,
    function: usize,
}

impl Columns {
    pub(super) fn of(width: u16, of: Of, (by, order): (By, Order)) -> Self {
        let wide = usize::from(width).saturating_sub(2);
        let waits = of == Of::Waits;
        let waiter = match (by, width) {
            (By::Waiter | By::Cpu, _) | (_, 0..76) => 0,
            (_, 76..100) => 17,
            (_, 100..160) => 20,
            _ => 26,
        };
        // One of the two makes room for the waiter, never that which rows are sorted by.
        let narrow = waits && waiter > 0 && width < 100;
        let by_longest = order == Order::Longest;
        let mut out = Self {
            of,
            by,
            kind: match (by, waits, width) {
                (By::Cpu, ..) | (_, _, 0..50) => 0,
                (By::Waiter, false, _) => 10,
                (_, false, _) => 0,
                _ => 11,
            },
            name: 0,
            wait: 11,
            count: match narrow {
                true if by_longest => 0,
                true => 9,
                false if width >= 40 => 10,
                false => 0,
            },
            longest: if waits && width >= 64 && (!narrow || by_longest) {
                9
            } else {
                0
            },
            mean: if waits && width >= 130 { 9 } else { 0 },
            history: match (waits && by != By::Stack, width) {
                (true, 160..) => HISTORY.min(usize::from(width - 140) / 2 + 2),
                (true, 130..160) => 14,
                _ => 0,
            },
            waiter,
            function: 0,
        };
        let used =
            out.kind + out.wait + out.count + out.longest + out.mean + out.history + out.waiter;
        let left = wide.saturating_sub(used);
        out.name = match (by, width) {
            (By::Cpu, 50..) => 10,
            (_, 0..64) => left,
            (By::Waiter, 64..130) => 22.min(left),
            (_, 64..100) if waits => 19.min(left),
            (_, 100..130) if waits => 20.min(left),
            (_, 64..130) => (left / 2).max(18).min(left),
            _ => (left / 3).min(40),
        };
        out.function = left - out.name.min(left);
        out
    }

    pub(super) fn headings(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer, top: f32) {
        let mut pen = Pen::new(buf, scene.theme, area, 0);
        let dim = Role::Faint;
        let shown = |text: &'static str, width: usize| if width > 0 { text } else { "" };
        let name = match (self.by, self.of) {
            (By::Lock | By::Stack, Of::Waits) => "lock",
            (By::Lock | By::Stack, Of::Samples) => "lock function",
            (By::Waiter, _) => "waiter",
            (By::Cpu, _) => "cpu",
        };
        let (wait, count) = match self.of {
            Of::Waits => ("wait/s", "waits/s"),
            Of::Samples => ("share", "samples"),
        };
        pen.gap(2)
            .left(shown("kind", self.kind), self.kind, dim)
            .left(name, self.name, dim)
            .right(wait, self.wait, dim)
            .right(shown(count, self.count), self.count, dim)
            .right(shown("longest", self.longest), self.longest, dim)
            .right(shown("mean", self.mean), self.mean, dim);
        if self.history > 0 {
            let scale = format!("by window, █ {}", names::wait_per_s(Some(f64::from(top))));
            pen.gap(2).left(&scale, self.history - 2, dim);
        }
        if self.waiter > 0 {
            pen.gap(2).left("top waiter", self.waiter - 2, dim);
        }
        if self.function > 2 && !(self.by == By::Cpu && self.of == Of::Waits) {
            let title = match self.function {
                0..27 => "in function",
                _ => "top function, < its callers",
            };
            pen.gap(if self.waiter > 0 { 0 } else { 2 }).put(title, dim);
        }
    }
}

impl Locks {
    /// A row of the table; `top` is the most that any row waited per second in a window.
    pub(super) fn line(&self, pen: &mut Pen<'_>, row: &Row, c: &Columns, top: f32) {
        let waits = &row.waits;
        let mark = match (&row.probe, row.suspected) {
            (Some(_), _) => (names::PROBE, Role::Critical),
            (None, true) => ("?", Role::Notice),
            (None, false) => (" ", Role::Dim),
        };
        pen.put(mark.0, mark.1).gap(1);
        pen.left(row.kind, c.kind, Role::Dim);
        // Where there is little room, the mark says it alone.
        let name = match (&row.probe, c.name) {
            (None, 0..30) => row.name.trim_start_matches(SUSPECTED),
            _ => &row.name,
        };
        pen.column(name, c.name, Role::Strong);
        match self.of() {
            Of::Waits => {
                let per_s = self.shown.wait_per_s(waits);
                let wait = names::wait_per_s(per_s);
                // What rests on samples of short waits is not exact.
                let about = if row.exact { wait } else { format!("~{wait}") };
                pen.right(&about, c.wait, heat(per_s.unwrap_or(0.0)));
                let count = self.shown.per_s(waits).map_or(NONE.to_owned(), text::rate);
                pen.right(if c.count > 0 { &count } else { "" }, c.count, Role::Text);
                let longest = text::duration(waits.longest_ns);
                pen.right(
                    if c.longest > 0 { &longest } else { "" },
                    c.longest,
                    Role::Text,
                );
                let mean = names::mean(waits);
                pen.right(if c.mean > 0 { &mean } else { "" }, c.mean, Role::Dim);
            }
            Of::Samples => {
                let share = waits.count as f64 / self.shown.samples.max(1) as f64;
                let percent = format!("{} %", text::percent(share));
                pen.right(&percent, c.wait, heat(share));
                let count = text::count(waits.count);
                pen.right(if c.count > 0 { &count } else { "" }, c.count, Role::Text);
            }
        }
        if c.history > 0 {
            pen.gap(2);
            history(pen, &row.history, c.history - 2, top);
        }
        if c.waiter > 0 {
            pen.gap(2);
            pen.column(&row.waiter, c.waiter - 2, Role::Text);
        }
        if c.function > 2 {
            pen.gap(if c.waiter > 0 { 0 } else { 2 });
            if let Some(probe) = &row.probe {
                pen.put(probe, Role::Critical).put(" · ", Role::Line);
            }
            pen.put(&row.function, Role::Text);
        }
    }
}

fn history(pen: &mut Pen<'_>, of: &[Option<f32>], width: usize, top: f32) {
    let shown = &of[of.len().saturating_sub(width)..];
    pen.gap(width - shown.len());
    for x in shown {
        match x {
            None => pen.put(NONE, Role::Faint),
            Some(0.0) => pen.put(" ", Role::Dim),
            Some(x) => {
                let share = f64::from(x / top.max(f32::MIN_POSITIVE));
                pen.put(glyph::block(share), heat(f64::from(*x)))
            }
        };
    }
}

/// How bad it is, by the CPUs that it keeps busy.
pub(super) fn heat(cpus: f64) -> Role {
    match cpus {
        s if s >= 1.0 => Role::Critical,
        s if s >= 0.1 => Role::Warning,
        s if s >= 0.01 => Role::Notice,
        _ => Role::Text,
    }
}
