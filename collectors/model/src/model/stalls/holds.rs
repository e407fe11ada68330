//! How often, and for how long, CPUs were held.
//!
//! One hold may be seen as several stalls: each vector that waited is one, and so is the task
//! that got no reschedule. Rows of one holder that overlap in time on one CPU are one hold, and
//! the time of a CPU counts once, however many rows tell of it.

use crate::sample::Stall;

/// So many rows are worked out without memory of their own.
const FEW: usize = 192;

/// Stalls as what they tell of: CPUs that were held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How often.
    pub count: u32,
    /// For how long: what each CPU was held, summed over CPUs, ns.
    pub total_ns: u64,
}

/// A row's time on its CPU, and who held it then.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    cpu: u32,
    /// Whether the holder is known, its thread id, and the vector that ran in its place.
    who: (bool, u32, u8),
    from_ns: u64,
    to_ns: u64,
    /// Its place among the rows that were given.
    at: usize,
}

impl Row {
    fn of(at: usize, stall: &Stall) -> Self {
        let culprit = stall.culprit.value();
        Self {
            cpu: stall.cpu,
            who: culprit.map_or((false, 0, 0), |c| {
                (true, c.pid, c.vector.map_or(0, |v| v as u8 + 1))
            }),
            from_ns: stall.at_ns.saturating_sub(stall.delay_ns),
            to_ns: stall.at_ns,
            at,
        }
    }
}

/// How often and how long CPUs were held, by what these stalls tell.
pub fn held<'a>(stalls: impl Iterator<Item = &'a Stall>) -> Held {
    let mut few = [Row::default(); FEW];
    let mut many = Vec::new();
    let mut len = 0;
    for (at, stall) in stalls.enumerate() {
        let row = Row::of(at, stall);
        match few.get_mut(at) {
            Some(slot) => *slot = row,
            None => {
                if many.is_empty() {
                    many.extend_from_slice(&few);
                }
                many.push(row);
            }
        }
        len = at + 1;
    }
    let rows = if many.is_empty() {
        few.get_mut(..len).unwrap_or_default()
    } else {
        &mut many
    };
    let mut out = Held::default();
    each_hold(rows, |_, first| out.count += u32::from(first));
    rows.sort_unstable_by_key(|r| (r.cpu, r.from_ns));
    let (mut cpu, mut until) = (0, 0);
    for row in rows {
        if row.cpu != cpu {
            (cpu, until) = (row.cpu, 0);
        }
        let new = row.to_ns.saturating_sub(row.from_ns.max(until));
        out.total_ns = out.total_ns.saturating_add(new);
        until = until.max(row.to_ns);
    }
    out
}

/// Walks the rows hold by hold, with whether a row begins one.
fn each_hold(rows: &mut [Row], mut f: impl FnMut(&Row, bool)) {
    rows.sort_unstable_by_key(|r| (r.cpu, r.who, r.from_ns, r.at));
    let mut last: Option<(u32, (bool, u32, u8), u64)> = None;
    for row in rows {
        let until = match last {
            Some((cpu, who, until)) if (cpu, who) == (row.cpu, row.who) => until,
            _ => 0,
        };
        // What takes no time at all is a hold of its own.
        let first = row.from_ns >= until;
        f(row, first);
        last = Some((row.cpu, row.who, row.to_ns.max(until)));
    }
}

/// Which of these stalls tell of a hold that one before it in this order told of already.
pub fn told_before<'a>(stalls: impl Iterator<Item = &'a Stall>) -> Vec<bool> {
    let mut rows: Vec<Row> = stalls.enumerate().map(|(at, s)| Row::of(at, s)).collect();
    let mut out = vec![true; rows.len()];
    // The topmost row of each hold stands for it.
    let mut top: Option<usize> = None;
    let tell = |out: &mut Vec<bool>, top: Option<usize>| {
        if let Some(told) = top.and_then(|at| out.get_mut(at)) {
            *told = false;
        }
    };
    each_hold(&mut rows, |row, first| {
        if first {
            tell(&mut out, top);
        }
        top = match top {
            Some(at) if !first => Some(at.min(row.at)),
            _ => Some(row.at),
        };
    });
    tell(&mut out, top);
    out
}
