//! Parts of a stall in words.

use std::borrow::Cow;

use stalltop_model::Reason;
use stalltop_model::sample::{Culprit, Pause, Stall, StallKind, Vector};

use crate::text;
use crate::theme::Role;

/// `cadvisor[10436]`, or the vector that held the CPU.
pub(super) fn who(culprit: &Culprit, max: usize) -> String {
    match culprit.vector {
        Some(vector) => format!("{} softirq", vector.as_str()),
        None if culprit.pid == 0 => text::name(&culprit.comm, max).into_owned(),
        None => {
            let pid = format!("[{}]", culprit.pid);
            let room = max.saturating_sub(pid.len());
            format!("{}{pid}", text::name(&culprit.comm, room))
        }
    }
}

/// The culprit's column, and how to paint it.
pub(super) fn who_cell(stall: &Stall, max: usize) -> (String, Role) {
    if stall.pause == Pause::Paused {
        return ("(virtual cpu paused)".into(), Role::Dim);
    }
    match stall.culprit.as_ref() {
        Ok(culprit) => {
            let role = if stall.ours { Role::Ours } else { Role::Strong };
            (who(culprit, max), role)
        }
        Err(reason) => (unknown(reason), Role::Faint),
    }
}

/// `not known: starting`.
pub(super) fn unknown(reason: &Reason) -> String {
    format!("not known: {}", text::name(&reason.to_string(), 200))
}

/// `pending NET_RX`.
pub(super) fn what(stall: &Stall) -> String {
    let kind = match (stall.kind, stall.pause) {
        (StallKind::InterruptsOff, Pause::Paused) => "paused",
        (StallKind::InterruptsOff, Pause::Either) => "irqs off?",
        (kind, _) => kind.as_str(),
    };
    match stall.vector {
        Some(vector) => format!("{kind} {}", vector.as_str()),
        None => kind.to_owned(),
    }
}

/// The kernel function, or that it ran in user space, or why it is not known.
pub(super) fn function(stall: &Stall) -> (Cow<'_, str>, Role) {
    let Some(culprit) = stall.culprit.value() else {
        return (Cow::Borrowed(""), Role::Faint);
    };
    match culprit.function.as_ref() {
        Ok(name) => (text::name(name, 100), Role::Text),
        Err(_) if culprit.vector.is_some() => (Cow::Borrowed(""), Role::Faint),
        Err(reason) => (Cow::Owned(reason.to_string()), Role::Faint),
    }
}

/// What waited, in a sentence's subject: `NET_RX`, `ksoftirqd/11`.
pub(super) fn vector(stall: &Stall) -> &'static str {
    stall.vector.map_or("a softirq", Vector::as_str)
}

/// `0-3, 7`; numbers in any order.
pub(super) fn cpus(numbers: &[u32]) -> String {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for cpu in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let run = |(first, last): (u32, u32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    };
    let parts: Vec<String> = runs.into_iter().map(run).collect();
    parts.join(", ")
}

/// Whether a stall counts, from `from_ns` on, only because it may have been longer than the best
/// estimate says.
pub(super) fn may_count(stall: &Stall, from_ns: u64) -> bool {
    stall.delay_ns < from_ns && stall.most_ns >= from_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_runs() {
        assert_eq!(cpus(&[]), "");
        assert_eq!(cpus(&[7, 0, 1, 2, 2]), "0-2, 7");
        assert_eq!(cpus(&[3, 4]), "3, 4");
        assert_eq!(cpus(&[u32::MAX]), u32::MAX.to_string());
    }

    #[test]
    fn the_pid_stays_when_the_name_is_cut() {
        let culprit = Culprit {
            comm: "x".repeat(10_000).into(),
            pid: 4_194_304,
            ..Culprit::default()
        };
        let who = who(&culprit, 20);
        assert!(who.ends_with("…[4194304]"), "{who}");
        assert_eq!(text::width(&who), 20);
    }
}
