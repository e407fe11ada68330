//! Recordings in the terminal, for somebody without privileges.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use stalltop_tests::program::stalltop;
use stalltop_tests::tty::{Start, Tty};
use stalltop_tests::{need, require};

use super::{bad_files, committed_bytes, recorded};

/// A folder that anybody may read, with the program and a recording in it.
struct Shared {
    dir: tempfile::TempDir,
}

impl Shared {
    fn new(recording: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let shared = Self { dir };
        fs::write(shared.file(), recording).expect("a recording");
        // By another process: a test that starts something just now would hand on a program that
        // is open for writing, and nobody could start it (ETXTBSY).
        let copied = Command::new("cp")
            .args([stalltop(), &shared.program()])
            .status();
        assert!(copied.expect("cp").success());
        for (path, mode) in [
            (shared.dir.path().to_owned(), 0o755),
            (shared.file(), 0o644),
            (shared.program(), 0o755),
        ] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
        }
        shared
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("recording.zst")
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("stalltop")
    }

    fn replay(&self, speed: &str) -> Tty {
        Start::new(&self.program())
            .args(["replay".as_ref(), self.file().as_os_str()])
            .args(["--speed", speed])
            .size(100, 30)
            .as_nobody()
            .run()
    }
}

/// Where a replay is, as its header says: `44s of 60s`.
fn position(screen: &str) -> Option<&str> {
    let (_, rest) = screen.lines().next()?.split_once("REPLAY ")?;
    rest.split_once(" of ").map(|(at, _)| at)
}

#[test]
fn anybody_replays_holds_and_steps() {
    require!(need::root());
    let shared = Shared::new(&committed_bytes());
    let mut tty = shared.replay("1");
    tty.see(&["REPLAY", "loopback", "FINDINGS", "1x"]);
    tty.keys(" ");
    let text = tty.see(&["paused"]);
    let held = position(&text).expect("a position").to_owned();
    tty.keys("}");
    let further = tty.wait("ten ticks further", |screen| {
        position(screen).is_some_and(|at| at != held) && screen.contains("paused")
    });
    let at = position(&further).expect("a position").to_owned();
    tty.keys("[");
    let back = tty.wait("a tick back", |screen| {
        position(screen).is_some_and(|p| p != at)
    });
    assert_ne!(position(&back), Some(held.as_str()), "one tick, not ten");
    tty.keys("]");
    tty.wait("where it was", |screen| position(screen) == Some(&at));
    tty.keys("{");
    tty.wait("ten ticks back", |screen| position(screen) == Some(&held));
    // The panes are the live ones.
    tty.keys("2");
    tty.see(&["CORES", "NET_RX", "paused"]);
    tty.keys("6");
    tty.see(&["MEMORY CGROUPS", "system.slice"]);
    tty.keys("d");
    tty.see(&["not possible, a recording cannot be changed"]);
    tty.keys("q");
    let left = tty.end();
    assert_eq!((left.status.code(), left.errors.as_str()), (Some(0), ""));
    tty.assert_given_back();
}

#[test]
fn speed_keys_lead_to_the_end_and_back_from_it() {
    require!(need::root());
    let shared = Shared::new(&committed_bytes());
    let mut tty = shared.replay("1");
    tty.see(&["REPLAY", " 1x"]);
    tty.keys("-");
    tty.see(&[" 0.5x"]);
    for speed in ["1x", "2x", "4x", "8x", "16x", "32x", "64x"] {
        tty.keys("+");
        tty.wait(speed, |screen| {
            let first = screen.lines().next().unwrap_or_default();
            first.contains(&format!(" {speed}")) || first.contains(" end")
        });
    }
    let end = tty.see(&[" end"]);
    let last = position(&end).expect("a position").to_owned();
    tty.keys("{");
    // It goes on from there, to the same end.
    tty.wait("not the end", |screen| position(screen) != Some(&last));
    tty.wait("the end again", |screen| {
        screen.contains(" end") && position(screen) == Some(&last)
    });
    tty.keys("q");
    assert_eq!(tty.end().status.code(), Some(0));
}

#[test]
fn what_was_just_recorded_is_replayed() {
    require!(need::root());
    let shared = Shared::new(recorded());
    let mut tty = shared.replay("100");
    tty.see(&["REPLAY", " end", "CORES"]);
    tty.keys("q");
    assert_eq!(tty.end().status.code(), Some(0));
}

#[test]
fn a_cut_recording_is_replayed_with_a_note() {
    require!(need::root());
    let whole = recorded();
    for part in [95, 60, 30] {
        let shared = Shared::new(&whole[..whole.len() * part / 100]);
        let mut tty = shared.replay("1000");
        tty.see(&["REPLAY", " end", "the recording is cut off or damaged"]);
        tty.keys("q");
        let left = tty.end();
        assert_eq!((left.status.code(), left.errors.as_str()), (Some(0), ""));
    }
}

#[test]
fn what_is_no_recording_leaves_the_terminal_as_it_was() {
    require!(need::root());
    let dir = tempfile::tempdir().expect("a folder");
    for (file, why) in bad_files(dir.path()) {
        let mut tty = Start::new(stalltop())
            .args(["replay".as_ref(), file.as_os_str()])
            .run();
        let left = tty.end();
        let told = left.errors;
        assert_eq!(left.status.code(), Some(2), "{told}");
        assert!(
            told.lines().count() == 1 && told.starts_with("stalltop: "),
            "{told}"
        );
        assert!(told.contains(why) && !told.contains('\x1b'), "{told}");
        tty.assert_given_back();
    }
    // Nor is one that is not ours to read.
    let shared = Shared::new(&committed_bytes());
    let secret = fs::Permissions::from_mode(0o600);
    fs::set_permissions(shared.file(), secret).expect("permissions");
    let mut tty = shared.replay("1");
    let left = tty.end();
    assert_eq!(left.status.code(), Some(2));
    assert!(left.errors.contains("Permission denied"), "{}", left.errors);
    assert_eq!(left.errors.lines().count(), 1);
}
