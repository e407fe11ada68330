//! Numbers per softirq vector for the selected CPU or group.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::model::cores::VectorTick;
use stalltop_model::sample::{SOFTIRQS, Vector};

use crate::draw::{self, Pen};
use crate::pane::Scene;
use crate::text::{self, NONE};
use crate::theme::Role;

use super::delay_role;
use super::rows::{Row, RowKey};

/// Rows that the table of CPUs keeps for itself at least, title and heading included.
const TABLE_LEAST: u16 = 9;

/// Rows of the panel with all vectors.
pub(crate) const FULL: u16 = SOFTIRQS as u16 + 2;

/// How many rows the panel takes of `area`: all vectors, the busiest, or nothing.
pub(super) fn height(area: Rect, rows: usize) -> u16 {
    let wanted = (rows as u16).saturating_add(2).max(TABLE_LEAST);
    let full = FULL;
    let spare = area.height.saturating_sub(wanted);
    let most = area.height.saturating_sub(TABLE_LEAST);
    match () {
        () if spare >= full => full,
        () if most >= full => full,
        () if most >= 6 => most.min(full),
        () => 0,
    }
}

/// The vectors of some CPUs together: rates summed, means weighted by runs, maxima kept.
pub(super) fn together(
    scene: &Scene<'_>,
    members: &[usize],
    seq: u64,
) -> Option<[VectorTick; SOFTIRQS]> {
    let mut out: Option<[VectorTick; SOFTIRQS]> = None;
    for row in members {
        let Some(vectors) = scene.model.cores.vectors(*row, seq) else {
            continue;
        };
        let Some(sum) = &mut out else {
            out = Some(*vectors);
            continue;
        };
        for (s, v) in sum.iter_mut().zip(vectors) {
            let runs = s.per_s + v.per_s;
            let mean = |a: Option<f32>, b: Option<f32>| match (a, b) {
                (Some(a), Some(b)) if runs > 0.0 => Some((a * s.per_s + b * v.per_s) / runs),
                (a, b) => a.or(b),
            };
            s.mean_ns = mean(s.mean_ns, v.mean_ns);
            s.delay_mean_ns = mean(s.delay_mean_ns, v.delay_mean_ns);
            s.share = s.share.zip(v.share).map(|(a, b)| a + b);
            s.max_ns = s.max_ns.max(v.max_ns);
            s.delay_max_ns = s.delay_max_ns.max(v.delay_max_ns);
            s.per_s = runs;
        }
    }
    out
}

/// Draws the panel.
pub(crate) fn render(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, row: Option<&Row>, seq: u64) {
    let Some(row) = row else { return };
    let what = match row.key {
        RowKey::All => format!("all {} cpus, this tick", row.members.len()),
        RowKey::Group(..) => format!("the group's {} cpus, this tick", row.members.len()),
        RowKey::Cpu(cpu) => format!("cpu {cpu}, this tick"),
    };
    draw::section(buf, scene.theme, area, 0, ("VECTORS", &what, ""));
    match together(scene, &row.members, seq) {
        Some(vectors) => table(scene, area, buf, &vectors, None),
        None => {
            Pen::new(buf, scene.theme, area, 1).gap(3).put(
                "numbers per vector are kept for fewer ticks than the timeline",
                Role::Dim,
            );
        }
    }
}

/// Heading and one line per vector, from row 1 of `area` on. Without room for all, the
/// ones with the most time (or runs) stay.
pub(super) fn table(
    scene: &Scene<'_>,
    area: Rect,
    buf: &mut Buffer,
    vectors: &[VectorTick; SOFTIRQS],
    chosen: Option<Vector>,
) {
    let theme = scene.theme;
    let wide = area.width >= 76;
    let mut pen = Pen::new(buf, theme, area, 1);
    pen.gap(3)
        .left("vector", 9, Role::Faint)
        .right("runs/s", 11, Role::Faint)
        .right("% of a cpu", 12, Role::Faint);
    if wide {
        pen.right("mean", 10, Role::Faint)
            .right("longest", 10, Role::Faint)
            .right("delay mean", 12, Role::Faint);
    }
    pen.right("delay max", 11, Role::Faint);
    let room = usize::from(area.height.saturating_sub(2));
    let mut shown: Vec<usize> = (0..SOFTIRQS).collect();
    if room < SOFTIRQS {
        shown.sort_by(|a, b| weight(&vectors[*b]).total_cmp(&weight(&vectors[*a])));
        shown.truncate(room);
        shown.sort_unstable();
    }
    for (y, i) in (2u16..).zip(shown) {
        let v = &vectors[i];
        let quiet = v.per_s == 0.0;
        let plain = if quiet { Role::Faint } else { Role::Text };
        let mut pen = Pen::new(buf, theme, area, y);
        let mark = if chosen.is_some_and(|c| c as usize == i) {
            "▸ "
        } else {
            "  "
        };
        pen.gap(1)
            .put(mark, Role::Strong)
            .left(
                Vector::ALL[i].as_str(),
                9,
                if quiet { Role::Faint } else { Role::Strong },
            )
            .right(&text::rate(f64::from(v.per_s)), 11, plain);
        match v.share {
            Some(s) => pen.right(&text::percent(f64::from(s)), 12, plain),
            None => pen.right(NONE, 12, Role::Faint),
        };
        let mean = |pen: &mut Pen<'_>, ns: Option<f32>, width: usize| match ns {
            Some(ns) => pen.right(&text::duration(ns as u64), width, plain).room(),
            None => pen.right(NONE, width, Role::Faint).room(),
        };
        let longest = |pen: &mut Pen<'_>, ns: Option<u64>, width: usize| match ns {
            Some(ns) if !quiet => pen.right(&text::duration(ns), width, delay_role(ns)).room(),
            _ => pen.right(NONE, width, Role::Faint).room(),
        };
        if wide {
            mean(&mut pen, v.mean_ns, 10);
            longest(&mut pen, v.max_ns, 10);
            mean(&mut pen, v.delay_mean_ns, 12);
        }
        longest(&mut pen, v.delay_max_ns, 11);
    }
}

fn weight(v: &VectorTick) -> f32 {
    v.share.unwrap_or(0.0) * 1e9 + v.per_s
}
