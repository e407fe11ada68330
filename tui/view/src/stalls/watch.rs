//! What is watched, since when and from which threshold on; what is not, and what mends it.

use stalltop_model::sample::{StallKind, StallWatch};
use stalltop_model::{Reading, Reason};

use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::names;

/// Some text and how it is painted.
pub(super) type Part = (String, Role);

/// Names of kinds by what they have in common, in the order of the kinds.
fn by<T: PartialEq>(kinds: impl Iterator<Item = (StallKind, T)>) -> Vec<(String, T)> {
    let mut out: Vec<(String, T)> = Vec::new();
    for (kind, what) in kinds {
        match out.iter_mut().find(|(_, have)| *have == what) {
            Some((names, _)) => {
                names.push_str(", ");
                names.push_str(kind.as_str());
            }
            None => out.push((kind.as_str().to_owned(), what)),
        }
    }
    out
}

/// `from 5.0 ms; real-time from 100.0 ms (default on bare metal)`: what holds for most kinds goes
/// without their names.
pub(super) fn thresholds(watch: &StallWatch) -> String {
    let each = StallKind::ALL.into_iter().zip(&watch.kinds);
    let groups = by(each.filter_map(|(kind, from)| Some((kind, from.get()?))));
    let chosen = match &*watch.chosen {
        "" => String::new(),
        chosen => format!(" ({})", text::name(chosen, 60)),
    };
    let of = |ns: u64| watch.kinds.iter().filter(|k| k.get() == Some(ns)).count();
    let all = watch.kinds.iter().filter_map(Reading::get).count();
    let mut parts = Vec::new();
    for (kinds, ns) in &groups {
        let from = format!("from {}", text::duration(*ns));
        match of(*ns) * 2 > all {
            true => parts.insert(0, from),
            false => parts.push(format!("{kinds} {from}")),
        }
    }
    match &parts[..] {
        [] => "nothing is watched".to_owned(),
        parts => format!("{}{chosen}", parts.join("; ")),
    }
}

/// `1 kHz on cpu 1, 3`, `tick samples only`.
pub(super) fn sampler(watch: &StallWatch) -> String {
    if watch.sampling.is_empty() {
        return match watch.tick_ns {
            0 => "tick samples only".to_owned(),
            ns => format!("tick samples only, one in {}", text::duration(ns)),
        };
    }
    let how = if watch.nmi { "1 kHz (NMI)" } else { "1 kHz" };
    let many = watch.sampling.len() > 12;
    if many {
        format!("{how} on {} cpus", watch.sampling.len())
    } else {
        format!("{how} on cpu {}", names::cpus(&watch.sampling))
    }
}

/// Kinds that are not watched, by the reason; and names that are missing.
pub(super) fn gaps(watch: &StallWatch) -> Vec<(String, &Reason)> {
    let each = StallKind::ALL.into_iter().zip(&watch.kinds);
    let off = each.filter_map(|(kind, from)| Some((kind, from.reason()?)));
    let mut out: Vec<(String, &Reason)> = by(off)
        .into_iter()
        .map(|(kinds, reason)| (format!("{kinds}: not watched"), reason))
        .collect();
    if let Some(reason) = names_missing(watch) {
        out.push(("functions stay addresses".to_owned(), reason));
    }
    out
}

/// Why kernel functions have no names; what the first stall brings is not missing.
pub(super) fn names_missing(watch: &StallWatch) -> Option<&Reason> {
    let reason = watch.symbols.reason()?;
    (!matches!(reason, Reason::NotAsked | Reason::Starting)).then_some(reason)
}

/// When watching began, as a time of day; nothing while that is not known.
pub(super) fn since(scene: &Scene<'_>) -> Option<String> {
    let sample = scene.sample();
    let since = sample.cores.since_ns;
    let ago = sample.at_ns.checked_sub(since).filter(|_| since > 0)?;
    Some(text::clock(sample.wall_ns.saturating_sub(ago)))
}

/// The line under the title.
pub(super) fn line(scene: &Scene<'_>, watch: &StallWatch) -> Vec<Part> {
    let mut out = vec![
        (thresholds(watch), Role::Text),
        (" · ".to_owned(), Role::Line),
        (
            sampler(watch),
            if watch.sampling.is_empty() {
                Role::Dim
            } else {
                Role::Notice
            },
        ),
        (" · ".to_owned(), Role::Line),
    ];
    let lost = match watch.lost {
        0 => ("lost 0".to_owned(), Role::Dim),
        n => (format!("lost {}", text::count(n)), Role::Warning),
    };
    out.push(lost);
    if let Some(since) = since(scene) {
        // Behind what matters more: it may be cut off.
        out.push((format!(" · since {since}"), Role::Dim));
    }
    out
}

/// How often the host's stalls are told, where nothing was: one calm line.
pub(super) fn calm(scene: &Scene<'_>, watch: &Reading<StallWatch>) -> String {
    let Some(watch) = watch.value() else {
        return String::new();
    };
    let least = watch.kinds.iter().filter_map(Reading::get).min();
    let of = match least {
        Some(ns) => format!("no stall of {} or more", text::duration(ns)),
        None => return "nothing is watched: see above".to_owned(),
    };
    match (scene.span, since(scene)) {
        (Some(span), _) => format!("{of} in these {}", text::duration(span.length_ns())),
        (None, Some(since)) => format!("{of} since {since}"),
        (None, None) => of,
    }
}

/// The kinds that are watched.
pub(super) fn watched(watch: &StallWatch) -> String {
    let each = StallKind::ALL.into_iter().zip(&watch.kinds);
    let on: Vec<&str> = each
        .filter(|(_, from)| from.value().is_some())
        .map(|(kind, _)| kind.as_str())
        .collect();
    on.join(", ")
}
