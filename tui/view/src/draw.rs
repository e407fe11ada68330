//! Drawing into a buffer by role, never past an edge.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::text;
use crate::theme::{Role, Theme};

/// Writes one line from left to right.
pub(crate) struct Pen<'a> {
    buf: &'a mut Buffer,
    theme: &'a Theme,
    x: u16,
    y: u16,
    end: u16,
}

impl<'a> Pen<'a> {
    /// A pen at the left of row `row` (from 0) of `area`; rows outside draw nothing.
    pub(crate) fn new(buf: &'a mut Buffer, theme: &'a Theme, area: Rect, row: u16) -> Self {
        let area = area.intersection(buf.area);
        let inside = row < area.height;
        Self {
            buf,
            theme,
            x: area.x,
            y: area.y.saturating_add(row),
            end: if inside { area.right() } else { area.x },
        }
    }

    /// Cells left on the line.
    pub(crate) fn room(&self) -> usize {
        usize::from(self.end.saturating_sub(self.x))
    }

    /// Writes text, cut where the line ends.
    pub(crate) fn put(&mut self, text: &str, role: Role) -> &mut Self {
        let style = paint(self.theme, role);
        self.styled(text, style)
    }

    /// Writes text in a style of its own.
    pub(crate) fn styled(&mut self, text: &str, style: Style) -> &mut Self {
        let room = self.room();
        if room > 0 {
            let text = text::cut(text, room);
            let (x, _) = self.buf.set_stringn(self.x, self.y, &text, room, style);
            self.x = x;
        }
        self
    }

    /// Leaves cells empty.
    pub(crate) fn gap(&mut self, cells: usize) -> &mut Self {
        self.x = self.x.saturating_add(cells.min(self.room()) as u16);
        self
    }

    /// Writes text at the right of a column of `width` cells.
    pub(crate) fn right(&mut self, text: &str, width: usize, role: Role) -> &mut Self {
        let text = text::cut(text, width);
        self.gap(width - text::width(&text));
        self.put(&text, role)
    }

    /// Writes text at the left of a column of `width` cells.
    pub(crate) fn left(&mut self, text: &str, width: usize, role: Role) -> &mut Self {
        let text = text::cut(text, width);
        let rest = width - text::width(&text);
        self.put(&text, role).gap(rest)
    }

    /// Writes text into a column of `width` cells whose last one stays empty.
    pub(crate) fn column(&mut self, text: &str, width: usize, role: Role) -> &mut Self {
        match width.checked_sub(1) {
            Some(room) => self.left(text, room, role).gap(1),
            None => self,
        }
    }

    /// Writes the first of several texts of which all fits, if any.
    pub(crate) fn whole(&mut self, texts: &[&str], role: Role) -> &mut Self {
        let room = self.room();
        match texts.iter().find(|text| text::width(text) <= room) {
            Some(text) => self.put(text, role),
            None => self,
        }
    }

    /// Writes text that ends at the end of the line, if it fits.
    pub(crate) fn last(&mut self, text: &str, role: Role) -> &mut Self {
        let width = text::width(text);
        if width <= self.room() {
            self.gap(self.room() - width).put(text, role);
        }
        self
    }
}

/// How a role is painted over what is there: text brings no background along.
pub(crate) fn paint(theme: &Theme, role: Role) -> Style {
    let style = theme.style(role);
    if role == Role::Text {
        Style { bg: None, ..style }
    } else {
        style
    }
}

/// A section's title in row `row` of `area`: `TITLE ─ detail ───── right ─`.
pub(crate) fn section(
    buf: &mut Buffer,
    theme: &Theme,
    area: Rect,
    row: u16,
    (title, detail, end): (&str, &str, &str),
) {
    let mut pen = Pen::new(buf, theme, area, row);
    pen.gap(1).put(title, Role::Title);
    if !detail.is_empty() {
        pen.put(" ", Role::Line).put(detail, Role::Dim);
    }
    pen.put(" ", Role::Line);
    let reserve = if end.is_empty() {
        0
    } else {
        text::width(end) + 2
    };
    if pen.room() > reserve + 2 {
        let line = "─".repeat(pen.room() - reserve);
        pen.put(&line, Role::Line);
        if reserve > 0 {
            pen.put(" ", Role::Line).put(end, Role::Dim);
        }
    }
}

/// What is left of `area` below so many rows.
pub(crate) fn below(area: Rect, rows: u16) -> Rect {
    let rows = rows.min(area.height);
    Rect::new(area.x, area.y + rows, area.width, area.height - rows)
}

/// Lays a style over a whole row of `area`.
pub(crate) fn highlight(buf: &mut Buffer, theme: &Theme, area: Rect, row: u16, role: Role) {
    if row < area.height {
        let line = Rect::new(area.x, area.y + row, area.width, 1).intersection(buf.area);
        buf.set_style(line, theme.style(role));
    }
}

/// An emptied box with a border and a title in the middle of `area`; gives what is inside.
pub(crate) fn popup(
    buf: &mut Buffer,
    theme: &Theme,
    area: Rect,
    (width, height): (u16, u16),
    title: &str,
) -> Rect {
    let area = area.intersection(buf.area);
    let width = width.min(area.width);
    let height = height.min(area.height);
    let outer = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    for position in outer.positions() {
        if let Some(cell) = buf.cell_mut(position) {
            cell.reset();
            cell.set_style(theme.style(Role::Dialog));
        }
    }
    if width < 4 || height < 3 {
        return outer;
    }
    let border = theme.style(Role::DialogBorder);
    let bar = "─".repeat(usize::from(width) - 2);
    let mut line = |y: u16, left: &str, right: &str| {
        buf.set_string(outer.x, y, format!("{left}{bar}{right}"), border);
    };
    line(outer.y, "┌", "┐");
    line(outer.bottom() - 1, "└", "┘");
    for y in outer.y + 1..outer.bottom() - 1 {
        buf.set_string(outer.x, y, "│", border);
        buf.set_string(outer.right() - 1, y, "│", border);
    }
    let title = text::cut(title, usize::from(width).saturating_sub(6));
    if !title.is_empty() {
        buf.set_string(outer.x + 2, outer.y, format!(" {title} "), border);
    }
    Rect::new(outer.x + 2, outer.y + 1, width - 4, height - 2)
}

/// What a pane says in place of something that is not measured: what is missing, the
/// exact fix, and what is shown instead. Gives the number of rows used, those of `area` at most.
pub(crate) fn missing(
    buf: &mut Buffer,
    theme: &Theme,
    area: Rect,
    row: u16,
    (what, reason, instead): (&str, &stalltop_model::Reason, &str),
) -> u16 {
    let reason_text = reason.to_string();
    let mut pen = Pen::new(buf, theme, area, row);
    pen.gap(1)
        .put("○ ", Role::Faint)
        .put(what, Role::Dim)
        .put(": ", Role::Dim)
        .put(&text::name(&reason_text, 400), Role::Warning);
    // A command that is cut mends nothing.
    let fix = text::name(&reason.fix(), 400).into_owned();
    let mut used = 1;
    for (i, line) in text::wrap(&fix, usize::from(area.width).saturating_sub(9))
        .iter()
        .enumerate()
    {
        let mut pen = Pen::new(buf, theme, area, row + used);
        pen.gap(3)
            .put(if i == 0 { "fix: " } else { "     " }, Role::Dim)
            .put(line, Role::Strong);
        used += 1;
    }
    if !instead.is_empty() {
        let mut pen = Pen::new(buf, theme, area, row + used);
        pen.gap(3)
            .put("instead: ", Role::Dim)
            .put(instead, Role::Text);
        used += 1;
    }
    used.min(area.height)
}
