//! Stopping who holds a probe: who may be, what is told of it, what is refused.

use std::fs;

use stalltop_collectors::change::{self, Journal};
use stalltop_model::change::{
    ChangeError, OpenMode, Outcome, Plan, Request, StopSignal, UndoClass,
};
use stalltop_model::sample::{
    Attachment, BpfLink, BpfProgram, Holder, OwnerKind, PerfUse, Tracing,
};
use stalltop_model::{Reading, Reason};

use super::host::{Tree, program, tracing};

fn stop(pid: u32) -> Request {
    Request::Stop { pid, signal: None }
}

fn process(tree: &Tree, (pid, comm, parent): (u32, &str, u32), flags: u32) {
    let stat =
        format!("{pid} ({comm}) S {parent} 1 1 0 -1 {flags} 0 0 0 0 5 6 0 0 20 0 1 0 4242 0 0\n");
    tree.put(&format!("proc/{pid}/stat"), &stat);
    tree.put(
        &format!("proc/{pid}/status"),
        &format!("Tgid:\t{pid}\nUid:\t0\t201\t0\t0\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\n"),
    );
    tree.put(&format!("proc/{pid}/cmdline"), "/usr/sbin/agent\0-D\0");
    tree.put(
        &format!("proc/{pid}/cgroup"),
        "0::/system.slice/netdata.service\n",
    );
}

fn host() -> Tree {
    let tree = Tree::new();
    process(&tree, (1, "systemd", 0), 0);
    process(&tree, (2, "kthreadd", 0), 0x0020_8040);
    process(&tree, (31, "ksoftirqd/2", 2), 0x0020_8040);
    process(&tree, (812, "netdata", 1), 0x40_0000);
    process(&tree, (700, "sshd", 1), 0x40_0000);
    process(&tree, (701, "bash", 700), 0x40_0000);
    process(&tree, (702, "stalltop", 701), 0x40_0000);
    let own = fs::read_to_string(tree.path("proc/702/stat")).unwrap();
    tree.put("proc/self/stat", &own);
    tree
}

fn unit(id: u32, kind: &str, target: &str) -> BpfProgram {
    program(id, kind, target, OwnerKind::Unit, "netdata.service")
}

/// What netdata holds: three probes, one pinned as well, one held by another as well.
fn held() -> Tracing {
    let mut pinned = unit(42, "fentry", "vfs_read");
    pinned.pins.push("/sys/fs/bpf/kept\u{1b}[2J".into());
    let mut shared = unit(43, "kprobe", "vfs_write");
    let first = shared.holders[0].clone();
    shared.holders.push(Holder {
        pid: 813,
        ..first.clone()
    });
    let mut old = unit(44, "cgroup_inet_ingress", "/x");
    old.attached[0].link = None;
    Tracing {
        perf: Reading::Value(vec![PerfUse {
            kind: "tracepoint".into(),
            event: "sched:sched_switch".into(),
            descriptors: 4,
            on: 4,
            holder: first,
            ours: false,
        }]),
        ..tracing(vec![
            unit(41, "kretprobe", "tcp_sendmsg"),
            pinned,
            shared,
            old,
        ])
    }
}

fn plan(tree: &Tree, request: &Request, tracing: &Tracing) -> Result<Plan, ChangeError> {
    change::plan(&tree.env(), request, &Journal::default(), Some(tracing))
}

#[test]
fn a_plan_says_who_it_is_what_goes_and_what_stays() {
    let tree = host();
    tree.put(
        "etc/systemd/system/netdata.service",
        "[Service]\nRestart=on-failure\n",
    );
    let plan = plan(&tree, &stop(812), &held()).unwrap();
    assert_eq!(&*plan.title, "stop netdata[812] of netdata.service by TERM");
    let [write] = &plan.writes[..] else {
        panic!("{plan:?}");
    };
    assert_eq!(write.command(), "kill -TERM 812");
    assert_eq!(write.mode, OpenMode::Signal);
    assert_eq!(
        write.before.as_deref(),
        Some("netdata, started at clock tick 4242")
    );
    assert_eq!(
        (plan.undo, plan.confirm_word.as_deref()),
        (UndoClass::Never, Some("netdata"))
    );
    assert_eq!(
        plan.request,
        Request::Stop {
            pid: 812,
            signal: Some(StopSignal::Term)
        }
    );
    let notes: Vec<&str> = plan.notes.iter().map(|n| &**n).collect();
    assert_eq!(
        notes,
        [
            "it is /usr/sbin/agent -D, uid 201, netdata.service",
            "the signal goes to this very process, told by its start time, and to no other that \
             may have its number by then",
            "with it go 1 BPF program: kretprobe:tcp_sendmsg",
            "with it go its perf events: sched:sched_switch",
            "TERM asks it to end: it may clean up first, or refuse (KILL is the second step)",
            "systemd may start it again, with its probes: Restart=on-failure in \
             /etc/systemd/system/netdata.service",
            "by hand instead: systemctl stop netdata.service (stops all of the unit, and systemd \
             leaves it so until somebody starts it)",
        ]
    );
    let left: Vec<String> = plan
        .left
        .iter()
        .map(|l| format!("{}: {}", l.what, l.why))
        .collect();
    assert_eq!(
        left,
        [
            "BPF program 42 fentry:vfs_read: pinned at /sys/fs/bpf/kept^[[2J",
            "BPF program 43 kprobe:vfs_write: holder[813], netdata.service holds it as well",
            "BPF program 44 cgroup_inet_ingress:/x: attached to /x without a link",
        ]
    );
}

#[test]
fn who_is_never_stopped() {
    let tree = host();
    process(&tree, (900, "net data", 1), 0);
    tree.put(
        "proc/901/stat",
        "901 (gone) Z 1 1 1 0 -1 0 0 0 0 0 5 6 0 0 20 0 1 0 4242 0 0\n",
    );
    process(&tree, (813, "thread", 1), 0);
    tree.put("proc/813/status", "Tgid:\t812\n");
    for (pid, says) in [
        (1, "it is init"),
        (2, "a thread of the kernel"),
        (31, "a thread of the kernel"),
        (702, "it is stalltop itself"),
        (701, "stalltop runs below it"),
        (700, "stalltop runs below it"),
        (813, "a thread of process 812"),
        (901, "has exited already"),
        (4711, "process 4711 matches nothing"),
        (900, "holds no probe, BPF object or trace buffer"),
    ] {
        let error = plan(&tree, &stop(pid), &held()).unwrap_err().to_string();
        assert!(error.contains(says), "{pid}: {error}");
    }
    let kill = Request::Stop {
        pid: 812,
        signal: Some(StopSignal::Kill),
    };
    let error = plan(&tree, &kill, &held()).unwrap_err().to_string();
    assert!(error.contains("KILL is the second step"), "{error}");
}

#[test]
fn where_nobody_could_look_nothing_is_offered() {
    let tree = host();
    process(&tree, (900, "net data", 1), 0);
    let error = change::plan(&tree.env(), &stop(900), &Journal::default(), None);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("is not known: nobody looked"), "{error}");
    // In a container, and on kernels without the iterator: users of perf events are not known.
    let mut tracing = held();
    tracing.perf = Reading::Off(Reason::KernelDoesNotSay {
        what: "who uses perf events".into(),
    });
    let error = plan(&tree, &stop(900), &tracing).unwrap_err().to_string();
    for part in [
        "whether net data[900] holds any probe is not known",
        "kill 900",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // What it does hold is enough.
    assert!(plan(&tree, &stop(812), &tracing).is_ok());
    // A link alone is something, too; a comm with a blank is not what a person types.
    let mut bpf = tracing.bpf.value().unwrap().clone();
    bpf.links.push(BpfLink {
        id: 7,
        kind: "tracing".into(),
        program: 99,
        target: "".into(),
        holders: vec![Holder {
            pid: 900,
            ..bpf.programs[0].holders[0].clone()
        }],
        pins: Vec::new(),
    });
    tracing.bpf = Reading::Value(bpf);
    let plan = plan(&tree, &stop(900), &tracing).unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|n| &**n == "with it goes link 7 of BPF program 99"),
        "{:?}",
        plan.notes
    );
    assert_eq!(plan.confirm_word.as_deref(), Some("900"));
}

#[test]
fn no_signal_leaves_a_recorded_host_or_a_journal() {
    let tree = host();
    let bench = tree.bench();
    let plan = plan(&tree, &stop(812), &held()).unwrap();
    let failure = change::apply(&bench.writer, &plan, &mut |_| ()).unwrap_err();
    assert!(
        failure.error.to_string().contains("a recorded host"),
        "{failure}"
    );
    let entry = failure.entry.unwrap();
    assert!(matches!(entry.outcome, Outcome::Failed { written: 0, .. }));
    // It is another process by now.
    let stat = fs::read_to_string(tree.path("proc/812/stat")).unwrap();
    tree.put("proc/812/stat", &stat.replace(" 4242 ", " 4243 "));
    let failure = change::apply(&bench.writer, &plan, &mut |_| ()).unwrap_err();
    assert!(
        matches!(failure.error, ChangeError::Moved { .. }),
        "{failure}"
    );
    assert_eq!(failure.entry, None, "nothing was begun");
    tree.put("proc/812/stat", &stat);
    // A plan that nobody asked for, as a tampered journal could bring one about.
    for request in [
        Request::Undo {
            entry: None,
            force: true,
        },
        stop(700),
    ] {
        let made_up = Plan {
            request,
            ..plan.clone()
        };
        let error = change::apply(&bench.writer, &made_up, &mut |_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains("nobody asked"), "{error}");
    }
    assert!(
        bench
            .plan(&Request::Undo {
                entry: None,
                force: true
            })
            .is_err()
    );
}

#[test]
fn the_master_switch_tells_by_holder_what_stops_and_what_does_not() {
    let tree = host();
    tree.put("sys/kernel/debug/kprobes/enabled", "1\n");
    tree.put("sys/kernel/debug/kprobes/list", "a k x+0\nb r y+0\n");
    let many = |id: u32, kind: &str| unit(id, kind, "vfs_read");
    let mut other = program(90, "kprobe_multi", "", OwnerKind::Root, "/");
    other.holders[0].pid = 99;
    other.holders[0].comm = "bpftrace".into();
    other.attached.push(Attachment {
        kind: "fentry".into(),
        target: "x".into(),
        link: None,
    });
    let mut pinned = many(91, "raw_tracepoint");
    pinned.holders.clear();
    pinned.pins.push("/sys/fs/bpf/a b".into());
    let mut all = vec![other, pinned];
    all.extend((0..16).map(|n| many(n, "kretprobe")));
    all.extend((20..22).map(|n| many(n, "kprobe")));
    let off = Request::Off {
        selector: "kprobes".into(),
    };
    let plan = plan(&tree, &off, &tracing(all)).unwrap();
    let notes: Vec<&str> = plan.notes.iter().map(|n| &**n).collect();
    assert_eq!(
        notes,
        [
            "stops 2 kprobes and kretprobes (kprobes/list)",
            "stops holder[812], netdata.service: 16 kretprobes, 2 kprobes (18 BPF programs)",
            "does not stop kprobe.multi, fentry, fexit, uprobes or tracepoints",
        ]
    );
    let left: Vec<String> = plan
        .left
        .iter()
        .map(|l| format!("{}: {}", l.what, l.why))
        .collect();
    assert_eq!(
        left,
        [
            "bpftrace[99]: 1 kprobe_multi, 1 fentry: stays on; stalltop stop 99",
            "pinned at /sys/fs/bpf/a b: 1 raw_tracepoint: stays on; rm '/sys/fs/bpf/a b'",
        ]
    );
}
