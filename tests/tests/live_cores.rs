//! The eBPF programs on the running kernel, against what the kernel itself counts.

use std::time::{Duration, Instant};

use stalltop_collectors::Collector;
use stalltop_collectors::cores::CoresCollector;
use stalltop_collectors::env::Env;
use stalltop_model::sample::{CoresSource, Sample};
use stalltop_probes::sys::ids;
use stalltop_probes::{Options, PROGRAMS, Probes, Spec, Thresholds};
use stalltop_tests::flood::Packets;
use stalltop_tests::{cores, need, require};

/// Half a second is half a million softirqs.
const TIME: Duration = Duration::from_millis(500);

#[test]
fn counts_agree_under_a_flood_of_udp() {
    let _alone = need::alone();
    require!(need::root());
    println!("{}", cores::counts_agree(Packets::Udp, TIME, 0));
}

#[test]
fn counts_agree_at_the_highest_rate() {
    let _alone = need::alone();
    require!(need::root());
    println!("{}", cores::counts_agree(Packets::Unknown, TIME, 0));
}

#[test]
fn no_tick_loses_its_longest() {
    let _alone = need::alone();
    require!(need::root());
    println!("{}", cores::ticks_lose_nothing(TIME, 0));
}

#[test]
fn ksoftirqd_agrees_with_schedstat() {
    let _alone = need::alone();
    require!(need::root());
    println!("{}", cores::ksoftirqd_agrees(5, Duration::from_secs(120)));
}

/// `softirq_raise` where there is no such tracepoint.
static NO_RAISE: Spec = Spec {
    tracepoint: "stalltop_no_such_tracepoint",
    ..PROGRAMS[2]
};

#[test]
fn what_stalls_need_stays_attached_where_the_figures_come_from_proc() {
    require!(need::root());
    let mut programs: Vec<&'static Spec> = PROGRAMS.iter().collect();
    assert_eq!(programs[2].name, "softirq_raise");
    programs[2] = &NO_RAISE;
    let probes = Probes::load(&Options {
        programs,
        thresholds: Some(Thresholds::default()),
        ..Options::default()
    });
    let ids: Vec<u32> = probes.program_ids().collect();
    assert!(probes.is_attached("hrtimer_expire_entry") && ids.len() > 3);
    let env = Env::live();
    let mut cores = CoresCollector::new(&env, Duration::from_secs(1));
    cores.use_bpf(&env, probes);
    let mut sample = Sample::default();
    cores.collect(&mut sample).unwrap();
    assert_eq!(sample.cores.source, CoresSource::Proc);
    let there = |id: &u32| ids::open(ids::Object::Program, *id).is_ok();
    assert!(ids.iter().all(there), "{ids:?}");
    // They go with their owner, which the kernel sees to in the background.
    drop(cores);
    let until = Instant::now() + Duration::from_secs(20);
    while ids.iter().any(there) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!ids.iter().any(there), "{ids:?}");
}
