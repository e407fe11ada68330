//! The keys that work here, and what the marks mean.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::action::{ACTIONS, Context, Danger};
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::{Scroll, paper};

/// Marks and cells, as the panes use them.
const MARKS: &[(&str, &str)] = &[
    ("✖ ▲ ·", "a finding or a figure: critical, warning, notice"),
    ("=", "a stall that tells of the same hold as one above it"),
    (
        "● ○ ◐",
        "on, off, soft-armed (enabled by a trigger, not recording)",
    ),
    (
        "self",
        "stalltop's own threads, % of one CPU; probes: its eBPF programs, without their dispatch",
    ),
    (
        "1 kHz",
        "that many CPUs are sampled: about 2 % of each, nearly all of it the interrupts",
    ),
    ("✱", "changed since stalltop started"),
    ("▁▂▄█", "softirq share of one CPU, full cell 100 %"),
    ("░▒▓", "the same, in ticks in which ksoftirqd ran"),
    (
        "▲",
        "in a timeline: where its longest delay ended, from 1 ms on",
    ),
    (
        "◆ ◇",
        "in a timeline: a stall ended there, of 50 ms or more, or shorter",
    ),
    (
        "◆",
        "in a call stack: it runs through somebody's probe (BPF, kprobe, ftrace, perf)",
    ),
    (
        "~ ?",
        "of locks: rests in part on samples of short waits; a lock is suspected, not seen",
    ),
    (
        "s/s",
        "seconds that all waiters together waited per second: 1 keeps one CPU (or task) waiting",
    ),
    (
        "▖▚▙█",
        "in a heat map: how much of the cell's time the CPU stalled",
    ),
    (
        "A B ·",
        "in a stall's timeline: who ran, by the legend; idle",
    ),
    ("×", "in a timeline: the CPU was offline"),
    ("–", "not measured; never a zero"),
    ("▸ ▾", "folded, unfolded"),
];

pub(super) fn render(
    scene: &Scene<'_>,
    stack: &[Context],
    scroll: &Scroll,
    area: Rect,
    buf: &mut Buffer,
) {
    let mut lines: Vec<(String, Role)> = Vec::new();
    for context in stack {
        lines.push((context.title().to_owned(), Role::Title));
        for action in ACTIONS.iter().filter(|a| a.contexts.contains(context)) {
            let keys: Vec<String> = scene
                .keymap
                .keys(action.id)
                .iter()
                .filter(|k| scene.keymap.find(stack, **k) == Some(action.id))
                .map(ToString::to_string)
                .collect();
            if keys.is_empty() {
                continue;
            }
            let asks = match action.danger {
                Danger::None => "",
                Danger::Asks => " *",
            };
            lines.push((
                format!("  {} {}{asks}", text::left(&keys.join(" "), 14), action.doc),
                Role::Text,
            ));
        }
        lines.push((String::new(), Role::Text));
    }
    lines.push((
        "* shows the literal writes and asks first".into(),
        Role::Dim,
    ));
    lines.push((String::new(), Role::Text));
    lines.push(("Marks".into(), Role::Title));
    for (mark, doc) in MARKS {
        lines.push((format!("  {} {doc}", text::left(mark, 14)), Role::Text));
    }
    paper(
        scene,
        area,
        buf,
        ("Keys that work here", &lines, &[]),
        scroll,
    );
}
