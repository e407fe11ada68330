//! The stacks that are shown, as flame graph tools take them.

use stalltop_model::model::locks::Over;
use stalltop_model::{Name, printable};

use crate::msg::FlameGraph;
use crate::pane::Scene;
use crate::text;

use super::rows::{Key, Of};
use super::when;

/// The stacks behind a row (or all) for a flame graph; none where there is no stack.
pub(super) fn flame_graph(
    scene: &Scene<'_>,
    over: &Over<'_>,
    key: &Key,
    of: Of,
    what: &str,
) -> Option<FlameGraph> {
    let mut folded = Vec::new();
    match of {
        Of::Waits => {
            for sum in over.stacks.iter().filter(|s| key.has(s)) {
                let stack = sum.stack;
                folded.push(fold(&stack.comm, &stack.frames, None, sum.waits.wait_ns));
            }
        }
        Of::Samples => {
            let stacks = over.share.value().into_iter().flat_map(|s| &s.stacks);
            for sum in stacks.filter(|s| key.has_samples(s)) {
                let stack = sum.stack;
                let mark = stack
                    .suspected
                    .then_some("[interrupts off, lock suspected]");
                folded.push(fold(&stack.comm, &stack.frames, mark, sum.samples));
            }
        }
    }
    if folded.is_empty() {
        return None;
    }
    let (of, unit) = match of {
        Of::Waits => ("waits for kernel locks, by time", "ns"),
        Of::Samples => ("samples in lock slow paths", "samples"),
    };
    let host = scene.model.header().map_or(String::new(), |h| {
        format!(", {}", text::name(&h.host.hostname, 40))
    });
    Some(FlameGraph {
        title: format!("{what}: {of}{host}, {}", when(scene, over)),
        unit,
        folded,
    })
}

/// `comm;outermost;...;innermost weight`: the separator is taken out of names.
fn fold(comm: &str, frames: &[Name], mark: Option<&str>, weight: u64) -> String {
    let mut out = printable(comm).replace(';', ":");
    if out.is_empty() {
        out.push('-');
    }
    for frame in frames.iter().rev() {
        out.push(';');
        out.push_str(&printable(frame).replace(';', ":"));
    }
    if let Some(mark) = mark {
        out.push(';');
        out.push_str(mark);
    }
    out.push_str(&format!(" {weight}"));
    out
}
