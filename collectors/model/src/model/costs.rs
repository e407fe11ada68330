//! What the probes of others cost, over time and by who holds them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::kept::Kept;
use crate::Name;
use crate::sample::{BpfProgram, Costs, Holder, Sample, Tracing};

/// Points kept: 15 minutes at the default tick.
const KEPT: usize = 900;
/// Bytes that the windows for going back in time may take: a program takes about 250 of them.
const WINDOWS_BYTES: usize = 4 << 20;
/// Holders whose history is kept; those that cost least are left out first.
const HOLDERS_KEPT: usize = 64;

/// What probes cost at one time. Shares are of one CPU: 1.0 is one CPU kept busy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CostPoint {
    /// `CLOCK_BOOTTIME` of the tick, ns.
    pub at_ns: u64,
    /// When the window that this is from ended (`CLOCK_BOOTTIME`, ns): ticks between two windows
    /// repeat the older one's figures.
    pub window_ns: u64,
    /// BPF programs that are not stalltop's; `None` while not measured.
    pub foreign: Option<f64>,
    /// Runs of those programs, a second; `None` while not measured.
    pub runs: Option<f64>,
    /// Probes and events without BPF, an estimate; `None` while not known.
    pub estimated: Option<f64>,
}

/// Who holds BPF programs, as far as costs are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeldBy {
    /// A process: the one with the lowest pid, where several hold a program.
    Process {
        /// Process id.
        pid: u32,
        /// `/proc/PID/comm`.
        comm: Name,
        /// Its unit, container, or the like.
        owner: Name,
    },
    /// No process: pinned, attached, or not known.
    Nobody,
}

/// What one holder's programs cost over time.
#[derive(Clone, Debug, PartialEq)]
pub struct HolderCosts {
    /// Who.
    pub by: HeldBy,
    /// Its programs now.
    pub programs: u32,
    /// One share of one CPU per point of [`CostsModel::points`], the newest last; shorter for
    /// who came later. `None` while not measured.
    pub shares: VecDeque<Option<f64>>,
}

/// Costs over time.
#[derive(Clone, Debug)]
pub struct CostsModel {
    points: VecDeque<CostPoint>,
    holders: Vec<HolderCosts>,
    /// The newest share of each of `holders`.
    newest: Vec<f64>,
    /// What `newest` was worked out from.
    costs: Option<Arc<Costs>>,
    tracing: Option<Arc<Tracing>>,
    /// The newest figures, without their time.
    last: CostPoint,
    windows: Kept<Costs, WINDOWS_BYTES>,
}

impl Default for CostsModel {
    fn default() -> Self {
        Self {
            points: VecDeque::with_capacity(KEPT),
            holders: Vec::new(),
            newest: Vec::new(),
            costs: None,
            tracing: None,
            last: CostPoint::default(),
            windows: Kept::default(),
        }
    }
}

impl CostsModel {
    /// `seq` is the tick of the sample, as for [`super::tracing::TracingModel`].
    pub(super) fn advance(&mut self, now: &Sample, seq: u64) {
        let costs = now.costs.value();
        let new_window = !same(self.costs.as_ref(), costs);
        if new_window || !same(self.tracing.as_ref(), Some(&now.tracing)) {
            self.work_out(costs.map(|c| &**c), &now.tracing);
            self.costs = costs.cloned();
            self.tracing = Some(Arc::clone(&now.tracing));
        }
        if new_window && let Some(costs) = costs {
            self.windows.push(seq, costs, weigh(costs));
        }
        if self.points.len() == KEPT {
            self.points.pop_front();
        }
        self.points.push_back(CostPoint {
            at_ns: now.at_ns,
            ..self.last
        });
        let measured = self.last.foreign.is_some();
        for (holder, share) in self.holders.iter_mut().zip(&self.newest) {
            if holder.shares.len() == KEPT {
                holder.shares.pop_front();
            }
            holder.shares.push_back(measured.then_some(*share));
        }
    }

    fn work_out(&mut self, costs: Option<&Costs>, tracing: &Tracing) {
        self.last = CostPoint::default();
        self.newest.fill(0.0);
        for holder in &mut self.holders {
            holder.programs = 0;
        }
        let Some(costs) = costs else {
            return;
        };
        self.last.window_ns = costs.at_ns;
        self.last.estimated = estimated(costs, tracing);
        let Some(bpf) = tracing.bpf.value() else {
            return;
        };
        if costs.method.value().is_some() {
            let (mut total, mut runs) = (0.0, 0.0);
            for program in bpf.programs.iter().filter(|p| !p.ours) {
                let cost = costs.program(program.id);
                let share = cost.map_or(0.0, |c| c.share);
                total += share;
                runs += cost.map_or(0.0, |c| c.runs_per_s);
                let at = self.holder_of(program);
                self.newest[at] += share;
                self.holders[at].programs += 1;
            }
            self.last.foreign = Some(total);
            self.last.runs = Some(runs);
        }
        self.forget();
    }

    /// The place of a program's holder among `holders`; a new one at the end.
    fn holder_of(&mut self, program: &BpfProgram) -> usize {
        let first = program.holders.iter().min_by_key(|h| h.pid);
        let is = |known: &HolderCosts| match (&known.by, first) {
            (HeldBy::Process { pid, comm, .. }, Some(h)) => *pid == h.pid && *comm == h.comm,
            (HeldBy::Nobody, None) => true,
            _ => false,
        };
        if let Some(at) = self.holders.iter().position(is) {
            return at;
        }
        self.holders.push(HolderCosts {
            by: first.map_or(HeldBy::Nobody, by_of),
            programs: 0,
            shares: VecDeque::with_capacity(KEPT),
        });
        self.newest.push(0.0);
        self.holders.len() - 1
    }

    /// Leaves out holders beyond those kept: those without programs first, then the cheapest.
    fn forget(&mut self) {
        while self.holders.len() > HOLDERS_KEPT {
            let ranks = self.holders.iter().zip(&self.newest);
            let least = ranks
                .enumerate()
                .min_by(|(_, (a, x)), (_, (b, y))| {
                    (a.programs > 0).cmp(&(b.programs > 0)).then(x.total_cmp(y))
                })
                .map(|(at, _)| at);
            let Some(at) = least else {
                return;
            };
            self.holders.swap_remove(at);
            self.newest.swap_remove(at);
        }
    }

    /// One point a tick, oldest first.
    pub fn points(
        &self,
    ) -> impl ExactSizeIterator<Item = &CostPoint> + DoubleEndedIterator + Clone {
        self.points.iter()
    }

    /// Who holds programs of others or did, in no order. A program that several processes hold
    /// counts for one of them only.
    pub fn holders(&self) -> &[HolderCosts] {
        &self.holders
    }

    /// The mean share of one CPU of others' programs over `(from, to]` of `CLOCK_BOOTTIME` in
    /// ns, and from how many windows; `None` where none lies within.
    pub fn foreign_between(&self, from_ns: u64, to_ns: u64) -> Option<(f64, u32)> {
        let (mut sum, mut windows, mut last) = (0.0, 0u32, 0);
        for point in &self.points {
            let (Some(share), true) = (
                point.foreign,
                point.window_ns > from_ns && point.window_ns <= to_ns && point.window_ns != last,
            ) else {
                continue;
            };
            last = point.window_ns;
            sum += share;
            windows += 1;
        }
        (windows > 0).then(|| (sum / f64::from(windows), windows))
    }

    /// The newest window, however long ago it was; `None` before the first one.
    pub fn newest(&self) -> Option<&Costs> {
        self.windows.at(u64::MAX)
    }

    /// The costs as of a tick. `None` before the first window, and for ticks older than the
    /// windows kept.
    pub fn at(&self, seq: u64) -> Option<&Costs> {
        self.windows.at(seq)
    }
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// What a window takes, bytes; names are shared with the windows before and not counted.
fn weigh(costs: &Costs) -> usize {
    let maps = costs.maps.iter().map(|map| size_of_val(&map.programs[..]));
    size_of::<Costs>()
        + size_of_val(&costs.programs[..])
        + size_of_val(&costs.maps[..])
        + maps.sum::<usize>()
        + size_of_val(&costs.dynamic[..])
        + size_of_val(&costs.instances[..])
        + size_of_val(&costs.per_hit[..])
}

fn by_of(holder: &Holder) -> HeldBy {
    HeldBy::Process {
        pid: holder.pid,
        comm: holder.comm.clone(),
        owner: holder.owner.name.clone(),
    }
}

/// What probes and events without BPF cost by estimate; instances of ours are left out.
fn estimated(costs: &Costs, tracing: &Tracing) -> Option<f64> {
    let ours = |name: &Name| {
        let tracefs = tracing.tracefs.value();
        tracefs.is_some_and(|t| t.instances.iter().any(|i| i.ours && i.name == *name))
    };
    let dynamic = costs.dynamic.iter().map(|d| d.share.get());
    let instances = costs
        .instances
        .iter()
        .filter(|i| !ours(&i.name))
        .map(|i| i.share.get());
    dynamic
        .chain(instances)
        .flatten()
        .fold(None, |sum, share| Some(sum.unwrap_or(0.0) + share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reading;
    use crate::sample::{BpfObjects, CostMethod, InstanceCost, Owner, ProgramCost};

    fn program(id: u32, pids: &[u32]) -> BpfProgram {
        let holders = pids.iter().map(|pid| Holder {
            pid: *pid,
            comm: "agent".into(),
            cmdline: "agent".into(),
            owner: Owner::default(),
            by: crate::sample::HeldBy::Link,
        });
        BpfProgram {
            id,
            kind: "kprobe".into(),
            name: "p".into(),
            tag: "0".into(),
            loaded_at_ns: 0,
            uid: 0,
            maps: Vec::new(),
            attached: Vec::new(),
            holders: holders.collect(),
            pins: Vec::new(),
            ours: id == 9,
        }
    }

    fn costs(at_ns: u64, shares: &[(u32, f64)]) -> Reading<Arc<Costs>> {
        let programs = shares.iter().map(|(id, share)| ProgramCost {
            id: *id,
            share: *share,
            ..ProgramCost::default()
        });
        Reading::Value(Arc::new(Costs {
            at_ns,
            method: Reading::Value(CostMethod::Sysctl),
            programs: programs.collect(),
            instances: vec![InstanceCost {
                name: "".into(),
                events_per_s: Reading::Value(1e5),
                lost_per_s: Reading::Value(0.0),
                share: Reading::Value(0.006),
            }],
            ..Costs::default()
        }))
    }

    fn tracing(programs: Vec<BpfProgram>) -> Arc<Tracing> {
        Arc::new(Tracing {
            bpf: Reading::Value(BpfObjects {
                programs,
                links: Vec::new(),
                holders: Reading::Value(()),
            }),
            ..Tracing::default()
        })
    }

    #[test]
    fn others_are_summed_once_and_by_holder() {
        let mut model = CostsModel::default();
        let mut now = Sample {
            at_ns: 1,
            tracing: tracing(vec![
                program(3, &[40, 12]),
                program(4, &[12]),
                program(5, &[]),
                program(9, &[1]),
            ]),
            ..Sample::default()
        };
        model.advance(&now, 0);
        assert_eq!(model.points().last().unwrap().foreign, None);
        now.costs = costs(2, &[(3, 1.5), (4, 0.23), (5, 0.01), (9, 0.3)]);
        for seq in 1..4 {
            now.at_ns += 1;
            model.advance(&now, seq);
        }
        let last = model.points().last().unwrap();
        assert_eq!(
            (last.at_ns, last.window_ns, last.estimated),
            (4, 2, Some(0.006))
        );
        assert!((last.foreign.unwrap() - 1.74).abs() < 1e-9);
        let of = |wanted: Option<u32>| {
            let found = model.holders().iter().find(|h| match h.by {
                HeldBy::Process { pid, .. } => Some(pid) == wanted,
                HeldBy::Nobody => wanted.is_none(),
            });
            found.map(|h| (h.programs, h.shares.len(), *h.shares.back().unwrap()))
        };
        assert_eq!(of(Some(12)), Some((2, 3, Some(1.73))));
        assert_eq!(of(None), Some((1, 3, Some(0.01))));
        assert_eq!((of(Some(40)), of(Some(1))), (None, None));
        // Ticks that repeat a window count once.
        now.costs = costs(9, &[(3, 0.0)]);
        model.advance(&now, 4);
        let (mean, windows) = model.foreign_between(0, 9).unwrap();
        assert!((mean - 0.87).abs() < 1e-9 && windows == 2, "{mean}");
        assert_eq!(model.foreign_between(9, 99), None);
        assert_eq!(model.at(0), None);
        assert_eq!(
            [1, 3, 4, 70].map(|seq| model.at(seq).unwrap().at_ns),
            [2, 2, 9, 9]
        );
        now.costs = Reading::Off(crate::Reason::NotAsked);
        model.advance(&now, 5);
        assert_eq!(model.points().last().unwrap().foreign, None);
        assert!(
            model
                .holders()
                .iter()
                .all(|h| h.shares.back() == Some(&None))
        );
    }

    #[test]
    fn holders_that_come_and_go_do_not_pile_up() {
        let mut model = CostsModel::default();
        let mut now = Sample::default();
        for n in 1..400u32 {
            now.at_ns = n.into();
            now.tracing = tracing(vec![program(1, &[7]), program(2, &[n + 100])]);
            now.costs = costs(n.into(), &[(1, 0.5), (2, 0.1)]);
            model.advance(&now, n.into());
        }
        assert_eq!(model.holders().len(), HOLDERS_KEPT);
        let lasting = model.holders().iter().filter(|h| h.programs > 0);
        assert_eq!(lasting.count(), 2);
    }
}
