//! What `stalltop audit` says of costs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use stalltop_model::printable;
use stalltop_model::sample::{
    BpfMap, BpfObjects, BpfProgram, CostMethod, Costs, ProgramCost, Tracing,
};
use stalltop_model::units::{Count, Duration};
use stalltop_model::{Reading, Reason};

/// Maps listed unless all are asked for: those that make CPUs wait, the most shared first.
const MAPS: usize = 8;

/// `20,000 runs/s (±300) of 35 ns (±1), 0.07 % of one CPU`; nothing where it was not measured.
pub(super) fn of_program(costs: &Costs, id: u32) -> String {
    match costs.programs.iter().find(|p| p.id == id) {
        Some(cost) => program(cost),
        None => String::new(),
    }
}

fn program(cost: &ProgramCost) -> String {
    let Some(ns) = cost.ns_per_run.get() else {
        return ", did not run meanwhile".to_owned();
    };
    let mut text = format!(
        ", {} runs/s{} of {} ns{}, {}",
        count(cost.runs_per_s),
        spread(&cost.runs_deviation),
        count(ns),
        spread(&cost.ns_deviation),
        share(cost.share),
    );
    if let Some(misses) = cost.misses_per_s.get().filter(|n| *n >= 0.5) {
        text.push_str(&format!(", {} missed/s", count(misses)));
    }
    if let Some(growth) = cost.growth {
        text.push_str(&format!(
            ", {} ns with {:.1} CPUs busy and {} ns with {:.1}",
            count(growth.few_ns),
            growth.few_cpus,
            count(growth.many_ns),
            growth.many_cpus,
        ));
    }
    text
}

/// `, 1,200 hits/s, about 0.09 % of one CPU`.
pub(super) fn of_dynamic(costs: &Costs, group: &str, name: &str) -> String {
    let is = |d: &&stalltop_model::sample::DynamicCost| &*d.group == group && &*d.name == name;
    let Some(cost) = costs.dynamic.iter().find(is) else {
        return String::new();
    };
    estimated("hits/s", &cost.hits_per_s, &cost.share)
}

/// `, 30,000 events/s, about 0.6 % of one CPU`.
pub(super) fn of_instance(costs: &Costs, name: &str) -> String {
    let Some(cost) = costs.instances.iter().find(|i| &*i.name == name) else {
        return String::new();
    };
    let mut text = estimated("events/s", &cost.events_per_s, &cost.share);
    if let Some(lost) = cost.lost_per_s.get().filter(|n| *n >= 0.5) {
        text.push_str(&format!(", {} of them lost unread", count(lost)));
    }
    text
}

fn estimated(what: &str, rate: &Reading<f64>, part: &Reading<f64>) -> String {
    match (rate.get(), part.get()) {
        (Some(rate), _) if rate < 0.5 => String::new(),
        (Some(rate), Some(part)) => {
            format!(", {} {what}, about {}", count(rate), share(part))
        }
        (Some(rate), None) => format!(", {} {what}", count(rate)),
        (None, _) => String::new(),
    }
}

/// How it was measured, then who holds what, the dearest first, with totals.
pub(super) fn holders(out: &mut impl Write, tracing: &Tracing, costs: &Costs) -> io::Result<()> {
    writeln!(out, "COSTS OF BPF PROGRAMS, by who holds them")?;
    match &costs.method {
        Reading::Value(method) => writeln!(out, "  {}", how(method))?,
        Reading::Off(reason) => return super::not_known(out, "", reason),
    }
    let Some(bpf) = tracing.bpf.value() else {
        return Ok(());
    };
    let mut groups: Vec<Group<'_>> = groups(bpf, costs);
    groups.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.by.cmp(&b.by)));
    for group in &groups {
        writeln!(out, "  {}", group.line())?;
    }
    if groups.is_empty() {
        writeln!(out, "  none")?;
    }
    Ok(())
}

fn how(method: &CostMethod) -> String {
    match method {
        CostMethod::Windows {
            windows, window_ns, ..
        } => format!(
            "from {windows} windows of {} of the kernel's run-time statistics, extrapolated; \
             dispatch is not in it",
            Duration(*window_ns)
        ),
        CostMethod::Sysctl => "from the kernel's run-time statistics, which \
            kernel.bpf_stats_enabled has on already; dispatch is not in it"
            .to_owned(),
    }
}

/// Programs of one holder.
struct Group<'a> {
    by: String,
    programs: Vec<&'a BpfProgram>,
    share: f64,
}

impl Group<'_> {
    /// `netdata[812]: 18 kprobes, 9 programs, 173 % of one CPU`.
    fn line(&self) -> String {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for attachment in self.programs.iter().flat_map(|p| &p.attached) {
            *kinds.entry(&*attachment.kind).or_default() += 1;
        }
        let mut text = format!("{}: ", self.by);
        for (kind, n) in kinds {
            text.push_str(&format!("{}, ", several(n, &printable(kind))));
        }
        text.push_str(&several(self.programs.len(), "program"));
        text.push_str(&format!(", {}", share(self.share)));
        text
    }
}

fn several(n: usize, what: &str) -> String {
    let s = if n == 1 || what.ends_with('s') {
        ""
    } else {
        "s"
    };
    format!("{n} {what}{s}")
}

/// A program that several processes hold counts for the one with the lowest pid: a child inherits
/// its parent's descriptors.
fn groups<'a>(bpf: &'a BpfObjects, costs: &Costs) -> Vec<Group<'a>> {
    let shares: BTreeMap<u32, f64> = costs.programs.iter().map(|p| (p.id, p.share)).collect();
    let mut groups: BTreeMap<String, Group<'a>> = BTreeMap::new();
    for program in &bpf.programs {
        let by = match program.holders.iter().min_by_key(|h| h.pid) {
            Some(holder) => super::holders(std::slice::from_ref(holder)),
            None if !program.pins.is_empty() => "held by pins only".to_owned(),
            None => "no process".to_owned(),
        };
        let group = groups.entry(by.clone()).or_insert_with(|| Group {
            by,
            programs: Vec::new(),
            share: 0.0,
        });
        group.programs.push(program);
        group.share += shares.get(&program.id).copied().unwrap_or(0.0);
    }
    groups.into_values().collect()
}

/// The maps that can make CPUs wait, those that most programs share first.
pub(super) fn maps(out: &mut impl Write, costs: &Costs, all: bool) -> io::Result<()> {
    let mut maps: Vec<&BpfMap> = costs.maps.iter().filter(|m| m.contends).collect();
    if maps.is_empty() {
        return Ok(());
    }
    maps.sort_by_key(|m| (std::cmp::Reverse(m.programs.len()), m.id));
    writeln!(out, "BPF MAPS that writers of several CPUs wait for")?;
    let listed = if all { maps.len() } else { MAPS };
    for map in maps.iter().take(listed) {
        let ids: Vec<_> = map.programs.iter().map(u32::to_string).collect();
        let plural = if ids.len() == 1 { "" } else { "s" };
        writeln!(
            out,
            "{:>7} {} {}  {} entries, of program{plural} {}",
            map.id,
            printable(&map.kind),
            printable(&map.name),
            Count(u64::from(map.max_entries)),
            ids.join(", "),
        )?;
    }
    let more = maps.len().saturating_sub(listed) as u64 + costs.maps_left_out;
    if more > 0 {
        writeln!(out, "  and {} more", Count(more))?;
    }
    Ok(())
}

/// What estimates are made of, where one was made.
pub(super) fn estimates(out: &mut impl Write, costs: &Costs) -> io::Result<()> {
    let some = |rate: &Reading<f64>| rate.get().is_some_and(|n| n >= 0.5);
    let made = costs.dynamic.iter().any(|d| some(&d.hits_per_s))
        || costs.instances.iter().any(|i| some(&i.events_per_s));
    if !made {
        return Ok(());
    }
    let figures: Vec<String> = (costs.per_hit.iter())
        .map(|hit| {
            let ns = count(hit.ns);
            format!(
                "{} {ns} ns ({})",
                printable(&hit.kind),
                printable(&hit.from)
            )
        })
        .collect();
    writeln!(out, "  estimates take for one hit: {}", figures.join(", "))
}

/// A deviation where there is one: one window has none.
fn spread(deviation: &Reading<f64>) -> String {
    match deviation {
        Reading::Value(deviation) => format!(" (±{})", count(*deviation)),
        Reading::Off(Reason::Starting | Reason::NotSampled { .. }) => String::new(),
        Reading::Off(reason) => format!(" ({})", printable(&reason.to_string())),
    }
}

fn count(n: f64) -> Count {
    Count(n.round().max(0.0) as u64)
}

/// `173 % of one CPU`; small shares with as many places as they need to be no zero.
fn share(of_one: f64) -> String {
    let percent = of_one * 100.0;
    match percent {
        p if p >= 10.0 => format!("{p:.0} % of one CPU"),
        p if p >= 1.0 => format!("{p:.1} % of one CPU"),
        p if p >= 0.005 || p == 0.0 => format!("{p:.2} % of one CPU"),
        _ => "under 0.01 % of one CPU".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use stalltop_model::sample::{Attachment, HeldBy, Holder};

    use super::*;

    fn held(id: u32, pid: u32, comm: &str, kinds: &[&str]) -> BpfProgram {
        let attach = |kind: &&str| Attachment {
            kind: (*kind).into(),
            target: "tcp_sendmsg".into(),
            link: None,
        };
        BpfProgram {
            id,
            kind: "kprobe".into(),
            name: "p".into(),
            tag: "00".into(),
            loaded_at_ns: 1,
            uid: 0,
            maps: Vec::new(),
            attached: kinds.iter().map(attach).collect(),
            holders: vec![Holder {
                pid,
                comm: comm.into(),
                cmdline: comm.into(),
                owner: Default::default(),
                by: HeldBy::Link,
            }],
            pins: Vec::new(),
            ours: false,
        }
    }

    #[test]
    fn programs_are_summed_by_holder_the_dearest_first() {
        let cost = |id, share| ProgramCost {
            id,
            windows: 2,
            share,
            ..ProgramCost::default()
        };
        let costs = Costs {
            method: Reading::Value(CostMethod::Sysctl),
            programs: vec![cost(1, 0.93), cost(2, 0.8), cost(3, 0.000_01)],
            ..Costs::default()
        };
        let tracing = Tracing {
            bpf: Reading::Value(BpfObjects {
                programs: vec![
                    held(3, 9, "x\x1b[2J", &["tp_btf"]),
                    held(1, 812, "netdata", &["kprobe", "kretprobe"]),
                    held(2, 812, "netdata", &["kprobe"]),
                ],
                links: Vec::new(),
                holders: Reading::Value(()),
            }),
            ..Tracing::default()
        };
        let mut out = Vec::new();
        holders(&mut out, &tracing, &costs).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            lines[0],
            "  netdata[812]: 2 kprobes, 1 kretprobe, 2 programs, 173 % of one CPU"
        );
        assert!(lines[1].contains("1 program, under 0.01 % of one CPU"));
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn what_did_not_run_has_no_time() {
        let mut cost = ProgramCost {
            ns_per_run: Reading::Off(Reason::Starting),
            ..ProgramCost::default()
        };
        assert_eq!(program(&cost), ", did not run meanwhile");
        cost = ProgramCost {
            runs_per_s: 20_000.4,
            runs_deviation: Reading::Value(312.0),
            ns_per_run: Reading::Value(35.2),
            ns_deviation: Reading::Off(Reason::Starting),
            share: 0.000_704,
            misses_per_s: Reading::Value(3.0),
            ..cost
        };
        assert_eq!(
            program(&cost),
            ", 20,000 runs/s (±312) of 35 ns, 0.07 % of one CPU, 3 missed/s"
        );
    }
}
