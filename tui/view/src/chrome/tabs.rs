//! The line of tabs: the panes with what they count, pressure and the clock.

use std::fmt::Write as _;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::Reading;
use stalltop_model::sample::{PressureLine, System};

use crate::draw::Pen;
use crate::pane::{PANES, PaneId, Scene};
use crate::text::{self, NONE};
use crate::theme::Role;

use super::Chrome;

impl Chrome<'_> {
    /// Draws the tabs, and at the right what works, or pressure and the clock.
    pub(super) fn tabs(&self, buf: &mut Buffer) {
        let theme = self.scene.theme;
        let width = self.size.width;
        if self.size.height < 2 {
            return;
        }
        let mut used = 0;
        for (pane, from, label) in tab_labels(width, &self.scene) {
            let area = Rect {
                x: self.size.x + from,
                y: self.size.y + 1,
                width: width.saturating_sub(from),
                height: 1,
            };
            let role = if pane == self.open {
                Role::TabActive
            } else {
                Role::Tab
            };
            Pen::new(buf, theme, area, 0).put(&label, role);
            used = usize::from(from) + text::width(&label);
        }
        let room = usize::from(width).saturating_sub(used + 1);
        let line = Rect::new(self.size.x, self.size.y + 1, width, 1);
        let mut pen = Pen::new(buf, theme, line, 0);
        pen.gap(used);
        if let Some(work) = self.work {
            pen.last(&format!("{} ", text::cut(work, room)), Role::Warning);
            return;
        }
        let wall = self.scene.wall_ns();
        if wall == 0 {
            return;
        }
        let clock = format!("{} UTC ", text::clock(wall));
        let pressure = pressure(&self.scene.sample().system);
        let full = format!("{pressure}   {clock}");
        let bare = text::clock(wall);
        let short = format!("{} {bare}", pressure.trim_end_matches(" %"));
        let pick = [full, short, clock, bare]
            .into_iter()
            .find(|t| text::width(t) <= room);
        pen.last(&pick.unwrap_or_default(), Role::Dim);
    }
}

fn pressure(system: &System) -> String {
    let one = |line: &Reading<PressureLine>| match line {
        Reading::Value(p) => format!("{:>2.0}", p.avg10),
        Reading::Off(_) => NONE.into(),
    };
    let p = &system.pressure;
    if p.cpu.value().is_none() && p.memory.value().is_none() && p.io.value().is_none() {
        return "PSI not available".into();
    }
    let mut out = format!(
        "PSI cpu {} mem {} io {}",
        one(&p.cpu),
        one(&p.memory),
        one(&p.io)
    );
    if let Reading::Value(irq) = &p.irq {
        let _ = write!(out, " irq {:>2.0}", irq.avg10);
    }
    out.push_str(" %");
    out
}

/// The tabs with where they begin.
fn tab_labels(width: u16, scene: &Scene<'_>) -> Vec<(PaneId, u16, String)> {
    let mut from = 0u16;
    PANES
        .iter()
        .enumerate()
        .map(|(i, pane)| {
            let label = if width >= 60 {
                format!(" {} {}{} ", i + 1, pane.title, badge(pane.id, width, scene))
            } else if width >= 42 {
                format!(" {} {} ", i + 1, pane.title)
            } else {
                format!(
                    "{} {} ",
                    i + 1,
                    text::cut(
                        pane.title,
                        (usize::from(width) / 4).saturating_sub(3).max(2)
                    )
                )
            };
            let at = from;
            from = from.saturating_add(text::width(&label) as u16);
            (pane.id, at, label)
        })
        .collect()
}

/// What a tab counts, so that it is seen from the other panes.
fn badge(pane: PaneId, width: u16, scene: &Scene<'_>) -> String {
    let n = match pane {
        PaneId::Overview => scene.model.findings().len() as u64,
        PaneId::Cores => 0,
        PaneId::Stalls => crate::stalls::recent(scene),
        PaneId::Locks => return crate::locks::badge(scene, width),
        PaneId::Tracing => crate::tracing::things_on(scene),
        PaneId::Cgroups if width < 100 => 0,
        PaneId::Cgroups => scene
            .sample()
            .cgroups
            .value()
            .and_then(|c| c.zombies.get())
            .unwrap_or(0),
    };
    match n {
        0 => String::new(),
        n => format!(" {}", text::count(n)),
    }
}

/// The pane whose tab is at a cell.
pub(crate) fn tab_at(size: Rect, column: u16, row: u16, scene: &Scene<'_>) -> Option<PaneId> {
    if row != size.y + 1 {
        return None;
    }
    tab_labels(size.width, scene)
        .into_iter()
        .find(|(_, from, label)| {
            let end = from.saturating_add(text::width(label) as u16);
            (*from..end).contains(&column)
        })
        .map(|(pane, _, _)| pane)
}
