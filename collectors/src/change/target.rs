//! The files that may be written, and nothing else: one row of rules per kind of file.
//!
//! A journal is a file, and what it asks to put back is written by root. So every write,
//! fresh or from a journal, must name a file of one of these kinds, below a mount of the
//! file system it belongs to, with a mode and a value that kind of file takes.

use std::fs::File;
use std::io::{self, Read};

use stalltop_model::change::stop::pid_of;
use stalltop_model::change::{OpenMode, StopSignal};
use stalltop_model::sample::EnableState;

use crate::Env;
use crate::env::{Mount, parse_mountinfo};
use crate::file;

use super::process::Process;
use super::{dynamic, trigger};

/// The most that is read of one file, bytes.
const MAX_READ: u64 = 4 << 20;

/// Kinds of files that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An event's `enable`.
    Enable,
    /// An event's `filter`.
    Filter,
    /// An event's `trigger`.
    Trigger,
    /// An instance's `tracing_on`.
    TracingOn,
    /// An instance's `current_tracer`.
    CurrentTracer,
    /// `dynamic_events`, `kprobe_events`, `uprobe_events`.
    Dynamic,
    /// debugfs `kprobes/enabled`.
    KprobesEnabled,
    /// `/proc/sys/vm/drop_caches`.
    DropCaches,
    /// A mount point of tracefs or debugfs.
    MountPoint,
    /// `/proc/PID/stat`, which stands for the process: never written, it takes signals.
    Process,
}

/// Where a file system that stalltop mounts belongs.
pub(crate) fn mount_point(fs: &str) -> Option<&'static str> {
    match fs {
        "tracefs" => Some("/sys/kernel/tracing"),
        "debugfs" => Some("/sys/kernel/debug"),
        _ => None,
    }
}

/// The path of [`Target::DropCaches`].
pub(crate) const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// What kind of file `path` is on this host; `None` for one that is never written.
pub(crate) fn classify(env: &Env, path: &str) -> Option<Target> {
    if path
        .trim_start_matches('/')
        .split('/')
        .any(|part| matches!(part, "" | "." | ".."))
        || path.contains('\0')
    {
        return None;
    }
    if path == DROP_CACHES {
        return Some(Target::DropCaches);
    }
    if ["tracefs", "debugfs"]
        .iter()
        .any(|fs| mount_point(fs) == Some(path))
    {
        return Some(Target::MountPoint);
    }
    if pid_of(path).is_some() {
        return Some(Target::Process);
    }
    let below = |fs: &str, sub: &str| {
        env.mounts.iter().filter(|m| m.fs == fs).find_map(|m| {
            path.strip_prefix(m.at.as_str())?
                .strip_prefix(sub)?
                .strip_prefix('/')
        })
    };
    if let Some(rest) = below("tracefs", "").or_else(|| below("debugfs", "/tracing")) {
        return in_tracefs(rest);
    }
    (below("debugfs", "")? == "kprobes/enabled").then_some(Target::KprobesEnabled)
}

fn in_tracefs(path: &str) -> Option<Target> {
    let mut parts: Vec<&str> = path.split('/').collect();
    let instance = parts.first() == Some(&"instances");
    if instance {
        parts.drain(..parts.len().min(2));
    }
    match parts[..] {
        ["events", _, _, "enable"] => Some(Target::Enable),
        ["events", _, _, "filter"] => Some(Target::Filter),
        ["events", _, _, "trigger"] => Some(Target::Trigger),
        ["tracing_on"] => Some(Target::TracingOn),
        ["current_tracer"] => Some(Target::CurrentTracer),
        ["dynamic_events" | "kprobe_events" | "uprobe_events"] if !instance => {
            Some(Target::Dynamic)
        }
        _ => None,
    }
}

impl Target {
    /// Whether this kind of file takes `value` written in `mode`.
    pub(crate) fn takes(self, mode: OpenMode, value: &str) -> bool {
        let line =
            |value: &str| !value.is_empty() && !value.chars().any(|c| c.is_control() && c != '\t');
        match self {
            Self::Enable | Self::TracingOn | Self::KprobesEnabled => {
                mode == OpenMode::Truncate && matches!(value, "0" | "1")
            }
            Self::Filter | Self::CurrentTracer => mode == OpenMode::Truncate && line(value),
            // Truncating these would remove what others made.
            Self::Trigger => mode == OpenMode::Append && line(value),
            Self::Dynamic => {
                mode == OpenMode::Append
                    && value.lines().all(|l| line(l) && dynamic::is_command(l))
                    && !value.is_empty()
            }
            Self::DropCaches => mode == OpenMode::Truncate && matches!(value, "1" | "2" | "3"),
            Self::MountPoint => matches!(mode, OpenMode::Mount | OpenMode::Unmount),
            Self::Process => mode == OpenMode::Signal && StopSignal::parse(value).is_some(),
        }
    }

    /// Whether what is there to read (`found`) is what is expected.
    ///
    /// Counts of triggers fall by themselves and make no difference.
    pub(crate) fn same(self, found: &str, expected: &str) -> bool {
        match self {
            Self::Trigger => trigger::without_counts(found) == trigger::without_counts(expected),
            Self::Dynamic => found.split_whitespace().eq(expected.split_whitespace()),
            _ => found == expected,
        }
    }

    /// Whether a value read back right after writing says that the write took effect.
    ///
    /// Whether an event is also soft-armed is up to triggers, which others may set at any
    /// time: the star makes no difference here (it does for undo, see [`Target::same`]).
    pub(crate) fn took(self, found: &str, wanted: &str) -> bool {
        let on = |text: &str| EnableState::parse(text.as_bytes()).map(EnableState::is_on);
        match self {
            Self::Enable => on(found).is_some() && on(found) == on(wanted),
            _ => self.same(found, wanted),
        }
    }

    /// Reads the file (or its `item`) in the form that is recorded and compared.
    ///
    /// # Errors
    /// What open(2) or read(2) report.
    pub(crate) fn read(self, env: &Env, path: &str, item: Option<&str>) -> io::Result<String> {
        if self == Self::MountPoint {
            let text = read_whole(env, "/proc/self/mountinfo")?;
            return Ok(mounted_at(&parse_mountinfo(text.as_bytes()), path));
        }
        if self == Self::Process {
            let pid = pid_of(path).ok_or(io::ErrorKind::InvalidInput)?;
            return Ok(Process::read(env, pid)?.identity());
        }
        let text = read_whole(env, path)?;
        Ok(match self {
            Self::Trigger => trigger::lines(&text).collect::<Vec<_>>().join("\n"),
            Self::Dynamic => dynamic::definition_of(&text, item.unwrap_or_default()),
            _ => text.trim().to_owned(),
        })
    }
}

/// The type of the file system mounted last at `path`; empty for none.
fn mounted_at(mounts: &[Mount], path: &str) -> String {
    mounts
        .iter()
        .rfind(|m| m.at == path)
        .map(|m| m.fs.clone())
        .unwrap_or_default()
}

fn read_whole(env: &Env, path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(env.path(path))?
        .take(MAX_READ)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A small file's text, or the empty string.
pub(crate) fn text_or_empty(env: &Env, path: &str) -> String {
    file::read_text(&env.path(path)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> (tempfile::TempDir, Env) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        std::fs::write(
            dir.path().join("proc/self/mountinfo"),
            "1 2 0:3 / /sys/kernel/tracing rw - tracefs tracefs rw\n\
             1 2 0:4 / /sys/kernel/debug rw - debugfs debugfs rw\n",
        )
        .unwrap();
        let env = Env::at(dir.path());
        (dir, env)
    }

    #[test]
    fn only_known_files_are_written() {
        let (_dir, env) = env();
        let t = "/sys/kernel/tracing";
        for (path, kind) in [
            ("events/sched/sched_switch/enable", Some(Target::Enable)),
            ("instances/a/events/s/e/trigger", Some(Target::Trigger)),
            ("instances/a/tracing_on", Some(Target::TracingOn)),
            ("dynamic_events", Some(Target::Dynamic)),
            ("instances/a/dynamic_events", None),
            ("events/sched/enable", None),
            ("set_event", None),
            ("trace", None),
            ("instances/../tracing_on", None),
            ("events/../../x/enable", None),
            ("instances", None),
            ("", None),
        ] {
            assert_eq!(classify(&env, &format!("{t}/{path}")), kind, "{path}");
        }
        for (path, kind) in [
            (
                "/sys/kernel/debug/kprobes/enabled",
                Some(Target::KprobesEnabled),
            ),
            (
                "/sys/kernel/debug/tracing/tracing_on",
                Some(Target::TracingOn),
            ),
            ("/sys/kernel/debug/x", None),
            ("/proc/sys/vm/drop_caches", Some(Target::DropCaches)),
            ("/proc/sys/kernel/core_pattern", None),
            ("/proc/812/stat", Some(Target::Process)),
            ("/proc/812/oom_score_adj", None),
            ("/proc/self/stat", None),
            ("/etc/passwd", None),
            ("/sys/kernel/tracing", Some(Target::MountPoint)),
            ("/sys/kernel/tracingx/tracing_on", None),
        ] {
            assert_eq!(classify(&env, path), kind, "{path}");
        }
    }

    #[test]
    fn only_known_values_are_written() {
        use OpenMode::{Append, Mount, Plain, Signal, Truncate};
        assert!(Target::Enable.takes(Truncate, "1"));
        assert!(!Target::Enable.takes(Append, "1") && !Target::Enable.takes(Truncate, "0*"));
        assert!(!Target::Dynamic.takes(Truncate, "-:a/b"));
        assert!(Target::Dynamic.takes(Append, "-:a/b"));
        assert!(Target::Dynamic.takes(Append, "p:a/b vfs_read\np:a/b vfs_write"));
        assert!(!Target::Dynamic.takes(Append, "") && !Target::Dynamic.takes(Append, "x\n\n"));
        assert!(!Target::Trigger.takes(Truncate, "traceoff"));
        assert!(!Target::Trigger.takes(Append, "a\nb"));
        assert!(!Target::DropCaches.takes(Truncate, "4"));
        assert!(!Target::DropCaches.takes(Plain, "1") && !Target::MountPoint.takes(Plain, "x"));
        assert!(Target::MountPoint.takes(Mount, "tracefs"));
        assert!(Target::Process.takes(Signal, "TERM") && !Target::Process.takes(Signal, "STOP"));
        assert!(!Target::Process.takes(Truncate, "TERM") && !Target::Enable.takes(Signal, "1"));
    }
}
