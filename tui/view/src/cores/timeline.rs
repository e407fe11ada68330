//! A CPU's last minutes in one line of cells.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::model::cores::CoresModel;

use super::marks::Marks;
use crate::glyph;
use crate::pane::Scene;
use crate::theme::{Role, Theme};

/// Ticks that a timeline shows at least: two minutes at the default tick.
const LEAST_TICKS: u64 = 120;
/// A tick in which ksoftirqd had this share of its CPU counts as one in which it ran.
const KSOFTIRQD_RAN: f32 = 0.005;
/// From here on a stall's mark is filled, ns.
const LONG_NS: u64 = 50_000_000;
/// A delay from which on the longest one is marked in the line, ns.
const MARKED_NS: u64 = 1_000_000;

/// Which ticks go into which cells. Cells keep their ticks as time goes on: the line moves
/// by whole cells and does not shimmer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Ticks a cell.
    pub per_cell: u64,
    /// The number of the cell after the last one.
    end: u64,
    /// Cells.
    cells: usize,
    /// The tick shown: the last one of the last cell that has any.
    last: u64,
}

impl Scale {
    /// The scale of a line of `cells` cells that ends with tick `last`.
    pub(crate) fn new(cells: usize, last: u64) -> Self {
        let cells = cells.max(1);
        let per_cell = LEAST_TICKS.div_ceil(cells as u64).max(1);
        Self {
            per_cell,
            end: last / per_cell + 1,
            cells,
            last,
        }
    }

    /// The cell that a tick is in.
    fn of(&self, seq: u64) -> Option<usize> {
        let number = seq / self.per_cell + self.cells as u64;
        let cell = usize::try_from(number.checked_sub(self.end)?).ok()?;
        (cell < self.cells && seq <= self.last).then_some(cell)
    }

    /// The ticks of a cell; none left of where counting began. The newest is at the right.
    fn cell(&self, i: usize) -> Range<u64> {
        let Some(number) = (self.end + i as u64).checked_sub(self.cells as u64) else {
            return 0..0;
        };
        let from = number * self.per_cell;
        from..(from + self.per_cell).min(self.last + 1)
    }

    /// How a heading names it: `2 min · 1 cell 4 s`.
    pub(crate) fn label(&self, cores: &CoresModel) -> String {
        let span = cores.time(self.last).map_or(0, |t| t.span_ns);
        let of = |ticks: u64| seconds(ticks.saturating_mul(span));
        if span == 0 {
            return String::new();
        }
        format!(
            "{}, 1 cell {}",
            of(self.cells as u64 * self.per_cell),
            of(self.per_cell)
        )
    }
}

/// The ticks over which tables look for the longest: the last two minutes at the default
/// tick, up to the tick that is shown.
///
/// Where a time is marked, the ticks that reach into it.
pub(crate) fn window(scene: &Scene<'_>) -> Range<u64> {
    let Some(seq) = scene.tick() else { return 0..0 };
    match scene.span {
        Some(span) => since(scene, span.from_ns),
        None => (seq + 1).saturating_sub(LEAST_TICKS)..seq + 1,
    }
}

/// The ticks up to the one that is shown that ended after a moment of `CLOCK_BOOTTIME`, ns;
/// the one that is shown at least.
pub(crate) fn since(scene: &Scene<'_>, from_ns: u64) -> Range<u64> {
    let Some(seq) = scene.tick() else { return 0..0 };
    let cores = &scene.model.cores;
    let after = |seq: &u64| cores.time(*seq).is_some_and(|t| t.at_ns > from_ns);
    let first = cores.ticks().find(after).unwrap_or(seq);
    first.min(seq)..seq + 1
}

/// `worst first · maxima of the last 2 min`.
pub(crate) fn heading(order: &str, scene: &Scene<'_>) -> String {
    let ticks = window(scene);
    let span = scene.tick().and_then(|seq| scene.model.cores.time(seq));
    let kept = ticks
        .end
        .saturating_sub(ticks.start.max(scene.model.cores.ticks().start));
    if let Some(span) = scene.span {
        return format!("{order} · maxima of the ticks around {}", span.clock());
    }
    match span {
        Some(time) => format!(
            "{order} · maxima of the last {}",
            seconds(kept.saturating_mul(time.span_ns))
        ),
        None => order.to_owned(),
    }
}

/// The mark of a stall by its length: the long ones are filled.
pub(super) fn mark(ns: u64) -> &'static str {
    if ns >= LONG_NS { "◆" } else { "◇" }
}

/// `2 min`, `45 s`, `0.5 s`.
fn seconds(ns: u64) -> String {
    let s = ns as f64 / 1e9;
    match s {
        s if s >= 119.5 => format!("{:.0} min", s / 60.0),
        s if s >= 10.0 || s.fract() < 0.05 || s.fract() > 0.95 => format!("{s:.0} s"),
        s => format!("{s:.1} s"),
    }
}

/// Draws the worst of `rows` (positions in the model) tick by tick: height for the softirq
/// share, shaded where ksoftirqd ran, `▲` where the longest delay ended, `◆` or `◇` over it
/// where a long or a shorter stall did.
pub(crate) fn draw(
    buf: &mut Buffer,
    theme: &Theme,
    area: Rect,
    cores: &CoresModel,
    rows: &[usize],
    marks: &Marks,
    scale: &Scale,
) {
    let area = area.intersection(buf.area);
    if area.is_empty() {
        return;
    }
    let mut longest: Option<(u64, usize)> = None;
    for i in 0..scale.cells.min(usize::from(area.width)) {
        let mut share: Option<f32> = None;
        let mut ksoftirqd = 0.0f32;
        let mut online = false;
        let mut known = false;
        for seq in scale.cell(i) {
            for row in rows {
                let Some(tick) = cores.cpu(*row, seq) else {
                    continue;
                };
                known = true;
                online |= tick.online;
                if let Some(s) = tick.softirq {
                    share = Some(share.map_or(s, |most| most.max(s)));
                }
                ksoftirqd = ksoftirqd.max(tick.ksoftirqd.unwrap_or(0.0));
                if let Some((ns, _)) = tick.delay_max
                    && ns >= MARKED_NS
                    && longest.is_none_or(|(most, _)| ns > most)
                {
                    longest = Some((ns, i));
                }
            }
        }
        let Some(cell) = buf.cell_mut((area.x + i as u16, area.y)) else {
            continue;
        };
        let (symbol, role) = match share {
            _ if known && !online => ("×", Role::Faint),
            None => (if known { "–" } else { " " }, Role::Faint),
            Some(s) => {
                let s = f64::from(s);
                if ksoftirqd >= KSOFTIRQD_RAN {
                    (glyph::shade(s.max(f64::from(ksoftirqd))), Role::Ksoftirqd)
                } else {
                    (glyph::block(s), Role::heat(s))
                }
            }
        };
        cell.set_symbol(symbol);
        cell.set_style(theme.style(role));
    }
    if let Some((ns, i)) = longest
        && let Some(cell) = buf.cell_mut((area.x + i as u16, area.y))
    {
        cell.set_symbol("▲");
        cell.set_style(theme.style(super::delay_role(ns)));
    }
    let mut worst: Vec<u64> = Vec::new();
    for cpu in rows.iter().filter_map(|row| cores.numbers().get(*row)) {
        for mark in marks.cpu(*cpu) {
            let Some(cell) = scale.of(mark.seq) else {
                continue;
            };
            if worst.is_empty() {
                worst.resize(scale.cells, 0);
            }
            worst[cell] = worst[cell].max(mark.ns);
        }
    }
    for (i, ns) in worst.into_iter().enumerate().filter(|(_, ns)| *ns > 0) {
        if i < usize::from(area.width)
            && let Some(cell) = buf.cell_mut((area.x + i as u16, area.y))
        {
            cell.set_symbol(mark(ns));
            cell.set_style(theme.style(super::delay_role(ns)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_their_ticks_as_time_goes_on() {
        let a = Scale::new(30, 1_000);
        let b = Scale::new(30, 1_001);
        assert_eq!(a.per_cell, 4);
        assert_eq!(a.cell(5).start % 4, 0);
        assert_eq!(a.cell(29), 1_000..1_001);
        assert_eq!(b.cell(29), 1_000..1_002);
        assert_eq!(a.end, b.end);
        for i in 0..30 {
            assert!(a.cell(i).all(|seq| a.of(seq) == Some(i)));
        }
        assert_eq!((a.of(1_001), a.of(1)), (None, None));
    }

    #[test]
    fn short_histories_stand_at_the_right() {
        let scale = Scale::new(200, 3);
        assert_eq!(scale.per_cell, 1);
        assert_eq!(scale.cell(199), 3..4);
        assert_eq!(scale.cell(196), 0..1);
        assert!(scale.cell(195).is_empty());
        assert_eq!(Scale::new(0, 0).cells, 1);
    }
}
