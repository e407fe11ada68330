//! What probes cost, who holds them, and stopping who does.

use stalltop_model::Reading;
use stalltop_model::change::{
    Effect as Measured, EffectRow, Entry, Left, OpenMode, Outcome, Plan, Request, StopSignal,
    UndoClass, Write, stop,
};
use stalltop_view::{Depth, Effect, Msg};

use super::host::{Kind, costs};
use super::{Screen, options, snap};

fn holders(width: u16, height: u16) -> Screen {
    Screen::of(
        costs::holders(),
        options("night", Depth::True),
        width,
        height,
    )
}

#[test]
fn every_kind_of_holder_is_told_apart() {
    let mut screen = holders(80, 24);
    screen.keys("4");
    snap!("tracing_holders_80x24", screen);
    let mut screen = holders(160, 24);
    screen.keys("4");
    snap!("tracing_holders_160x24", screen);
}

#[test]
fn a_programs_details_are_all_that_is_known() {
    let mut screen = Screen::new(Kind::sick(4), 120, 40);
    screen.keys("4 down enter");
    snap!("tracing_program", screen);
    screen.keys("esc end enter");
    screen.keys("esc /").typed("openat").keys("enter end enter");
    snap!("tracing_dynamic", screen);
    let mut screen = holders(120, 40);
    screen.keys("4 /").typed("tp_btf").keys("enter end enter");
    snap!("tracing_pinned", screen);
}

#[test]
fn what_nobody_holds_says_how_it_is_detached() {
    let mut screen = holders(120, 40);
    screen.keys("4 /").typed("tp_btf").keys("enter end x");
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
    screen.keys("4 down T");
    let request = Request::Stop {
        pid: 812,
        signal: None,
    };
    assert_eq!(screen.last.list, [Effect::Plan(request.clone())]);
    let plan = plan(StopSignal::Term);
    screen.send(Msg::Planned {
        request,
        result: Ok(Box::new(plan.clone())),
    });
    snap!("stop_asking", screen);
    screen.keys("enter");
    assert_eq!(screen.last.list, [], "without the word nothing happens");
    screen.typed("netdata").keys("enter");
    assert_eq!(screen.last.list, [Effect::Apply(Box::new(plan.clone()))]);
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
    screen.send(Msg::Applied(Ok(Box::new(entry))));
    snap!("stop_refused_by_it", screen);
    // What is no process has nobody to stop.
    screen.keys("esc end T");
    assert_eq!(screen.last.list, []);
    assert!(screen.text().contains("select a process"));
}
