//! What tells of stalls where they are not watched: ticks in which something was late.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::sample::Vector;

use crate::cores::{delay_mark, delay_role};
use crate::draw::{self, Pen};
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

/// How many are listed.
const MOST: usize = 200;
/// How many ticks are looked through.
const TICKS: u64 = 300;
/// A delay that counts, ns.
const LATE_NS: u64 = 5_000_000;
/// A part of a tick in which ksoftirqd waited that counts.
const WAITED: f32 = 0.02;

/// A tick in which something was late on a CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    wall_ns: u64,
    cpu: u32,
    ns: u64,
    /// The vector whose entry was late; none for ksoftirqd's wait.
    vector: Option<Vector>,
}

/// Late ticks, newest first.
pub(super) fn late(scene: &Scene<'_>) -> Vec<Late> {
    let cores = &scene.model.cores;
    let (from, to) = scene.times();
    let mut out = Vec::new();
    for seq in cores.ticks().rev().take(TICKS as usize) {
        let Some(time) = cores.time(seq) else {
            continue;
        };
        if time.at_ns <= from || time.at_ns.saturating_sub(time.span_ns) > to {
            continue;
        }
        for (row, cpu) in cores.numbers().iter().enumerate() {
            let Some(tick) = cores.cpu(row, seq) else {
                continue;
            };
            let delay = tick.delay_max.filter(|(ns, _)| *ns >= LATE_NS);
            // A waiting ksoftirqd alone does not prove that softirqs wait: it is told where
            // nothing better is known.
            let wait = tick.ksoftirqd_wait.filter(|w| *w >= WAITED);
            let wait = wait.filter(|_| tick.delay_max.is_none());
            let found = match (delay, wait) {
                (Some((ns, vector)), _) => Some((ns, Some(vector))),
                (None, Some(share)) => {
                    Some(((f64::from(share) * time.span_ns as f64) as u64, None))
                }
                (None, None) => None,
            };
            if let Some((ns, vector)) = found {
                out.push(Late {
                    wall_ns: time.wall_ns,
                    cpu: *cpu,
                    ns,
                    vector,
                });
            }
            if out.len() == MOST {
                return out;
            }
        }
    }
    out
}

/// Draws them with a title.
pub(super) fn render(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, late: &[Late]) {
    let detail = "per tick and cpu, newest first; who held the cpu is not known";
    draw::section(buf, scene.theme, area, 0, ("LATE TICKS", detail, ""));
    for (y, late) in (1u16..area.height).zip(late) {
        let ns = text::duration(late.ns);
        // A wait that may have held up nothing is no alarm.
        let (mark, role) = match late.vector {
            Some(_) => (delay_mark(late.ns), delay_role(late.ns)),
            None => ("·", Role::Notice),
        };
        let mut pen = Pen::new(buf, scene.theme, area, y);
        pen.put(mark, role)
            .gap(1)
            .left(&text::clock(late.wall_ns), 9, Role::Dim)
            .put("cpu ", Role::Dim)
            .left(&late.cpu.to_string(), 5, Role::Strong)
            .right(&ns, 9, role)
            .gap(2);
        match late.vector {
            Some(vector) => pen.put(
                &format!("{} entered late, the longest of that tick", vector.as_str()),
                Role::Text,
            ),
            None => pen.put(
                "ksoftirqd was runnable but waited, in all; softirqs may have",
                Role::Text,
            ),
        };
    }
    if late.is_empty() {
        let say = if scene.tick().is_some() {
            "none in the ticks that are kept"
        } else {
            "rates begin with the second sample"
        };
        Pen::new(buf, scene.theme, area, 1)
            .gap(2)
            .put(say, Role::Dim);
    }
}
