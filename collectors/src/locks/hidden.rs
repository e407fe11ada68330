//! Which waits the tracepoints do not show on this machine.

use stalltop_model::Reason;
use stalltop_model::sample::{Hidden, LockKind};

use super::contend::Tried;
use crate::env::KernelVersion;

/// From this version on BPF maps have locks of another kind (`rqspinlock`, kernel/bpf/rqspinlock.c),
/// whose waits were not seen at the tracepoints.
const BPF_LOCKS: KernelVersion = KernelVersion(6, 15);

/// What was found out about this machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Its kernel.
    pub kernel: KernelVersion,
    /// Whether it is virtual.
    pub virtual_machine: bool,
    /// CPUs that this process may use.
    pub cpus: usize,
}

/// What is hidden, by what contending locks of our own has shown.
pub fn hidden(machine: &Machine, tried: &[Tried]) -> Vec<Hidden> {
    let mut hidden = Vec::new();
    let row = |what: &str, kinds: &[LockKind], waits: &str, why: &str, mend: &str| Hidden {
        what: what.into(),
        kinds: kinds.to_vec(),
        why: Reason::HiddenWaits {
            what: waits.into(),
            why: why.into(),
            mend: mend.into(),
        },
    };
    let of = |kind| tried.iter().find(|tried| tried.kind == kind);
    match of(LockKind::Spin) {
        // Test-and-set instead of a queue, which has no tracepoint (`virt_spin_lock`,
        // arch/x86/include/asm/qspinlock.h).
        Some(Tried { shows: false, .. }) if machine.virtual_machine => hidden.push(row(
            "spinlocks",
            &[LockKind::Spin],
            "spin waits",
            "virtual, no paravirtual spinlocks",
            "let the hypervisor offer paravirtual spinlocks (KVM: kvm-pv-unhalt on, \
             kvm-hint-dedicated off), and boot without nopvspin",
        )),
        Some(Tried { shows: false, .. }) if machine.cpus <= 2 => hidden.push(row(
            "spinlocks",
            &[LockKind::Spin],
            "spin waits",
            "on 2 CPUs nobody but the first waiter waits, which the kernel does not tell",
            "",
        )),
        Some(Tried { shows: false, .. }) => hidden.push(row(
            "spinlocks",
            &[LockKind::Spin],
            "spin waits",
            "contending one of our own showed none",
            "",
        )),
        // The first waiter spins outside the queue (kernel/locking/qspinlock.c, the pending bit),
        // but with paravirtual spinlocks, where all are in it.
        _ if !machine.virtual_machine => hidden.push(row(
            "the first waiter of a spinlock",
            &[],
            "waits of a spinlock's first waiter",
            "it waits outside the queue",
            "",
        )),
        _ => {}
    }
    if machine.kernel >= BPF_LOCKS {
        hidden.push(row(
            "locks of BPF maps",
            &[],
            "waits for locks of BPF maps",
            "their own kind of spinlock since 6.15 does not tell",
            "",
        ));
    }
    for (kind, what, waits) in [
        (LockKind::Mutex, "mutexes", "waits for mutexes"),
        (LockKind::RwsemWrite, "rwsems", "waits for rw_semaphores"),
    ] {
        if of(kind).is_some_and(|tried| !tried.shows) && machine.cpus > 2 {
            hidden.push(row(
                what,
                &[],
                waits,
                "contending one of our own showed none",
                "",
            ));
        }
    }
    hidden.push(row(
        "rwsem writers that spin",
        &[],
        "waits of rw_semaphore writers that get the lock while they spin",
        "the kernel tells of those alone that go to sleep",
        "",
    ));
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(virtual_machine: bool, cpus: usize) -> Machine {
        Machine {
            kernel: KernelVersion(6, 12),
            virtual_machine,
            cpus,
        }
    }

    fn tried(shows: bool) -> Vec<Tried> {
        vec![Tried {
            kind: LockKind::Spin,
            shows,
            threads: 2,
        }]
    }

    fn told(machine: &Machine, tried: &[Tried]) -> Vec<(String, usize)> {
        let hidden = hidden(machine, tried);
        let told = hidden.iter().map(|h| (h.what.to_string(), h.kinds.len()));
        told.collect()
    }

    #[test]
    fn a_virtual_machine_without_paravirtual_spinlocks_says_so() {
        let hidden = hidden(&machine(true, 4), &tried(false));
        assert_eq!(
            hidden[0].why.to_string(),
            "spin waits are not visible on this machine (virtual, no paravirtual spinlocks): \
             sample share shown instead"
        );
        assert!(hidden[0].why.fix().contains("paravirtual"));
        assert_eq!(hidden[0].kinds, [LockKind::Spin]);
    }

    #[test]
    fn what_shows_is_not_hidden() {
        let spinning = ("rwsem writers that spin".to_owned(), 0);
        assert_eq!(
            told(&machine(true, 4), &tried(true)),
            std::slice::from_ref(&spinning)
        );
        let first = ("the first waiter of a spinlock".to_owned(), 0);
        assert_eq!(
            told(&machine(false, 48), &tried(true)),
            [first.clone(), spinning.clone()]
        );
        // Not tried: what the kernel is known not to tell.
        assert_eq!(told(&machine(false, 1), &[]), [first, spinning]);
    }

    #[test]
    fn two_cpus_of_metal_have_no_second_waiter() {
        let rows = told(&machine(false, 2), &tried(false));
        assert_eq!(rows[0], ("spinlocks".to_owned(), 1));
    }

    #[test]
    fn newer_kernels_hide_the_locks_of_maps() {
        let mut machine = machine(true, 4);
        machine.kernel = KernelVersion(6, 18);
        assert_eq!(told(&machine, &tried(true))[0].0, "locks of BPF maps");
    }
}
