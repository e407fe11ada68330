use super::*;
use crate::change::{Journal, apply};

/// A host with these caches and so many dying cgroups, at this kernel.
fn host(kernel: &str, cached_kb: u64, slab_kb: u64, dying: u64) -> (tempfile::TempDir, Env) {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("proc/sys/kernel/osrelease", kernel);
    put("proc/sys/kernel/random/boot_id", "b");
    put("proc/sys/vm/drop_caches", "0\n");
    put(
        "proc/meminfo",
        &format!(
            "MemFree: 1000 kB\nCached: {cached_kb} kB\nShmem: 2048 kB\nSReclaimable: {slab_kb} kB\n"
        ),
    );
    put(
        "proc/self/mountinfo",
        "1 2 0:3 / /cg rw - cgroup2 cgroup2 rw\n",
    );
    put("cg/cgroup.controllers", "cpu memory\n");
    put("cg/memory.stat", "anon 1\n");
    put("cg/cgroup.stat", &format!("nr_dying_descendants {dying}\n"));
    put("run/x", "");
    let env = Env::at(dir.path());
    (dir, env)
}

fn drop_plan(env: &Env, level: Option<u8>) -> Result<Plan, ChangeError> {
    let journal = Journal::read(env, &Journal::path_for(env, None)).unwrap();
    plan(env, &Request::DropCaches { level }, &journal, level)
}

#[test]
fn the_value_fits_the_kernel_and_what_is_charged() {
    for (kernel, cached, slab, want) in [
        ("6.18.44", 100_000, 50_000, 1),
        ("6.1.0-28-cloud-amd64", 100_000, 50_000, 1),
        ("5.10.0", 100_000, 50_000, 2),
        ("4.9.0", 100_000, 50_000, 2),
        ("5.10.0", 1_000_000, 100, 3),
    ] {
        let (_dir, env) = host(kernel, cached, slab, 0);
        let (level, why) = proposed(&env);
        assert_eq!(level, want, "{kernel}");
        assert!(why.contains(&env.kernel.to_string()));
    }
}

#[test]
fn a_plan_says_what_it_costs_and_asks_for_the_word() {
    let (_dir, env) = host("6.12.0", 102_400, 51_200, 3);
    let plan = drop_plan(&env, None).unwrap();
    assert_eq!(
        plan.writes[0].command(),
        "echo 1 > /proc/sys/vm/drop_caches"
    );
    assert_eq!(
        (plan.undo, plan.confirm_word.as_deref()),
        (UndoClass::Never, Some(WORD))
    );
    let notes = plan.notes.join("\n");
    for part in [
        "98.0 MiB of clean page cache",
        "2.0 MiB of tmpfs",
        "may take minutes",
    ] {
        assert!(notes.contains(part), "{notes}");
    }
    let other = drop_plan(&env, Some(3)).unwrap().notes.join("\n");
    assert!(
        other.contains("50.0 MiB of reclaimable slab") && other.contains("1 would be proposed")
    );
    assert!(matches!(
        drop_plan(&env, Some(4)),
        Err(ChangeError::BadSelector { .. })
    ));
    assert!(matches!(
        drop_plan(&env, Some(0)),
        Err(ChangeError::BadSelector { .. })
    ));
}

#[test]
fn a_drop_is_journaled_with_its_effect_and_never_undone() {
    let (dir, env) = host("6.12.0", 102_400, 51_200, 3);
    let writer = Writer::new(&env, None);
    let plan = drop_plan(&env, Some(1)).unwrap();
    let mut running = start(&writer, &plan).unwrap();
    let entry = loop {
        if let Some(end) = running.poll(Duration::from_millis(50)) {
            break end.unwrap();
        }
    };
    assert_eq!(entry.outcome, Outcome::Done);
    let written = std::fs::read_to_string(dir.path().join("proc/sys/vm/drop_caches")).unwrap();
    assert_eq!(written, "1\n");
    let journal = Journal::read(&env, writer.journal()).unwrap();
    assert_eq!(journal.entries(), std::slice::from_ref(&entry));
    assert!(journal.last_undoable().is_none());
    // A file that drops nothing: said so.
    let lines = report(entry.effect.as_ref().unwrap());
    assert_eq!(lines[0], "zombie cgroups     3 -> 3");
    assert!(
        lines.last().unwrap().starts_with("no effect seen"),
        "{lines:?}"
    );
    // The generic way does the same.
    assert!(apply(&writer, &plan, &mut |_| ()).unwrap().effect.is_some());
}

#[test]
fn fewer_zombies_are_an_effect_and_what_is_not_measured_is_said() {
    let row = |before: Reading<u64>, after| stalltop_model::change::EffectRow {
        what: "zombie cgroups".into(),
        unit: "count".into(),
        before,
        after,
    };
    let effect = |row| Effect {
        rows: vec![row],
        took_ns: 1_500_000,
    };
    let seen = report(&effect(row(Reading::Value(4812), Reading::Value(91))));
    assert_eq!(seen, ["zombie cgroups     4,812 -> 91", "took 1.5 ms"]);
    let off = report(&effect(row(
        Reading::Off(stalltop_model::Reason::NotAsked),
        Reading::Value(1),
    )));
    assert!(
        off[0].contains("not measured (not asked for yet) -> 1"),
        "{off:?}"
    );
}
