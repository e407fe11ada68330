//! Locks, functions and probes as a person reads them.

use stalltop_model::model::locks::frames::{self, Probe};
use stalltop_model::sample::{BpfProgram, Waits};
use stalltop_model::{Name, Reading, Reason};

use crate::pane::Scene;
use crate::text::{self, NONE};

/// What marks a function, or a stack, that somebody's probe put there.
pub(super) const PROBE: &str = "◆";

/// What a lock is called: its name, else its address, else why it has neither.
pub(super) fn lock(name: &Reading<Name>, address: u64) -> String {
    match (name.as_ref(), address) {
        (Ok(name), _) => text::name(name, 120).into_owned(),
        (Err(reason), 0) => unnamed(reason).to_owned(),
        (Err(_), address) => format!("{address:#x}"),
    }
}

/// The same where there is room to say why it has no name.
pub(super) fn lock_in_full(name: &Reading<Name>, address: u64) -> String {
    match (name.reason(), address) {
        (Some(reason), 1..) => format!("{address:#x} {}", unnamed(reason)),
        _ => lock(name, address),
    }
}

/// Why a lock has no name, in a few words.
fn unnamed(reason: &Reason) -> &'static str {
    match reason {
        Reason::NoCapability { .. } | Reason::Io { .. } => "(names may not be read)",
        Reason::NotAsked | Reason::Starting => "(no name yet)",
        Reason::NotBuilt { .. } => "(kallsyms has no data symbols)",
        Reason::KernelDoesNotSay { .. } => "(made while the kernel ran)",
        _ => "(no symbol)",
    }
}

/// Time waited per second: `3.1 s/s`, `41.3 ms/s`.
pub(super) fn wait_per_s(per_s: Option<f64>) -> String {
    match per_s {
        None => NONE.to_owned(),
        Some(s) => match (s.max(0.0) * 1e9).round() as u64 {
            0 => "0".to_owned(),
            ns => format!("{}/s", text::duration(ns)),
        },
    }
}

/// The mean wait.
pub(super) fn mean(waits: &Waits) -> String {
    match waits.wait_ns.checked_div(waits.count) {
        None => NONE.to_owned(),
        Some(ns) => text::duration(ns),
    }
}

/// A BPF program's name is all of its symbol that a person needs.
pub(super) fn function(frame: &str, max: usize) -> String {
    let short = match frames::is_program(frame) {
        true => frame.get(26..).unwrap_or("").trim_start_matches('_'),
        false => return text::name(frame, max).into_owned(),
    };
    match short.trim_end_matches("[bpf]").trim_end() {
        "" => text::name(frame, max).into_owned(),
        short => text::name(&format!("bpf {short}"), max).into_owned(),
    }
}

/// Who is behind a stack's programs: `netdata[812] prog 41 tcp_sendmsg`; else what kind of
/// probe it runs through.
pub(super) fn probe(scene: &Scene<'_>, frames: &[Name], programs: &[u32]) -> Option<String> {
    let known = programs.first().map(|id| (*id, program(scene, *id)));
    match known {
        Some((id, Some(program))) => {
            // The holder first: it is what can be stopped, and columns are narrow.
            let holder = match (program.ours, program.holders.first()) {
                (true, _) => "stalltop ".to_owned(),
                (_, Some(h)) => format!("{}[{}] ", text::name(&h.comm, 20), h.pid),
                (_, None) => String::new(),
            };
            Some(format!(
                "{holder}prog {id} {}",
                text::name(&program.name, 20)
            ))
        }
        Some((id, None)) => Some(format!("prog {id}")),
        None => match frames::probe_of(frames)? {
            Probe::Bpf => Some("bpf".to_owned()),
            probe => Some(probe.as_str().to_owned()),
        },
    }
}

/// A program that the tracing state knows.
pub(super) fn program<'a>(scene: &Scene<'a>, id: u32) -> Option<&'a BpfProgram> {
    let bpf = scene.tracing().bpf.value()?;
    bpf.programs.iter().find(|p| p.id == id)
}

/// ` of netdata[812]`, ` pinned at ...`, or that nobody is known to hold it.
pub(super) fn held_by(program: &BpfProgram) -> String {
    if program.ours {
        return " of stalltop".to_owned();
    }
    match (program.holders.first(), program.pins.first()) {
        (Some(holder), _) => {
            let more = match program
                .holders
                .iter()
                .filter(|h| h.pid != holder.pid)
                .count()
            {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            format!(" of {}[{}]{more}", text::name(&holder.comm, 20), holder.pid)
        }
        (None, Some(pin)) => format!(" pinned at {}", text::path(pin, 40)),
        (None, None) => ", holder not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_called_by_their_names() {
        let full = "bpf_prog_6deef7357e7b4530_count_entries [bpf]";
        assert_eq!(function(full, 40), "bpf count_entries");
        assert_eq!(
            function("bpf_prog_6deef7357e7b4530 [bpf]", 60),
            "bpf_prog_6deef7357e7b4530 [bpf]"
        );
        assert_eq!(function("bpf_prog_put", 60), "bpf_prog_put");
        assert_eq!(function("a\x1b[2J", 60), "a^[[2J");
    }

    #[test]
    fn rates_of_time_have_their_unit() {
        assert_eq!(wait_per_s(None), "–");
        assert_eq!(wait_per_s(Some(0.0)), "0");
        assert_eq!(wait_per_s(Some(3.12)), "3.1 s/s");
        assert_eq!(wait_per_s(Some(0.0413)), "41.3 ms/s");
        assert_eq!(wait_per_s(Some(1e-7)), "100 ns/s");
    }
}
