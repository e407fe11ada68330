//! Which CPUs and groups have a row, and in what order.

use std::collections::BTreeMap;
use std::ops::Range;

use stalltop_model::model::cores::CoresModel;
use stalltop_model::sample::Vector;

use super::marks::Marks;
use crate::listing::{Listed, Listing, Place, SortOrder};
use crate::pane::{Scene, matches};

/// From so many CPUs on, calm ones are grouped.
const GROUPED_FROM: usize = 32;
/// Groups that an automatic choice shows at most.
const GROUPS_AT_MOST: usize = 24;
/// A delay that makes a CPU stand out, ns.
const STALL_NS: u64 = 1_000_000;

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RowKey {
    /// All CPUs.
    All,
    /// A group: its level and its number there.
    Group(Level, u32),
    /// One CPU by its number.
    Cpu(u32),
}

/// How CPUs are grouped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Level {
    /// The finest level that fits.
    #[default]
    Auto,
    /// Not at all.
    Cpu,
    /// By core: the lowest CPU of each.
    Core,
    /// By last-level cache.
    Llc,
    /// By NUMA node.
    Node,
}

impl Level {
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Auto => Self::Cpu,
            Self::Cpu => Self::Core,
            Self::Core => Self::Llc,
            Self::Llc => Self::Node,
            Self::Node => Self::Auto,
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Auto => "grouped by what fits",
            Self::Cpu => "not grouped",
            Self::Core => "by core",
            Self::Llc => "by cache",
            Self::Node => "by NUMA node",
        }
    }
}

/// Sort orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// Longest delay, then ksoftirqd, then softirq share.
    #[default]
    Worst,
    /// Longest delay.
    Delay,
    /// Softirq share of the tick shown.
    Share,
    /// ksoftirqd's share of the tick shown.
    Ksoftirqd,
    /// Longest wait of a task for the CPU.
    RunDelay,
    /// Softirqs a second.
    Rate,
    /// CPU number.
    Number,
}

impl SortOrder for Order {
    const ALL: &'static [Self] = &[
        Self::Worst,
        Self::Delay,
        Self::Share,
        Self::Ksoftirqd,
        Self::RunDelay,
        Self::Rate,
        Self::Number,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Worst => "worst first",
            Self::Delay => "by delay",
            Self::Share => "by softirq share",
            Self::Ksoftirqd => "by ksoftirqd",
            Self::RunDelay => "by run-queue delay",
            Self::Rate => "by rate",
            Self::Number => "by number",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub key: RowKey,
    /// Positions of its CPUs in the model.
    pub members: Vec<usize>,
    pub figures: Figures,
    /// Inside an unfolded group.
    pub inside: bool,
    /// For a group: whether its CPUs are shown.
    pub open: Option<bool>,
}

impl Listed for Row {
    type Key = RowKey;
    type Order = Order;

    fn key(&self) -> RowKey {
        self.key
    }

    fn place(&self) -> Place {
        Place {
            depth: self.inside.into(),
            open: self.open,
            ..Place::default()
        }
    }
}

/// What a row shows of the tick and the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub online: usize,
    pub softirq: Option<f32>,
    pub hardirq: Option<f32>,
    pub busy: Option<f32>,
    pub steal: Option<f32>,
    pub ksoftirqd: Option<f32>,
    pub ksoftirqd_wait: Option<f32>,
    pub per_s: f64,
    pub delay: Option<(u64, Vector)>,
    pub service: Option<(u64, Vector)>,
    pub top: Option<(Vector, f32)>,
    pub squeeze: Option<u64>,
    pub dropped: Option<u64>,
    /// How many stalls, and the longest, ns; `None` where they are not watched.
    pub stalls: Option<(u64, u64)>,
    /// The longest wait of a task for the CPU, ns.
    pub run_delay: Option<u64>,
}

/// The figures of one CPU. Delays, longest runs, stalls and packet counts are those of the
/// window.
fn figures(
    cores: &CoresModel,
    row: usize,
    seq: u64,
    window: &Range<u64>,
    marks: Option<&Marks>,
) -> Figures {
    let mut out = Figures::default();
    let cpu = cores.numbers().get(row).copied().unwrap_or(u32::MAX);
    out.stalls = marks.map(|marks| marks.count(cpu, window).unwrap_or((0, 0)));
    if let Some(tick) = cores.cpu(row, seq) {
        out.online = usize::from(tick.online);
        out.softirq = tick.softirq;
        out.hardirq = tick.hardirq;
        out.busy = tick.busy;
        out.steal = tick.steal;
        out.ksoftirqd = tick.ksoftirqd;
        out.ksoftirqd_wait = tick.ksoftirqd_wait;
        out.per_s = f64::from(tick.per_s);
        out.top = tick.top;
    }
    for tick in window.clone().filter_map(|seq| cores.cpu(row, seq)) {
        longest(&mut out.delay, tick.delay_max);
        longest(&mut out.service, tick.service_max);
        total(&mut out.squeeze, tick.time_squeeze.map(u64::from));
        total(&mut out.dropped, tick.dropped.map(u64::from));
        out.run_delay = out.run_delay.max(tick.run_delay.map(|d| d.max_ns));
    }
    out
}

/// The figures of some CPUs together: of each the worst one's, rates and counts summed.
fn together(all: &[Figures], members: &[usize]) -> Figures {
    let mut out = Figures::default();
    let mut top_share = -1.0f32;
    for f in members.iter().filter_map(|m| all.get(*m)) {
        out.online += f.online;
        most(&mut out.softirq, f.softirq);
        most(&mut out.hardirq, f.hardirq);
        most(&mut out.busy, f.busy);
        most(&mut out.steal, f.steal);
        most(&mut out.ksoftirqd, f.ksoftirqd);
        most(&mut out.ksoftirqd_wait, f.ksoftirqd_wait);
        out.per_s += f.per_s;
        let share = f.softirq.unwrap_or(0.0);
        if f.top.is_some() && share > top_share {
            top_share = share;
            out.top = f.top;
        }
        longest(&mut out.delay, f.delay);
        longest(&mut out.service, f.service);
        total(&mut out.squeeze, f.squeeze);
        total(&mut out.dropped, f.dropped);
        out.run_delay = out.run_delay.max(f.run_delay);
        if let Some((n, worst)) = f.stalls {
            let (all, most) = out.stalls.unwrap_or((0, 0));
            out.stalls = Some((all + n, most.max(worst)));
        }
    }
    out
}

fn total(out: &mut Option<u64>, value: Option<u64>) {
    if let Some(n) = value {
        *out = Some(out.unwrap_or(0) + n);
    }
}

fn most(out: &mut Option<f32>, value: Option<f32>) {
    if let Some(v) = value {
        *out = Some(out.map_or(v, |m| m.max(v)));
    }
}

fn longest(out: &mut Option<(u64, Vector)>, value: Option<(u64, Vector)>) {
    if let Some((ns, _)) = value
        && out.is_none_or(|(most, _)| ns > most)
    {
        *out = value;
    }
}

impl Figures {
    /// How bad it looks, in coarse steps: small differences do not move rows.
    pub(crate) fn badness(&self) -> u64 {
        let delay = match self.worst_ns() {
            0..STALL_NS => 0,
            ns => u64::from((ns / STALL_NS).ilog2()) + 1,
        };
        let share = |s: Option<f32>, step: f32| (s.unwrap_or(0.0) / step) as u64;
        delay * 10_000 + share(self.ksoftirqd, 0.1) * 100 + share(self.softirq, 0.25)
    }

    /// The longest delay or stall, ns.
    pub(crate) fn worst_ns(&self) -> u64 {
        let delay = self.delay.map_or(0, |(ns, _)| ns);
        delay.max(self.stalls.map_or(0, |(_, ns)| ns))
    }

    fn sort_key(&self, order: Order) -> u64 {
        let share = |s: Option<f32>| ((s.unwrap_or(-1.0) + 1.0) * 1e6) as u64;
        match order {
            Order::Worst => self.badness(),
            Order::Delay => self.delay.map_or(0, |(ns, _)| ns + 1),
            Order::Share => share(self.softirq),
            Order::Ksoftirqd => share(self.ksoftirqd),
            Order::RunDelay => self.run_delay.map_or(0, |ns| ns + 1),
            Order::Rate => self.per_s as u64,
            Order::Number => 0,
        }
    }
}

/// Groups of a level by the numbers that name them, ascending. A core is named by its
/// lowest CPU, as `core_id` is unique only within its package.
fn groups(cores: &CoresModel, level: Level) -> Vec<(u32, Vec<usize>)> {
    let mut out: BTreeMap<(u32, u32), (u32, Vec<usize>)> = BTreeMap::new();
    for (row, cpu) in cores.numbers().iter().enumerate() {
        let place = cores.topology(row).map_or((0, 0), |t| match level {
            Level::Auto | Level::Cpu => (0, *cpu),
            Level::Core => (t.package, t.core),
            Level::Llc => (0, t.llc),
            Level::Node => (0, t.node),
        });
        let name = if level == Level::Core { *cpu } else { place.1 };
        out.entry(place)
            .or_insert_with(|| (name, Vec::new()))
            .1
            .push(row);
    }
    let mut out: Vec<_> = out.into_values().collect();
    out.sort_by_key(|(name, _)| *name);
    out
}

/// The level in use: what was asked for, or the finest that fits.
pub(crate) fn level_in_use(cores: &CoresModel, wish: Level) -> Level {
    let n = cores.numbers().len();
    if wish != Level::Auto {
        return wish;
    }
    if n < GROUPED_FROM {
        return Level::Cpu;
    }
    if cores.topology(0).is_none() {
        return Level::Node;
    }
    [Level::Core, Level::Llc, Level::Node]
        .into_iter()
        .find(|level| groups(cores, *level).len() <= GROUPS_AT_MOST)
        .unwrap_or(Level::Node)
}

/// The rows, in order: all CPUs together, the CPUs that stand out, then groups or CPUs.
pub(crate) fn build(
    scene: &Scene<'_>,
    level: Level,
    window: &Range<u64>,
    marks: &Marks,
    asked: &Listing<Row>,
) -> Vec<Row> {
    let cores = &scene.model.cores;
    let Some(seq) = scene.tick() else {
        return Vec::new();
    };
    let level = level_in_use(cores, level);
    let n = cores.numbers().len();
    let filter = asked.filter.to_lowercase();
    let watched = scene.sample().stalls.value().map(|_| marks);
    let all: Vec<Figures> = (0..n)
        .map(|row| figures(cores, row, seq, window, watched))
        .collect();
    let alone = |row: usize, inside: bool| Row {
        key: RowKey::Cpu(cores.numbers().get(row).copied().unwrap_or(0)),
        members: vec![row],
        figures: all.get(row).copied().unwrap_or_default(),
        inside,
        open: None,
    };
    let mut single: Vec<Row> = Vec::new();
    let mut grouped: Vec<Row> = Vec::new();
    if level == Level::Cpu || !filter.is_empty() {
        single.extend((0..n).map(|row| alone(row, false)).filter(|row| {
            row.members
                .iter()
                .all(|m| matches(&label(cores, *m, &row.figures), &filter))
        }));
    } else {
        single.extend(
            (0..n)
                .map(|row| alone(row, false))
                .filter(|row| row.figures.badness() > 0),
        );
        grouped.extend(groups(cores, level).into_iter().map(|(name, members)| {
            let key = RowKey::Group(level, name);
            Row {
                key,
                figures: together(&all, &members),
                members,
                inside: false,
                open: Some(asked.is_open(&key, false)),
            }
        }));
    }
    sort(&mut single, asked);
    sort(&mut grouped, asked);
    let mut out = Vec::new();
    if n > 1 && filter.is_empty() {
        let members: Vec<usize> = (0..n).collect();
        out.push(Row {
            key: RowKey::All,
            figures: together(&all, &members),
            members,
            inside: false,
            open: None,
        });
    }
    let shown: Vec<RowKey> = single.iter().map(|row| row.key).collect();
    out.extend(single);
    for group in grouped {
        let mut inner: Vec<Row> = Vec::new();
        if group.open == Some(true) {
            inner.extend(group.members.iter().map(|m| alone(*m, true)));
            inner.retain(|row| !shown.contains(&row.key));
            sort(&mut inner, asked);
        }
        out.push(group);
        out.extend(inner);
    }
    out
}

/// Sorts rows as asked for, but while the cursor moves as they stood.
fn sort(rows: &mut [Row], asked: &Listing<Row>) {
    rows.sort_by_cached_key(|row| {
        let held = asked.held(&row.key);
        let worst_first = u64::MAX - row.figures.sort_key(asked.order);
        let number = match row.key {
            RowKey::All => 0,
            RowKey::Group(_, n) | RowKey::Cpu(n) => u64::from(n),
        };
        if asked.reverse {
            (held, u64::MAX - worst_first, u64::MAX - number)
        } else {
            (held, worst_first, number)
        }
    });
}

/// What a filter sees of a CPU.
fn label(cores: &CoresModel, row: usize, f: &Figures) -> String {
    let cpu = cores.numbers().get(row).copied().unwrap_or(0);
    let vector = f.top.map_or("", |(v, _)| v.as_str());
    let state = if f.online == 0 { "offline" } else { "" };
    match cores.topology(row) {
        Some(t) => format!(
            "cpu{cpu} {cpu} node{} llc{} core{} {vector} {state}",
            t.node, t.llc, t.core
        ),
        None => format!("cpu{cpu} {cpu} {vector} {state}"),
    }
}
