//! Merged call stacks as a tree: callers above what they call, widths by weight.

use std::cmp::Reverse;
use std::collections::HashMap;

use stalltop_model::Name;
use stalltop_model::model::locks::frames::{self, Probe};
use stalltop_model::sample::Waits;

/// How many functions a tree has at most; the heaviest stacks come first, what does not fit any
/// more is told.
const NODES: usize = 100_000;
/// How deep a stack is at most: more than the kernel unwinds (`perf_event_max_stack`, 127).
const DEPTH: usize = 512;

/// One function with the callers above it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its name; empty for the root, which stands for all stacks.
    pub name: Name,
    /// Who called it; the root is its own.
    pub parent: usize,
    /// What it called, the heaviest first.
    pub children: Vec<usize>,
    /// How many functions are above it.
    pub depth: usize,
    /// What all stacks through it weigh: ns, or samples.
    pub weight: u64,
    /// Of that, where it is the innermost function.
    pub own: u64,
    /// Waits (or samples) of all stacks through it.
    pub count: u64,
    /// The longest wait, ns.
    pub longest_ns: u64,
    /// Whose probe it belongs to.
    pub probe: Option<Probe>,
}

/// The tree; node 0 is the root.
#[derive(Clone, Debug)]
pub(super) struct Flame {
    nodes: Vec<Node>,
    /// What stacks weigh that found no room.
    left_out: u64,
}

impl Default for Flame {
    fn default() -> Self {
        Self::of(std::iter::empty())
    }
}

impl Flame {
    /// Merges stacks, innermost function first, each with what it weighs: for samples the time
    /// waited is their number.
    pub(super) fn of<'a>(stacks: impl Iterator<Item = (&'a [Name], Waits)>) -> Self {
        let mut out = Self {
            nodes: vec![Node {
                name: "".into(),
                parent: 0,
                children: Vec::new(),
                depth: 0,
                weight: 0,
                own: 0,
                count: 0,
                longest_ns: 0,
                probe: None,
            }],
            left_out: 0,
        };
        let mut at: HashMap<(usize, &'a str), usize> = HashMap::new();
        for (frames, waits) in stacks {
            let depth = frames.len().min(DEPTH);
            if out.nodes.len() + depth > NODES {
                out.left_out = out.left_out.saturating_add(waits.wait_ns);
                continue;
            }
            let mut node = 0;
            out.add(node, &waits);
            // Of a stack that is too deep, the functions nearest to the lock.
            for frame in frames.iter().take(depth).rev() {
                let child = *at.entry((node, frame)).or_insert_with(|| {
                    out.nodes.push(Node {
                        name: frame.clone(),
                        parent: node,
                        children: Vec::new(),
                        depth: out.nodes[node].depth + 1,
                        weight: 0,
                        own: 0,
                        count: 0,
                        longest_ns: 0,
                        probe: frames::probe(frame),
                    });
                    let child = out.nodes.len() - 1;
                    out.nodes[node].children.push(child);
                    child
                });
                node = child;
                out.add(node, &waits);
            }
            let own = &mut out.nodes[node].own;
            *own = own.saturating_add(waits.wait_ns);
        }
        for at in 0..out.nodes.len() {
            let mut children = std::mem::take(&mut out.nodes[at].children);
            children.sort_by(|a, b| {
                let key = |at: &usize| (Reverse(out.nodes[*at].weight), &out.nodes[*at].name);
                key(a).cmp(&key(b))
            });
            out.nodes[at].children = children;
        }
        out
    }

    fn add(&mut self, node: usize, waits: &Waits) {
        let node = &mut self.nodes[node];
        node.weight = node.weight.saturating_add(waits.wait_ns);
        node.count = node.count.saturating_add(waits.count);
        node.longest_ns = node.longest_ns.max(waits.longest_ns);
    }

    /// Whether there is no stack in it.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// A node; the root where there is none of that number.
    pub(super) fn node(&self, at: usize) -> &Node {
        self.nodes.get(at).unwrap_or(&self.nodes[0])
    }

    /// What stacks weigh that found no room.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// A node's part of all, 0 to 1. Where nothing has a weight, waits count.
    pub(super) fn share(&self, at: usize) -> f64 {
        let (root, node) = (self.node(0), self.node(at));
        match root.weight {
            0 => node.count as f64 / root.count.max(1) as f64,
            all => node.weight as f64 / all as f64,
        }
    }

    /// The names from the root's child down to a node.
    pub(super) fn path(&self, mut at: usize) -> Vec<Name> {
        let mut out = Vec::new();
        while at != 0 {
            let node = self.node(at);
            out.push(node.name.clone());
            at = node.parent;
        }
        out.reverse();
        out
    }

    /// The node at the end of a path; where the tree has grown another way, as far as it goes.
    pub(super) fn find(&self, path: &[Name]) -> usize {
        let mut at = 0;
        for name in path {
            let next = self.node(at).children.iter();
            match next.copied().find(|c| self.node(*c).name == *name) {
                Some(child) => at = child,
                None => break,
            }
        }
        at
    }

    /// The innermost function on the heaviest way down from a node.
    pub(super) fn deepest(&self, mut at: usize) -> usize {
        while let Some(child) = self.node(at).children.first() {
            at = *child;
        }
        at
    }

    /// The neighbour of a node among those that its caller called.
    pub(super) fn sibling(&self, at: usize, forward: bool) -> usize {
        let of = &self.node(self.node(at).parent).children;
        let Some(place) = of.iter().position(|c| *c == at) else {
            return at;
        };
        let next = match forward {
            true => of.get(place + 1),
            false => place.checked_sub(1).and_then(|p| of.get(p)),
        };
        next.copied().unwrap_or(at)
    }

    /// Whether a node lies below another, or is it.
    pub(super) fn is_below(&self, mut at: usize, above: usize) -> bool {
        while self.node(at).depth > self.node(above).depth {
            at = self.node(at).parent;
        }
        at == above
    }

    /// Where each function stands when `root` takes `width` cells: by level below it, the nodes
    /// with their first cell and how many they take; those of less than a cell are left out.
    pub(super) fn layout(&self, root: usize, width: usize) -> Vec<Vec<(usize, usize, usize)>> {
        let mut out = vec![vec![(root, 0, width)]];
        loop {
            let mut level = Vec::new();
            for (at, from, cells) in out.last().into_iter().flatten() {
                let node = self.node(*at);
                let all = self.weight(*at).max(1) as f64;
                let edge = |sum: u64| from + (sum as f64 / all * *cells as f64).round() as usize;
                let mut sum = 0u64;
                for child in &node.children {
                    let begin = edge(sum);
                    sum = sum.saturating_add(self.weight(*child));
                    let end = edge(sum).min(from + cells);
                    if end > begin {
                        level.push((*child, begin, end - begin));
                    }
                }
            }
            if level.is_empty() {
                return out;
            }
            out.push(level);
        }
    }

    /// What widths go by.
    fn weight(&self, at: usize) -> u64 {
        match self.node(0).weight {
            0 => self.node(at).count,
            _ => self.node(at).weight,
        }
    }

    /// Every function below `root` with it, callers before what they call.
    pub(super) fn lines(&self, root: usize) -> Vec<usize> {
        let mut out = Vec::new();
        let mut todo = vec![root];
        while let Some(at) = todo.pop() {
            out.push(at);
            todo.extend(self.node(at).children.iter().rev());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks(of: &[(&str, u64)]) -> Vec<(Vec<Name>, Waits)> {
        let one = |(frames, ns): &(&str, u64)| {
            let frames = frames.split(' ').rev().map(Name::from).collect();
            let waits = Waits {
                count: 1,
                wait_ns: *ns,
                longest_ns: *ns,
            };
            (frames, waits)
        };
        of.iter().map(one).collect()
    }

    fn flame(of: &[(&str, u64)]) -> Flame {
        let stacks = stacks(of);
        Flame::of(stacks.iter().map(|(frames, waits)| (&frames[..], *waits)))
    }

    #[test]
    fn callers_are_above_and_what_is_common_is_merged() {
        let flame = flame(&[
            ("entry read vfs lock", 60),
            ("entry write vfs lock", 30),
            ("entry read vfs", 10),
        ]);
        assert_eq!(flame.node(0).weight, 100);
        let entry = flame.node(0).children[0];
        assert_eq!(flame.node(entry).count, 3);
        let read = flame.node(entry).children[0];
        assert_eq!(
            (&*flame.node(read).name, flame.node(read).weight),
            ("read", 70)
        );
        let vfs = flame.node(read).children[0];
        assert_eq!((flame.node(vfs).own, flame.node(vfs).weight), (10, 70));
        assert_eq!(flame.path(vfs).join(">"), "entry>read>vfs");
        assert_eq!(flame.find(&flame.path(vfs)), vfs);
        assert_eq!(flame.share(read), 0.7);
        assert_eq!(&*flame.node(flame.deepest(0)).name, "lock");
        assert_eq!(&*flame.node(flame.sibling(read, true)).name, "write");
        assert_eq!(flame.sibling(read, false), read);
        assert!(flame.is_below(vfs, entry) && !flame.is_below(entry, vfs));
        assert_eq!(flame.lines(0).len(), 8);
    }

    #[test]
    fn recursion_is_deep_and_not_endless() {
        let flame = flame(&[("a a a b a", 4)]);
        let names: Vec<_> = flame.path(flame.deepest(0));
        assert_eq!(names.join(" "), "a a a b a");
        assert_eq!(flame.layout(0, 10).len(), 6);
    }

    #[test]
    fn widths_never_leave_their_caller() {
        let many: Vec<(String, u64)> = (0..50).map(|i| (format!("e f{i} g"), i * i)).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(s, n)| (&**s, *n)).collect();
        let flame = flame(&many);
        for width in [0, 1, 7, 80, 333] {
            for level in flame.layout(0, width) {
                let mut end = 0;
                for (at, from, cells) in level {
                    assert!(from >= end && from + cells <= width, "{width}");
                    assert!(cells > 0 || at == 0);
                    end = from + cells;
                }
            }
        }
    }

    #[test]
    fn what_took_no_time_counts_by_waits() {
        let flame = flame(&[("a b", 0), ("a c", 0)]);
        assert_eq!(flame.share(flame.find(&["a".into(), "b".into()])), 0.5);
        assert_eq!(flame.layout(0, 10)[2].len(), 2);
        assert!(super::Flame::default().is_empty());
        assert_eq!(super::Flame::default().layout(0, 10), [[(0, 0, 10)]]);
    }

    #[test]
    fn absurd_stacks_are_bounded() {
        let deep: Vec<Name> = (0..100_000).map(|i| Name::from(format!("f{i}"))).collect();
        let waits = Waits {
            count: u64::MAX,
            wait_ns: u64::MAX,
            longest_ns: u64::MAX,
        };
        let flame = Flame::of((0..300).map(|i| (&deep[i..], waits)));
        assert!(flame.lines(0).len() <= NODES);
        assert_eq!(flame.node(flame.deepest(0)).depth, DEPTH);
        assert_eq!(&*flame.node(flame.deepest(0)).name, "f0");
        assert!(flame.left_out() > 0);
        assert!(flame.layout(0, 200).len() <= DEPTH + 1);
    }
}
