//! Arguments of `stalltop selftest`.

use clap::Args;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use stalltop_collectors::selftest::plan::Injector;
use stalltop_collectors::selftest::run::Mode;

pub(super) const STATUS: &str = "\
Exit status: 0 what is promised holds, 1 something does not or it was not confirmed, \
2 bad usage.";

/// What trouble, and how much.
#[derive(Args, Clone, Debug)]
pub(crate) struct SelftestArgs {
    /// The CPU to disturb [default: the last one]
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<u32>,

    /// Injections of each kind, and of each length: 5 to 10 ms, and 10 to 40 ms
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub(crate) count: u32,

    /// Of the random lengths and gaps: the same gives the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Only these kinds of trouble
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) only: Vec<Kind>,

    /// Only with the 1 kHz sampler on, or only without
    #[arg(long)]
    pub(crate) mode: Option<ModeArg>,

    /// One JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,

    /// Do it without asking
    #[arg(long, short)]
    pub(crate) yes: bool,

    /// A child: makes trouble of one kind
    #[arg(long, hide = true, requires = "cpu", value_name = "KIND")]
    pub(crate) inject: Option<Kind>,

    /// A child: reads the kernel's trace and cleans up
    #[arg(long, hide = true, requires = "cpu", value_name = "PID")]
    pub(crate) keep: Option<u32>,

    /// A child: makes zombie cgroups and reads memory statistics
    #[arg(long, hide = true, value_name = "PID")]
    pub(crate) zombies: Option<u32>,
}

/// What can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Stalls.
    Stall(Injector),
    /// Zombie cgroups.
    Zombies,
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Stall(Injector::Pending),
            Self::Stall(Injector::Handler),
            Self::Stall(Injector::HandlerNft),
            Self::Stall(Injector::Ksoftirqd),
            Self::Stall(Injector::IrqsOff),
            Self::Stall(Injector::NoResched),
            Self::Stall(Injector::RealTime),
            Self::Zombies,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Stall(injector) => PossibleValue::new(injector.as_str()).help(injector.what()),
            Self::Zombies => {
                PossibleValue::new("zombies").help("zombie memory cgroups, and a reader")
            }
        })
    }
}

/// How stalltop looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// With the always-on programs alone
    Tick,
    /// With the 1 kHz sampler
    Sampler,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Tick => Self::Tick,
            ModeArg::Sampler => Self::Sampler,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_injector_can_be_asked_for() {
        for injector in Injector::ALL {
            assert!(Kind::value_variants().contains(&Kind::Stall(injector)));
        }
    }
}
