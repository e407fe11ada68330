//! A list whose cursor sticks to the thing, not to the row.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use ratatui::layout::Rect;

use crate::action::ActionId;

/// For how many frames the order is held after the cursor moved.
const HOLD: u8 = 5;

/// Keys of the rows in their present order, the cursor among them, and what is in view.
///
/// Where it was drawn last is kept in cells: drawing takes `&self`, and the mouse and the
/// page keys need to know.
#[derive(Debug)]
pub(crate) struct List<K> {
    rows: Vec<K>,
    cursor: usize,
    /// Whether a person has put the cursor somewhere; until then it stays on top.
    moved: bool,
    top: Cell<usize>,
    area: Cell<Rect>,
    hold: u8,
    rank: HashMap<K, usize>,
}

impl<K> Default for List<K> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            cursor: 0,
            moved: false,
            top: Cell::new(0),
            area: Cell::new(Rect::ZERO),
            hold: 0,
            rank: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> List<K> {
    /// A frame went by: the order is let go after a while.
    pub(crate) fn tick(&mut self) {
        self.hold = self.hold.saturating_sub(1);
        if self.hold == 0 {
            self.rank.clear();
        }
    }

    /// Where a key stood when the order was last held: sort by this first.
    pub(crate) fn held(&self, key: &K) -> Option<usize> {
        self.rank.get(key).copied()
    }

    /// Lets the order go at once: another sort order was asked for.
    pub(crate) fn release(&mut self) {
        self.hold = 0;
        self.rank.clear();
    }

    /// The rows in their new order. The cursor stays on its key, or where that was.
    pub(crate) fn set(&mut self, rows: Vec<K>) {
        let key = self.selected().cloned();
        self.rows = rows;
        if let (true, Some(key)) = (self.moved, key)
            && let Some(at) = self.rows.iter().position(|k| *k == key)
        {
            // Keep its distance from the top of the view too.
            let top = self.top.get();
            self.top.set((top + at).saturating_sub(self.cursor));
            self.cursor = at;
        }
        self.cursor = self.cursor.min(self.rows.len().saturating_sub(1));
    }

    /// The keys, in order.
    pub(crate) fn rows(&self) -> &[K] {
        &self.rows
    }

    /// The key under the cursor.
    pub(crate) fn selected(&self) -> Option<&K> {
        self.rows.get(self.cursor)
    }

    /// The cursor's row.
    pub(crate) fn cursor(&self) -> usize {
        self.cursor
    }

    /// Puts the cursor on a row.
    pub(crate) fn select(&mut self, row: usize) {
        self.cursor = row.min(self.rows.len().saturating_sub(1));
        self.moved = true;
        self.hold = HOLD;
        self.rank.clear();
        for (i, key) in self.rows.iter().enumerate() {
            self.rank.insert(key.clone(), i);
        }
    }

    /// Puts the cursor on a key, if it is there.
    pub(crate) fn select_key(&mut self, key: &K) -> bool {
        match self.rows.iter().position(|k| k == key) {
            Some(row) => {
                self.select(row);
                true
            }
            None => false,
        }
    }

    /// Moves the cursor if the action does that.
    pub(crate) fn act(&mut self, action: ActionId) -> bool {
        let page = usize::from(self.area.get().height).max(2) - 1;
        let to = match action {
            ActionId::Up => self.cursor.saturating_sub(1),
            ActionId::Down => self.cursor + 1,
            ActionId::PageUp => self.cursor.saturating_sub(page),
            ActionId::PageDown => self.cursor + page,
            ActionId::Top => 0,
            ActionId::Bottom => usize::MAX,
            _ => return false,
        };
        self.select(to);
        if action == ActionId::Top {
            // Back where it was before anything was touched: it follows the top again.
            self.moved = false;
            self.release();
        }
        true
    }

    /// The next (or previous) row for which `found` holds, going round.
    pub(crate) fn seek(&mut self, forward: bool, found: impl Fn(usize) -> bool) -> bool {
        let n = self.rows.len();
        let hit = (1..=n)
            .map(|step| (self.cursor + if forward { step } else { n - step }) % n)
            .find(|row| found(*row));
        if let Some(row) = hit {
            self.select(row);
        }
        hit.is_some()
    }

    /// Puts the cursor on the row at a cell of the screen.
    pub(crate) fn click(&mut self, column: u16, row: u16) -> bool {
        let area = self.area.get();
        let at = self.top.get() + usize::from(row.saturating_sub(area.y));
        let hit = area.contains((column, row).into()) && at < self.rows.len();
        if hit {
            self.select(at);
        }
        hit
    }

    /// The rows that `area` shows, with the cursor among them.
    pub(crate) fn view(&self, area: Rect) -> Range<usize> {
        let height = usize::from(area.height);
        let mut top = self.top.get().min(self.rows.len().saturating_sub(height));
        if self.cursor < top {
            top = self.cursor;
        } else if height > 0 && self.cursor >= top + height {
            top = self.cursor + 1 - height;
        }
        self.top.set(top);
        self.area.set(area);
        top..(top + height).min(self.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rows: &[u32]) -> List<u32> {
        let mut list = List::default();
        list.set(rows.to_vec());
        list
    }

    #[test]
    fn the_cursor_sticks_to_the_thing() {
        let mut list = list(&[1, 2, 3]);
        list.act(ActionId::Down);
        assert_eq!(list.selected(), Some(&2));
        list.set(vec![9, 8, 3, 2, 1]);
        assert_eq!(list.selected(), Some(&2));
        list.set(vec![7, 6]);
        assert_eq!(list.selected(), Some(&6));
        list.set(vec![]);
        assert_eq!(list.selected(), None);
    }

    #[test]
    fn until_it_is_moved_it_stays_on_top() {
        let mut list = list(&[1, 2]);
        list.set(vec![2, 1]);
        assert_eq!(list.selected(), Some(&2));
    }

    #[test]
    fn the_order_is_held_for_a_while() {
        let mut list = list(&[5, 6]);
        assert_eq!(list.held(&6), None);
        list.act(ActionId::Down);
        assert_eq!(list.held(&6), Some(1));
        for _ in 0..HOLD {
            list.tick();
        }
        assert_eq!(list.held(&6), None);
    }

    #[test]
    fn the_view_follows_the_cursor() {
        let mut list = list(&(0..100).collect::<Vec<_>>());
        let area = Rect::new(0, 2, 10, 10);
        assert_eq!(list.view(area), 0..10);
        list.act(ActionId::PageDown);
        list.act(ActionId::PageDown);
        assert_eq!(list.view(area), 9..19);
        assert!(list.click(3, 2));
        assert_eq!(list.selected(), Some(&9));
        assert!(!list.click(3, 40));
        list.act(ActionId::Bottom);
        assert!(list.view(Rect::new(0, 0, 10, 0)).is_empty());
        assert_eq!(list.view(area), 90..100);
    }
}
