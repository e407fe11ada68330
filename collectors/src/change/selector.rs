//! What a person names: selectors, as the kernel writes them.
//!
//! | selector | what it names |
//! |---|---|
//! | `sched:sched_switch` | one event of the top-level instance |
//! | `sched:*`, `sched:` | a subsystem |
//! | `:sched_switch`, `*:sched_switch` | an event, whatever its subsystem |
//! | `sched` | the subsystem, and any event, of this name |
//! | `set_event` | every event of the top-level instance, as `echo > set_event` has it |
//! | `tracing_on`, `current_tracer` | those files of the top-level instance |
//! | `INSTANCE/...` | any of these in a tracefs instance; `*/...` in all, top level included |
//! | `kprobes:NAME` | a dynamic event (`kprobes` is the group it is made in by default) |
//! | `kprobes` | the master switch of all kprobes, debugfs `kprobes/enabled` |
//! | `tracefs`, `debugfs` | the mount of that file system |
//!
//! These are the forms that `set_event` takes (kernel/trace/trace_events.c,
//! `ftrace_set_clr_event`), and each part may also be a pattern as in
//! `set_ftrace_filter` (lib/glob.c). Two of them are read otherwise than there:
//! a bare `kprobes` is the master switch, not the subsystem (that is `kprobes:*`), and
//! the names of files are those files. Several selectors are separated by blanks, as
//! in `set_event`; a blank in an instance's name is matched by `?`.

use stalltop_model::change::ChangeError;
use stalltop_model::printable;

use super::glob::Glob;

/// The longest text taken as selectors, bytes.
const MAX: usize = 4096;

/// One thing, or a family of things, that can be switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// As given.
    pub text: String,
    pub(crate) scope: Scope,
    pub(crate) what: What,
}

impl Selector {
    /// What is named, without the instance.
    pub(crate) fn name(&self) -> &str {
        self.text
            .split_once('/')
            .map_or(self.text.as_str(), |(_, name)| name)
    }
}

/// Which instances a selector means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The top level.
    Top,
    /// The instances whose name matches; the top level's name is empty.
    Named(Glob),
}

impl Scope {
    pub(crate) fn matches(&self, instance: &str) -> bool {
        match self {
            Self::Top => instance.is_empty(),
            Self::Named(glob) => glob.matches(instance),
        }
    }

    /// Whether several instances may be meant.
    pub(crate) fn is_pattern(&self) -> bool {
        matches!(self, Self::Named(glob) if !glob.is_literal())
    }
}

/// What a selector names in its scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// `NAME`: the subsystem or event of this name.
    Either(Glob),
    /// `SYSTEM:EVENT`; `None` for any.
    Event(Option<Glob>, Option<Glob>),
    /// `set_event`.
    SetEvent,
    /// `tracing_on`.
    TracingOn,
    /// `current_tracer`.
    CurrentTracer,
    /// `kprobes`, the master switch.
    KprobesEnabled,
    /// The mount of a file system.
    Mount(&'static str),
}

impl What {
    /// Whether the event is named.
    pub(crate) fn matches(&self, system: &str, event: &str) -> bool {
        match self {
            Self::Either(name) => name.matches(system) || name.matches(event),
            Self::Event(s, e) => {
                s.as_ref().is_none_or(|s| s.matches(system))
                    && e.as_ref().is_none_or(|e| e.matches(event))
            }
            Self::SetEvent => true,
            _ => false,
        }
    }

    /// Whether events of this subsystem may be named at all.
    pub(crate) fn looks_into(&self, system: &str) -> bool {
        match self {
            Self::Event(Some(s), _) => s.matches(system),
            _ => true,
        }
    }

    /// Whether one event is named, and no family.
    pub(crate) fn is_one(&self) -> bool {
        matches!(self, Self::Event(Some(s), Some(e)) if s.is_literal() && e.is_literal())
    }
}

/// Reads blank-separated selectors.
///
/// # Errors
/// [`ChangeError::BadSelector`], one line, for the first that is not understood.
pub fn parse(text: &str) -> Result<Vec<Selector>, ChangeError> {
    if text.len() > MAX {
        return Err(bad(&text.chars().take(40).collect::<String>(), "too long"));
    }
    if text.chars().any(char::is_control) {
        return Err(bad(text, "control characters are in no selector"));
    }
    let all: Vec<Selector> = text
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(parse_one)
        .collect::<Result<_, _>>()?;
    if all.is_empty() {
        return Err(bad(
            "",
            "say what, for example sched:sched_switch, irq:*, set_event or kprobes",
        ));
    }
    Ok(all)
}

fn bad(selector: &str, why: &str) -> ChangeError {
    let selector = if selector.is_empty() {
        "(nothing)".into()
    } else {
        printable(selector).as_ref().into()
    };
    ChangeError::BadSelector {
        selector,
        why: why.into(),
    }
}

fn parse_one(text: &str) -> Result<Selector, ChangeError> {
    if text.starts_with('!') {
        return Err(bad(text, "no ! here: `stalltop off` switches off already"));
    }
    if text.starts_with('/') {
        return Err(bad(
            text,
            "this is a path; name the event, for example sched:sched_switch",
        ));
    }
    let mut parts = text.splitn(3, '/');
    let head = parts.next().unwrap_or_default();
    let (scope, name) = match (parts.next(), parts.next()) {
        (None, _) => (Scope::Top, head),
        (Some(name), None) => (Scope::Named(Glob::new(head)), name),
        (Some(_), Some(_)) => {
            return Err(bad(text, "one / at most: INSTANCE/SYSTEM:EVENT"));
        }
    };
    if matches!(head, "." | "..") || matches!(name, "." | "..") {
        return Err(bad(text, "neither . nor .. is a name here"));
    }
    if name.is_empty() {
        return Err(bad(
            text,
            "say what of the instance: INSTANCE/set_event for all its events",
        ));
    }
    let what = match name {
        "set_event" => What::SetEvent,
        "tracing_on" => What::TracingOn,
        "current_tracer" => What::CurrentTracer,
        "kprobes" if scope == Scope::Top => What::KprobesEnabled,
        "tracefs" if scope == Scope::Top => What::Mount("tracefs"),
        "debugfs" if scope == Scope::Top => What::Mount("debugfs"),
        "kprobes" | "tracefs" | "debugfs" => {
            return Err(bad(
                text,
                &format!("{name} belongs to the host, not to an instance"),
            ));
        }
        _ => events(text, name)?,
    };
    Ok(Selector {
        text: text.to_owned(),
        scope,
        what,
    })
}

fn events(text: &str, name: &str) -> Result<What, ChangeError> {
    let glob = |part: &str| (!part.is_empty() && part != "*").then(|| Glob::new(part));
    match name.split_once(':') {
        None => Ok(What::Either(Glob::new(name))),
        Some(("", "mod")) => Err(bad(
            text,
            "events of a module are not switched as such; name its subsystem",
        )),
        Some((_, event)) if event.contains(':') => Err(bad(text, "one : at most: SYSTEM:EVENT")),
        Some((system, event)) => Ok(What::Event(glob(system), glob(event))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Selector {
        let mut all = parse(text).unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn kernel_forms() {
        let switch = one("sched:sched_switch");
        assert!(switch.what.matches("sched", "sched_switch") && switch.what.is_one());
        assert!(!switch.what.matches("sched", "sched_switch2"));
        for all in ["sched:*", "sched:", "sched"] {
            let all = one(all);
            assert!(all.what.matches("sched", "sched_waking") && !all.what.is_one());
            assert!(!all.what.matches("irq", "softirq_entry"));
        }
        for any in [":softirq_entry", "*:softirq_entry", "softirq_entry"] {
            assert!(one(any).what.matches("irq", "softirq_entry"));
        }
        for all in ["*:*", "*:", ":*", "*", ":", "set_event"] {
            assert!(one(all).what.matches("irq", "softirq_entry"), "{all}");
        }
        assert!(one("irq:softirq_*").what.matches("irq", "softirq_raise"));
    }

    #[test]
    fn instances() {
        assert!(one("sched:*").scope.matches("") && !one("sched:*").scope.matches("a"));
        assert!(one("a/sched:*").scope.matches("a") && !one("a/sched:*").scope.matches(""));
        for name in ["", "a"] {
            assert!(one("*/set_event").scope.matches(name));
        }
        assert_eq!(one("a/tracing_on").what, What::TracingOn);
        assert_eq!(one("kprobes").what, What::KprobesEnabled);
        assert!(one("kprobes:*").what.matches("kprobes", "x"));
    }

    #[test]
    fn hostile_text_is_one_clear_line() {
        for (text, says) in [
            ("../../etc", "one / at most"),
            ("../x", "neither . nor .."),
            ("x/..", "neither . nor .."),
            ("/sys/kernel/tracing/set_event", "a path"),
            ("sched:\nset_event", "control characters"),
            ("\x1b[2Jx", "control characters"),
            ("!sched:*", "no ! here"),
            ("a:b:c", "one : at most"),
            ("a/", "of the instance"),
            ("i/kprobes", "belongs to the host"),
            (":mod:ext4", "one : at most"),
            (":mod", "of a module"),
            ("", "say what"),
            ("   ", "say what"),
            (&"x".repeat(5000), "too long"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
            assert!(!error.chars().any(char::is_control), "{error:?}");
            assert!(error.len() < 700);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused_in_one_line(text in "(\\PC|[\\x00-\\x20:/*!])*") {
            match parse(&text) {
                Ok(all) => proptest::prop_assert!(all.iter().all(|s| !s.text.contains(".."
                    ) || !s.text.starts_with("../"))),
                Err(e) => proptest::prop_assert!(!e.to_string().chars().any(char::is_control)),
            }
        }
    }
}
