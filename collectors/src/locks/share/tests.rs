use proptest::prelude::*;

use super::*;
use crate::stalls::kallsyms::Table;

const TEXT: &str = "\
ffffffff81000000 t native_queued_spin_lock_slowpath
ffffffff81001000 t _raw_spin_lock_irqsave
ffffffff81002000 t htab_map_update_elem
ffffffff81003000 t _raw_spin_unlock_irqrestore
ffffffff81004000 t do_epoll_wait
ffffffff81005000 t do_syscall_64
ffffffff81006000 t delay_tsc
ffffffff81007000 t finish_task_switch.isra.0
";
const COMM: [u64; 2] = [u64::from_ne_bytes(*b"proxy\0\0\0"), 0];
/// `popf` right before the interrupted instruction, and long before.
const POPF: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0x57, 0x9d]);
const LATER: u64 = u64::from_ne_bytes([0x9d, 1, 1, 1, 1, 1, 1, 1]);

fn at(function: u64) -> u64 {
    0xffff_ffff_8100_0010 + function * 0x1000
}

fn sample(functions: &[u64], flags: u64) -> StackSample {
    let mut sample = StackSample {
        seq: 1,
        pid_tgid: 9 << 32 | 10,
        comm: COMM,
        flags: flags | flag::REGS,
        ip: functions.first().map_or(0, |f| at(*f)),
        frames: functions.len() as u64,
        ..StackSample::ZERO
    };
    for (frame, function) in sample.stack.iter_mut().zip(functions) {
        *frame = at(*function);
    }
    sample
}

fn shared(cpus: &[(u32, Vec<StackSample>)]) -> LockShare {
    let mut symbols = Symbols::of(Table::read(TEXT.as_bytes()).unwrap());
    let (mut known, mut counting) = (Known::default(), Counting::default());
    for (cpu, samples) in cpus {
        counting.count(*cpu, samples, &mut known, &mut symbols);
    }
    counting.finish(Some(250), &known)
}

#[test]
fn samples_in_a_slow_path_are_in_a_lock() {
    let user = sample(&[], flag::USER);
    let share = shared(&[
        (0, vec![sample(&[0, 1, 2], 0), sample(&[0, 1, 2], 0), user]),
        (3, vec![sample(&[6, 0, 1, 2], 0), sample(&[2, 4, 5], 0)]),
    ]);
    assert_eq!(
        (share.samples, share.kernel, share.in_lock, share.suspected),
        (5, 4, 3, 0)
    );
    assert_eq!(share.cpus, [(0, 3, 2, 0), (3, 2, 1, 0)]);
    assert_eq!(&*share.source, "the scheduler's tick (250 Hz)");
    let first = &share.stacks[0];
    assert_eq!(
        (&*first.function, first.samples),
        ("native_queued_spin_lock_slowpath", 2)
    );
    assert_eq!((first.tgid, &*first.comm), (9, "proxy"));
    assert_eq!(first.frames.len(), 3);
    // What the slow path had called is not the lock's function.
    assert_eq!(
        &*share.stacks[1].function,
        "native_queued_spin_lock_slowpath"
    );
    assert_eq!(share.stacks[1].frames.len(), 4);
}

#[test]
fn interrupts_that_come_back_on_are_a_suspicion() {
    // By the unlocking function; by the instruction, where that is inlined; not by the entry of
    // a system call or a switch of tasks.
    let mut inlined = sample(&[4, 5], 0);
    inlined.code = POPF;
    let mut entry = sample(&[5], 0);
    entry.code = POPF;
    let mut switch = sample(&[7, 5], 0);
    switch.code = POPF;
    let share = shared(&[(0, vec![sample(&[3, 2, 5], 0), inlined, entry, switch])]);
    assert_eq!((share.samples, share.in_lock, share.suspected), (4, 0, 2));
    assert!(share.stacks.iter().all(|stack| stack.suspected));
    let functions: Vec<&str> = share.stacks.iter().map(|s| &*s.function).collect();
    assert!(
        functions.contains(&"_raw_spin_unlock_irqrestore"),
        "{functions:?}"
    );
    assert!(functions.contains(&"do_epoll_wait"), "{functions:?}");
}

#[test]
fn who_was_not_kept_waiting_is_no_suspicion() {
    let mut unlocked = sample(&[3, 2, 5], 0);
    unlocked.code = LATER;
    let mut elsewhere = sample(&[4, 5], 0);
    elsewhere.code = LATER;
    let share = shared(&[(0, vec![unlocked, elsewhere])]);
    assert_eq!((share.kernel, share.suspected), (2, 0));
}

#[test]
fn our_own_programs_are_no_suspicion() {
    let mut symbols = Symbols::of(Table::read(TEXT.as_bytes()).unwrap());
    let (mut known, mut counting) = (Known::default(), Counting::default());
    // A program of ours lies at 8, where the table knows of none; 3 is a helper.
    known.own(Code::of(vec![(at(8) - 0x10, 0x100)]));
    let mut own = sample(&[8, 4, 5], 0);
    own.code = POPF;
    let samples = [
        own,
        sample(&[3, 8, 4, 5], 0),
        // Who waits while our tracer tells of it waits.
        sample(&[8, 0, 1, 2], 0),
        sample(&[3, 8, 0, 1, 2], 0),
        // The same helper, of somebody else.
        sample(&[3, 2, 5], 0),
    ];
    counting.count(0, &samples, &mut known, &mut symbols);
    let share = counting.finish(Some(250), &known);
    assert_eq!((share.in_lock, share.suspected), (2, 1));
    let waits = share.stacks.iter().find(|stack| !stack.suspected).unwrap();
    assert_eq!((waits.samples, waits.frames.len()), (2, 3));
    assert_eq!(&*waits.function, "native_queued_spin_lock_slowpath");
}

#[test]
fn non_maskable_samples_stand_alone() {
    let nmi = flag::SAMPLER | flag::NMI;
    let share = shared(&[
        (
            0,
            vec![
                sample(&[3, 2], 0),
                sample(&[0, 1, 2], nmi),
                sample(&[3, 2], nmi),
            ],
        ),
        (1, vec![sample(&[3, 2], 0)]),
    ]);
    assert!(share.nmi);
    assert_eq!((share.samples, share.in_lock, share.suspected), (2, 1, 0));
}

#[test]
fn the_sampler_counts_where_it_ran_everywhere() {
    let sampled = || vec![sample(&[0, 1], flag::SAMPLER); 4];
    let ticks = || vec![sample(&[2, 4], 0)];
    let both = [sampled(), ticks()].concat();
    let share = shared(&[(0, both.clone()), (1, both.clone())]);
    assert_eq!(
        (&*share.source, share.samples, share.in_lock),
        ("1 kHz cpu-clock", 8, 8)
    );
    // Elsewhere rates differ, and are not added up.
    let share = shared(&[(0, both), (1, ticks())]);
    assert_eq!((share.samples, share.in_lock), (2, 0));
}

#[test]
fn a_sample_without_a_stack_has_its_instruction() {
    let mut bare = sample(&[0], 0);
    bare.frames = NONE;
    let share = shared(&[(0, vec![bare])]);
    assert_eq!(
        (share.kernel, share.in_lock, share.stacks[0].frames.len()),
        (1, 1, 1)
    );
}

#[test]
fn no_samples_are_no_share() {
    let share = shared(&[]);
    assert_eq!((share.samples, share.stacks.len()), (0, 0));
}

#[test]
fn the_worst_cpus_come_first() {
    let mut symbols = Symbols::of(Table::read(TEXT.as_bytes()).unwrap());
    let (mut known, mut counting) = (Known::default(), Counting::default());
    for (cpu, n) in [(0, 1), (1, 0), (2, 5)] {
        let samples = [vec![sample(&[0, 1], 0); n], vec![sample(&[2], 0)]].concat();
        counting.count(cpu, &samples, &mut known, &mut symbols);
    }
    assert_eq!(counting.busy(), [2, 0, 1]);
}

proptest! {
    #[test]
    fn anything_is_counted(
        words in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 0..60),
    ) {
        let samples = words.iter().map(|(ip, flags, frames, address)| StackSample {
            ip: *ip,
            code: *frames,
            flags: *flags,
            frames: if frames % 3 == 0 { NONE } else { *frames },
            pid_tgid: *address,
            comm: [*ip, *flags],
            stack: [*address; FRAMES],
            ..StackSample::ZERO
        });
        let share = shared(&[(0, samples.collect())]);
        prop_assert!(share.in_lock + share.suspected <= share.kernel);
        prop_assert!(share.kernel <= share.samples && share.samples <= words.len() as u64);
    }
}
