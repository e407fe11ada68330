//! Cgroups that come, go, and are made again.

use std::collections::BTreeSet;

use proptest::prelude::*;
use stalltop_model::Reading;

use super::fake::{CHEAP, Fake, sweeper, tick};
use crate::cgroups::publish::Publisher;
use crate::cgroups::sweep::Sweeper;

fn names(s: &Sweeper<Fake>) -> BTreeSet<String> {
    s.tree.alive().map(|n| n.name.to_string()).collect()
}

fn expect(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|p| (*p).to_owned()).collect()
}

#[test]
fn found_and_forgotten() {
    let mut s = sweeper(|files| {
        for path in ["a", "a/b", "a/b/c", "d"] {
            files.make(path, CHEAP);
        }
    });
    tick(&mut s);
    assert_eq!(names(&s), expect(&["/", "/a", "/a/b", "/a/b/c", "/d"]));
    s.files.make("a/b/e", CHEAP);
    s.files.remove("d");
    tick(&mut s);
    tick(&mut s);
    assert_eq!(names(&s), expect(&["/", "/a", "/a/b", "/a/b/c", "/a/b/e"]));
    for path in ["a/b/c", "a/b/e", "a/b", "a"] {
        s.files.remove(path);
    }
    tick(&mut s);
    tick(&mut s);
    assert_eq!(names(&s), expect(&["/"]));
    assert_eq!(s.visible, 1);
}

#[test]
fn one_for_another_at_once() {
    // The link count stays as it was.
    let mut s = sweeper(|files| {
        files.make("a", CHEAP);
        files.make("a/old", CHEAP);
    });
    tick(&mut s);
    s.files.remove("a/old");
    s.files.make("a/new", CHEAP);
    tick(&mut s);
    tick(&mut s);
    assert_eq!(names(&s), expect(&["/", "/a", "/a/new"]));
    assert_eq!(s.done.vanished, 1);
}

#[test]
fn made_again_under_the_same_name_it_is_another_one() {
    let mut s = sweeper(|files| files.make("job", 7 * 1_000_000));
    tick(&mut s);
    let timing = |s: &Sweeper<Fake>| s.tree.node(s.tree.find("/job").unwrap()).timing.get();
    assert_eq!(timing(&s).unwrap().longest_ns, 7_000_000);
    s.files.remove("job");
    s.files.make("job", CHEAP);
    for _ in 0..4 {
        tick(&mut s);
    }
    assert_eq!(timing(&s).unwrap().longest_ns, CHEAP);
    assert_eq!(s.done.backed_off, 0);
}

#[test]
fn zombies_on_v1_are_counted_against_a_settled_walk() {
    let mut s = sweeper(|files| {
        for n in 0..5 {
            files.make(&format!("c{n}"), CHEAP);
        }
        files.dying = 12;
    });
    for _ in 0..3 {
        tick(&mut s);
    }
    assert_eq!(s.zombies, Reading::Value(12));
    // Removed between the count and the walk: never one zombie too many.
    s.files.remove_after_count.push("c3".into());
    tick(&mut s);
    assert_eq!(s.zombies, Reading::Value(12));
    s.files.dying = 0;
    tick(&mut s);
    tick(&mut s);
    assert_eq!(s.zombies, Reading::Value(0));
}

#[test]
fn a_host_that_never_settles_is_counted_all_the_same() {
    let mut s = sweeper(|files| files.dying = 3);
    for n in 0..12 {
        s.files.make(&format!("c{n}"), CHEAP);
        s.files.remove_after_count = (n > 0).then(|| format!("c{}", n - 1)).into_iter().collect();
        tick(&mut s);
    }
    let zombies = s.zombies.get().unwrap();
    assert!((2..=4).contains(&zombies), "{zombies}");
}

#[test]
fn states_are_published_in_the_same_buffers() {
    let mut s = sweeper(|files| {
        files.make("b", CHEAP);
        files.make("a", CHEAP);
        files.make("a/x", CHEAP);
    });
    let mut publisher = Publisher::default();
    tick(&mut s);
    let first = publisher.state(&mut s);
    let paths: Vec<&str> = first.rows.iter().map(|r| &*r.path).collect();
    assert_eq!(paths, ["/", "/a", "/a/x", "/b"]);
    let parents: Vec<_> = first.rows.iter().map(|r| r.parent).collect();
    assert_eq!(parents, [None, Some(0), Some(1), Some(0)]);
    let at = std::sync::Arc::as_ptr(&first);
    drop(first);
    for _ in 0..5 {
        tick(&mut s);
        let again = publisher.state(&mut s);
        assert_eq!(std::sync::Arc::as_ptr(&again), at);
        let node = s.tree.node(s.tree.find("/b").unwrap());
        assert_eq!(again.rows[3].read_at_ns, node.read_at_ns);
        assert_eq!(again.rows[3].read, node.timing);
    }
    // A state that somebody holds is left alone.
    let held = publisher.state(&mut s);
    let before = held.sweep.reads;
    tick(&mut s);
    let other = publisher.state(&mut s);
    assert!(held.sweep.reads == before && other.sweep.reads > before);
}

proptest! {
    /// Whatever comes and goes, the tree ends as the file system is.
    #[test]
    fn the_tree_follows(steps in prop::collection::vec((0u8..4, 0u8..4, 0u8..4, any::<bool>()), 0..60)) {
        let mut s = sweeper(|_| {});
        let mut real = BTreeSet::from(["/".to_owned()]);
        for (depth, a, b, sweep) in steps {
            let path = match depth {
                0 | 1 => format!("{a}"),
                2 => format!("{a}/{b}"),
                _ => format!("{a}/{b}/{a}"),
            };
            let shown = format!("/{path}");
            let parent = shown.rsplit_once('/').map(|(p, _)| if p.is_empty() { "/" } else { p });
            let below = format!("{shown}/");
            if real.contains(&shown) {
                if !real.iter().any(|p| p.starts_with(&below)) {
                    s.files.remove(&path);
                    real.remove(&shown);
                }
            } else if real.contains(parent.unwrap()) {
                s.files.make(&path, CHEAP);
                real.insert(shown);
            }
            if sweep {
                tick(&mut s);
            }
        }
        for _ in 0..6 {
            tick(&mut s);
        }
        prop_assert_eq!(names(&s), real);
        prop_assert_eq!(s.zombies.get(), Some(0));
        prop_assert_eq!(s.tree.known(), s.tree.order().len() as u64);
    }
}
