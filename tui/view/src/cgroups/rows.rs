//! Which cgroups have a row, and in what order.

use stalltop_model::sample::{Cgroup, Cgroups};
use stalltop_model::{Model, Name};

use crate::listing::{Listed, Listing, Place, SortOrder};
use crate::pane::matches;

/// Sort orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// Slowest read first.
    #[default]
    Read,
    /// Most zombies first.
    Zombies,
    /// Most memory first.
    Memory,
    /// Most processes first.
    Processes,
    /// By path.
    Path,
}

impl SortOrder for Order {
    const ALL: &'static [Self] = &[
        Self::Read,
        Self::Zombies,
        Self::Memory,
        Self::Processes,
        Self::Path,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Read => "slowest read first",
            Self::Zombies => "most zombies first",
            Self::Memory => "most memory first",
            Self::Processes => "most processes first",
            Self::Path => "by path",
        }
    }
}

impl Order {
    fn key(self, cgroup: &Cgroup) -> u64 {
        let known = |n: Option<u64>| n.map_or(0, |n| n + 1);
        match self {
            // In coarse steps: rows of fast reads do not change places every tick.
            Self::Read => known(cgroup.read.value().map(|r| match r.smoothed_ns {
                0..100_000 => 0,
                ns => 1 + u64::from((ns / 100_000).ilog2()),
            })),
            Self::Zombies => known(cgroup.zombies.get()),
            Self::Memory => known(cgroup.used_bytes.get().map(|bytes| bytes >> 22)),
            Self::Processes => known(cgroup.processes.get()),
            Self::Path => 0,
        }
    }
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub path: Name,
    /// Position in the sample's rows.
    pub at: usize,
    pub place: Place,
}

impl Listed for Row {
    type Key = Name;
    type Order = Order;

    fn key(&self) -> Name {
        self.path.clone()
    }

    fn place(&self) -> Place {
        self.place
    }
}

/// All rows, in order.
pub(crate) fn build(model: &Model, as_list: bool, asked: &Listing<Row>) -> Vec<Row> {
    let Some(cgroups) = model.now().cgroups.value() else {
        return Vec::new();
    };
    let filter = asked.filter.to_lowercase();
    let hits: Vec<bool> = cgroups
        .rows
        .iter()
        .map(|c| matches(&c.path, &filter) || matches(&c.owner.name, &filter))
        .collect();
    if as_list {
        flat(cgroups, asked, &hits)
    } else {
        tree(cgroups, asked, &hits)
    }
}

/// The order of siblings, or of all: as held while the cursor moves, else as asked for.
fn sort(rows: &mut [usize], cgroups: &Cgroups, asked: &Listing<Row>, of: impl Fn(usize) -> u64) {
    rows.sort_by_cached_key(|at| {
        let path = &cgroups.rows[*at].path;
        let held = asked.held(path);
        let key = if asked.reverse {
            of(*at)
        } else {
            u64::MAX - of(*at)
        };
        (held, key, path.clone())
    });
    if asked.reverse && asked.order == Order::Path {
        rows.reverse();
    }
}

fn flat(cgroups: &Cgroups, asked: &Listing<Row>, hits: &[bool]) -> Vec<Row> {
    let mut rows: Vec<usize> = (0..cgroups.rows.len()).filter(|at| hits[*at]).collect();
    sort(&mut rows, cgroups, asked, |at| {
        asked.order.key(&cgroups.rows[at])
    });
    rows.into_iter()
        .map(|at| Row {
            path: cgroups.rows[at].path.clone(),
            at,
            place: Place::default(),
        })
        .collect()
}

/// Subtrees stand where their worst member would: a slow child is not hidden below a
/// fast parent.
fn tree(cgroups: &Cgroups, asked: &Listing<Row>, hits: &[bool]) -> Vec<Row> {
    let n = cgroups.rows.len();
    let parent = |at: usize| {
        let p = cgroups.rows[at].parent? as usize;
        // Parents stand before their children; anything else would not end.
        (p < at).then_some(p)
    };
    let mut worst: Vec<u64> = cgroups.rows.iter().map(|c| asked.order.key(c)).collect();
    let mut kept = hits.to_vec();
    for at in (0..n).rev() {
        if let Some(p) = parent(at) {
            worst[p] = worst[p].max(worst[at]);
            kept[p] |= kept[at];
        }
    }
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); n];
    let mut roots = Vec::new();
    for at in (0..n).filter(|at| kept[*at]) {
        match parent(at) {
            Some(p) => children[p].push(at),
            None => roots.push(at),
        }
    }
    sort(&mut roots, cgroups, asked, |at| worst[at]);
    let mut out = Vec::with_capacity(n);
    let mut stack: Vec<(usize, u16)> = roots.into_iter().rev().map(|at| (at, 0)).collect();
    while let Some((at, depth)) = stack.pop() {
        let path = cgroups.rows[at].path.clone();
        let mut below = std::mem::take(&mut children[at]);
        // A filter unfolds everything.
        let open = !asked.filter.is_empty() || asked.is_open(&path, true);
        out.push(Row {
            path,
            at,
            place: Place {
                depth,
                open: (!below.is_empty()).then_some(open),
                hit: hits[at],
            },
        });
        if open {
            sort(&mut below, cgroups, asked, |at| worst[at]);
            stack.extend(below.into_iter().rev().map(|at| (at, depth + 1)));
        }
    }
    out
}
