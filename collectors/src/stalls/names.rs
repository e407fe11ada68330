//! Understanding with the kernel's own symbols.

use std::time::Instant;

use stalltop_model::Reading;
use stalltop_model::sample::Stall;
use stalltop_probes::SAMPLES_PER_SECOND;

use super::attribute::{Context, Evidence, attribute};
use super::kallsyms::Symbols;
use super::merge::merge;
use super::watch::{Seen, Understand};

/// Names culprits by `/proc/kallsyms`, asked for at the start.
pub(super) struct Names {
    symbols: Symbols,
    context: Context,
}

impl Names {
    /// `tick_ns` is the time between two ticks of the scheduler.
    pub(super) fn new(symbols: Symbols, tick_ns: u64) -> Self {
        Self {
            symbols,
            context: Context {
                tick_ns,
                sampler_ns: 1_000_000_000 / SAMPLES_PER_SECOND,
                own_tgid: std::process::id(),
            },
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
        let told = group.iter().filter_map(|seen| {
            let evidence = Evidence {
                event: &seen.event,
                samples: &seen.window,
                drained: seen.drained.as_ref(),
            };
            let mut told = attribute(evidence, &mut self.symbols, &self.context)?;
            told.stall.lost = told.stall.lost.max(seen.lost);
            Some(told)
        });
        merge(told.collect(), out);
    }
}
