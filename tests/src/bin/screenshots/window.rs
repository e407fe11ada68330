//! A terminal's window around a screen: from cells to a picture.

use anyhow::Result;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style as CellStyle};

use super::blocks::{self, Cell};
use super::canvas::{Canvas, Rgb};
use super::font::{Fonts, Style};

/// A cell, at twice the size it is shown at.
const WIDTH: i32 = 16;
const HEIGHT: i32 = 34;
const PADDING: i32 = 24;
const TITLE: i32 = 60;
const RADIUS: f32 = 20.0;

/// What a terminal itself brings along: the colours that a program only names.
pub(super) struct Terminal {
    foreground: Rgb,
    background: Rgb,
    title_bar: Rgb,
    title: Rgb,
}

/// The sixteen colours that a program can only name, as a usual dark terminal shows them.
const NAMED: [Rgb; 16] = [
    [0x1d, 0x1f, 0x28],
    [0xe0, 0x5f, 0x65],
    [0x78, 0xb8, 0x92],
    [0xe0, 0xb3, 0x6b],
    [0x6a, 0x9f, 0xe6],
    [0xb4, 0x8c, 0xe0],
    [0x6a, 0xc0, 0xc8],
    [0xc8, 0xcc, 0xd4],
    [0x5a, 0x60, 0x70],
    [0xf0, 0x7a, 0x80],
    [0x93, 0xd0, 0xa8],
    [0xf2, 0xcb, 0x88],
    [0x8a, 0xb8, 0xf6],
    [0xcb, 0xa8, 0xf0],
    [0x8a, 0xd6, 0xde],
    [0xf4, 0xf6, 0xfa],
];

impl Terminal {
    /// Around the default theme.
    pub(super) const DARK: Self = Self {
        foreground: [0xc3, 0xcc, 0xd6],
        background: [0x10, 0x14, 0x1a],
        title_bar: [0x1a, 0x20, 0x29],
        title: [0x8d, 0x99, 0xa8],
    };

    fn rgb(&self, color: Color, reset: Rgb) -> Rgb {
        match color {
            Color::Reset => reset,
            Color::Rgb(r, g, b) => [r, g, b],
            Color::Indexed(index) => indexed(index),
            Color::Black => NAMED[0],
            Color::Red => NAMED[1],
            Color::Green => NAMED[2],
            Color::Yellow => NAMED[3],
            Color::Blue => NAMED[4],
            Color::Magenta => NAMED[5],
            Color::Cyan => NAMED[6],
            Color::Gray => NAMED[7],
            Color::DarkGray => NAMED[8],
            Color::LightRed => NAMED[9],
            Color::LightGreen => NAMED[10],
            Color::LightYellow => NAMED[11],
            Color::LightBlue => NAMED[12],
            Color::LightMagenta => NAMED[13],
            Color::LightCyan => NAMED[14],
            Color::White => NAMED[15],
        }
    }

    /// Foreground and background of a cell, as shown.
    fn colors(&self, style: CellStyle) -> (Rgb, Rgb) {
        let mut front = self.rgb(style.fg.unwrap_or_default(), self.foreground);
        let mut back = self.rgb(style.bg.unwrap_or_default(), self.background);
        if style.add_modifier.contains(Modifier::REVERSED) {
            std::mem::swap(&mut front, &mut back);
        }
        if style.add_modifier.contains(Modifier::DIM) {
            for (front, back) in front.iter_mut().zip(back) {
                *front = front.midpoint(back);
            }
        }
        (front, back)
    }
}

/// xterm's 256 colours.
fn indexed(index: u8) -> Rgb {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    match index {
        0..=15 => NAMED[usize::from(index)],
        16..=231 => {
            let cube = usize::from(index - 16);
            [LEVELS[cube / 36], LEVELS[cube / 6 % 6], LEVELS[cube % 6]]
        }
        232..=255 => [8 + 10 * (index - 232); 3],
    }
}

/// Paints a screen in a window with this title.
pub(super) fn paint(screen: &Buffer, title: &str, terminal: &Terminal) -> Result<Canvas> {
    let (columns, rows) = (i32::from(screen.area.width), i32::from(screen.area.height));
    let width = columns * WIDTH + 2 * PADDING;
    let height = rows * HEIGHT + PADDING * 3 / 2 + TITLE;
    let mut canvas = Canvas::new(usize::try_from(width)?, usize::try_from(height)?);
    let fonts = Fonts::load(WIDTH, HEIGHT)?;
    frame(&mut canvas, [width, height], terminal);
    let length = i32::try_from(title.chars().count())?;
    for (column, symbol) in (0..).zip(title.chars()) {
        let cell = Cell {
            x: (width - length * WIDTH) / 2 + column * WIDTH,
            y: (TITLE - HEIGHT) / 2,
            width: WIDTH,
            height: HEIGHT,
        };
        let style = Style {
            color: terminal.title,
            bold: false,
            italic: false,
        };
        fonts.draw(&mut canvas, cell, symbol, style)?;
    }
    for row in 0..rows {
        for column in 0..columns {
            let place = Cell {
                x: PADDING + column * WIDTH,
                y: TITLE + PADDING / 2 + row * HEIGHT,
                width: WIDTH,
                height: HEIGHT,
            };
            let cell = &screen[(u16::try_from(column)?, u16::try_from(row)?)];
            draw(
                &mut canvas,
                &fonts,
                place,
                cell.symbol(),
                cell.style(),
                terminal,
            )?;
        }
    }
    Ok(canvas)
}

fn draw(
    canvas: &mut Canvas,
    fonts: &Fonts,
    place: Cell,
    symbol: &str,
    style: CellStyle,
    terminal: &Terminal,
) -> Result<()> {
    let (color, back) = terminal.colors(style);
    if back != terminal.background {
        canvas.fill(place.x, place.y, place.width, place.height, back);
    }
    let has = |modifier| style.add_modifier.contains(modifier);
    if has(Modifier::UNDERLINED) {
        canvas.fill(place.x, place.y + place.height - 5, place.width, 2, color);
    }
    if has(Modifier::CROSSED_OUT) {
        canvas.fill(place.x, place.y + place.height / 2, place.width, 2, color);
    }
    let style = Style {
        color,
        bold: has(Modifier::BOLD),
        italic: has(Modifier::ITALIC),
    };
    for symbol in symbol.chars().filter(|symbol| *symbol != ' ') {
        if !blocks::draw(canvas, place, symbol, color) {
            fonts.draw(canvas, place, symbol, style)?;
        }
    }
    Ok(())
}

/// The window itself: rounded, a title bar, and three buttons.
fn frame(canvas: &mut Canvas, [width, height]: [i32; 2], terminal: &Terminal) {
    let half = [width as f32 / 2.0, height as f32 / 2.0];
    let rounded = |x: f32, y: f32| {
        let over_x = (x - half[0]).abs() - half[0] + RADIUS;
        let over_y = (y - half[1]).abs() - half[1] + RADIUS;
        over_x.max(0.0).hypot(over_y.max(0.0)) + over_x.max(over_y).min(0.0) - RADIUS
    };
    canvas.shape([0, 0, width, TITLE], terminal.title_bar, rounded);
    canvas.shape(
        [0, TITLE, width, height - TITLE],
        terminal.background,
        rounded,
    );
    for (button, color) in (0..).zip([[0xec, 0x6a, 0x5e], [0xf4, 0xbf, 0x4f], [0x61, 0xc5, 0x54]]) {
        let (x, y) = ((38 + 36 * button) as f32, TITLE as f32 / 2.0);
        canvas.shape([0, 0, width / 2, TITLE], color, |px, py| {
            (px - x).hypot(py - y) - 10.0
        });
    }
}
