//! What is watched, what cannot be seen on this host and why, and what tells of it instead.

use stalltop_model::Reason;
use stalltop_model::model::locks::{Over, ShareSum};
use stalltop_model::sample::{Hidden, Lasting, LockTracer, LockWaits, LockWatch, Waits};

use crate::glyph;
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::names;
use super::rows::By;

/// Locks that are waited for now, of which a line tells.
const LASTING: usize = 3;
/// From when on such a wait is a warning, ns.
const LONG_NS: u64 = 1_000_000_000;

/// Some text and how it is painted.
pub(super) type Part = (String, Role);

/// A line, with what follows on it where there is room, and below it where there is not.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pub parts: Vec<Part>,
    pub more: Vec<Part>,
    /// Whether what follows may be left out where there are few rows.
    pub optional: bool,
    /// What this host hides, by its name alone: all that is said of it where there are few rows.
    pub hidden: Option<String>,
}

impl Line {
    fn of(parts: Vec<Part>) -> Self {
        Self {
            parts,
            ..Self::default()
        }
    }

    /// Something that is not seen, with what mends it.
    fn gap(what: &str, reason: &Reason) -> Self {
        let fix = reason.fix();
        Self {
            // What nothing mends needs no second line.
            optional: !reason.is_mendable(),
            parts: vec![
                ("○ ".into(), Role::Faint),
                (format!("{what}: "), Role::Dim),
                (
                    text::name(&reason.to_string(), 300).into_owned(),
                    Role::Warning,
                ),
            ],
            more: vec![
                ("fix: ".into(), Role::Dim),
                (text::name(&fix, 300).into_owned(), Role::Strong),
            ],
            hidden: None,
        }
    }
}

/// The lines under the title, what matters most first.
pub(super) fn lines(scene: &Scene<'_>, over: &Over<'_>) -> Vec<Line> {
    let Some(locks) = scene.sample().locks.value() else {
        return Vec::new();
    };
    let watch = &locks.watch;
    let mut out = vec![tracer(watch, over)];
    out.extend(lasting(&locks.lasting, scene.sample().at_ns));
    match watch.hidden.as_ref() {
        Ok(hidden) => {
            for hidden in hidden {
                let name = text::name(&hidden.what, 80);
                let what = format!("not visible here: {name}");
                out.push(Line {
                    hidden: Some(name.trim_start_matches("the ").to_owned()),
                    ..Line::gap(&what, &hidden.why)
                });
            }
        }
        // Without a tracer that is told already.
        Err(_) if watch.tracer.value().is_none() => {}
        Err(Reason::NotAsked | Reason::Starting) => {}
        Err(reason) => out.push(Line::gap("what this host hides is not known", reason)),
    }
    match over.share.as_ref() {
        Ok(share) => out.extend(shares(share)),
        Err(_) if over.windows == 0 => {}
        Err(reason) => out.push(Line::gap("no sample share", reason)),
    }
    out
}

/// Who waits now and has not got the lock yet: no row of the table has that wait before it ends.
fn lasting(lasting: &[Lasting], now_ns: u64) -> impl Iterator<Item = Line> {
    let more = lasting.len().saturating_sub(LASTING);
    let of = lasting.iter().take(LASTING).map(move |of| {
        let since_ns = now_ns.saturating_sub(of.since_ns);
        let role = match since_ns >= LONG_NS {
            true => Role::Warning,
            false => Role::Notice,
        };
        let threads = text::plural(of.threads.into(), "thread");
        let lock = names::lock_in_full(&of.name, of.address);
        let mut parts = vec![
            ("waiting now: ".to_owned(), Role::Dim),
            (
                format!("{} for {} {lock}", threads, of.kind.as_str()),
                Role::Text,
            ),
            (format!(" for {}", text::duration(since_ns)), role),
            (format!(" · first {}", thread(&of.comm, of.pid)), Role::Text),
        ];
        if let Some(owner) = &of.owner {
            let doing = owner.frames.first().map_or(String::new(), |frame| {
                format!(", now in {}", names::function(frame, 60))
            });
            let by = format!(" · held by {}{doing}", thread(&owner.comm, owner.pid));
            parts.push((by, Role::Text));
        }
        Line::of(parts)
    });
    let rest = (more > 0).then(|| {
        let about = format!("and for {} more", text::plural(more as u64, "lock"));
        Line::of(vec![(about, Role::Dim)])
    });
    of.chain(rest)
}

/// `writer[4711]`; a thread that was gone has its number alone.
fn thread(comm: &str, pid: u32) -> String {
    format!("{}[{pid}]", text::name(comm, 20))
}

/// How waits are traced.
fn tracer(watch: &LockWatch, over: &Over<'_>) -> Line {
    let mut parts = match watch.tracer.as_ref() {
        Ok(LockTracer::Always) => vec![("traced all the time".to_owned(), Role::Text)],
        Ok(LockTracer::Windows) => {
            let (of, all) = (over.measured_ns, over.span_ns.max(1));
            let part = of as f64 / all as f64;
            let about = format!(
                "traced in windows: {} % of the time, rates of those",
                text::percent(part)
            );
            vec![(about, Role::Notice)]
        }
        Ok(LockTracer::Paused) => {
            vec![(
                "not traced now: --locks says not to".to_owned(),
                Role::Notice,
            )]
        }
        Err(reason) => {
            let mut line = Line::gap("waits are not traced", reason);
            if over.share.value().is_some() {
                line.parts[0] = ("○ instead the sample share; ".into(), Role::Notice);
            }
            return line;
        }
    };
    let lost = watch
        .overflowed
        .saturating_add(watch.unpaired)
        .saturating_add(watch.missed.get().unwrap_or(0));
    let role = if lost > 0 { Role::Warning } else { Role::Dim };
    let about = format!(" · {} not counted", text::plural(lost, "wait"));
    parts.push((about, role));
    if lost > 0 {
        let why = [
            (watch.unpaired, "unpaired"),
            (watch.overflowed, "without a place"),
            (watch.missed.get().unwrap_or(0), "left out by the kernel"),
        ];
        let some = why.iter().filter(|(n, _)| *n > 0);
        let some: Vec<String> = some
            .map(|(n, what)| format!("{} {what}", text::count(*n)))
            .collect();
        parts.push((format!(" ({})", some.join(", ")), Role::Dim));
    }
    let mut more = Vec::new();
    if watch.long_ns > 0 {
        let every = match watch.every {
            0 => String::new(),
            1 => ", of every shorter one".to_owned(),
            n => format!(", of one in {n} shorter ones"),
        };
        let about = format!(
            "stacks of waits from {}{every}",
            text::duration(watch.long_ns)
        );
        more.push((about, Role::Dim));
    }
    if let Some(ns) = watch.ns_per_wait.get() {
        more.push((format!(" · tracing costs {ns} ns a wait"), Role::Dim));
    }
    Line {
        parts,
        more,
        optional: true,
        hidden: None,
    }
}

/// What this host hides and why, in short, for the details.
pub(super) fn hidden(scene: &Scene<'_>) -> Vec<String> {
    let locks = scene.sample().locks.value();
    let hidden = locks.and_then(|locks| locks.watch.hidden.value());
    let line = |hidden: &Hidden| {
        let what = text::name(&hidden.what, 80);
        match &hidden.why {
            Reason::HiddenWaits { why, mend, .. } if mend.is_empty() => {
                format!("{what}: {}", text::name(why, 300))
            }
            Reason::HiddenWaits { why, mend, .. } => {
                let (why, mend) = (text::name(why, 300), text::name(mend, 300));
                format!("{what}: {why}; fix: {mend}")
            }
            reason => format!("{what}: {}", text::name(&reason.to_string(), 300)),
        }
    };
    hidden.into_iter().flatten().map(line).collect()
}

/// The share of samples, and apart from it what is only suspected.
fn shares(share: &ShareSum<'_>) -> Vec<Line> {
    let of = |n: u64| {
        format!(
            "{} %",
            text::percent(n as f64 / share.samples.max(1) as f64)
        )
    };
    if share.samples == 0 {
        return vec![Line::of(vec![(
            "sample share: no sample of a busy cpu".into(),
            Role::Dim,
        )])];
    }
    let busy = share.in_lock.saturating_mul(20) >= share.samples;
    let first = vec![
        ("in lock slow paths ".into(), Role::Dim),
        (
            of(share.in_lock),
            if busy { Role::Warning } else { Role::Text },
        ),
        (" of ".into(), Role::Dim),
        (text::plural(share.samples, "sample"), Role::Dim),
        (format!(" by {}", text::name(share.source, 60)), Role::Dim),
    ];
    let mut out = vec![Line::of(first)];
    if share.nmi && share.suspected == 0 {
        return out;
    }
    let some = share.suspected > 0;
    let busy = share.suspected.saturating_mul(20) >= share.samples;
    let about = match some {
        true => format!(
            "{} taken as interrupts came back on",
            text::count(share.suspected)
        ),
        false => "none; without NMI, waits with interrupts off show in no other way".to_owned(),
    };
    out.push(Line::of(vec![
        ("interrupts off, lock suspected ".into(), Role::Dim),
        (
            of(share.suspected),
            match (busy, some) {
                (true, _) => Role::Warning,
                (_, true) => Role::Notice,
                _ => Role::Text,
            },
        ),
        (format!(" · {about}"), Role::Dim),
    ]));
    out
}

/// Waits that no row of the table has.
pub(super) fn rest(by: By, over: &Over<'_>) -> String {
    let waits = |waits: &Waits, what: &str| match waits.count {
        0 => String::new(),
        n => format!(
            "{} more {what}, {}",
            text::count(n),
            text::duration(waits.wait_ns)
        ),
    };
    match by {
        By::Lock => waits(&over.rest, "of locks not listed"),
        By::Stack | By::Waiter => waits(&over.unseen, "without a stack"),
        By::Cpu => String::new(),
    }
}

/// How long the waits of a kind were: cells by power of two, or by several where there is not
/// `room` for both, and from where to where.
pub(super) fn histogram(kind: &LockWaits, room: usize) -> (String, String) {
    let first = kind.hist.iter().position(|n| *n > 0);
    let last = kind.hist.iter().rposition(|n| *n > 0);
    let (Some(first), Some(last)) = (first, last) else {
        return Default::default();
    };
    // As many cells as there are doublings of a wait that anybody has seen.
    let last = last.min(first + 31);
    let bound = |i: usize| text::duration(1u64 << i.min(63));
    let range = format!("{}-{}", bound(first), bound(last + 1));
    let room = room.saturating_sub(text::width(&range) + 1);
    if room == 0 {
        return (String::new(), range);
    }
    let hist = &kind.hist[first..=last];
    let of = hist.chunks(hist.len().div_ceil(room));
    let of: Vec<u64> = of
        .map(|some| some.iter().fold(0, |all, n| n.saturating_add(all)))
        .collect();
    let most = of.iter().copied().max().unwrap_or(1).max(1);
    let cell = |n: &u64| match n {
        0 => " ",
        // By order of magnitude: the few long ones matter as much as the many short ones.
        n => glyph::block(((*n as f64).ln_1p() / (most as f64).ln_1p()).min(0.999)),
    };
    (of.iter().map(cell).collect(), range)
}
