//! The pane of locks, its details, and what other panes say of contention.

use std::sync::Arc;

use stalltop_model::sample::{Hidden, LockKind, LockStack, LockTracer, LockWatch, Locks, Waits};
use stalltop_model::{Model, Name, Reading, Reason};
use stalltop_view::{Depth, Effect, Mouse, MouseKind, Msg, Wants};

use super::host::{self, Kind};
use super::{Screen, options, snap};

/// The made-up host with other windows.
fn model(kind: Kind, window: impl Fn(u64) -> Locks) -> Model {
    let mut model = Model::new();
    model.set_header(host::header(kind));
    let tracing = Arc::new(host::tracing(kind));
    for tick in 1..kind.ticks {
        let mut sample = host::sample(kind, tick, &tracing);
        sample.locks = Reading::Value(Arc::new(window(tick)));
        model.advance(&mut sample);
    }
    model
}

/// What a kernel before 5.19 shows: no tracepoint, samples only.
fn without_tracepoints(kind: Kind, tick: u64) -> Locks {
    let missing = || Reason::KernelTooOld {
        need: "5.19".into(),
        have: "5.10.0".into(),
    };
    let all = host::locks::window(kind, tick);
    Locks {
        watch: LockWatch {
            tracer: Reading::Off(missing()),
            hidden: Reading::Off(missing()),
            ..LockWatch::default()
        },
        window: tick,
        at_ns: all.at_ns,
        span_ns: all.span_ns,
        share: all.share,
        ..Locks::default()
    }
}

/// A virtual machine without paravirtual spinlocks, traced in windows.
fn virtual_machine(kind: Kind, tick: u64) -> Locks {
    let mut all = host::locks::window(kind, tick);
    let spins = |k: LockKind| k == LockKind::Spin;
    all.watch.tracer = Reading::Value(LockTracer::Windows);
    all.watch.overflowed = 12;
    all.watch.hidden = Reading::Value(vec![Hidden {
        what: "spinlocks".into(),
        kinds: vec![LockKind::Spin],
        why: Reason::KernelDoesNotSay {
            what: "spin waits of a virtual machine without paravirtual spinlocks".into(),
        },
    }]);
    all.measured_ns /= 20;
    all.kinds.retain(|k| !spins(k.kind));
    all.locks.retain(|l| !spins(l.kind));
    all.stacks.retain(|s| !spins(s.kind));
    all.unseen = Waits::default();
    all
}

fn screen(model: Model, width: u16, height: u16) -> Screen {
    let mut screen = Screen::of(model, options("night", Depth::True), width, height);
    screen.keys("4");
    screen
}

#[test]
fn the_same_waits_by_lock_stack_waiter_and_cpu() {
    let mut screen = Screen::new(Kind::sick(4), 120, 35);
    snap!("locks_120x35", screen.keys("4"));
    snap!("locks_by_stack", screen.keys("v"));
    snap!("locks_by_waiter", screen.keys("v"));
    snap!("locks_by_cpu", screen.keys("v"));
    screen.keys("v");
    assert!(screen.text().contains("by lock"));
    snap!("locks_samples", screen.keys("o"));
    snap!("locks_samples_by_cpu", screen.keys("v v v"));
}

#[test]
fn the_program_under_which_they_wait_is_named_with_its_holder() {
    let mut screen = Screen::new(Kind::sick(4), 160, 35);
    screen.keys("4");
    let text = screen.text();
    let row = text.lines().find(|l| l.contains("0xffff88810a2b4c00"));
    let row = row.expect("the lock");
    assert!(
        row.starts_with("◆ spinlock") && row.contains("netdata[812] prog 41 tcp_sendmsg"),
        "{row}"
    );
    assert!(text.contains("init_mm.mmap_lock"));
}

#[test]
fn details_with_a_flame_graph() {
    let mut screen = Screen::new(Kind::sick(4), 120, 40);
    snap!("lock_detail", screen.keys("4 enter"));
    // Down to the fork, then a neighbour, a zoom, and out again.
    snap!(
        "lock_detail_selected",
        screen.keys("down down down down down")
    );
    screen.keys("enter");
    assert!(screen.text().contains("Esc shows all"), "{}", screen.text());
    screen.keys("esc");
    assert!(screen.text().contains("Esc closes"));
    snap!("lock_detail_tree", screen.keys("v"));
    screen.keys("esc");
    assert!(screen.text().contains("LOCKS most wait"));
    let mut small = Screen::new(Kind::sick(4), 80, 24);
    snap!("lock_detail_80x24", small.keys("4 down enter"));
    let mut tiny = Screen::new(Kind::sick(4), 30, 10);
    snap!("lock_detail_tiny", tiny.keys("4 enter down down"));
}

#[test]
fn the_selected_function_stays_while_time_goes_on() {
    let kind = Kind::sick(4);
    let mut screen = Screen::new(kind, 120, 40);
    screen.keys("4 enter down down down");
    let selected = |text: &str| {
        let line = text.lines().find(|l| l.contains(" selected ")).unwrap();
        line.split_once("% ")
            .unwrap()
            .1
            .split(" · ")
            .next()
            .unwrap()
            .to_owned()
    };
    let before = selected(&screen.text());
    let tracing = Arc::new(host::tracing(kind));
    for tick in kind.ticks..kind.ticks + 12 {
        let mut sample = host::sample(kind, tick, &tracing);
        screen.model.advance(&mut sample);
        screen.send(Msg::Advanced);
        assert_eq!(selected(&screen.text()), before);
    }
}

#[test]
fn before_the_tracepoints_there_is_the_sample_share() {
    let kind = Kind::sick(4);
    let mut old = screen(model(kind, |t| without_tracepoints(kind, t)), 100, 30);
    snap!("locks_without_tracepoints", old);
    let text = old.text();
    assert!(
        text.contains("interrupts off, lock suspected 33.3 %"),
        "{text}"
    );
    assert!(
        text.contains("in lock slow paths 10.0 % of 9,600 samples"),
        "{text}"
    );
    assert!(!text.contains("wait/s"), "no wait was measured: {text}");
    snap!("lock_detail_samples", old.keys("enter"));
}

#[test]
fn kinds_that_do_not_show_are_named() {
    let kind = Kind::sick(4);
    let mut vm = screen(model(kind, |t| virtual_machine(kind, t)), 100, 30);
    snap!("locks_hidden_kinds", vm);
    let text = vm.text();
    assert!(text.contains("not visible here: spinlocks"), "{text}");
    assert!(
        text.contains("traced in windows: 5.0 % of the time"),
        "{text}"
    );
}

/// Many things hidden, and waits of every length: a small screen still tells of all.
#[test]
fn what_is_hidden_takes_one_row_of_a_small_screen() {
    let kind = Kind::sick(4);
    let many = |tick| {
        let mut all = host::locks::window(kind, tick);
        let hidden = |what: &str, why: &str| Hidden {
            what: what.into(),
            kinds: Vec::new(),
            why: Reason::HiddenWaits {
                what: format!("waits for {what}").into(),
                why: why.into(),
                mend: "".into(),
            },
        };
        all.watch.hidden = Reading::Value(vec![
            hidden(
                "the first waiter of a spinlock",
                "it waits outside the queue",
            ),
            hidden(
                "locks of BPF maps",
                "their own kind of spinlock since 6.15 does not tell",
            ),
            hidden(
                "rwsem writers that spin",
                "the kernel tells of those alone that go to sleep",
            ),
        ]);
        for kind in &mut all.kinds {
            kind.hist = (0..31).collect();
        }
        all
    };
    let mut small = screen(model(kind, many), 80, 24);
    snap!("locks_hidden_80x24", small);
    let text = small.text();
    assert_eq!(text.matches("hidden: ").count(), 1, "{text}");
    assert!(text.contains("2 ns-2.1 s"), "the range is whole: {text}");
    assert!(text.contains("top waiter"), "{text}");
    small.keys("enter");
    let text = small.text();
    assert!(text.contains("their own kind of spinlock"), "{text}");
    assert!(text.contains("those alone that go to"), "{text}");
    let mut large = screen(model(kind, many), 120, 45);
    let text = large.text();
    assert_eq!(text.matches("not visible here: ").count(), 3, "{text}");
}

#[test]
fn many_cpus_fill_the_list_only() {
    let kind = Kind {
        ticks: 15,
        ..Kind::sick(512)
    };
    let mut screen = Screen::new(kind, 120, 35);
    snap!("locks_512_cpus", screen.keys("4 v v v"));
    screen.keys("G enter");
    assert!(screen.text().contains("CORE cpu"), "{}", screen.text());
}

#[test]
fn the_filter_finds_functions_programs_and_waiters() {
    let mut screen = Screen::new(Kind::sick(4), 120, 35);
    for (text, shown) in [
        ("HTAB_", "0xffff88810a2b4c00"),
        ("prog 41", "0xffff88810a2b4c00"),
        ("mmap_lock", "init_mm.mmap_lock"),
        ("postgres", "init_mm.mmap_lock"),
    ] {
        screen.keys("4 /").typed(text).keys("enter");
        let now = screen.text();
        assert!(
            now.contains(shown) && now.contains("1 of 3"),
            "{text}: {now}"
        );
        screen.keys("esc");
    }
    screen.keys("/").typed("zzz").keys("enter");
    assert!(screen.text().contains("nothing matches"));
}

#[test]
fn a_past_tick_and_another_order() {
    let mut screen = Screen::new(Kind::sick(4), 120, 35);
    screen.keys("4 [ [ [");
    let text = screen.text();
    assert!(text.contains("10.0 s up to 22:42:06"), "{text}");
    screen.keys("esc s s");
    let text = screen.text();
    assert!(text.contains("LOCKS longest, by lock"), "{text}");
    let first = text.lines().position(|l| l.contains("init_mm.mmap_lock"));
    let second = text.lines().position(|l| l.contains("0xffff88810a2b4c00"));
    assert!(first < second, "9 ms before 1 ms: {text}");
}

#[test]
fn a_ticket_is_text_and_a_flame_graph() {
    let mut screen = Screen::new(Kind::sick(4), 120, 35);
    screen.keys("4 enter y");
    let [
        Effect::Snapshot {
            text,
            flame: Some(flame),
        },
    ] = &screen.last.list[..]
    else {
        panic!("{:?}", screen.last)
    };
    assert!(text.contains("who waits: spinlock") && text.contains("bpf tcp_sendmsg"));
    assert_eq!(flame.unit, "ns");
    assert!(
        flame.title.contains("by time, node-17, 10.0 s up to"),
        "{}",
        flame.title
    );
    assert_eq!(flame.folded.len(), 3, "{:?}", flame.folded);
    assert!(
        flame.folded[0].starts_with("envoy;entry_SYSCALL_64_after_hwframe;do_syscall_64;"),
        "{:?}",
        flame.folded
    );
    let (stack, weight) = flame.folded[0].rsplit_once(' ').unwrap();
    assert!(stack.ends_with("native_queued_spin_lock_slowpath"));
    assert!(weight.parse::<u64>().unwrap() > 1_000_000_000);
    for name in ["/tmp/some where/a.txt", "/tmp/some where/b.svg"] {
        screen.send(Msg::SnapshotWritten(Ok(name.into())));
    }
    let text = screen.text();
    let told = "written to /tmp/some where/a.txt, b.svg";
    assert!(text.contains(told), "{text}");
    // Of everything, from the list; of samples, by their number.
    screen.keys("esc o y");
    let Some(Effect::Snapshot {
        flame: Some(flame), ..
    }) = screen.last.list.last()
    else {
        panic!("{:?}", screen.last)
    };
    assert_eq!(flame.unit, "samples");
    let suspected = flame.folded.iter().find(|l| l.contains("suspected"));
    assert!(suspected.is_some_and(|l| l.contains(";[interrupts off, lock suspected] ")));
    assert!(flame.folded.iter().all(|l| !l.contains(['\x1b', '\n'])));
}

#[test]
fn what_costs_something_is_asked_for_only_while_it_is_looked_at() {
    let mut screen = Screen::new(Kind::sick(4), 80, 24);
    let wanted = |screen: &Screen| {
        let last = screen.last.list.iter().find_map(|e| match e {
            Effect::Wants(wants) => Some(*wants),
            _ => None,
        });
        last.map(|wants: Wants| wants.locks)
    };
    assert_eq!(wanted(screen.keys("4")), Some(true));
    assert_eq!(wanted(screen.keys("enter down")), None);
    assert_eq!(wanted(screen.keys("1")), Some(false));
}

#[test]
fn the_overview_and_the_tab_say_it() {
    let mut sick = Screen::new(Kind::sick(4), 120, 40);
    let text = sick.text();
    assert!(text.contains("4 Locks 3."), "{text}");
    assert!(text.contains("s/s waited for locks"), "{text}");
    let mut calm = Screen::new(Kind::calm(4), 120, 40);
    let text = calm.text();
    assert!(!text.contains("waited for locks"), "{text}");
}

#[test]
fn the_mouse_selects_and_zooms() {
    let mut screen = Screen::new(Kind::sick(4), 120, 40);
    screen.keys("4 enter");
    let text = screen.text();
    let row = text
        .lines()
        .position(|l| l.starts_with("◆__kretprobe_trampoline "))
        .unwrap() as u16;
    let press = Msg::Mouse(Mouse {
        kind: MouseKind::Press,
        column: 10,
        row,
    });
    screen.send(press.clone());
    assert!(
        screen.text().contains("▸__kretprobe_trampoline"),
        "{}",
        screen.text()
    );
    screen.send(press);
    assert!(screen.text().contains("Esc shows all"), "{}", screen.text());
}

#[test]
fn absurd_stacks_are_drawn_all_the_same() {
    let kind = Kind {
        ticks: 4,
        ..Kind::sick(2)
    };
    let window = |tick: u64| {
        let mut window = host::locks::window(kind, tick);
        let one = window.stacks[0].clone();
        // Recursion, no frame at all, names of all kinds; as many functions as may be.
        for i in 0..900u32 {
            let frames: Vec<Name> = (0..120)
                .map(|f| match (i % 3, f % 7) {
                    (0, _) => "recursive".into(),
                    (_, 3) => "\x1b[2J;".into(),
                    _ => Name::from(format!("f{i}_{f}")),
                })
                .collect();
            window.stacks.push(LockStack {
                frames,
                waits: Waits {
                    count: u64::MAX,
                    wait_ns: u64::MAX,
                    longest_ns: u64::MAX,
                },
                ..one.clone()
            });
        }
        window.stacks.push(LockStack {
            frames: Vec::new(),
            ..one
        });
        window
    };
    for (width, height) in [(200, 60), (80, 24), (20, 5), (1, 1)] {
        let mut screen = screen(model(kind, window), width, height);
        for keys in [
            "enter", "G", "v", "G", "enter", "down", "esc", "z", "esc", "v", "o", "enter",
        ] {
            screen.keys(keys);
            let text = screen.text();
            assert!(!text.contains('\x1b'));
        }
    }
}
