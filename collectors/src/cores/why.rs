//! Why one of our eBPF programs is not attached, in a person's terms.

use stalltop_model::Reason;
use stalltop_probes::{Failure, Kind, Spec, Step};

use crate::env::{Capabilities, Env, KernelVersion};

/// The tracepoint of a program as the kernel's `events` folder names it; `perf:` and the event for
/// one that a perf event runs.
pub(crate) fn hook(spec: &Spec) -> String {
    let system = match spec.tracepoint {
        _ if spec.kind == Kind::PerfEvent => "perf",
        name if name.starts_with("sched_") => "sched",
        name if name.starts_with("hrtimer_") => "timer",
        _ => "irq",
    };
    format!("{system}:{}", spec.tracepoint)
}

/// The reason behind a failure to load or attach.
pub(crate) fn refused(env: &Env, spec: &Spec, failure: &Failure) -> Reason {
    refused_at(env, &hook(spec), failure)
}

/// The same of a program at `hook`.
pub(crate) fn refused_at(env: &Env, hook: &str, failure: &Failure) -> Reason {
    const EPERM: i32 = 1;
    const ENOENT: i32 = 2;
    /// The oldest kernel that the programs are written for.
    const OLDEST: KernelVersion = KernelVersion(5, 10);
    if env.kernel != KernelVersion::default() && env.kernel < OLDEST {
        return Reason::KernelTooOld {
            need: OLDEST.to_string().into(),
            have: env.kernel.to_string().into(),
        };
    }
    match (failure.step, failure.errno) {
        (Step::Map | Step::Load | Step::Attach, Some(EPERM)) => {
            let capabilities = env.capabilities;
            let missing = [
                (Capabilities::BPF, "CAP_BPF"),
                (Capabilities::PERFMON, "CAP_PERFMON"),
            ]
            .into_iter()
            .find(|(capability, _)| {
                !capabilities.has(*capability) && !capabilities.has(Capabilities::SYS_ADMIN)
            });
            match missing {
                Some((_, name)) => Reason::NoCapability { need: name.into() },
                None => Reason::Refused {
                    what: hook.into(),
                    why: failure.to_string().into(),
                },
            }
        }
        (Step::Attach, Some(ENOENT)) => Reason::NoTracepoint { name: hook.into() },
        (Step::Symbols, Some(EPERM)) => Reason::Setting {
            name: "kernel.kptr_restrict".into(),
            have: "hiding addresses".into(),
            need: "1, and CAP_SYSLOG".into(),
        },
        (Step::Btf, Some(ENOENT)) => Reason::NoBtf,
        (Step::Btf, None) => Reason::NoBtfField {
            field: failure.detail.as_str().into(),
        },
        _ => Reason::Refused {
            what: hook.into(),
            why: failure.to_string().into(),
        },
    }
}

/// The reason behind a refusal to time BPF programs (`BPF_ENABLE_STATS`, 5.8).
pub(crate) fn no_statistics(error: &std::io::Error) -> Reason {
    const EPERM: i32 = 1;
    match error.raw_os_error() {
        Some(EPERM) => Reason::NoCapability {
            need: "CAP_SYS_ADMIN".into(),
        },
        _ => Reason::Refused {
            what: "BPF_ENABLE_STATS".into(),
            why: error.to_string().into(),
        },
    }
}
