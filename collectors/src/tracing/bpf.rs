//! Loaded BPF programs and links, what they are attached to, and who holds them (bpf(2)).
//!
//! What the kernel does not tell: the process that loaded a program which only a cgroup, a
//! network device or a tail call map holds (its user id and load time remain); where programs of
//! sockets (`SO_ATTACH_BPF`), of maps of sockets without a link, of tc actions, of tc filters below
//! a class and of network devices in other network namespaces are attached. Those have no
//! [`Attachment`](stalltop_model::sample::Attachment) here.
//!
//! Ids are walked at each round. All else is one look ([`BpfReader::look`]), taken together with
//! the descriptors of all processes: a program is told with its holders or not at all.

mod attach;
mod cgroups;
mod held;
mod maps;
mod netlink;
mod pins;
mod places;
mod snapshot;
mod symbols;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::AsFd;

use stalltop_model::Reason;
use stalltop_model::sample::BpfObjects;
use stalltop_probes::sys::ids::{self, Object};
use stalltop_probes::sys::info::{self, LinkInfo, ProgramInfo};

use super::holders::Found;
use crate::Env;
use places::Places;
use snapshot::Snapshot;

/// Reads BPF objects, and remembers of them what stays as it is.
#[derive(Default)]
pub(super) struct BpfReader {
    programs: Vec<u32>,
    links: Vec<u32>,
    next: Vec<u32>,
    known: BTreeMap<u32, ProgramInfo>,
    /// Programs that were asked for once: maps can still be bound to them (`BPF_PROG_BIND_MAP`),
    /// as loaders do right after.
    fresh: HashSet<u32>,
    places: Places,
}

impl BpfReader {
    /// Walks the ids of programs and links; says whether any came or went.
    ///
    /// Measured on 6.18: 4 us for 5 programs, 80 to 120 us for 214 programs and 150 links.
    ///
    /// # Errors
    /// Why the kernel does not list them.
    pub(super) fn poll(&mut self) -> Result<bool, Reason> {
        ids::all(Object::Program, &mut self.next).map_err(|e| refused(&e))?;
        let mut changed = self.next != self.programs;
        std::mem::swap(&mut self.next, &mut self.programs);
        // No links before 5.8: EINVAL.
        let _ = ids::all(Object::Link, &mut self.next);
        changed |= self.next != self.links;
        std::mem::swap(&mut self.next, &mut self.links);
        Ok(changed)
    }

    /// All programs and links of the last walk, with who holds them.
    pub(super) fn look(&mut self, env: &Env, found: &Found, buf: &mut Vec<u8>) -> BpfObjects {
        self.ask();
        let links = self.link_infos();
        self.places.look(env, &self.known, &links, buf);
        Snapshot::take(env, &links, &self.places, found, buf).objects(&self.known)
    }

    /// Asks the kernel for programs that are new, and for those a second time that were new at the
    /// last look.
    ///
    /// An id is not given out again before 2,147,483,647 others were (`bpf_prog_alloc_id`,
    /// kernel/bpf/syscall.c).
    fn ask(&mut self) {
        let mut before = std::mem::take(&mut self.known);
        let mut asked_once = std::mem::take(&mut self.fresh);
        for id in &self.programs {
            let known = before.remove(id);
            let is_new = known.is_none();
            let info = match known {
                Some(info) if !asked_once.remove(id) => Some(info),
                _ => program_info(*id),
            };
            if is_new && info.is_some() {
                self.fresh.insert(*id);
            }
            self.known.extend(info.map(|info| (*id, info)));
        }
    }

    /// A link's program can be replaced, and its target can go: asked for at each look.
    fn link_infos(&self) -> Vec<LinkInfo> {
        (self.links.iter())
            .filter_map(|id| info::link(ids::open(Object::Link, *id).ok()?.as_fd()).ok())
            .collect()
    }
}

/// What the kernel says of a program, unless it is gone.
fn program_info(id: u32) -> Option<ProgramInfo> {
    info::program(ids::open(Object::Program, id).ok()?.as_fd()).ok()
}

/// Why ids are not listed (kernel/bpf/syscall.c, `bpf_obj_get_next_id`).
pub(crate) fn refused(error: &io::Error) -> Reason {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Reason::NotBuilt {
            config: "CONFIG_BPF_SYSCALL".into(),
        },
        Some(libc::EPERM) => Reason::NoCapability {
            need: "CAP_SYS_ADMIN".into(),
        },
        _ => Reason::Refused {
            what: "the list of BPF programs".into(),
            why: error.to_string().into(),
        },
    }
}
