//! The text of `trigger` files (Documentation/trace/events.rst, section 6).
//!
//! What a `trigger` file reads is not what it takes: it prints `traceoff:unlimited` and
//! `traceoff:count=3 if ...` (`event_trigger_print`, kernel/trace/trace_events_trigger.c),
//! takes `traceoff` and `traceoff:3 if ...`, and answers EINVAL to its own text. The number
//! is what is left of the count, so a restored trigger goes on where it was.

/// The trigger lines of a `trigger` file, without the comments.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The line that, written to the file, makes the trigger that reads as `line`.
pub(crate) fn restore(line: &str) -> String {
    let mut line = line.trim().to_owned();
    // A histogram's state (hist_trigger_print, kernel/trace/trace_events_hist.c).
    if let Some(active) = line.strip_suffix(" [active]") {
        line = active.to_owned();
    } else if let Some(paused) = line.strip_suffix(" [paused]") {
        line = match paused.split_once(" if ") {
            Some((spec, filter)) => format!("{spec}:pause if {filter}"),
            None => format!("{paused}:pause"),
        };
    }
    let (spec, filter) = match line.split_once(" if ") {
        Some((spec, filter)) => (spec, Some(filter)),
        None => (line.as_str(), None),
    };
    let spec = match spec.strip_suffix(":unlimited") {
        Some(unlimited) => unlimited.to_owned(),
        None => spec.replacen(":count=", ":", 1),
    };
    match filter {
        Some(filter) => format!("{spec} if {filter}"),
        None => spec,
    }
}

/// A `trigger` file's text with the counts left out: they fall as the trigger fires.
pub(crate) fn without_counts(text: &str) -> String {
    lines(text)
        .map(|line| {
            let (spec, filter) = line.split_once(" if ").unwrap_or((line, ""));
            let counted = spec.rsplit_once(':').filter(|(_, n)| {
                n.strip_prefix("count=")
                    .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
            });
            let spec = counted.map_or(spec, |(spec, _)| spec);
            format!("{spec} if {filter}\n")
        })
        .collect()
}

/// Whether a trigger line is `enable_event` or `disable_event` of this event: it keeps the
/// event soft-armed.
pub(crate) fn arms(line: &str, system: &str, event: &str) -> bool {
    let mut parts = line.split([':', ' ']);
    matches!(parts.next(), Some("enable_event" | "disable_event"))
        && parts.next() == Some(system)
        && parts.next() == Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_becomes_what_is_written() {
        for (read, write) in [
            ("traceoff:unlimited", "traceoff"),
            (
                "traceoff:count=1 if common_pid==1",
                "traceoff:1 if common_pid==1",
            ),
            (
                "enable_event:sched:sched_switch:count=2",
                "enable_event:sched:sched_switch:2",
            ),
            (
                "stacktrace:unlimited if comm == \" if \"",
                "stacktrace if comm == \" if \"",
            ),
            (
                "hist:keys=common_pid:vals=hitcount:sort=hitcount:size=2048 [active]",
                "hist:keys=common_pid:vals=hitcount:sort=hitcount:size=2048",
            ),
            (
                "hist:keys=a:vals=hitcount:size=2048 if a > 1 [paused]",
                "hist:keys=a:vals=hitcount:size=2048:pause if a > 1",
            ),
        ] {
            assert_eq!(restore(read), write);
        }
    }

    #[test]
    fn counts_fall_without_being_a_change() {
        let a = "# Available triggers:\nenable_event:a:b:count=2\n";
        let b = "enable_event:a:b:count=1\n";
        assert_eq!(without_counts(a), without_counts(b));
        assert_ne!(
            without_counts(a),
            without_counts("enable_event:a:c:count=2")
        );
        assert_ne!(
            without_counts("traceoff:count=2"),
            without_counts("traceoff:count=2 if a==1")
        );
        assert_eq!(without_counts("# nothing\n"), "");
    }

    #[test]
    fn arming() {
        assert!(arms(
            "enable_event:sched:sched_switch:count=2",
            "sched",
            "sched_switch"
        ));
        assert!(arms("disable_event:a:b:unlimited if x", "a", "b"));
        assert!(!arms("enable_event:a:bc:unlimited", "a", "b"));
        assert!(!arms("traceoff:unlimited", "a", "b"));
    }
}
