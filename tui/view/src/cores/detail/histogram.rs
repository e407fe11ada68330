//! How long a vector's handler ran, and how long it was awaited, on one CPU.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::hist::{BUCKETS, Hist};
use stalltop_model::sample::{CpuSample, Vector};

use crate::action::{ActionId, Context};
use crate::draw::{self, Pen, below};
use crate::glyph;
use crate::pane::Scene;
use crate::text::{self, NONE};
use crate::theme::Role;

use super::super::delay_role;

/// Service time and raise-to-entry delay of one vector, since attach.
pub(super) fn both(
    scene: &Scene<'_>,
    area: Rect,
    buf: &mut Buffer,
    sample: &CpuSample,
    vector: Vector,
) {
    if area.height < 3 {
        return;
    }
    let softirq = &sample.softirqs[vector as usize];
    let keys = scene.key(&[Context::CoreDetail], ActionId::NextVector);
    let title = format!(
        "{}, {} runs since counting began",
        vector.as_str(),
        text::count(softirq.count)
    );
    let next = format!("{keys} next vector");
    draw::section(buf, scene.theme, area, 0, ("HISTOGRAMS", &title, &next));
    match softirq.timing.as_ref() {
        Ok(timing) => {
            let half = (area.width / 2).max(1);
            let rows = below(area, 1);
            let left = Rect {
                width: half,
                ..rows
            };
            let right = Rect {
                x: rows.x + half,
                width: rows.width - half,
                ..rows
            };
            let service = ("time in the handler", &timing.service, timing.max_ns);
            one(scene, left, buf, service);
            let delay = ("raise to entry", &timing.delay, timing.delay_max_ns);
            one(scene, right, buf, delay);
        }
        Err(reason) => {
            let instead = "counts above, from /proc/softirqs";
            draw::missing(buf, scene.theme, area, 2, ("no histogram", reason, instead));
        }
    }
}

/// One histogram with its title, median and longest.
fn one(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, (title, hist, max_ns): (&str, &Hist, u64)) {
    let theme = scene.theme;
    let total = hist.total();
    let mut pen = Pen::new(buf, theme, area, 0);
    pen.gap(1).put(title, Role::Strong);
    if total == 0 {
        Pen::new(buf, theme, area, 1)
            .gap(1)
            .put("none yet", Role::Dim);
        return;
    }
    let quantile = |q| {
        hist.quantile_below_ns(q)
            .map_or_else(|| NONE.into(), text::duration)
    };
    if pen.room() >= 46 {
        pen.put(
            &format!(
                "  half under {}, 99 % under {}, max ",
                quantile(0.5),
                quantile(0.99)
            ),
            Role::Dim,
        );
    } else {
        pen.put("  max ", Role::Dim);
    }
    pen.put(&text::duration(max_ns), delay_role(max_ns));
    let first = hist.0.iter().position(|n| *n > 0).unwrap_or(0);
    let last = hist.0.iter().rposition(|n| *n > 0).unwrap_or(0);
    let room = usize::from(area.height.saturating_sub(1)).max(1);
    // Without room for all buckets, neighbours share a line; nothing is left out.
    let step = (last + 1 - first).div_ceil(room).max(1);
    let groups: Vec<(usize, u64)> = (first..=last)
        .step_by(step)
        .map(|i| (i, hist.0[i..(i + step).min(BUCKETS)].iter().sum()))
        .collect();
    let most = groups.iter().map(|(_, n)| *n).max().unwrap_or(1).max(1);
    let wide = usize::from(area.width).saturating_sub(25);
    for (y, (i, n)) in (1u16..).zip(groups) {
        let mut pen = Pen::new(buf, theme, area, y);
        let floor = Hist::floor_ns(i);
        pen.gap(1)
            .right(
                &text::duration(floor),
                9,
                if floor >= 1_000_000 {
                    delay_role(floor)
                } else {
                    Role::Dim
                },
            )
            .put(" │", Role::Line);
        let bar = glyph::bar(n as f64 / most as f64, wide);
        pen.left(
            &bar,
            wide,
            if floor >= 5_000_000 {
                Role::Warning
            } else {
                Role::Series1
            },
        )
        .right(
            &if n == 0 {
                String::new()
            } else {
                text::count(n)
            },
            10,
            Role::Text,
        );
    }
}
