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
use stalltop_model::Model;
use stalltop_model::model::stalls::{Filter, GroupBy, Tally};
use stalltop_model::rules::WINDOW_NS;

use crate::action::{ActionId, Context};
use crate::list::List;
use crate::msg::{Mouse, MouseKind};
use crate::pane::{Pane, PaneId, Reply, Scene, Wish};
pub(crate) use culprits::Culprits;
use detail::Detail;
use instead::Late;
use rows::{Key, Order, Row};

/// How often CPUs were held in the last minute, for the tab.
pub(crate) fn recent(model: &Model) -> u64 {
    let from = model.now().at_ns.saturating_sub(WINDOW_NS);
    let held = model.stalls.held(&Filter::default(), from, u64::MAX);
    held.count.into()
}

/// The pane.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    wish: rows::Wish,
    list: List<Key>,
    rows: Vec<Row>,
    tally: Tally,
    /// Where stalls are not watched: ticks in which softirqs or ksoftirqd were late.
    late: Vec<Late>,
    detail: Option<Detail>,
}

impl Stalls {
    /// Shows some stalls only, as another pane names them.
    pub(crate) fn only(&mut self, filter: Filter) {
        self.detail = None;
        self.wish.by = None;
        self.wish.text.clear();
        self.wish.filter = Filter {
            paused: self.wish.filter.paused,
            ours: self.wish.filter.ours,
            ..filter
        };
        self.list.release();
        self.list.act(ActionId::Top);
    }

    fn rebuild(&mut self, scene: &Scene<'_>) {
        let (from, to) = scene.times();
        self.tally = scene.model.stalls.tally(&self.wish.filter, from, to);
        self.rows = rows::build(scene, &self.wish, &self.list);
        self.list.set(self.rows.iter().map(Row::key).collect());
        self.late = match scene.sample().stalls.value() {
            Some(_) => Vec::new(),
            None => instead::late(scene),
        };
    }

    fn selected(&self) -> Option<&Row> {
        self.rows.get(self.list.cursor())
    }

    /// Enter: the details of a stall, or fold a group.
    fn enter(&mut self) {
        match self.selected() {
            Some(Row::Stall { stall, .. }) => self.detail = Some(Detail::new(stall)),
            Some(Row::Group { .. }) => self.fold(None),
            None => {}
        }
    }

    fn fold(&mut self, open: Option<bool>) {
        let Some(Row::Group { group, open: is }) = self.selected() else {
            return;
        };
        let key = group.key.clone();
        if open.unwrap_or(!is) {
            self.wish.unfolded.insert(key);
        } else {
            self.wish.unfolded.remove(&key);
        }
    }

    /// Folds the selected group, or goes to the one that the selected stall is in.
    fn fold_or_parent(&mut self) {
        if let Some(Row::Stall { inside: true, .. }) = self.selected() {
            let before = self.rows.get(..self.list.cursor()).unwrap_or_default();
            if let Some(at) = before.iter().rposition(|r| matches!(r, Row::Group { .. })) {
                self.list.select(at);
            }
        } else {
            self.fold(Some(false));
        }
    }

    fn fold_all(&mut self) {
        if self.wish.unfolded.is_empty() {
            let groups = self.rows.iter().filter_map(|row| match row {
                Row::Group { group, .. } => Some(group.key.clone()),
                Row::Stall { .. } => None,
            });
            self.wish.unfolded = groups.collect();
        } else {
            self.wish.unfolded.clear();
        }
    }

    /// Only stalls like the selected one (or of the selected group), or all again.
    fn like_this(&mut self) {
        if !self.wish.is_narrow() {
            let like = match (&self.detail, self.selected()) {
                (Some(detail), _) => Some(rows::like(detail.stall())),
                (None, Some(Row::Stall { stall, .. })) => Some(rows::like(stall)),
                (None, Some(Row::Group { group, .. })) => {
                    let mut filter = Filter::default();
                    group.key.narrow(&mut filter);
                    Some(filter)
                }
                (None, None) => None,
            };
            if let Some(like) = like {
                self.wish.filter = Filter {
                    paused: self.wish.filter.paused,
                    ours: self.wish.filter.ours,
                    ..like
                };
                // What is all alike needs no groups.
                self.wish.by = None;
            }
        } else {
            self.wish.widen();
        }
        self.detail = None;
        self.list.release();
    }

    fn cpu(&self) -> Option<u32> {
        match (&self.detail, self.selected()?) {
            (Some(detail), _) => Some(detail.stall().cpu),
            (None, Row::Stall { stall, .. }) => Some(stall.cpu),
            (None, Row::Group { .. }) => None,
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

impl Pane for Stalls {
    fn refresh(&mut self, scene: &Scene<'_>) {
        self.list.tick();
        self.rebuild(scene);
    }

    fn update(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        if self.detail.is_some() {
            return self.in_detail(action, scene);
        }
        match action {
            ActionId::Open => self.enter(),
            ActionId::Unfold => match self.selected() {
                Some(Row::Group { .. }) => self.fold(Some(true)),
                _ => self.enter(),
            },
            ActionId::Fold => self.fold_or_parent(),
            ActionId::FoldAll => self.fold_all(),
            ActionId::LikeThis => self.like_this(),
            ActionId::GroupStalls => {
                self.wish.by = match self.wish.by {
                    None => Some(GroupBy::Culprit),
                    Some(GroupBy::Culprit) => Some(GroupBy::Function),
                    Some(GroupBy::Function) => Some(GroupBy::Cpu),
                    Some(GroupBy::Cpu) => Some(GroupBy::Kind),
                    Some(_) => None,
                };
                self.list.release();
                self.list.act(ActionId::Top);
            }
            ActionId::ShowPaused => self.wish.filter.paused = !self.wish.filter.paused,
            ActionId::ShowOurs => self.wish.filter.ours = !self.wish.filter.ours,
            ActionId::ShowCore => {
                return match self.cpu() {
                    Some(cpu) => Reply::Wish(Wish::Core(cpu)),
                    None => Reply::Done,
                };
            }
            ActionId::Sort => {
                let at = Order::ALL.iter().position(|o| *o == self.wish.order);
                self.wish.order = Order::ALL[at.map_or(0, |at| (at + 1) % Order::ALL.len())];
                self.list.release();
            }
            ActionId::Reverse => {
                self.wish.reverse = !self.wish.reverse;
                self.list.release();
            }
            ActionId::NextMatch => {
                self.list.seek(true, |_| true);
            }
            ActionId::PreviousMatch => {
                self.list.seek(false, |_| true);
            }
            ActionId::Close if !self.wish.text.is_empty() => self.wish.text.clear(),
            ActionId::Close if self.wish.is_narrow() => self.wish.widen(),
            action => {
                return if self.list.act(action) {
                    Reply::Done
                } else {
                    Reply::NotMine
                };
            }
        }
        self.rebuild(scene);
        Reply::Done
    }

    fn mouse(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply {
        match mouse.kind {
            MouseKind::WheelUp => self.update(ActionId::Up, scene),
            MouseKind::WheelDown => self.update(ActionId::Down, scene),
            MouseKind::Press if self.detail.is_none() => {
                let before = self.list.cursor();
                if self.list.click(mouse.column, mouse.row) && self.list.cursor() == before {
                    self.enter();
                    self.rebuild(scene);
                }
                Reply::Done
            }
            MouseKind::Press | MouseKind::Drag => Reply::Done,
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
        self.detail.is_none().then_some(&mut self.wish.text)
    }

    fn filtered(&self) -> &str {
        &self.wish.text
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
