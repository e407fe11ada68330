//! What stalls have in common.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::filter::{Filter, Named, culprit, function, owner, syscall};
use super::holds::held;
use crate::name::printable;
use crate::sample::{Stall, StallKind, Vector};

/// A property to group by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupBy {
    /// Who held the CPU.
    Culprit,
    /// The kernel function it was in.
    Function,
    /// The CPU.
    Cpu,
    /// The softirq vector.
    Vector,
    /// The kind of stall.
    Kind,
    /// The culprit's unit, container or pod.
    Owner,
    /// The system call it was in.
    Syscall,
}

impl GroupBy {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Culprit,
        Self::Function,
        Self::Cpu,
        Self::Vector,
        Self::Kind,
        Self::Owner,
        Self::Syscall,
    ];

    /// A heading.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Culprit => "culprit",
            Self::Function => "function",
            Self::Cpu => "cpu",
            Self::Vector => "vector",
            Self::Kind => "kind",
            Self::Owner => "owner",
            Self::Syscall => "syscall",
        }
    }

    /// What a stall has of this property.
    pub fn key(self, stall: &Stall) -> Key {
        match self {
            Self::Culprit => Key::Culprit(culprit(stall).cloned()),
            Self::Function => Key::Function(function(stall).cloned()),
            Self::Cpu => Key::Cpu(stall.cpu),
            Self::Vector => Key::Vector(stall.vector),
            Self::Kind => Key::Kind(stall.kind),
            Self::Owner => Key::Owner(owner(stall).cloned()),
            Self::Syscall => Key::Syscall(syscall(stall).cloned()),
        }
    }
}

/// What the stalls of a group have in common; `None` where they have none, or it is not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The culprit's comm, or the vector that held the CPU.
    Culprit(Named),
    /// The kernel function.
    Function(Named),
    /// The CPU.
    Cpu(u32),
    /// The vector.
    Vector(Option<Vector>),
    /// The kind.
    Kind(StallKind),
    /// Unit, container or pod.
    Owner(Named),
    /// The system call.
    Syscall(Named),
}

impl Key {
    /// Narrows a filter down to this.
    pub fn narrow(&self, filter: &mut Filter) {
        match self {
            Self::Culprit(name) => filter.culprit = Some(name.clone()),
            Self::Function(name) => filter.function = Some(name.clone()),
            Self::Cpu(cpu) => filter.cpu = Some(*cpu),
            Self::Vector(vector) => filter.vector = Some(*vector),
            Self::Kind(kind) => filter.kind = Some(*kind),
            Self::Owner(name) => filter.owner = Some(name.clone()),
            Self::Syscall(name) => filter.syscall = Some(name.clone()),
        }
    }
}

/// As a row of a table names it, fit for a terminal.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |f: &mut fmt::Formatter<'_>, name: &Named, none: &str| match name {
            Some(name) => f.pad(&printable(name)),
            None => f.pad(none),
        };
        match self {
            Self::Culprit(name) => named(f, name, "not known"),
            Self::Function(name) => named(f, name, "not known"),
            Self::Cpu(cpu) => f.pad(&format!("cpu {cpu}")),
            Self::Vector(vector) => f.pad(vector.map_or("no vector", Vector::as_str)),
            Self::Kind(kind) => f.pad(kind.as_str()),
            Self::Owner(name) => named(f, name, "not known"),
            Self::Syscall(name) => named(f, name, "no syscall"),
        }
    }
}

/// Stalls that have something in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What they have in common.
    pub key: Key,
    /// How often they held a CPU: stalls that tell of one hold count once ([`held`]).
    pub count: u32,
    /// How many stalls.
    pub rows: u32,
    /// Their part of all stalls that were grouped, 0 to 1.
    pub share: f32,
    /// For how long they held CPUs, ns: the time of a CPU counts once.
    pub total_ns: u64,
    /// The longest delay, ns.
    pub worst_ns: u64,
    /// The number of the stall with that delay.
    pub worst_id: u64,
    /// The median delay, ns.
    pub typical_ns: u64,
    /// `CLOCK_BOOTTIME` of the end of the newest one, ns.
    pub newest_ns: u64,
    /// The most frequent culprit and function of the group.
    pub top: Top,
}

/// The most frequent culprit and function of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// The culprit's comm.
    pub culprit: Named,
    /// The kernel function it was in.
    pub function: Named,
    /// In how many of the group's stalls both are so.
    pub count: u32,
}

/// In one line: `87 % of 41 stalls on cpu 11: cadvisor in memory_stat_show`. A single one needs no
/// share, and what the group is by is not said twice.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if self.count == 1 { "stall" } else { "stalls" };
        if self.key == Key::Culprit(None) {
            return write!(f, "{} {of} whose culprit is not known", self.count);
        }
        if self.count > 1 {
            let share = f64::from(self.top.count) * 100.0 / f64::from(self.rows.max(1));
            write!(f, "{share:.0} % of ")?;
        }
        write!(f, "{} {of}", self.count)?;
        match &self.key {
            Key::Cpu(cpu) => write!(f, " on cpu {cpu}")?,
            Key::Vector(Some(vector)) => write!(f, " of {}", vector.as_str())?,
            Key::Vector(None) => write!(f, " without a vector")?,
            Key::Kind(kind) => write!(f, " of kind {}", kind.as_str())?,
            Key::Function(Some(name)) => write!(f, " in {}", printable(name))?,
            Key::Function(None) => write!(f, " in no known kernel function")?,
            Key::Culprit(None) => {}
            Key::Culprit(Some(name)) | Key::Owner(Some(name)) => {
                write!(f, " by {}", printable(name))?;
            }
            Key::Owner(None) => write!(f, " by no known unit or container")?,
            Key::Syscall(Some(name)) => write!(f, " in {}(2)", printable(name))?,
            Key::Syscall(None) => write!(f, " outside system calls")?,
        }
        let culprit = self.top.culprit.as_ref().map(|name| printable(name));
        let function = self.top.function.as_ref().map(|name| printable(name));
        match (&self.key, culprit, function) {
            (Key::Culprit(_), _, Some(function)) => write!(f, ": in {function}"),
            (Key::Culprit(_), _, None) => write!(f, ": in no known kernel function"),
            (_, None, _) => write!(f, ": culprit not known"),
            (Key::Function(_), Some(culprit), _) | (_, Some(culprit), None) => {
                write!(f, ": {culprit}")
            }
            (_, Some(culprit), Some(function)) => write!(f, ": {culprit} in {function}"),
        }
    }
}

/// What some stalls have in common, by one property: most first, among equals the most time
/// first. For those that [`StallsModel::groups`](super::StallsModel::groups) cannot choose.
pub fn groups<'a>(by: GroupBy, stalls: impl Iterator<Item = &'a Arc<Stall>>) -> Vec<Group> {
    let mut members: HashMap<Key, Vec<&Stall>> = HashMap::new();
    let mut all = 0u32;
    for stall in stalls {
        members.entry(by.key(stall)).or_default().push(stall);
        all += 1;
    }
    let mut groups: Vec<Group> = members
        .into_iter()
        .map(|(key, members)| group(key, &members, all))
        .collect();
    // The key's text last: a hash map has no order of its own, a screen needs one.
    groups.sort_by_cached_key(|g| (std::cmp::Reverse((g.count, g.total_ns)), g.key.to_string()));
    groups
}

/// Culprit and function.
type Pair<'a> = (Option<&'a str>, Option<&'a str>);

fn group(key: Key, members: &[&Stall], all: u32) -> Group {
    let mut delays: Vec<u64> = members.iter().map(|s| s.delay_ns).collect();
    delays.sort_unstable();
    let worst = members.iter().max_by_key(|s| s.delay_ns);
    let mut pairs: HashMap<Pair<'_>, (u32, &Stall)> = HashMap::new();
    for stall in members {
        let pair = (culprit(stall).map(|n| &**n), function(stall).map(|n| &**n));
        pairs.entry(pair).or_insert((0, stall)).0 += 1;
    }
    // What is known before what is not, then by name: the same stalls give the same line.
    let top = pairs
        .into_iter()
        .max_by_key(|(pair, (count, _))| (*count, pair.0.is_some(), std::cmp::Reverse(*pair)))
        .map(|(_, (count, stall))| Top {
            culprit: culprit(stall).cloned(),
            function: function(stall).cloned(),
            count,
        });
    let held = held(members.iter().copied());
    Group {
        key,
        count: held.count,
        rows: members.len() as u32,
        share: members.len() as f32 / all.max(1) as f32,
        total_ns: held.total_ns,
        worst_ns: delays.last().copied().unwrap_or(0),
        worst_id: worst.map_or(0, |s| s.id),
        typical_ns: median(&delays),
        newest_ns: members.iter().map(|s| s.at_ns).max().unwrap_or(0),
        top: top.unwrap_or_default(),
    }
}

/// The median of ascending values: the lower one of two.
fn median(ascending: &[u64]) -> u64 {
    let middle = ascending.len().saturating_sub(1) / 2;
    ascending.get(middle).copied().unwrap_or(0)
}
