//! What all panes have in common.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::change::{Entry, Request};
use stalltop_model::model::stalls::Filter;
use stalltop_model::rules::WINDOW_NS;
use stalltop_model::sample::{Costs, Sample, Tracing};
use stalltop_model::{Model, Reason};

use crate::action::{ActionId, Context, Danger};
use crate::keymap::Keymap;
use crate::msg::{Effect, FlameGraph, Mouse};
use crate::theme::{Role, Theme};

/// The panes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaneId {
    /// Findings, worst cores, what traces.
    Overview,
    /// Softirqs per CPU.
    Cores,
    /// Who held a CPU.
    Stalls,
    /// What waits for the kernel's locks.
    Locks,
    /// What traces.
    Tracing,
    /// Memory cgroups.
    Cgroups,
}

/// One row of [`PANES`].
#[derive(Clone, Copy, Debug)]
pub struct PaneInfo {
    /// Which.
    pub id: PaneId,
    /// Its name on the tab.
    pub title: &'static str,
    /// The action that opens it.
    pub open: ActionId,
    /// The contexts whose keys work in it, topmost first.
    pub stack: &'static [Context],
}

/// The panes in the order of their tabs.
pub const PANES: &[PaneInfo] = &[
    PaneInfo {
        id: PaneId::Overview,
        title: "Overview",
        open: ActionId::Overview,
        stack: &[Context::Overview, Context::Pane, Context::Everywhere],
    },
    PaneInfo {
        id: PaneId::Cores,
        title: "Cores",
        open: ActionId::Cores,
        stack: &[Context::Cores, Context::Pane, Context::Everywhere],
    },
    PaneInfo {
        id: PaneId::Stalls,
        title: "Stalls",
        open: ActionId::Stalls,
        stack: &[Context::Stalls, Context::Pane, Context::Everywhere],
    },
    PaneInfo {
        id: PaneId::Locks,
        title: "Locks",
        open: ActionId::Locks,
        stack: &[Context::Locks, Context::Pane, Context::Everywhere],
    },
    PaneInfo {
        id: PaneId::Tracing,
        title: "Tracing",
        open: ActionId::Tracing,
        stack: &[Context::Tracing, Context::Pane, Context::Everywhere],
    },
    PaneInfo {
        id: PaneId::Cgroups,
        title: "Cgroups",
        open: ActionId::Cgroups,
        stack: &[Context::Cgroups, Context::Pane, Context::Everywhere],
    },
];

impl PaneInfo {
    /// The pane of a title, in letters of either case: as findings name it.
    pub fn named(title: &str) -> Option<&'static Self> {
        PANES.iter().find(|p| p.title.eq_ignore_ascii_case(title))
    }
}

impl PaneId {
    /// Its row.
    pub fn info(self) -> &'static PaneInfo {
        &PANES[self as usize]
    }
}

/// A stretch of time that a person marked: all panes show that time only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// `CLOCK_BOOTTIME` of its beginning, ns; what happened right then is not in it.
    pub from_ns: u64,
    /// `CLOCK_BOOTTIME` of its end, ns.
    pub to_ns: u64,
    /// `CLOCK_REALTIME` at its end, ns since 1970.
    pub to_wall_ns: u64,
}

impl Span {
    /// Its length, ns.
    pub(crate) fn length_ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }

    /// `22:40:30.20-22:40:34.00`.
    pub(crate) fn clock(&self) -> String {
        format!(
            "{}-{}",
            crate::text::clock_part(self.to_wall_ns.saturating_sub(self.length_ns()), 2),
            crate::text::clock_part(self.to_wall_ns, 2)
        )
    }
}

/// What a pane looks at.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// The model that is shown: the live one, or the one held by a pause.
    pub model: &'a Model,
    /// The tick that is shown; the newest unless somebody went back in history.
    pub seq: Option<u64>,
    /// The time that was marked, if any: nothing outside it is shown.
    pub span: Option<Span>,
    /// How to paint.
    pub theme: &'a Theme,
    /// Which keys do what.
    pub keymap: &'a Keymap,
    /// Whether the host may be written to.
    pub writer: bool,
}

/// How long the last window of costs stands while the next one is under way, ns.
const LAST_COSTS_NS: u64 = 60_000_000_000;

impl<'a> Scene<'a> {
    /// The newest sample.
    pub(crate) fn sample(&self) -> &'a Sample {
        self.model.now()
    }

    /// The tick that is shown, if there is any.
    pub(crate) fn tick(&self) -> Option<u64> {
        let ticks = self.model.cores.ticks();
        self.seq
            .map(|seq| seq.max(ticks.start))
            .filter(|seq| ticks.contains(seq))
            .or_else(|| self.model.cores.newest())
    }

    /// The tick that is shown, if it is not the newest.
    pub(crate) fn past(&self) -> Option<u64> {
        self.tick()
            .filter(|seq| Some(*seq) != self.model.cores.newest())
    }

    /// The time whose events are shown, `(from, to]` of `CLOCK_BOOTTIME` in ns: what was
    /// marked, else everything up to the tick that is shown.
    pub(crate) fn times(&self) -> (u64, u64) {
        match (
            self.span,
            self.past().and_then(|seq| self.model.cores.time(seq)),
        ) {
            (Some(span), _) => (span.from_ns, span.to_ns),
            (None, Some(tick)) => (0, tick.at_ns),
            (None, None) => (0, u64::MAX),
        }
    }

    /// `CLOCK_BOOTTIME` up to which things are shown, ns: an end that a clock can show.
    pub(crate) fn until_ns(&self) -> u64 {
        match self.times().1 {
            u64::MAX => self.sample().at_ns,
            until => until,
        }
    }

    /// The time that counts "of late" are of, `(from, to]` of `CLOCK_BOOTTIME` in ns: what was
    /// marked, else the last minute of what is shown.
    pub(crate) fn of_late(&self) -> (u64, u64) {
        let from = match self.span {
            Some(span) => span.from_ns,
            None => self.until_ns().saturating_sub(WINDOW_NS),
        };
        (from, self.times().1)
    }

    /// The tracing state of the tick that is shown; the present one where that of the past
    /// is not kept any more.
    pub(crate) fn tracing(&self) -> &'a Tracing {
        self.past()
            .and_then(|seq| self.model.tracing.at(seq))
            .unwrap_or(&self.sample().tracing)
    }

    /// What probes cost as of the tick that is shown.
    ///
    /// # Errors
    /// Why that is not known.
    pub(crate) fn costs(&self) -> Result<&'a Costs, &'a Reason> {
        static NOT_KEPT: Reason = Reason::NotRecorded;
        match self.past() {
            Some(seq) => self.model.costs.at(seq).ok_or(&NOT_KEPT),
            None => match self.sample().costs.as_ref() {
                Ok(costs) => Ok(costs),
                // Until the next window is there, the last one stands; its age is told.
                Err(why @ (Reason::Starting | Reason::NotAsked)) => self.last_costs().ok_or(why),
                Err(why) => Err(why),
            },
        }
    }

    /// The newest window of costs, where it is not long ago.
    fn last_costs(&self) -> Option<&'a Costs> {
        let costs = self.model.costs.newest()?;
        let age = self.sample().at_ns.checked_sub(costs.at_ns)?;
        (age <= LAST_COSTS_NS).then_some(costs)
    }

    /// `CLOCK_REALTIME` of the tick that is shown, ns since 1970.
    pub(crate) fn wall_ns(&self) -> u64 {
        self.past()
            .and_then(|seq| self.model.cores.time(seq))
            .map_or(self.sample().wall_ns, |t| t.wall_ns)
    }

    /// `, as of 22:42:09` for what is of the newest sample, while an older tick is shown.
    pub(crate) fn as_of_newest(&self) -> String {
        match self.past() {
            Some(_) => format!(", as of {}", crate::text::clock(self.sample().wall_ns)),
            None => String::new(),
        }
    }

    /// As [`Self::as_of_newest`], for findings: they are of the newest sample, whatever time
    /// is shown. `None` where that is the time that is shown.
    pub(crate) fn findings_as_of(&self) -> Option<String> {
        let clock = crate::text::clock(self.sample().wall_ns);
        match (self.span, self.past()) {
            (Some(_), _) => Some(format!("as of {clock}, not of the marked time")),
            (None, Some(_)) => Some(format!("as of {clock}, not of the time shown")),
            (None, None) => None,
        }
    }

    /// Whether this process may read, and so write, next to nothing of the host.
    pub(crate) fn unprivileged(&self) -> bool {
        let sample = self.sample();
        let refused = |reason: Option<&Reason>| {
            matches!(
                reason,
                Some(Reason::NoCapability { .. } | Reason::Io { errno: 1 | 13, .. })
            )
        };
        sample.tracing.tracefs.value().is_none()
            && (refused(sample.tracing.tracefs.reason())
                || refused(sample.tracing.bpf.reason())
                || refused(sample.cores.bpf.reason()))
    }

    /// Whether an action can do anything here and now; one that cannot is not offered.
    pub(crate) fn can(&self, id: ActionId) -> bool {
        let action = id.action();
        if action.danger == Danger::None {
            return true;
        }
        let tracing = &self.sample().tracing;
        let undoable = |e: &Entry| e.standing().can_undo();
        self.writer
            && self.past().is_none()
            && !(self.started() && self.unprivileged())
            && match id {
                ActionId::Undo => self.model.changes().iter().any(undoable),
                ActionId::ClearSetEvent => crate::tracing::clear_events(self).is_ok(),
                ActionId::KprobesMaster => !matches!(
                    tracing.kprobes.reason(),
                    Some(Reason::NotBuilt { .. } | Reason::NoFile { .. })
                ),
                _ => true,
            }
    }

    /// Whether any sample has come.
    pub(crate) fn started(&self) -> bool {
        self.model.samples() > 0
    }

    /// The key that a person presses for an action in a context, for showing.
    pub(crate) fn key(&self, stack: &[Context], id: ActionId) -> String {
        self.keymap
            .key(stack, id)
            .map_or_else(String::new, |key| key.to_string())
    }
}

/// Something that a pane cannot do by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wish {
    /// Ask for a change.
    Plan(Request),
    /// Say one line.
    Say(Role, String),
    /// Do another action.
    Do(ActionId),
    /// Show some text: the title, then its lines.
    Show(Vec<String>),
    /// Show a change that was made, by its number in the journal.
    Story(u64),
    /// Open the details of a CPU.
    Core(u32),
    /// Open the list of changes.
    Changes,
    /// List these stalls.
    Stalls(Box<Filter>),
    /// Show this time only.
    Mark(Span),
}

/// What came of an action that a pane was offered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// It is not one of this pane's.
    NotMine,
    /// Done; the screen may differ.
    Done,
    /// The program is to do something.
    Effect(Effect),
    /// The shell is to do something.
    Wish(Wish),
}

/// A pane: owns its state, sees the model, draws.
pub(crate) trait Pane {
    /// Works its rows out anew: the model went on, or the time shown changed.
    fn refresh(&mut self, scene: &Scene<'_>);

    /// Does an action, if it is one of this pane's.
    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply;

    /// Takes a use of the mouse inside the pane.
    fn mouse(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply;

    /// The contexts whose keys work now.
    fn stack(&self) -> &'static [Context];

    /// The filter's text; empty for none. `None` if this pane has no filter.
    fn filter(&mut self) -> Option<&mut String>;

    /// The filter's text, for showing.
    fn filtered(&self) -> &str;

    /// The CPU whose details a person looks at: it may be measured more closely.
    fn attends(&self) -> Option<u32> {
        None
    }

    /// All of what is open as text, where the screen may show only a part of it.
    fn full_text(&self, _scene: &Scene<'_>) -> Option<Vec<String>> {
        None
    }

    /// The stacks that are shown, for a flame graph.
    fn flame(&self, _scene: &Scene<'_>) -> Option<FlameGraph> {
        None
    }

    /// Draws into `area`.
    fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer);
}

/// Whether `text` contains `filter`, which is in lower case, ignoring case.
pub(crate) fn matches(text: &str, filter: &str) -> bool {
    if filter.is_empty() {
        return true;
    }
    if text.is_ascii() && filter.is_ascii() {
        let (text, filter) = (text.as_bytes(), filter.as_bytes());
        return text
            .windows(filter.len())
            .any(|w| w.eq_ignore_ascii_case(filter));
    }
    text.to_lowercase().contains(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_ids() {
        for (i, pane) in PANES.iter().enumerate() {
            assert_eq!(pane.id as usize, i);
        }
    }

    #[test]
    fn filters_ignore_case() {
        assert!(matches("NET_RX", "net"));
        assert!(matches("Größe", "größe"));
        assert!(!matches("ab", "abc"));
        assert!(matches("x", ""));
    }
}
