//! How the kernel preempts itself: which stalls can occur at all.

use stalltop_model::sample::Preemption;
use stalltop_model::{Reading, Reason};

use crate::env::{Env, KernelVersion};
use crate::file;
use crate::kernel_config::KernelConfig;

/// Finds the preemption model: what debugfs says; else the flags in `/proc/version`
/// (init/Makefile), the `preempt=` boot parameter and the build configuration.
pub fn preemption<'a>(
    env: &Env,
    config: impl FnOnce() -> Result<&'a KernelConfig, Reason>,
) -> Reading<Preemption> {
    if let Some(debugfs) = env.mount_of("debugfs")
        && let Ok(text) = file::read(&env.path(&format!("{debugfs}/sched/preempt")))
        && let Some(preemption) = parse_sched_preempt(&text)
    {
        return Reading::Value(preemption);
    }
    // `Linux version RELEASE (builder) (compiler) #1 SMP PREEMPT_DYNAMIC ...`: the flags
    // are in what `uname -v` prints, from the last `#` on.
    let banner = match file::read_text(&env.path("/proc/version")) {
        Ok(banner) => banner,
        Err(reason) => return Reading::Off(reason),
    };
    let version = banner.rsplit_once('#').map_or("", |(_, version)| version);
    let has = |flag: &str| version.split_whitespace().any(|word| word == flag);
    if has("PREEMPT_RT") || has("RT") {
        return Reading::Value(Preemption::Rt);
    }
    if has("PREEMPT_DYNAMIC") {
        let cmdline = file::read_text(&env.path("/proc/cmdline")).unwrap_or_default();
        let chosen = cmdline
            .split_whitespace()
            .filter_map(|word| named(word.strip_prefix("preempt=")?.as_bytes()))
            .next_back();
        let built = || config().ok().and_then(configured);
        return Reading::Value(chosen.or_else(built).unwrap_or(Preemption::Dynamic));
    }
    // Lazy preemption (6.13+) has the flag PREEMPT as well.
    if has("PREEMPT") && env.kernel < KernelVersion(6, 13) {
        return Reading::Value(Preemption::Full);
    }
    config()
        .and_then(|config| {
            configured(config).ok_or_else(|| Reason::KernelDoesNotSay {
                what: "its preemption model".into(),
            })
        })
        .into()
}

/// The build's own choice (kernel/Kconfig.preempt).
fn configured(config: &KernelConfig) -> Option<Preemption> {
    [
        ("CONFIG_PREEMPT_RT", Preemption::Rt),
        ("CONFIG_PREEMPT_NONE", Preemption::None),
        ("CONFIG_PREEMPT_VOLUNTARY", Preemption::Voluntary),
        ("CONFIG_PREEMPT_LAZY", Preemption::Lazy),
        ("CONFIG_PREEMPT", Preemption::Full),
    ]
    .into_iter()
    .find_map(|(option, preemption)| config.is_set(option).then_some(preemption))
}

/// Parses debugfs `sched/preempt`: `none voluntary (full) lazy`, the active one in
/// parentheses (kernel/sched/debug.c, `sched_dynamic_show`).
pub fn parse_sched_preempt(bytes: &[u8]) -> Option<Preemption> {
    file::words(bytes.trim_ascii())
        .find_map(|word| named(word.strip_prefix(b"(")?.strip_suffix(b")")?))
}

fn named(word: &[u8]) -> Option<Preemption> {
    match word {
        b"none" => Some(Preemption::None),
        b"voluntary" => Some(Preemption::Voluntary),
        b"full" => Some(Preemption::Full),
        b"lazy" => Some(Preemption::Lazy),
        _ => None,
    }
}
