//! Which moment is shown: now, or one held by a pause.

use stalltop_model::Model;

use super::App;
use crate::msg::{Effect, Effects, Feed, Seek};
use crate::pane::Span;

/// The model that is shown while live frames go on into another.
#[derive(Debug, Default)]
pub(super) struct Time {
    /// A copy made at the pause.
    held: Option<Box<Model>>,
    /// The tick that is shown, if not the newest.
    seq: Option<u64>,
    /// The time that was marked.
    span: Option<Span>,
    /// Whether the screen is held only because of that.
    held_for_span: bool,
}

impl Time {
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn seq(&self) -> Option<u64> {
        self.seq
    }

    pub(super) fn span(&self) -> Option<Span> {
        self.span
    }

    /// Shows a stretch of time only, as it looked at its end.
    pub(super) fn mark(&mut self, span: Span, live: &Model) {
        if self.held.is_none() {
            self.toggle(live);
            self.held_for_span = true;
        }
        self.span = Some(span);
        let cores = &self.shown(live).cores;
        let after = |seq: &u64| cores.time(*seq).is_some_and(|t| t.at_ns >= span.to_ns);
        let at = cores.ticks().find(after);
        self.seq = at.filter(|seq| Some(*seq) != cores.newest());
    }

    /// Shows all times again; goes on live if only the mark held the screen.
    pub(super) fn unmark(&mut self, live: &Model) {
        self.span = None;
        if self.held_for_span {
            self.toggle(live);
        }
    }

    pub(super) fn shown<'a>(&'a self, live: &'a Model) -> &'a Model {
        self.held.as_deref().unwrap_or(live)
    }

    /// Holds the screen, or lets it go.
    pub(super) fn toggle(&mut self, live: &Model) {
        self.seq = None;
        self.span = None;
        self.held_for_span = false;
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

impl App {
    pub(super) fn pause(&mut self, model: &Model) -> Effects {
        if self.time.span().is_some() {
            return self.unmark(model);
        }
        if let Feed::Replay { paused, .. } = self.options.feed {
            return Effects::one(Effect::SetPaused(!paused));
        }
        self.time.toggle(model);
        self.refresh(model);
        Effects::one(Effect::SetPaused(self.time.is_held()))
    }

    pub(super) fn unmark(&mut self, model: &Model) -> Effects {
        let was_held = self.time.is_held();
        self.time.unmark(model);
        self.refresh(model);
        self.held_or_not(was_held)
    }

    /// Tells the program when the screen is held now and was not before, or the reverse.
    pub(super) fn held_or_not(&self, was_held: bool) -> Effects {
        if was_held == self.time.is_held() {
            Effects::redraw()
        } else {
            Effects::one(Effect::SetPaused(self.time.is_held()))
        }
    }

    pub(super) fn step(&mut self, ticks: i64, model: &Model) -> Effects {
        if let Feed::Replay { .. } = self.options.feed {
            // Another moment of the recording: what was marked is left behind.
            let left = match self.time.span() {
                Some(_) => self.unmark(model),
                None => Effects::none(),
            };
            return left.and(Effects::one(Effect::Seek(Seek::Ticks(ticks))));
        }
        let was_held = self.time.is_held();
        self.time.step(ticks, model);
        self.refresh(model);
        self.held_or_not(was_held)
    }

    pub(super) fn speed(&mut self, times: f32) -> Effects {
        match self.options.feed {
            Feed::Replay { speed, .. } => {
                Effects::one(Effect::SetSpeed((speed * times).clamp(0.125, 1024.0)))
            }
            Feed::Live { .. } => Effects::none(),
        }
    }
}
