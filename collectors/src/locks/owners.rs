//! Who held a lock, and who waits for one: thread ids become names and stacks, after the fact.
//!
//! A thread of its own reads, and a window waits for it for [`PATIENCE`] at most.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stalltop_model::sample::LockStack;
use stalltop_model::{Name, Reason};

use crate::desk::Desk;
use crate::file;
use crate::stalls::process::{foreign, start_time};

/// How long a window waits for the facts about owners.
const PATIENCE: Duration = Duration::from_millis(50);
/// Frames of an owner's stack at most.
const FRAMES: usize = 32;

/// Facts about one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) pid: u32,
    pub(super) comm: Name,
    /// Its kernel stack, innermost function first.
    pub(super) frames: Vec<Name>,
}

/// Whom to look up: a thread, and since when it is known to have run (`CLOCK_BOOTTIME`, ns).
pub(super) type Whom = (u32, u64);

/// Looks threads up, on a thread of its own that is started when it is first needed.
pub(super) struct Owners {
    proc: PathBuf,
    desk: Option<Desk<Vec<Whom>, Vec<Fact>>>,
    /// Why nobody can be looked up.
    foreign: Option<Reason>,
}

impl Owners {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self {
            foreign: foreign(&proc),
            proc,
            desk: None,
        }
    }

    /// Fills who the owners of `stacks` are; of `most` of them at most, those of the first stacks.
    /// They ran at `at_ns` at the latest (`CLOCK_BOOTTIME`).
    ///
    /// # Errors
    /// As [`Owners::ask`].
    pub(super) fn fill(
        &mut self,
        stacks: &mut [LockStack],
        most: usize,
        at_ns: u64,
    ) -> Result<(), Reason> {
        let mut whom: Vec<Whom> = Vec::new();
        for owner in stacks.iter().flat_map(|stack| &stack.owners) {
            if whom.len() < most && !whom.contains(&(owner.pid, at_ns)) {
                whom.push((owner.pid, at_ns));
            }
        }
        for fact in self.ask(whom)? {
            let owners = stacks.iter_mut().flat_map(|stack| &mut stack.owners);
            for owner in owners.filter(|owner| owner.pid == fact.pid) {
                owner.comm = Name::clone(&fact.comm);
                owner.frames.clone_from(&fact.frames);
            }
        }
        Ok(())
    }

    /// Looks threads up. Those that are gone are left out, and those whose number another thread has
    /// since.
    ///
    /// # Errors
    /// Numbers say nothing here; or it takes longer than a window can wait.
    pub(super) fn ask(&mut self, whom: Vec<Whom>) -> Result<Vec<Fact>, Reason> {
        if let Some(why) = &self.foreign {
            return Err(why.clone());
        }
        if whom.is_empty() {
            return Ok(Vec::new());
        }
        if self.desk.is_none() {
            let proc = self.proc.clone();
            let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
            let look = move |whom: Vec<Whom>| -> Vec<Fact> {
                let facts = whom.into_iter();
                facts
                    .filter_map(|whom| fact(&proc, whom, tick_ns))
                    .collect()
            };
            self.desk = Desk::start("stalltop-owners", look).ok();
        }
        let answer = self.desk.as_mut().and_then(|desk| desk.ask(whom, PATIENCE));
        answer.ok_or_else(|| Reason::Busy {
            by: "whoever holds up reads of threads in /proc".into(),
        })
    }
}

/// What is known of a thread; `None` where there is none that ran then.
fn fact(proc: &Path, (pid, at_ns): Whom, tick_ns: u64) -> Option<Fact> {
    let folder = proc.join(pid.to_string());
    let read = |name: &str| file::read(&folder.join(name)).ok();
    let start = start_time(&read("stat")?)?;
    if start.saturating_mul(tick_ns) > at_ns {
        return None;
    }
    let comm = read("comm")?;
    let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
    Some(Fact {
        pid,
        comm: String::from_utf8_lossy(&comm[..comm.len().min(64)]).into(),
        frames: frames(&read("stack").unwrap_or_default()),
    })
}

/// The functions of a `/proc/PID/stack`: `[<0>] pipe_read+0x1a2/0x4e0`, with the module in
/// brackets behind (fs/proc/base.c, `proc_pid_stack`).
fn frames(text: &[u8]) -> Vec<Name> {
    let frame = |line: &[u8]| -> Option<Name> {
        let line = String::from_utf8_lossy(line);
        let (_, symbol) = line.split_once("] ")?;
        let (name, rest) = symbol.split_once('+').unwrap_or((symbol, ""));
        if name.is_empty() || name.len() > 512 {
            return None;
        }
        Some(match rest.split_once(" [") {
            Some((_, module)) => format!("{name} [{module}").into(),
            None => name.into(),
        })
    };
    file::lines(text).filter_map(frame).take(FRAMES).collect()
}

#[cfg(test)]
mod tests {
    use stalltop_model::sample::LockOwner;

    use super::*;

    #[test]
    fn stacks_of_proc_are_names() {
        let text = b"[<0>] pipe_read+0x1a2/0x4e0\n[<0>] nft_do_chain+0x10/0x20 [nf_tables]\n\
            [<0>] 0xffffffffffffffff\n\xff\xfe\n[<0>] \n";
        let frames = frames(text);
        let frames: Vec<&str> = frames.iter().map(|f| &**f).collect();
        assert_eq!(
            frames,
            [
                "pipe_read",
                "nft_do_chain [nf_tables]",
                "0xffffffffffffffff"
            ]
        );
    }

    #[test]
    fn owners_are_looked_up_as_far_as_they_are_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("42")).unwrap();
        std::fs::write(dir.path().join("42/comm"), "writer\n").unwrap();
        // It started at 100 s.
        let stat = format!("42 (a) b) R {}10000 0\n", "0 ".repeat(18));
        std::fs::write(dir.path().join("42/stat"), stat).unwrap();
        std::fs::write(dir.path().join("42/stack"), "[<0>] pipe_write+0x1/0x2\n").unwrap();
        let owner = |pid| LockOwner {
            pid,
            comm: Name::default(),
            count: 1,
            frames: Vec::new(),
        };
        let mut stacks = [stack(vec![owner(42), owner(43)])];
        let mut owners = Owners::new(dir.path().to_owned());
        // Then it was another one's number.
        assert_eq!(owners.ask(vec![(42, 99_999_999_999)]), Ok(Vec::new()));
        assert_eq!(owners.fill(&mut stacks, 8, 100_000_000_000), Ok(()));
        let [known, gone] = &stacks[0].owners[..] else {
            panic!("two");
        };
        assert_eq!((&*known.comm, &*known.frames[0]), ("writer", "pipe_write"));
        assert!(gone.comm.is_empty() && gone.frames.is_empty());
    }

    #[test]
    fn numbers_of_another_namespace_name_nobody() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("self/ns")).unwrap();
        std::os::unix::fs::symlink("pid:[4026532000]", dir.path().join("self/ns/pid")).unwrap();
        std::fs::create_dir(dir.path().join("42")).unwrap();
        std::fs::write(dir.path().join("42/comm"), "another\n").unwrap();
        let why = Owners::new(dir.path().to_owned()).ask(vec![(42, u64::MAX)]);
        let why = why.unwrap_err().to_string();
        assert!(why.contains("PID namespace"), "{why}");
    }

    fn stack(owners: Vec<LockOwner>) -> LockStack {
        LockStack {
            kind: stalltop_model::sample::LockKind::Mutex,
            lock: 0,
            name: stalltop_model::Reading::default(),
            frames: Vec::new(),
            programs: Vec::new(),
            tgid: 1,
            comm: Name::default(),
            waits: Default::default(),
            long: Default::default(),
            sampled: 0,
            owners,
        }
    }
}
