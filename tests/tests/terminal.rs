//! The program in a terminal, as a person has it: keys in, screen out, terminal given back.

#[path = "terminal/changes.rs"]
mod changes;

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use stalltop_tests::program::stalltop;
use stalltop_tests::tty::{Start, Tty};
use stalltop_tests::{need, require};

/// stalltop on this host, with a journal of its own.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { dir }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn start(&self) -> Start {
        Start::new(stalltop())
            .args(["--journal".as_ref(), self.journal().as_os_str()])
            .args(["--tick", "200ms"])
    }

    /// With its first screen there.
    fn run(&self) -> Tty {
        first_screen(self.start().run())
    }
}

const TABS: [&str; 6] = [
    "1 Overview",
    "2 Cores",
    "3 Stalls",
    "4 Locks",
    "5 Tracing",
    "6 Cgroups",
];
/// What only that pane has, in the order of the keys.
const HEADINGS: [&str; 6] = [
    "WHAT TRACES",
    "VECTORS",
    "STALLS ",
    "LOCKS most",
    "TRACING ",
    "MEMORY CGROUPS tree",
];

fn first_screen(mut tty: Tty) -> Tty {
    tty.see(&["stalltop", "LIVE 0.2s", HEADINGS[0], "? help"]);
    tty
}

#[test]
fn the_first_screen_has_header_and_tabs_and_keys_open_the_panes() {
    require!(need::root());
    let bench = Bench::new();
    let mut tty = bench.run();
    tty.see(&TABS);
    let text = tty.see(&["lost 0", "all "]);
    let mut lines = text.lines();
    assert!(
        lines
            .next()
            .is_some_and(|l| l.contains("stalltop") && l.contains("LIVE")),
        "{text}"
    );
    assert!(
        lines
            .next()
            .is_some_and(|l| TABS.iter().all(|tab| l.contains(tab))),
        "{text}"
    );
    for (key, heading) in [
        ("2", 1),
        ("3", 2),
        ("4", 3),
        ("5", 4),
        ("6", 5),
        ("1", 0),
        ("\t", 1),
        ("\x1b[Z", 0),
    ] {
        tty.keys(key);
        tty.wait(HEADINGS[heading], |screen| {
            let found = HEADINGS.map(|heading| screen.contains(heading));
            found == std::array::from_fn(|i| i == heading)
        });
    }
    tty.keys("q");
    assert_eq!(tty.end().status.code(), Some(0));
}

#[test]
fn help_opens_over_the_pane_and_esc_closes_it() {
    require!(need::root());
    let bench = Bench::new();
    let mut tty = bench.run();
    tty.keys("?");
    tty.see(&["Keys that work here", "Esc close"]);
    tty.keys("\x1b");
    tty.wait("the pane again", |screen| {
        !screen.contains("Keys that work here") && screen.contains(HEADINGS[0])
    });
    tty.keys(":");
    tty.keys("quit");
    tty.see(&["quit", "Quit"]);
    // Ctrl-C leaves whatever is open.
    tty.keys("\x03");
    assert_eq!(tty.end().status.code(), Some(0));
}

#[test]
fn a_filter_shows_what_matches_until_esc() {
    require!(need::root());
    let cgroup = require!(Group::new("needle"));
    let bench = Bench::new();
    let mut tty = bench.run();
    tty.keys("6");
    tty.see(&["MEMORY CGROUPS tree"]);
    // Its end is only in the row: the field has the beginning.
    let (beginning, end) = cgroup.name().split_at(8);
    tty.keys("/");
    tty.keys(beginning);
    tty.see(&[&format!("/{beginning}"), end]);
    tty.keys(" no such cgroup");
    tty.wait("no row", |screen| {
        screen.contains("no such cgroup") && !screen.contains(end)
    });
    tty.keys("\x1b");
    tty.see(&["MEMORY CGROUPS tree, slowest", "? help"]);
    tty.keys("/");
    tty.keys(beginning);
    tty.see(&[end]);
    tty.keys("\r");
    // The filter stays, its field goes: keys are keys again.
    tty.see(&[end, "? help"]);
    tty.keys("q");
    assert_eq!(tty.end().status.code(), Some(0));
}

#[test]
fn every_size_is_drawn_to_its_edges() {
    require!(need::root());
    let bench = Bench::new();
    let mut tty = bench.run();
    for (columns, rows) in [(200, 60), (20, 5), (80, 24), (1, 1), (80, 24)] {
        tty.resize(columns, rows);
        if columns < 20 {
            // Nothing can be said in one cell: that it still listens is seen next.
            continue;
        }
        let text = tty.wait(&format!("{columns}x{rows}"), |screen| {
            let lines: Vec<&str> = screen.lines().collect();
            let footer = lines.get(usize::from(rows) - 1);
            lines.first().is_some_and(|l| l.contains("stalltop"))
                && footer.is_some_and(|l| l.contains("? help"))
                && (rows < 24 || screen.contains("CORES"))
        });
        let longest = text.lines().map(|l| l.chars().count()).max();
        assert!(
            longest > Some(usize::from(columns) * 3 / 4),
            "{columns}x{rows}:\n{text}"
        );
    }
    tty.keys("q");
    assert_eq!(tty.end().status.code(), Some(0));
    tty.assert_given_back();
}

/// Both are there when the thread that reads keys looks: first the signal of the resize.
#[test]
fn a_key_right_behind_a_resize_is_heeded() {
    require!(need::root());
    let bench = Bench::new();
    let mut tty = bench.run();
    // The thread reads keys already.
    tty.keys("2").see(&[HEADINGS[1]]);
    let reader = tty.stop_thread("stalltop-input");
    tty.resize(100, 30);
    // Another thread draws at the next tick, and has handled the signal by then.
    tty.wait("100x30", |screen| {
        screen.lines().nth(29).is_some_and(|l| l.contains("? help"))
    });
    tty.keys("q").keys_wait();
    drop(reader);
    assert_eq!(tty.end().status.code(), Some(0));
}

/// Leaves with `how`; the terminal must be as before, and nothing left on standard error.
fn leaves_in_peace(how: impl FnOnce(&mut Tty)) {
    let bench = Bench::new();
    let mut tty = bench.run();
    assert!(tty.screen().alternate_screen() && tty.screen().hide_cursor() && tty.is_taken());
    how(&mut tty);
    let left = tty.end();
    assert_eq!((left.status.code(), left.errors.as_str()), (Some(0), ""));
    tty.assert_given_back();
    assert!(
        !bench.journal().exists(),
        "who changes nothing leaves no journal"
    );
}

#[test]
fn q_gives_the_terminal_back() {
    require!(need::root());
    leaves_in_peace(|tty| {
        tty.keys("q");
    });
}

#[test]
fn ctrl_c_gives_the_terminal_back() {
    require!(need::root());
    leaves_in_peace(|tty| {
        tty.keys("?");
        tty.see(&["Keys that work here"]);
        tty.keys("\x03");
    });
}

#[test]
fn sigterm_and_sigint_give_the_terminal_back() {
    require!(need::root());
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        leaves_in_peace(|tty| tty.signal(signal));
    }
}

/// Numbers of the signals that a process has handlers for (proc_pid_status(5), `SigCgt`).
fn caught(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
    u64::from_str_radix(mask.expect("a mask").trim(), 16).expect("hexadecimal")
}

#[test]
fn signals_are_caught_before_the_terminal_is_taken() {
    let bench = Bench::new();
    for _ in 0..5 {
        let mut tty = bench.start().run();
        while !tty.is_taken() {
            std::hint::spin_loop();
        }
        tty.signal(Signal::STOP);
        let caught = caught(tty.id());
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let bit = 1 << (signal.as_raw() - 1);
            assert_ne!(
                caught & bit,
                0,
                "{signal:?} would leave the terminal as it is"
            );
        }
        tty.signal(Signal::TERM);
        tty.signal(Signal::CONT);
        assert_eq!(tty.end().status.code(), Some(0));
        tty.assert_given_back();
    }
}

#[test]
fn a_closed_terminal_ends_the_program() {
    require!(need::root());
    let bench = Bench::new();
    let mut tty = bench.run();
    tty.hang_up();
    let left = tty.end();
    assert_eq!((left.status.code(), left.errors.as_str()), (Some(0), ""));
}

/// Opens every pane and the help, then quits.
fn see_everything(tty: &mut Tty) {
    for (at, heading) in HEADINGS.iter().enumerate().skip(1) {
        tty.keys(&(at + 1).to_string());
        tty.see(&[heading]);
    }
    tty.keys("?");
    tty.see(&["Keys that"]);
    tty.keys("\x03");
    tty.end();
}

/// The parameters of all SGR sequences (`ESC [ ... m`) written.
fn sgr(written: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(written);
    text.split("\x1b[")
        .skip(1)
        .filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            rest[end..].starts_with('m').then(|| &rest[..end])
        })
        .flat_map(|parameters| parameters.split(';').filter_map(|p| p.parse().ok()))
        .collect()
}

fn is_colour(parameter: u16) -> bool {
    matches!(parameter, 30..=38 | 40..=48 | 58 | 90..=107)
}

#[test]
fn no_color_means_no_colour() {
    require!(need::root());
    let bench = Bench::new();
    let mut tty = first_screen(bench.start().env("NO_COLOR", "1").run());
    see_everything(&mut tty);
    let used: Vec<u16> = sgr(tty.written())
        .into_iter()
        .filter(|p| is_colour(*p))
        .collect();
    assert!(used.is_empty(), "{used:?}");
    // And with colours, they are found.
    let mut tty = bench.run();
    tty.keys("q");
    tty.end();
    assert!(sgr(tty.written()).into_iter().any(is_colour));
}

#[test]
fn ascii_means_ascii() {
    require!(need::root());
    let bench = Bench::new();
    let mut tty = first_screen(bench.start().args(["--ascii"]).size(120, 36).run());
    see_everything(&mut tty);
    let foreign: Vec<char> = String::from_utf8_lossy(tty.written())
        .chars()
        .filter(|c| !c.is_ascii())
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

/// An empty memory cgroup of this test's own. Dropped, it is removed.
struct Group {
    dir: PathBuf,
    name: String,
}

impl Group {
    fn new(name: &str) -> Result<Self, String> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let top = if v1.is_dir() {
            v1
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let name = format!("{name}_{}", std::process::id());
        let dir = top.join(&name);
        std::fs::create_dir(&dir).map_err(|e| format!("needs a cgroup {}: {e}", dir.display()))?;
        Ok(Self { dir, name })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir(&self.dir) {
            eprintln!("left behind: {:?}: {e}", self.dir);
        }
    }
}

#[test]
fn names_of_the_host_cannot_speak_to_the_terminal() {
    require!(need::root());
    // A title, a colour, a move, a bell, an 8-bit CSI, a change of direction.
    let hostile = "hostile\x1b]0;owned\x07\x1b[31mred\x1b[2J\x1b[5;5H\u{9b}1m\u{202e}end";
    let group = require!(Group::new(hostile));
    let bench = Bench::new();
    let mut tty = first_screen(bench.start().size(160, 40).run());
    tty.keys("6");
    tty.see(&[HEADINGS[5]]);
    // Others may have many cgroups.
    tty.keys("/");
    tty.keys("owned");
    let row = "hostile^[]0;owned^G^[[31mred^[[2J";
    let text = tty.see(&["/owned", row]);
    assert!(
        !text.contains('\u{202e}') && !text.contains('\u{9b}'),
        "{text}"
    );
    // Also in the cursor's row, and opened.
    tty.keys("\r");
    tty.see(&[row, "? help"]);
    tty.keys("\x1b[B");
    tty.keys("\r");
    tty.keys("q");
    tty.keys("\x03");
    tty.end();
    let written = String::from_utf8_lossy(tty.written()).into_owned();
    for raw in ["\x1b]0;owned", "\x1b[31mred", "\x07", "\u{9b}", "\u{202e}"] {
        assert!(!written.contains(raw), "{raw:?} reached the terminal");
    }
    assert!(group.name().starts_with("hostile"));
}

#[test]
fn read_only_refuses_changes_and_says_why() {
    require!(need::root());
    let bench = Bench::new();
    let mut tty = first_screen(bench.start().args(["--read-only"]).run());
    for key in ["d", "E", "u"] {
        tty.keys(key);
        tty.see(&["not possible, started with --read-only"]);
        // Any other key takes the line away.
        tty.keys("g");
        tty.wait("the footer", |screen| !screen.contains("not possible"));
    }
    tty.keys("5");
    tty.see(&[HEADINGS[4]]);
    tty.keys(" ");
    tty.see(&["switch: not possible, started with --read-only"]);
    tty.keys("q");
    assert_eq!(tty.end().status.code(), Some(0));
    assert!(!bench.journal().exists());
}

#[test]
fn without_a_terminal_it_says_what_works() {
    let output = std::process::Command::new(stalltop())
        .stdin(std::process::Stdio::null())
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        errors.contains("needs a terminal") && errors.contains("stream"),
        "{errors}"
    );
    assert!(output.stdout.is_empty());
}
