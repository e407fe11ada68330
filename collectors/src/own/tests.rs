use proptest::prelude::*;
use stalltop_model::sample::ProgramHealth;

use super::*;

#[test]
fn our_own_process_costs_something() {
    let mut own = OwnCollector::new(&Env::live());
    let mut sample = Sample::default();
    own.collect(&mut sample).unwrap();
    let before = sample.own.cpu_ns;
    assert!(sample.own.rss_bytes > 100_000, "{}", sample.own.rss_bytes);
    let mut n = 0u64;
    while nanoseconds(ClockId::ProcessCPUTime) < before + 2_000_000 {
        n = std::hint::black_box(n + 1);
    }
    own.collect(&mut sample).unwrap();
    assert!(sample.own.cpu_ns >= before + 2_000_000);
}

fn program(name: &str, runs: u64) -> ProgramHealth {
    ProgramHealth {
        name: name.into(),
        hook: "irq:softirq_entry".into(),
        attached: Reading::Value(7),
        instead: "".into(),
        runs: Reading::Value(runs),
        ns_per_run: Reading::Off(Reason::Starting),
    }
}

#[test]
fn runs_are_paid_at_the_price_of_their_time() {
    let mut own = OwnCollector::new(&Env::live());
    let mut sample = Sample::default();
    sample.own.programs = vec![program("entry", 1_000), program("irq", 10)];
    own.collect(&mut sample).unwrap();
    assert_eq!(sample.own.probe_ns, Reading::Off(Reason::Starting));

    let costs = |entry| ProbeCosts {
        ns_per_run: Reading::Value(vec![entry, 0]),
        drops: Reading::Value(3),
    };
    own.set_costs(costs(60));
    own.collect(&mut sample).unwrap();
    // `irq` ran in no window: it is counted at the mean, but its own price stays unknown.
    assert_eq!(sample.own.probe_ns, Reading::Value(1_010 * 60));
    assert_eq!(sample.own.drops, Reading::Value(3));
    assert_eq!(sample.own.programs[0].ns_per_run, Reading::Value(60));
    assert_eq!(sample.own.programs[1].ns_per_run.get(), None);

    own.set_costs(costs(50));
    sample.own.programs[0].runs = Reading::Value(2_000);
    own.collect(&mut sample).unwrap();
    assert_eq!(sample.own.probe_ns, Reading::Value(1_010 * 60 + 1_000 * 50));
}

#[test]
fn what_is_not_attached_costs_nothing_that_is_known() {
    let mut own = OwnCollector::new(&Env::live());
    let mut sample = Sample::default();
    let mut off = program("entry", 0);
    off.attached = Reading::Off(Reason::NoBtf);
    sample.own.programs = vec![off];
    own.collect(&mut sample).unwrap();
    assert_eq!(sample.own.probe_ns, Reading::Off(Reason::NoBtf));
    assert_eq!(sample.own.drops, Reading::Off(Reason::NoBtf));
}

proptest! {
    #[test]
    fn statm_never_panics(bytes: Vec<u8>) {
        let _ = parse_statm_resident(&bytes);
    }
}
