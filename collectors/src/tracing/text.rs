//! Texts of tracefs and debugfs, as bytes in, values out.

use stalltop_model::Name;
use stalltop_model::sample::{KernelProbe, KernelProbeKind};

use crate::file;

/// The longest line kept of anything that the host names, in bytes. The kernel cuts dynamic
/// event definitions at 4,096 (`WRITE_BUFSIZE`, kernel/trace/trace.c) and filters at a page.
pub(super) const MAX_LINE: usize = 4096;

/// A name as the host gives it, lossily decoded, bounded by [`MAX_LINE`].
pub(super) fn name(bytes: &[u8]) -> Name {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_LINE)]).into()
}

/// What one line of `set_event` or `available_events` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetEventLine<'a> {
    /// `system:event`: the event is on or soft-armed.
    Event {
        /// For example `sched`.
        system: &'a [u8],
        /// For example `sched_switch`.
        event: &'a [u8],
    },
    /// `what:mod:module`: events of a module that is not loaded yet, to be switched on when it
    /// is (6.14 on, `SET_EVENT_MOD` in kernel/trace/trace_events.c). Nothing is on because of it.
    Pending(&'a [u8]),
}

/// Parses `set_event` and `available_events` (kernel/trace/trace_events.c, `t_show`); lines that
/// are neither an event nor a pending module are left out.
pub fn set_event(bytes: &[u8]) -> impl Iterator<Item = SetEventLine<'_>> {
    file::lines(bytes).filter_map(|line| {
        let line = line.trim_ascii();
        if line.windows(5).any(|w| w == b":mod:") {
            return Some(SetEventLine::Pending(line));
        }
        let colon = line.iter().position(|b| *b == b':')?;
        let (system, event) = (&line[..colon], &line[colon + 1..]);
        // Both become path components below `events`.
        let sound = |part: &[u8]| {
            !part.is_empty() && part != b"." && part != b".." && !part.contains(&b'/')
        };
        (sound(system) && sound(event)).then_some(SetEventLine::Event { system, event })
    })
}

/// Reads an event's `filter`; [`None`] for `none` and for the remains of a filter that the kernel
/// refused (its text, a caret and `parse_error`, kernel/trace/trace_events_filter.c), which
/// filters nothing.
pub fn filter(bytes: &[u8]) -> Option<Name> {
    let text = bytes.trim_ascii();
    let refused = file::lines(text)
        .skip(1)
        .any(|line| line.starts_with(b"parse_error:"));
    (!text.is_empty() && text != b"none" && !refused).then(|| name(text))
}

/// Reads an event's `trigger` file: its lines without the comments that list what is possible.
pub fn triggers(bytes: &[u8]) -> Vec<Name> {
    file::lines(bytes)
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(name)
        .collect()
}

/// What one CPU's buffer of an instance has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferStats {
    /// Entries ever written: those still there, those overwritten and those read
    /// (kernel/trace/ring_buffer.c, `ring_buffer_entries_cpu`).
    pub written: u64,
    /// Entries that nobody will read: overwritten, or dropped for want of room (an instance that
    /// does not overwrite).
    pub lost: u64,
}

/// Reads `per_cpu/cpuN/stats` (kernel/trace/trace.c, `tracing_stats_read`). [`None`] if one of
/// `entries`, `overrun` and `read events` is missing.
pub fn buffer_stats(bytes: &[u8]) -> Option<BufferStats> {
    let mut stats = BufferStats::default();
    let mut found = 0;
    for line in file::lines(bytes) {
        for (key, is_written, is_lost) in [
            (&b"entries: "[..], true, false),
            (b"overrun: ", true, true),
            (b"read events: ", true, false),
            (b"dropped events: ", false, true),
        ] {
            if let Some(rest) = line.strip_prefix(key) {
                let n = file::number(rest)?.0;
                if is_written {
                    stats.written = stats.written.saturating_add(n);
                    found += 1;
                }
                if is_lost {
                    stats.lost = stats.lost.saturating_add(n);
                }
            }
        }
    }
    (found == 3).then_some(stats)
}

/// Parses debugfs `kprobes/list` (kernel/kprobes.c, `report_probe`): address, kind,
/// symbol+offset, module, flags. Lines it does not understand are left out.
pub fn kprobes_list(bytes: &[u8]) -> Vec<KernelProbe> {
    file::lines(bytes).filter_map(kernel_probe).collect()
}

fn kernel_probe(line: &[u8]) -> Option<KernelProbe> {
    let mut words = file::words(line);
    let address = words.next()?;
    // `%px`, or `(null)`-like text where the kernel hides addresses.
    let address = std::str::from_utf8(address)
        .ok()
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .unwrap_or(0);
    let kind = match words.next()? {
        b"k" => KernelProbeKind::Kprobe,
        b"r" => KernelProbeKind::Kretprobe,
        _ => return None,
    };
    let place = words.next()?;
    // Symbols hold no `+0x`; without a symbol the address itself stands here.
    let plus = place.windows(3).rposition(|w| w == b"+0x");
    let (symbol, offset) = match plus {
        Some(at) => {
            let hex = std::str::from_utf8(&place[at + 3..]).ok()?;
            (&place[..at], u64::from_str_radix(hex, 16).ok()?)
        }
        None => (place, 0),
    };
    let mut probe = KernelProbe {
        kind,
        address,
        symbol: name(symbol),
        offset,
        module: None,
        disabled: false,
        ftrace: false,
        optimized: false,
        gone: false,
    };
    for word in words {
        // Flags stand together: `[DISABLED][FTRACE]`.
        if word.starts_with(b"[") {
            let has = |flag: &[u8]| word.windows(flag.len()).any(|w| w == flag);
            probe.disabled |= has(b"[DISABLED]");
            probe.ftrace |= has(b"[FTRACE]");
            probe.optimized |= has(b"[OPTIMIZED]");
            probe.gone |= has(b"[GONE]");
        } else if probe.module.is_none() {
            probe.module = Some(name(word));
        }
    }
    Some(probe)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn set_event_lines() {
        let text = b"sched:sched_switch\nirq:softirq_entry\n*:mod:xfs\nno colon here\n../x:y\n";
        assert_eq!(
            set_event(text).collect::<Vec<_>>(),
            [
                SetEventLine::Event {
                    system: b"sched",
                    event: b"sched_switch"
                },
                SetEventLine::Event {
                    system: b"irq",
                    event: b"softirq_entry"
                },
                SetEventLine::Pending(b"*:mod:xfs"),
            ]
        );
    }

    #[test]
    fn a_refused_filter_is_no_filter() {
        assert_eq!(filter(b"none\n"), None);
        assert_eq!(filter(b"prev_pid == 3\n").as_deref(), Some("prev_pid == 3"));
        assert_eq!(filter(b"nope==1\n^\nparse_error: Field not found\n"), None);
    }

    #[test]
    fn trigger_comments_are_left_out() {
        let text = b"# Available triggers:\n# traceon traceoff\ntraceoff:count=1 if prev_pid==9\n";
        assert_eq!(triggers(text), [name(b"traceoff:count=1 if prev_pid==9")]);
    }

    #[test]
    fn buffer_entries_count_what_was_read_and_overwritten() {
        let text = b"entries: 4\noverrun: 10\ncommit overrun: 7\nbytes: 272\n\
            oldest event ts:  1607.618525\nnow ts:  1607.639651\ndropped events: 3\nread events: 100\n";
        let stats = BufferStats {
            written: 114,
            lost: 13,
        };
        assert_eq!(buffer_stats(text), Some(stats));
        assert_eq!(buffer_stats(b"entries: 4\n"), None);
    }

    #[test]
    fn kprobes_list_lines() {
        let text = b"ffffffff81070c30  r  tcp_sendmsg+0x0    [DISABLED][FTRACE]\n\
            0000000000000000  k  veth_xmit+0x1f  veth [OPTIMIZED]\n\
            ffffffff81070c40  k  do_sys_open.part.0+0x10    [GONE]\n\
            ffffffff81070c50  x  what+0x0\n";
        let list = kprobes_list(text);
        assert_eq!(list.len(), 3);
        assert_eq!(list[0].kind, KernelProbeKind::Kretprobe);
        assert_eq!(&*list[0].symbol, "tcp_sendmsg");
        assert!(list[0].disabled && list[0].ftrace && !list[0].optimized);
        assert_eq!(list[1].module.as_deref(), Some("veth"));
        assert_eq!((list[1].address, list[1].offset), (0, 0x1f));
        assert_eq!(&*list[2].symbol, "do_sys_open.part.0");
        assert!(list[2].gone && list[2].module.is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            for line in set_event(&bytes) {
                if let SetEventLine::Event { system, event } = line {
                    prop_assert!(!system.contains(&b'/') && !event.contains(&b'/'));
                }
            }
            let _ = (filter(&bytes), triggers(&bytes), buffer_stats(&bytes));
            let _ = kprobes_list(&bytes);
        }

        #[test]
        fn probe_like_lines_are_survived(
            line in "[0-9a-f]{0,20} {0,3}[kr]? {0,3}[a-z.]{0,9}(\\+0x[0-9a-fA-F]{0,20})?( [a-z]{0,5})?( \\[[A-Z\\]\\[]{0,20})?"
        ) {
            for probe in kprobes_list(line.as_bytes()) {
                prop_assert!(line.contains(&*probe.symbol));
            }
        }

        #[test]
        fn hostile_names_stay_intact_and_bounded(
            system in "[^:/\n.]{1,30}", event in "[^:/\n.]{1,30}", filler in 0_usize..9000
        ) {
            prop_assume!(system.trim() == system && event.trim() == event);
            let text = format!("{system}:{event}\n");
            let lines: Vec<_> = set_event(text.as_bytes()).collect();
            prop_assert_eq!(
                lines,
                [SetEventLine::Event { system: system.as_bytes(), event: event.as_bytes() }]
            );
            prop_assert!(name(&vec![b'x'; filler]).len() <= MAX_LINE);
        }
    }
}
