//! Merged stacks on the screen: as a flame graph hanging from its root, or as an indented tree
//! where there is little room.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use stalltop_model::model::locks::frames;

use crate::draw::{self, Pen};
use crate::pane::Scene;
use crate::text;
use crate::theme::{Role, Theme};

use super::flame::Flame;
use super::names;

/// What is drawn where, for the mouse.
pub(super) type Drawn = Vec<(Rect, usize)>;

/// What of a tree is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The function at the top, over the whole width.
    pub zoom: usize,
    /// The selected one.
    pub at: usize,
}

/// Whether a flame graph can be read in so many cells.
pub(super) fn fits(area: Rect) -> bool {
    area.width >= 32 && area.height >= 4
}

/// Draws the flame graph: callers above, what they call below, widths by weight.
pub(super) fn render(
    scene: &Scene<'_>,
    flame: &Flame,
    place: Place,
    area: Rect,
    buf: &mut Buffer,
) -> Drawn {
    let levels = flame.layout(place.zoom, usize::from(area.width));
    let height = usize::from(area.height);
    let level =
        flame.node(place.at).depth - flame.node(place.zoom).depth.min(flame.node(place.at).depth);
    // The selected function stays in view, with one level of what it calls.
    let top = (level + 2)
        .saturating_sub(height)
        .min(levels.len().saturating_sub(height));
    let mut drawn = Drawn::new();
    for (y, level) in (0u16..area.height).zip(levels.iter().skip(top)) {
        for (place_in_row, (at, from, cells)) in level.iter().enumerate() {
            let cell = Rect::new(area.x + *from as u16, area.y + y, *cells as u16, 1);
            block(scene, flame, (*at, place_in_row), place.at, cell, buf);
            drawn.push((cell, *at));
        }
    }
    let below = levels.len().saturating_sub(top + height);
    if below > 0 && height > 0 {
        let foot = Rect::new(area.x, area.bottom() - 1, area.width, 1);
        Pen::new(buf, scene.theme, foot, 0).last(&format!(" ↓ {below} deeper "), Role::Title);
    }
    drawn
}

fn block(
    scene: &Scene<'_>,
    flame: &Flame,
    (at, place): (usize, usize),
    selected: usize,
    cell: Rect,
    buf: &mut Buffer,
) {
    let node = flame.node(at);
    let name = label(flame, at);
    let style = if at == selected {
        chosen(scene.theme)
    } else {
        scene
            .theme
            .style(role(flame, at, place))
            .add_modifier(Modifier::REVERSED)
    };
    let mark = match (node.probe, at == selected) {
        (_, true) => "▸",
        (Some(_), _) => names::PROBE,
        _ => "",
    };
    let cells = usize::from(cell.width);
    // The last cell stays empty, so that neighbours are told apart without colour.
    let filled = if cells > 2 { cells - 1 } else { cells };
    let text = text::left(&format!("{mark}{name}"), filled);
    let mut pen = Pen::new(buf, scene.theme, cell, 0);
    pen.styled(&text, style);
}

/// What a function is painted with: probes and locks in colours of their own, the others so that
/// neighbours differ.
fn role(flame: &Flame, at: usize, place: usize) -> Role {
    let node = flame.node(at);
    match node.probe {
        Some(_) => Role::Critical,
        None if at == 0 => Role::Dim,
        None if frames::is_lock(&node.name) => Role::Series3,
        None if (place + node.depth).is_multiple_of(2) => Role::Series1,
        None => Role::Series4,
    }
}

/// The selected function: a gap among filled blocks, so that it is seen without colours.
fn chosen(theme: &Theme) -> Style {
    theme
        .style(Role::Strong)
        .add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
}

/// A function's name; the root stands for all stacks.
pub(super) fn label(flame: &Flame, at: usize) -> String {
    match at {
        0 => "all".to_owned(),
        at => names::function(&flame.node(at).name, 200),
    }
}

/// Draws the same as an indented tree; functions that alone are called stand below their
/// callers without another indent.
pub(super) fn tree(
    scene: &Scene<'_>,
    flame: &Flame,
    place: Place,
    area: Rect,
    buf: &mut Buffer,
) -> Drawn {
    let lines = flame.lines(place.zoom);
    let height = usize::from(area.height);
    let cursor = lines.iter().position(|at| *at == place.at).unwrap_or(0);
    let top = (cursor + 1 + height / 3)
        .saturating_sub(height)
        .min(lines.len().saturating_sub(height))
        .min(cursor);
    let mut drawn = Drawn::new();
    for (y, at) in (0u16..area.height).zip(lines.iter().skip(top)) {
        let line = Rect::new(area.x, area.y + y, area.width, 1);
        let node = flame.node(*at);
        let indent = indent(flame, *at, place.zoom).min(usize::from(area.width) / 3);
        let mut pen = Pen::new(buf, scene.theme, line, 0);
        pen.right(&text::percent(flame.share(*at)), 6, Role::Text)
            .put(" % ", Role::Dim)
            .gap(indent);
        if node.probe.is_some() {
            pen.put(names::PROBE, Role::Critical).gap(1);
        }
        let role = match node.probe {
            Some(_) => Role::Critical,
            None if frames::is_lock(&node.name) => Role::Series3,
            None => Role::Text,
        };
        pen.put(&label(flame, *at), role);
        if *at == place.at {
            draw::highlight(buf, scene.theme, line, 0, Role::Cursor);
        }
        drawn.push((line, *at));
    }
    drawn
}

/// How many of a function's callers up to `root` called several.
pub(super) fn indent(flame: &Flame, mut at: usize, root: usize) -> usize {
    let mut out = 0;
    while at != root && at != 0 {
        at = flame.node(at).parent;
        out += usize::from(flame.node(at).children.len() > 1);
    }
    out
}
