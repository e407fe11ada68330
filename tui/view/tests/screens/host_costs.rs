//! What the made-up host's probes cost, window by window.

use std::sync::Arc;

use stalltop_model::sample::{
    BpfMap, CostMethod, Costs, DynamicCost, Growth, InstanceCost, PerHit, ProgramCost,
};
use stalltop_model::{Reading, Reason};

use super::{BOOT_NS, Kind, S};

/// A window is this many ticks long.
const WINDOW: u64 = 5;

pub(crate) fn program(id: u32, runs_per_s: f64, ns: f64) -> ProgramCost {
    let ran = runs_per_s > 0.0;
    let not = || Reason::NotSampled {
        what: "a run of the program".into(),
    };
    ProgramCost {
        id,
        windows: 12,
        runs_per_s,
        runs_deviation: Reading::Value(runs_per_s * 0.02),
        ns_per_run: if ran {
            Reading::Value(ns)
        } else {
            Reading::Off(not())
        },
        ns_deviation: if ran {
            Reading::Value(ns * 0.01)
        } else {
            Reading::Off(not())
        },
        share: runs_per_s * ns / 1e9,
        misses_per_s: Reading::Value(if id == 41 { 3.0 } else { 0.0 }),
        growth: (id == 41).then_some(Growth {
            few_cpus: 0.4,
            few_ns: 317.0,
            many_cpus: 3.6,
            many_ns: 1_930.0,
        }),
    }
}

fn map(id: u32, programs: &[u32]) -> BpfMap {
    BpfMap {
        id,
        kind: if programs.len() > 1 {
            "hash"
        } else {
            "percpu_array"
        }
        .into(),
        name: "conns".into(),
        key_bytes: 16,
        value_bytes: 24,
        max_entries: 65_536,
        programs: programs.to_vec(),
        contends: programs.len() > 1,
    }
}

pub(crate) fn at(kind: Kind, tick: u64) -> Reading<Arc<Costs>> {
    if kind.bare {
        return Reading::Off(Reason::NoCapability {
            need: "CAP_BPF".into(),
        });
    }
    if tick < WINDOW {
        return Reading::Off(Reason::Starting);
    }
    let mut costs = Costs {
        at_ns: BOOT_NS + tick / WINDOW * WINDOW * S,
        method: Reading::Value(CostMethod::Windows {
            windows: 12,
            window_ns: 100_000_000,
            duty: 0.05,
        }),
        programs: vec![program(7, 40_000.0, 61.0)],
        ..Costs::default()
    };
    if kind.sick {
        costs.programs.extend([
            program(41, 812_004.0, 1_930.0),
            program(42, 401_220.0, 390.0),
            program(43, 12.4, 811.0),
            program(44, 0.0, 0.0),
        ]);
        costs.maps = vec![
            map(141, &[41]),
            map(142, &[41, 42]),
            map(143, &[42]),
            map(144, &[43]),
        ];
        costs.dynamic.push(DynamicCost {
            group: "kprobes".into(),
            name: "openat".into(),
            hits_per_s: Reading::Value(1_204.0),
            misses_per_s: Reading::Value(0.0),
            share: Reading::Value(0.000_9),
        });
        costs.instances.push(InstanceCost {
            name: "".into(),
            events_per_s: Reading::Value(96_000.0),
            lost_per_s: Reading::Value(96_000.0),
            share: Reading::Value(0.006),
        });
        costs.per_hit = [("kprobe", 740.0), ("ftrace event", 62.0)]
            .map(|(kind, ns)| PerHit {
                kind: kind.into(),
                ns,
                from: "measured on 6.1, emulated".into(),
            })
            .into();
    }
    Reading::Value(Arc::new(costs))
}
