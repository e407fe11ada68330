//! The maps that programs use, and which of them can make CPUs wait for each other.

use std::collections::{BTreeMap, HashSet};

use stalltop_model::Name;
use stalltop_model::sample::BpfMap;
use stalltop_probes::sys::info::MapInfo;
use stalltop_probes::sys::names;

use super::kernel::Kernel;
use super::programs::Programs;

/// Maps listed at most. The rest is counted.
const LISTED: usize = 2_048;

/// Programs whose maps are asked for in one window, and maps that are asked about: 2 us each on
/// 6.18, and only once while they are there.
const ASKED: usize = 512;

/// Maps of the known programs, by id.
#[derive(Debug, Default)]
pub(super) struct Maps {
    known: BTreeMap<u32, Option<MapInfo>>,
}

impl Maps {
    /// Asks about what is new.
    pub(super) fn update(&mut self, kernel: &mut impl Kernel, programs: &mut Programs) {
        let mut budget = ASKED;
        for (id, program) in &mut programs.0 {
            // Programs can bind further maps (BPF_PROG_BIND_MAP, 5.10).
            let known = program.maps.as_ref().map(Vec::len);
            if known == Some(program.map_count()) || budget == 0 {
                continue;
            }
            budget -= 1;
            let mut maps = kernel.maps_of(*id);
            maps.sort_unstable();
            program.maps = Some(maps);
        }
        let used: HashSet<u32> = (programs.0.values())
            .flat_map(|p| p.maps.iter().flatten().copied())
            .collect();
        self.known.retain(|id, _| used.contains(id));
        let mut budget = ASKED;
        for id in programs
            .0
            .values()
            .filter_map(|p| p.maps.as_ref())
            .flatten()
        {
            if budget > 0 && !self.known.contains_key(id) {
                budget -= 1;
                self.known.insert(*id, kernel.map(*id));
            }
        }
    }

    /// The maps that are known by now, by id, and how many more there are.
    pub(super) fn list(&self, programs: &Programs) -> (Vec<BpfMap>, u64) {
        let mut users: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (program, of) in &programs.0 {
            for map in of.maps.iter().flatten() {
                let users = users.entry(*map).or_default();
                if users.last() != Some(program) {
                    users.push(*program);
                }
            }
        }
        let all = users.len();
        let known = users.into_iter().filter_map(|(id, programs)| {
            let info = self.known.get(&id)?.as_ref()?;
            Some(described(id, info, programs))
        });
        let listed: Vec<_> = known.take(LISTED).collect();
        let left_out = all.saturating_sub(listed.len()) as u64;
        (listed, left_out)
    }
}

fn described(id: u32, info: &MapInfo, programs: Vec<u32>) -> BpfMap {
    let kind = names::map_type(info.kind);
    BpfMap {
        id,
        kind: kind.map_or_else(
            || -> Name { format!("type {}", info.kind).into() },
            Into::into,
        ),
        name: info.name.as_str().into(),
        key_bytes: info.key_size,
        value_bytes: info.value_size,
        max_entries: info.max_entries,
        programs,
        contends: kind.is_some_and(contends),
    }
}

/// Whether programs that write to a map of this type take a lock that another CPU may hold
/// (kernel/bpf/ of 6.1 to 6.18). It is about the type: a program may well never write.
///
/// - All hash maps, per-CPU ones and those without pre-allocation as well: an update or a removal
///   takes its bucket's lock (`htab_lock_bucket`), and free entries of a pre-allocated one come
///   from lists that other CPUs may search once their own are empty (`pcpu_freelist_pop`, which is
///   what incident I1 stood in). Values that are only looked up and changed in place take none.
/// - Least-recently-used ones take their list's lock besides (bpf_lru_list.c).
/// - Tries, queues, stacks and ring buffers have one lock each: `trie->lock` (lpm_trie.c),
///   `qs->lock` also for reading (queue_stack_maps.c), `rb->spinlock` to reserve (ringbuf.c).
/// - Maps of sockets take a lock per map or bucket (net/core/sock_map.c).
///
/// Not arrays: whole-machine ones make CPUs pass a cache line to and fro, without waiting; per-CPU
/// ones do not even that. Stack maps exchange pointers. Storage of sockets, tasks, inodes and
/// cgroups takes locks when something is added, not when it is used. Maps of maps and devices are
/// written by user space only.
fn contends(kind: &str) -> bool {
    matches!(
        kind,
        "hash"
            | "percpu_hash"
            | "lru_hash"
            | "lru_percpu_hash"
            | "lpm_trie"
            | "queue"
            | "stack"
            | "ringbuf"
            | "sockmap"
            | "sockhash"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_contends_is_one() {
        let all: Vec<_> = (0..64).filter_map(names::map_type).collect();
        let contending: Vec<_> = all.iter().filter(|kind| contends(kind)).collect();
        assert_eq!(contending.len(), 10, "{contending:?}");
        assert!(!contends("percpu_array") && !contends("array") && !contends("stack_trace"));
    }
}
