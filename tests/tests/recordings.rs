//! Streams and recordings of this host: what is written is what is documented, is replayed
//! anywhere, and nothing that is no recording is taken for one.

#[path = "recordings/incident.rs"]
mod incident;
#[path = "recordings/replay.rs"]
mod replay;
#[path = "recordings/screens.rs"]
mod screens;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use stalltop_model::Frame;
use stalltop_tests::program::{root, stalltop};

/// Every softirq vector's counters that never go back, as the lines name them.
const CUMULATIVE: [&str; 6] = [
    "count",
    "time_ns",
    "max_ns",
    "delay_count",
    "delay_ns",
    "delay_max_ns",
];

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(stalltop());
    command.args(args).stdin(Stdio::null());
    command.output().expect("stalltop starts")
}

/// Two seconds of this host, ten samples a second, recorded once for all tests.
fn recorded() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("host.zst");
        let output = record(&file, dir.path());
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let told = errors(&output);
        assert!(
            told.contains("host.zst: ") && told.contains("samples"),
            "{told}"
        );
        let mode = fs::metadata(&file)
            .expect("a recording")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "what is in it is root's to show");
        fs::read(&file).expect("a recording")
    })
}

fn record(file: &Path, dir: &Path) -> Output {
    let journal = dir.join("journal");
    run(&[
        "--journal",
        text(&journal),
        "record",
        text(file),
        "--tick",
        "100ms",
        "--for",
        "2s",
    ])
}

/// The recording of this repository that the screens come from.
fn committed() -> PathBuf {
    root().join("tests/recordings/loopback.zst")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object"))
        .collect()
}

fn samples(lines: &[Value]) -> Vec<&Value> {
    lines
        .iter()
        .filter(|line| line["type"] == "sample")
        .collect()
}

/// The documented schema is made from the types behind [`Frame`]: a line that goes through them
/// and comes back the same has every key of it, and no other.
fn assert_obeys_the_schema(lines: &[Value]) {
    assert_eq!(lines[0]["type"], "header");
    assert_eq!(lines[0]["format"], "stalltop");
    for line in lines {
        let frame = Frame::parse(line.to_string().as_bytes()).expect("a frame");
        assert!(!matches!(frame, Frame::Unknown), "{line}");
        // As text: a load of 4.41 is another number in 64 bits than in 32.
        let again = serde_json::to_string(&frame).expect("JSON");
        let again = serde_json::from_str(&again).expect("JSON");
        let found = differences("", line, &again);
        assert!(found.is_empty(), "not as documented: {found:#?}");
    }
}

/// Where two values differ.
fn differences(place: &str, one: &Value, other: &Value) -> Vec<String> {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let differ = |key: &&String| {
                let place = format!("{place}.{key}");
                differences(&place, &one[key.as_str()], &other[key.as_str()])
            };
            keys.iter().flat_map(differ).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b);
            pairs
                .flat_map(|(a, b)| differences(&format!("{place}[]"), a, b))
                .collect()
        }
        _ if one == other => Vec::new(),
        _ => vec![format!("{place}: {one}, {other}")],
    }
}

fn assert_counters_never_go_back(samples: &[&Value]) {
    for pair in samples.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        assert!(before["at_ns"].as_u64() < after["at_ns"].as_u64());
        assert!(before["self"]["cpu_ns"].as_u64() <= after["self"]["cpu_ns"].as_u64());
        if before["cores"]["since_ns"] != after["cores"]["since_ns"] {
            continue;
        }
        let cpus = |sample: &Value| sample["cpus"].as_array().expect("CPUs").clone();
        for (before, after) in cpus(before).iter().zip(cpus(after)) {
            assert_eq!(before["cpu"], after["cpu"]);
            let vectors = before["softirqs"].as_object().expect("vectors");
            assert!(!vectors.is_empty());
            for (vector, counters) in vectors {
                for name in CUMULATIVE {
                    let (was, is) = (&counters[name], &after["softirqs"][vector][name]);
                    assert!(
                        was.as_u64() <= is.as_u64(),
                        "{vector} {name}: {was}, then {is}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_stream_is_as_documented_and_counts_upwards() {
    let output = run(&["stream", "--for", "1s", "--tick", "250ms"]);
    assert_eq!(
        (output.status.code(), errors(&output).as_str()),
        (Some(0), "")
    );
    let lines = lines(&output);
    assert_obeys_the_schema(&lines);
    let samples = samples(&lines);
    // Four or five; ticks that a busy machine misses are not made up.
    assert!((2..=5).contains(&samples.len()), "{}", samples.len());
    assert_counters_never_go_back(&samples);
    for sample in &samples {
        assert_ne!(sample["self"]["rss_bytes"], Value::from(0));
        assert!(
            sample["cpus"]
                .as_array()
                .is_some_and(|cpus| !cpus.is_empty())
        );
    }
}

#[test]
fn a_recording_streams_what_was_recorded() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("host.zst");
    fs::write(&file, recorded()).expect("a copy");
    let output = run(&["stream", "--from", text(&file)]);
    assert_eq!(
        (output.status.code(), errors(&output).as_str()),
        (Some(0), "")
    );
    let lines = lines(&output);
    assert_obeys_the_schema(&lines);
    let samples = samples(&lines);
    assert!((4..=21).contains(&samples.len()), "{}", samples.len());
    assert_counters_never_go_back(&samples);
    assert_eq!(lines[0]["tick_ns"], 100_000_000);
}

#[test]
fn a_recording_cut_anywhere_streams_up_to_its_last_whole_line() {
    let whole = recorded();
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("cut.zst");
    let mut last = usize::MAX;
    for part in [99, 90, 70, 50, 30] {
        fs::write(&file, &whole[..whole.len() * part / 100]).expect("a copy");
        let output = run(&["stream", "--from", text(&file)]);
        let told = errors(&output);
        assert_eq!(output.status.code(), Some(0), "{part} %: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains("cut off"), "{told}");
        let lines = lines(&output);
        let found = samples(&lines).len();
        assert!(
            told.contains(&format!("{found} whole samples")),
            "{found}: {told}"
        );
        assert!(
            found <= last,
            "{part} %: {found} samples, {last} of a longer part"
        );
        last = found;
    }
    assert!(last < 21);
}

/// Files that are no recordings, and what is said of them.
fn bad_files(dir: &Path) -> Vec<(PathBuf, &'static str)> {
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let magic = &committed_bytes()[..4];
    vec![
        (dir.join("missing"), "No such file"),
        (dir.to_owned(), "directory"),
        (file("empty", b""), "empty"),
        (
            file("text", b"not a recording\nat all\n"),
            "not a stalltop recording",
        ),
        (file("magic", magic), "cut off before its first whole line"),
        (
            file("damaged", &[magic, &[0xff; 64]].concat()),
            "cut off before its first whole line",
        ),
        (file("odd\x1b[31mname", b"text"), "^[[31m"),
    ]
}

fn committed_bytes() -> Vec<u8> {
    fs::read(committed()).expect("a recording")
}

#[test]
fn what_is_no_recording_is_refused_in_one_line() {
    let dir = tempfile::tempdir().expect("a folder");
    for (file, why) in bad_files(dir.path()) {
        let output = run(&["stream", "--from", text(&file)]);
        let told = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(
            told.lines().count() == 1 && told.starts_with("stalltop: "),
            "{told}"
        );
        assert!(told.contains(why) && !told.contains('\x1b'), "{told}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn record_never_overwrites() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("mine");
    fs::write(&file, "precious").expect("a file");
    let output = record(&file, dir.path());
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.lines().count() == 1 && told.contains("never overwrites"),
        "{told}"
    );
    assert_eq!(fs::read_to_string(&file).expect("a file"), "precious");
    let nowhere = dir.path().join("no/such/folder");
    let output = record(&nowhere, dir.path());
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
    assert_eq!(errors(&output).lines().count(), 1);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for args in [
        vec!["stream", "--for", "100s", "--tick", "50ms"],
        vec!["stream", "--from", text(&committed())],
    ] {
        let start = Instant::now();
        let mut child = Command::new(stalltop())
            .args(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("stalltop starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        out.read_line(&mut line).expect("a line");
        drop(out);
        let output = child.wait_with_output().expect("wait(2)");
        assert_eq!(
            (output.status.code(), errors(&output).as_str()),
            (Some(0), ""),
            "{args:?}"
        );
        assert!(line.contains("\"header\""), "{line}");
        assert!(
            start.elapsed() < Duration::from_secs(90),
            "it ends with its reader"
        );
    }
}

#[test]
fn bad_flags_are_bad_usage() {
    for args in [
        &["--tick", "1ms"][..],
        &["--tick", "1h"],
        &["--tick", "soon"],
        &["stream", "--for", "-1s"],
        &["stream", "--no-such-flag"],
        &["record"],
        &["replay"],
        &["replay", "x", "--speed", "0"],
        &["replay", "x", "--speed", "NaN"],
        &["drop-caches", "4"],
        &["undo", "--list", "--all"],
        &["no-such-command"],
    ] {
        let output = run(args);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            errors(&output)
        );
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{args:?}"
        );
    }
}
