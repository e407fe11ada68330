//! What the details say above the stacks: exact figures and what is an estimate, programs,
//! waiters, owners.

use stalltop_model::model::locks::{Over, StackSum};
use stalltop_model::sample::Waits;
use stalltop_model::{Name, Reading, printable};

use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::names;
use super::rows::{self, Key};
use super::watch::Part;

/// Programs, waiters and owners that are named.
const NAMED: usize = 4;

/// Exact figures, what rests on samples, waiters, owners, probes.
pub(super) fn waits(
    scene: &Scene<'_>,
    key: &Key,
    over: &Over<'_>,
) -> Vec<(&'static str, Vec<Part>)> {
    let stacks: Vec<&StackSum<'_>> = over.stacks.iter().filter(|s| key.has(s)).collect();
    let mut seen = Waits::default();
    let mut long = Waits::default();
    let mut sampled = 0u64;
    for sum in &stacks {
        seen.add(&sum.waits);
        long.add(&sum.long);
        sampled = sampled.saturating_add(sum.sampled);
    }
    let lock = over.locks.iter().find(|lock| Key::lock(lock) == *key);
    let exact = lock.map(|lock| lock.waits);
    let shown = exact.unwrap_or(seen);
    let per_s = over.wait_per_s(&shown);
    let count = over.per_s(&shown).map_or(text::NONE.to_owned(), text::rate);
    let mut figures = vec![
        (names::wait_per_s(per_s), Role::Strong),
        (
            format!(
                " · {count}/s · longest {} · mean {} · {} in {}",
                text::duration(shown.longest_ns),
                names::mean(&shown),
                text::duration(shown.wait_ns),
                text::plural(shown.count, "wait")
            ),
            Role::Text,
        ),
    ];
    let is_exact = exact.is_some() || sampled == 0;
    let (word, role) = if is_exact {
        (" · exact", Role::Dim)
    } else {
        (" · in part estimated", Role::Notice)
    };
    figures.push((word.to_owned(), role));
    let mut out = vec![("waits", figures)];
    if sampled > 0 {
        let about = format!(
            "{} long waits, {}, each with its stack; the shorter ones by {}",
            text::count(long.count),
            text::duration(long.wait_ns),
            text::plural(sampled, "sample")
        );
        out.push(("stacks", vec![(about, Role::Dim)]));
    } else if exact.is_some_and(|waits| waits.count > seen.count) {
        let unseen = shown.count - seen.count;
        let about = format!("{} of them without a stack", text::count(unseen));
        out.push(("stacks", vec![(about, Role::Dim)]));
    }
    if let Some(lock) = lock.filter(|l| l.address != 0 && l.name.value().is_some()) {
        let about = format!("{:#x}", lock.address);
        out.push(("address", vec![(about, Role::Dim)]));
    }
    if let Some(lock) = lock
        && let Reading::Off(reason) = lock.name
    {
        let fix = match reason.is_mendable() {
            true => format!(" · fix: {}", text::name(&reason.fix(), 200)),
            false => String::new(),
        };
        let about = format!("no name: {}{fix}", text::name(&reason.to_string(), 200));
        out.push(("lock", vec![(about, Role::Dim)]));
    }
    out.extend(probes(scene, stacks.iter().map(|s| &s.stack.programs[..])));
    let waiters = stacks.iter().map(|s| {
        let who = rows::who(&s.stack.comm, s.stack.tgid);
        (who, s.waits.wait_ns)
    });
    out.extend(shares("waiters", waiters, seen.wait_ns));
    out.extend(owners(&stacks));
    out
}

/// The same of samples.
pub(super) fn samples(
    scene: &Scene<'_>,
    key: &Key,
    over: &Over<'_>,
) -> Vec<(&'static str, Vec<Part>)> {
    let Some(share) = over.share.value() else {
        return Vec::new();
    };
    let stacks = || share.stacks.iter().filter(|s| key.has_samples(s));
    let of = |suspected: bool| -> u64 {
        let of = stacks().filter(|s| s.stack.suspected == suspected);
        of.map(|s| s.samples).sum()
    };
    let part = |n: u64| text::percent(n as f64 / share.samples.max(1) as f64);
    let (in_lock, suspected) = (of(false), of(true));
    let mut out = vec![(
        "samples",
        vec![
            (
                format!("{} % in lock slow paths", part(in_lock)),
                Role::Strong,
            ),
            (
                format!(
                    " · {} of {} by {}: a share of samples, not a time",
                    text::count(in_lock),
                    text::count(share.samples),
                    text::name(share.source, 60)
                ),
                Role::Dim,
            ),
        ],
    )];
    if suspected > 0 {
        let about = format!(
            "{} % ({}) taken as interrupts came back on: a lock is suspected, not seen",
            part(suspected),
            text::count(suspected)
        );
        out.push(("irqs off", vec![(about, Role::Notice)]));
    }
    out.extend(probes(scene, stacks().map(|s| &s.stack.programs[..])));
    let waiters = stacks().map(|s| (rows::who(&s.stack.comm, s.stack.tgid), s.samples));
    out.extend(shares("tasks", waiters, in_lock.saturating_add(suspected)));
    out
}

/// The BPF programs that stacks run through, with who holds them.
fn probes<'b>(
    scene: &Scene<'_>,
    of: impl Iterator<Item = &'b [u32]>,
) -> Vec<(&'static str, Vec<Part>)> {
    let mut ids: Vec<u32> = Vec::new();
    for id in of.flatten() {
        if !ids.contains(id) {
            ids.push(*id);
        }
    }
    let line = |id: &u32| {
        let about = match names::program(scene, *id) {
            Some(program) => {
                let on = program.attached.first().map_or(String::new(), |a| {
                    format!(" on {}:{}", printable(&a.kind), text::name(&a.target, 60))
                });
                let holder = program.holders.first();
                let unit = holder.map_or(String::new(), |h| {
                    format!(" · {}", text::name(&h.owner.name, 60))
                });
                format!(
                    "prog {id} {}{on},{}{unit}",
                    text::name(&program.name, 20),
                    names::held_by(program).trim_start_matches(',')
                )
            }
            None => format!("prog {id}: gone, or not to be read"),
        };
        let mark = (format!("{} ", names::PROBE), Role::Critical);
        ("through", vec![mark, (about, Role::Critical)])
    };
    ids.iter().take(NAMED).map(line).collect()
}

/// Who has which part of it: `netdata[812] 61.2 %, ...`.
fn shares(
    label: &'static str,
    of: impl Iterator<Item = (String, u64)>,
    all: u64,
) -> Option<(&'static str, Vec<Part>)> {
    let mut sums: Vec<(String, u64)> = Vec::new();
    for (who, n) in of {
        match sums.iter_mut().find(|(have, _)| *have == who) {
            Some((_, sum)) => *sum = sum.saturating_add(n),
            None => sums.push((who, n)),
        }
    }
    sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let parts: Vec<String> = sums
        .iter()
        .take(NAMED)
        .map(|(who, n)| {
            let share = *n as f64 / all.max(1) as f64;
            format!("{} {} %", text::cut(who, 40), text::percent(share))
        })
        .collect();
    let more = match sums.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(", {n} more"),
    };
    let about = format!("{}{more}", parts.join(", "));
    (!sums.is_empty()).then(|| (label, vec![(about, Role::Text)]))
}

/// Who held the lock while others waited.
fn owners(stacks: &[&StackSum<'_>]) -> Vec<(&'static str, Vec<Part>)> {
    let mut sums: Vec<(u32, &Name, u64, &[Name])> = Vec::new();
    for (owner, count) in stacks.iter().flat_map(|s| &s.owners) {
        match sums
            .iter_mut()
            .find(|s| s.0 == owner.pid && s.1 == &owner.comm)
        {
            Some(sum) => {
                sum.2 = sum.2.saturating_add(*count);
                // A later look may have found it in the kernel.
                if sum.3.is_empty() {
                    sum.3 = &owner.frames;
                }
            }
            None => sums.push((owner.pid, &owner.comm, *count, &owner.frames)),
        }
    }
    sums.sort_by_key(|(pid, _, count, _)| (std::cmp::Reverse(*count), *pid));
    let all = sums.iter().fold(0u64, |all, s| all.saturating_add(s.2));
    let line = |(pid, comm, count, frames): &(u32, &Name, u64, &[Name])| {
        let who = match comm.is_empty() {
            true => format!("thread {pid}, gone"),
            false => format!("{}[{pid}]", text::name(comm, 24)),
        };
        let mut parts = vec![
            (who, Role::Strong),
            (
                format!(" in {} of {} looks", text::count(*count), text::count(all)),
                Role::Dim,
            ),
        ];
        if !frames.is_empty() {
            let stack: Vec<String> = frames
                .iter()
                .take(12)
                .map(|f| names::function(f, 80))
                .collect();
            let about = format!(" · after the fact in {}", stack.join(" < "));
            parts.push((about, Role::Text));
        }
        ("held by", parts)
    };
    sums.iter().take(NAMED).map(line).collect()
}
