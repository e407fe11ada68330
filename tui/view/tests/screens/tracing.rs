//! What probes cost, who holds them, and stopping who does.

use std::sync::Arc;

use stalltop_model::change::{
    Effect as Measured, EffectRow, Entry, Left, OpenMode, Outcome, Plan, Request, StopSignal,
    UndoClass, Write, stop,
};
use stalltop_model::sample::{
    Attachment, BpfObjects, BpfProgram, HeldBy, Holder, Owner, OwnerKind, PerfUse, Tracing,
};
use stalltop_model::{Model, Reading, Reason};
use stalltop_view::Depth;

use super::changes::{Ask, asked};
use super::host::{self, BOOT_NS, Kind, S, costs};
use super::{Screen, options, snap};

fn holder(pid: u32, comm: &str, kind: OwnerKind, owner: &str, by: HeldBy) -> Holder {
    Holder {
        pid,
        comm: comm.into(),
        cmdline: format!("/usr/bin/{comm} --all").into(),
        owner: Owner {
            kind,
            name: owner.into(),
            cgroup: format!("/{owner}").into(),
        },
        by,
    }
}

/// A host whose probes have every kind of holder: a process, a child that inherited, perf
/// without BPF, a pin, a device, nobody.
fn all_holders(known: Reading<()>) -> Model {
    let kind = Kind::calm(4);
    let agent = holder(900, "agent", OwnerKind::Unit, "agent.service", HeldBy::Link);
    let child = Holder {
        pid: 901,
        ..agent.clone()
    };
    let base = |id: u32, kind: &str, target: &str| BpfProgram {
        id,
        kind: kind.into(),
        name: "watch".into(),
        tag: "8f3b0c5511d20a77".into(),
        loaded_at_ns: BOOT_NS - 200 * S,
        uid: 1000,
        maps: Vec::new(),
        attached: vec![Attachment {
            kind: kind.into(),
            target: target.into(),
            link: None,
        }],
        holders: Vec::new(),
        pins: Vec::new(),
        ours: false,
    };
    let programs = vec![
        BpfProgram {
            holders: vec![agent.clone(), child],
            ..base(41, "fentry", "vfs_read")
        },
        BpfProgram {
            pins: vec!["/sys/fs/bpf/kept".into()],
            ..base(42, "tp_btf", "sched_switch")
        },
        base(43, "xdp", "eth0"),
        BpfProgram {
            attached: Vec::new(),
            ..base(44, "socket_filter", "")
        },
    ];
    let perf = holder(
        77,
        "perf",
        OwnerKind::Session,
        "session 4",
        HeldBy::PerfEvent,
    );
    let user = |event: &str, holder: &Holder| PerfUse {
        kind: "tracepoint".into(),
        event: event.into(),
        descriptors: 4,
        on: 4,
        holder: holder.clone(),
        ours: false,
    };
    let tracing = Arc::new(Tracing {
        bpf: Reading::Value(BpfObjects {
            programs,
            links: Vec::new(),
            holders: known,
        }),
        perf: Reading::Value(vec![
            user("sched:sched_switch", &perf),
            user("irq:softirq_entry", &agent),
        ]),
        ..host::tracing(kind)
    });
    let mut model = Model::new();
    model.set_header(host::header(kind));
    for tick in 0..12 {
        let mut sample = host::sample(kind, tick, &tracing);
        if let Reading::Value(costs) = &sample.costs {
            let mut costs = (**costs).clone();
            costs.programs = vec![
                costs::program(42, 3_000.0, 210.0),
                costs::program(43, 90_000.0, 88.0),
            ];
            sample.costs = Reading::Value(Arc::new(costs));
        }
        model.advance(&mut sample);
    }
    model
}

#[test]
fn a_look_that_hangs_says_how_old_its_figures_are() {
    let kind = Kind::calm(4);
    let tracing = Arc::new(Tracing {
        reading_since_ns: BOOT_NS - 34 * S,
        ..host::tracing(kind)
    });
    let mut model = Model::new();
    model.set_header(host::header(kind));
    for tick in 0..7 {
        model.advance(&mut host::sample(kind, tick, &tracing));
    }
    let mut screen = Screen::of(model, options("night", Depth::True), 80, 24);
    let text = screen.keys("5").text();
    assert!(text.contains("as of 40s ago: a look hangs"), "{text}");
}

fn holders(width: u16, height: u16) -> Screen {
    let model = all_holders(Reading::Value(()));
    Screen::of(model, options("night", Depth::True), width, height)
}

#[test]
fn every_kind_of_holder_is_told_apart() {
    let mut screen = holders(80, 24);
    screen.keys("5");
    snap!("tracing_holders_80x24", screen);
    let mut screen = holders(160, 24);
    screen.keys("5");
    snap!("tracing_holders_160x24", screen);
}

#[test]
fn nobody_holds_it_only_where_descriptors_were_read() {
    let mut screen = holders(160, 24);
    screen.keys("5");
    let text = screen.text();
    assert!(text.contains("attached, held by no process"), "{text}");
    let unknown = Reading::Off(Reason::NoCapability {
        need: "CAP_SYS_PTRACE".into(),
    });
    let options = options("night", Depth::True);
    let mut screen = Screen::of(all_holders(unknown), options, 200, 24);
    screen.keys("5");
    let text = screen.text();
    assert!(text.contains("attached, holders not known"), "{text}");
    assert!(text.contains("CAP_SYS_PTRACE is missing"), "{text}");
    assert!(!text.contains("held by no process"), "{text}");
}

#[test]
fn a_programs_details_are_all_that_is_known() {
    let mut screen = Screen::new(Kind::sick(4), 120, 40);
    screen.keys("5 down enter");
    snap!("tracing_program", screen);
    screen.keys("esc end enter");
    screen.keys("esc /").typed("openat").keys("enter end enter");
    snap!("tracing_dynamic", screen);
    let mut screen = holders(120, 40);
    screen.keys("5 /").typed("tp_btf").keys("enter end enter");
    snap!("tracing_pinned", screen);
}

#[test]
fn what_nobody_holds_says_how_it_is_detached() {
    let mut screen = holders(120, 40);
    screen.keys("5 /").typed("tp_btf").keys("enter end x");
    let text = screen.text();
    assert!(text.contains("rm /sys/fs/bpf/kept detaches it"), "{text}");
    screen.keys("esc /").typed("xdp").keys("enter end x");
    assert!(screen.text().contains("detach it from eth0"));
    screen.keys("esc /").typed("irq:").keys("enter end x");
    assert!(screen.text().contains("stop the process 900"));
}

fn plan(signal: StopSignal) -> Plan {
    Plan {
        request: Request::Stop {
            pid: 812,
            signal: Some(signal),
        },
        title: format!(
            "stop netdata[812] of netdata.service by {}",
            signal.as_str()
        )
        .into(),
        writes: vec![Write {
            path: "/proc/812/stat".into(),
            mode: OpenMode::Signal,
            value: signal.as_str().into(),
            item: None,
            before: Some("netdata, started at clock tick 4242".into()),
            after: None,
            kept: Vec::new(),
            undo: Vec::new(),
        }],
        undo: UndoClass::Never,
        notes: vec![
            "it is /usr/sbin/netdata -D, uid 201, netdata.service".into(),
            "with it go 9 BPF programs: kretprobe:tcp_sendmsg, kprobe:tcp_cleanup_rbuf, \
             kretprobe:udp_recvmsg, 6 more"
                .into(),
            "TERM asks it to end: it may clean up first, or refuse (KILL is the second step)"
                .into(),
            "systemd may start it again, with its probes: Restart=always in \
             /usr/lib/systemd/system/netdata.service"
                .into(),
            "by hand instead: systemctl stop netdata.service (stops all of the unit, and systemd \
             leaves it so until somebody starts it)"
                .into(),
        ],
        left: vec![Left {
            what: "BPF program 44 kprobe:inet_csk_accept".into(),
            why: "netdata[813], netdata.service holds it as well".into(),
        }],
        confirm_word: Some("netdata".into()),
    }
}

#[test]
fn a_holder_is_stopped_after_its_name_was_typed() {
    let mut screen = Screen::new(Kind::sick(4), 80, 24);
    screen.keys("5 down T");
    let request = Request::Stop {
        pid: 812,
        signal: None,
    };
    assert_eq!(asked(&screen), [Ask::Plan(request.clone())]);
    let plan = plan(StopSignal::Term);
    screen.planned(Ok(Box::new(plan.clone())));
    snap!("stop_asking", screen);
    screen.keys("enter");
    assert_eq!(asked(&screen), [], "without the word nothing happens");
    let text = screen.text();
    assert!(
        text.contains("that is not the word: type netdata"),
        "{text}"
    );
    screen.typed("netdata").keys("enter");
    assert_eq!(asked(&screen), [Ask::Apply(Box::new(plan.clone()))]);
    assert!(screen.text().contains("waiting for it to exit"));
    let row = |what: &str, before: u64, after: u64| EffectRow {
        what: what.into(),
        unit: "count".into(),
        before: Reading::Value(before),
        after: Reading::Value(after),
    };
    let entry = Entry {
        id: 7,
        wall_ns: 1_773_528_130_000_000_000,
        by: "root[4711]".into(),
        boot: "b".into(),
        plan,
        outcome: Outcome::Done,
        undoes: None,
        effect: Some(Measured {
            rows: vec![
                row(stop::RUNS, 1, 1),
                row("BPF programs that it held", 9, 9),
                row("kprobes of the host", 18, 18),
            ],
            took_ns: 5_000_000_000,
        }),
    };
    screen.applied(Ok(Box::new(entry)));
    snap!("stop_refused_by_it", screen);
    // What is no process has nobody to stop.
    screen.keys("esc end T");
    assert_eq!(asked(&screen), []);
    assert!(screen.text().contains("select a process"));
}
