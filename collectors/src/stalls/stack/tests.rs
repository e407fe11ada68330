use proptest::prelude::*;

use super::*;

const RECORDED: &str = "6.18.txt";
const CONSTRUCTED: &str = "constructed.txt";

fn fixture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/stacks");
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

/// A stack as the fixtures write it: outermost first, `_[` for the blank before a module.
fn outside_in(text: &str) -> Vec<Name> {
    let frames = text.split_whitespace().rev();
    frames.map(|f| f.replace("_[", " [").into()).collect()
}

fn read(text: &str) -> Stack {
    Stack::read(&outside_in(text), false)
}

/// What a stack says, in the fixtures' words.
fn said(stack: &Stack) -> String {
    let or_none = |name: Option<&str>| name.unwrap_or("-").to_owned();
    let entered = match stack.vector {
        Some(vector) => vector.as_str().to_owned(),
        None => or_none(stack.syscall.as_deref()),
    };
    let lock = match stack.lock.as_deref() {
        Some(lock) if stack.waits => format!("waits:{lock}"),
        Some(lock) => format!("reopens:{lock}"),
        None => "-".to_owned(),
    };
    format!("{entered}\t{}\t{lock}", or_none(stack.function.as_deref()))
}

#[test]
fn recorded_and_constructed_stacks_say_what_a_person_would() {
    let mut wrong = String::new();
    for name in [RECORDED, CONSTRUCTED] {
        let text = fixture(name);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let (expected, frames) = line.rsplit_once('\t').unwrap();
            let said = said(&read(frames));
            if said != expected {
                wrong.push_str(&format!("{said}\n  not {expected}\n  {frames}\n"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_stack_begins_with_the_interrupted_function() {
    // As the tick's program records it: its own frames, the trace point's, the interrupt's.
    let stack = read(
        "do_syscall_64 ksys_read vfs_read asm_sysvec_apic_timer_interrupt \
         sysvec_apic_timer_interrupt __sysvec_apic_timer_interrupt hrtimer_interrupt \
         __hrtimer_run_queues 0xffffffffc0400010 0xffffffffc0300020",
    );
    assert_eq!(&*stack.frames[0], "vfs_read");
    // As a perf event's program records it: somebody's BPF program was interrupted.
    let stack = read("do_syscall_64 __sys_bpf bpf_test_run bpf_prog_0123456789abcdef_x_[bpf]");
    assert_eq!(&*stack.frames[0], "bpf_prog_0123456789abcdef_x [bpf]");
    assert_eq!(stack.frames.len(), 4);
    // User space was interrupted.
    assert_eq!(
        read("asm_sysvec_apic_timer_interrupt sysvec_apic_timer_interrupt hrtimer_interrupt"),
        Stack::default()
    );
}

#[test]
fn a_softirq_has_its_own_frames_only() {
    let stack = read(
        "do_syscall_64 __x64_sys_sendto udp_sendmsg __local_bh_enable_ip do_softirq.part.0 \
         handle_softirqs net_rx_action __napi_poll process_backlog",
    );
    assert!(stack.softirq);
    assert_eq!(stack.syscall, None);
    assert_eq!(&**stack.frames.last().unwrap(), "handle_softirqs");
    // Too deep to show where the softirq began.
    let deep = Stack::read(
        &outside_in("ip_local_deliver nf_hook_slow nft_do_chain"),
        true,
    );
    assert_eq!(deep.function.as_deref(), Some("nft_do_chain"));
    assert!(deep.softirq && deep.syscall.is_none());
}

#[test]
fn the_site_of_a_lock_is_its_caller() {
    let stack = read(
        "ksys_read memory_stat_show cgroup_rstat_flush _raw_spin_lock_irq \
                      native_queued_spin_lock_slowpath",
    );
    assert_eq!(stack.site.as_deref(), Some("cgroup_rstat_flush"));
    assert!(stack.waits && !stack.reopens);
    // Only trying is not waiting.
    assert_eq!(read("ksys_read foo _raw_spin_trylock").lock, None);
}

#[test]
fn bare_addresses_and_nothing_have_no_function() {
    assert_eq!(read(""), Stack::default());
    let stack = read("0xffffffff81000000 0xffffffff81000010");
    assert_eq!((stack.function, stack.frames.len()), (None, 2));
}

proptest! {
    #[test]
    fn no_frames_panic(frames in proptest::collection::vec(".{0,12}", 0..60), softirq: bool) {
        let frames: Vec<Name> = frames.into_iter().map(Name::from).collect();
        Stack::read(&frames, softirq);
    }

    #[test]
    fn known_names_in_any_order_do_not_panic(
        picks in proptest::collection::vec(0usize..400, 0..60), softirq: bool
    ) {
        let text = fixture(CONSTRUCTED);
        let known: Vec<&str> = text.split_whitespace().collect();
        let frames: Vec<Name> = picks.iter().map(|n| known[n % known.len()].into()).collect();
        let stack = Stack::read(&frames, softirq);
        prop_assert!(stack.frames.len() <= frames.len());
    }
}
