//! Dynamic events: `dynamic_events`, `kprobe_events`, `uprobe_events` and their profiles.
//!
//! `dynamic_events` (4.20 on) holds every kind; the older two files are read as well because
//! only they tell a uprobe from a kprobe for certain: both print `p:` lines.

use stalltop_model::sample::{DynamicEvent, DynamicKind};
use stalltop_model::{Name, Reading, Reason};

use super::text::name;
use crate::file;

/// Which file a definition was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `kprobe_events`: `p` and `r` are on kernel symbols.
    Kprobes,
    /// `uprobe_events`: `p` and `r` are on a file's offset.
    Uprobes,
    /// `dynamic_events`: the place tells, as far as it can.
    All,
}

/// Parses definitions (Documentation/trace/kprobetrace.rst, uprobetracer.rst, eprobetrace.rst,
/// fprobetrace.rst; kernel/trace/trace_dynevent.c). State and hits are not in these files and
/// are left at [`Reason::Starting`]. Lines without `group/event` are left out.
pub fn definitions(bytes: &[u8], origin: Origin) -> Vec<DynamicEvent> {
    file::lines(bytes)
        .filter_map(|line| definition(line, origin))
        .collect()
}

fn definition(line: &[u8], origin: Origin) -> Option<DynamicEvent> {
    let mut words = line.splitn(3, |b| *b == b' ' || *b == b'\t');
    let head = words.next()?;
    let place = words.next().unwrap_or_default();
    let colon = head.iter().position(|b| *b == b':')?;
    let (kind, path) = (&head[..colon], &head[colon + 1..]);
    let slash = path.iter().position(|b| *b == b'/')?;
    let (group, event) = (&path[..slash], &path[slash + 1..]);
    if group.is_empty() || event.is_empty() {
        return None;
    }
    // `r8:` carries the most concurrent instances of a kretprobe.
    let user = match origin {
        Origin::Kprobes => false,
        Origin::Uprobes => true,
        Origin::All => place.starts_with(b"/"),
    };
    let kind = match (kind.first()?, user) {
        (b'p', false) => DynamicKind::Kprobe,
        (b'r', false) => DynamicKind::Kretprobe,
        (b'p', true) => DynamicKind::Uprobe,
        (b'r', true) => DynamicKind::Uretprobe,
        (b'e', _) => DynamicKind::Eprobe,
        (b'f', _) => DynamicKind::Fprobe,
        (b't', _) => DynamicKind::Tprobe,
        (b's', _) => DynamicKind::Synthetic,
        _ => DynamicKind::Other,
    };
    Some(DynamicEvent {
        kind,
        group: name(group),
        name: name(event),
        definition: name(line),
        state: Reading::default(),
        hits: Reading::default(),
        misses: Reading::default(),
    })
}

/// Puts the three files together: the older two win, being certain of the kind; then what only
/// `dynamic_events` has. One event may have several definitions, in the kernel's order.
pub fn merge(kprobes: &[u8], uprobes: &[u8], all: &[u8]) -> Vec<DynamicEvent> {
    let mut out = definitions(kprobes, Origin::Kprobes);
    out.extend(definitions(uprobes, Origin::Uprobes));
    let known = out.len();
    for event in definitions(all, Origin::All) {
        if !out[..known]
            .iter()
            .any(|e| e.definition == event.definition)
        {
            out.push(event);
        }
    }
    out
}

/// One line of a profile file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hits {
    /// Event name; the group is not in the file.
    pub event: Name,
    /// Hits since it was made.
    pub hits: u64,
    /// Missed hits; only kprobes have them.
    pub misses: Option<u64>,
}

/// Parses `kprobe_profile` (kernel/trace/trace_kprobe.c, `probes_profile_seq_show`):
/// name, hits, misses.
pub fn kprobe_profile(bytes: &[u8]) -> Vec<Hits> {
    file::lines(bytes)
        .filter_map(|line| {
            let mut words = file::words(line);
            let event = words.next()?;
            let hits = file::number(words.next()?)?.0;
            let misses = file::number(words.next()?)?.0;
            Some(Hits {
                event: name(event),
                hits,
                misses: Some(misses),
            })
        })
        .collect()
}

/// Parses `uprobe_profile` (kernel/trace/trace_uprobe.c, `probes_profile_seq_show`):
/// file, name, hits. The file may hold blanks, so the line is read from its end.
pub fn uprobe_profile(bytes: &[u8]) -> Vec<Hits> {
    file::lines(bytes)
        .filter_map(|line| {
            let blank = |b: &u8| *b == b' ' || *b == b'\t';
            let mut words = line.rsplit(blank).filter(|word| !word.is_empty());
            let (hits, rest) = file::number(words.next()?)?;
            let event = words.next()?;
            rest.is_empty().then(|| Hits {
                event: name(event),
                hits,
                misses: None,
            })
        })
        .collect()
}

/// Fills in the hits of kprobe events or of uprobe events.
///
/// The profile has no group, so two groups' events of one name are told apart by order: both
/// files list the same events in the same order. Where the two were read on either side of a
/// change and a name is not unique, the hits are not known.
pub(super) fn put_hits(
    events: &mut [DynamicEvent],
    profile: &Result<Vec<Hits>, Reason>,
    user: bool,
) {
    let mine = |e: &DynamicEvent| match e.kind {
        DynamicKind::Kprobe | DynamicKind::Kretprobe => !user,
        DynamicKind::Uprobe | DynamicKind::Uretprobe => user,
        _ => false,
    };
    let in_order = profile.as_ref().is_ok_and(|profile| {
        events.iter().filter(|e| mine(e)).count() == profile.len()
            && (events.iter().filter(|e| mine(e)).zip(profile)).all(|(e, p)| e.name == p.event)
    });
    for (n, event) in events.iter_mut().filter(|e| mine(e)).enumerate() {
        let found = match profile {
            Err(reason) => Err(reason.clone()),
            Ok(profile) if in_order => Ok(&profile[n]),
            Ok(profile) => {
                let mut same = profile.iter().filter(|p| p.event == event.name);
                match (same.next(), same.next()) {
                    (Some(one), None) => Ok(one),
                    _ => Err(Reason::KernelDoesNotSay {
                        what: "which of several events of one name was hit".into(),
                    }),
                }
            }
        };
        match found {
            Ok(found) => {
                event.hits = Reading::Value(found.hits);
                event.misses = match found.misses {
                    Some(misses) => Reading::Value(misses),
                    None => Reading::Off(Reason::KernelDoesNotSay {
                        what: "missed hits of uprobes".into(),
                    }),
                };
            }
            Err(reason) => {
                event.hits = Reading::Off(reason.clone());
                event.misses = Reading::Off(reason);
            }
        }
    }
}

/// Says of the kinds that have no profile that the kernel keeps no hits of them.
pub(super) fn put_no_hits(events: &mut [DynamicEvent]) {
    for event in events {
        let what = match event.kind {
            DynamicKind::Eprobe => "hits of event probes",
            DynamicKind::Fprobe => "hits of function probes",
            DynamicKind::Tprobe => "hits of tracepoint probes",
            DynamicKind::Synthetic => "hits of synthetic events",
            DynamicKind::Other => "hits of this kind of event",
            _ => continue,
        };
        let reason = Reason::KernelDoesNotSay { what: what.into() };
        event.hits = Reading::Off(reason.clone());
        event.misses = Reading::Off(reason);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KPROBES: &[u8] = b"p:kprobes/a do_sys_openat2 dfd=%di\nr8:g/a tcp_sendmsg ret=$retval\n";
    const UPROBES: &[u8] = b"p:uprobes/u relative path/bash:0x0000000000001234\n";

    fn all() -> Vec<u8> {
        let extra = b"e:esys/e sched/sched_switch pid=$next_pid\nf:fprobes/f vfs_read%return\n\
            t:tracepoints/t sched_switch\ns:synthetic/lat u64 lat\nz:new/z x\nno group\n";
        [KPROBES, UPROBES, extra].concat()
    }

    #[test]
    fn every_kind_is_told_apart() {
        let kinds: Vec<_> = merge(KPROBES, UPROBES, &all())
            .iter()
            .map(|e| (e.kind, e.group.to_string(), e.name.to_string()))
            .collect();
        let expected = [
            (DynamicKind::Kprobe, "kprobes", "a"),
            (DynamicKind::Kretprobe, "g", "a"),
            (DynamicKind::Uprobe, "uprobes", "u"),
            (DynamicKind::Eprobe, "esys", "e"),
            (DynamicKind::Fprobe, "fprobes", "f"),
            (DynamicKind::Tprobe, "tracepoints", "t"),
            (DynamicKind::Synthetic, "synthetic", "lat"),
            (DynamicKind::Other, "new", "z"),
        ];
        assert_eq!(
            kinds,
            expected.map(|(k, g, n)| (k, g.to_owned(), n.to_owned()))
        );
    }

    #[test]
    fn the_definition_is_kept_whole() {
        let events = merge(b"", b"", &all());
        assert_eq!(&*events[0].definition, "p:kprobes/a do_sys_openat2 dfd=%di");
    }

    #[test]
    fn hits_of_one_name_in_two_groups_go_by_order() {
        let mut events = merge(KPROBES, UPROBES, &all());
        let profile = kprobe_profile(
            b"  a                         7               1\n  a           9          0\n",
        );
        put_hits(&mut events, &Ok(profile), false);
        put_hits(
            &mut events,
            &Ok(uprobe_profile(b"  relative path/bash u       3\n")),
            true,
        );
        put_no_hits(&mut events);
        let hits: Vec<_> = events.iter().map(|e| e.hits.get()).collect();
        assert_eq!(
            hits,
            [Some(7), Some(9), Some(3), None, None, None, None, None]
        );
        assert_eq!(events[0].misses.get(), Some(1));
        assert!(events[2].misses.reason().is_some());
    }

    #[test]
    fn hits_that_cannot_be_assigned_are_not_guessed() {
        let mut events = merge(KPROBES, b"", b"");
        put_hits(
            &mut events,
            &Ok(kprobe_profile(b"  a 7 1\n  b 1 1\n  a 9 0\n")),
            false,
        );
        assert!(events.iter().all(|e| e.hits.get().is_none()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut events = merge(&bytes, &bytes, &bytes);
            put_hits(&mut events, &Ok(kprobe_profile(&bytes)), false);
            put_hits(&mut events, &Ok(uprobe_profile(&bytes)), true);
        }

        #[test]
        fn definitions_keep_hostile_places(
            place in "[^\n]{0,80}", origin in prop::sample::select(vec![Origin::Kprobes, Origin::Uprobes, Origin::All])
        ) {
            let line = format!("p:g/n {place}");
            let events = definitions(line.as_bytes(), origin);
            prop_assert_eq!(events.len(), 1);
            prop_assert_eq!(&*events[0].definition, line.as_str());
        }
    }
}
