//! `stream`, `record` and `replay` where their reader, their file or their arguments are not as
//! they should be.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic, as tests may"
)]

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const BIN: &str = env!("CARGO_BIN_EXE_stalltop");

/// How long the end of a child is waited for.
const WAIT: Duration = Duration::from_secs(30);

fn stalltop(args: &[&str]) -> Command {
    let mut command = Command::new(BIN);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Waits for the end; gives the status and what was said on standard error. One that does not
/// end is killed, and `None`.
fn end(mut child: Child) -> Option<(ExitStatus, String)> {
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > WAIT {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    Some((status, text))
}

/// Waits until nothing more goes into the pipe that nobody reads.
fn wait_until_stuck(child: &Child) {
    let pipe = child.stdout.as_ref().unwrap();
    let (mut held, mut since) = (0, Instant::now());
    let start = Instant::now();
    while held == 0 || since.elapsed() < Duration::from_secs(1) {
        assert!(start.elapsed() < WAIT, "it writes on and on");
        let now = rustix::io::ioctl_fionread(pipe.as_fd()).unwrap();
        if now != held {
            (held, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stream_that_nobody_reads_ends_when_asked() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let child = stalltop(&["stream", "--no-bpf", "--tick", "50ms"])
            .spawn()
            .unwrap();
        wait_until_stuck(&child);
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        let (status, said) = end(child).expect("it ends");
        assert_eq!(status.code(), Some(1), "{signal:?}: {said}");
        assert!(said.contains("not written"), "{signal:?}: {said}");
    }
}

#[test]
fn a_recording_that_is_ended_by_a_signal_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.zst");
    let name = file.to_str().unwrap();
    let child = stalltop(&["record", name, "--no-bpf", "--tick", "50ms"])
        .spawn()
        .unwrap();
    let since = Instant::now();
    while std::fs::metadata(&file).map_or(0, |m| m.len()) < 20_000 {
        assert!(since.elapsed() < WAIT, "nothing is recorded");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let (status, said) = end(child).expect("it ends");
    assert!(status.success(), "{said}");
    assert!(said.contains(" samples, "), "{said}");
    let played = stalltop(&["stream", "--from", name]).output().unwrap();
    assert!(played.status.success());
    assert_eq!(String::from_utf8(played.stderr).unwrap(), "");
}

#[test]
fn a_time_beyond_all_clocks_is_bad_usage_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.zst");
    let name = file.to_str().unwrap();
    for args in [
        &["stream", "--for", "300000000000y"][..],
        &["record", name, "--for", "300000000000y"],
    ] {
        let (status, said) = end(stalltop(args).spawn().unwrap()).expect("it ends");
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains("10 years at most"), "{said}");
        assert!(!file.exists());
    }
}

#[test]
fn a_fifo_is_no_recording_and_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let name = fifo.to_str().unwrap();
    let child = stalltop(&["stream", "--from", name]).spawn().unwrap();
    let (status, said) = end(child).expect("it ends");
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("a recording is a regular file"), "{said}");
    // The screen looks at the file before it takes the terminal.
    let mut person = rexpect::spawn(&format!("{BIN} replay {name}"), Some(20_000)).unwrap();
    person.exp_string("a recording is a regular file").unwrap();
    person.exp_eof().unwrap();
}
