use proptest::prelude::*;
use stalltop_model::Reason;
use stalltop_model::sample::StallKind;

use super::*;

const MS: u64 = 1_000_000;

/// A stall in the middle of which its culprit was in, or about to leave, a lock function.
fn stall(cpu: u32, pid: u32, from_ns: u64, to_ns: u64, waits: bool, site: &str) -> Told {
    let delay = to_ns - from_ns;
    let lock = if waits {
        "native_queued_spin_lock_slowpath"
    } else {
        "_raw_spin_unlock_irq"
    };
    Told {
        stall: Stall {
            at_ns: to_ns,
            cpu,
            kind: StallKind::InterruptsOff,
            delay_ns: delay,
            least_ns: delay,
            most_ns: delay,
            culprit: Reading::Value(Culprit {
                pid,
                tgid: pid,
                lock: Some(lock.into()),
                lock_suspected: !waits,
                ..Culprit::default()
            }),
            ..Stall::default()
        },
        waits,
        site: Some(site.into()),
    }
}

fn holder() -> Told {
    stall(0, 10, 100 * MS, 120 * MS, false, "pagetypeinfo_show")
}

fn rows(told: Vec<Told>) -> Vec<Stall> {
    let mut rows = Vec::new();
    merge(told, &mut rows);
    rows
}

fn merged(victim: Told) -> bool {
    let both = rows(vec![holder(), victim.clone()]);
    // The order in which they are told does not matter.
    assert_eq!(rows(vec![victim, holder()]).len(), both.len());
    both.len() == 1
}

#[test]
fn a_victim_that_waited_goes_into_its_holders_row() {
    let waited = stall(1, 20, 105 * MS, 121 * MS, true, "rmqueue_bulk");
    // It ends a millisecond later at another place: not enough.
    assert!(!merged(waited));
    let waited = stall(1, 20, 105 * MS, 120 * MS + MS / 10, true, "rmqueue_bulk");
    let rows = rows(vec![
        waited.clone(),
        holder(),
        stall(
            2,
            30,
            110 * MS,
            120 * MS + MS / 5,
            true,
            "free_pcppages_bulk",
        ),
    ]);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].cpu, &rows[0].victims[..]), (0, &[1, 2][..]));
    // At the same place a little more time is given to do what the lock was for.
    assert!(merged(stall(
        1,
        20,
        105 * MS,
        121 * MS,
        true,
        "pagetypeinfo_show"
    )));
}

#[test]
fn two_that_were_seen_letting_interrupts_in_merge_by_place_and_time() {
    let victim =
        |after_us: u64, site| stall(1, 20, 105 * MS, 120 * MS + after_us * 1_000, false, site);
    assert!(merged(victim(280, "pagetypeinfo_show")));
    assert!(!merged(victim(400, "pagetypeinfo_show")));
    // A page was allocated: the same lock, taken elsewhere.
    assert!(merged(victim(71, "__rmqueue_pcplist")));
    assert!(!merged(victim(150, "__rmqueue_pcplist")));
}

#[test]
fn who_began_first_is_no_victim() {
    let mut first = stall(1, 20, 90 * MS, 120 * MS + MS / 20, false, "x");
    assert!(!merged(first.clone()));
    // As far as its start is known, it may have begun later.
    first.stall.delay_ns = 24 * MS;
    first.stall.least_ns = 18 * MS;
    assert!(merged(first));
}

#[test]
fn the_unrelated_stays_apart() {
    let good = || stall(1, 20, 105 * MS, 120 * MS + 1, true, "pagetypeinfo_show");
    assert!(merged(good()));
    let apart = |change: &dyn Fn(&mut Told)| {
        let mut victim = good();
        change(&mut victim);
        !merged(victim)
    };
    let culprit = |told: &mut Told, change: &dyn Fn(&mut Culprit)| {
        if let Reading::Value(culprit) = &mut told.stall.culprit {
            change(culprit);
        }
    };
    assert!(apart(&|v| v.stall.cpu = 0));
    assert!(apart(&|v| v.stall.pause = Pause::Either));
    assert!(apart(&|v| v.stall.pause = Pause::Paused));
    assert!(apart(&|v| culprit(v, &|c| c.lock = None)));
    assert!(apart(&|v| culprit(v, &|c| c.pid = 10)));
    assert!(apart(&|v| v.stall.culprit = Reading::Off(Reason::NotAsked)));
    // It began long before, or ended long before or after.
    assert!(apart(&|v| {
        v.stall.delay_ns = 60 * MS;
        v.stall.least_ns = 60 * MS;
    }));
    assert!(apart(&|v| v.stall.at_ns = 119 * MS));
    assert!(apart(&|v| v.stall.at_ns = 123 * MS));
}

#[test]
fn two_that_may_hold_it_leave_the_victim_a_row_of_its_own() {
    let other = stall(2, 40, 100 * MS, 120 * MS, false, "other_site");
    let victim = stall(1, 20, 105 * MS, 120 * MS + 1, true, "rmqueue_bulk");
    let rows = rows(vec![holder(), other, victim]);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.victims.is_empty()));
}

#[test]
fn two_waiters_without_a_holder_stay() {
    let one = stall(1, 20, 100 * MS, 120 * MS, true, "x");
    let two = stall(2, 30, 100 * MS, 120 * MS, true, "x");
    assert_eq!(rows(vec![one, two]).len(), 2);
}

#[test]
fn a_chain_is_not_merged_into_what_is_gone() {
    // The third waited for the second, by all that is known, and the second for the first.
    let site = "pagetypeinfo_show";
    let second = stall(1, 20, 105 * MS, 120 * MS + MS / 4, false, site);
    let third = stall(2, 30, 110 * MS, 120 * MS + MS / 2, false, site);
    let rows = rows(vec![holder(), second, third]);
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].cpu, &rows[0].victims[..]), (0, &[1][..]));
    assert_eq!(rows[1].cpu, 2);
}

proptest! {
    /// Whatever comes, each stall comes out once: as a row or as a victim.
    #[test]
    fn none_is_lost(
        many in proptest::collection::vec(
            (0u32..6, 0u32..5, any::<(u16, u16)>(), any::<bool>(), 0u8..3), 0..30
        ),
        huge: bool,
    ) {
        let base = if huge { u64::MAX - (1 << 40) } else { 0 };
        let told: Vec<Told> = many
            .iter()
            .enumerate()
            .map(|(n, (cpu, pid, (from, length), waits, site))| {
                let from = base + u64::from(*from) * 1_000;
                let to = from + u64::from(*length) * 1_000;
                // A CPU of its own for each, to count them by.
                stall(n as u32 * 8 + cpu, *pid, from, to, *waits, &site.to_string())
            })
            .collect();
        let count = told.len();
        let out = rows(told);
        let victims: usize = out.iter().map(|row| row.victims.len()).sum();
        prop_assert_eq!(out.len() + victims, count);
    }
}
