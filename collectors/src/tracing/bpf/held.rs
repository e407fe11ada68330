//! Who holds programs, links and maps, by what is held.

use std::collections::HashMap;

use stalltop_model::sample::{HeldBy, Holder};
use stalltop_probes::sys::info::LinkInfo;

use crate::tracing::holders::{Held, Processes};

/// Holders by object id.
#[derive(Default)]
pub(super) struct HoldersOf {
    pub(super) programs: HashMap<u32, Vec<Holder>>,
    pub(super) links: HashMap<u32, Vec<Holder>>,
    pub(super) maps: HashMap<u32, Vec<Holder>>,
}

impl HoldersOf {
    /// Adds what a process holds. `links` are listed by id.
    pub(super) fn add(&mut self, pid: u32, what: Held, links: &[LinkInfo], processes: &Processes) {
        match what {
            Held::Program(id) => put(
                self.programs.entry(id).or_default(),
                processes.holder(pid, HeldBy::Program),
            ),
            Held::Map(id) => put(
                self.maps.entry(id).or_default(),
                processes.holder(pid, HeldBy::Map),
            ),
            Held::Link { link, program } => {
                let holder = processes.holder(pid, HeldBy::Link);
                put(self.links.entry(link).or_default(), holder.clone());
                // A link's program can be replaced since the descriptors were read.
                let now = links.binary_search_by_key(&link, |l| l.id);
                let program = now.map_or(program, |at| links[at].prog_id);
                put(self.programs.entry(program).or_default(), holder);
            }
        }
    }
}

/// Adds a holder; of one process the strongest hold is kept: what keeps a program attached (a
/// perf event or a link) rather than what only keeps it loaded.
pub(super) fn put(holders: &mut Vec<Holder>, holder: Holder) {
    let strength = |by: HeldBy| match by {
        HeldBy::PerfEvent | HeldBy::Link => 2,
        HeldBy::Program => 1,
        HeldBy::Map | HeldBy::TracefsFile => 0,
    };
    match holders.iter_mut().find(|h| h.pid == holder.pid) {
        Some(known) if strength(known.by) < strength(holder.by) => *known = holder,
        Some(_) => {}
        None => {
            holders.push(holder);
            holders.sort_by_key(|h| h.pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_hold_of_a_process_counts() {
        let holder = |pid, by| Holder {
            pid,
            comm: "x".into(),
            cmdline: "x".into(),
            owner: Default::default(),
            by,
        };
        let mut holders = Vec::new();
        put(&mut holders, holder(9, HeldBy::Map));
        put(&mut holders, holder(9, HeldBy::Link));
        put(&mut holders, holder(9, HeldBy::Program));
        put(&mut holders, holder(3, HeldBy::Program));
        assert_eq!(
            holders,
            [holder(3, HeldBy::Program), holder(9, HeldBy::Link)]
        );
    }
}
