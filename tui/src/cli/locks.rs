//! `--locks`.

use clap::ValueEnum;
use stalltop_collectors::locks::LocksMode;

/// `--locks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Locks {
    /// While you look or it costs little; else in windows
    Auto,
    /// All the time
    Always,
    /// Never
    Off,
}

impl From<Locks> for LocksMode {
    fn from(locks: Locks) -> Self {
        match locks {
            Locks::Auto => Self::Auto,
            Locks::Always => Self::Always,
            Locks::Off => Self::Off,
        }
    }
}
