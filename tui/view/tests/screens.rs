//! Keys in, screen out: what a person sees, compared cell by cell.

#[path = "screens/chance.rs"]
mod chance;
#[path = "screens/changes.rs"]
mod changes;

#[path = "screens/host.rs"]
mod host;
#[path = "screens/jobs.rs"]
mod jobs;
#[path = "screens/locks.rs"]
mod locks;
#[path = "screens/stalls.rs"]
mod stalls;
#[path = "screens/tracing.rs"]
mod tracing;

use host::Kind;
use std::sync::Arc;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};
use stalltop_model::change::{ChangeError, Entry, Failure, Plan};
use stalltop_model::rules::RULES;
use stalltop_model::{Frame, Model};
use stalltop_view::{
    ActionId, App, Depth, Effect, Effects, Feed, JobId, Key, KeyCode, Keymap, Mouse, MouseKind,
    Msg, Options, PaneInfo, Seek, Theme,
};

/// An application with its model on a terminal of a size.
struct Screen {
    app: App,
    model: Model,
    terminal: Terminal<TestBackend>,
    last: Effects,
    /// The change that was asked for last.
    job: Option<JobId>,
}

fn options(theme: &str, depth: Depth) -> Options {
    Options {
        theme: Theme::named(theme, depth).expect("a theme"),
        keymap: Keymap::builtin().expect("keys"),
        ascii: false,
        read_only: None,
        feed: Feed::Live {
            tick_ns: 1_000_000_000,
        },
    }
}

impl Screen {
    fn new(kind: Kind, width: u16, height: u16) -> Self {
        Self::of(
            host::model(kind),
            options("night", Depth::True),
            width,
            height,
        )
    }

    fn of(model: Model, options: Options, width: u16, height: u16) -> Self {
        let mut screen = Self {
            app: App::new(options),
            model,
            terminal: Terminal::new(TestBackend::new(width, height)).expect("a terminal"),
            last: Effects::none(),
            job: None,
        };
        screen.send(Msg::Resize(width, height));
        screen.send(Msg::Advanced);
        screen
    }

    fn send(&mut self, msg: Msg) -> &mut Self {
        self.last = self.app.update(msg, &self.model);
        let job = |effect: &Effect| match effect {
            Effect::Plan { job, .. } | Effect::Apply { job, .. } => Some(*job),
            _ => None,
        };
        self.job = self.last.list.iter().rev().find_map(job).or(self.job);
        self
    }

    /// Answers the change that was asked for last with its plan.
    fn planned(&mut self, result: Result<Box<Plan>, ChangeError>) -> &mut Self {
        let job = self.job.expect("a change was asked for");
        self.send(Msg::Planned { job, result })
    }

    /// Says how it ended.
    fn applied(&mut self, result: Result<Box<Entry>, Failure>) -> &mut Self {
        let job = self.job.expect("a change was asked for");
        self.send(Msg::Applied { job, result })
    }

    /// Keys separated by blanks.
    fn keys(&mut self, keys: &str) -> &mut Self {
        for key in keys.split(' ') {
            let key: Key = key.parse().expect("a key");
            self.send(Msg::Key(key));
        }
        self
    }

    /// Letters typed into a field.
    fn typed(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            self.send(Msg::Key(Key::plain(KeyCode::Char(c))));
        }
        self
    }

    fn text(&mut self) -> String {
        let (app, model) = (&self.app, &self.model);
        self.terminal
            .draw(|frame| app.render(model, frame))
            .expect("to draw");
        let text = self.terminal.backend().to_string();
        text.lines()
            .map(|l| l.trim_matches('"').trim_end())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Snapshots carry the size and the keys in their names; `cargo insta review` shows them.
macro_rules! snap {
    ($name:literal, $screen:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($name, $screen.text());
        });
    };
}

pub(crate) use snap;

/// Keys and names of the panes.
const PANES: [(&str, &str); 6] = [
    ("1", "overview"),
    ("2", "cores"),
    ("3", "stalls"),
    ("4", "locks"),
    ("5", "tracing"),
    ("6", "cgroups"),
];

const SIZES: [(u16, u16); 4] = [(20, 5), (80, 24), (120, 40), (200, 60)];

#[test]
fn every_pane_at_every_size() {
    for (pane, name) in PANES {
        for (width, height) in SIZES {
            let mut screen = Screen::new(Kind::sick(4), width, height);
            screen.keys(pane);
            insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
                insta::assert_snapshot!(format!("{name}_{width}x{height}"), screen.text());
            });
        }
    }
}

#[test]
fn every_pane_before_the_first_sample_and_without_privilege() {
    for (pane, name) in PANES {
        let mut empty = Screen::of(Model::new(), options("night", Depth::True), 80, 24);
        empty.keys(pane);
        let mut bare = Screen::new(
            Kind {
                bare: true,
                ..Kind::calm(4)
            },
            100,
            30,
        );
        bare.keys(pane);
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(format!("{name}_empty"), empty.text());
            insta::assert_snapshot!(format!("{name}_unprivileged"), bare.text());
        });
    }
}

#[test]
fn many_cpus_are_grouped_and_what_stalls_is_not_hidden() {
    for cpus in [2, 128, 512, 1_024] {
        let mut screen = Screen::new(
            Kind {
                ticks: 20,
                ..Kind::sick(cpus)
            },
            120,
            40,
        );
        screen.keys("2");
        let text = screen.text();
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(format!("cores_{cpus}_cpus"), text);
        });
        let row = text
            .lines()
            .find(|l| l.starts_with("✖    1 "))
            .expect("the CPU that stalls has a row");
        assert!(row.contains("178.2"), "{row}");
    }
}

#[test]
fn offline_cpus_are_shown_as_such() {
    let mut screen = Screen::new(Kind::calm(8), 100, 30);
    screen.keys("2");
    let text = screen.text();
    let row = text
        .lines()
        .find(|l| l.trim_start().starts_with("7 "))
        .unwrap();
    assert!(row.contains("offline") && row.contains("×"), "{row}");
    assert!(text.contains("7 of 8 cpus online"));
}

#[test]
fn one_cpu_in_full() {
    let mut screen = Screen::new(Kind::sick(4), 120, 50);
    snap!("core_detail", screen.keys("2 down enter"));
    let mut screen = Screen::new(Kind::sick(4), 160, 40);
    snap!("core_detail_wide", screen.keys("2 down enter v"));
    snap!("core_detail_closed", screen.keys("esc"));
}

#[test]
fn hostile_names_stay_text() {
    let kind = Kind {
        hostile: true,
        ..Kind::sick(2)
    };
    for (pane, name) in [
        ("1", "overview"),
        ("3", "stalls"),
        ("4", "locks"),
        ("5", "tracing"),
        ("6", "cgroups"),
    ] {
        let mut screen = Screen::new(kind, 100, 30);
        screen.keys(pane);
        let text = screen.text();
        assert!(!text.contains(['\x1b', '\x07', '\u{202e}']));
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(format!("{name}_hostile"), text);
        });
    }
    let mut screen = Screen::new(kind, 100, 30);
    screen.keys("6 y");
    let Effect::Snapshot { text, .. } = &screen.last.list[0] else {
        panic!("{:?}", screen.last)
    };
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn ascii_is_ascii() {
    for pane in [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "2 down enter",
        "1 ?",
        "5 :",
        "3 enter",
        "3 v",
        "4 enter",
        "4 enter v",
        "4 o",
    ] {
        let mut options = options("mono", Depth::None);
        options.ascii = true;
        let mut screen = Screen::of(
            host::model(Kind {
                hostile: true,
                ..Kind::sick(4)
            }),
            options,
            100,
            30,
        );
        screen.keys(pane);
        let text = screen.text();
        assert!(text.is_ascii(), "{text}");
    }
    let mut plain = options("mono", Depth::None);
    plain.ascii = true;
    let mut screen = Screen::of(host::model(Kind::sick(4)), plain, 100, 30);
    snap!("cores_ascii", screen.keys("2"));
}

#[test]
fn without_colour_the_cursor_is_still_seen() {
    for theme in ["night", "mono"] {
        let mut screen = Screen::of(
            host::model(Kind::sick(4)),
            options(theme, Depth::None),
            80,
            24,
        );
        screen.keys("2 down");
        screen.text();
        let buffer = screen.terminal.backend().buffer();
        assert!(
            buffer
                .content
                .iter()
                .all(|c| c.fg == Color::Reset && c.bg == Color::Reset)
        );
        let row = (0..24).find(|y| buffer[(5, *y)].modifier.contains(Modifier::REVERSED) && *y > 2);
        assert_eq!(row, Some(5), "{theme}: the second row of the table");
    }
}

#[test]
fn filters_show_what_matches_and_esc_clears() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    screen.keys("5 /").typed("waking");
    snap!("tracing_typing_a_filter", screen);
    screen.keys("enter");
    assert!(screen.text().contains("sched:sched_waking"));
    assert!(!screen.text().contains("netdata"));
    screen.keys("esc");
    assert!(screen.text().contains("netdata"));
    screen.keys("6 /").typed("NETDATA").keys("enter");
    snap!("cgroups_filtered", screen);
}

#[test]
fn the_cursor_sticks_to_the_cgroup() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    screen.keys("6 v down down down");
    let before = screen.text();
    screen.keys("s s s s");
    let mut other = screen.text();
    assert_ne!(before, other);
    // The facts of the same cgroup open, wherever its row went.
    screen.keys("enter");
    other = screen.text();
    assert!(
        other.contains("kubepods") || other.contains("system.slice"),
        "{other}"
    );
}

#[test]
fn pause_holds_the_screen_and_history_steps() {
    let kind = Kind::sick(4);
    let mut screen = Screen::new(kind, 100, 30);
    screen.keys("2 p");
    assert_eq!(screen.last.list, [Effect::SetPaused(true)]);
    let held = screen.text();
    let tracing = Arc::new(host::tracing(kind));
    for tick in kind.ticks..kind.ticks + 5 {
        let mut sample = host::sample(kind, tick, &tracing);
        screen.model.advance(&mut sample);
        screen.send(Msg::Advanced);
        assert_eq!(screen.last, Effects::none(), "nothing to draw while paused");
    }
    assert_eq!(screen.text(), held);
    screen.keys("[ [ [");
    snap!("cores_three_ticks_back", screen);
    screen.keys("p");
    assert_eq!(screen.last.list, [Effect::SetPaused(false)]);
    assert!(screen.text().contains("22:42:14"), "{}", screen.text());
}

#[test]
fn a_replay_is_driven_by_effects() {
    let mut screen = Screen::new(Kind::sick(2), 100, 30);
    screen.send(Msg::Feed(Feed::Replay {
        at_ns: 12_000_000_000,
        length_ns: 95_000_000_000,
        speed: 2.0,
        paused: false,
        ended: false,
    }));
    assert!(screen.text().contains("REPLAY 12s of 1m 35s 2x"));
    screen.keys("[");
    assert_eq!(screen.last.list, [Effect::Seek(Seek::Ticks(-1))]);
    screen.keys("}");
    assert_eq!(screen.last.list, [Effect::Seek(Seek::Ticks(10))]);
    screen.keys("+");
    assert_eq!(screen.last.list, [Effect::SetSpeed(4.0)]);
    screen.keys("p");
    assert_eq!(screen.last.list, [Effect::SetPaused(true)]);
}

#[test]
fn read_only_refuses_and_says_why() {
    let mut options = options("night", Depth::True);
    options.read_only = Some("opened with --read-only".into());
    let mut screen = Screen::of(host::model(Kind::sick(2)), options, 100, 30);
    for key in ["E", "K", "d", "u", "5 x", "X", "W"] {
        screen.keys(key);
        assert_eq!(
            screen
                .last
                .list
                .iter()
                .filter(|e| matches!(e, Effect::Plan { .. }))
                .count(),
            0,
            "{key}"
        );
        assert!(
            screen
                .text()
                .contains("not possible, opened with --read-only"),
            "{key}"
        );
    }
    assert!(
        !screen.keys("1").text().contains("E clear"),
        "no key that cannot work in the footer"
    );
}

#[test]
fn rules_lead_to_panes_and_actions_that_exist() {
    for rule in RULES {
        assert!(!rule.panes.is_empty(), "{}", rule.id);
        for pane in rule.panes {
            let known = PaneInfo::named(pane);
            assert!(known.is_some(), "{}: no pane {pane:?}", rule.id);
        }
        for action in rule.actions {
            let known = ActionId::from_name(action);
            assert!(known.is_some(), "{}: no action {action:?}", rule.id);
        }
    }
}

#[test]
fn one_finding_has_its_title() {
    let kind = Kind::calm(4);
    let mut model = host::model(kind);
    let sick = host::model(Kind::sick(4));
    for stall in sick.stalls.iter() {
        model.apply(&mut Frame::Stall(Box::new((**stall).clone())));
    }
    let tracing = Arc::new(host::tracing(kind));
    model.advance(&mut host::sample(kind, kind.ticks, &tracing));
    assert_eq!(model.findings().len(), 1);
    let mut screen = Screen::of(model, options("night", Depth::True), 100, 30);
    let text = screen.text();
    assert!(text.contains(" FINDINGS 1 finding ──"), "{text}");
}

#[test]
fn what_has_no_details_says_so() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    assert!(screen.keys("2 enter").text().contains("choose it below"));
    assert!(screen.keys("down enter").text().contains("CORE cpu 1"));
}

#[test]
fn the_mouse_opens_tabs_and_rows() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    let at = |kind, column, row| Msg::Mouse(Mouse { kind, column, row });
    screen.send(at(MouseKind::Press, 20, 1));
    assert!(screen.text().contains("CORES worst first"));
    // The fifth line is the second row; a second press opens what the first one chose.
    screen.send(at(MouseKind::Press, 5, 5));
    screen.send(at(MouseKind::Press, 5, 5));
    assert!(screen.text().contains("CORE cpu 1"), "{}", screen.text());
    screen.keys("esc");
    screen.send(at(MouseKind::WheelDown, 5, 5));
    screen.keys("enter");
    assert!(screen.text().contains("CORE cpu 0"), "{}", screen.text());
}

#[test]
fn the_palette_runs_what_it_finds() {
    let mut screen = Screen::new(Kind::sick(4), 100, 30);
    screen.keys(":").typed("cgr");
    snap!("palette", screen);
    screen.keys("enter");
    assert!(screen.text().contains("MEMORY CGROUPS tree"));
    screen.keys("t");
    assert!(screen.text().contains("theme paper"));
    screen.keys("q");
    assert_eq!(screen.last.list, [Effect::Quit]);
    screen.keys("? ctrl-c");
    assert_eq!(screen.last.list, [Effect::Quit]);
}

#[test]
fn help_names_the_keys_and_the_marks() {
    let mut screen = Screen::new(Kind::sick(4), 120, 60);
    snap!("help_tracing", screen.keys("5 ?"));
    screen.keys("q");
    assert!(
        screen.text().contains("TRACING"),
        "q closes help, it does not quit"
    );
    assert_eq!(screen.last.list, []);
}
