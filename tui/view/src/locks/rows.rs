//! Which locks, stacks, waiters and CPUs have a row, and in what order.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use stalltop_model::model::locks::frames;
use stalltop_model::model::locks::{LockSum, Over, ShareStackSum, ShareSum, StackSum};
use stalltop_model::sample::{LockKind, LockStack, Locks, ShareStack, Waits};
use stalltop_model::{Name, printable};

use crate::listing::{Listed, Listing, SortOrder};
use crate::pane::{Scene, matches};

use super::names;

/// Windows that a row's history shows at most.
pub(super) const HISTORY: usize = 40;

/// What the rows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum By {
    /// Locks; of samples, lock functions.
    #[default]
    Lock,
    /// Call stacks with their waiters.
    Stack,
    /// Waiting processes.
    Waiter,
    /// CPUs on which waits began, or that were sampled.
    Cpu,
}

impl By {
    pub(super) const ALL: &[Self] = &[Self::Lock, Self::Stack, Self::Waiter, Self::Cpu];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Lock => "by lock",
            Self::Stack => "by stack",
            Self::Waiter => "by waiter",
            Self::Cpu => "by cpu",
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Waits that the tracepoints saw.
    Waits,
    /// Samples in lock slow paths.
    Samples,
}

/// Sort orders; of samples there is one only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    #[default]
    Wait,
    Count,
    Longest,
    Mean,
}

impl SortOrder for Order {
    const ALL: &'static [Self] = &[Self::Wait, Self::Count, Self::Longest, Self::Mean];

    fn title(self) -> &'static str {
        match self {
            Self::Wait => "most wait",
            Self::Count => "most often",
            Self::Longest => "longest",
            Self::Mean => "longest mean",
        }
    }
}

impl Order {
    fn of(self, waits: &Waits) -> (u64, u64) {
        let first = match self {
            Self::Wait => waits.wait_ns,
            Self::Count => waits.count,
            Self::Longest => waits.longest_ns,
            Self::Mean => waits.wait_ns.checked_div(waits.count).unwrap_or(0),
        };
        (first, waits.wait_ns)
    }
}

/// What the cursor sticks to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A lock: kind, address, name.
    Lock(LockKind, u64, Option<Name>),
    /// A lock function that samples were in, or behind which a lock is suspected.
    Function(Name, bool),
    /// A stack, by what makes it one.
    Stack(u64),
    /// A process.
    Waiter(u32),
    /// A CPU.
    Cpu(u32),
    /// Everything: where a flame graph of all is asked for.
    All,
}

impl Key {
    pub(super) fn lock(lock: &LockSum<'_>) -> Self {
        Self::Lock(lock.kind, lock.address, lock.name.value().cloned())
    }

    pub(super) fn stack(stack: &LockStack) -> Self {
        let mut hash = DefaultHasher::new();
        (stack.kind, stack.lock, stack.tgid, &stack.frames).hash(&mut hash);
        Self::Stack(hash.finish())
    }

    pub(super) fn share(stack: &ShareStack) -> Self {
        let mut hash = DefaultHasher::new();
        (&stack.function, stack.suspected, stack.tgid, &stack.frames).hash(&mut hash);
        Self::Stack(hash.finish())
    }

    /// Whether a stack is one of those behind the row.
    pub(super) fn has(&self, sum: &StackSum<'_>) -> bool {
        let stack = sum.stack;
        match self {
            Self::Lock(kind, address, name) => {
                stack.kind == *kind
                    && stack.lock == *address
                    && (*address != 0 || stack.name.value() == name.as_ref())
            }
            Self::Waiter(tgid) => stack.tgid == *tgid,
            Self::Stack(_) => Self::stack(stack) == *self,
            Self::Function(..) | Self::Cpu(_) => false,
            Self::All => true,
        }
    }

    /// The same for samples.
    pub(super) fn has_samples(&self, sum: &ShareStackSum<'_>) -> bool {
        let stack = sum.stack;
        match self {
            Self::Function(name, suspected) => {
                stack.function == *name && stack.suspected == *suspected
            }
            Self::Waiter(tgid) => stack.tgid == *tgid,
            Self::Stack(_) => Self::share(stack) == *self,
            Self::Lock(..) | Self::Cpu(_) => false,
            Self::All => true,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub key: Key,
    /// The lock's kind; empty where there are several.
    pub kind: &'static str,
    /// What it is called.
    pub name: String,
    /// Waits, or samples as their count.
    pub waits: Waits,
    /// Of samples: whether a lock is only suspected.
    pub suspected: bool,
    /// Whether the figures are exact.
    pub exact: bool,
    pub waiter: String,
    pub function: String,
    /// Somebody's probe that it runs through.
    pub probe: Option<String>,
    /// Seconds of waiting per second, window by window; `None` where it was not watched.
    pub history: Vec<Option<f32>>,
}

impl Listed for Row {
    type Key = Key;
    type Order = Order;

    fn key(&self) -> Key {
        self.key.clone()
    }
}

/// The rows, in order.
pub(super) fn build(
    scene: &Scene<'_>,
    (of, by): (Of, By),
    over: &Over<'_>,
    asked: &Listing<Row>,
) -> Vec<Row> {
    let mut rows = match (of, over.share.value()) {
        (Of::Waits, _) => waits(scene, by, over),
        (Of::Samples, Some(share)) => samples(scene, by, share),
        (Of::Samples, None) => Vec::new(),
    };
    let text = asked.filter.to_lowercase();
    if !text.is_empty() {
        let mut label = String::new();
        rows.retain(|row| {
            label.clear();
            let probe = row.probe.as_deref().unwrap_or("");
            let _ = write!(
                label,
                "{} {} {} {} {probe}",
                row.kind, row.name, row.waiter, row.function
            );
            matches(&label, &text)
        });
    }
    // Equal ones keep the order that the sum has given them.
    rows.sort_by_cached_key(|row| {
        let held = asked.held(&row.key);
        let (first, second) = asked.order.of(&row.waits);
        let down = (u64::MAX - first, u64::MAX - second);
        // What was seen in a lock comes before what is only suspected.
        let suspected = of == Of::Samples && row.suspected;
        let order = if asked.reverse { (first, second) } else { down };
        (held, suspected, order)
    });
    if of == Of::Waits {
        histories(scene, over, &mut rows);
    }
    rows
}

fn waits(scene: &Scene<'_>, by: By, over: &Over<'_>) -> Vec<Row> {
    match by {
        By::Lock => {
            let locks = over.locks.iter().map(|lock| {
                let mut row = Row {
                    kind: lock.kind.as_str(),
                    exact: true,
                    ..row(
                        Key::lock(lock),
                        names::lock(lock.name, lock.address),
                        lock.waits,
                    )
                };
                row.top(scene, over.stacks_of(lock));
                row
            });
            locks.collect()
        }
        By::Stack => {
            let stacks = over.stacks.iter().map(|sum| {
                let stack = sum.stack;
                let name = names::lock(&stack.name, stack.lock);
                let mut row = Row {
                    kind: stack.kind.as_str(),
                    exact: sum.sampled == 0,
                    ..row(Key::stack(stack), name, sum.waits)
                };
                row.top(scene, std::iter::once(sum));
                row
            });
            stacks.collect()
        }
        By::Waiter => {
            let waiters = over.waiters.iter().map(|waiter| {
                let stacks = || waiter.stacks.iter().filter_map(|at| over.stacks.get(*at));
                let mut row = Row {
                    kind: kind(stacks().map(|s| s.stack.kind)),
                    exact: stacks().all(|s| s.sampled == 0),
                    ..row(
                        Key::Waiter(waiter.tgid),
                        who(waiter.comm, waiter.tgid),
                        waiter.waits,
                    )
                };
                row.top(scene, stacks());
                row.waiter.clear();
                row
            });
            waiters.collect()
        }
        By::Cpu => {
            let cpus = over.cpus.iter().map(|(cpu, waits)| Row {
                exact: true,
                ..row(Key::Cpu(*cpu), format!("cpu {cpu}"), *waits)
            });
            cpus.collect()
        }
    }
}

/// Samples are rows whose count is that of the samples, and so is what they are sorted by.
fn samples(scene: &Scene<'_>, by: By, share: &ShareSum<'_>) -> Vec<Row> {
    let one = |key: Key, name: String, n: u64| row(key, name, as_waits(n));
    if by == By::Cpu {
        let cpus = share.cpus.iter().map(|(cpu, all, in_lock, suspected)| {
            let mut row = one(Key::Cpu(*cpu), format!("cpu {cpu}"), *in_lock + *suspected);
            row.function = format!("{in_lock} in a lock, {suspected} suspected, of {all} samples");
            row
        });
        return cpus.collect();
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut at: HashMap<Key, usize> = HashMap::new();
    for sum in &share.stacks {
        let stack = sum.stack;
        let (key, name) = match by {
            By::Waiter => (Key::Waiter(stack.tgid), who(&stack.comm, stack.tgid)),
            By::Stack => (Key::share(stack), lock_function(stack)),
            By::Lock | By::Cpu => (
                Key::Function(stack.function.clone(), stack.suspected),
                lock_function(stack),
            ),
        };
        let place = *at.entry(key.clone()).or_insert_with(|| {
            // The heaviest stack comes first: it is the top one of its row.
            let mut row = one(key, name, 0);
            row.suspected = stack.suspected;
            row.waiter = who(&stack.comm, stack.tgid);
            row.function = caller(&stack.frames);
            row.probe = names::probe(scene, &stack.frames, &stack.programs);
            if by == By::Waiter {
                row.kind = if stack.suspected { "suspected" } else { "" };
                row.waiter.clear();
            }
            rows.push(row);
            rows.len() - 1
        });
        if let Some(row) = rows.get_mut(place) {
            row.waits.add(&as_waits(sum.samples));
            row.suspected &= stack.suspected;
        }
    }
    rows
}

/// Samples in the form of waits: each weighs the same.
pub(super) fn as_waits(samples: u64) -> Waits {
    Waits {
        count: samples,
        wait_ns: samples,
        longest_ns: 0,
    }
}

fn row(key: Key, name: String, waits: Waits) -> Row {
    Row {
        key,
        kind: "",
        name,
        waits,
        suspected: false,
        exact: false,
        waiter: String::new(),
        function: String::new(),
        probe: None,
        history: Vec::new(),
    }
}

impl Row {
    /// Who waits most, and in which function; the heaviest probe that stacks run through, unless
    /// it is next to nothing of the row.
    fn top<'b, 'a: 'b>(
        &mut self,
        scene: &Scene<'_>,
        stacks: impl Iterator<Item = &'b StackSum<'a>>,
    ) {
        for (i, sum) in stacks.enumerate() {
            let stack = sum.stack;
            if i == 0 {
                self.waiter = who(&stack.comm, stack.tgid);
                self.function = caller(&stack.frames);
            }
            if sum.waits.wait_ns < self.waits.wait_ns / 20 {
                return;
            }
            self.probe = names::probe(scene, &stack.frames, &stack.programs);
            if self.probe.is_some() {
                return;
            }
        }
    }
}

/// `netdata[812]`.
pub(super) fn who(comm: &Name, tgid: u32) -> String {
    format!("{}[{tgid}]", printable(comm))
}

/// The function that wanted the lock, with who called it.
pub(super) fn caller(frames: &[Name]) -> String {
    let Some(name) = frames::caller(frames) else {
        return String::new();
    };
    let at = frames.iter().position(|f| f == name).unwrap_or(0);
    let mut out = names::function(name, 120);
    for above in frames.iter().skip(at + 1).take(3) {
        let _ = write!(out, " < {}", names::function(above, 60));
    }
    out
}

/// What stands before a function behind which a lock is only suspected.
pub(super) const SUSPECTED: &str = "suspected: ";

fn lock_function(stack: &ShareStack) -> String {
    let name = printable(&stack.function);
    if stack.suspected {
        format!("{SUSPECTED}{name}")
    } else {
        name.into_owned()
    }
}

/// The kind that all have.
fn kind(mut kinds: impl Iterator<Item = LockKind>) -> &'static str {
    let Some(first) = kinds.next() else {
        return "";
    };
    if kinds.all(|k| k == first) {
        first.as_str()
    } else {
        "several"
    }
}

/// What each row waited per second, window by window, up to the end of the time that is shown.
fn histories(scene: &Scene<'_>, over: &Over<'_>, rows: &mut [Row]) {
    let windows = scene.model.locks.windows();
    let windows: Vec<&Locks> = windows
        .rev()
        .filter(|w| w.locks.at_ns <= over.to_ns)
        .take(HISTORY)
        .map(|w| &*w.locks)
        .collect();
    let at: HashMap<&Key, usize> = rows.iter().enumerate().map(|(i, r)| (&r.key, i)).collect();
    let mut out: Vec<Vec<u64>> = vec![vec![0; windows.len()]; rows.len()];
    for (column, locks) in windows.iter().rev().enumerate() {
        let mut add = |key: &Key, waits: &Waits| {
            let cell = at.get(key).and_then(|row| out[*row].get_mut(column));
            if let Some(cell) = cell {
                *cell = cell.saturating_add(waits.wait_ns);
            }
        };
        for lock in &locks.locks {
            let key = Key::Lock(lock.kind, lock.address, lock.name.value().cloned());
            add(&key, &lock.waits);
        }
        for (cpu, waits) in &locks.cpus {
            add(&Key::Cpu(*cpu), waits);
        }
        for stack in &locks.stacks {
            add(&Key::Waiter(stack.tgid), &stack.waits);
        }
    }
    drop(at);
    for (row, sums) in rows.iter_mut().zip(out) {
        if matches!(row.key, Key::Stack(_)) {
            continue;
        }
        let measured = windows.iter().rev().map(|w| w.measured_ns);
        row.history = measured
            .zip(sums)
            .map(|(ns, sum)| (ns > 0).then(|| (sum as f64 / ns as f64) as f32))
            .collect();
    }
}
