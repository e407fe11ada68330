//! Who held a lock, and who waits for one: thread ids become names and stacks, after the fact.
//!
//! A read of `/proc/PID/stack` may block for as long as that process holds a lock of its own
//! (`exec_update_lock`, fs/proc/base.c). So a thread of its own reads, and a window waits for it
//! for [`PATIENCE`] at most: what comes later belongs to nothing any more.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use stalltop_model::Name;
use stalltop_model::sample::LockStack;

use crate::file;

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

/// How the thread is asked, and how it answers.
type Desk = (SyncSender<Vec<u32>>, Receiver<Vec<Fact>>);

/// The thread that reads, started when it is first needed.
pub(super) struct Owners {
    proc: PathBuf,
    thread: Option<Desk>,
    /// Asked and not answered yet.
    asked: bool,
}

impl Owners {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self {
            proc,
            thread: None,
            asked: false,
        }
    }

    /// Fills who the owners of `stacks` are; of `most` of them at most, those of the first stacks.
    pub(super) fn fill(&mut self, stacks: &mut [LockStack], most: usize) {
        let mut pids = Vec::new();
        for owner in stacks.iter().flat_map(|stack| &stack.owners) {
            if pids.len() < most && !pids.contains(&owner.pid) {
                pids.push(owner.pid);
            }
        }
        if pids.is_empty() {
            return;
        }
        for fact in self.ask(pids) {
            let owners = stacks.iter_mut().flat_map(|stack| &mut stack.owners);
            for owner in owners.filter(|owner| owner.pid == fact.pid) {
                owner.comm = Name::clone(&fact.comm);
                owner.frames.clone_from(&fact.frames);
            }
        }
    }

    /// Looks threads up; gives nothing where that takes longer than a window can wait.
    pub(super) fn ask(&mut self, pids: Vec<u32>) -> Vec<Fact> {
        if self.thread.is_none() {
            self.thread = start(self.proc.clone());
        }
        let Some((ask, answers)) = &self.thread else {
            return Vec::new();
        };
        if self.asked {
            // Of an earlier window; while there is none, the thread is held up.
            match answers.try_recv() {
                Ok(_) => self.asked = false,
                Err(_) => return Vec::new(),
            }
        }
        if ask.try_send(pids).is_err() {
            return Vec::new();
        }
        match answers.recv_timeout(PATIENCE) {
            Ok(facts) => facts,
            Err(RecvTimeoutError::Timeout) => {
                self.asked = true;
                Vec::new()
            }
            Err(RecvTimeoutError::Disconnected) => Vec::new(),
        }
    }
}

fn start(proc: PathBuf) -> Option<Desk> {
    let (ask, asked) = sync_channel::<Vec<u32>>(1);
    let (answer, answers) = sync_channel(1);
    let thread = std::thread::Builder::new().name("stalltop-owners".into());
    let started = thread.spawn(move || {
        for pids in asked {
            let facts = pids.into_iter().map(|pid| fact(&proc, pid)).collect();
            if answer.send(facts).is_err() {
                return;
            }
        }
    });
    started.ok().map(|_| (ask, answers))
}

fn fact(proc: &std::path::Path, pid: u32) -> Fact {
    let folder = proc.join(pid.to_string());
    let read = |name: &str| file::read(&folder.join(name)).unwrap_or_default();
    let comm = read("comm");
    let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
    Fact {
        pid,
        comm: String::from_utf8_lossy(&comm[..comm.len().min(64)]).into(),
        frames: frames(&read("stack")),
    }
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
        std::fs::write(dir.path().join("42/stack"), "[<0>] pipe_write+0x1/0x2\n").unwrap();
        let owner = |pid| LockOwner {
            pid,
            comm: Name::default(),
            count: 1,
            frames: Vec::new(),
        };
        let mut stacks = [stack(vec![owner(42), owner(43)])];
        Owners::new(dir.path().to_owned()).fill(&mut stacks, 8);
        let [known, gone] = &stacks[0].owners[..] else {
            panic!("two");
        };
        assert_eq!((&*known.comm, &*known.frames[0]), ("writer", "pipe_write"));
        assert!(gone.comm.is_empty() && gone.frames.is_empty());
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
