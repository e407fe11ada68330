use std::os::unix::fs::{PermissionsExt, symlink};

use stalltop_model::change::UndoClass;

use super::*;

fn plan(n: u64) -> Plan {
    Plan {
        request: Request::Off {
            selector: format!("a:e{n}").into(),
        },
        title: format!("switch off a:e{n}").into(),
        writes: vec![Write {
            path: format!("/sys/kernel/tracing/events/a/e{n}/enable").into(),
            mode: OpenMode::Truncate,
            value: "0".into(),
            item: None,
            before: Some("1".into()),
            after: Some("0".into()),
            kept: Vec::new(),
            undo: Vec::new(),
        }],
        undo: UndoClass::Exact,
        notes: Vec::new(),
        left: Vec::new(),
        confirm_word: None,
    }
}

fn root() -> (tempfile::TempDir, Env) {
    let dir = tempfile::tempdir().unwrap();
    let boot = dir.path().join("proc/sys/kernel/random");
    std::fs::create_dir_all(&boot).unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    std::fs::write(boot.join("boot_id"), "boot-1\n").unwrap();
    let env = Env::at(dir.path());
    (dir, env)
}

/// Three entries: done, failed, intended.
fn filled(env: &Env, path: &Path) {
    let mut open = OpenJournal::open(env, path).unwrap();
    for (n, outcome) in [
        (1, Some(Outcome::Done)),
        (
            2,
            Some(Outcome::Failed {
                written: 0,
                why: "x".into(),
            }),
        ),
        (3, None),
    ] {
        let mut entry = open.intend(&plan(n), None).unwrap();
        if let Some(outcome) = outcome {
            entry.outcome = outcome;
            open.outcome(&entry).unwrap();
        }
    }
}

#[test]
fn entries_come_back_with_their_outcomes_and_ids_go_on() {
    let (_dir, env) = root();
    let path = Journal::path_for(&env, None);
    assert!(Journal::read(&env, &path).unwrap().entries().is_empty());
    assert!(!path.exists(), "reading creates nothing");
    filled(&env, &path);
    let journal = Journal::read(&env, &path).unwrap();
    let outcomes: Vec<_> = journal
        .entries()
        .iter()
        .map(|e| (e.id, e.outcome.clone()))
        .collect();
    assert_eq!(outcomes[0], (1, Outcome::Done));
    assert_eq!(outcomes[2], (3, Outcome::Intended));
    assert_eq!(journal.last_undoable().unwrap().id, 3);
    assert!(
        !journal.can_undo(&journal.entries()[1]),
        "nothing was written"
    );
    let mut open = OpenJournal::open(&env, &path).unwrap();
    assert_eq!(open.intend(&plan(4), None).unwrap().id, 4);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        std::fs::metadata(path.parent().unwrap())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
}

#[test]
fn an_earlier_boots_entries_are_shown_and_not_undone() {
    let (dir, env) = root();
    let path = dir.path().join("journal");
    filled(&env, &path);
    std::fs::write(
        dir.path().join("proc/sys/kernel/random/boot_id"),
        "boot-2\n",
    )
    .unwrap();
    let journal = Journal::read(&env, &path).unwrap();
    assert_eq!(journal.entries().len(), 3);
    assert!(journal.last_undoable().is_none());
    assert!(
        journal
            .switched_off("/sys/kernel/tracing/events/a/e1/enable")
            .is_none()
    );
}

#[test]
fn cut_anywhere_no_whole_entry_is_lost() {
    let (dir, env) = root();
    let path = dir.path().join("journal");
    filled(&env, &path);
    let bytes = std::fs::read(&path).unwrap();
    let cut = dir.path().join("cut");
    for at in 0..=bytes.len() {
        std::fs::write(&cut, &bytes[..at]).unwrap();
        std::fs::set_permissions(&cut, std::fs::Permissions::from_mode(0o600)).unwrap();
        let journal = Journal::read(&env, &cut).unwrap();
        // A line is whole with or without its newline.
        let whole = bytes[..at]
            .split(|b| *b == b'\n')
            .filter(|line| {
                serde_json::from_slice::<Record>(line).is_ok_and(|r| matches!(r, Record::Entry(_)))
            })
            .count();
        assert_eq!(journal.entries().len(), whole, "cut at {at}");
        assert!(journal.damage().iter().all(|d| d.torn), "cut at {at}");
        // Writing goes on behind the torn line, which is told apart from damage for good.
        let next = OpenJournal::open(&env, &cut)
            .unwrap()
            .intend(&plan(9), None)
            .unwrap();
        assert!(journal.entries().iter().all(|e| e.id < next.id));
        let again = Journal::read(&env, &cut).unwrap();
        assert_eq!(again.entries().len(), whole + 1, "cut at {at}");
        assert_eq!(again.entries().last().unwrap(), &next);
        assert!(again.damage().iter().all(|d| d.torn), "cut at {at}");
    }
}

#[test]
fn an_outcome_after_a_line_that_was_cut_off_is_read() {
    let (dir, env) = root();
    let path = dir.path().join("journal");
    filled(&env, &path);
    let whole = std::fs::read(&path).unwrap();
    for cut in ["{", "{\"record\":\"entry\",\"id\":4"] {
        let bytes = [&whole[..], cut.as_bytes()].concat();
        std::fs::write(&path, bytes).unwrap();
        let mut open = OpenJournal::open(&env, &path).unwrap();
        let mut entry = open.journal.entry(3).unwrap().clone();
        entry.outcome = Outcome::Done;
        open.outcome(&entry).unwrap();
        drop(open);
        let journal = Journal::read(&env, &path).unwrap();
        assert_eq!(journal.entry(3).unwrap().outcome, Outcome::Done);
        assert!(journal.damage().iter().all(|d| d.torn), "{cut}");
    }
}

#[test]
fn damage_in_the_middle_is_named_and_everything_else_kept() {
    let (dir, env) = root();
    let path = dir.path().join("journal");
    filled(&env, &path);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5);
    for n in 0..lines.len() {
        for bad in ["\0\x01", "{}", "{\"record\":\"entry\"}", "[", "\u{fffd}"] {
            let mut damaged = lines.clone();
            damaged[n] = bad;
            std::fs::write(&path, damaged.join("\n") + "\n").unwrap();
            let journal = Journal::read(&env, &path).unwrap();
            assert_eq!(journal.damage().len(), 1);
            assert_eq!(journal.damage()[0].line, n as u64 + 1);
            assert!(!journal.damage()[0].torn);
            let entry_lines = lines
                .iter()
                .enumerate()
                .filter(|(i, l)| *i != n && l.contains("\"record\":\"entry\""));
            assert_eq!(journal.entries().len(), entry_lines.count());
            // The number of an entry that cannot be read is not given out again.
            let next = OpenJournal::open(&env, &path)
                .unwrap()
                .intend(&plan(9), None)
                .unwrap();
            assert!(next.id > 3, "{}", next.id);
            assert!(
                std::fs::read_to_string(&path).unwrap().contains(bad),
                "nothing is erased"
            );
        }
    }
}

#[test]
fn a_journal_that_others_could_have_written_is_not_trusted() {
    let (dir, env) = root();
    let path = dir.path().join("journal");
    filled(&env, &path);
    let says = |path: &Path, what: &str| {
        for error in [
            Journal::read(&env, path).map(|_| ()).unwrap_err(),
            OpenJournal::open(&env, path).map(|_| ()).unwrap_err(),
        ] {
            assert!(error.to_string().contains(what), "{error}");
        }
    };
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    says(&link, "symbolic link");
    let hard = dir.path().join("hard");
    std::fs::hard_link(&path, &hard).unwrap();
    says(&path, "second name");
    std::fs::remove_file(&hard).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    says(&path, "others may write");
    says(dir.path(), "");
}

#[test]
fn a_folder_that_others_could_have_led_elsewhere_is_not_trusted() {
    let (dir, env) = root();
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&folder, mode).unwrap();
    };
    let path = folder.join("journal");
    let opens = |path: &Path| {
        Journal::read(&env, path).map_err(|e| e.to_string())?;
        let open = OpenJournal::open(&env, path);
        open.map(drop).map_err(|e| e.to_string())
    };
    mode(0o777);
    let error = opens(&path).unwrap_err();
    assert!(
        error.contains("anybody may write its folder (mode 777)"),
        "{error}"
    );
    assert!(!path.exists());
    for safe in [0o700, 0o755, 0o1777] {
        mode(safe);
        assert_eq!(opens(&path), Ok(()));
    }
    // A link of one's own is a place that one chose.
    let link = dir.path().join("link");
    symlink(&folder, &link).unwrap();
    assert_eq!(opens(&link.join("journal")), Ok(()));
    // Only root can make one of somebody else.
    if std::os::unix::fs::lchown(&link, Some(4_711), None).is_ok() {
        let error = opens(&link.join("journal")).unwrap_err();
        assert!(error.contains("a symbolic link of uid 4711"), "{error}");
    }
}

#[test]
fn a_second_writer_waits_and_then_names_the_first() {
    let (dir, env) = root();
    let path = dir.path().join("journal");
    let open = OpenJournal::open(&env, &path).unwrap();
    let error = OpenJournal::open(&env, &path)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("[{}] is changing this host", std::process::id())),
        "{error}"
    );
    assert!(Journal::read(&env, &path).is_ok(), "readers need no lock");
    drop(open);
    assert!(OpenJournal::open(&env, &path).is_ok());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let journal = Journal::parse(Path::new("x"), "b".into(), &bytes);
        proptest::prop_assert!(journal.entries().is_empty());
        proptest::prop_assert!(journal.next_id() > 0);
    }
}
