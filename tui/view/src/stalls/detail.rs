//! One stall in full: what happened, who held the CPU and how that is known.

mod facts;
mod page;

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::Name;
use stalltop_model::sample::Stall;

use crate::action::{ActionId, Context};
use crate::dialog::Scroll;
use crate::draw::{self, Pen};
use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::watch::Part;
use super::{names, stacks};
use page::Page;

/// Stacks that are listed.
const STACKS: usize = 8;

/// The stall that is open.
#[derive(Debug)]
pub(super) struct Detail {
    /// Kept here: it may leave the list meanwhile.
    stall: Arc<Stall>,
    scroll: Scroll,
    /// Stacks from the innermost function on.
    inward: bool,
}

impl Detail {
    pub(super) fn new(stall: &Arc<Stall>) -> Self {
        Self {
            stall: Arc::clone(stall),
            scroll: Scroll::default(),
            inward: false,
        }
    }

    pub(super) fn stall(&self) -> &Stall {
        &self.stall
    }

    pub(super) fn turn(&mut self) {
        self.inward = !self.inward;
    }

    pub(super) fn scroll(&mut self, action: ActionId) -> bool {
        self.scroll.act(action)
    }

    pub(super) fn render(&self, scene: &Scene<'_>, area: Rect, buf: &mut Buffer) {
        let title = format!("cpu {} · {}", self.stall.cpu, names::what(&self.stall));
        let name = text::clock_part(self.stall.wall_ns, 3);
        let title = format!("{name} · {title}");
        draw::section(buf, scene.theme, area, 0, ("STALL", &title, "Esc closes"));
        let lines = self.lines(scene, usize::from(area.width).saturating_sub(2));
        let height = usize::from(area.height.saturating_sub(1));
        let view = self.scroll.view(lines.len(), height);
        let below = lines.len() - view.end;
        for (y, line) in (1u16..).zip(lines.iter().take(view.end).skip(view.start)) {
            let mut pen = Pen::new(buf, scene.theme, area, y);
            pen.gap(1);
            for (text, role) in line {
                pen.put(text, *role);
            }
        }
        if below > 0 && area.height > 3 {
            let foot = Rect::new(area.x, area.bottom() - 1, area.width, 1);
            Pen::new(buf, scene.theme, foot, 0).last(&format!(" ↓ {below} more "), Role::Title);
        }
    }

    /// Everything, for a ticket.
    pub(super) fn text(&self, scene: &Scene<'_>) -> Vec<String> {
        let mut out = vec![format!(
            "stall {} on cpu {}, {}",
            self.stall.id,
            self.stall.cpu,
            text::date(self.stall.wall_ns)
        )];
        let lines = self.lines(scene, 118);
        out.extend(
            lines
                .into_iter()
                .map(|line| line.into_iter().map(|(text, _)| text).collect()),
        );
        out
    }

    fn lines(&self, scene: &Scene<'_>, width: usize) -> Vec<Vec<Part>> {
        let stall = &*self.stall;
        let mut out = Page::new(width);
        let watch = scene.sample().stalls.value();
        let from_ns = watch.and_then(|watch| watch.kinds[stall.kind as usize].get());
        out.parts("what", facts::sentence(stall, from_ns));
        facts::held_by(&mut out, stall);
        facts::timeline(&mut out, scene, stall);
        self.stacks(&mut out, scene, stall);
        facts::then(&mut out, scene, stall);
        facts::not_known(&mut out, scene, stall);
        out.lines
    }

    fn stacks(&self, out: &mut Page, scene: &Scene<'_>, stall: &Stall) {
        let merged = stacks::merged(stall);
        if merged.is_empty() {
            return;
        }
        let key = scene.key(&[Context::StallDetail], ActionId::StackOrder);
        let order = if self.inward {
            format!("innermost function first ({key}: outermost first)")
        } else {
            format!("outermost function first ({key}: innermost first)")
        };
        out.blank();
        out.put("stacks", &order, Role::Faint);
        let main = stall.culprit.value().and_then(|c| c.function.value());
        let mut above: &[Name] = &[];
        for stack in merged.iter().take(STACKS) {
            let share = format!("{:>5.1} %", stack.share * 100.0);
            let mut parts = vec![(stack.who.clone(), Role::Strong), (" ".into(), Role::Text)];
            if let Some(without) = stack.without {
                parts.push((without.to_owned(), Role::Faint));
            }
            // What it shares with the one above need not be read twice.
            let skip = match stacks::shared(above, &stack.frames) {
                0..3 => 0,
                shared => shared.min(stack.frames.len().saturating_sub(1)),
            };
            let frames: Box<dyn Iterator<Item = &Name>> = if self.inward {
                Box::new(stack.frames[skip..].iter().rev())
            } else {
                if skip > 0 {
                    parts.push(("...".into(), Role::Faint));
                }
                Box::new(stack.frames[skip..].iter())
            };
            let arrow = if self.inward { " < " } else { " > " };
            for (i, frame) in frames.enumerate() {
                if i > 0 || (skip > 0 && !self.inward) {
                    parts.push((arrow.into(), Role::Faint));
                }
                let role = if Some(frame) == main {
                    Role::Warning
                } else {
                    Role::Text
                };
                parts.push((text::name(frame, 120).into_owned(), role));
            }
            if skip > 0 && self.inward {
                parts.push((" < ...".into(), Role::Faint));
            }
            out.parts(&share, parts);
            above = &stack.frames;
        }
        if let Some(more) = merged.len().checked_sub(STACKS).filter(|n| *n > 0) {
            let rest: f64 = merged.iter().skip(STACKS).map(|m| m.share).sum();
            let about = format!("{} more, together {:.1} %", more, rest * 100.0);
            out.put("", &about, Role::Faint);
        }
    }
}
