//! The distinct stacks of a stall, and its timeline.

use std::collections::HashMap;

use stalltop_model::Name;
use stalltop_model::sample::Seen;
use stalltop_probes::wire::stall::{FRAMES, NONE, StackSample, flag};

use super::window::{Span, View};
use super::{MAX_STACKS, MAX_TIMELINE, Who, comm};
use crate::stalls::kallsyms::Symbols;
use crate::stalls::stack::Stack;

/// How much of what was before and after is shown, at most.
const AROUND: u64 = 20_000_000;

/// Names of tasks, each made once.
#[derive(Default)]
pub(super) struct Comms(HashMap<[u64; 2], Name>);

impl Comms {
    pub(super) fn name(&mut self, words: [u64; 2]) -> Name {
        let name = self.0.entry(words).or_insert_with(|| comm(words));
        Name::clone(name)
    }
}

/// The distinct stacks, with how much of the window each stands for.
#[derive(Default)]
pub(super) struct Stacks {
    stacks: Vec<Stack>,
}

impl Stacks {
    /// Names the stacks of all views, and tells each view which one it has. A sample that was
    /// in a softirq by its stack alone goes to that vector.
    pub(super) fn read(views: &mut [View], samples: &[StackSample], symbols: &mut Symbols) -> Self {
        let mut all = Self::default();
        // By addresses first, then by names: what a stack means is what costs.
        let mut known: HashMap<(&[u64], u64, bool), Option<usize>> = HashMap::new();
        let mut named: HashMap<(Vec<Name>, bool), Option<usize>> = HashMap::new();
        for view in views.iter_mut().filter(|view| !view.user()) {
            let sample = &samples[view.index];
            let softirq = view.has(flag::IN_SOFTIRQ);
            let addresses = addresses(sample);
            view.stack = *known
                .entry((addresses, sample.ip, softirq))
                .or_insert_with(|| {
                    let frames = name(addresses, sample.ip, symbols);
                    *named
                        .entry((frames, softirq))
                        .or_insert_with_key(|(frames, _)| all.add(Stack::read(frames, softirq)))
                });
            if let (Who::Task(_), Some(at)) = (view.who, view.stack)
                && let Some(vector) = all.stacks[at].vector
            {
                view.who = Who::Vector(vector);
            }
        }
        all
    }

    fn add(&mut self, stack: Stack) -> Option<usize> {
        if stack.frames.is_empty() {
            return None;
        }
        let known = self.stacks.iter().position(|known| *known == stack);
        Some(known.unwrap_or_else(|| {
            self.stacks.push(stack);
            self.stacks.len() - 1
        }))
    }

    pub(super) fn stack(&self, at: usize) -> &Stack {
        &self.stacks[at]
    }

    /// Keeps those of greatest weight, the heaviest first; gives the new number of each.
    fn keep(&mut self, views: &[&View]) -> Vec<Option<u32>> {
        let mut weights = vec![(0u64, false); self.stacks.len()];
        for view in views {
            if let Some(at) = view.stack {
                weights[at].0 = weights[at].0.saturating_add(view.weight);
                weights[at].1 = true;
            }
        }
        let mut order: Vec<usize> = (0..weights.len()).filter(|at| weights[*at].1).collect();
        order.sort_by_key(|at| std::cmp::Reverse(weights[*at].0));
        order.truncate(MAX_STACKS);
        let mut number = vec![None; weights.len()];
        let mut kept = Vec::with_capacity(order.len());
        for (new, old) in order.into_iter().enumerate() {
            number[old] = u32::try_from(new).ok();
            kept.push(std::mem::take(&mut self.stacks[old]));
        }
        self.stacks = kept;
        number
    }

    pub(super) fn into_frames(self) -> Vec<Vec<Name>> {
        self.stacks.into_iter().map(|stack| stack.frames).collect()
    }
}

/// The addresses of a sample's stack; without one, the interrupted instruction of the kernel.
fn addresses(sample: &StackSample) -> &[u64] {
    if sample.frames == NONE {
        let kernel = sample.flags & flag::REGS != 0 && sample.ip != 0;
        return if kernel {
            std::slice::from_ref(&sample.ip)
        } else {
            &[]
        };
    }
    let frames = usize::try_from(sample.frames).unwrap_or(FRAMES);
    &sample.stack[..frames.min(FRAMES)]
}

fn name(addresses: &[u64], ip: u64, symbols: &mut Symbols) -> Vec<Name> {
    let addresses = addresses.iter().filter(|address| **address != 0);
    let names = addresses.map(|address| {
        // All but the interrupted instruction are return addresses.
        let within = if *address == ip {
            *address
        } else {
            address - 1
        };
        let named = symbols.name(within);
        if named.known {
            named.name
        } else {
            format!("0x{address:016x}").into()
        }
    });
    names.collect()
}

/// The timeline, oldest first, and the stacks that it refers to.
pub(super) fn rows(
    views: &[View],
    samples: &[StackSample],
    span: &Span,
    stacks: &mut Stacks,
    names: &mut Comms,
) -> Vec<Seen> {
    let around = (span.len() / 4).clamp(AROUND / 2, AROUND);
    let from = span.start.saturating_sub(around);
    let to = span.end.saturating_add(around);
    let shown: Vec<&View> = views
        .iter()
        .filter(|view| view.weight > 0 || view.at >= from && view.at <= to)
        .collect();
    let number = stacks.keep(&shown);
    let every = shown.len().div_ceil(MAX_TIMELINE).max(1);
    shown
        .chunks(every)
        .filter_map(|chunk| {
            // Of several the one that stands for most, with the weight of all.
            let view = chunk.iter().max_by_key(|view| view.weight)?;
            Some(Seen {
                offset_ns: offset(view.at, span.start),
                weight_ns: chunk.iter().map(|view| view.weight).sum(),
                pid: view.pid,
                comm: names.name(samples[view.index].comm),
                vector: match view.who {
                    Who::Vector(vector) => Some(vector),
                    Who::Task(_) => None,
                },
                user: view.user(),
                stack: view.stack.and_then(|at| number[at]),
            })
        })
        .collect()
}

fn offset(at: u64, start: u64) -> i64 {
    let distance = i64::try_from(at.abs_diff(start)).unwrap_or(i64::MAX);
    if at < start { -distance } else { distance }
}
