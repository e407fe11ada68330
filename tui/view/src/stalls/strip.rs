//! A stall's samples as one line of cells, in the order of time.

use stalltop_model::Name;
use stalltop_model::sample::{Seen, Stall, Vector};

use crate::text;
use crate::theme::Role;

use super::watch::Part;

/// Marks of tasks and vectors: the one that held the CPU longest comes first.
const MARKS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// The idle task.
const IDLE: char = '·';
/// Others, where there are more than marks.
const OTHER: char = '?';
/// A slice without a sample.
const UNSEEN: char = ' ';
/// Colours of the first marks.
const ROLES: [Role; 4] = [Role::Warning, Role::Series1, Role::Series2, Role::Series4];

/// Who ran: a vector, or a task by its thread id and comm.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Vector(Vector),
    Idle,
    Task(u32, Name),
}

impl Who {
    fn of(seen: &Seen) -> Self {
        match seen.vector {
            Some(vector) => Self::Vector(vector),
            None if seen.pid == 0 => Self::Idle,
            None => Self::Task(seen.pid, seen.comm.clone()),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Vector(vector) => format!("{} softirq", vector.as_str()),
            Self::Idle => "idle".to_owned(),
            Self::Task(pid, comm) => format!("{}[{pid}]", text::name(comm, 20)),
        }
    }
}

/// Those who ran, with the time in the window that they stand for; the most first.
fn actors(stall: &Stall) -> Vec<(Who, u64)> {
    let mut out: Vec<(Who, u64)> = Vec::new();
    for seen in &stall.timeline {
        let who = Who::of(seen);
        if let Some((_, ns)) = out.iter_mut().find(|(have, _)| *have == who) {
            *ns = ns.saturating_add(seen.weight_ns);
        } else if out.len() < 64 {
            // A hostile recording may hold any number of names.
            out.push((who, seen.weight_ns));
        }
    }
    out.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    out
}

fn mark(actors: &[(Who, u64)], who: &Who) -> (char, Role) {
    if *who == Who::Idle {
        return (IDLE, Role::Faint);
    }
    let busy = actors.iter().filter(|(w, _)| *w != Who::Idle);
    match busy.enumerate().find(|(_, (w, _))| w == who) {
        Some((i, _)) => (
            MARKS.get(i).map_or(OTHER, |m| char::from(*m)),
            ROLES.get(i).copied().unwrap_or(Role::Dim),
        ),
        None => (OTHER, Role::Dim),
    }
}

/// A part of the strip: from where to where, ns from the stall's start, in so many cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Section {
    from: i64,
    to: i64,
    cells: usize,
}

impl Section {
    /// The middle of a cell.
    fn at(&self, cell: usize) -> i64 {
        let length = self.to.saturating_sub(self.from) as f64;
        let part = (cell as f64 + 0.5) / self.cells.max(1) as f64;
        self.from.saturating_add((length * part) as i64)
    }

    /// Where a cell begins.
    fn edge(&self, cell: usize) -> i64 {
        let length = self.to.saturating_sub(self.from) as f64;
        let part = cell as f64 / self.cells.max(1) as f64;
        self.from.saturating_add((length * part) as i64)
    }

    fn per_cell(&self) -> u64 {
        let length = self.to.saturating_sub(self.from).max(0) as u64;
        length / self.cells.max(1) as u64
    }
}

/// Before, in and after the stall: the window has most cells, the others at most a sixth
/// each.
fn sections(stall: &Stall, width: usize) -> [Section; 3] {
    let end = i64::try_from(stall.delay_ns).unwrap_or(i64::MAX).max(1);
    let first = stall.timeline.iter().map(|s| s.offset_ns).min();
    let last = stall.timeline.iter().map(|s| s.offset_ns).max();
    let before = first.unwrap_or(0).min(0);
    let after = last.unwrap_or(end).max(end);
    let cells = |ns: i64| {
        let part = (ns as f64 / end as f64 * width as f64).ceil() as usize;
        if ns == 0 {
            0
        } else {
            part.clamp(3, (width / 6).max(3))
        }
    };
    let (left, right) = (
        cells(before.saturating_neg()),
        cells(after.saturating_sub(end)),
    );
    let section = |from, to, cells| Section { from, to, cells };
    [
        section(before, 0, left),
        section(0, end, width.saturating_sub(left + right).max(1)),
        section(end, after, right),
    ]
}

/// Samples with the stretch of the window that each stands for, one after the other. Each
/// is as long as its weight and as near to its sample as those before it let it be.
fn stretches<'a>(seen: &[&'a Seen], end: i64) -> Vec<(i64, i64, &'a Seen)> {
    let mut from = 0;
    let mut out = Vec::with_capacity(seen.len());
    for sample in seen.iter().filter(|s| s.weight_ns > 0) {
        let weight = i64::try_from(sample.weight_ns).unwrap_or(i64::MAX);
        let latest = sample.offset_ns.min(end).saturating_sub(weight);
        let start = latest.max(from);
        from = start.saturating_add(weight);
        out.push((start, from, *sample));
    }
    out
}

/// The sample that stands for most of a cell of the window.
fn most_of<'a>(stretches: &[(i64, i64, &'a Seen)], from: i64, to: i64) -> Option<&'a Seen> {
    let first = stretches.partition_point(|(_, end, _)| *end <= from);
    stretches[first..]
        .iter()
        .take_while(|(start, ..)| *start < to)
        .max_by_key(|(start, end, _)| end.min(&to).saturating_sub(*start.max(&from)))
        .map(|(.., sample)| *sample)
}

/// The nearest sample to a moment outside the window.
fn nearest<'a>(seen: &[&'a Seen], at: i64) -> Option<&'a Seen> {
    seen.iter()
        .min_by_key(|s| s.offset_ns.abs_diff(at))
        .copied()
}

/// Lines of the strip: what the sections are, the cells, the legend.
pub(super) fn lines(stall: &Stall, width: usize) -> Vec<Vec<Part>> {
    let width = width.max(10);
    let actors = actors(stall);
    let mut seen: Vec<&Seen> = stall.timeline.iter().collect();
    seen.sort_by_key(|s| s.offset_ns);
    let all = sections(stall, width - 2);
    let inside = stretches(&seen, all[1].to);
    let mut cells: Vec<Part> = Vec::new();
    for (i, section) in all.iter().enumerate() {
        if i > 0 {
            push(&mut cells, '│', Role::Line);
        }
        let outside: Vec<&Seen> = seen
            .iter()
            .filter(|s| match i {
                0 => s.offset_ns <= 0,
                _ => s.offset_ns >= section.from,
            })
            .copied()
            .collect();
        for cell in 0..section.cells {
            let found = match i {
                1 => most_of(&inside, section.edge(cell), section.edge(cell + 1)),
                _ => nearest(&outside, section.at(cell)),
            };
            let (c, role) = found.map_or((UNSEEN, Role::Faint), |s| mark(&actors, &Who::of(s)));
            push(&mut cells, c, role);
        }
    }
    let mut out = vec![scale(&all), cells];
    out.extend(legend(&actors, stall.delay_ns, width));
    out
}

fn push(cells: &mut Vec<Part>, c: char, role: Role) {
    match cells.last_mut() {
        Some((text, have)) if *have == role => text.push(c),
        _ => cells.push((c.to_string(), role)),
    }
}

/// What is above the cells: how long each part is.
fn scale(all: &[Section; 3]) -> Vec<Part> {
    let [before, inside, after] = all;
    let length = |s: &Section| text::duration(s.to.saturating_sub(s.from).max(0) as u64);
    let mut parts = Vec::new();
    if before.cells > 0 {
        parts.push(format!("{} before", length(before)));
    }
    parts.push(format!(
        "{} held, 1 cell {}",
        length(inside),
        text::duration(inside.per_cell())
    ));
    if after.cells > 0 {
        parts.push(format!("{} after", length(after)));
    }
    vec![(parts.join(" │ "), Role::Faint)]
}

/// Marks with names and shares, in as many lines as they need.
fn legend(actors: &[(Who, u64)], delay_ns: u64, width: usize) -> Vec<Vec<Part>> {
    let mut out: Vec<Vec<Part>> = Vec::new();
    let mut used = 0;
    for (who, ns) in actors.iter().take(12) {
        let (c, role) = mark(actors, who);
        let share = match ns {
            0 => String::new(),
            ns => format!(" {:.0} %", *ns as f64 / delay_ns.max(1) as f64 * 100.0),
        };
        let text = format!(" {}{share}   ", who.name());
        let wide = text::width(&text) + 1;
        if out.is_empty() || used + wide > width {
            out.push(Vec::new());
            used = 0;
        }
        used += wide;
        if let Some(line) = out.last_mut() {
            line.push((c.to_string(), role));
            line.push((text, Role::Dim));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn seen(offset_ms: i64, weight_ms: u64, pid: u32, comm: &str) -> Seen {
        Seen {
            offset_ns: offset_ms * MS as i64,
            weight_ns: weight_ms * MS,
            pid,
            comm: comm.into(),
            ..Seen::default()
        }
    }

    fn text_of(parts: &[Part]) -> String {
        parts.iter().map(|(t, _)| t.as_str()).collect()
    }

    #[test]
    fn one_cell_a_slice_with_what_was_before_and_after_apart() {
        let stall = Stall {
            delay_ns: 20 * MS,
            timeline: vec![
                seen(-2, 0, 0, "swapper/1"),
                seen(5, 5, 7, "cadvisor"),
                seen(10, 5, 7, "cadvisor"),
                seen(15, 5, 9, "other"),
                seen(21, 0, 16, "ksoftirqd/1"),
            ],
            ..Stall::default()
        };
        let lines = lines(&stall, 28);
        assert_eq!(
            text_of(&lines[0]),
            "2.0 ms before │ 20.0 ms held, 1 cell 1.0 ms │ 1.0 ms after"
        );
        // From 15 ms on nothing was seen until it ended.
        assert_eq!(text_of(&lines[1]), "···│AAAAAAAAAABBBBB     │CCC");
        assert!(text_of(&lines[2]).starts_with("A cadvisor[7] 50 % "));
    }

    #[test]
    fn any_stall_fits_any_width() {
        let absurd = Stall {
            delay_ns: u64::MAX,
            timeline: vec![
                seen(0, 0, 1, "\x1b[2J"),
                Seen {
                    offset_ns: i64::MIN,
                    weight_ns: u64::MAX,
                    ..Seen::default()
                },
                Seen {
                    offset_ns: i64::MAX,
                    ..Seen::default()
                },
            ],
            ..Stall::default()
        };
        for stall in [absurd, Stall::default()] {
            for width in [0, 1, 12, 80, 500] {
                let lines = lines(&stall, width);
                let cells = text_of(&lines[1]);
                assert!(text::width(&cells) <= width.max(12), "{width} {cells:?}");
                assert!(lines.iter().all(|l| !text_of(l).contains('\x1b')));
            }
        }
    }
}
