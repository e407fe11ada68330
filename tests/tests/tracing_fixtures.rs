//! The tracing state as recorded kernels told it (fixtures/README.md says what was switched on).

use std::path::PathBuf;

use stalltop_collectors::Env;
use stalltop_collectors::tracing::TracingCollector;
use stalltop_model::Reason;
use stalltop_model::sample::{DynamicKind, EnableState, KernelProbeKind, Tracing};

fn recorded(kernel: &str) -> Tracing {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(kernel);
    let mut collector = TracingCollector::new(&Env::at(root));
    let tracing = collector.scan();
    // Nothing changes in a recording: the same state is the same allocation.
    assert!(std::sync::Arc::ptr_eq(&tracing, &collector.scan()));
    (*tracing).clone()
}

#[test]
fn events_with_filters_and_triggers_on_every_kernel() {
    for kernel in ["5.10", "6.1", "6.1-hybrid", "6.12", "6.18"] {
        let tracing = recorded(kernel);
        let tracefs = tracing.tracefs.value().unwrap();
        assert_eq!(&*tracefs.mount, "/sys/kernel/tracing", "{kernel}");
        let top = &tracefs.instances[0];
        assert_eq!(&*top.name, "");
        assert_eq!(top.disagreement, [], "{kernel}");
        assert_eq!(top.tracing_on.get(), Some(true));
        assert_eq!(top.current_tracer.value().map(|t| &**t), Some("nop"));
        assert_eq!(top.set_event_pid.value().map(|t| &**t), Some("2"));
        assert!(top.events_available > 30, "{kernel}");
        assert!(top.buffer_entries.get().is_some_and(|n| n > 0), "{kernel}");
        let event = |name: &str| top.events.iter().find(|e| &*e.name == name).unwrap();
        assert_eq!(event("softirq_entry").state, EnableState::On);
        assert_eq!(event("sched_process_exit").state, EnableState::OnSoftArmed);
        let armed = event("sched_process_fork");
        assert_eq!(armed.state, EnableState::SoftArmed);
        assert_eq!(
            &*armed.triggers[0],
            "enable_event:irq:irq_handler_entry:unlimited"
        );
        assert_eq!(
            event("sched_switch").filter.as_deref(),
            Some("prev_pid > 1 && next_comm != \"swapper/0\"")
        );
        let alpha = tracefs.instances.iter().find(|i| &*i.name == "alpha");
        assert_eq!(alpha.unwrap().tracing_on.get(), Some(false), "{kernel}");
    }
}

#[test]
fn dynamic_events_with_their_hits() {
    for (kernel, kinds) in [
        ("5.10", &[DynamicKind::Uprobe, DynamicKind::Uretprobe][..]),
        ("6.1", &[DynamicKind::Synthetic, DynamicKind::Eprobe]),
        ("6.12", &[DynamicKind::Fprobe, DynamicKind::Tprobe]),
    ] {
        let tracing = recorded(kernel);
        let dynamic = &tracing.tracefs.value().unwrap().dynamic;
        for kind in kinds {
            assert!(dynamic.iter().any(|e| e.kind == *kind), "{kernel} {kind:?}");
        }
        let event = |name: &str| dynamic.iter().find(|e| &*e.name == name).unwrap();
        let opened = event("opened");
        assert_eq!(opened.kind, DynamicKind::Kprobe);
        assert_eq!(&*opened.group, "stall");
        assert_eq!(
            &*opened.definition,
            "p:stall/opened do_sys_openat2 name=+0(%si):string"
        );
        assert_eq!(opened.state.get(), Some(EnableState::On));
        assert!(opened.hits.get().is_some_and(|n| n > 100));
        assert_eq!(opened.misses.get(), Some(0));
        assert_eq!(event("opened_ret").kind, DynamicKind::Kretprobe);
        let unused = event("unused");
        assert_eq!(unused.state.get(), Some(EnableState::Off));
        assert_eq!(unused.hits.get(), Some(0));
        let start = event("start");
        assert_eq!(start.kind, DynamicKind::Uprobe);
        assert_eq!(start.hits.get(), Some(1));
        assert!(start.misses.reason().is_some());
    }
}

#[test]
fn kernel_probes_with_their_flags() {
    for kernel in ["5.10", "6.1", "6.12"] {
        let tracing = recorded(kernel);
        let kprobes = tracing.kprobes.value().unwrap();
        assert_eq!(kprobes.enabled.get(), Some(true));
        let on = |symbol: &str| {
            let mut found = kprobes.list.iter().filter(|p| &*p.symbol == symbol);
            found.next().unwrap()
        };
        assert_eq!(on("vfs_read").kind, KernelProbeKind::Kretprobe);
        assert!(on("vfs_write").ftrace && !on("vfs_write").disabled);
        assert!(on("vfs_fsync_range").disabled, "{kernel}");
        assert_eq!(on("dummy_get_stats64").module.as_deref(), Some("dummy"));
        assert!(kprobes.list.iter().any(|p| p.optimized && p.offset == 5));
        assert!(kprobes.list.iter().all(|p| p.address != 0));
    }
    assert!(matches!(
        recorded("6.18").kprobes.reason(),
        Some(Reason::NotBuilt { config }) if &**config == "CONFIG_KPROBES"
    ));
}

#[test]
fn a_tree_without_tracefs_says_how_to_mount_it() {
    let empty = tempfile::tempdir().unwrap();
    let tracing = TracingCollector::new(&Env::at(empty.path())).scan();
    assert_eq!(
        &*tracing.tracefs.reason().unwrap().fix(),
        "mount -t tracefs tracefs /sys/kernel/tracing"
    );
    assert_eq!(
        &*tracing.kprobes.reason().unwrap().fix(),
        "mount -t debugfs debugfs /sys/kernel/debug"
    );
    let filesystems = empty.path().join("proc");
    std::fs::create_dir(&filesystems).unwrap();
    std::fs::write(filesystems.join("filesystems"), "nodev\tsysfs\n\text4\n").unwrap();
    let tracing = TracingCollector::new(&Env::at(empty.path())).scan();
    assert!(matches!(
        tracing.tracefs.reason(),
        Some(Reason::NotBuilt { config }) if &**config == "CONFIG_TRACING"
    ));
}
