//! Descriptors by a BPF iterator: the kernel walks them and tells those that hold something, with
//! the ids of what they hold, and perf events that no file tells of.
//!
//! It is loaded when descriptors are first looked for and stays: loaded, it costs nothing, and a
//! program that came and went with each look would show as change on this host, to us and others.
//!
//! Measured on 6.18 (2 busy CPUs, best of 21, `tests/tests/live_holders.rs`): 0.19 ms for 103
//! processes with 650 descriptors, 18.5 ms for 2,101 with 60,656, where the walk over `/proc` took
//! 7 and 315 ms.

use std::path::Path;

use rustix::time::ClockId;
use stalltop_model::{Reading, Reason};
use stalltop_probes::wire::held::{Descriptor, kind};
use stalltop_probes::{Descriptors, MAX_DESCRIPTORS};

use super::{
    Found, Held, PerfFd, Target, init_pid_namespace, not_all, outside, target, tracefs_mounts,
};
use crate::Env;
use crate::cores::why;
use crate::own::nanoseconds;
use crate::tracing::perf::Event;
use crate::tracing::text::name;

/// The iterator, once it was asked for.
#[derive(Debug, Default)]
pub(in crate::tracing) enum TaskFiles {
    /// Not asked for yet.
    #[default]
    Waiting,
    /// Loaded.
    Ready(Box<Descriptors>),
    /// Why there is none.
    Off(Reason),
}

impl TaskFiles {
    /// Loads it, once.
    pub(in crate::tracing) fn prepare(&mut self, env: &Env) {
        if !matches!(self, Self::Waiting) {
            return;
        }
        *self = match load(env) {
            Ok(descriptors) => Self::Ready(Box::new(descriptors)),
            Err(reason) => Self::Off(reason),
        };
    }

    /// Looks at the descriptors of all processes.
    ///
    /// # Errors
    /// Why it cannot: then `/proc` is the way.
    pub(in crate::tracing) fn scan(&mut self, env: &Env) -> Result<Found, Reason> {
        self.prepare(env);
        let descriptors = match self {
            Self::Ready(descriptors) => descriptors,
            Self::Off(reason) => return Err(reason.clone()),
            Self::Waiting => return Err(Reason::Starting),
        };
        let tracefs = env.tracefs().ok();
        let since = nanoseconds(ClockId::Boottime);
        let mut all = Vec::new();
        let is_all = descriptors
            .scan(tracefs.as_deref().map(Path::new), &mut all)
            .map_err(|e| Reason::Refused {
                what: "the iterator over descriptors".into(),
                why: e.to_string().into(),
            })?;
        if !descriptors.knows(kind::PERF) {
            return Err(Reason::Refused {
                what: "perf events".into(),
                why: "perf_event_open(2) gave none to tell them by".into(),
            });
        }
        let mounts = tracefs_mounts(env);
        let mut found = Found::default();
        let mut users = Vec::new();
        for descriptor in &all {
            take(env, descriptor, &mounts, &mut found, &mut users);
        }
        found.users = Reading::Value(users);
        found.complete = Reading::Value(());
        if !is_all {
            let beyond = format!("the first {MAX_DESCRIPTORS} descriptors");
            not_all(&mut found.complete, &beyond);
        }
        found.describe(env, since);
        Ok(found)
    }
}

fn load(env: &Env) -> Result<Descriptors, Reason> {
    if !init_pid_namespace(env) {
        return Err(outside());
    }
    Descriptors::load(env.root())
        .map_err(|failure| why::refused_at(env, "the iterator over descriptors", &failure))
}

/// Adds what one descriptor holds.
fn take(
    env: &Env,
    descriptor: &Descriptor,
    mounts: &[String],
    found: &mut Found,
    users: &mut Vec<(u32, Event)>,
) {
    let low = |word: u64| word as u32;
    let (pid, fd) = (low(descriptor.process), low(descriptor.process >> 32));
    let (id, program) = (low(descriptor.id), low(descriptor.program));
    let event = (descriptor.kind & kind::EVENT != 0).then(|| event(descriptor));
    match (descriptor.kind & 0xff, event) {
        (kind::PROGRAM, _) if id != 0 => found.held.push((pid, Held::Program(id))),
        (kind::MAP, _) if id != 0 => found.held.push((pid, Held::Map(id))),
        // An iterator in the course of being read: it keeps its program, its link may be gone.
        (kind::ITER, _) if program != 0 => found.held.push((pid, Held::Program(program))),
        (kind::LINK, event) if id != 0 => {
            found.held.push((pid, Held::Link { link: id, program }));
            found.events.extend(event.map(|event| (id, event)));
        }
        (kind::PERF, Some(event)) if program == 0 => users.push((pid, event)),
        (kind::PERF, event) => found.perf.push(PerfFd {
            pid,
            fd,
            known: event.map(|event| (program, event)),
        }),
        (kind::PIPE | kind::PIPE_RAW, _) => {
            // Of which instance, its path tells. A process that is gone reads nothing any more.
            let path = env.path(&format!("/proc/{pid}/fd/{fd}"));
            if let Ok(link) = rustix::fs::readlink(&path, Vec::new())
                && let Some(Target::Reader(instance)) = target(link.as_bytes(), mounts)
            {
                found.readers.push((instance, pid));
            }
        }
        _ => {}
    }
}

fn event(descriptor: &Descriptor) -> Event {
    Event {
        kind: descriptor.event as u32,
        state: (descriptor.event >> 32) as i32,
        config: descriptor.config,
        address: descriptor.config1,
        offset: descriptor.config2,
        name: text(&descriptor.name),
        system: text(&descriptor.system),
    }
}

fn text(words: &[u64]) -> stalltop_model::Name {
    let bytes: Vec<u8> = (words.iter())
        .flat_map(|word| word.to_ne_bytes())
        .take_while(|byte| *byte != 0)
        .collect();
    name(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<const N: usize>(text: &[u8]) -> [u64; N] {
        let mut bytes = text.to_vec();
        bytes.resize(N * 8, 0);
        std::array::from_fn(|i| u64::from_ne_bytes(bytes[i * 8..][..8].try_into().unwrap()))
    }

    fn found(descriptors: &[Descriptor]) -> (Found, Vec<(u32, Event)>) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("proc/7/fd");
        std::fs::create_dir_all(&dir).unwrap();
        let pipe = "/sys/kernel/tracing/instances/mine/trace_pipe";
        std::os::unix::fs::symlink(pipe, dir.join("5")).unwrap();
        let env = Env::at(root.path());
        let (mut found, mut users) = (Found::default(), Vec::new());
        for descriptor in descriptors {
            let mounts = ["/sys/kernel/tracing".to_owned()];
            take(&env, descriptor, &mounts, &mut found, &mut users);
        }
        (found, users)
    }

    #[test]
    fn every_kind_is_taken_for_what_it_is() {
        let of = |fd: u64, kind, id, program| Descriptor {
            process: 7 | fd << 32,
            kind,
            id,
            program,
            event: 2 | (u64::from(-1_i32 as u32)) << 32,
            name: words(b"sched_switch"),
            system: words(b"sched\xff"),
            ..Descriptor::ZERO
        };
        let (found, users) = found(&[
            of(3, kind::PROGRAM, 11, 0),
            of(4, kind::LINK | kind::EVENT, 12, 11),
            of(5, kind::PIPE, 0, 0),
            of(6, kind::PIPE_RAW, 0, 0),
            of(7, kind::MAP, 13, 0),
            of(8, kind::ITER, 0, 14),
            of(9, kind::PERF | kind::EVENT, 0, 0),
            of(10, kind::PERF | kind::EVENT, 0, 15),
            of(11, 99, 1, 1),
        ]);
        let link = Held::Link {
            link: 12,
            program: 11,
        };
        assert_eq!(
            found.held,
            [
                (7, Held::Program(11)),
                (7, link),
                (7, Held::Map(13)),
                (7, Held::Program(14)),
            ]
        );
        assert_eq!(found.events.len(), 1);
        assert_eq!(found.readers, [("mine".into(), 7)], "the other is gone");
        assert_eq!((found.perf.len(), found.perf[0].fd), (1, 10));
        let [(7, user)] = &users[..] else {
            panic!("{users:?}");
        };
        assert_eq!((user.kind, user.state), (2, -1));
        assert_eq!(&*user.name, "sched_switch");
        assert_eq!(&*user.system, "sched\u{fffd}");
    }

    #[test]
    fn a_name_that_fills_its_place_has_no_end() {
        assert_eq!(text(&words::<4>(&[b'a'; 32])).len(), 32);
        assert_eq!(&*text(&[0; 4]), "");
    }
}
