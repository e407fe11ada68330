//! What traces on this host, read from the real kernel. Everything happens in tracefs instances
//! and processes of these tests' own, and is undone also when a test fails.

#[path = "live_tracing/tool.rs"]
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stalltop_collectors::Env;
use stalltop_collectors::env::KernelVersion;
use stalltop_collectors::tracing::TracingCollector;
use stalltop_model::sample::{EnableState, HeldBy, Holder, Instance, Tracing};
use stalltop_model::{Reading, Reason};
use stalltop_tests::flood::in_own_network;
use stalltop_tests::instance::Instance as OwnInstance;
use stalltop_tests::tool::offset_in_file;
use stalltop_tests::{need, require};

use tool::{Tool, places};

fn instance_of<'t>(own: &OwnInstance, tracing: &'t Tracing) -> Option<&'t Instance> {
    let tracefs = tracing.tracefs.value().unwrap();
    tracefs.instances.iter().find(|i| &*i.name == own.name())
}

fn states(instance: &Instance) -> Vec<(&str, EnableState)> {
    instance
        .events
        .iter()
        .map(|e| (&*e.name, e.state))
        .collect()
}

#[test]
fn events_filters_and_triggers_of_an_instance_are_seen() {
    let _alone = need::alone();
    require!(need::root());
    let tracefs = require!(need::tracefs());
    require!(need::tracepoint("sched:sched_switch"));
    let own = OwnInstance::new(&tracefs, "events").unwrap();
    let mut collector = TracingCollector::new(&Env::live());

    let tracing = collector.scan_all();
    let quiet = instance_of(&own, &tracing).unwrap();
    assert!(quiet.ours);
    assert_eq!(quiet.events, []);
    assert!(quiet.events_available > 100);
    assert_eq!(quiet.current_tracer.value().map(|t| &**t), Some("nop"));
    assert_eq!(quiet.tracing_on.get(), Some(true));
    assert_eq!(quiet.buffer_entries.get(), Some(0));

    // A trigger arms its event softly; a filter sits on an event that is off; one is plainly on.
    let nobody = "if prev_pid==4194305";
    own.write(
        "events/sched/sched_switch/trigger",
        &format!("traceoff {nobody}"),
    );
    own.write("events/sched/sched_wakeup/filter", "pid==4194305");
    own.write("events/sched/sched_process_exec/enable", "1");
    own.write("set_event_pid", "32000");
    own.write("tracing_on", "0");
    let tracing = collector.scan_all();
    let busy = instance_of(&own, &tracing).unwrap();
    assert_eq!(
        states(busy),
        [
            ("sched_process_exec", EnableState::On),
            ("sched_switch", EnableState::SoftArmed),
            ("sched_wakeup", EnableState::Off),
        ]
    );
    assert_eq!(busy.events[1].triggers.len(), 1);
    assert!(busy.events[1].triggers[0].contains("traceoff"));
    assert_eq!(busy.events[2].filter.as_deref(), Some("pid==4194305"));
    assert_eq!(busy.disagreement, []);
    assert_eq!(busy.set_event_pid.value().map(|t| &**t), Some("32000"));
    assert_eq!(busy.tracing_on.get(), Some(false));

    // From soft-armed to on as well: nothing of it shows in set_event, the details do.
    own.write("events/sched/sched_switch/enable", "1");
    let tracing = collector.scan();
    let busy = instance_of(&own, &tracing).unwrap();
    assert_eq!(states(busy)[1], ("sched_switch", EnableState::OnSoftArmed));
    own.write("events/sched/sched_switch/enable", "0");
    let tracing = collector.scan();
    let busy = instance_of(&own, &tracing).unwrap();
    assert_eq!(states(busy)[1], ("sched_switch", EnableState::SoftArmed));

    // stalltop keeps no file of an instance open, so its owner can remove it.
    own.remove().unwrap();
    assert_eq!(instance_of(&own, &collector.scan()), None);
}

#[test]
fn buffer_entries_grow_with_what_is_written() {
    let _alone = need::alone();
    require!(need::root());
    let tracefs = require!(need::tracefs());
    let own = OwnInstance::new(&tracefs, "buffer").unwrap();
    let mut collector = TracingCollector::new(&Env::live());
    collector.scan();
    for _ in 0..5 {
        own.write("trace_marker", "stalltop");
    }
    let tracing = collector.scan_all();
    assert_eq!(
        instance_of(&own, &tracing).unwrap().buffer_entries.get(),
        Some(5)
    );
}

#[test]
fn programs_of_a_tool_are_found_with_their_holder_and_place() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::tracepoint("sched:sched_process_hang"));
    let own = std::env::current_exe().unwrap();
    let own = own.display();
    let probed = offset_in_file(our_own_programs_are_ours);
    let uprobe = format!("uprobe:{own}@{probed:#x}");
    let tool = Tool::start(&[
        "tracepoint:sched:sched_process_hang",
        "raw_tracepoint:sched_process_hang",
        "tp_btf:sched_process_hang",
        "perf_event",
        "iter:task",
        "map:counts",
        &uprobe,
    ]);
    let mut collector = TracingCollector::new(&Env::live());
    let tracing = collector.scan();
    let objects = tracing.bpf.value().unwrap();
    assert_eq!(objects.holders, Reading::Value(()));
    let expected = [
        ("tracepoint", "tracepoint", "sched:sched_process_hang"),
        ("raw_tracepoint", "raw_tracepoint", "sched_process_hang"),
        ("tp_btf", "tp_btf", "sched_process_hang"),
        ("iter", "iter", "task"),
    ];
    for (name, kind, target) in expected {
        let program = tool.program(&tracing, name).unwrap();
        assert_eq!(places(program), [(kind, target)]);
        assert!(!program.ours);
        assert!(program.loaded_at_ns > 0 && program.loaded_at_ns < tracing.at_ns);
        let holder = &program.holders[0];
        assert_eq!(&*holder.comm, "bpf-holder");
        assert!(holder.cmdline.contains(&format!("{kind}:")));
        let by = if kind == "tracepoint" {
            HeldBy::PerfEvent
        } else {
            HeldBy::Link
        };
        assert_eq!(holder.by, by, "{name}");
    }
    let uprobe = tool.program(&tracing, "uprobe").unwrap();
    assert_eq!(
        places(uprobe),
        [("uprobe", format!("{own}+{probed:#x}").as_str())]
    );
    // The kernel tells the program of a sampling event to nobody: the process holds it all the same.
    assert!(tool.program(&tracing, "perf_event").is_some());

    let pid = tool.pid();
    drop(tool);
    let tracing = collector.scan_all();
    let programs = &tracing.bpf.value().unwrap().programs;
    assert!(
        programs
            .iter()
            .flat_map(|p| &p.holders)
            .all(|h| h.pid != pid)
    );
}

/// `perf stat` and `perf record` show in no file of the kernel.
#[test]
fn users_of_perf_events_without_bpf_are_found() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::tracepoint("sched:sched_process_fork"));
    let tool = Tool::start(&[
        "perf_tracepoint:sched:sched_process_fork",
        "perf_tracepoint:sched:sched_process_fork",
        "perf_event",
    ]);
    let mut collector = TracingCollector::new(&Env::live());
    let tracing = collector.scan();
    let uses = |tracing: &Tracing| -> Vec<_> {
        let all = tracing.perf.value().unwrap();
        (all.iter())
            .filter(|u| u.holder.pid == tool.pid())
            .map(|u| (u.kind.to_string(), u.event.to_string(), u.descriptors, u.on))
            .collect()
    };
    let fork = "sched:sched_process_fork".to_owned();
    assert_eq!(uses(&tracing), [("tracepoint".to_owned(), fork, 2, 2)]);
    // What its program runs at is told by no file either.
    let sampled = tool.program(&tracing, "perf_event").unwrap();
    assert_eq!(places(sampled), [("perf_event", "cpu-clock")]);
    assert_eq!(sampled.holders[0].by, HeldBy::PerfEvent);

    let pid = tool.pid();
    drop(tool);
    let tracing = collector.scan_all();
    let left = tracing.perf.value().unwrap();
    assert!(left.iter().all(|u| u.holder.pid != pid));

    let why = Reason::SwitchedOff {
        option: "--no-bpf".into(),
    };
    let mut without = TracingCollector::new(&Env::live()).without_bpf(why.clone());
    assert_eq!(without.scan().perf, Reading::Off(why));
}

#[test]
fn our_own_programs_are_ours() {
    let _alone = need::alone();
    require!(need::root());
    let probes = stalltop_probes::Probes::load(&stalltop_probes::Options::default());
    let ids: Vec<u32> = probes.program_ids().collect();
    assert!(!ids.is_empty());
    let tracing = TracingCollector::new(&Env::live()).scan();
    for program in &tracing.bpf.value().unwrap().programs {
        // The iterator that finds holders is ours, too.
        let iterator = &*program.name == stalltop_probes::HOLDERS && program.ours;
        let ours = ids.contains(&program.id) || iterator;
        assert_eq!(program.ours, ours, "{program:?}");
    }
}

/// A folder in bpffs or a cgroup, removed with what is in it when the test ends.
struct OwnFolder(PathBuf);

impl Drop for OwnFolder {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

fn own_folder(parent: &Path, name: &str) -> OwnFolder {
    let dir = parent.join(format!("{name}-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    OwnFolder(dir)
}

#[test]
fn a_cgroup_program_names_its_cgroup_and_outlives_its_loader_when_pinned() {
    let _alone = need::alone();
    require!(need::root());
    let env = Env::live();
    let bpffs = require!(need::bpffs());
    let cgroup2 = require!(env.mount_of("cgroup2").ok_or("needs a cgroup2 mount"));
    let group = own_folder(Path::new(cgroup2), "stalltop-test");
    let pins = own_folder(&bpffs, "stalltop-test");
    let pin = pins.0.join("a link");
    let tool = Tool::start(&[
        &format!("cgroup:{}", group.0.display()),
        &format!("pin:{}", pin.display()),
    ]);
    let mut collector = TracingCollector::new(&env);
    let tracing = collector.scan();
    let name = group.0.file_name().unwrap().to_str().unwrap();
    let program = tool.program(&tracing, "cgroup").unwrap();
    assert_eq!(
        places(program),
        [("cgroup_inet_ingress", format!("/{name}").as_str())]
    );
    assert_eq!(program.pins, [pin.to_str().unwrap().into()]);
    let id = program.id;

    drop(tool);
    let tracing = collector.scan_all();
    let objects = tracing.bpf.value().unwrap();
    let program = objects.programs.iter().find(|p| p.id == id).unwrap();
    assert_eq!(program.holders, []);
    assert_eq!(program.pins.len(), 1);
    let link = objects.links.iter().find(|l| l.program == id).unwrap();
    assert_eq!(link.pins, program.pins);
    assert_eq!(&*link.target, format!("/{name}"));
}

#[test]
fn a_device_is_named_only_in_its_own_namespace() {
    let _alone = need::alone();
    require!(need::root());
    in_own_network(None, || {
        let tool = Tool::start(&["xdp:lo"]);
        let tracing = TracingCollector::new(&Env::live()).scan();
        let program = tool.program(&tracing, "xdp").unwrap();
        assert_eq!(places(program), [("xdp", "lo")]);
        // Seen from outside it is device 1 too, as the host's own lo is: not to be mistaken.
        let (id, pid) = (program.id, tool.pid());
        let outside = in_own_network(None, || TracingCollector::new(&Env::live()).scan()).unwrap();
        let programs = &outside.bpf.value().unwrap().programs;
        let program = programs.iter().find(|p| p.id == id).unwrap();
        assert_eq!(
            places(program),
            [("xdp", "device 1 of a network namespace")]
        );
        assert_eq!(program.holders[0].pid, pid);
    })
    .unwrap();
}

/// busybox has a `tc` too, which knows nothing of BPF.
fn iproute2() -> Result<(), String> {
    let version = Command::new("tc").arg("-V").stderr(Stdio::null()).output();
    match version {
        Ok(out) if out.stdout.starts_with(b"tc utility, iproute2") => Ok(()),
        _ => Err("needs tc of iproute2".to_owned()),
    }
}

#[test]
fn tc_filters_and_links_of_a_device_are_found() {
    let _alone = need::alone();
    require!(need::root());
    require!(iproute2());
    let bpffs = require!(need::bpffs());
    let pins = own_folder(&bpffs, "stalltop-test-tc");
    let pin = pins.0.join("filter");
    in_own_network(None, || {
        let tool = Tool::start(&["sched_cls", &format!("pin:{}", pin.display())]);
        let tc = |arguments: &str| {
            let status = Command::new("tc").args(arguments.split(' ')).status();
            assert!(status.unwrap().success(), "tc {arguments}");
        };
        tc("qdisc add dev lo clsact");
        tc(&format!(
            "filter add dev lo egress bpf direct-action object-pinned {}",
            pin.display()
        ));
        let tracing = TracingCollector::new(&Env::live()).scan();
        let program = tool.program(&tracing, "sched_cls").unwrap();
        let [("tc", target)] = places(program)[..] else {
            panic!("{program:?}");
        };
        assert!(target.starts_with("lo egress"), "{target}");
    })
    .unwrap();
}

#[test]
fn the_reader_of_a_buffer_is_named() {
    let _alone = need::alone();
    require!(need::root());
    let tracefs = require!(need::tracefs());
    let own = OwnInstance::new(&tracefs, "reader").unwrap();
    let reader = fs::File::open(own.path("trace_pipe")).unwrap();
    let mut collector = TracingCollector::new(&Env::live());
    let tracing = collector.scan();
    let readers = instance_of(&own, &tracing)
        .unwrap()
        .readers
        .value()
        .unwrap();
    let ours = Holder {
        by: HeldBy::TracefsFile,
        ..readers[0].clone()
    };
    assert_eq!(readers, &[ours]);
    assert_eq!(readers[0].pid, std::process::id());
    drop(reader);
    let tracing = collector.scan_all();
    let readers = &instance_of(&own, &tracing).unwrap().readers;
    assert_eq!(readers.value().map(Vec::len), Some(0));
}

#[test]
fn kprobes_of_a_tool_are_found_with_their_function() {
    let _alone = need::alone();
    require!(need::root());
    require!(need::path("/sys/kernel/debug/tracing"));
    if !Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        // A kernel without kprobes says so; the others are tested in virtual machines.
        let tracing = TracingCollector::new(&Env::live()).scan();
        assert!(matches!(
            tracing.kprobes.reason(),
            Some(Reason::NotBuilt { config }) if &**config == "CONFIG_KPROBES"
        ));
        return;
    }
    let tool = Tool::start(&["kprobe:vfs_fsync_range", "kretprobe:vfs_fsync_range"]);
    let mut collector = TracingCollector::new(&Env::live());
    let tracing = collector.scan();
    for kind in ["kprobe", "kretprobe"] {
        let program = tool.program(&tracing, kind).unwrap();
        assert_eq!(places(program), [(kind, "vfs_fsync_range")]);
        assert_eq!(program.holders[0].by, HeldBy::PerfEvent);
    }
    let kprobes = tracing.kprobes.value().unwrap();
    assert_eq!(kprobes.enabled.get(), Some(true));
    let listed = |tracing: &Tracing| {
        let kprobes = tracing.kprobes.value().unwrap();
        let mut here = kprobes.list.iter();
        here.any(|p| &*p.symbol == "vfs_fsync_range")
    };
    assert!(listed(&tracing));
    drop(tool);
    assert!(!listed(&collector.scan_all()));
    // Links on perf events came in 5.15; which functions a link has is told from 6.6 on.
    let kernel = Env::live().kernel;
    if kernel >= KernelVersion(5, 15) {
        let tool = Tool::start(&["kprobe_link:vfs_fsync_range"]);
        let tracing = collector.scan_all();
        let program = tool.program(&tracing, "kprobe_link").unwrap();
        assert_eq!(places(program), [("kprobe", "vfs_fsync_range")]);
        assert!(program.attached[0].link.is_some());
    }
    if kernel >= KernelVersion(6, 6) {
        let tool = Tool::start(&["kprobe_multi:vfs_write,vfs_read"]);
        let tracing = collector.scan_all();
        let program = tool.program(&tracing, "kprobe_multi").unwrap();
        let [("kprobe_multi", functions)] = places(program)[..] else {
            panic!("{program:?}");
        };
        let mut functions: Vec<_> = functions.split(',').collect();
        functions.sort_unstable();
        assert_eq!(functions, ["vfs_read", "vfs_write"]);
    }
}
