//! What is shown, for a ticket.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::Model;

use super::App;
use crate::chrome;
use crate::msg::{Effect, Effects};

impl App {
    /// What is shown as text, and a flame graph where there are stacks.
    pub(super) fn write_down(&self, model: &Model) -> Effects {
        let text = Effects::one(Effect::Snapshot(self.snapshot(model)));
        let pane = self.panes.get(self.open);
        match pane.flame(&self.scene(model)) {
            Some(flame) => text.and(Effects::one(Effect::FlameGraph(Box::new(flame)))),
            None => text,
        }
    }

    /// What is shown, as text for a ticket.
    fn snapshot(&self, model: &Model) -> String {
        let scene = self.scene(model);
        let area = Rect::new(
            0,
            0,
            self.size.width.clamp(100, 160),
            self.size.height.clamp(40, 120),
        );
        let mut buf = Buffer::empty(area);
        self.draw(model, area, &mut buf);
        let full = self.panes.get(self.open).full_text(&scene);
        chrome::as_text(&scene, &buf, full.as_deref())
    }
}
