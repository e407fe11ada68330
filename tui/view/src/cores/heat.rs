//! When one CPU stalled: seconds across, the part of the second up (Gregg's FlameScope).
//!
//! Only stalls have a place within a tick. What else is known, the longest softirq delay of
//! each tick, stands in a line of its own below the map: it tells no part of a second.

use std::cell::Cell;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::model::stalls::{Filter, HeatMap};

use crate::action::{ActionId, Context};
use crate::draw::{self, Pen};
use crate::glyph;
use crate::msg::{Mouse, MouseKind};
use crate::pane::{Scene, Span};
use crate::text;
use crate::theme::Role;

use super::delay_role;

const SECOND: u64 = 1_000_000_000;
/// Numbers of rows that divide a second into round parts.
const ROWS: [usize; 8] = [50, 40, 25, 20, 10, 8, 5, 4];
/// Cells left of the map, for the scale.
const LEFT: u16 = 9;
/// Lines above and below it.
const ABOVE: u16 = 2;
const BELOW: u16 = 4;

/// A cell by its wall-clock second since 1970 and its row: it stays where it is as the map
/// moves on.
type Place = (u64, usize);

/// What was drawn last, for keys and mouse.
#[derive(Clone, Copy, Debug, Default)]
struct Drawn {
    area: Rect,
    rows: usize,
    columns: usize,
    first_second: u64,
}

/// The map's cursor and what is marked.
#[derive(Debug, Default)]
pub(super) struct Heat {
    /// `None` until it is moved: the newest second.
    cursor: Option<Place>,
    /// Where the marked time begins.
    from: Option<Place>,
    drawn: Cell<Drawn>,
}

/// What came of a key.
pub(super) enum Answer {
    /// Nothing of this map's.
    NotMine,
    /// It was moved or marked.
    Done,
    /// The map is to be closed.
    Close,
    /// This time is to be shown alone.
    Mark(Span),
}

impl Heat {
    fn cursor(&self) -> Place {
        let drawn = self.drawn.get();
        let last = drawn.first_second + drawn.columns.saturating_sub(1) as u64;
        let (second, row) = self.cursor.unwrap_or((last, 0));
        (
            second.clamp(drawn.first_second, last.max(drawn.first_second)),
            row.min(drawn.rows.saturating_sub(1)),
        )
    }

    pub(super) fn act(&mut self, action: ActionId, scene: &Scene<'_>, cpu: u32) -> Answer {
        let drawn = self.drawn.get();
        if drawn.columns == 0 {
            // Not drawn yet, or no room for it: there is no place to go to.
            return match action {
                ActionId::Close | ActionId::Quit | ActionId::HeatMap => Answer::Close,
                _ => Answer::NotMine,
            };
        }
        let (second, row) = self.cursor();
        let (last, top) = (drawn.first_second + drawn.columns as u64, drawn.rows);
        self.cursor = Some(match action {
            ActionId::Fold => (second.saturating_sub(1), row),
            ActionId::Unfold => (second + 1, row),
            ActionId::PageUp => (second.saturating_sub(10), row),
            ActionId::PageDown => (second + 10, row),
            ActionId::Up => (second, (row + 1).min(top.saturating_sub(1))),
            ActionId::Down => (second, row.saturating_sub(1)),
            ActionId::Top => (drawn.first_second, row),
            ActionId::Bottom => (last, row),
            ActionId::Mark => return self.mark(scene, cpu),
            ActionId::Close | ActionId::Quit if self.from.is_some() => {
                self.from = None;
                return Answer::Done;
            }
            ActionId::Close if scene.span.is_some() => return Answer::NotMine,
            ActionId::Close | ActionId::Quit | ActionId::HeatMap => return Answer::Close,
            _ => return Answer::NotMine,
        });
        self.cursor = Some(self.cursor());
        Answer::Done
    }

    fn mark(&mut self, scene: &Scene<'_>, cpu: u32) -> Answer {
        let drawn = self.drawn.get();
        let Some(from) = self.from.take() else {
            self.from = Some(self.cursor());
            return Answer::Done;
        };
        let map = map(scene, cpu, drawn.columns, drawn.rows);
        match span(&map, from, self.cursor()) {
            Some(span) => Answer::Mark(span),
            None => Answer::Done,
        }
    }

    /// A press begins to mark, moving on extends it.
    pub(super) fn mouse(&mut self, mouse: Mouse) {
        let drawn = self.drawn.get();
        if !drawn.area.contains((mouse.column, mouse.row).into()) {
            return;
        }
        let up = drawn.area.bottom() - 1 - mouse.row;
        let place = (
            drawn.first_second + u64::from(mouse.column - drawn.area.x),
            usize::from(up).min(drawn.rows.saturating_sub(1)),
        );
        match mouse.kind {
            MouseKind::Press => {
                self.from = Some(place);
                self.cursor = Some(place);
            }
            MouseKind::Drag => self.cursor = Some(place),
            MouseKind::WheelUp | MouseKind::WheelDown => {}
        }
    }

    /// The map alone, without a cursor: part of the CPU's details.
    pub(super) fn glance(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, cpu: u32) {
        let key = scene.key(&[Context::CoreDetail], ActionId::HeatMap);
        Self::default().draw(
            scene,
            area,
            buf,
            cpu,
            Some(&format!("{key} marks time in it")),
        );
    }

    pub(super) fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer, cpu: u32) {
        self.draw(scene, area, buf, cpu, None);
    }

    /// `glance` stands at the end of the title where the map has no cursor.
    fn draw(
        &self,
        scene: &Scene<'_>,
        area: Rect,
        buf: &mut Buffer,
        cpu: u32,
        glance: Option<&str>,
    ) {
        let theme = scene.theme;
        // Only a map with a cursor says what is under it.
        let below = if glance.is_some() { BELOW - 2 } else { BELOW };
        let room = usize::from(area.height.saturating_sub(ABOVE + below));
        let columns = usize::from(area.width.saturating_sub(LEFT + 1));
        let rows = ROWS.into_iter().find(|n| *n <= room);
        let (Some(rows), 1..) = (rows, columns) else {
            self.drawn.set(Drawn::default());
            let say = "the heat map needs more lines than this terminal has";
            Pen::new(buf, theme, area, 0).gap(1).put(say, Role::Dim);
            return;
        };
        let map = map(scene, cpu, columns, rows);
        let body = Rect::new(area.x + LEFT, area.y + ABOVE, columns as u16, rows as u16);
        self.drawn.set(Drawn {
            area: body,
            rows,
            columns: map.columns,
            first_second: map.first_wall_ns / SECOND,
        });
        let detail = format!(
            "cpu {cpu} · 1 column 1 s, 1 row {} ms · ▖▚▙█ stalled 1-100 % of it",
            1_000 / rows
        );
        draw::section(
            buf,
            theme,
            area,
            0,
            ("HEAT MAP", &detail, glance.unwrap_or("Esc closes")),
        );
        Pen::new(buf, theme, area, 1)
            .gap(1)
            .put("ms of s", Role::Faint);
        let cursor = glance.is_none().then(|| self.cursor());
        self.cells(scene, body, buf, &map, cursor);
        scale(scene, area, buf, &map, cpu);
        if glance.is_none() {
            self.foot(scene, area, buf, &map, cpu);
        }
    }

    fn cells(
        &self,
        scene: &Scene<'_>,
        body: Rect,
        buf: &mut Buffer,
        map: &HeatMap,
        cursor: Option<Place>,
    ) {
        let known = known_from(scene);
        let part = SECOND / map.rows as u64;
        let first_second = map.first_wall_ns / SECOND;
        let marked = self.from.zip(cursor);
        let marked = marked
            .and_then(|(from, to)| span(map, from, to))
            .or(scene.span);
        for column in 0..map.columns.min(usize::from(body.width)) {
            for row in 0..map.rows {
                let (begin, end) = map.span((column, row), (column, row));
                let stalled = map.cell(column, row).map_or(0, |c| c.stalled_ns);
                let (symbol, role) = match stalled {
                    0 if end <= known || begin > scene.sample().at_ns => (" ", Role::Faint),
                    0 => ("·", Role::Line),
                    ns => {
                        let share = ns as f64 / part.max(1) as f64;
                        (glyph::heat(share), Role::heat(share.max(0.05)))
                    }
                };
                let at = (
                    body.x + column as u16,
                    body.bottom() - 1 - (row as u16).min(body.height - 1),
                );
                let Some(cell) = buf.cell_mut(at) else {
                    continue;
                };
                cell.set_symbol(symbol);
                cell.set_style(scene.theme.style(role));
                let inside = marked.is_some_and(|s| begin >= s.from_ns && end <= s.to_ns);
                if inside || Some((first_second + column as u64, row)) == cursor {
                    cell.set_style(scene.theme.style(Role::Cursor));
                }
            }
        }
    }

    /// What is under the cursor, what is marked, and how far back the map can know.
    fn foot(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer, map: &HeatMap, cpu: u32) {
        let theme = scene.theme;
        let y = ABOVE + map.rows as u16 + 2;
        let cursor = self.cursor();
        let mut pen = Pen::new(buf, theme, area, y);
        pen.gap(1);
        if let Some(span) = span(map, self.from.unwrap_or(cursor), cursor) {
            let tally = scene.model.stalls.tally(&of(cpu), span.from_ns, span.to_ns);
            let key = scene.key(&[Context::Heat], ActionId::Mark);
            let hint = match self.from {
                Some(_) => format!("{key} shows only this time"),
                None => format!("{key} begins to mark"),
            };
            pen.put(&span.clock(), Role::Strong)
                .put(
                    &format!(" {} ended here", text::plural(tally.shown, "stall")),
                    Role::Text,
                )
                .put(&format!("   {hint}"), Role::Dim);
        }
        let reach = match scene.sample().stalls.reason() {
            Some(reason) => format!("stalls are not watched: {reason}"),
            None => {
                let back = scene.sample().at_ns.saturating_sub(known_from(scene));
                let since = text::clock(scene.sample().wall_ns.saturating_sub(back));
                format!("stalls are known since {since}, blank before")
            }
        };
        let reach = text::name(&reach, 200);
        let delay = "delay: longest of the tick around that second, ▁█ 1 us to 1 s";
        let mut pen = Pen::new(buf, theme, area, y + 1);
        pen.gap(1).put(&reach, Role::Faint);
        if pen.room() > text::width(delay) + 3 {
            pen.put(" · ", Role::Faint).put(delay, Role::Faint);
        } else {
            let mut pen = Pen::new(buf, theme, area, y + 2);
            pen.gap(1).whole(&[delay], Role::Faint);
        }
    }
}

/// The stalls that the map shows.
fn of(cpu: u32) -> Filter {
    Filter {
        cpu: Some(cpu),
        ..Filter::default()
    }
}

/// The map up to the newest sample of what is shown: it does not move with the tick.
fn map(scene: &Scene<'_>, cpu: u32, columns: usize, rows: usize) -> HeatMap {
    let sample = scene.sample();
    let until = (sample.at_ns, sample.wall_ns);
    scene.model.stalls.heat(&of(cpu), until, columns, rows)
}

/// From when on a stall would be known, `CLOCK_BOOTTIME` in ns: since it is watched, and as
/// far back as stalls are kept.
fn known_from(scene: &Scene<'_>) -> u64 {
    if scene.sample().stalls.value().is_none() {
        return u64::MAX;
    }
    let stalls = &scene.model.stalls;
    let oldest = match stalls.dropped() {
        0 => 0,
        _ => stalls.iter().next().map_or(0, |s| s.at_ns),
    };
    scene.sample().cores.since_ns.max(oldest)
}

/// The time from one cell to another, both included.
fn span(map: &HeatMap, a: Place, b: Place) -> Option<Span> {
    let first = map.first_wall_ns / SECOND;
    let cell = |(second, row): Place| {
        let column = usize::try_from(second.checked_sub(first)?).ok()?;
        (column < map.columns).then_some((column, row))
    };
    let (from_ns, to_ns) = map.span(cell(a)?, cell(b)?);
    let to_wall_ns = map.first_wall_ns.saturating_add(to_ns - map.first_ns);
    Some(Span {
        from_ns,
        to_ns,
        to_wall_ns,
    })
}

/// Parts of the second at the left; below the longest delays and times of day.
fn scale(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, map: &HeatMap, cpu: u32) {
    let theme = scene.theme;
    let each = if map.rows > 12 { map.rows / 5 } else { 1 }.max(1);
    for row in (0..map.rows).step_by(each) {
        let y = ABOVE + (map.rows - 1 - row) as u16;
        let ms = row * 1_000 / map.rows;
        Pen::new(buf, theme, area, y).gap(1).right(
            &ms.to_string(),
            usize::from(LEFT) - 3,
            Role::Dim,
        );
    }
    let y = ABOVE + map.rows as u16;
    let mut pen = Pen::new(buf, theme, area, y);
    pen.gap(1).left("delay", usize::from(LEFT) - 1, Role::Dim);
    for delay in longest_delays(scene, cpu, map) {
        match delay {
            Some(ns) => {
                let height = ((ns.max(1) as f64).log10() - 3.0) / 6.0;
                pen.put(glyph::block(height), delay_role(ns))
            }
            None => pen.put(" ", Role::Faint),
        };
    }
    let mut pen = Pen::new(buf, theme, area, y + 1);
    pen.gap(usize::from(LEFT));
    for column in (0..map.columns).step_by(20) {
        let wall = map.first_wall_ns + column as u64 * SECOND;
        let about = if column + 9 <= map.columns {
            format!("└{}", text::clock(wall))
        } else {
            String::new()
        };
        pen.left(&about, 20, Role::Faint);
    }
}

/// Of each column the longest softirq delay of the ticks that reach into it.
fn longest_delays(scene: &Scene<'_>, cpu: u32, map: &HeatMap) -> Vec<Option<u64>> {
    let cores = &scene.model.cores;
    let mut out = vec![None; map.columns];
    let Some(row) = cores.numbers().iter().position(|n| *n == cpu) else {
        return out;
    };
    for seq in cores.ticks() {
        let (Some(time), Some(tick)) = (cores.time(seq), cores.cpu(row, seq)) else {
            continue;
        };
        let Some((ns, _)) = tick.delay_max else {
            continue;
        };
        let column = |at: u64| at.saturating_sub(map.first_ns) / SECOND;
        if time.at_ns <= map.first_ns {
            continue;
        }
        // A tick's end belongs to the second before the one that it begins.
        let (from, to) = (column(time.at_ns - time.span_ns), column(time.at_ns - 1));
        // A recording may say that a tick took decades.
        let reached = out
            .iter_mut()
            .take(usize::try_from(to).map_or(usize::MAX, |to| to.saturating_add(1)));
        for most in reached.skip(usize::try_from(from).unwrap_or(usize::MAX)) {
            *most = Some(most.map_or(ns, |m: u64| m.max(ns)));
        }
    }
    out
}
