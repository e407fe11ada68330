//! All panes.

use crate::cgroups::Cgroups;
use crate::cores::Cores;
use crate::locks::Locks;
use crate::overview::Overview;
use crate::pane::{Pane, PaneId};
use crate::stalls::Stalls;
use crate::tracing::Tracing;

/// The panes; each owns its state.
#[derive(Debug, Default)]
pub(crate) struct Panes {
    pub overview: Overview,
    pub cores: Cores,
    pub stalls: Stalls,
    pub locks: Locks,
    pub tracing: Tracing,
    pub cgroups: Cgroups,
}

impl Panes {
    pub(crate) fn get(&self, id: PaneId) -> &dyn Pane {
        match id {
            PaneId::Overview => &self.overview,
            PaneId::Cores => &self.cores,
            PaneId::Stalls => &self.stalls,
            PaneId::Locks => &self.locks,
            PaneId::Tracing => &self.tracing,
            PaneId::Cgroups => &self.cgroups,
        }
    }

    pub(crate) fn get_mut(&mut self, id: PaneId) -> &mut dyn Pane {
        match id {
            PaneId::Overview => &mut self.overview,
            PaneId::Cores => &mut self.cores,
            PaneId::Stalls => &mut self.stalls,
            PaneId::Locks => &mut self.locks,
            PaneId::Tracing => &mut self.tracing,
            PaneId::Cgroups => &mut self.cgroups,
        }
    }
}
