//! Whole states for the ticking thread, in buffers that are used again.

use std::sync::Arc;

use stalltop_model::sample::{Cgroup, Cgroups};

use super::files::Files;
use super::sweep::Sweeper;
use super::tree::Id;

/// States in circulation: one newest, two samples of the model, one being filled.
const BUFFERS: usize = 4;

/// Fills states. Once warm it allocates nothing while no cgroup comes or goes.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    buffers: Vec<Buffer>,
    /// The row of each node.
    row_of: Vec<u32>,
}

#[derive(Debug)]
struct Buffer {
    state: Arc<Cgroups>,
    /// The tree's shape when its rows were laid out.
    generation: u64,
}

impl Publisher {
    pub(super) fn state<F: Files>(&mut self, from: &mut Sweeper<F>) -> Arc<Cgroups> {
        let free = self
            .buffers
            .iter_mut()
            .position(|buffer| Arc::get_mut(&mut buffer.state).is_some());
        let at = free.unwrap_or_else(|| {
            if self.buffers.len() == BUFFERS {
                // Somebody keeps states; they are theirs from now on.
                self.buffers.remove(0);
            }
            self.buffers.push(Buffer {
                state: Arc::new(empty(from)),
                generation: 0,
            });
            self.buffers.len() - 1
        });
        let buffer = &mut self.buffers[at];
        // Free as found above, or made just now.
        if let Some(state) = Arc::get_mut(&mut buffer.state) {
            state.zombies = from.zombies.clone();
            state.visible = from.visible;
            state.sweep = from.done;
            if buffer.generation == from.tree.generation() {
                update(&mut state.rows, from);
            } else {
                lay_out(&mut state.rows, &mut self.row_of, from);
                buffer.generation = from.tree.generation();
            }
        }
        Arc::clone(&buffer.state)
    }
}

fn empty<F: Files>(from: &Sweeper<F>) -> Cgroups {
    Cgroups {
        layout: from.place.layout,
        mount: from.place.mount.as_str().into(),
        zombies: from.zombies.clone(),
        visible: from.visible,
        sweep: from.done,
        rows: Vec::new(),
    }
}

fn lay_out<F: Files>(rows: &mut Vec<Cgroup>, row_of: &mut Vec<u32>, from: &mut Sweeper<F>) {
    rows.clear();
    from.tree.order();
    for &id in from.tree.ordered() {
        let node = from.tree.node(id);
        if !node.memory {
            continue;
        }
        let at = id as usize;
        if row_of.len() <= at {
            row_of.resize(at + 1, 0);
        }
        row_of[at] = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        rows.push(Cgroup {
            path: node.name.clone(),
            parent: node.parent.map(|p: Id| row_of[p as usize]),
            depth: node.depth,
            owner: node.owner.clone(),
            used_bytes: node.used.clone(),
            processes: node.processes.clone(),
            zombies: node.zombies.clone(),
            read: node.timing.clone(),
            read_at_ns: node.read_at_ns,
            backed_off: node.slow,
        });
    }
}

fn update<F: Files>(rows: &mut [Cgroup], from: &Sweeper<F>) {
    let nodes = from
        .tree
        .ordered()
        .iter()
        .map(|&id| from.tree.node(id))
        .filter(|node| node.memory);
    for (row, node) in rows.iter_mut().zip(nodes) {
        if row.read_at_ns != node.read_at_ns {
            row.used_bytes = node.used.clone();
            row.processes = node.processes.clone();
            row.zombies = node.zombies.clone();
            row.read = node.timing.clone();
            row.read_at_ns = node.read_at_ns;
            row.backed_off = node.slow;
        }
    }
}
