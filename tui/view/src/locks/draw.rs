//! The table of waits on the screen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::sample::LockWaits;

use crate::action::ActionId;
use crate::draw::{self, Pen, below};
use crate::glyph;
use crate::listing::SortOrder;
use crate::pane::{PaneId, Scene};
use crate::text::{self, NONE};
use crate::theme::Role;

use super::rows::{By, HISTORY, Of, Order, Row};
use super::{Locks, Shown, names, watch};

/// Rows from which on what is hidden is told with its reasons.
const TALL: u16 = 36;

impl Locks {
    pub(super) fn draw(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let theme = scene.theme;
        let (detail, end) = (self.heading(scene), self.other(scene));
        draw::section(buf, theme, area, 0, ("LOCKS", &detail, &end));
        let locks = match scene.sample().locks.as_ref() {
            Ok(locks) => locks,
            Err(_) if !scene.started() => {
                Pen::new(buf, theme, area, 1)
                    .gap(3)
                    .put("waiting for the first sample", Role::Dim);
                return;
            }
            Err(reason) => {
                let about = ("waits for the kernel's locks are not watched", reason, "");
                draw::missing(buf, theme, area, 1, about);
                return;
            }
        };
        let mut y = 1;
        // The table needs most of the room; what is cut off here, doctor has too.
        let most = area.height.saturating_sub(3) / 2;
        let brief = area.height < TALL;
        let mut hidden: Vec<&str> = Vec::new();
        if brief {
            let names = self.shown.head.iter().filter_map(|l| l.hidden.as_deref());
            hidden.extend(names);
        }
        for line in &self.shown.head {
            if y > most {
                break;
            }
            match &line.hidden {
                // All of them in one row, where the first one stands.
                Some(_) if brief => {
                    if !hidden.is_empty() {
                        self.hidden(scene, area, buf, y, &std::mem::take(&mut hidden));
                        y += 1;
                    }
                }
                _ => y += put_line(scene, area, buf, y, line, most + 1 - y),
            }
        }
        if self.shown.windows == 0 {
            let say = match locks.window {
                0 => "the first window is not over yet",
                _ => "no window in the time that is shown",
            };
            Pen::new(buf, theme, area, y + 1).gap(3).put(say, Role::Dim);
            return;
        }
        if self.of() == Of::Waits {
            let room = match area.height {
                0..16 => 0,
                16..30 => 3,
                _ => 10,
            };
            for kind in self.shown.kinds.iter().take(room) {
                kind_line(scene, area, buf, y, &self.shown, kind);
                y += 1;
            }
        }
        self.table(scene, below(area, y), buf);
    }

    /// What this host hides, by name; the details and taller screens say why.
    fn hidden(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer, y: u16, names: &[&str]) {
        let names = names.join(", ");
        let room = usize::from(area.width).saturating_sub(3);
        let mut label = "not visible here: ";
        if text::width(label) + text::width(&names) > room {
            label = "hidden: ";
        }
        let key = scene.key(PaneId::Locks.info().stack, ActionId::Open);
        let hint = format!(" ({key}: why)");
        let all = text::width(label) + text::width(&names) + text::width(&hint);
        let mut pen = Pen::new(buf, scene.theme, area, y);
        pen.gap(1)
            .put("○ ", Role::Faint)
            .put(label, Role::Dim)
            .put(&names, Role::Warning);
        // Of a CPU there are no details.
        if all <= room && !self.list.rows().is_empty() && self.by != By::Cpu {
            pen.put(&hint, Role::Faint);
        }
    }

    fn table(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        if self.list.rows().is_empty() {
            self.none(scene, area, buf);
            return;
        }
        let columns = Columns::of(area.width, self.of(), (self.by, self.list.order));
        let mut body = area;
        // One scale for all rows, printed above them.
        let top = self.top();
        if area.height > 3 {
            columns.headings(scene, area, buf, top);
            body = below(area, 1);
        }
        self.list.draw(scene, body, buf, |buf, y, row| {
            let mut pen = Pen::new(buf, scene.theme, body, y);
            self.line(&mut pen, row, &columns, top);
        });
    }

    /// The most that any row waited per second in a window.
    fn top(&self) -> f32 {
        let all = self
            .list
            .rows()
            .iter()
            .flat_map(|r| r.history.iter().flatten());
        all.fold(0.0, |most, x| x.max(most))
    }

    fn heading(&self, scene: &Scene<'_>) -> String {
        let mut parts: Vec<String> = Vec::new();
        let what = match self.of() {
            Of::Waits => format!("{}, {}", self.list.order.title(), self.by.title()),
            Of::Samples => format!("most samples, {}", self.by.title()),
        };
        let reversed = if self.list.reverse { ", reversed" } else { "" };
        parts.push(format!("{what}{reversed}"));
        if scene.sample().locks.value().is_some() && !self.shown.when.is_empty() {
            parts.push(self.shown.when.clone());
        }
        if let Some(filter) = self.list.filter_title() {
            parts.push(format!(
                "{filter}: {} of {}",
                self.list.hits(),
                self.shown.all
            ));
        }
        if self.of() == Of::Waits && !self.shown.rest.is_empty() {
            parts.push(self.shown.rest.clone());
        }
        parts.join(" · ")
    }

    /// What else can be listed, with its key.
    fn other(&self, scene: &Scene<'_>) -> String {
        let key = scene.key(PaneId::Locks.info().stack, ActionId::LockSamples);
        match (self.of(), self.shown.samples, self.shown.measured_ns) {
            (Of::Waits, 1.., _) => format!("{key}: samples"),
            (Of::Samples, _, 1..) => format!("{key}: waits"),
            _ => String::new(),
        }
    }

    /// What stands where no row does.
    fn none(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let mut pen = Pen::new(buf, scene.theme, area, 1);
        if !self.list.filter.is_empty() {
            pen.gap(3).put("nothing matches", Role::Dim);
            return;
        }
        match (self.of(), self.shown.measured_ns, &self.shown.no_share) {
            (Of::Waits, 0, _) => pen.gap(3).put("waits were not traced then", Role::Dim),
            (Of::Waits, ..) => {
                let about = match self.shown.total.count {
                    0 => "nothing waited for a lock that shows".to_owned(),
                    n => format!(
                        "{}, of which nothing more is known",
                        text::plural(n, "wait")
                    ),
                };
                pen.gap(1).put("✔ ", Role::Ok).put(&about, Role::Text)
            }
            (Of::Samples, _, None) => pen.gap(1).put("✔ ", Role::Ok).put(
                "no sample was in a lock's slow path, or suspected",
                Role::Text,
            ),
            (Of::Samples, _, Some(reason)) => pen
                .gap(1)
                .put("○ ", Role::Faint)
                .put(&text::name(&reason.to_string(), 300), Role::Warning),
        };
    }

    fn line(&self, pen: &mut Pen<'_>, row: &Row, c: &Columns, top: f32) {
        let waits = &row.waits;
        let mark = match (&row.probe, row.suspected) {
            (Some(_), _) => (names::PROBE, Role::Critical),
            (None, true) => ("?", Role::Notice),
            (None, false) => (" ", Role::Dim),
        };
        pen.put(mark.0, mark.1).gap(1);
        pen.left(row.kind, c.kind, Role::Dim);
        column(pen, &row.name, c.name, Role::Strong);
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
            column(pen, &row.waiter, c.waiter - 2, Role::Text);
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

/// A blank between columns however long the text is.
fn column(pen: &mut Pen<'_>, text: &str, width: usize, role: Role) {
    if let Some(room) = width.checked_sub(1) {
        pen.left(&text::cut(text, room), room, role).gap(1);
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
fn heat(cpus: f64) -> Role {
    match cpus {
        s if s >= 1.0 => Role::Critical,
        s if s >= 0.1 => Role::Warning,
        s if s >= 0.01 => Role::Notice,
        _ => Role::Text,
    }
}

/// Draws a line in one row, or in two if there are so many; gives how many.
fn put_line(
    scene: &Scene<'_>,
    area: Rect,
    buf: &mut Buffer,
    y: u16,
    line: &watch::Line,
    room: u16,
) -> u16 {
    let width = |parts: &[watch::Part]| parts.iter().map(|(t, _)| text::width(t)).sum::<usize>();
    let put = |buf: &mut Buffer, y: u16, gap: usize, parts: &[&[watch::Part]]| {
        let mut pen = Pen::new(buf, scene.theme, area, y);
        pen.gap(gap);
        for (text, role) in parts.iter().copied().flatten() {
            pen.put(text, *role);
        }
    };
    let all = 1 + width(&line.parts) + 3 + width(&line.more);
    if line.more.is_empty() || all > usize::from(area.width) {
        let cut = width(&line.parts) + 1 > usize::from(area.width);
        if cut && area.height >= TALL {
            return put_wrapped(scene, area, buf, y, line, room);
        }
        put(buf, y, 1, &[&line.parts]);
        let few = line.optional && area.height < 30;
        if line.more.is_empty() || room < 2 || few {
            return 1;
        }
        put(buf, y + 1, 3, &[&line.more]);
        return 2;
    }
    let dot = [(" · ".to_owned(), Role::Line)];
    put(buf, y, 1, &[&line.parts, &dot, &line.more]);
    1
}

/// Draws a line whole, in as many rows as it takes but no more than `room`; gives how many.
fn put_wrapped(
    scene: &Scene<'_>,
    area: Rect,
    buf: &mut Buffer,
    y: u16,
    line: &watch::Line,
    room: u16,
) -> u16 {
    let indent = 3;
    let mut pen = Pen::new(buf, scene.theme, area, y);
    pen.gap(1);
    let mut at = 1;
    let mut row = 0;
    for (i, (part, role)) in line.parts.iter().chain(&line.more).enumerate() {
        for (j, word) in part.split_inclusive(' ').enumerate() {
            // What mends it begins a row.
            let begins = i == line.parts.len() && j == 0;
            let over = at + text::width(word) > usize::from(area.width);
            if (begins || over) && at > indent {
                row += 1;
                if row >= room {
                    return room;
                }
                pen = Pen::new(buf, scene.theme, area, y + row);
                pen.gap(indent);
                at = indent;
            }
            pen.put(word, *role);
            at += text::width(word);
        }
    }
    row + 1
}

/// A kind of lock in one line: totals, and how long its waits were.
fn kind_line(
    scene: &Scene<'_>,
    area: Rect,
    buf: &mut Buffer,
    y: u16,
    shown: &Shown,
    kind: &LockWaits,
) {
    let per_s = shown.wait_per_s(&kind.waits);
    let count = shown.per_s(&kind.waits).map_or(NONE.to_owned(), text::rate);
    let mut pen = Pen::new(buf, scene.theme, area, y);
    pen.gap(1)
        .left(kind.kind.as_str(), 11, Role::Dim)
        .right(&names::wait_per_s(per_s), 11, heat(per_s.unwrap_or(0.0)))
        .right(&count, 10, Role::Text)
        .put("/s", Role::Dim);
    if area.width >= 60 {
        pen.right(&text::duration(kind.waits.longest_ns), 9, Role::Text)
            .put(" longest  ", Role::Dim);
    }
    if area.width >= 80 {
        let (cells, range) = watch::histogram(kind, usize::from(area.width) - 55);
        pen.put(&cells, Role::Series1)
            .gap(1)
            .put(&range, Role::Faint);
    }
}

/// Widths of the columns; 0 for those that there is no room for.
struct Columns {
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
    fn of(width: u16, of: Of, (by, order): (By, Order)) -> Self {
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

    fn headings(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer, top: f32) {
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
            pen.gap(if self.waiter > 0 { 0 } else { 2 })
                .put("top function, < its callers", dim);
        }
    }
}
