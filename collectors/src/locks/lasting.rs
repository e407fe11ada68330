//! Waits that last: who waits for which lock, since when, and who held it then.
//!
//! The tracepoints tell of a wait when it ends. Until then the kernel side knows when it began, of
//! which thread and for which lock; the thread's name and stack are looked up in `/proc`, as it
//! sleeps.

use std::time::Duration;

use stalltop_model::sample::{Lasting, LockKind, LockOwner};
use stalltop_model::{Name, Reading, Reason};
use stalltop_probes::LockWait;
use stalltop_probes::wire::lock::what;

use super::owners::{Owners, Whom};
use crate::stalls::attribute::ids;
use crate::stalls::stack;

/// From when on a wait lasts.
pub(super) const LEAST: Duration = Duration::from_millis(100);
/// Most locks of a window.
const MAX_LOCKS: usize = 16;
/// Most of these whose waiter and owner are looked up.
const LOOKED_UP: usize = 4;

/// Groups waits that last by lock, the longest first. `begin_ns` of `waits` counts from another
/// clock's zero: `CLOCK_BOOTTIME` is `ahead_ns` more.
pub(super) fn group(waits: &[LockWait], ahead_ns: u64) -> Vec<Lasting> {
    let mut out: Vec<Lasting> = Vec::new();
    let mut sorted: Vec<&LockWait> = waits.iter().collect();
    sorted.sort_unstable_by_key(|wait| (wait.begin_ns, wait.pid_tgid, wait.lock));
    for wait in sorted {
        let kind = usize::try_from(wait.what & what::KIND_MASK).unwrap_or(usize::MAX);
        let Some(kind) = LockKind::ALL.get(kind) else {
            continue;
        };
        if let Some(known) = out.iter_mut().find(|known| known.address == wait.lock) {
            known.threads += 1;
            continue;
        }
        let (pid, tgid) = ids(wait.pid_tgid);
        let owner = u32::try_from(wait.owner).ok().filter(|pid| *pid != 0);
        out.push(Lasting {
            kind: *kind,
            address: wait.lock,
            name: Reading::default(),
            threads: 1,
            since_ns: wait.begin_ns.saturating_add(ahead_ns),
            pid,
            tgid,
            comm: Name::default(),
            frames: Vec::new(),
            owner: owner.map(|pid| LockOwner {
                pid,
                comm: Name::default(),
                count: 1,
                frames: Vec::new(),
            }),
        });
    }
    out.truncate(MAX_LOCKS);
    out
}

/// Says of the first ones who waits where, and who held the lock; and what each lock is called.
/// What is not to be had in time is as it was in the window `before`.
///
/// # Errors
/// As [`Owners::ask`]: then the rest is filled all the same.
pub(super) fn look_up(
    lasting: &mut [Lasting],
    before: &[Lasting],
    owners: &mut Owners,
    name: &mut dyn FnMut(u64) -> Reading<Name>,
) -> Result<(), Reason> {
    let first = lasting.iter().take(LOOKED_UP);
    // Whoever waits, and whoever held the lock then, ran when the wait began.
    let whom = first.flat_map(|l| {
        let owner = l.owner.as_ref().map(|o| (o.pid, l.since_ns));
        [Some((l.pid, l.since_ns)), owner]
    });
    let mut whom: Vec<Whom> = whom.flatten().collect();
    whom.sort_unstable();
    whom.dedup_by_key(|(pid, _)| *pid);
    let (facts, asked) = match owners.ask(whom) {
        Ok(facts) => (facts, Ok(())),
        Err(why) => (Vec::new(), Err(why)),
    };
    for of in lasting {
        let fact = |pid: u32| facts.iter().find(|fact| fact.pid == pid);
        if let Some(fact) = fact(of.pid) {
            of.comm = Name::clone(&fact.comm);
            of.frames.clone_from(&fact.frames);
        }
        if let Some(owner) = &mut of.owner
            && let Some(fact) = fact(owner.pid)
        {
            owner.comm = Name::clone(&fact.comm);
            owner.frames.clone_from(&fact.frames);
        }
        let same = |known: &&Lasting| (known.address, known.pid) == (of.address, of.pid);
        if of.comm.is_empty()
            && let Some(known) = before.iter().find(same)
        {
            of.comm = Name::clone(&known.comm);
            of.frames.clone_from(&known.frames);
            of.owner.clone_from(&known.owner);
        }
        of.name = name(of.address);
        if of.name.value().is_none()
            && let Some(site) = stack::site(&of.frames)
        {
            of.name = Reading::Value(format!("of {site}").into());
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use stalltop_probes::wire::lock::kind;

    use super::*;

    fn wait(lock: u64, pid: u64, begin_ns: u64, owner: u64) -> LockWait {
        LockWait {
            lock,
            begin_ns,
            what: kind::RWSEM_WRITE | what::SAMPLED,
            owner,
            pid_tgid: 40 << 32 | pid,
            ..LockWait::ZERO
        }
    }

    #[test]
    fn who_waits_longest_stands_for_all_of_a_lock() {
        let waits = [
            wait(1, 41, 500, 9),
            wait(2, 43, 300, 0),
            wait(1, 42, 100, 7),
        ];
        let [first, second] = &group(&waits, 1_000)[..] else {
            panic!("two locks");
        };
        assert_eq!(
            (first.address, first.threads, first.since_ns),
            (1, 2, 1_100)
        );
        assert_eq!((first.pid, first.tgid), (42, 40));
        assert_eq!(first.owner.as_ref().map(|owner| owner.pid), Some(7));
        assert_eq!((second.address, second.pid, &second.owner), (2, 43, &None));
        assert_eq!(first.kind, LockKind::RwsemWrite);
    }

    #[test]
    fn a_lock_is_called_by_its_variable_else_by_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("42")).unwrap();
        std::fs::write(dir.path().join("42/comm"), "writer\n").unwrap();
        let stat = format!("42 (writer) D {}0 0\n", "0 ".repeat(18));
        std::fs::write(dir.path().join("42/stat"), stat).unwrap();
        let text = "[<0>] rwsem_down_write_slowpath+0x1/0x2\n[<0>] vm_mmap_pgoff+0x1/0x2\n";
        std::fs::write(dir.path().join("42/stack"), text).unwrap();
        let mut lasting = group(&[wait(1, 42, 100, 0), wait(2, 43, 200, 0)], 0);
        let mut owners = Owners::new(dir.path().to_owned());
        let mut name = |lock| match lock {
            2 => Reading::Value("tasklist_lock".into()),
            _ => Reading::default(),
        };
        look_up(&mut lasting, &[], &mut owners, &mut name).unwrap();
        let names: Vec<_> = lasting.iter().filter_map(|l| l.name.value()).collect();
        assert_eq!(
            names.iter().map(|n| &***n).collect::<Vec<_>>(),
            ["of vm_mmap_pgoff", "tasklist_lock"]
        );
        assert_eq!(&*lasting[0].comm, "writer");
        assert!(lasting[1].comm.is_empty());
        // Held up, it is as it was.
        let mut again = group(&[wait(1, 42, 100, 0)], 0);
        let mut nobody = Owners::new(dir.path().join("nowhere"));
        look_up(&mut again, &lasting, &mut nobody, &mut name).unwrap();
        assert_eq!((&*again[0].comm, again[0].frames.len()), ("writer", 2));
    }
}
