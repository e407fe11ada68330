//! Plans against recorded hosts and trees made up here: what is read, what would be written,
//! and what is refused. Nothing here touches this host's kernel.

#[path = "change_plans/back.rs"]
mod back;
#[path = "change_plans/host.rs"]
mod host;
#[path = "change_plans/stop.rs"]
mod stop;

use std::fs;
use std::path::Path;

use stalltop_collectors::Env;
use stalltop_collectors::change::{self, Journal};
use stalltop_collectors::live::{Live, Options};
use stalltop_model::Reason;
use stalltop_model::change::{ChangeError, OpenMode, Outcome, Plan, Request, UndoClass, Write};
use stalltop_model::sample::{BpfProgram, OwnerKind};

use host::{Tree, program, tracing};

fn recorded(name: &str) -> Env {
    Env::at(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures")
            .join(name),
    )
}

fn off(selector: &str) -> Request {
    Request::Off {
        selector: selector.into(),
    }
}

fn remove(selector: &str) -> Request {
    Request::Remove {
        selector: selector.into(),
    }
}

fn plan(env: &Env, request: &Request) -> Result<Plan, ChangeError> {
    change::plan(env, request, &Journal::default(), None)
}

/// `file below the mount: before -> after` of each write.
fn writes(plan: &Plan) -> Vec<String> {
    plan.writes
        .iter()
        .map(|w| {
            let path = w
                .path
                .strip_prefix("/sys/kernel/tracing/")
                .unwrap_or(&w.path);
            let show = |v: &Option<stalltop_model::Name>| v.as_deref().unwrap_or("?").to_owned();
            format!(
                "{path} {}: {} -> {}",
                w.value,
                show(&w.before),
                show(&w.after)
            )
        })
        .collect()
}

#[test]
fn set_event_of_recorded_hosts_is_cleared_per_event() {
    for host in ["6.1", "6.12"] {
        let env = recorded(host);
        let plan = plan(&env, &off("set_event")).unwrap();
        let writes = writes(&plan);
        for expected in [
            "events/irq/softirq_entry/enable 0: 1 -> 0",
            "events/irq/softirq_exit/enable 0: 1 -> 0",
            "events/sched/sched_process_exit/enable 0: 1* -> 0*",
            "events/stall/opened/enable 0: 1 -> 0",
        ] {
            assert!(
                writes.iter().any(|w| w == expected),
                "{host}: {expected}: {writes:#?}"
            );
        }
        assert!(
            !writes.iter().any(|w| w.contains("sched_process_fork")),
            "{host}: 0* stays"
        );
        assert!(!writes.iter().any(|w| w.starts_with("set_event")));
        let switch = plan
            .writes
            .iter()
            .find(|w| w.path.contains("/sched_switch/"))
            .unwrap();
        assert!(
            switch
                .kept
                .iter()
                .any(|k| k.path.ends_with("/filter") && &*k.value != "none")
        );
        assert_eq!(plan.undo, UndoClass::Exact);
    }
}

#[test]
fn one_instance_or_all_of_them() {
    let tree = Tree::new();
    for (instance, events) in [("", 3), ("instances/alpha/", 1), ("instances/beta/", 0)] {
        for n in 0..3 {
            let on = if n < events { "1" } else { "0" };
            tree.event(instance, &format!("sched/e{n}"), on);
        }
    }
    let of = |selector: &str| plan(&tree.env(), &off(selector)).unwrap();
    let top = of("set_event");
    assert_eq!(top.writes.len(), 3);
    assert_eq!(&*top.title, "switch off 3 events in the top-level instance");
    assert_eq!(
        left(&top),
        ["1 event on in alpha: not asked for: alpha/set_event, or */set_event"]
    );
    let alpha = of("alpha/set_event");
    assert_eq!(
        writes(&alpha),
        ["instances/alpha/events/sched/e0/enable 0: 1 -> 0"]
    );
    let all = of("*/set_event");
    assert_eq!((all.writes.len(), all.left.len()), (4, 0));
    assert!(left(&alpha).is_empty() && left(&of("sched:*")).is_empty());
    assert_eq!(&*all.title, "switch off 4 events in 2 instances");
    // Two selectors that name the same event write it once.
    assert_eq!(of("sched:e0 sched:* alpha/sched:e0").writes.len(), 4);
    assert!(plan_fails(&tree, &off("beta/set_event")).contains("already off"));
}

#[test]
fn events_that_are_on_in_another_instance_only_name_it() {
    let tree = Tree::new();
    for instance in ["", "instances/crit1/", "instances/c 2/", "instances/off/"] {
        for event in ["irq/one", "irq/two", "sched/three"] {
            let on = instance.contains("/c") && event.starts_with("irq");
            tree.event(instance, event, if on { "1" } else { "0" });
        }
    }
    for (selector, says) in [
        (
            "irq:*",
            "4 of irq:* on in c 2, crit1: not asked for: \
             c?2/irq:*, or crit1/irq:*, or */irq:* for all instances",
        ),
        ("crit1/sched:*", "crit1/sched:three: already off"),
        (
            "off/irq:one",
            "2 of irq:one on in c 2, crit1: not asked for: \
             c?2/irq:one, or crit1/irq:one, or */irq:one for all instances",
        ),
        ("crit1", "did you mean crit1/set_event or crit1/*:*?"),
    ] {
        let error = plan_fails(&tree, &off(selector));
        assert!(error.ends_with(says), "{selector}: {error}");
    }
    let error = plan_fails(&tree, &off("sched:*"));
    assert!(!error.contains("not asked for"), "{error}");
    let found = plan(&tree.env(), &off("c?2/irq:*")).unwrap();
    assert_eq!(found.writes.len(), 2, "what is named can be pasted");
}

#[test]
fn events_that_cannot_be_listed_are_not_said_to_be_none() {
    let tree = Tree::new();
    let events = tree.path("sys/kernel/tracing/events");
    fs::remove_dir(&events).unwrap();
    fs::write(&events, "").unwrap();
    let error = plan(&tree.env(), &off("irq:*")).unwrap_err();
    assert!(
        matches!(&error, ChangeError::Missing(Reason::Io { path, errno: 20 })
            if &**path == "/sys/kernel/tracing/events"),
        "{error}"
    );
}

#[test]
fn an_instance_that_was_removed_has_nothing_to_undo() {
    let tree = Tree::new();
    tree.event("", "irq/one", "1");
    tree.event("instances/gone/", "irq/one", "1");
    let bench = tree.bench();
    let done = bench.plan(&off("*/irq:*")).unwrap();
    change::apply(&bench.writer, &done, &mut |_| ()).unwrap();
    fs::remove_dir_all(tree.path("sys/kernel/tracing/instances/gone")).unwrap();
    let undo = Request::Undo {
        entry: None,
        force: false,
    };
    let plan = bench.plan(&undo).unwrap();
    assert_eq!(writes(&plan), ["events/irq/one/enable 1: 0 -> 1"]);
    assert_eq!(
        left(&plan),
        ["instance gone: the instance is gone: nothing to undo there"]
    );
    change::apply(&bench.writer, &plan, &mut |_| ()).unwrap();
    assert!(matches!(
        bench.plan(&undo),
        Err(ChangeError::NothingToDo { .. })
    ));
}

#[test]
fn a_filter_that_moved_stays_and_undo_says_so_from_the_start() {
    let tree = Tree::new();
    tree.event("", "irq/one", "1");
    let filter = "sys/kernel/tracing/events/irq/one/filter";
    tree.put(filter, "none\n");
    let bench = tree.bench();
    let done = bench.plan(&off("irq:*")).unwrap();
    change::apply(&bench.writer, &done, &mut |_| ()).unwrap();
    tree.put(filter, "irq == 7\n");
    let undo = |force| Request::Undo { entry: None, force };
    let error = bench.plan(&undo(false)).unwrap_err();
    assert!(matches!(error, ChangeError::KeptMoved { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("undo leaves it as it is now"), "{text}");
    let plan = bench.plan(&undo(true)).unwrap();
    assert_eq!(writes(&plan), ["events/irq/one/enable 1: 0 -> 1"]);
    assert!(
        plan.notes
            .iter()
            .any(|n| n.contains("it stays as it is now")),
        "{:?}",
        plan.notes
    );
    change::apply(&bench.writer, &plan, &mut |_| ()).unwrap();
    assert_eq!(tree.get(filter), "irq == 7\n");
}

#[test]
fn a_drop_that_cannot_be_made_fails_before_it_is_asked_for() {
    let tree = Tree::new();
    let drop = Request::DropCaches { level: Some(1) };
    let error = plan(&tree.env(), &drop).unwrap_err();
    assert!(
        matches!(&error, ChangeError::Missing(Reason::NoFile { path })
            if &**path == "/proc/sys/vm/drop_caches"),
        "{error}"
    );
    tree.put("proc/sys/vm/drop_caches", "0\n");
    assert!(tree.bench().plan(&drop).is_ok());
    // A journal below a file: no folder can be made there, not even by root.
    let journal = Journal::parse(&tree.path("run/.keep/journal"), "boot".into(), b"");
    let error = change::plan(&tree.env(), &drop, &journal, None).unwrap_err();
    assert!(matches!(error, ChangeError::Journal { .. }), "{error}");
    assert_eq!(tree.get("proc/sys/vm/drop_caches"), "0\n");
}

/// What a plan leaves as it is.
fn left(plan: &Plan) -> Vec<String> {
    plan.left
        .iter()
        .map(|l| format!("{}: {}", l.what, l.why))
        .collect()
}

#[test]
fn a_dynamic_event_goes_in_the_order_the_kernel_asks_for() {
    let env = recorded("6.1");
    let removal = plan(&env, &remove("stall:opened")).unwrap();
    assert_eq!(
        writes(&removal),
        [
            "events/stall/opened/enable 0: 1 -> 0",
            "dynamic_events -:stall/opened: p:stall/opened do_sys_openat2 name=+0(%si):string -> ",
        ]
    );
    assert_eq!(
        removal.writes[1].command(),
        "echo -:stall/opened >> /sys/kernel/tracing/dynamic_events"
    );
    assert_eq!(removal.undo, UndoClass::Partial);
    // A synthetic event belongs to the histograms that feed it.
    assert!(matches!(
        plan(&env, &remove("synthetic:slow_wakeup")),
        Err(ChangeError::NothingToDo { why }) if why.contains("only probe events")
    ));
    // Kernels before 5.0 have no dynamic_events.
    let old = recorded("4.18-rhel8");
    if let Ok(plan) = plan(&old, &remove("*:*")) {
        assert!(
            plan.writes
                .iter()
                .all(|w| !w.path.ends_with("/dynamic_events"))
        );
    }
}

#[test]
fn the_master_switch_and_what_it_does_not_stop() {
    let env = recorded("6.1");
    let tracing = tracing(vec![
        program(
            41,
            "kretprobe",
            "tcp_sendmsg",
            OwnerKind::Unit,
            "netdata.service",
        ),
        program(
            44,
            "kprobe_multi",
            "vfs_*",
            OwnerKind::Docker,
            "docker 3f2a9c1b7d44",
        ),
        BpfProgram {
            ours: true,
            ..program(50, "fentry", "x", OwnerKind::Root, "/")
        },
    ]);
    let plan = change::plan(&env, &off("kprobes"), &Journal::default(), Some(&tracing)).unwrap();
    assert_eq!(
        plan.writes[0].command(),
        "echo 0 > /sys/kernel/debug/kprobes/enabled"
    );
    let notes = plan.notes.join("\n");
    assert!(
        notes.contains("stops 8 kprobes") || notes.contains("stops 9 kprobes"),
        "{notes}"
    );
    assert!(
        notes.contains("stops holder[812], netdata.service: 1 kretprobe (1 BPF program)"),
        "{notes}"
    );
    assert_eq!(plan.left.len(), 1);
    assert!(
        plan.left[0].why.contains("docker stop 3f2a9c1b7d44"),
        "{:?}",
        plan.left
    );
}

#[test]
fn what_only_its_holder_can_stop_names_the_holder() {
    let env = recorded("6.1");
    let tracing = tracing(vec![
        program(
            41,
            "kprobe",
            "tcp_sendmsg",
            OwnerKind::Unit,
            "netdata.service",
        ),
        program(
            42,
            "tracepoint",
            "irq:softirq_entry",
            OwnerKind::Session,
            "session 4",
        ),
    ]);
    let plan =
        |selector: &str| change::plan(&env, &off(selector), &Journal::default(), Some(&tracing));
    let error = plan("kprobes:tcp_sendmsg").unwrap_err().to_string();
    for part in [
        "holder[812]",
        "systemctl stop netdata.service",
        "stalltop off kprobes",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let events = plan("irq:softirq_entry").unwrap();
    assert_eq!(events.writes.len(), 1);
    assert!(
        events.left[0].why.contains("stalltop stop 812"),
        "{:?}",
        events.left
    );
}

#[test]
fn lockdown_offers_what_still_works() {
    let tree = Tree::new();
    tree.put(
        "sys/kernel/security/lockdown",
        "none [integrity] confidentiality\n",
    );
    tree.put("sys/kernel/debug/kprobes/enabled", "1\n");
    tree.put(
        "sys/kernel/tracing/kprobe_events",
        "p:kprobes/a vfs_read\nr:agent/b vfs_read\n",
    );
    let error = plan(&tree.env(), &off("kprobes")).unwrap_err();
    let text = error.to_string();
    assert!(matches!(
        error,
        ChangeError::Instead {
            reason: Reason::Lockdown { .. },
            ..
        }
    ));
    for part in [
        "lockdown=integrity",
        "stalltop off 'agent:*'",
        "stalltop off 'kprobes:*'",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let text = plan(&recorded("6.18"), &off("kprobes"))
        .unwrap_err()
        .to_string();
    assert!(text.contains("CONFIG_KPROBES"), "{text}");
}

#[test]
fn what_is_not_mounted_is_mounted_only_when_asked() {
    let tree = Tree::new();
    tree.put("proc/self/mountinfo", "");
    let error = plan(&tree.env(), &off("sched:*")).unwrap_err().to_string();
    assert!(error.contains("stalltop on tracefs"), "{error}");
    let on = |selector: &str| Request::On {
        selector: selector.into(),
        force: false,
    };
    let mount = plan(&tree.env(), &on("tracefs debugfs")).unwrap();
    let commands: Vec<_> = mount.writes.iter().map(Write::command).collect();
    assert_eq!(
        commands,
        [
            "mount -t tracefs tracefs /sys/kernel/tracing",
            "mount -t debugfs debugfs /sys/kernel/debug"
        ]
    );
    assert_eq!(mount.writes[0].undo[0].mode, OpenMode::Unmount);
    // What others mounted is not unmounted.
    let tree = Tree::new();
    let error = plan(&tree.env(), &off("tracefs")).unwrap_err().to_string();
    assert!(error.contains("stalltop did not mount it"), "{error}");
}

#[test]
fn a_tracer_is_restored_by_name() {
    let tree = Tree::new();
    tree.put("sys/kernel/tracing/current_tracer", "function_graph\n");
    let bench = tree.bench();
    let plan = bench.plan(&off("current_tracer")).unwrap();
    assert_eq!(writes(&plan), ["current_tracer nop: function_graph -> nop"]);
    assert!(
        plan.notes
            .iter()
            .any(|n| n.contains("empties the instance's buffer"))
    );
    change::apply(&bench.writer, &plan, &mut |_| ()).unwrap();
    let on = |force| Request::On {
        selector: "current_tracer".into(),
        force,
    };
    assert_eq!(
        writes(&bench.plan(&on(false)).unwrap()),
        ["current_tracer function_graph: nop -> function_graph"]
    );
    assert!(plan_fails(&tree, &on(true)).contains("does not know which"));
}

fn plan_fails(tree: &Tree, request: &Request) -> String {
    plan(&tree.env(), request).unwrap_err().to_string()
}

#[test]
fn hostile_names_are_shown_harmless_and_stay_literal() {
    let tree = Tree::new();
    let name = "a\x1b[2J';rm -rf x;'\u{202e}";
    tree.event(&format!("instances/{name}/"), "sched/sched_switch", "1");
    let plan = plan(&tree.env(), &off("a*/sched:*")).unwrap();
    assert!(
        plan.writes[0].path.contains(name),
        "the path is the real one"
    );
    assert!(!plan.title.chars().any(char::is_control), "{}", plan.title);
    assert!(
        plan.writes[0]
            .command()
            .contains(r"\x1b[2J\';rm -rf x;\'\xe2"),
        "quoted for a shell, and harmless: {}",
        plan.writes[0].command()
    );
    let error = plan_fails(&tree, &off("b/sched:*"));
    assert!(!error.chars().any(char::is_control), "{error:?}");
    for selector in [
        "../../etc:*",
        "sched:../../x",
        "sched:*\nset_event",
        "/etc/passwd",
    ] {
        assert!(matches!(
            self::plan(&tree.env(), &off(selector)),
            Err(ChangeError::BadSelector { .. } | ChangeError::NothingMatches { .. })
        ));
    }
}

#[test]
fn a_journal_that_was_tampered_with_writes_nothing_else() {
    let tree = Tree::new();
    tree.event("", "sched/sched_switch", "1");
    tree.put("etc/target", "0\n");
    let bench = tree.bench();
    change::apply(
        &bench.writer,
        &bench.plan(&off("sched:*")).unwrap(),
        &mut |_| (),
    )
    .unwrap();
    let enable = "/sys/kernel/tracing/events/sched/sched_switch/enable";
    let text = fs::read_to_string(bench.writer.journal()).unwrap();
    for other in [
        "/etc/target",
        "/sys/kernel/tracing/events/sched/sched_switch/../../../../../../etc/target",
        "/sys/kernel/tracing/set_event",
    ] {
        fs::write(bench.writer.journal(), text.replace(enable, other)).unwrap();
        let error = bench
            .plan(&Request::Undo {
                entry: None,
                force: false,
            })
            .unwrap_err();
        assert!(matches!(error, ChangeError::Refused { .. }), "{error}");
        // Forced, it is left out, not written.
        let forced = bench
            .plan(&Request::Undo {
                entry: None,
                force: true,
            })
            .unwrap();
        assert!(forced.writes.is_empty() && !forced.left.is_empty());
    }
    assert_eq!(tree.get("etc/target"), "0\n");
    // A plan that was made up is not carried out either.
    let mut plan = plan(&recorded("6.1"), &off("irq:softirq_entry")).unwrap();
    plan.writes[0].path = "/etc/target".into();
    assert!(change::apply(&bench.writer, &plan, &mut |_| ()).is_err());
    assert_eq!(tree.get("etc/target"), "0\n");
}

#[test]
fn a_write_that_does_not_take_is_journaled_as_such() {
    let tree = Tree::new();
    tree.event("", "a/one", "1");
    tree.event("", "a/two", "1");
    let bench = tree.bench();
    let plan = bench.plan(&off("a:*")).unwrap();
    // The second event goes away between the look ahead and its write.
    let mut gone = |progress: change::Progress| {
        if progress.done == 1 {
            fs::remove_file(tree.path("sys/kernel/tracing/events/a/two/enable")).unwrap();
        }
    };
    let failure = change::apply(&bench.writer, &plan, &mut gone).unwrap_err();
    assert!(matches!(failure.error, ChangeError::Moved { .. }));
    let entry = failure.entry.unwrap();
    assert!(matches!(entry.outcome, Outcome::Failed { written: 1, .. }));
    // What is gone stops the undo, and is left out of a forced one.
    let undo = |force| {
        bench.plan(&Request::Undo {
            entry: Some(entry.id),
            force,
        })
    };
    assert!(matches!(undo(false), Err(ChangeError::Moved { .. })));
    let forced = undo(true).unwrap();
    assert_eq!((forced.writes.len(), forced.left.len()), (1, 1));
    change::apply(&bench.writer, &forced, &mut |_| ()).unwrap();
    assert_eq!(tree.get("sys/kernel/tracing/events/a/one/enable"), "1\n");
}

#[test]
fn read_only_gives_no_writer() {
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    assert!(matches!(
        Live::writer(&options, None),
        Err(ChangeError::ReadOnly { .. })
    ));
}
