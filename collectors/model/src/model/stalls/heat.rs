//! Seconds across, the part of the second up (FlameScope's subsecond-offset heat map,
//! Gregg 2018): what happens at the same moment of each second stands in one row.
//!
//! Offered is what is known for certain: when CPUs stalled. Time without a stall was not
//! sampled, so cells do not show how busy a CPU was.

use crate::sample::Stall;

const SECOND: u64 = 1_000_000_000;

/// When CPUs stalled.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// `CLOCK_BOOTTIME` of the start of the first column, ns.
    pub first_ns: u64,
    /// `CLOCK_REALTIME` of the start of the first column, ns since 1970: a whole second.
    pub first_wall_ns: u64,
    /// Seconds across.
    pub columns: usize,
    /// Parts of a second up, the first at the start of the second.
    pub rows: usize,
    /// Column by column.
    cells: Vec<HeatCell>,
}

/// One part of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeatCell {
    /// Time of stalls in it, ns: of overlapping stalls and of several CPUs the sum.
    pub stalled_ns: u64,
    /// Stalls that reach into it.
    pub stalls: u32,
}

impl HeatMap {
    pub(super) fn new((until_ns, wall_ns): (u64, u64), columns: usize, rows: usize) -> Self {
        let (columns, rows) = (columns.clamp(1, 1 << 12), rows.clamp(1, 1_000));
        // The last column is the second that `until_ns` is in; near the boot there is less.
        let into_last = wall_ns % SECOND;
        let back = into_last + (columns as u64 - 1) * SECOND;
        Self {
            first_ns: until_ns.saturating_sub(back),
            first_wall_ns: wall_ns.saturating_sub(back.min(until_ns)),
            columns,
            rows,
            cells: vec![HeatCell::default(); columns * rows],
        }
    }

    pub(super) fn add(&mut self, stall: &Stall) {
        let begin = stall
            .at_ns
            .saturating_sub(stall.delay_ns)
            .max(self.first_ns);
        let last = self.columns as u64 * SECOND;
        let mut at = begin - self.first_ns;
        let end = stall.at_ns.saturating_sub(self.first_ns).min(last);
        while at < end {
            let index = self.index(at);
            let until = self.offset(index + 1).min(end);
            let cell = &mut self.cells[index];
            cell.stalled_ns = cell.stalled_ns.saturating_add(until - at);
            cell.stalls += 1;
            at = until;
        }
    }

    /// The cell that holds an offset from the first column's start.
    fn index(&self, offset_ns: u64) -> usize {
        let (second, part) = (offset_ns / SECOND, offset_ns % SECOND);
        let row = part * self.rows as u64 / SECOND;
        second as usize * self.rows + row as usize
    }

    /// Where a cell begins: the least offset whose `index` it is.
    fn offset(&self, index: usize) -> u64 {
        let (second, row) = (index / self.rows, index % self.rows);
        second as u64 * SECOND + (row as u64 * SECOND).div_ceil(self.rows as u64)
    }

    /// A cell.
    pub fn cell(&self, column: usize, row: usize) -> Option<&HeatCell> {
        if column >= self.columns || row >= self.rows {
            return None;
        }
        self.cells.get(column * self.rows + row)
    }

    /// The time that an area of cells covers, from its first cell to its last one, both
    /// included, in the order of time: `(from, to]` of `CLOCK_BOOTTIME`, ns, as
    /// [`Filter::time`](super::Filter::time) takes it.
    pub fn span(&self, from: (usize, usize), to: (usize, usize)) -> (u64, u64) {
        let place = |(column, row): (usize, usize)| {
            column.min(self.columns - 1) * self.rows + row.min(self.rows - 1)
        };
        let (a, b) = (place(from), place(to));
        (
            self.first_ns.saturating_add(self.offset(a.min(b))),
            self.first_ns.saturating_add(self.offset(a.max(b) + 1)),
        )
    }

    /// The most stalled time of a cell, ns: what a scale ends at.
    pub fn most_ns(&self) -> u64 {
        self.cells.iter().map(|c| c.stalled_ns).max().unwrap_or(0)
    }
}
