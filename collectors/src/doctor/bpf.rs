//! Our eBPF programs on this host: loaded, looked at, and detached again.

use stalltop_model::{Reading, Reason};
use stalltop_probes::sys::load;
use stalltop_probes::{Options, PROGRAMS, Probes, Spec};

use super::{Check, locks, row, stalls};
use crate::cores::why;
use crate::env::Env;
use crate::stalls::{Asked, SampleMode, Watch};

/// BTF, each program, the kernel's statistics, and each kind of stall.
pub(super) fn checks(env: &Env) -> Vec<Check> {
    let mut checks = vec![row(
        "eBPF",
        "kernel types (BTF)",
        if env.btf {
            Reading::Value("/sys/kernel/btf/vmlinux".to_owned())
        } else {
            Reading::Off(Reason::NoBtf)
        },
        "ksoftirqd from /proc/PID/schedstat",
    )];
    if env.root() != std::path::Path::new("/") {
        let off = |spec: &Spec| program(spec, Reading::Off(Reason::NotRecorded));
        checks.extend(PROGRAMS.iter().map(off));
        checks.extend(stalls::not_recorded());
        checks.extend(locks::not_recorded());
        return checks;
    }
    let watch = Watch::new(env, &Asked::default(), SampleMode::default());
    let mut probes = Probes::load(&Options {
        thresholds: watch.thresholds(),
        ..Options::default()
    });
    for health in probes.health() {
        let works = match &health.attached {
            Ok(id) => Reading::Value(format!(
                "{}; attached as program {id}",
                health.spec.measures
            )),
            Err(failure) => Reading::Off(why::refused(env, health.spec, failure)),
        };
        checks.push(program(health.spec, works));
        if let Some(partial) = &health.partial {
            let reason = Reading::Off(why::refused(env, health.spec, partial));
            checks.push(row(
                "eBPF",
                "run-queue delay and tasks that keep the CPU",
                reason,
                health.spec.replaced_by,
            ));
        }
    }
    let statistics = match load::enable_run_time_stats() {
        Ok(_closed_again) => Reading::Value("measured in windows of 100 ms".to_owned()),
        Err(error) => Reading::Off(why::no_statistics(&error)),
    };
    checks.push(row(
        "eBPF",
        "cost of our programs",
        statistics,
        "their runs without their time",
    ));
    checks.extend(stalls::checks(env, &watch, &mut probes));
    checks.extend(locks::checks(env, &probes));
    checks
}

fn program(spec: &Spec, works: Reading<String>) -> Check {
    row("eBPF", why::hook(spec), works, spec.replaced_by)
}
