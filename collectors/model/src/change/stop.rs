//! Stopping a process: how it is named, and what came of it.

use super::{Entry, Request, StopSignal};
use crate::{Reading, printable, units};

/// The row of an effect that says whether the process runs.
pub const RUNS: &str = "process runs";

/// The process whose `/proc/PID/stat` is `path`.
pub fn pid_of(path: &str) -> Option<u32> {
    let pid = path.strip_prefix("/proc/")?.strip_suffix("/stat")?;
    let plain = !pid.starts_with('0') && pid.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| pid.parse().ok()).flatten()
}

/// Whether a journaled signal ended its process; `None` for what is no such entry, or was not
/// looked at.
pub fn exited(entry: &Entry) -> Option<bool> {
    let row = entry
        .effect
        .as_ref()?
        .rows
        .iter()
        .find(|r| &*r.what == RUNS);
    let Request::Stop { .. } = entry.plan.request else {
        return None;
    };
    row?.after.get().map(|runs| runs == 0)
}

/// What came of a signal, in a sentence; `None` for what is no such entry.
pub fn outcome(entry: &Entry) -> Option<String> {
    let Request::Stop { pid, signal } = entry.plan.request else {
        return None;
    };
    let signal = signal.unwrap_or(StopSignal::Term);
    let took = units::Duration(entry.effect.as_ref()?.took_ns);
    Some(match exited(entry) {
        Some(true) => format!("process {pid} exited {took} after {}", signal.as_str()),
        Some(false) if signal == StopSignal::Term => format!(
            "process {pid} still runs {took} after TERM: the next step is stalltop stop {pid} --kill"
        ),
        Some(false) => format!(
            "process {pid} still runs {took} after KILL: it waits in the kernel and ends once that lets it"
        ),
        None => format!("whether process {pid} exited is not known"),
    })
}

/// What was measured of it, a line each.
pub fn figures(entry: &Entry) -> Vec<String> {
    let show = |reading: &Reading<u64>| match reading.as_ref() {
        Ok(n) => units::Count(*n).to_string(),
        Err(reason) => format!("not known ({reason})"),
    };
    let rows = entry.effect.iter().flat_map(|e| &e.rows);
    rows.filter(|row| &*row.what != RUNS)
        .map(|row| {
            let what = printable(&row.what);
            format!("{what}: {} -> {}", show(&row.before), show(&row.after))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_proc_has_a_number() {
        assert_eq!(pid_of("/proc/812/stat"), Some(812));
        for other in [
            "/proc/self/stat",
            "/proc/0812/stat",
            "/proc/0/stat",
            "/proc/-1/stat",
            "/proc/+1/stat",
            "/proc//stat",
            "/proc/99999999999/stat",
            "/proc/1/task/1/stat",
            "/x/proc/1/stat",
        ] {
            assert_eq!(pid_of(other), None, "{other}");
        }
    }
}
