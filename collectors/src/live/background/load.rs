//! Loads and attaches our eBPF programs, and starts what they feed.

use std::time::Instant;

use stalltop_model::Reason;
use stalltop_probes::{Options as ProbeOptions, Probes};

use crate::cores::why;
use crate::costs::{CostHandle, OwnPrograms};
use crate::env::Env;
use crate::live::Options;
use crate::locks::{LockHandle, Setup};
use crate::shared::{Alive, Shared, failed};
use crate::stalls::kallsyms::Symbols;
use crate::stalls::{self, StallHandle};

/// What there is since it was last asked for.
#[derive(Default)]
pub(in crate::live) struct News {
    pub(in crate::live) probes: Option<Box<Probes>>,
    pub(in crate::live) stalls: Option<StallHandle>,
    pub(in crate::live) locks: Option<LockHandle>,
}

/// How far loading is.
#[derive(Default)]
pub(super) struct Loaded {
    news: News,
    any: bool,
    /// It is over, one way or the other.
    over: bool,
}

impl Shared<Loaded> {
    fn publish(&self, put: impl FnOnce(&mut News)) {
        let mut loaded = self.lock();
        put(&mut loaded.news);
        loaded.any = true;
    }
}

/// What is new. Waits for the end of loading, but only `until` then.
pub(super) fn news(shared: &Shared<Loaded>, until: Option<Instant>) -> Option<News> {
    let mut loaded = match until {
        Some(until) => {
            let time = until.saturating_duration_since(Instant::now());
            shared.wait_while(time, |loaded| !loaded.over)
        }
        None => shared.try_lock()?,
    };
    std::mem::take(&mut loaded.any).then(|| std::mem::take(&mut loaded.news))
}

/// Nothing is loaded, and why.
pub(super) fn ends(shared: &Shared<Loaded>, options: &Options, why: &Reason) {
    shared.publish(|news| {
        news.locks = Some(LockHandle::off(why));
        news.stalls = Some(watch(options).off(why));
    });
    shared.tell(|loaded| loaded.over = true);
}

fn watch(options: &Options) -> stalls::Watch<'_> {
    stalls::Watch::new(&options.env, &options.stalls, options.sample)
        .naming_with(options.program.clone())
}

/// Loads what is to be loaded.
pub(super) fn run(shared: &Shared<Loaded>, options: &Options, costs: &CostHandle) {
    let _alive = Alive::new(|| ends(shared, options, &failed("what eBPF tells")));
    if options.no_bpf {
        let why = Reason::SwitchedOff {
            option: "--no-bpf".into(),
        };
        return ends(shared, options, &why);
    }
    let env = &options.env;
    let symbols = Symbols::new(env);
    let watch = watch(options);
    let mut probes = Box::new(Probes::load(&ProbeOptions {
        root: env.root().to_owned(),
        thresholds: watch.thresholds(),
        ..ProbeOptions::default()
    }));
    costs.measure(OwnPrograms::new(&probes));
    let locks = LockHandle::start(Setup {
        env: env.clone(),
        mode: options.locks,
        tick: options.tick,
        samples: probes.samples().ok_or_else(|| no_samples(&probes, env)),
        own: probes.code(),
        symbols: symbols.share(),
    });
    shared.publish(|news| news.locks = Some(locks));
    let stalls = watch.start(&mut probes, symbols.share());
    shared.publish(|news| (news.probes, news.stalls) = (Some(probes), Some(stalls)));
    shared.tell(|loaded| loaded.over = true);
}

/// Why there are no samples: what takes them is not attached, or nobody asked for stalls.
fn no_samples(probes: &Probes, env: &Env) -> Reason {
    let failed = probes.health().iter().find_map(|health| {
        let failure = health.attached.as_ref().err()?;
        Some(why::refused(env, health.spec, failure))
    });
    failed.unwrap_or(Reason::SwitchedOff {
        option: "--stall off".into(),
    })
}
