use super::*;
use crate::sample::{Culprit, Seen, Vector};
use crate::{Reading, Reason};

const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// A stall that ended at `at_ms` on `cpu`, by `comm` in `function`.
fn stall(id: u64, at_ms: u64, cpu: u32, delay_ms: u64, comm: &str, function: &str) -> Stall {
    Stall {
        id,
        at_ns: at_ms * MS,
        wall_ns: 1_700_000_000 * S + at_ms * MS,
        cpu,
        delay_ns: delay_ms * MS,
        vector: Some(Vector::NetRx),
        culprit: Reading::Value(Culprit {
            pid: 7,
            tgid: 7,
            comm: comm.into(),
            function: match function {
                "" => Reading::Off(Reason::NotAsked),
                name => Reading::Value(name.into()),
            },
            ..Culprit::default()
        }),
        ..Stall::default()
    }
}

fn with(stalls: impl IntoIterator<Item = Stall>) -> StallsModel {
    let mut model = StallsModel::default();
    for stall in stalls {
        model.push(stall);
    }
    model
}

fn ids<'a>(stalls: impl Iterator<Item = &'a Arc<Stall>>) -> Vec<u64> {
    stalls.map(|s| s.id).collect()
}

#[test]
fn they_stand_in_the_order_in_which_they_ended() {
    let model = with([
        stall(1, 100, 0, 10, "a", ""),
        stall(2, 300, 1, 10, "b", ""),
        stall(3, 200, 0, 10, "c", ""),
    ]);
    assert_eq!(ids(model.iter()), [1, 3, 2]);
    // The moment shown may lie in the past: what had ended by then.
    assert_eq!(ids(model.between(0, 200 * MS)), [1, 3]);
    assert_eq!(ids(model.between(100 * MS, u64::MAX)), [3, 2]);
    assert_eq!(ids(model.between(u64::MAX, 0)), [] as [u64; 0]);
    assert_eq!(model.get(3).unwrap().at_ns, 200 * MS);
}

#[test]
fn paused_cpus_and_our_own_are_folded_away_and_counted() {
    let mut paused = stall(2, 200, 0, 30, "x", "");
    paused.pause = Pause::Paused;
    let mut ours = stall(3, 300, 0, 20, "stalltop", "memory_stat_show");
    ours.ours = true;
    let mut either = stall(4, 400, 1, 12, "y", "");
    either.pause = Pause::Either;
    let model = with([stall(1, 100, 0, 10, "a", ""), paused, ours, either]);
    let all = Filter::default();
    assert_eq!(ids(model.matching(&all, 0, u64::MAX)), [1, 4]);
    let tally = model.tally(&all, 0, u64::MAX);
    assert_eq!(
        tally,
        Tally {
            shown: 2,
            paused: 1,
            ours: 1,
            worst_ns: 12 * MS
        }
    );
    let on_0 = Filter {
        cpu: Some(0),
        paused: true,
        ..Filter::default()
    };
    assert_eq!(ids(model.matching(&on_0, 0, u64::MAX)), [1, 2]);
    assert_eq!(model.mark(0, 0, u64::MAX).unwrap().count, 1);
    assert_eq!(model.mark(2, 0, u64::MAX), None);
}

#[test]
fn victims_are_marked_on_their_cpus() {
    let mut merged = stall(1, 100, 0, 40, "a", "f");
    merged.victims = vec![3, 5];
    merged.kind = StallKind::InterruptsOff;
    let model = with([merged, stall(2, 150, 3, 10, "b", "")]);
    let mark = model.mark(3, 0, 200 * MS).unwrap();
    assert_eq!(
        (mark.count, mark.worst_ns, mark.kind),
        (2, 40 * MS, StallKind::InterruptsOff)
    );
    assert_eq!(model.mark(5, 0, 99 * MS), None);
}

#[test]
fn every_property_filters_and_narrows() {
    let model = with([
        stall(1, 100, 11, 178, "cadvisor", "memory_stat_show"),
        stall(2, 200, 11, 5, "nft", ""),
        Stall {
            vector: None,
            kind: StallKind::NoReschedule,
            culprit: Reading::Off(Reason::NotAsked),
            ..stall(3, 300, 2, 9, "", "")
        },
    ]);
    for by in GroupBy::ALL {
        let groups = model.groups(by, &Filter::default(), 0, u64::MAX);
        let all: u32 = groups.iter().map(|g| g.count).sum();
        assert_eq!(all, 3, "{by:?}");
        for group in groups {
            let mut filter = Filter::default();
            group.key.narrow(&mut filter);
            assert!(!filter.is_default());
            let found = ids(model.matching(&filter, 0, u64::MAX));
            assert_eq!(found.len(), group.count as usize, "{by:?} {group}");
            assert!(found.contains(&group.worst_id));
        }
    }
    let long = Filter {
        least_ns: 9 * MS,
        time: Some((100 * MS, 300 * MS)),
        ..Filter::default()
    };
    assert_eq!(ids(model.matching(&long, 0, u64::MAX)), [3]);
}

#[test]
fn a_group_says_how_much_of_it_is_what() {
    let stalls = (1..=41).map(|i| match i {
        ..=36 => stall(i, 1_000 * i, 11, 100 + i, "cadvisor", "memory_stat_show"),
        _ => stall(i, 1_000 * i, 11, 6, "kswapd0", "shrink_slab"),
    });
    let groups = with(stalls).groups(GroupBy::Cpu, &Filter::default(), 0, u64::MAX);
    let [group] = &groups[..] else {
        panic!("{groups:?}")
    };
    assert_eq!(
        group.to_string(),
        "88 % of 41 stalls on cpu 11: cadvisor in memory_stat_show"
    );
    assert_eq!((group.count, group.share), (41, 1.0));
    assert_eq!((group.worst_ns, group.worst_id), (136 * MS, 36));
    // Five short ones below the 36: the 21st of 41 is the 16th of them.
    assert_eq!(group.typical_ns, 116 * MS);
    assert_eq!(group.newest_ns, 41 * S);
}

#[test]
fn each_grouping_says_what_its_stalls_have_in_common() {
    let unknown = Stall {
        vector: None,
        culprit: Reading::Off(Reason::NotAsked),
        ..stall(4, 400, 2, 9, "", "")
    };
    let model = with([
        stall(1, 100, 11, 178, "cadvisor", "memory_stat_show"),
        stall(2, 200, 11, 8, "cadvisor", "memory_stat_show"),
        stall(3, 300, 2, 5, "stress", ""),
        unknown,
    ]);
    let said = |by| -> Vec<String> {
        let groups = model.groups(by, &Filter::default(), 0, u64::MAX);
        groups.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        said(GroupBy::Culprit),
        [
            "100 % of 2 stalls by cadvisor: in memory_stat_show",
            "1 stall whose culprit is not known",
            "1 stall by stress: in no known kernel function",
        ]
    );
    assert_eq!(
        said(GroupBy::Function),
        [
            "100 % of 2 stalls in memory_stat_show: cadvisor",
            "50 % of 2 stalls in no known kernel function: stress",
        ]
    );
    assert_eq!(
        said(GroupBy::Cpu),
        [
            "100 % of 2 stalls on cpu 11: cadvisor in memory_stat_show",
            "50 % of 2 stalls on cpu 2: stress",
        ]
    );
    let owners = said(GroupBy::Owner);
    assert!(
        owners[0].contains(" by no known unit or container: "),
        "{owners:?}"
    );
    let vectors = said(GroupBy::Vector);
    assert_eq!(vectors[1], "1 stall without a vector: culprit not known");
}

#[test]
fn hostile_names_do_not_reach_the_terminal() {
    let model = with([stall(1, 5, 0, 5, "a\x1b[2J", "b\u{202e}")]);
    for by in GroupBy::ALL {
        let groups = model.groups(by, &Filter::default(), 0, u64::MAX);
        let shown = format!("{} {}", groups[0], groups[0].key);
        assert!(!shown.contains('\x1b') && !shown.contains('\u{202e}'));
    }
}

/// A stall of `samples` samples on two stacks, the second of which is the heavier one.
fn sampled(id: u64, samples: usize) -> Stall {
    let seen = |i: usize| Seen {
        weight_ns: MS,
        stack: Some(u32::from(!i.is_multiple_of(3))),
        ..Seen::default()
    };
    Stall {
        timeline: (0..samples).map(seen).collect(),
        stacks: vec![vec!["a".into()], vec!["b".into(), "c".into()]],
        ..stall(id, id, 0, 10, "x", "f")
    }
}

#[test]
fn memory_is_bounded_and_what_is_lost_is_said() {
    let mut model = StallsModel::default();
    for id in 1..=5_000 {
        model.push(sampled(id, 600));
    }
    assert_eq!((model.iter().len(), model.dropped()), (KEPT, 904));
    assert!(model.timeline_bytes() <= TIMELINES);
    assert!(!model.is_trimmed(5_000) && model.get(5_000).unwrap().timeline.len() == 600);
    assert!(model.is_trimmed(905));
    let oldest = model.get(905).unwrap();
    assert!(oldest.timeline.is_empty());
    assert_eq!(oldest.stacks, [vec!["b".into(), "c".into()]]);
    assert_eq!(oldest.culprit.value().unwrap().comm, "x".into());
    let whole = model.iter().filter(|s| !s.timeline.is_empty()).count();
    assert_eq!(model.trimmed(), KEPT - whole);
    assert!(whole > 300, "{whole}");
}

#[test]
fn a_held_screen_keeps_its_timelines() {
    let mut model = with([sampled(1, 600)]);
    let held = model.clone();
    for id in 2..2_000 {
        model.push(sampled(id, 600));
    }
    assert!(model.is_trimmed(1));
    assert_eq!(held.get(1).unwrap().timeline.len(), 600);
}

#[test]
fn one_absurd_stall_is_kept_whole_until_the_next() {
    let mut model = with([sampled(1, 1_000_000)]);
    assert!(model.timeline_bytes() > TIMELINES && !model.is_trimmed(1));
    model.push(sampled(2, 3));
    assert!(model.is_trimmed(1) && model.timeline_bytes() < 1_000);
}

#[test]
fn stacks_stand_by_what_they_weigh() {
    let mut stall = sampled(1, 9);
    stall.timeline.push(Seen {
        stack: Some(77),
        weight_ns: u64::MAX,
        ..Seen::default()
    });
    assert_eq!(stacks_by_weight(&stall), [(1, 6 * MS), (0, 3 * MS)]);
    assert_eq!(main_stack(&Stall::default()), None);
}

#[test]
fn the_heat_map_shows_when_in_the_second() {
    // The wall clock is 200 ms ahead of whole seconds of the monotonic one.
    let until = (10 * S + 500 * MS, 1_700_000_010 * S + 700 * MS);
    // 9.75 s to 9.95 s of the boot: 0.95 s of one second to 0.15 s of the next.
    let model = with([stall(1, 9_950, 3, 200, "a", "f")]);
    let map = model.heat(&Filter::default(), until, 5, 10);
    assert_eq!(map.first_wall_ns, 1_700_000_006 * S);
    assert_eq!(map.first_ns, 5 * S + 800 * MS);
    let cell = |column, row| map.cell(column, row).unwrap().stalled_ns / MS;
    assert_eq!(cell(3, 9), 50);
    assert_eq!((cell(4, 0), cell(4, 1), cell(4, 2)), (100, 50, 0));
    assert_eq!(map.most_ns(), 100 * MS);
    // Choosing those cells chooses that stall.
    let chosen = Filter {
        time: Some(map.span((4, 1), (3, 9))),
        ..Filter::default()
    };
    assert_eq!(ids(model.matching(&chosen, 0, u64::MAX)), [1]);
    assert_eq!(map.span((3, 9), (3, 9)).1, 9 * S + 800 * MS);
    assert_eq!(map.cell(5, 0), None);
}

#[test]
fn a_heat_map_takes_any_shape_and_any_stall() {
    let mut endless = stall(1, 5, 0, 0, "a", "");
    (endless.at_ns, endless.delay_ns) = (u64::MAX, u64::MAX);
    let model = with([endless, stall(2, 3, 0, 90_000, "b", "")]);
    for (columns, rows) in [(0, 0), (1, 7), (60, 50), (3, 1_000_000)] {
        for until in [(0, 0), (5, u64::MAX), (2 * S, 3 * S), (u64::MAX, 1)] {
            let map = model.heat(&Filter::default(), until, columns, rows);
            let last = (map.columns - 1, map.rows - 1);
            assert!(map.cell(last.0, last.1).is_some());
            let (from, to) = map.span((0, 0), last);
            assert!(
                from < to || until.0 == u64::MAX,
                "{until:?} {columns} {rows}"
            );
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn any_stalls_are_taken(
        stalls in proptest::collection::vec(
            (
                (proptest::num::u64::ANY, proptest::num::u64::ANY, 0u32..4, 0usize..5),
                (0usize..3, 0usize..12, ".{0,3}", proptest::num::u64::ANY),
            ),
            0..60,
        ),
        until in proptest::num::u64::ANY,
    ) {
        let mut model = crate::Model::new();
        let count = stalls.len();
        for (id, ((at_ns, delay_ns, cpu, kind), (pause, samples, comm, weight_ns))) in
            stalls.into_iter().enumerate()
        {
            let mut stall = sampled(id as u64, samples);
            (stall.at_ns, stall.wall_ns, stall.delay_ns) = (at_ns, at_ns, delay_ns);
            (stall.cpu, stall.kind) = (cpu, StallKind::ALL[kind]);
            stall.pause = [Pause::Held, Pause::Paused, Pause::Either][pause];
            if let Some(culprit) = stall.culprit.value_mut() {
                culprit.comm = comm.as_str().into();
                culprit.share = f32::NAN;
            }
            for seen in &mut stall.timeline {
                seen.weight_ns = weight_ns;
            }
            model.apply(&mut crate::Frame::Stall(Box::new(stall)));
        }
        let stalls = &model.stalls;
        proptest::prop_assert_eq!(stalls.iter().len(), count);
        proptest::prop_assert!(stalls.iter().is_sorted_by_key(|s| s.at_ns));
        let all = Filter { paused: true, ..Filter::default() };
        let shown = stalls.tally(&all, 0, until).shown;
        for by in GroupBy::ALL {
            let groups = stalls.groups(by, &all, 0, until);
            let sum: u64 = groups.iter().map(|g| u64::from(g.rows)).sum();
            proptest::prop_assert_eq!(sum, shown);
            proptest::prop_assert!(groups.iter().all(|g| g.count <= g.rows));
        }
        let _ = stalls.heat(&all, (until, until), 9, 7).most_ns();
        let mut sample = crate::Sample { at_ns: until, wall_ns: until, ..Default::default() };
        sample.stalls = Reading::Value(Default::default());
        model.advance(&mut sample);
    }
}

#[test]
fn one_hold_that_is_seen_as_several_stalls_counts_once() {
    // What a read of 40 ms does: a timer and packets wait, and a task gets no reschedule.
    let mut waits = stall(1, 1_000, 3, 40, "cadvisor", "f");
    waits.vector = Some(Vector::Timer);
    let packets = stall(2, 1_000, 3, 30, "cadvisor", "f");
    let mut task = stall(3, 1_001, 3, 39, "cadvisor", "f");
    (task.kind, task.vector) = (StallKind::NoReschedule, None);
    let alone = [stall(4, 2_000, 3, 10, "cadvisor", "f")];
    // Another CPU at the same time is another hold, as is another holder on this one.
    let elsewhere = stall(5, 1_000, 4, 40, "cadvisor", "f");
    let mut other = stall(6, 1_010, 3, 20, "nft", "g");
    if let Some(culprit) = other.culprit.value_mut() {
        culprit.pid = 8;
    }
    let all = [waits, packets, task, elsewhere, other];
    let model = with(all.into_iter().chain(alone));
    let held = model.held(&Filter::default(), 0, u64::MAX);
    // cpu 3 from 960 to 1,010 and from 1,990 to 2,000, cpu 4 from 960 to 1,000.
    assert_eq!((held.count, held.total_ns), (4, 100 * MS));
    let groups = model.groups(GroupBy::Culprit, &Filter::default(), 0, u64::MAX);
    let group = |at: usize| (groups[at].count, groups[at].rows, groups[at].total_ns / MS);
    assert_eq!((group(0), group(1)), ((3, 5, 91), (1, 1, 20)));
    let newest_first = || model.iter().rev().map(|s| &**s);
    let ids: Vec<u64> = newest_first().map(|s| s.id).collect();
    assert_eq!(ids, [4, 6, 3, 5, 2, 1]);
    assert_eq!(
        told_before(newest_first()),
        [false, false, false, false, true, true]
    );
}

#[test]
fn holds_of_many_rows_are_as_those_of_few() {
    let row = |i: u64| stall(i, 10 * i, (i % 3) as u32, 25, "a", "");
    for n in [0, 1, 191, 192, 193, 1_000] {
        let stalls: Vec<Stall> = (1..=n).map(row).collect();
        let held = held(stalls.iter());
        // Every third is on one CPU: 30 ms from end to end, 5 of them free.
        assert_eq!(u64::from(held.count), n, "{n}");
        let first_cut = if n >= 1 { 15 } else { 0 } + if n >= 2 { 5 } else { 0 };
        assert_eq!(held.total_ns, (25 * n - first_cut) * MS, "{n}");
        assert_eq!(told_before(stalls.iter()), vec![false; n as usize]);
    }
    let wild = Stall {
        at_ns: 5,
        delay_ns: u64::MAX,
        ..Stall::default()
    };
    assert_eq!(held([&wild, &wild].into_iter()).count, 1);
}
