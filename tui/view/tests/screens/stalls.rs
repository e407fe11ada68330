//! The pane of stalls, what the Overview and Cores say of them, and the heat map.

use stalltop_model::model::stalls::counts;
use stalltop_model::sample::{Culprit, Sched, Stall, StallKind, StallWatch};
use stalltop_model::{Frame, Model, Reading, Reason};
use stalltop_view::{Depth, Effect, Mouse, MouseKind, Msg, THEMES, Wants};

use super::host::{self, Kind};
use super::{SIZES, Screen, options, snap};

const MS: u64 = 1_000_000;

#[test]
fn groups_fold_and_unfold() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    snap!("stalls_by_culprit", screen.keys("3 v"));
    let text = screen.text();
    assert!(
        text.contains("100 % of 44 stalls by cadvisor: in memory_stat_show"),
        "{text}"
    );
    snap!("stalls_by_cpu_unfolded", screen.keys("v v right"));
    assert!(
        screen
            .text()
            .contains("stalls on cpu 1: cadvisor in memory_stat_show")
    );
    // Left on a stall goes to its group, once more folds it.
    screen.keys("down down left left");
    assert!(!screen.text().contains('▾'), "{}", screen.text());
    snap!("stalls_by_kind", screen.keys("v"));
    screen.keys("v");
    assert!(screen.text().contains("STALLS newest first"));
}

#[test]
fn a_stall_in_full() {
    let mut screen = Screen::new(Kind::sick(4), 80, 24);
    screen.keys("3 s enter");
    snap!("stall_detail_80x24", screen);
    snap!("stall_detail_scrolled", screen.keys("end"));
    let mut wide = Screen::new(Kind::sick(4), 160, 40);
    snap!("stall_detail_wide", wide.keys("3 s enter v"));
    screen.keys("esc");
    assert!(screen.text().contains("STALLS worst first"));
}

#[test]
fn a_ticket_has_all_of_a_stall() {
    let mut screen = Screen::new(Kind::sick(4), 80, 24);
    screen.keys("3 s enter y");
    let Some(Effect::Snapshot { text, .. }) = screen.last.list.first() else {
        panic!("{:?}", screen.last)
    };
    for part in [
        "stall 5",
        "raised 22:",
        "kubepods/burstable/cadvisor-x7k2",
        "mem_cgroup_flush_stats",
        "emptied the backlog in 10.3 ms",
        "not known user stack",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_is_folded_away_is_counted_and_keys_show_it() {
    let mut screen = Screen::new(Kind::sick(4), 100, 40);
    screen.keys("3");
    let text = screen.text();
    assert!(
        text.contains("5 paused vCPU hidden (O), 5 ours hidden (o)"),
        "{text}"
    );
    assert!(!text.contains("(virtual cpu paused)"));
    screen.keys("O");
    let text = screen.text();
    assert!(
        text.contains("(virtual cpu paused)") && text.contains("5 ours hidden"),
        "{text}"
    );
    screen.keys("o");
    assert!(!screen.text().contains("hidden"), "{}", screen.text());
}

#[test]
fn only_those_like_this_and_all_again() {
    let mut screen = Screen::new(Kind::sick(4), 100, 40);
    screen.keys("3 / h a n d l e r enter f");
    let text = screen.text();
    assert!(
        text.contains("only NET_RX in nft_do_chain (f: all)"),
        "{text}"
    );
    screen.keys("esc");
    assert!(
        screen.text().contains("only NET_RX"),
        "Esc takes the filter first"
    );
    screen.keys("esc");
    assert!(!screen.text().contains("only NET_RX"));
    // From the details too.
    screen.keys("enter f");
    assert!(screen.text().contains("only cadvisor in memory_stat_show"));
    screen.keys("f");
    assert!(screen.text().contains("irqs off?"));
}

#[test]
fn the_filter_sees_every_text_of_a_row() {
    let mut screen = Screen::new(Kind::sick(4), 100, 40);
    for text in [
        "CADVISOR[10436",
        "memory.stat",
        "kubepods/burst",
        "nft_do",
        "irqs off",
        "cpu0",
    ] {
        screen.keys("3 /").typed(text).keys("enter");
        let shown = screen.text();
        assert!(
            !shown.contains("nothing matches") && shown.contains(" match"),
            "{shown}"
        );
        screen.keys("esc");
    }
    screen.keys("/").typed("zzz").keys("enter");
    assert!(screen.text().contains("nothing matches"));
}

#[test]
fn the_cursor_stays_on_its_stall_while_new_ones_come() {
    let kind = Kind::sick(4);
    let mut screen = Screen::new(kind, 100, 30);
    screen.keys("3 down down down");
    let before = cursor_row(&mut screen);
    for i in 0..3 {
        let newest = screen.model.stalls.iter().next_back().expect("stalls");
        let stall = Stall {
            id: 100_000 + i,
            at_ns: newest.at_ns + 1,
            ..(**newest).clone()
        };
        screen.model.apply(&mut Frame::Stall(Box::new(stall)));
    }
    screen.send(Msg::Advanced);
    assert_eq!(cursor_row(&mut screen), before);
    for _ in 0..8 {
        screen.send(Msg::Advanced);
    }
    // The order is let go; the cursor went along with its stall.
    assert_eq!(cursor_row(&mut screen), before);
}

/// The text of the row under the cursor.
fn cursor_row(screen: &mut Screen) -> String {
    screen.text();
    let buffer = screen.terminal.backend().buffer();
    let background = stalltop_view::Theme::named("night", Depth::True)
        .expect("a theme")
        .style(stalltop_view::Role::Cursor)
        .bg
        .expect("a background");
    let row = (3..buffer.area.height).find(|y| buffer[(0, *y)].bg == background);
    let row = row.expect("a cursor");
    (0..buffer.area.width)
        .map(|x| buffer[(x, row)].symbol())
        .collect()
}

/// The sick host, with another idea of how stalls are watched.
fn watched(change: impl Fn(&mut Reading<StallWatch>)) -> Model {
    let kind = Kind::calm(4);
    let mut model = host::model(kind);
    let tracing = std::sync::Arc::new(host::tracing(kind));
    let mut sample = host::sample(kind, kind.ticks, &tracing);
    change(&mut sample.stalls);
    model.advance(&mut sample);
    model
}

#[test]
fn what_is_not_watched_says_why_and_what_mends_it() {
    let nothing = watched(|w| *w = Reading::Off(Reason::NoBtf));
    let mut screen = Screen::of(nothing, options("night", Depth::True), 100, 24);
    snap!("stalls_not_watched", screen.keys("3"));
    let some = watched(|w| {
        let watch = w.value_mut().expect("watched");
        watch.kinds[3] = Reading::Off(Reason::NoBtf);
        watch.kinds[1] = Reading::Value(10 * MS);
        watch.symbols = Reading::Off(Reason::NoCapability {
            need: "CAP_SYSLOG".into(),
        });
        watch.lost = 7;
        watch.sampling = (0..300).collect();
    });
    let mut screen = Screen::of(some, options("night", Depth::True), 120, 40);
    snap!("stalls_half_watched", screen.keys("3"));
}

#[test]
fn a_calm_host_is_one_calm_line() {
    let mut screen = Screen::new(Kind::calm(4), 80, 24);
    let text = screen.text();
    assert!(text.contains("no stall over 5.0 ms"), "{text}");
    assert!(!text.contains("CULPRITS"));
    snap!("stalls_calm", screen.keys("3"));
}

#[test]
fn an_estimate_below_the_threshold_is_marked_and_explained() {
    let mut screen = Screen::new(Kind::calm(4), 120, 40);
    let stall = Stall {
        id: 1,
        at_ns: screen.model.now().at_ns,
        wall_ns: screen.model.now().wall_ns,
        kind: StallKind::InterruptsOff,
        delay_ns: 4 * MS,
        least_ns: 2 * MS,
        most_ns: 6 * MS,
        ..Stall::default()
    };
    screen.model.apply(&mut Frame::Stall(Box::new(stall)));
    let rows = screen.keys("3").text();
    assert!(rows.contains(" ~4.0 ms"), "{rows}");
    let detail = screen.keys("enter").text();
    assert!(
        detail.contains("(at least 2.0 ms, at most 6.0 ms: told as it may have been 5.0 ms)"),
        "{detail}"
    );
}

#[test]
fn a_real_time_task_is_named_with_its_priority() {
    let mut screen = Screen::new(Kind::calm(4), 120, 40);
    for id in 1..=3 {
        let now = screen.model.now();
        let stall = Stall {
            id,
            at_ns: now.at_ns - (3 - id) * 1_000 * MS,
            wall_ns: now.wall_ns - (3 - id) * 1_000 * MS,
            cpu: 1,
            kind: StallKind::RealTime,
            delay_ns: 950 * MS,
            least_ns: 950 * MS,
            most_ns: 950 * MS,
            culprit: Reading::Value(Culprit {
                pid: 1234,
                tgid: 1234,
                comm: "rt-hog".into(),
                sched: Some(Sched {
                    policy: "SCHED_FIFO".into(),
                    priority: Some(50),
                }),
                share: 1.0,
                function: Reading::Off(Reason::UserSpace),
                ..Culprit::default()
            }),
            waited: Some("kworker/1:2".into()),
            ..Stall::default()
        };
        screen.model.apply(&mut Frame::Stall(Box::new(stall)));
    }
    let rows = screen.keys("3").text();
    assert!(rows.contains("real-time from 100.0 ms"), "{rows}");
    assert!(rows.contains("1 real-time "), "{rows}");
    let detail = screen.keys("enter").text();
    for part in [
        "real-time tasks kept the cpu for 950.0 ms; kworker/1:2 waited, from ",
        "rt-hog[1234] SCHED_FIFO 50 · in user space · 100 % of the time",
    ] {
        assert!(detail.contains(part), "{detail}");
    }
}

#[test]
fn the_overview_leads_to_the_stalls_of_a_culprit() {
    let mut screen = Screen::new(Kind::sick(4), 120, 40);
    let rows = screen.text();
    let line = rows
        .lines()
        .position(|l| l.trim_start().starts_with("cadvisor["));
    let at = |row: usize| {
        Msg::Mouse(Mouse {
            kind: MouseKind::Press,
            column: 5,
            row: row as u16,
        })
    };
    let row = line.expect("a culprit");
    screen.send(at(row)).send(at(row));
    let text = screen.text();
    assert!(
        text.contains("only cadvisor") && text.contains("memory_stat_show"),
        "{text}"
    );
    // The finding itself says how sure it is, and what would speak against it.
    screen.keys("1 home enter");
    let text = screen.text();
    assert!(
        text.contains("confidence:") && text.contains("wrong if"),
        "{text}"
    );
}

#[test]
fn a_time_marked_in_the_heat_map_narrows_every_pane() {
    let mut screen = Screen::new(Kind::sick(4), 120, 40);
    // Details of a stall long before the time that will be marked.
    assert!(screen.keys("3 G enter").text().contains(" STALL "));
    snap!("heat_map", screen.keys("2 down enter m"));
    screen.keys("left enter left left left left up up up enter");
    assert_eq!(screen.last.list, [Effect::SetPaused(true)]);
    snap!("heat_map_marked", screen);
    screen.keys("3");
    let text = screen.text();
    assert!(
        text.contains(" only 22:42:0") && text.contains("shows everything again"),
        "{text}"
    );
    let rows = text
        .lines()
        .filter(|l| l.contains("memory_stat_show"))
        .count();
    assert_eq!(rows, 3, "{text}");
    // The tab counts what the pane lists, and findings say that they are of another time.
    assert!(text.contains(" 3 Stalls 3 "), "{text}");
    screen.keys("1");
    let text = screen.text();
    assert!(text.contains("CULPRITS 22:42:0"), "{text}");
    let heading = "6 findings as of 22:42:09, not of the marked time";
    assert!(text.contains(heading), "{text}");
    screen.keys("enter");
    assert!(screen.text().contains("as of 22:42:09, not of the"));
    screen.keys("esc");
    screen.keys("6");
    assert!(screen.text().contains(" only 22:42:0"));
    screen.keys("esc");
    assert_eq!(screen.last.list, [Effect::SetPaused(false)]);
    assert!(!screen.text().contains(" only 22:42:0"));
}

#[test]
fn the_mouse_marks_in_the_heat_map() {
    let mut screen = Screen::new(Kind::sick(4), 120, 40);
    screen.keys("2 down enter m");
    screen.text();
    let at = |kind, column, row| Msg::Mouse(Mouse { kind, column, row });
    screen.send(at(MouseKind::Press, 60, 20));
    screen.send(at(MouseKind::Drag, 70, 10));
    assert!(
        screen.text().contains("shows only this time"),
        "{}",
        screen.text()
    );
    screen.keys("enter");
    assert!(screen.text().contains("shows everything again"));
    // A marked time that was not begun yet is left first, then the map.
    screen.keys("esc enter esc");
    assert!(screen.text().contains("HEAT MAP"));
    screen.keys("esc");
    assert!(screen.text().contains("CORE cpu 1"));
}

#[test]
fn a_cpu_that_is_looked_at_may_be_sampled() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    let cpu = |cpu| {
        Effect::Wants(Wants {
            cpu,
            ..Wants::default()
        })
    };
    screen.keys("2 down enter");
    assert_eq!(screen.last.list, [cpu(Some(1))]);
    screen.keys("esc");
    assert_eq!(screen.last.list, [cpu(None)]);
    screen.keys("3 enter");
    assert_eq!(screen.last.list, [cpu(Some(1))]);
    screen.keys("c");
    assert!(screen.text().contains("CORE cpu 1"));
}

#[test]
fn run_queue_delay_is_a_figure_or_a_reason() {
    let mut screen = Screen::new(Kind::sick(4), 120, 50);
    screen.keys("2 down enter");
    assert!(
        screen.text().contains("longest 310.0 us"),
        "{}",
        screen.text()
    );
    let kind = Kind {
        bare: true,
        ..Kind::calm(4)
    };
    let mut screen = Screen::new(kind, 120, 50);
    screen.keys("2 down enter");
    let text = screen.text();
    assert!(
        text.contains("run queue  not measured: CAP_BPF is missing"),
        "{text}"
    );
}

#[test]
fn in_the_past_there_is_what_had_ended_by_then() {
    let mut screen = Screen::new(Kind::sick(4), 100, 40);
    screen.keys("3 { {");
    let text = screen.text();
    assert!(text.contains("up to 22:41:49"), "{text}");
    assert!(!text.contains("22:42:0"), "{}", text);
}

#[test]
fn hostile_stalls_at_every_size_theme_and_in_ascii() {
    let kind = Kind {
        hostile: true,
        ..Kind::sick(4)
    };
    let model = host::model(kind);
    for (name, _) in THEMES {
        for ascii in [false, true] {
            for (width, height) in SIZES {
                let mut options = options(name, Depth::Ansi16);
                options.ascii = ascii;
                let mut screen = Screen::of(model.clone(), options, width, height);
                for keys in [
                    "3", "enter", "v", "esc", "v", "v", "2", "down", "enter", "m", "1",
                ] {
                    screen.keys(keys);
                    let text = screen.text();
                    assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text}");
                    assert!(!ascii || text.is_ascii(), "{text}");
                }
            }
        }
    }
}

#[test]
fn many_cpus_and_many_stalls() {
    let mut model = host::model(Kind {
        ticks: 20,
        ..Kind::sick(512)
    });
    let one = model.stalls.iter().find(|s| counts(s)).expect("a stall");
    let one = Stall::clone(one);
    for i in 0..5_000u64 {
        let stall = Stall {
            id: 1_000 + i,
            cpu: (i % 512) as u32,
            at_ns: one.at_ns + i * 1_000_000,
            victims: if i % 100 == 0 {
                (0..512).collect()
            } else {
                Vec::new()
            },
            ..one.clone()
        };
        model.apply(&mut Frame::Stall(Box::new(stall)));
    }
    let mut screen = Screen::of(model, options("night", Depth::True), 200, 60);
    screen.keys("3");
    let text = screen.text();
    assert!(text.contains("older ones dropped"), "{text}");
    screen.keys("end");
    assert!(screen.text().contains("cadvisor[10436]"));
    screen.keys("v v v z end");
    assert!(screen.text().contains('▾'));
    screen.keys("2");
    assert!(screen.text().contains('◆'));
}

#[test]
fn a_marked_time_of_a_replay_is_left_by_going_elsewhere() {
    let mut screen = Screen::new(Kind::sick(4), 120, 40);
    screen.send(Msg::Feed(stalltop_view::Feed::Replay {
        at_ns: 1,
        length_ns: 2,
        speed: 1.0,
        paused: false,
        ended: false,
    }));
    let mark = |screen: &mut Screen| {
        screen.keys("2 down enter m");
        screen.text();
        screen.keys("enter left enter");
        assert_eq!(screen.last.list, [Effect::SetPaused(true)]);
    };
    mark(&mut screen);
    screen.keys("[");
    let seek = Effect::Seek(stalltop_view::Seek::Ticks(-1));
    assert_eq!(screen.last.list, [Effect::SetPaused(false), seek]);
    screen.keys("esc esc");
    mark(&mut screen);
    screen.keys("p");
    assert_eq!(screen.last.list, [Effect::SetPaused(false)]);
    assert!(!screen.text().contains("shows everything again"));
}
