//! What is shown, for a ticket.

use std::fmt::Write as _;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use stalltop_model::{Model, printable};

use super::App;
use crate::msg::{Effect, Effects};
use crate::pane::Scene;
use crate::text;

impl App {
    /// What is shown as text, and a flame graph where there are stacks.
    pub(super) fn write_down(&self, model: &Model) -> Effects {
        let flame = self.panes.get(self.open).flame(&self.scene(model));
        Effects::one(Effect::Snapshot {
            text: self.snapshot(model),
            flame: flame.map(Box::new),
        })
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
        as_text(&scene, &buf, full.as_deref())
    }
}

/// A ticket's text: facts, findings with their evidence, and the screen.
/// `full` is all of what the screen may show only a part of.
fn as_text(scene: &Scene<'_>, buf: &Buffer, full: Option<&[String]>) -> String {
    let mut out = String::new();
    let sample = scene.sample();
    if let Some(header) = scene.model.header() {
        let host = &header.host;
        let _ = writeln!(
            out,
            "host {}, kernel {} {}, {}, stalltop {}",
            printable(&host.hostname),
            printable(&host.release),
            printable(&host.machine),
            text::date(sample.wall_ns),
            printable(&header.version),
        );
    }
    if let Some(as_of) = scene.findings_as_of() {
        let _ = writeln!(out, "findings {as_of}");
    }
    for finding in scene.model.findings() {
        let _ = writeln!(
            out,
            "{} {} {}",
            finding.severity.glyph(),
            finding.id,
            printable(&finding.sentence)
        );
        for line in &finding.evidence {
            let _ = writeln!(out, "    {}", printable(line));
        }
        let _ = writeln!(
            out,
            "    confidence {}; would be wrong if: {}",
            finding.confidence.as_str(),
            finding.disproof
        );
    }
    if scene.model.findings().is_empty() {
        let _ = writeln!(out, "no finding now");
    }
    out.push('\n');
    for y in buf.area.rows() {
        let mut line = String::new();
        let mut skip = 0;
        for position in y.positions() {
            let Some(cell) = buf.cell(position) else {
                continue;
            };
            if skip > 0 {
                skip -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            skip = text::width(cell.symbol()).saturating_sub(1);
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if let Some(full) = full {
        out.push('\n');
        for line in full {
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out
}
