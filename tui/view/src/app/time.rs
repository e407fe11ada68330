//! Which moment is shown: now, or one held by a pause.

use stalltop_model::Model;

/// The model that is shown while live frames go on into another.
#[derive(Debug, Default)]
pub(super) struct Time {
    /// A copy made at the pause.
    held: Option<Box<Model>>,
    /// The tick that is shown, if not the newest.
    seq: Option<u64>,
}

impl Time {
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn seq(&self) -> Option<u64> {
        self.seq
    }

    pub(super) fn shown<'a>(&'a self, live: &'a Model) -> &'a Model {
        self.held.as_deref().unwrap_or(live)
    }

    /// Holds the screen, or lets it go.
    pub(super) fn toggle(&mut self, live: &Model) {
        self.seq = None;
        self.held = match self.held {
            Some(_) => None,
            None => Some(Box::new(live.clone())),
        };
    }

    /// Steps through the history, holding the screen first; past its end goes on live.
    pub(super) fn step(&mut self, by: i64, live: &Model) {
        if self.held.is_none() {
            if by > 0 {
                return;
            }
            self.toggle(live);
        }
        let ticks = self.shown(live).cores.ticks();
        let Some(newest) = ticks.clone().next_back() else {
            return;
        };
        let at = self.seq.unwrap_or(newest).saturating_add_signed(by);
        if by > 0 && at > newest {
            // Past the newest tick is the present.
            self.toggle(live);
            return;
        }
        let at = at.clamp(ticks.start, newest);
        self.seq = (at != newest).then_some(at);
    }
}
