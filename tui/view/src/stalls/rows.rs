//! Which stalls and groups have a row, and in what order.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use stalltop_model::model::stalls::{self, Filter, Group, GroupBy};
use stalltop_model::sample::{Stall, Vector};

use crate::listing::{Listed, Listing, Place, SortOrder};
use crate::pane::{Scene, matches};

/// What the cursor sticks to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A stall, by its number.
    Stall(u64),
    /// A group.
    Group(stalls::Key),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    /// A stall.
    Stall {
        stall: Arc<Stall>,
        /// In an unfolded group.
        inside: bool,
        /// It tells of the same hold as one above it.
        again: bool,
    },
    /// A group, unfolded or not.
    Group { group: Box<Group>, open: bool },
}

impl Listed for Row {
    type Key = Key;
    type Order = Order;

    fn key(&self) -> Key {
        match self {
            Self::Stall { stall, .. } => Key::Stall(stall.id),
            Self::Group { group, .. } => Key::Group(group.key.clone()),
        }
    }

    fn place(&self) -> Place {
        let (depth, open) = match self {
            Self::Stall { inside, .. } => (u16::from(*inside), None),
            Self::Group { open, .. } => (0, Some(*open)),
        };
        Place {
            depth,
            open,
            ..Place::default()
        }
    }
}

/// Sort orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// The newest first.
    #[default]
    Newest,
    /// The longest first.
    Worst,
}

impl SortOrder for Order {
    const ALL: &'static [Self] = &[Self::Newest, Self::Worst];

    fn title(self) -> &'static str {
        match self {
            Self::Newest => "newest first",
            Self::Worst => "worst first",
        }
    }
}

/// How stalls can be grouped, as the key goes through it.
pub(super) const GROUPINGS: &[Option<GroupBy>] = &[
    None,
    Some(GroupBy::Culprit),
    Some(GroupBy::Function),
    Some(GroupBy::Cpu),
    Some(GroupBy::Kind),
];

/// Which stalls a person wants, beside what is typed after `/`.
#[derive(Clone, Debug, Default)]
pub(super) struct Narrow {
    /// How they are grouped.
    pub by: Option<GroupBy>,
    /// What was narrowed down to by key.
    pub filter: Filter,
}

impl Narrow {
    /// Shows some only; what is folded away anyway stays so. What is all alike needs no groups.
    pub(super) fn to(&mut self, filter: Filter) {
        self.set(filter);
        self.by = None;
    }

    /// Shows everything again, but what is folded away.
    pub(super) fn widen(&mut self) {
        self.set(Filter::default());
    }

    fn set(&mut self, filter: Filter) {
        self.filter = Filter {
            paused: self.filter.paused,
            ours: self.filter.ours,
            ..filter
        };
    }

    /// Whether a key narrowed the list down; what is folded away anyway does not count.
    pub(super) fn is_narrow(&self) -> bool {
        let folded = Filter {
            paused: false,
            ours: false,
            ..self.filter.clone()
        };
        !folded.is_default()
    }
}

/// A filter for the stalls of the same culprit in the same function; of the same kind on
/// the same CPU where neither is known.
pub(super) fn like(stall: &Stall) -> Filter {
    let by = if stall.culprit.value().is_some() {
        [GroupBy::Culprit, GroupBy::Function]
    } else {
        [GroupBy::Kind, GroupBy::Cpu]
    };
    let mut filter = Filter::default();
    for by in by {
        by.key(stall).narrow(&mut filter);
    }
    filter
}

/// The rows, in order.
pub(super) fn build(scene: &Scene<'_>, narrow: &Narrow, asked: &Listing<Row>) -> Vec<Row> {
    let (from, to) = scene.times();
    let text = asked.filter.to_lowercase();
    let mut label = String::new();
    let all = scene.model.stalls.matching(&narrow.filter, from, to);
    let shown: Vec<&Arc<Stall>> = all
        .filter(|stall| {
            text.is_empty() || {
                write_label(&mut label, stall);
                matches(&label, &text)
            }
        })
        .collect();
    let Some(by) = narrow.by else {
        return stalls_in_order(shown, asked, false);
    };
    let mut groups = stalls::groups(by, shown.iter().copied());
    groups.sort_by_cached_key(|group| {
        let held = asked.held(&Key::Group(group.key.clone()));
        let most = match asked.order {
            Order::Newest => u64::from(group.count),
            Order::Worst => group.worst_ns,
        };
        (held, if asked.reverse { most } else { u64::MAX - most })
    });
    let open = |key: &stalls::Key| asked.is_open(&Key::Group(key.clone()), false);
    let mut members: HashMap<stalls::Key, Vec<&Arc<Stall>>> = HashMap::new();
    if groups.iter().any(|group| open(&group.key)) {
        for stall in shown {
            let key = by.key(stall);
            if open(&key) {
                members.entry(key).or_default().push(stall);
            }
        }
    }
    let mut out = Vec::with_capacity(groups.len());
    for group in groups {
        let inside = members.remove(&group.key);
        out.push(Row::Group {
            group: Box::new(group),
            open: inside.is_some(),
        });
        out.extend(
            inside
                .into_iter()
                .flat_map(|m| stalls_in_order(m, asked, true)),
        );
    }
    out
}

/// As asked for, but while the cursor moves as they stood.
fn stalls_in_order(mut stalls: Vec<&Arc<Stall>>, asked: &Listing<Row>, inside: bool) -> Vec<Row> {
    stalls.sort_by_cached_key(|stall| {
        let held = asked.held(&Key::Stall(stall.id));
        let most = match asked.order {
            Order::Newest => (stall.at_ns, 0),
            Order::Worst => (stall.delay_ns, stall.at_ns),
        };
        let down = (u64::MAX - most.0, u64::MAX - most.1);
        (held, if asked.reverse { most } else { down })
    });
    let again = stalls::told_before(stalls.iter().map(|s| &***s));
    let row = |(stall, again): (&Arc<Stall>, bool)| Row::Stall {
        stall: Arc::clone(stall),
        inside,
        again,
    };
    stalls.into_iter().zip(again).map(row).collect()
}

/// What a filter sees of a stall: everything that its row may show.
fn write_label(out: &mut String, stall: &Stall) {
    out.clear();
    let vector = stall.vector.map_or("", Vector::as_str);
    let _ = write!(
        out,
        "cpu{} cpu {} {} {vector} {}",
        stall.cpu,
        stall.cpu,
        stall.kind.as_str(),
        crate::text::clock(stall.wall_ns)
    );
    if let Some(c) = stall.culprit.value() {
        let _ = write!(out, " {}[{}]", c.comm, c.pid);
        let owner = c.owner.value().map(|o| &o.name);
        let names = [
            owner,
            c.cgroup.value(),
            c.syscall.as_ref(),
            c.function.value(),
            c.lock.as_ref(),
            c.file.as_ref(),
        ];
        for name in names.into_iter().flatten() {
            let _ = write!(out, " {name}");
        }
    }
    if stall.ours {
        out.push_str(" ours");
    }
    if stall.pause == stalltop_model::sample::Pause::Paused {
        out.push_str(" paused");
    }
}
