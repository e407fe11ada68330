//! Understanding with the kernel's own symbols.

use std::time::Instant;

use stalltop_model::Reading;
use stalltop_model::sample::Stall;
use stalltop_probes::SAMPLES_PER_SECOND;

use super::attribute::{Context, Evidence, attribute};
use super::kallsyms::Symbols;
use super::merge::HoldBack;
use super::watch::{Seen, Understand};
use crate::env::Env;

/// Names culprits by `/proc/kallsyms`, which it reads when the first stall asks for it.
pub(super) struct Names {
    symbols: Symbols,
    context: Context,
    merge: HoldBack,
}

impl Names {
    /// `tick_ns` is the time between two ticks of the scheduler.
    pub(super) fn new(env: &Env, tick_ns: u64) -> Self {
        Self {
            symbols: Symbols::new(env),
            context: Context {
                tick_ns,
                sampler_ns: 1_000_000_000 / SAMPLES_PER_SECOND,
                own_tgid: std::process::id(),
            },
            merge: HoldBack::default(),
        }
    }
}

impl Understand for Names {
    fn is_ready(&mut self) -> bool {
        !self.symbols.poll(Instant::now())
    }

    fn symbols(&self) -> &Reading<()> {
        self.symbols.state()
    }

    fn understand(&mut self, group: &[Seen], out: &mut Vec<Stall>) {
        for seen in group {
            let evidence = Evidence {
                event: &seen.event,
                samples: &seen.window,
                drained: seen.drained.as_ref(),
            };
            if let Some(mut told) = attribute(evidence, &mut self.symbols, &self.context) {
                told.stall.lost = told.stall.lost.max(seen.lost);
                // The whole group is here: nothing is held back beyond it.
                out.extend(self.merge.push(seen.event.end_ns, told));
            }
        }
        while let Some(stall) = self.merge.flush() {
            out.push(stall);
        }
    }
}
