//! Which waits for the kernel's locks can be seen on this host.

use stalltop_model::{Reading, Reason};
use stalltop_probes::{LockCounts, Probes};

use super::{Check, row};
use crate::env::Env;
use crate::locks::watch::{load_tracer, refused, try_locks};

const SHARE: &str = "the share of samples in lock slow paths";

/// The tracepoints, what they do not show, and the share of samples. Contends locks of our own for
/// 50 ms at most.
pub(super) fn checks(env: &Env, probes: &Probes) -> Vec<Check> {
    let mut checks = Vec::new();
    let traced = load_tracer(env).and_then(|mut tracer| {
        tracer.attach().map_err(|failure| refused(env, &failure))?;
        let hidden = try_locks(env, &mut tracer, &mut LockCounts::default());
        Ok((tracer.program_id(), hidden))
    });
    match traced {
        Ok((id, hidden)) => {
            checks.push(waits_row(Reading::Value(format!(
                "every wait is measured; attached as program {id}"
            ))));
            checks.extend(hidden.into_iter().map(|hidden| {
                let what = format!("waits: {}", hidden.what);
                row("locks", what, Reading::Off(hidden.why), SHARE)
            }));
        }
        Err(why) => checks.push(waits_row(Reading::Off(why))),
    }
    checks.push(share_row(match probes.samples() {
        Some(samples) => Reading::Value(format!(
            "of the samples of {} CPUs, which are taken anyway",
            samples.possible()
        )),
        None => Reading::Off(Reason::NotSampled {
            what: "what CPUs run".into(),
        }),
    }));
    checks
}

/// The same rows of a host that is not this one.
pub(super) fn not_recorded() -> Vec<Check> {
    let off = || Reading::Off(Reason::NotRecorded);
    vec![waits_row(off()), share_row(off())]
}

fn waits_row(works: Reading<String>) -> Check {
    row("locks", "waits for locks of the kernel", works, SHARE)
}

fn share_row(works: Reading<String>) -> Check {
    row("locks", SHARE, works, "waits at the tracepoints alone")
}
