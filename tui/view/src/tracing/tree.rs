//! The tree of what traces: holders and their programs, instances and their events,
//! dynamic events, kernel probes.

mod bpf;
mod ftrace;
mod kprobes;

use stalltop_model::change::{Entry, Request};
use stalltop_model::model::tracing::{ChangeKind, ChangedAt, Thing, TracingModel};
use stalltop_model::sample::BpfProgram;
use stalltop_model::{Name, Reason};

use super::cost::{self, Cost, Figure};
use crate::listing::{Listed, Listing, Place, SortOrder};
use crate::pane::{Scene, matches};
use crate::text;

/// What a row stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A process that holds BPF programs.
    Holder(u32),
    /// Programs that no process holds.
    Nobody(Orphans),
    /// A perf event without BPF: its process, kind and event.
    Perf(u32, Name, Name),
    /// A program below a holder, or below [`Key::Nobody`] (0).
    Program(u32, u32),
    /// A link whose program is not listed.
    Link(u32),
    /// A tracefs instance; empty for the top level.
    Instance(Name),
    /// A subsystem of an instance.
    System(Name, Name),
    /// An event of an instance: instance, system, name.
    Event(Name, Name, Name),
    /// The dynamic events.
    Dynamics,
    /// One: group, name.
    Dynamic(Name, Name),
    /// The kernel's list of probes.
    Kprobes,
    /// One of them.
    Kprobe(bool, Name, u64),
    /// A source that is missing.
    Missing(&'static str),
}

/// What keeps a program that no process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Orphans {
    /// A path in bpffs.
    Pinned,
    /// What it is attached to: a device, a cgroup, a socket.
    Attached,
    /// Nothing that can be seen.
    Unknown,
}

impl Orphans {
    pub(super) fn of(program: &BpfProgram) -> Self {
        if !program.pins.is_empty() {
            Self::Pinned
        } else if !program.attached.is_empty() {
            Self::Attached
        } else {
            Self::Unknown
        }
    }
}

/// Whether a thing is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    On,
    Off,
    /// Enabled softly by a trigger or another user; does not record.
    Armed,
    /// Has no state of its own, or it is not known.
    None,
}

/// One line of the tree.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub key: Key,
    pub place: Place,
    pub state: State,
    /// What it is.
    pub what: String,
    /// Its kind, in a column of its own.
    pub kind: String,
    /// Who holds it, or what else is to be said.
    pub note: String,
    /// Hits since it was made, where the kernel counts them.
    pub hits: Option<u64>,
    /// What it costs.
    pub cost: Cost,
    /// What makes it suspect; empty for most.
    pub warn: String,
    pub changed: Option<ChangedAt>,
    pub ours: bool,
    /// Why the source is missing.
    pub missing: Option<Reason>,
    /// The place in the order asked for, among its siblings.
    rank: (u64, String),
}

impl Row {
    pub(super) fn new(
        key: Key,
        depth: u16,
        what: impl Into<String>,
        kind: impl Into<String>,
    ) -> Self {
        Self {
            key,
            place: Place {
                depth,
                ..Place::default()
            },
            state: State::None,
            what: what.into(),
            kind: kind.into(),
            note: String::new(),
            hits: None,
            cost: Cost::default(),
            warn: String::new(),
            changed: None,
            ours: false,
            missing: None,
            rank: (0, String::new()),
        }
    }
}

impl Listed for Row {
    type Key = Key;
    type Order = Order;

    fn key(&self) -> Key {
        self.key.clone()
    }

    fn place(&self) -> Place {
        self.place
    }
}

/// Sort orders among siblings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// Most costly first.
    #[default]
    Cost,
    /// As the kernel lists them.
    Kernel,
    /// By name.
    Name,
    /// Most hits first.
    Hits,
    /// What changed since the start first.
    Changed,
}

impl SortOrder for Order {
    const ALL: &'static [Self] = &[
        Self::Cost,
        Self::Kernel,
        Self::Name,
        Self::Hits,
        Self::Changed,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Cost => "most costly first",
            Self::Kernel => "in the kernel's order",
            Self::Name => "by name",
            Self::Hits => "most hits first",
            Self::Changed => "changed first",
        }
    }
}

/// What is shown only when a person asks for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    /// What is stalltop's own.
    pub ours: bool,
    /// The kernel's list of probes.
    pub kprobes: bool,
}

/// A node with what is below it, before folding and filtering.
pub(super) struct Node {
    pub row: Row,
    pub children: Vec<Node>,
    /// Whether it is unfolded unless a person says otherwise.
    pub open: bool,
}

impl Node {
    pub(super) fn leaf(row: Row) -> Self {
        Self {
            row,
            children: Vec::new(),
            open: false,
        }
    }

    /// A node that is unfolded at first.
    pub(super) fn open(row: Row, children: Vec<Self>) -> Self {
        Self {
            row,
            children,
            open: true,
        }
    }

    /// A source that is missing.
    pub(super) fn missing(what: &'static str, reason: &Reason) -> Self {
        let mut row = Row::new(Key::Missing(what), 0, what, "");
        row.missing = Some(reason.clone());
        Self::leaf(row)
    }
}

/// All rows, in order.
pub(crate) fn build(scene: &Scene<'_>, extra: Extra, asked: &Listing<Row>) -> Vec<Row> {
    let tracing = scene.tracing();
    let marks = Marks {
        all: &scene.model.tracing,
        changes: scene.model.changes(),
        until_ns: scene.wall_ns(),
    };
    let mut roots = Vec::new();
    let costs = cost::shown(scene);
    let at_ns = scene.until_ns();
    bpf::nodes(tracing, (costs, at_ns), &marks, extra.ours, &mut roots);
    ftrace::nodes(tracing, costs, &marks, extra.ours, &mut roots);
    // A filter looks into the list of probes even while it is not shown.
    let listed = extra.kprobes || !asked.filter.is_empty();
    kprobes::nodes(tracing, &marks, listed, &mut roots);
    // Holders change places with what they cost, but not under a person's cursor.
    roots.sort_by_key(|root| asked.held(&root.row.key));
    let filter = asked.filter.to_lowercase();
    let mut out = Vec::new();
    for mut root in roots {
        if keep(&mut root, &filter) {
            arrange(&mut root, asked);
            flatten(root, asked, &mut out);
        }
    }
    out
}

/// Drops what neither matches nor has anything below it that does. What matches keeps all
/// that is below it.
fn keep(node: &mut Node, filter: &str) -> bool {
    let row = &mut node.row;
    row.place.hit = [&row.what, &row.kind, &row.note, &row.warn]
        .iter()
        .any(|t| matches(t, filter));
    let hit = row.place.hit;
    node.children.retain_mut(|child| keep(child, filter) || hit);
    hit || !node.children.is_empty()
}

fn arrange(node: &mut Node, asked: &Listing<Row>) {
    for (i, child) in node.children.iter_mut().enumerate() {
        let row = &mut child.row;
        row.rank = match asked.order {
            Order::Cost => (u64::MAX - row.cost.rank(), format!("{i:06}")),
            Order::Kernel => (i as u64, String::new()),
            Order::Name => (0, row.what.clone()),
            Order::Hits => (u64::MAX - hits(row), row.what.clone()),
            Order::Changed => (
                u64::MAX - row.changed.map_or(0, |c| c.wall_ns),
                row.what.clone(),
            ),
        };
        arrange(child, asked);
    }
    node.children.sort_by(|a, b| a.row.rank.cmp(&b.row.rank));
    if asked.reverse {
        node.children.reverse();
    }
    node.children.sort_by_key(|c| asked.held(&c.row.key));
}

/// What sorts by hits: those of a second, else those since it was made.
fn hits(row: &Row) -> u64 {
    match row.cost.hits {
        Some(Figure::Value(n, _)) if n > 0.0 => 1 + (n * 1e3) as u64,
        Some(Figure::Value(..)) => 1,
        _ => row
            .hits
            .map_or(0, |h| h.saturating_add(1))
            .min(u64::MAX / 2),
    }
}

fn flatten(node: Node, asked: &Listing<Row>, out: &mut Vec<Row>) {
    let mut row = node.row;
    // A filter unfolds everything.
    let open = !asked.filter.is_empty() || asked.is_open(&row.key, node.open);
    row.place.open = (!node.children.is_empty()).then_some(open);
    out.push(row);
    if open {
        for child in node.children {
            flatten(child, asked, out);
        }
    }
}

/// `appeared 22:42:10`, `changed 22:42:10`, `gone since 22:42:10`.
pub(crate) fn changed_text(changed: ChangedAt) -> String {
    let how = match changed.kind {
        ChangeKind::Appeared => "appeared",
        ChangeKind::Differs => "changed",
        ChangeKind::Gone => "off since",
    };
    format!("{how} {}", text::clock(changed.wall_ns))
}

/// What had changed by the time that is shown, and what stalltop did to it.
pub(super) struct Marks<'a> {
    all: &'a TracingModel,
    changes: &'a [Entry],
    until_ns: u64,
}

/// A scan sees what a change did at most so much later, ns.
const SEEN_WITHIN_NS: u64 = 15_000_000_000;
/// The clocks of a scan and of the journal's entry about it may differ by so much, ns.
const SLACK_NS: u64 = 1_000_000_000;

impl Marks<'_> {
    pub(super) fn changed(&self, thing: &Thing) -> Option<ChangedAt> {
        self.all
            .changed(thing)
            .filter(|c| c.wall_ns <= self.until_ns)
    }

    /// Things that were on and are off or gone.
    pub(super) fn gone(&self) -> impl Iterator<Item = (&Thing, ChangedAt)> {
        self.all
            .changes()
            .filter(|(_, c)| c.kind == ChangeKind::Gone && c.wall_ns <= self.until_ns)
            .map(|(thing, c)| (thing, *c))
    }

    /// `by stalltop, change 3`, if the journal explains why an event went off.
    pub(super) fn who(&self, [instance, system, name]: [&str; 3], off: ChangedAt) -> String {
        let ending = format!("/events/{system}/{name}/enable");
        let root = format!("/instances/{instance}/");
        let touches = |path: &str| {
            let here = if instance.is_empty() {
                !path.contains("/instances/")
            } else {
                path.contains(&root)
            };
            here && (path.ends_with(&ending) || path.ends_with("/set_event"))
        };
        let found = self.changes.iter().rev().find(|entry| {
            let in_time = entry.wall_ns <= off.wall_ns.saturating_add(SLACK_NS)
                && off.wall_ns <= entry.wall_ns.saturating_add(SEEN_WITHIN_NS);
            let switches = !matches!(entry.plan.request, Request::On { .. });
            entry.took_effect()
                && in_time
                && switches
                && entry.plan.writes.iter().any(|w| touches(&w.path))
        });
        found.map_or_else(String::new, |entry| {
            format!("by stalltop, change {}", entry.id)
        })
    }
}
