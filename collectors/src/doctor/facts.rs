//! Facts that decide which stalls can occur, and which can be seen.

use rustix::time::{ClockId, clock_getres};
use stalltop_model::sample::{Host, Lockdown, Preemption};
use stalltop_model::{Name, Reading, Reason};

use super::{Check, row};
use crate::env::Env;
use crate::file;

/// One row per fact.
pub(super) fn facts(env: &Env, host: &Host) -> Vec<Check> {
    let fact = |name: &str, works: Reading<String>| row("facts", name, works, "");
    vec![
        fact(
            "kernel",
            Reading::Value(format!("{} {}", host.release, host.machine)),
        ),
        fact(
            "preemption",
            host.preemption.clone().map(|p| preemption(p).to_owned()),
        ),
        fact(
            "timer tick",
            host.hz.clone().map(|hz| {
                format!(
                    "{hz} Hz: a late interrupt is seen to {} ms",
                    1000 / hz.max(1)
                )
            }),
        ),
        fact("tickless CPUs (nohz_full)", tickless(&host.nohz_full)),
        fact("high-resolution timers", high_resolution(env).into()),
        fact(
            "lockdown",
            host.lockdown.clone().map(|l| lockdown(l).to_owned()),
        ),
        fact(
            "virtual machine",
            host.virtual_machine.clone().map(|vm| match vm {
                true => "yes: the hypervisor may pause a CPU".to_owned(),
                false => "no".to_owned(),
            }),
        ),
        fact(
            "perf_event_paranoid",
            sysctl(env, "perf_event_paranoid").into(),
        ),
        fact(
            "kptr_restrict",
            sysctl(env, "kptr_restrict")
                .map(|value| match value.as_str() {
                    "2" => "2: addresses of kernel probes are hidden even from root".to_owned(),
                    _ => value,
                })
                .into(),
        ),
    ]
}

/// A kernel that cannot do without the tick has none, which is no lack.
fn tickless(nohz_full: &Reading<Name>) -> Reading<String> {
    match nohz_full {
        Reading::Value(list) if !list.is_empty() => Reading::Value(list.to_string()),
        Reading::Value(_) | Reading::Off(Reason::NotBuilt { .. }) => {
            Reading::Value("none".to_owned())
        }
        Reading::Off(reason) => Reading::Off(reason.clone()),
    }
}

fn preemption(preemption: Preemption) -> &'static str {
    match preemption {
        Preemption::None => "none: a long system call holds its CPU until it ends or yields",
        Preemption::Voluntary => {
            "voluntary: a system call holds its CPU up to its next cond_resched()"
        }
        Preemption::Full => "full: only critical sections hold a CPU",
        Preemption::Lazy => "lazy: the tick preempts all but critical sections",
        Preemption::Rt => "PREEMPT_RT: softirqs run in threads",
        Preemption::Dynamic => {
            "chosen at boot (preempt=); debugfs sched/preempt tells which, where it is mounted and not locked down"
        }
    }
}

fn lockdown(lockdown: Lockdown) -> &'static str {
    match lockdown {
        Lockdown::None => "none",
        Lockdown::Integrity => {
            "integrity: debugfs files that can be written are refused, kprobes/enabled with them"
        }
        Lockdown::Confidentiality => {
            "confidentiality: tracing and BPF reads of kernel memory are refused"
        }
    }
}

/// `/proc/timer_list` says so of each CPU (kernel/time/timer_list.c, root only); on a live
/// host the resolution of the clock does too (`hrtimer_resolution`).
fn high_resolution(env: &Env) -> Result<String, Reason> {
    let on = match file::read(&env.path("/proc/timer_list")) {
        Ok(text) => {
            let mut states = file::lines(&text).filter_map(|line| {
                let line = line.trim_ascii().strip_prefix(b".hres_active")?;
                file::number(line.trim_ascii().strip_prefix(b":")?.trim_ascii())
            });
            let first = states.next();
            first.is_some_and(|(on, _)| on == 1) && states.all(|(on, _)| on == 1)
        }
        Err(_) if env.root() == std::path::Path::new("/") => {
            let step = clock_getres(ClockId::Monotonic);
            step.tv_sec == 0 && step.tv_nsec == 1
        }
        Err(reason) => return Err(reason),
    };
    Ok(if on {
        "on"
    } else {
        "off: timers are as coarse as the tick"
    }
    .to_owned())
}

fn sysctl(env: &Env, name: &str) -> Result<String, Reason> {
    file::read_text(&env.path(&format!("/proc/sys/kernel/{name}")))
}
