//! States: their rows, and what it may cost to make them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stalltop_model::sample::{Cgroups, MemoryVersion};
use stalltop_model::{Reading, Reason};

use super::fake::{CHEAP, Fake, sweeper, sweeper_of, tick};
use crate::cgroups::files::Files;
use crate::cgroups::publish::Publisher;
use crate::cgroups::sweep::Sweeper;

fn rows(state: &Cgroups) -> Vec<(String, Option<u32>)> {
    let rows = state.rows.iter();
    rows.map(|row| (row.path.to_string(), row.parent)).collect()
}

fn named(rows: &[(&str, Option<u32>)]) -> Vec<(String, Option<u32>)> {
    rows.iter().map(|(p, at)| ((*p).to_owned(), *at)).collect()
}

#[test]
fn a_container_does_not_take_its_own_zombies_for_the_hosts() {
    for version in [MemoryVersion::V1, MemoryVersion::V2] {
        let mut whole = sweeper_of(version, true, |files| files.dying = 12);
        let mut part = sweeper_of(version, false, |files| files.dying = 12);
        tick(&mut whole);
        tick(&mut part);
        assert_eq!(whole.zombies, Reading::Value(12), "{version:?}");
        assert_eq!(whole.zombies_now(), Reading::Value(12), "{version:?}");
        for zombies in [part.zombies.clone(), part.zombies_now()] {
            let Reading::Off(Reason::KernelDoesNotSay { what }) = zombies else {
                panic!("{version:?}: {zombies:?}");
            };
            let expected = match version {
                MemoryVersion::V1 => "cgroup v1",
                MemoryVersion::V2 => "cgroup v2",
            };
            assert!(what.ends_with(expected), "{what}");
        }
    }
}

#[test]
fn rows_are_the_same_however_they_were_laid_out() {
    let mut s = sweeper(|files| {
        for path in ["a", "a/b", "c", "c/d", "c/e"] {
            files.make(path, CHEAP);
        }
    });
    let mut kept = Publisher::default();
    let steps: [(&[&str], &[&str]); 6] = [
        (&[], &[]),
        (&["a/a", "a/b/x"], &["c/d"]),
        (&[], &["a/a", "a/b/x"]),
        (&["0", "z"], &["a/b"]),
        (&["c/d", "a/b"], &["0"]),
        (&[], &["z", "c/d", "c/e", "c"]),
    ];
    for (made, removed) in steps {
        for path in made {
            s.files.make(path, CHEAP);
        }
        for path in removed {
            s.files.remove(path);
        }
        for _ in 0..3 {
            tick(&mut s);
        }
        let state = kept.state(&mut s);
        let anew = Publisher::default().state(&mut s);
        assert_eq!(state.rows, anew.rows);
        for row in &state.rows {
            let node = s.tree.node(s.tree.find(&row.path).unwrap());
            assert_eq!((row.read_at_ns, row.depth), (node.read_at_ns, node.depth));
        }
    }
}

#[test]
fn a_child_hangs_under_the_nearest_that_has_a_row() {
    let mut s = sweeper_of(MemoryVersion::V2, true, |files| {
        for path in ["a", "a/b", "a/b/c", "d"] {
            files.make(path, CHEAP);
        }
    });
    tick(&mut s);
    let mut publisher = Publisher::default();
    let all = [
        ("/", None),
        ("/a", Some(0)),
        ("/a/b", Some(1)),
        ("/a/b/c", Some(2)),
        ("/d", Some(0)),
    ];
    assert_eq!(rows(&publisher.state(&mut s)), named(&all));
    // The controller goes off at the parent; its child is looked at later.
    let parent = s.tree.find("/a/b").unwrap();
    s.tree.node_mut(parent).memory = false;
    s.tree.changed();
    let without = [
        ("/", None),
        ("/a", Some(0)),
        ("/a/b/c", Some(1)),
        ("/d", Some(0)),
    ];
    assert_eq!(rows(&publisher.state(&mut s)), named(&without));
    assert_eq!(rows(&Publisher::default().state(&mut s)), named(&without));
}

#[test]
fn what_is_made_below_a_cgroup_without_the_controller_has_none() {
    let mut s = sweeper_of(MemoryVersion::V2, true, |files| {
        files.make("off", CHEAP);
        files.set_memory("off", false);
    });
    tick(&mut s);
    s.files.make("off/child", CHEAP);
    s.files.set_memory("off/child", false);
    let off = s.tree.find("/off").unwrap();
    let mut names = crate::cgroups::tree::Names::default();
    names.push(c"child");
    s.tree.set_children(off, &names, &mut Vec::new());
    // Not looked at yet.
    let state = Publisher::default().state(&mut s);
    assert_eq!(rows(&state), named(&[("/", None)]));
    assert_eq!(state.visible, 1);
}

/// Sweeps that gave a state, when each costs `cost_ns`.
fn published(s: &mut Sweeper<Fake>, sweeps: usize, cost_ns: u64) -> usize {
    let mut states = 0;
    for _ in 0..sweeps {
        let started = s.files.cpu_ns();
        tick(s);
        if s.may_publish() {
            states += 1;
            s.published(cost_ns);
        }
        assert!(s.files.cpu_ns() > started);
    }
    states
}

#[test]
fn states_are_paid_from_the_budget_and_reads_go_on() {
    const MS: u64 = 1_000_000;
    let build = |files: &mut Fake| {
        for n in 0..200 {
            files.make(&format!("c{n}"), 50 * CHEAP);
        }
    };
    let mut s = sweeper(build);
    assert_eq!(published(&mut s, 100, MS / 10), 100, "cheap: each time");
    // Half of a budget of 4 ms pays for 15 ms in eight sweeps.
    let mut s = sweeper(build);
    let states = published(&mut s, 800, 15 * MS);
    assert!((95..=105).contains(&states), "{states}");
    let reads = s.done.reads;
    assert!(reads > 800 * 20, "{reads}");
    // A person who asks does not wait for that.
    s.published(1_000 * MS);
    assert!(!s.may_publish());
    s.shared.request("/c7".into());
    tick(&mut s);
    assert!(s.may_publish());
}

/// `cargo test --release -p stalltop-collectors --lib -- --ignored --nocapture twenty_thousand`
#[test]
#[ignore = "a measurement"]
fn twenty_thousand_of_which_one_comes_and_one_goes() {
    let mut s = sweeper(|files| {
        for pod in 0..200 {
            files.make(&format!("p{pod}"), CHEAP);
            for n in 0..100 {
                files.make(&format!("p{pod}/c{n}"), CHEAP);
            }
        }
    });
    for _ in 0..20 {
        s.sweep(1_000_000_000);
    }
    let mut publisher = Publisher::default();
    let mut held: Vec<Arc<Cgroups>> = Vec::new();
    let mut took: [Vec<Duration>; 3] = Default::default();
    for round in 0..60 {
        let moved = round % 2;
        if moved == 1 {
            s.files.make(&format!("p7/new{round}"), CHEAP);
            if round > 1 {
                s.files.remove(&format!("p7/new{}", round - 2));
            }
        }
        for _ in 0..2 {
            s.sweep(100_000_000);
        }
        let mut time = |which: usize, publisher: &mut Publisher| {
            let start = Instant::now();
            let state = publisher.state(&mut s);
            took[which].push(start.elapsed());
            state
        };
        held.push(time(moved, &mut publisher));
        drop(time(2, &mut Publisher::default()));
        // As the model and a sample keep them.
        if held.len() > 3 {
            held.remove(0);
        }
    }
    let rows = held[0].rows.len();
    for (how, took) in ["as it was", "one came, one went", "laid out anew"]
        .iter()
        .zip(&mut took)
    {
        took.sort_unstable();
        eprintln!("{rows} rows, {how}: median {:?}", took[took.len() / 2]);
    }
}
