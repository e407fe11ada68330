//! The table of waits on the screen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::sample::LockWaits;

use crate::action::ActionId;
use crate::draw::{self, Pen, below};
use crate::listing::SortOrder;
use crate::pane::{PaneId, Scene};
use crate::text::{self, NONE};
use crate::theme::Role;

use super::columns::{Columns, heat};
use super::rows::{By, Of};
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
