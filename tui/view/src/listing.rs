//! A list of rows with what a person asked of it: order, filter, folds. Every pane that is a
//! list has one, and behaves alike: a pane says only what is its own.

mod pane;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::action::ActionId;
use crate::draw;
use crate::list::List;
use crate::msg::Mouse;
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;
pub(crate) use pane::ListPane;

/// What can be a row of a list.
pub(crate) trait Listed {
    /// What the cursor sticks to.
    type Key: Clone + Eq + Hash + std::fmt::Debug;
    /// What it can be sorted by.
    type Order: SortOrder;

    /// Its key; no two rows have the same.
    fn key(&self) -> Self::Key;

    /// Where it stands in a tree.
    fn place(&self) -> Place {
        Place::default()
    }
}

/// Where a row stands in a tree; by default, in a plain list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// How many rows it is inside of.
    pub depth: u16,
    /// For what has rows below it: whether they are shown.
    pub open: Option<bool>,
    /// Whether it matches the filter itself, not only something below it.
    pub hit: bool,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            depth: 0,
            open: None,
            hit: true,
        }
    }
}

/// What rows can be sorted by.
pub(crate) trait SortOrder: Copy + Default + PartialEq + std::fmt::Debug + 'static {
    /// Every order, as the key goes through them.
    const ALL: &'static [Self];

    /// How a heading names it.
    fn title(self) -> &'static str;
}

/// The one that follows `now` in `all`; after the last the first.
pub(crate) fn after<T: Copy + PartialEq>(all: &[T], now: T) -> T {
    let at = all.iter().position(|one| *one == now);
    let next = at.map_or(0, |at| (at + 1) % all.len().max(1));
    all.get(next).copied().unwrap_or(now)
}

/// What came of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acted {
    /// It is none that a list takes.
    NotMine,
    /// The cursor moved at most: the rows are as they were.
    Moved,
    /// Other rows, or another order, were asked for.
    Asked,
}

/// Rows in their order, the cursor among them, and what was asked for.
#[derive(Debug)]
pub(crate) struct Listing<R: Listed> {
    list: List<R::Key>,
    rows: Vec<R>,
    /// What is sorted by.
    pub order: R::Order,
    /// The other way round.
    pub reverse: bool,
    /// What is typed after `/`.
    pub filter: String,
    /// Rows whose fold differs from what it is by default.
    turned: HashSet<R::Key>,
}

impl<R: Listed> Default for Listing<R> {
    fn default() -> Self {
        Self {
            list: List::default(),
            rows: Vec::new(),
            order: R::Order::default(),
            reverse: false,
            filter: String::new(),
            turned: HashSet::new(),
        }
    }
}

impl<R: Listed> Listing<R> {
    /// A frame went by.
    pub(crate) fn tick(&mut self) {
        self.list.tick();
    }

    /// The rows in their new order; the cursor stays on its row.
    pub(crate) fn set(&mut self, rows: Vec<R>) {
        self.list.set(rows.iter().map(R::key).collect());
        self.rows = rows;
    }

    /// The rows, in order.
    pub(crate) fn rows(&self) -> &[R] {
        &self.rows
    }

    /// The row under the cursor.
    pub(crate) fn selected(&self) -> Option<&R> {
        self.rows.get(self.list.cursor())
    }

    /// The number of the row under the cursor.
    pub(crate) fn cursor(&self) -> usize {
        self.list.cursor()
    }

    /// Puts the cursor on a key, if it is there.
    pub(crate) fn select_key(&mut self, key: &R::Key) {
        self.list.select_key(key);
    }

    /// Puts the cursor back to the top: other rows are listed now.
    pub(crate) fn restart(&mut self) {
        self.list.act(ActionId::Top);
    }

    /// Lets the order go that is held while the cursor moves.
    pub(crate) fn release(&mut self) {
        self.list.release();
    }

    /// What to sort by first: where a row stood when the order was last held.
    pub(crate) fn held(&self, key: &R::Key) -> usize {
        self.list.held(key).unwrap_or(usize::MAX)
    }

    /// Whether what is below a row is shown, given whether it is by default.
    pub(crate) fn is_open(&self, key: &R::Key, by_default: bool) -> bool {
        by_default != self.turned.contains(key)
    }

    /// `worst first, reversed`.
    pub(crate) fn order_title(&self) -> String {
        let reversed = if self.reverse { ", reversed" } else { "" };
        format!("{}{reversed}", self.order.title())
    }

    /// `filter "net"`; `None` where nothing is typed.
    pub(crate) fn filter_title(&self) -> Option<String> {
        let filter = text::name(&self.filter, 30);
        (!filter.is_empty()).then(|| format!("filter {filter:?}"))
    }

    /// How many rows match the filter themselves.
    pub(crate) fn hits(&self) -> usize {
        self.rows.iter().filter(|row| row.place().hit).count()
    }

    /// The rows that `area` shows.
    pub(crate) fn view(&self, area: Rect) -> Range<usize> {
        self.list.view(area)
    }

    /// Draws the rows that `area` shows, each by `line`, and the cursor.
    pub(crate) fn draw(
        &self,
        scene: &Scene<'_>,
        area: Rect,
        buf: &mut Buffer,
        mut line: impl FnMut(&mut Buffer, u16, &R),
    ) {
        let view = self.list.view(area);
        let rows = self.rows.get(view.clone()).unwrap_or_default();
        for (y, (at, row)) in (0u16..).zip(view.zip(rows)) {
            line(buf, y, row);
            if at == self.list.cursor() {
                draw::highlight(buf, scene.theme, area, y, Role::Cursor);
            }
        }
    }

    /// Does what means the same in every list.
    pub(crate) fn act(&mut self, action: ActionId) -> Acted {
        match action {
            ActionId::Sort => {
                self.order = after(R::Order::ALL, self.order);
                self.list.release();
            }
            ActionId::Reverse => {
                self.reverse = !self.reverse;
                self.list.release();
            }
            ActionId::Close if !self.filter.is_empty() => self.filter.clear(),
            ActionId::Fold if self.fold(Some(false)) => {}
            ActionId::Fold => {
                self.go_to_parent();
                return Acted::Moved;
            }
            ActionId::FoldAll => self.fold_all(),
            ActionId::NextMatch | ActionId::PreviousMatch => {
                let rows = &self.rows;
                let hit = |at: usize| rows.get(at).is_some_and(|row| row.place().hit);
                self.list.seek(action == ActionId::NextMatch, hit);
                return Acted::Moved;
            }
            action if self.list.act(action) => return Acted::Moved,
            _ => return Acted::NotMine,
        }
        Acted::Asked
    }

    /// Folds or unfolds the selected row, or (`None`) turns it; `false` if it is so already,
    /// or has nothing below it.
    pub(crate) fn fold(&mut self, open: Option<bool>) -> bool {
        let turns = |row: &&R| row.place().open.is_some_and(|is| open != Some(is));
        let key = self.selected().filter(turns).map(R::key);
        let turned = key.is_some();
        if let Some(key) = key {
            self.turn(key);
        }
        turned
    }

    fn turn(&mut self, key: R::Key) {
        if !self.turned.remove(&key) {
            self.turned.insert(key);
        }
    }

    /// Folds what is open; if nothing is, goes back to the default; if it is that already,
    /// unfolds everything. A root that is alone stays as it is: below it is all there is.
    fn fold_all(&mut self) {
        let roots = self.rows.iter().filter(|row| row.place().depth == 0);
        let least = u16::from(roots.count() == 1);
        let folds = |open: bool| {
            let rows = self.rows.iter().filter(|row| {
                let place = row.place();
                place.open == Some(open) && place.depth >= least
            });
            rows.map(R::key).collect::<Vec<_>>()
        };
        let (open, closed) = (folds(true), folds(false));
        let turn = match (open.is_empty(), self.turned.is_empty()) {
            (false, _) => open,
            (true, true) => closed,
            (true, false) => {
                self.turned.clear();
                return;
            }
        };
        for key in turn {
            self.turn(key);
        }
    }

    fn go_to_parent(&mut self) {
        let at = self.list.cursor();
        let Some(depth) = self.selected().map(|row| row.place().depth) else {
            return;
        };
        let above = |row: &R| row.place().depth < depth;
        let parent = self.rows[..at].iter().rposition(above);
        if let Some(parent) = parent {
            self.list.select(parent);
        }
    }

    /// Puts the cursor on the row at a cell; `true` if it was there already.
    fn click(&mut self, mouse: Mouse) -> bool {
        let before = self.list.cursor();
        self.list.click(mouse.column, mouse.row) && self.list.cursor() == before
    }
}
