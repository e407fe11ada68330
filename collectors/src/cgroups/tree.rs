//! The tree of known cgroups, each with what was read of it.

use std::ffi::{CStr, CString};

use stalltop_model::sample::{Owner, ReadTiming};
use stalltop_model::{Name, Reading};

use super::files::Dir;
use crate::owner;

/// Index of a node; the root is 0 and never removed.
pub(super) type Id = u32;

/// The root's index.
pub(super) const ROOT: Id = 0;

/// One known cgroup.
#[derive(Debug)]
pub(super) struct Node {
    /// Path relative to the mount, as the kernel knows it; `.` for the root.
    pub(super) path: CString,
    /// The same for people, from the root on.
    pub(super) name: Name,
    pub(super) owner: Owner,
    pub(super) parent: Option<Id>,
    pub(super) depth: u16,
    /// Sorted by path.
    pub(super) children: Vec<Id>,
    /// What the directory was when its children were listed; `None` before that.
    pub(super) listed: Option<Dir>,
    /// Whether the memory controller is on here (always on v1).
    pub(super) memory: bool,
    pub(super) used: Reading<u64>,
    pub(super) processes: Reading<u64>,
    pub(super) zombies: Reading<u64>,
    pub(super) timing: Reading<ReadTiming>,
    /// `CLOCK_BOOTTIME` of the last visit, ns; 0 for none.
    pub(super) read_at_ns: u64,
    /// `CLOCK_MONOTONIC` before which it is not visited again, ns.
    pub(super) due_ns: u64,
    /// The same for its `cgroup.procs`.
    pub(super) processes_due_ns: u64,
    /// Whether its last read was slow.
    pub(super) slow: bool,
    /// Tells it from others that had or will have its index.
    pub(super) born: u64,
    alive: bool,
}

impl Node {
    fn new(path: CString, parent: Option<Id>, depth: u16) -> Self {
        let name: Name = match parent {
            Some(_) => format!("/{}", path.to_string_lossy()).into(),
            None => "/".into(),
        };
        let mut owner = owner::of_cgroup_path(&name);
        owner.cgroup = name.clone();
        Self {
            path,
            owner,
            name,
            parent,
            depth,
            children: Vec::new(),
            listed: None,
            memory: true,
            used: Reading::default(),
            processes: Reading::default(),
            zombies: Reading::default(),
            timing: Reading::default(),
            read_at_ns: 0,
            due_ns: 0,
            processes_due_ns: 0,
            slow: false,
            born: 0,
            alive: true,
        }
    }

    /// Forgets all that was read: another cgroup has taken the path.
    pub(super) fn forget(&mut self) {
        self.used = Reading::default();
        self.processes = Reading::default();
        self.zombies = Reading::default();
        self.timing = Reading::default();
        self.read_at_ns = 0;
        self.due_ns = 0;
        self.processes_due_ns = 0;
        self.slow = false;
        self.listed = None;
        self.memory = true;
    }
}

/// All known cgroups.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    free: Vec<Id>,
    /// Every node, parents before children, siblings by path.
    order: Vec<Id>,
    ordered: bool,
    /// Raised with each change of shape.
    generation: u64,
    known: u64,
    /// Counts the nodes ever made.
    born: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::new(CString::from(c"."), None, 0)],
            free: Vec::new(),
            order: vec![ROOT],
            ordered: true,
            generation: 1,
            known: 1,
            born: 0,
        }
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// Whether the node that was made as the `born`-th is still there, at `id`.
    pub(super) fn is_still(&self, id: Id, born: u64) -> bool {
        let node = self.nodes.get(id as usize);
        node.is_some_and(|n| n.alive && n.born == born)
    }

    /// Whether `id` still names a cgroup.
    pub(super) fn is_alive(&self, id: Id) -> bool {
        self.nodes.get(id as usize).is_some_and(|n| n.alive)
    }

    /// Every known cgroup, in no order.
    pub(super) fn alive(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.alive)
    }

    /// Directories known.
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Marks a change that rows must follow although no node came or went.
    pub(super) fn changed(&mut self) {
        self.generation += 1;
    }

    /// Every node, parents before children, siblings by path.
    pub(super) fn order(&mut self) -> &[Id] {
        if !self.ordered {
            self.order.clear();
            let mut stack = vec![ROOT];
            while let Some(id) = stack.pop() {
                self.order.push(id);
                stack.extend(self.nodes[id as usize].children.iter().rev());
            }
            self.ordered = true;
        }
        &self.order
    }

    /// The same, as it was when last asked for by [`Tree::order`].
    pub(super) fn ordered(&self) -> &[Id] {
        &self.order
    }

    /// The cgroup that people call `name`.
    pub(super) fn find(&self, name: &str) -> Option<Id> {
        let at = self
            .nodes
            .iter()
            .position(|n| n.alive && &*n.name == name)?;
        Id::try_from(at).ok()
    }

    /// Brings the children of `id` in line with `names`, which must be sorted; the new
    /// ones are appended to `fresh`. Gives how many were removed without ever having been read.
    pub(super) fn set_children(&mut self, id: Id, names: &Names, fresh: &mut Vec<Id>) -> u64 {
        let parent = self.node(id);
        let prefix = match parent.parent {
            Some(_) => parent.path.as_bytes().len() + 1,
            None => 0,
        };
        let depth = parent.depth.saturating_add(1);
        let old = std::mem::take(&mut self.node_mut(id).children);
        let mut children = Vec::with_capacity(names.len());
        let mut unread = 0;
        let mut old_ones = old.into_iter().peekable();
        for name in names.iter() {
            while let Some(&child) = old_ones.peek() {
                let known = &self.node(child).path.as_bytes()[prefix..];
                if known >= name.to_bytes() {
                    break;
                }
                unread += self.remove(child);
                old_ones.next();
            }
            let same = old_ones
                .next_if(|&child| &self.node(child).path.as_bytes()[prefix..] == name.to_bytes());
            children.push(if let Some(child) = same {
                child
            } else {
                let child = self.add(id, depth, name);
                fresh.push(child);
                child
            });
        }
        for child in old_ones {
            unread += self.remove(child);
        }
        self.node_mut(id).children = children;
        unread
    }

    fn add(&mut self, parent: Id, depth: u16, name: &CStr) -> Id {
        let mut path = match self.node(parent).parent {
            Some(_) => {
                let mut path = self.node(parent).path.as_bytes().to_vec();
                path.push(b'/');
                path
            }
            None => Vec::new(),
        };
        path.extend_from_slice(name.to_bytes());
        // Neither part holds a NUL: both came from the kernel as C strings.
        let mut node = Node::new(CString::new(path).unwrap_or_default(), Some(parent), depth);
        // A controller that is off is off in the whole subtree.
        node.memory = self.node(parent).memory;
        self.shape_changed();
        self.known += 1;
        self.born += 1;
        node.born = self.born;
        if let Some(id) = self.free.pop() {
            self.nodes[id as usize] = node;
            id
        } else {
            self.nodes.push(node);
            Id::try_from(self.nodes.len() - 1).unwrap_or(Id::MAX)
        }
    }

    /// Takes a cgroup and its descendants out of the tree.
    pub(super) fn detach(&mut self, id: Id) -> u64 {
        if let Some(parent) = self.node(id).parent {
            self.node_mut(parent).children.retain(|c| *c != id);
            // What it was when listed no longer holds.
            self.node_mut(parent).listed = None;
        }
        self.remove(id)
    }

    /// Gives how many of the removed were never read.
    fn remove(&mut self, id: Id) -> u64 {
        let mut unread = 0;
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            let node = self.node_mut(id);
            node.alive = false;
            unread += u64::from(node.memory && node.read_at_ns == 0);
            stack.append(&mut node.children);
            self.free.push(id);
            self.known -= 1;
        }
        self.shape_changed();
        unread
    }

    fn shape_changed(&mut self) {
        self.ordered = false;
        self.generation += 1;
    }
}

/// Names of one directory's children, in one kept buffer.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    at: Vec<(u32, u32)>,
}

impl Names {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.at.clear();
    }

    pub(super) fn push(&mut self, name: &CStr) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
        if let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(self.bytes.len())) {
            self.at.push((start, end));
        }
    }

    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.at
            .sort_unstable_by_key(|&(start, end)| &bytes[start as usize..end as usize]);
    }

    fn len(&self) -> usize {
        self.at.len()
    }

    fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.at.iter().filter_map(|&(start, end)| {
            CStr::from_bytes_with_nul(&self.bytes[start as usize..end as usize]).ok()
        })
    }
}
