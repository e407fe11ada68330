//! `cargo xtask docs`: writes the documents that are made from tables and doc comments. They are
//! committed; CI runs this and fails on a difference.

mod markdown;
mod schema;

#[cfg(test)]
mod check;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use schema::Schema;

const MODEL: &str = "collectors/model";

pub(crate) fn run() -> Result<()> {
    let root = root()?;
    let path = root.join(MODEL).join("SCHEMA.md");
    replace(&path, &schema_document(&root)?)?;
    let path = root.join("README.md");
    let readme = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    replace(&path, &between(&readme, "keys", &key_table()?)?)
}

/// The table of keys, as the view has it: printed by a program of the test package, as here it
/// would make every other command wait for the view to be built.
fn key_table() -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "run",
            "--quiet",
            "--package",
            "stalltop-tests",
            "--bin",
            "key-table",
        ])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo")?;
    ensure!(output.status.success(), "no table of keys was made");
    Ok(String::from_utf8(output.stdout)?)
}

/// The text with what stands between the markers of `name` replaced.
fn between(text: &str, name: &str, new: &str) -> Result<String> {
    let (begin, end) = (
        format!("<!-- {name}: cargo xtask docs -->\n"),
        format!("<!-- /{name} -->"),
    );
    let (before, rest) = text
        .split_once(&begin)
        .with_context(|| format!("no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no {end}"))?;
    Ok(format!("{before}{begin}{new}{end}{after}"))
}

/// The folder of the workspace.
pub(crate) fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    Ok(root
        .context("xtask is two folders below the root")?
        .to_owned())
}

fn schema_document(root: &Path) -> Result<String> {
    let schema = Schema::read(&root.join(MODEL).join("src"), "Frame")?;
    Ok(markdown::write(&schema, stalltop_model::frame::SCHEMA))
}

/// Writes a document where it differs.
fn replace(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        println!("{} is current", path.display());
        return Ok(());
    }
    fs::write(path, text).with_context(|| path.display().to_string())?;
    println!("{} written", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use stalltop_model::sample::{
        CpuSample, Culprit, Drained, ProgramHealth, Sched, Seen, Stall, StallKind, StallWatch,
        Vector,
    };
    use stalltop_model::{Frame, Reading, Sample};

    use super::schema::{Kind, Schema};
    use super::{MODEL, between, root, schema_document};

    fn schema() -> Schema {
        Schema::read(&root().unwrap().join(MODEL).join("src"), "Frame").unwrap()
    }

    fn faults(frame: &Frame) -> Vec<String> {
        let line = serde_json::to_value(frame).unwrap();
        schema().faults(&Kind::Named("Frame".to_owned()), &line, "frame")
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = "a\n<!-- x: cargo xtask docs -->\nold\n<!-- /x -->\nb";
        let new = "a\n<!-- x: cargo xtask docs -->\nnew\n<!-- /x -->\nb";
        assert_eq!(between(text, "x", "new\n").unwrap(), new);
        assert!(between(text, "y", "new\n").is_err());
    }

    #[test]
    fn the_committed_schema_is_current() {
        let root = root().unwrap();
        let committed = std::fs::read_to_string(root.join(MODEL).join("SCHEMA.md")).unwrap();
        assert!(
            committed == schema_document(&root).unwrap(),
            "run `cargo xtask docs`"
        );
    }

    #[test]
    fn a_sample_is_as_the_schema_says() {
        let mut sample = Sample::default();
        sample.cpus.push(CpuSample::default());
        sample.cpus.push(CpuSample {
            ksoftirqd: Reading::Value(Default::default()),
            softnet: Reading::Value(Default::default()),
            times: Reading::Value(Default::default()),
            ..CpuSample::default()
        });
        sample.cpus[1].softirqs[3].timing = Reading::Value(Default::default());
        sample.own.programs.push(ProgramHealth {
            name: "a".into(),
            hook: "b".into(),
            attached: Reading::Value(3),
            instead: "c".into(),
            runs: Reading::default(),
            ns_per_run: Reading::default(),
        });
        sample.stalls = Reading::Value(StallWatch {
            symbols: Reading::Value(()),
            sampling: vec![3],
            ..StallWatch::default()
        });
        let found = faults(&Frame::Sample(Box::new(sample)));
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn a_stall_is_as_the_schema_says() {
        let plain = Stall::default();
        let full = Stall {
            kind: StallKind::SoftirqPending,
            vector: Some(Vector::IrqPoll),
            culprit: Reading::Value(Culprit {
                vector: Some(Vector::NetRx),
                syscall: Some("read".into()),
                sched: Some(Sched {
                    policy: "SCHED_FIFO".into(),
                    priority: Some(50),
                }),
                lock: Some("rwsem_down_read_slowpath".into()),
                file: Some("/proc/slabinfo".into()),
                user_stack: Reading::Value(vec!["main".into()]),
                ..Culprit::default()
            }),
            timeline: vec![
                Seen::default(),
                Seen {
                    offset_ns: -5,
                    vector: Some(Vector::Rcu),
                    stack: Some(0),
                    ..Seen::default()
                },
            ],
            stacks: vec![vec!["a".into(), "b".into()]],
            drained: Some(Drained::default()),
            waited: Some("c".into()),
            victims: vec![1, 2],
            ..Stall::default()
        };
        for stall in [plain, full] {
            let found = faults(&Frame::Stall(Box::new(stall)));
            assert!(found.is_empty(), "{}", found.join("\n"));
        }
    }

    #[test]
    fn the_recording_is_as_the_schema_says() {
        let path = root().unwrap().join("tests/recordings/demo.zst");
        let text = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
        let (schema, frame) = (schema(), Kind::Named("Frame".to_owned()));
        let mut lines = 0;
        for line in text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            lines += 1;
            let line = serde_json::from_slice(line).unwrap();
            let found = schema.faults(&frame, &line, "frame");
            assert!(found.is_empty(), "line {lines}: {}", found.join("\n"));
        }
        assert!(lines > 100, "{lines} lines");
    }

    #[test]
    fn a_wrong_line_has_faults() {
        let schema = schema();
        let sample = serde_json::to_value(Frame::Sample(Box::default())).unwrap();
        for (key, value) in [
            ("at_ns", "text".into()),
            ("more", 1.into()),
            ("type", "x".into()),
        ] {
            let mut wrong = sample.clone();
            wrong[key] = value;
            let found = schema.faults(&Kind::Named("Frame".to_owned()), &wrong, "frame");
            assert_eq!(found.len(), 1, "{key}: {found:?}");
        }
    }
}
