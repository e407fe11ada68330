//! A stall's kernel stacks, merged, with the part of the window that each stands for.

use stalltop_model::Name;
use stalltop_model::sample::{Stall, Vector};

use crate::text;

/// The same stack of the same task or vector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Merged {
    /// Who it is of.
    pub who: String,
    /// Its part of the window, 0 to 1.
    pub share: f64,
    /// Outermost function first.
    pub frames: Vec<Name>,
    /// No kernel stack: it ran in user space, or no stack was taken.
    pub without: Option<&'static str>,
}

/// The stacks of a stall's window, the heaviest first. Where the timeline is gone, what is
/// left of it.
pub(super) fn merged(stall: &Stall) -> Vec<Merged> {
    type Key<'a> = (Option<u32>, Option<Vector>, bool, u32, &'a str);
    let mut weights: Vec<(Key<'_>, u64)> = Vec::new();
    for seen in stall.timeline.iter().filter(|s| s.weight_ns > 0) {
        let key = (seen.stack, seen.vector, seen.user, seen.pid, &*seen.comm);
        if let Some((_, ns)) = weights.iter_mut().find(|(have, _)| *have == key) {
            *ns = ns.saturating_add(seen.weight_ns);
        } else if weights.len() < 256 {
            weights.push((key, seen.weight_ns));
        }
    }
    weights.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    let frames = |stack: Option<u32>| -> Vec<Name> {
        let found = stack.and_then(|i| stall.stacks.get(i as usize));
        found.map_or_else(Vec::new, |s| s.iter().rev().cloned().collect())
    };
    if weights.is_empty() {
        let left = stall.stacks.iter().map(|stack| Merged {
            who: String::new(),
            share: stall.culprit.value().map_or(0.0, |c| f64::from(c.share)),
            frames: stack.iter().rev().cloned().collect(),
            without: None,
        });
        return left.collect();
    }
    let merged = weights
        .into_iter()
        .map(|((stack, vector, user, pid, comm), ns)| {
            let frames = frames(stack);
            let without = match (frames.is_empty(), user, pid) {
                (false, ..) => None,
                (true, true, _) => Some("in user space"),
                (true, false, 0) if vector.is_none() => Some("idle"),
                (true, false, _) => Some("no stack taken"),
            };
            Merged {
                who: match vector {
                    Some(vector) => format!("{} softirq", vector.as_str()),
                    None => text::name(comm, 24).into_owned(),
                },
                share: ns as f64 / stall.delay_ns.max(1) as f64,
                frames,
                without,
            }
        });
    merged.collect()
}

/// How many frames two stacks share from the outermost on.
pub(super) fn shared(a: &[Name], b: &[Name]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stalltop_model::sample::Seen;

    #[test]
    fn equal_stacks_of_one_task_are_one() {
        let seen = |stack, weight_ns| Seen {
            stack,
            weight_ns,
            comm: "a".into(),
            pid: 1,
            ..Seen::default()
        };
        let stall = Stall {
            delay_ns: 100,
            timeline: vec![
                seen(Some(0), 30),
                seen(Some(1), 10),
                seen(Some(0), 40),
                seen(Some(99), 5),
                // Outside the window.
                seen(Some(1), 0),
            ],
            stacks: vec![
                vec!["inner".into(), "outer".into()],
                vec!["other".into(), "outer".into()],
            ],
            ..Stall::default()
        };
        let merged = merged(&stall);
        assert_eq!(merged.len(), 3);
        assert_eq!((merged[0].share, &*merged[0].frames[0]), (0.7, "outer"));
        assert_eq!(merged[2].without, Some("no stack taken"));
        assert_eq!(shared(&merged[0].frames, &merged[1].frames), 1);
    }
}
