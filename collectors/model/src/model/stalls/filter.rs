//! Which stalls are meant.

use crate::Name;
use crate::sample::{Pause, Stall, StallKind, Vector};

/// Which stalls are meant; the default is all but those of paused virtual CPUs and our own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Of this kind.
    pub kind: Option<StallKind>,
    /// On this CPU, or with it among the victims.
    pub cpu: Option<u32>,
    /// With this vector, or without one.
    pub vector: Option<Option<Vector>>,
    /// By this culprit, as its comm or the vector's name.
    pub culprit: Option<Named>,
    /// In this system call.
    pub syscall: Option<Named>,
    /// In this kernel function.
    pub function: Option<Named>,
    /// By this owner: unit, container or pod.
    pub owner: Option<Named>,
    /// Ended in `(from, to]` of `CLOCK_BOOTTIME`, ns: a chosen area of time.
    pub time: Option<(u64, u64)>,
    /// No shorter than this, ns.
    pub least_ns: u64,
    /// Whether paused virtual CPUs are shown as well.
    pub paused: bool,
    /// Whether stalls of our own making are shown as well.
    pub ours: bool,
}

/// A name, or that there is none: a stall whose culprit is not known is one as well.
pub type Named = Option<Name>;

impl Filter {
    /// Whether a stall is shown.
    pub fn shows(&self, stall: &Stall) -> bool {
        (self.paused || stall.pause != Pause::Paused)
            && (self.ours || !stall.ours)
            && self.matches(stall)
    }

    /// Whether a stall is meant, be it folded away or not.
    pub fn matches(&self, stall: &Stall) -> bool {
        let named = |want: &Option<Named>, have: Option<&Name>| {
            want.as_ref().is_none_or(|want| want.as_ref() == have)
        };
        self.kind.is_none_or(|kind| kind == stall.kind)
            && self
                .cpu
                .is_none_or(|cpu| cpu == stall.cpu || stall.victims.contains(&cpu))
            && self.vector.is_none_or(|vector| vector == stall.vector)
            && stall.delay_ns >= self.least_ns
            && self
                .time
                .is_none_or(|(from, to)| stall.at_ns > from && stall.at_ns <= to)
            && named(&self.culprit, culprit(stall))
            && named(&self.syscall, syscall(stall))
            && named(&self.function, function(stall))
            && named(&self.owner, owner(stall))
    }

    /// Whether nothing is filtered but what is folded away anyway.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The comm of the culprit, if known.
pub(super) fn culprit(stall: &Stall) -> Option<&Name> {
    stall.culprit.value().map(|c| &c.comm)
}

/// The system call that the culprit was in.
pub(super) fn syscall(stall: &Stall) -> Option<&Name> {
    stall.culprit.value()?.syscall.as_ref()
}

/// The kernel function at the top of the culprit's operation.
pub(super) fn function(stall: &Stall) -> Option<&Name> {
    stall.culprit.value()?.function.value()
}

/// The culprit's unit, container or pod.
pub(super) fn owner(stall: &Stall) -> Option<&Name> {
    stall.culprit.value()?.owner.value().map(|o| &o.name)
}
