//! Pane 3: who held a CPU, for how long, and in which function.

mod culprits;
mod detail;
mod draw;
mod instead;
mod names;
mod rows;
mod stacks;
mod strip;
mod watch;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::model::stalls::{Filter, Tally};

use crate::action::{ActionId, Context};
use crate::listing::{ListPane, Listing, after};
use crate::msg::{Mouse, MouseKind};
use crate::pane::{Pane, PaneId, Reply, Scene, Wish};
pub(crate) use culprits::Culprits;
use detail::Detail;
use instead::Late;
use rows::Row;

/// How often CPUs were held in the last minute of what is shown, or in the marked time.
pub(crate) fn recent(scene: &Scene<'_>) -> u64 {
    let (from, to) = scene.of_late();
    let held = scene.model.stalls.held(&Filter::default(), from, to);
    held.count.into()
}

/// The pane.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    list: Listing<Row>,
    narrow: rows::Narrow,
    tally: Tally,
    /// Where stalls are not watched: ticks in which softirqs or ksoftirqd were late.
    late: Vec<Late>,
    detail: Option<Detail>,
}

impl Stalls {
    /// Shows some stalls only, as another pane names them.
    pub(crate) fn only(&mut self, filter: Filter) {
        self.detail = None;
        self.list.filter.clear();
        self.narrow.to(filter);
        self.list.restart();
    }

    /// Only stalls like the selected one (or of the selected group), or all again.
    fn like_this(&mut self) {
        if self.narrow.is_narrow() {
            self.narrow.widen();
        } else if let Some(like) = self.alike() {
            self.narrow.to(like);
        }
        self.detail = None;
        self.list.release();
    }

    /// What is like what the person looks at.
    fn alike(&self) -> Option<Filter> {
        if let Some(detail) = &self.detail {
            return Some(rows::like(detail.stall()));
        }
        match self.list.selected()? {
            Row::Stall { stall, .. } => Some(rows::like(stall)),
            Row::Group { group, .. } => {
                let mut filter = Filter::default();
                group.key.narrow(&mut filter);
                Some(filter)
            }
        }
    }

    fn in_detail(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        let Some(detail) = &mut self.detail else {
            return Reply::NotMine;
        };
        match action {
            ActionId::Close | ActionId::Fold | ActionId::Quit | ActionId::Open => {
                self.detail = None;
            }
            ActionId::StackOrder => detail.turn(),
            ActionId::LikeThis => {
                self.like_this();
                self.rebuild(scene);
            }
            ActionId::ShowCore => return Reply::Wish(Wish::Core(detail.stall().cpu)),
            action if detail.scroll(action) => {}
            _ => return Reply::NotMine,
        }
        Reply::Done
    }
}

impl ListPane for Stalls {
    type Row = Row;

    fn listing(&mut self) -> &mut Listing<Row> {
        &mut self.list
    }

    fn rebuild(&mut self, scene: &Scene<'_>) {
        let (from, to) = scene.times();
        // A marked time holds for details as well.
        let outside = |detail: &Detail| {
            let at = detail.stall().at_ns;
            at <= from || at > to
        };
        if scene.span.is_some() && self.detail.as_ref().is_some_and(outside) {
            self.detail = None;
        }
        self.tally = scene.model.stalls.tally(&self.narrow.filter, from, to);
        let rows = rows::build(scene, &self.narrow, &self.list);
        self.list.set(rows);
        self.late = match scene.sample().stalls.value() {
            Some(_) => Vec::new(),
            None => instead::late(scene),
        };
    }

    fn enter(&mut self, _: &Scene<'_>) -> Reply {
        if let Some(Row::Stall { stall, .. }) = self.list.selected() {
            self.detail = Some(Detail::new(stall));
        }
        Reply::Done
    }
}

impl Pane for Stalls {
    fn refresh(&mut self, scene: &Scene<'_>) {
        self.refresh_list(scene);
    }

    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        if self.detail.is_some() {
            return self.in_detail(action, scene);
        }
        match action {
            ActionId::LikeThis => self.like_this(),
            ActionId::GroupStalls => {
                self.narrow.by = after(rows::GROUPINGS, self.narrow.by);
                self.list.restart();
            }
            ActionId::ShowPaused => self.narrow.filter.paused = !self.narrow.filter.paused,
            ActionId::ShowOurs => self.narrow.filter.ours = !self.narrow.filter.ours,
            ActionId::ShowCore => {
                return match self.list.selected() {
                    Some(Row::Stall { stall, .. }) => Reply::Wish(Wish::Core(stall.cpu)),
                    Some(Row::Group { .. }) | None => Reply::Done,
                };
            }
            ActionId::Close if self.list.filter.is_empty() && self.narrow.is_narrow() => {
                self.narrow.widen();
            }
            _ => return self.act_on_list(action, scene),
        }
        self.rebuild(scene);
        Reply::Done
    }

    fn mouse(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply {
        match (&self.detail, mouse.kind) {
            (None, _) => self.mouse_on_list(mouse, scene),
            (Some(_), MouseKind::WheelUp) => self.update(ActionId::Up, scene),
            (Some(_), MouseKind::WheelDown) => self.update(ActionId::Down, scene),
            (Some(_), MouseKind::Press | MouseKind::Drag) => Reply::Done,
        }
    }

    fn stack(&self) -> &'static [Context] {
        if self.detail.is_some() {
            &[Context::StallDetail, Context::Pane, Context::Everywhere]
        } else {
            PaneId::Stalls.info().stack
        }
    }

    fn filter(&mut self) -> Option<&mut String> {
        self.detail.is_none().then_some(&mut self.list.filter)
    }

    fn filtered(&self) -> &str {
        &self.list.filter
    }

    fn attends(&self) -> Option<u32> {
        self.detail.as_ref().map(|detail| detail.stall().cpu)
    }

    fn full_text(&self, scene: &Scene<'_>) -> Option<Vec<String>> {
        self.detail.as_ref().map(|detail| detail.text(scene))
    }

    fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        match &self.detail {
            Some(detail) => detail.render(scene, area, buf),
            None => self.draw(scene, area, buf),
        }
    }
}
