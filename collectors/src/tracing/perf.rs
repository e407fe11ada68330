//! Perf events in words, and who uses them without BPF.

use std::collections::BTreeMap;
use std::fs;

use stalltop_model::sample::{HeldBy, PerfUse};
use stalltop_model::{Name, Reading};

use super::holders::Found;
use super::text::name;
use crate::Env;

/// `PERF_TYPE_*` (include/uapi/linux/perf_event.h).
const HARDWARE: u32 = 0;
const SOFTWARE: u32 = 1;
const TRACEPOINT: u32 = 2;
const CACHE: u32 = 3;
const RAW: u32 = 4;
const BREAKPOINT: u32 = 5;
/// From here on the kernel gives out numbers as it starts.
const DYNAMIC: u32 = 6;

/// What the kernel says of a perf event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// `PERF_TYPE_*` or a PMU's number.
    pub(super) kind: u32,
    /// `enum perf_event_state`: below 0 it is off.
    pub(super) state: i32,
    pub(super) config: u64,
    /// Of a breakpoint.
    pub(super) address: u64,
    /// Of a kprobe or uprobe, in the function or file; or its address.
    pub(super) offset: u64,
    /// Of the trace event; of a kprobe its function, of a uprobe its file.
    pub(super) name: Name,
    /// The trace event's subsystem.
    pub(super) system: Name,
}

/// Names of the PMUs of this host by their numbers.
#[derive(Debug, Default)]
pub(super) struct Pmus(Vec<(u32, Name)>);

impl Pmus {
    /// Reads `/sys/bus/event_source/devices/*/type`.
    pub(super) fn read(env: &Env) -> Self {
        let dir = env.path("/sys/bus/event_source/devices");
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let pmus = entries.filter_map(|entry| {
            use std::os::unix::ffi::OsStrExt;
            let kind = fs::read_to_string(entry.path().join("type")).ok()?;
            Some((
                kind.trim().parse().ok()?,
                name(entry.file_name().as_bytes()),
            ))
        });
        Self(pmus.collect())
    }

    fn of(&self, kind: u32) -> Option<&Name> {
        let found = self.0.iter().find(|(number, _)| *number == kind);
        found.map(|(_, name)| name)
    }
}

/// Kind and name of an event, as [`PerfUse`] has them.
pub(super) fn in_words(event: &Event, pmus: &Pmus) -> (Name, Name) {
    let config = event.config;
    match event.kind {
        HARDWARE => {
            // Of several kinds of cores the upper half says which (`PERF_HW_EVENT_MASK`).
            let (known, pmu) = (at(HARDWARE_NAMES, config & 0xffff_ffff), config >> 32);
            let name = known.map_or_else(|| format!("{config:#x}"), str::to_owned);
            let pmu = u32::try_from(pmu).ok().filter(|pmu| *pmu != 0);
            match pmu.and_then(|pmu| pmus.of(pmu)) {
                Some(pmu) => ("hardware".into(), format!("{pmu}/{name}/").into()),
                None => ("hardware".into(), name.into()),
            }
        }
        SOFTWARE => ("software".into(), software(config)),
        TRACEPOINT if event.name.is_empty() => ("tracepoint".into(), format!("id {config}").into()),
        TRACEPOINT if event.system.is_empty() => ("tracepoint".into(), event.name.clone()),
        TRACEPOINT => (
            "tracepoint".into(),
            format!("{}:{}", event.system, event.name).into(),
        ),
        CACHE => ("cache".into(), cache(config).into()),
        RAW => ("raw".into(), format!("r{config:x}").into()),
        BREAKPOINT => ("breakpoint".into(), format!("{:#x}", event.address).into()),
        kind => match pmus.of(kind).map(|name| &**name) {
            Some("kprobe") => {
                let kind = if config & 1 == 1 {
                    "kretprobe"
                } else {
                    "kprobe"
                };
                (kind.into(), function(event).into())
            }
            Some("uprobe") => {
                let kind = if config & 1 == 1 {
                    "uretprobe"
                } else {
                    "uprobe"
                };
                (
                    kind.into(),
                    format!("{}+{:#x}", event.name, event.offset).into(),
                )
            }
            Some(pmu) => (pmu.into(), format!("{config:#x}").into()),
            // cpu-clock and task-clock have numbers of their own but no name (`perf_event_init`,
            // kernel/events/core.c, 6.18), and the kernel puts those numbers in the place of 1.
            None if kind >= DYNAMIC && config < 2 => ("software".into(), software(config)),
            None => (format!("type {kind}").into(), format!("{config:#x}").into()),
        },
    }
}

/// A kprobe's function. One that was set by its address has a made-up name
/// (`create_local_trace_kprobe`, kernel/trace/trace_kprobe.c).
fn function(event: &Event) -> String {
    match (&*event.name, event.offset) {
        ("" | "DUMMY_EVENT", 0) => String::new(),
        ("" | "DUMMY_EVENT", address) => format!("{address:#x}"),
        (name, 0) => name.to_owned(),
        (name, offset) => format!("{name}+{offset:#x}"),
    }
}

const HARDWARE_NAMES: &[&str] = &[
    "cycles",
    "instructions",
    "cache-references",
    "cache-misses",
    "branches",
    "branch-misses",
    "bus-cycles",
    "stalled-cycles-frontend",
    "stalled-cycles-backend",
    "ref-cycles",
];

const SOFTWARE_NAMES: &[&str] = &[
    "cpu-clock",
    "task-clock",
    "page-faults",
    "context-switches",
    "cpu-migrations",
    "minor-faults",
    "major-faults",
    "alignment-faults",
    "emulation-faults",
    "dummy",
    "bpf-output",
    "cgroup-switches",
];

fn at(names: &'static [&'static str], number: u64) -> Option<&'static str> {
    names.get(usize::try_from(number).ok()?).copied()
}

fn software(config: u64) -> Name {
    match at(SOFTWARE_NAMES, config) {
        Some(name) => name.into(),
        None => format!("{config:#x}").into(),
    }
}

/// Names as perf(1) has them: which cache, what was done to it, and whether misses are counted.
fn cache(config: u64) -> String {
    const CACHES: &[&str] = &[
        "L1-dcache",
        "L1-icache",
        "LLC",
        "dTLB",
        "iTLB",
        "branch",
        "node",
    ];
    const OPERATIONS: &[&str] = &["load", "store", "prefetch"];
    let part = |shift: u32| config >> shift & 0xff;
    match (
        at(CACHES, part(0)),
        at(OPERATIONS, part(8)),
        part(16),
        config >> 24,
    ) {
        (Some(cache), Some(operation), 0, 0) => format!("{cache}-{operation}s"),
        (Some(cache), Some(operation), 1, 0) => format!("{cache}-{operation}-misses"),
        _ => format!("{config:#x}"),
    }
}

/// A perf event's name where its type is known by number alone: what a link says of it.
pub(super) fn counter(kind: u32, config: u64) -> Name {
    let event = Event {
        kind,
        config,
        ..Event::default()
    };
    match in_words(&event, &Pmus::default()) {
        (kind, event) if &*kind == "software" || &*kind == "hardware" || &*kind == "cache" => event,
        _ => format!("type {kind} config {config:#x}").into(),
    }
}

/// Adds up descriptors by process and event.
pub(super) fn users(env: &Env, found: &Found) -> Reading<Vec<PerfUse>> {
    let events = match &found.users {
        Reading::Value(events) => events,
        Reading::Off(reason) => return Reading::Off(reason.clone()),
    };
    if events.is_empty() {
        return Reading::Value(Vec::new());
    }
    let pmus = Pmus::read(env);
    let mut sums: BTreeMap<(u32, Name, Name), (u32, u32)> = BTreeMap::new();
    for (pid, event) in events {
        let (kind, name) = in_words(event, &pmus);
        let (descriptors, on) = sums.entry((*pid, kind, name)).or_default();
        *descriptors += 1;
        *on += u32::from(event.state >= 0);
    }
    let uses = sums
        .into_iter()
        .map(|((pid, kind, event), (descriptors, on))| PerfUse {
            kind,
            event,
            descriptors,
            on,
            holder: found.processes.holder(pid, HeldBy::PerfEvent),
            ours: pid == std::process::id(),
        });
    Reading::Value(uses.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(kind: u32, config: u64, name: &str, system: &str, offset: u64) -> String {
        let pmus = Pmus(vec![
            (8, "uprobe".into()),
            (9, "msr".into()),
            (10, "kprobe".into()),
            (11, "cpu_core".into()),
        ]);
        let event = Event {
            kind,
            config,
            address: 0xbeef,
            offset,
            name: name.into(),
            system: system.into(),
            ..Event::default()
        };
        let (kind, event) = in_words(&event, &pmus);
        format!("{kind} {event}")
    }

    #[test]
    fn events_are_named_as_perf_names_them() {
        for (kind, config, name, system, offset, expected) in [
            (0, 0, "", "", 0, "hardware cycles"),
            (
                0,
                11 << 32 | 1,
                "",
                "",
                0,
                "hardware cpu_core/instructions/",
            ),
            (0, 77, "", "", 0, "hardware 0x4d"),
            (1, 3, "", "", 0, "software context-switches"),
            (
                2,
                314,
                "sched_switch",
                "sched",
                0,
                "tracepoint sched:sched_switch",
            ),
            (2, 314, "", "", 0, "tracepoint id 314"),
            (3, 0x1_0000, "", "", 0, "cache L1-dcache-load-misses"),
            (3, 0x0103, "", "", 0, "cache dTLB-stores"),
            (3, 0xff, "", "", 0, "cache 0xff"),
            (4, 0x1c2, "", "", 0, "raw r1c2"),
            (5, 0, "", "", 0, "breakpoint 0xbeef"),
            (6, 0, "", "", 0, "software cpu-clock"),
            (7, 1, "", "", 0, "software task-clock"),
            (7, 9, "", "", 0, "type 7 0x9"),
            (8, 1, "/bin/a", "", 16, "uretprobe /bin/a+0x10"),
            (9, 2, "", "", 0, "msr 0x2"),
            (10, 0, "vfs_read", "", 0, "kprobe vfs_read"),
            (10, 1, "vfs_read", "", 4, "kretprobe vfs_read+0x4"),
            (10, 0, "DUMMY_EVENT", "", 0x1234, "kprobe 0x1234"),
        ] {
            assert_eq!(words(kind, config, name, system, offset), expected);
        }
    }

    #[test]
    fn descriptors_are_added_up() {
        let env = Env::at("/nonexistent");
        let event = |state| Event {
            kind: SOFTWARE,
            state,
            ..Event::default()
        };
        let all = [(7, event(1)), (7, event(0)), (7, event(-1)), (8, event(1))];
        let found = Found {
            users: Reading::Value(all.to_vec()),
            ..Found::default()
        };
        let users = users(&env, &found);
        let users = users.value().unwrap();
        let sums: Vec<_> = users
            .iter()
            .map(|u| (u.holder.pid, u.descriptors, u.on, u.ours))
            .collect();
        assert_eq!(sums, [(7, 3, 2, false), (8, 1, 1, false)]);
    }
}
