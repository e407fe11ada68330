//! The shape of the house: which crate may use which, what the pure crates may reach, where
//! `unsafe` is, how long a file is, and which names stand at the top level.

mod architecture {
    pub(crate) mod crates;
    pub(crate) mod sources;
}

use std::collections::BTreeSet;
use std::fs;

use architecture::{crates, sources};

/// What stands at the top level besides dotfiles: the names that were asked for, and the files
/// that cargo and a licence need there. `target` is cargo's own.
const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "collectors",
    "probes",
    "screenshots",
    "target",
    "tests",
    "themes",
    "tui",
];

/// Every edge between our own crates. The two at the top, the tests and the project's commands,
/// may use any; nothing uses them.
const EDGES: &[(&str, &[&str])] = &[
    ("stalltop-wire", &[]),
    ("stalltop-ebpf", &["stalltop-wire"]),
    ("stalltop-probes", &["stalltop-wire"]),
    ("stalltop-model", &[]),
    (
        "stalltop-collectors",
        &["stalltop-probes", "stalltop-model"],
    ),
    ("stalltop-view", &["stalltop-model"]),
    (
        "stalltop",
        &["stalltop-collectors", "stalltop-view", "stalltop-model"],
    ),
];

/// Crates at the top: they may use any of [`EDGES`], and nothing may use them, but for the
/// helpers that one lends another, named here.
const TOP: &[(&str, &[&str])] = &[
    ("stalltop-tests", &[]),
    ("xtask", &[]),
    ("stalltop-fuzz", &[]),
];

/// What view and model do not reach, directly or through others: the kernel, the file system,
/// a clock or an executor.
const IMPURE: &[&str] = &[
    "aya",
    "aya-obj",
    "crossterm",
    "jiff",
    "mio",
    "nix",
    "procfs",
    "procfs-core",
    "signal-hook",
    "tokio",
];

/// What the sources of view and model do not name outside their tests.
const IMPURE_PATHS: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stdin",
    "std::io::stdout",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Where `unsafe` may stand, by path or folder, and why there.
const UNSAFE: &[(&str, &str)] = &[
    ("probes/", "bpf(2), eBPF programs and mapped arrays"),
    (
        "collectors/src/sys/",
        "system calls that rustix does not wrap",
    ),
    ("tests/src/bpf.rs", "somebody else's BPF tool"),
    (
        "tests/src/flood.rs",
        "sendmmsg(2), and threads on a CPU and network of their own",
    ),
    ("tests/src/tty.rs", "pseudo-terminals and their sessions"),
    (
        "tests/src/zombies.rs",
        "maps the pages that dead cgroups are charged with",
    ),
    ("tests/tests/live_probes.rs", "gives up root on one thread"),
    ("tests/tests/live_bpf.rs", "attaches programs of its own"),
    ("tests/tests/allocation.rs", "an allocator that counts"),
];

/// The most lines a file has.
const LONGEST: usize = 600;

/// Tables, which may be longer, and what they hold.
const TABLES: &[(&str, &str)] = &[];

#[test]
fn nothing_is_added_at_the_top_level() {
    let strangers: Vec<String> = fs::read_dir(sources::root())
        .expect("the root is readable")
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("a name in UTF-8")
        })
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    assert!(strangers.is_empty(), "at the top level: {strangers:?}");
}

#[test]
fn crates_depend_one_way() {
    let found = crates::edges();
    let names: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for (from, uses) in &found {
        let allowed = EDGES.iter().find(|(name, _)| name == from);
        let top = TOP.iter().find(|(name, _)| name == from);
        if allowed.is_none() && top.is_none() {
            wrong.push(format!("{from} is in no table of this test"));
        }
        for to in uses.iter().filter(|to| names.contains(to.as_str())) {
            let is_top = TOP.iter().any(|(name, _)| name == to);
            let fine = match (allowed, top) {
                (Some((_, may)), _) => may.contains(&to.as_str()),
                (None, Some((_, lends))) => !is_top || lends.contains(&to.as_str()),
                (None, None) => false,
            };
            if !fine {
                wrong.push(format!("{from} uses {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in [
        "stalltop",
        "stalltop-model",
        "stalltop-view",
        "stalltop-collectors",
    ] {
        assert!(names.contains(name), "{name} was not looked at: {names:?}");
    }
}

#[test]
fn view_and_model_reach_nothing_impure() {
    for package in ["stalltop-model", "stalltop-view"] {
        let reached = crates::reached(package);
        assert!(reached.contains("serde"), "{package}: {reached:?}");
        let impure: Vec<&str> = IMPURE
            .iter()
            .copied()
            .filter(|name| reached.contains(*name))
            .collect();
        assert!(impure.is_empty(), "{package} reaches {impure:?}");
    }
}

#[test]
fn view_and_model_name_no_file_and_no_clock() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for folder in ["collectors/model/src", "tui/view/src"] {
        for file in sources::rust_files(folder) {
            seen += 1;
            let text = sources::read(&file);
            for path in sources::paths(&text) {
                let hit = IMPURE_PATHS
                    .iter()
                    .find(|impure| path == **impure || path.starts_with(&format!("{impure}::")));
                if hit.is_some() {
                    wrong.push(format!("{file}: {path}"));
                }
            }
        }
    }
    assert!(seen > 10, "only {seen} files were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let wrong: Vec<String> = sources::rust_files("")
        .into_iter()
        .filter(|file| !UNSAFE.iter().any(|(place, _)| file.starts_with(place)))
        .filter(|file| sources::names_unsafe(&sources::read(file)))
        .collect();
    assert!(wrong.is_empty(), "unsafe in {wrong:?}");
}

#[test]
fn files_are_short() {
    let lines = |file: &String| sources::read(file).lines().count();
    let wrong: Vec<String> = sources::rust_files("")
        .into_iter()
        .filter(|file| !TABLES.iter().any(|(table, _)| table == file))
        .filter(|file| lines(file) > LONGEST)
        .collect();
    assert!(wrong.is_empty(), "over {LONGEST} lines: {wrong:?}");
    for (table, _) in TABLES {
        assert!(
            lines(&(*table).to_owned()) > LONGEST,
            "{table} needs no exception"
        );
    }
}

#[test]
fn modules_are_files_beside_their_folder() {
    let wrong: Vec<String> = sources::rust_files("")
        .into_iter()
        .filter(|file| file.ends_with("/mod.rs"))
        .collect();
    assert!(wrong.is_empty(), "foo.rs and foo/, not mod.rs: {wrong:?}");
}
