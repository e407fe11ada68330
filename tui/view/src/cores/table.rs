//! The table of CPUs: fixed columns, the timeline takes what is left.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::sample::Vector;

use crate::draw::{self, Pen};
use crate::pane::Scene;
use crate::text::{self, NONE};
use crate::theme::Role;

use super::marks::Marks;
use super::rows::{Figures, Level, Row, RowKey};
use super::timeline::{self, Scale};
use super::{delay_mark, delay_role};

/// What to draw.
pub(crate) struct Table<'a> {
    pub title: &'a str,
    pub detail: &'a str,
    pub rows: &'a [Row],
    /// The rows in view.
    pub view: Range<usize>,
    /// The row under the cursor.
    pub cursor: Option<usize>,
    pub seq: u64,
    /// Stalls on the timelines.
    pub marks: &'a Marks,
}

/// Columns right of the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Softirq,
    DelayMax,
    Ksoftirqd,
    PerSecond,
    Top,
    Wait,
    ServiceMax,
    Hardirq,
    Busy,
    Steal,
    Squeeze,
    Dropped,
    Stalls,
    RunDelay,
}

/// All columns: heading, width with its gap, from which table width on. Shown in this
/// order; the later ones need more room.
const COLUMNS: &[(Column, &str, usize, u16)] = &[
    (Column::Softirq, "softirq%", 9, 40),
    (Column::DelayMax, "delay max ms", 13, 50),
    (Column::Stalls, "stalls", 7, 112),
    (Column::RunDelay, "runq max ms", 12, 125),
    (Column::ServiceMax, "longest ms", 11, 130),
    (Column::Ksoftirqd, "ksoftirqd%", 11, 60),
    (Column::Wait, "waits%", 7, 135),
    (Column::Hardirq, "hardirq%", 9, 140),
    (Column::Busy, "busy%", 7, 150),
    (Column::Steal, "steal%", 7, 160),
    (Column::Squeeze, "squeezed", 9, 170),
    (Column::Dropped, "dropped", 9, 170),
    (Column::PerSecond, "softirqs/s", 11, 100),
    (Column::Top, "  most time", 15, 72),
];

/// The name column with its marks, at the left.
fn name_width(width: u16) -> usize {
    match width {
        0..60 => 7,
        60..100 => 9,
        100..140 => 19,
        _ => 22,
    }
}

/// Where the rows are, below title and headings.
pub(crate) fn body(area: Rect) -> Rect {
    draw::below(area, 2)
}

/// Draws title, headings and rows.
pub(crate) fn render(scene: &Scene<'_>, area: Rect, buf: &mut Buffer, table: &Table<'_>) {
    let theme = scene.theme;
    if area.height == 0 {
        return;
    }
    let columns: Vec<_> = COLUMNS.iter().filter(|c| c.3 <= area.width).collect();
    let name = name_width(area.width);
    let fixed: usize = columns.iter().map(|c| c.2).sum();
    let cells = usize::from(area.width).saturating_sub(2 + name + fixed + 1);
    let scale = Scale::new(cells, table.seq);
    let end = if table.rows.iter().any(|r| r.members.len() > 1) && area.width >= 100 {
        "groups: their worst cpu, rates summed"
    } else {
        ""
    };
    draw::section(buf, theme, area, 0, (table.title, table.detail, end));
    let mut pen = Pen::new(buf, theme, area, 1);
    let label = scale.label(&scene.model.cores);
    pen.gap(2).left("cpu", name, Role::Faint);
    if cells >= 8 {
        let full = format!(
            "softirq share ▁▂▄█ 100 % · {label} · ▒ ksoftirqd ran · ▲ longest delay · ◆◇ stall"
        );
        let short = format!("softirq ▁█ 100 %, {label}");
        let pick = [full, short, label]
            .into_iter()
            .find(|t| text::width(t) <= cells)
            .unwrap_or_default();
        pen.left(&pick, cells, Role::Faint);
    } else {
        pen.gap(cells);
    }
    for (column, heading, width, _) in &columns {
        if *column == Column::Top {
            pen.left(heading, *width, Role::Faint);
        } else {
            pen.right(heading, *width, Role::Faint);
        }
    }
    let body = body(area);
    let view = table.view.clone();
    for (y, (at, row)) in (0u16..).zip(
        table
            .rows
            .iter()
            .enumerate()
            .skip(view.start)
            .take(view.len()),
    ) {
        let mut pen = Pen::new(buf, theme, body, y);
        let worst = row.figures.worst_ns();
        let (mark, role) = (delay_mark(worst), delay_role(worst));
        pen.put(mark, role).put(" ", Role::Text);
        row_name(&mut pen, scene, row, name);
        pen.gap(cells);
        let offline = row.figures.online == 0;
        for (column, _, width, _) in &columns {
            if offline {
                pen.right(
                    if *column == Column::Softirq {
                        "offline"
                    } else {
                        ""
                    },
                    *width,
                    Role::Faint,
                );
            } else {
                figure(&mut pen, &row.figures, *column, *width);
            }
        }
        let line = Rect::new(
            body.x + (2 + name) as u16,
            body.y + y,
            (cells as u16).min(body.width.saturating_sub((2 + name) as u16)),
            1,
        );
        timeline::draw(
            buf,
            theme,
            line,
            &scene.model.cores,
            &row.members,
            table.marks,
            &scale,
        );
        if table.cursor == Some(at) {
            draw::highlight(buf, theme, body, y, Role::Cursor);
        }
    }
    if table.rows.is_empty() {
        Pen::new(buf, theme, body, 0)
            .gap(2)
            .put("no cpu matches", Role::Dim);
    }
}

fn row_name(pen: &mut Pen<'_>, scene: &Scene<'_>, row: &Row, width: usize) {
    let n = row.members.len();
    let cores = &scene.model.cores;
    match row.key {
        RowKey::All => {
            pen.left(&format!("all {n}"), width, Role::Strong);
        }
        RowKey::Group(level, name) => {
            let kind = match level {
                Level::Core => "core",
                Level::Llc => "llc",
                _ => "node",
            };
            let text = if width >= 18 {
                format!("▸ {kind} {name}, {n} cpus")
            } else {
                format!("▸{kind} {name}")
            };
            pen.left(&text, width, Role::Text);
        }
        RowKey::Cpu(cpu) => {
            let place = row.members.first().and_then(|m| cores.topology(*m));
            let indent = if row.inside { 2 } else { 0 };
            pen.gap(indent).right(&cpu.to_string(), 4, Role::Strong);
            let rest = width.saturating_sub(4 + indent);
            match place.filter(|_| rest >= 14) {
                Some(t) => pen
                    .left(
                        &format!("  node {} llc {}", t.node, t.llc),
                        rest - 1,
                        Role::Faint,
                    )
                    .gap(1),
                None => pen.gap(rest),
            };
        }
    }
}

fn figure(pen: &mut Pen<'_>, f: &Figures, column: Column, width: usize) {
    let share = |pen: &mut Pen<'_>, value: Option<f32>, warn: f32| match value {
        None => {
            pen.right(NONE, width, Role::Faint);
        }
        Some(v) => {
            let role = if v >= warn {
                Role::Warning
            } else if v >= 0.0005 {
                Role::Text
            } else {
                Role::Faint
            };
            pen.right(&text::percent(f64::from(v)), width, role);
        }
    };
    let longest = |pen: &mut Pen<'_>, value: Option<(u64, Vector)>| match value {
        None => {
            pen.right(NONE, width, Role::Faint);
        }
        Some((ns, _)) => {
            pen.right(&text::millis(ns), width, delay_role(ns));
        }
    };
    let count = |pen: &mut Pen<'_>, value: Option<u64>, role: Role| match value {
        None => {
            pen.right(NONE, width, Role::Faint);
        }
        Some(0) => {
            pen.right("0", width, Role::Faint);
        }
        Some(n) => {
            pen.right(&text::count(n), width, role);
        }
    };
    match column {
        Column::Softirq => share(pen, f.softirq, 0.5),
        Column::DelayMax => longest(pen, f.delay),
        Column::ServiceMax => longest(pen, f.service),
        Column::Ksoftirqd => share(pen, f.ksoftirqd, 0.1),
        Column::Wait => share(pen, f.ksoftirqd_wait, 0.1),
        Column::Hardirq => share(pen, f.hardirq, 0.3),
        Column::Busy => share(pen, f.busy, 0.95),
        Column::Steal => share(pen, f.steal, 0.05),
        Column::Stalls => match f.stalls {
            None => {
                pen.right(NONE, width, Role::Faint);
            }
            Some((0, _)) => {
                pen.right("0", width, Role::Faint);
            }
            Some((n, worst)) => {
                pen.right(&text::count(n), width, delay_role(worst));
            }
        },
        Column::RunDelay => match f.run_delay {
            None => {
                pen.right(NONE, width, Role::Faint);
            }
            Some(ns) => {
                let role = if ns < 5_000_000 {
                    Role::Text
                } else {
                    Role::Notice
                };
                pen.right(&text::millis(ns), width, role);
            }
        },
        Column::Squeeze => count(pen, f.squeeze, Role::Notice),
        Column::Dropped => count(pen, f.dropped, Role::Warning),
        Column::PerSecond => {
            pen.right(&text::rate(f.per_s), width, Role::Text);
        }
        Column::Top => match f.top {
            None => {
                pen.gap(2).left(NONE, width - 2, Role::Faint);
            }
            Some((vector, share)) => {
                pen.gap(2).left(vector.as_str(), 8, Role::Text).right(
                    &format!("{:.0} %", share * 100.0),
                    width - 10,
                    Role::Dim,
                );
            }
        },
    }
}
