//! Whole states for the ticking thread, in buffers that are used again.

use std::sync::Arc;

use stalltop_model::sample::{Cgroup, Cgroups};

use super::files::Files;
use super::sweep::Sweeper;
use super::tree::{Id, Node};

/// States in circulation: one newest, two samples of the model, one being filled.
const BUFFERS: usize = 4;

/// Fills states. Once warm it allocates nothing while no cgroup comes or goes.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    buffers: Vec<Buffer>,
    /// The row of each node, or of its nearest ancestor that has one.
    row_of: Vec<u32>,
    /// Rows of the layout before, while they are taken over.
    before: Vec<Cgroup>,
    /// The nodes of the layout that is made.
    nodes: Vec<(Id, u64)>,
}

#[derive(Debug)]
struct Buffer {
    state: Arc<Cgroups>,
    /// The node of each row, and which of those that had its index.
    nodes: Vec<(Id, u64)>,
    /// The tree's shape when its rows were laid out.
    generation: u64,
}

impl Publisher {
    /// Fills a state, and has the sweep's budget pay for it.
    pub(super) fn state<F: Files>(&mut self, from: &mut Sweeper<F>) -> Arc<Cgroups> {
        let start = from.files.cpu_ns();
        from.count();
        let state = self.filled(from);
        from.published(from.files.cpu_ns() - start);
        state
    }

    fn filled<F: Files>(&mut self, from: &mut Sweeper<F>) -> Arc<Cgroups> {
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
                nodes: Vec::new(),
                generation: 0,
            });
            self.buffers.len() - 1
        });
        let mut buffer = self.buffers.swap_remove(at);
        // Free as found above, or made just now.
        if let Some(state) = Arc::get_mut(&mut buffer.state) {
            state.zombies = from.zombies.clone();
            state.visible = from.visible;
            state.sweep = from.done;
            if buffer.generation == from.tree.generation() {
                for (row, (id, _)) in state.rows.iter_mut().zip(&buffer.nodes) {
                    update(row, from.tree.node(*id));
                }
            } else {
                self.lay_out(&mut state.rows, &mut buffer.nodes, from);
                buffer.generation = from.tree.generation();
            }
        }
        let state = Arc::clone(&buffer.state);
        self.buffers.push(buffer);
        state
    }

    /// Lays rows out as the tree is now. Where few cgroups came or went most rows are there
    /// already, in the same order: they are moved, not made anew.
    fn lay_out<F: Files>(
        &mut self,
        rows: &mut Vec<Cgroup>,
        nodes: &mut Vec<(Id, u64)>,
        from: &mut Sweeper<F>,
    ) {
        std::mem::swap(rows, &mut self.before);
        std::mem::swap(nodes, &mut self.nodes);
        let mut before = (self.before.drain(..).zip(self.nodes.drain(..))).peekable();
        from.tree.order();
        for &id in from.tree.ordered() {
            let node = from.tree.node(id);
            let above = node.parent.map(|p| self.row_of[p as usize]);
            let at = id as usize;
            if self.row_of.len() <= at {
                self.row_of.resize(at + 1, 0);
            }
            if !node.memory {
                // The root always has a row.
                self.row_of[at] = above.unwrap_or(0);
                continue;
            }
            self.row_of[at] = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            let this = (id, node.born);
            while before
                .next_if(|(_, (id, born))| !shown(from, *id, *born))
                .is_some()
            {}
            let row = match before.next_if(|(_, known)| *known == this) {
                Some((mut row, _)) => {
                    row.parent = above;
                    update(&mut row, node);
                    row
                }
                None => row(node, above),
            };
            rows.push(row);
            nodes.push(this);
        }
    }
}

/// Whether a node of an earlier layout has a row still.
fn shown<F: Files>(from: &Sweeper<F>, id: Id, born: u64) -> bool {
    from.tree.is_still(id, born) && from.tree.node(id).memory
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

fn row(node: &Node, parent: Option<u32>) -> Cgroup {
    Cgroup {
        path: node.name.clone(),
        parent,
        depth: node.depth,
        owner: node.owner.clone(),
        used_bytes: node.used.clone(),
        processes: node.processes.clone(),
        zombies: node.zombies.clone(),
        read: node.timing.clone(),
        read_at_ns: node.read_at_ns,
        backed_off: node.slow,
    }
}

fn update(row: &mut Cgroup, node: &Node) {
    if row.read_at_ns != node.read_at_ns {
        row.used_bytes = node.used.clone();
        row.processes = node.processes.clone();
        row.zombies = node.zombies.clone();
        row.read = node.timing.clone();
        row.read_at_ns = node.read_at_ns;
        row.backed_off = node.slow;
    }
}
