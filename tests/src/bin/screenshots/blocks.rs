//! Block elements, box lines and braille, drawn rather than taken from the font, as good
//! terminals do: only so do they fill their cell and join their neighbours.

use super::canvas::{Canvas, Rgb};

/// A cell's place and size in pixels.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: i32,
    pub(super) height: i32,
}

/// Draws `symbol` if it is one of those; `false` leaves it to the font.
pub(super) fn draw(canvas: &mut Canvas, cell: Cell, symbol: char, color: Rgb) -> bool {
    match symbol {
        '\u{2580}'..='\u{259f}' => block(canvas, cell, symbol, color),
        '\u{2800}'..='\u{28ff}' => {
            braille(canvas, cell, symbol as u32 - 0x2800, color);
            true
        }
        _ => lines(canvas, cell, symbol, color),
    }
}

fn block(canvas: &mut Canvas, cell: Cell, symbol: char, color: Rgb) -> bool {
    let Cell {
        x,
        y,
        width,
        height,
    } = cell;
    let (half_width, half_height) = (width / 2, height / 2);
    match symbol {
        '▀' => canvas.fill(x, y, width, half_height, color),
        '▁'..='█' => {
            let eighths = symbol as i32 - '▁' as i32 + 1;
            let filled = (height * eighths + 4) / 8;
            canvas.fill(x, y + height - filled, width, filled, color);
        }
        '▉'..='▏' => {
            let eighths = 7 - (symbol as i32 - '▉' as i32);
            canvas.fill(x, y, (width * eighths + 4) / 8, height, color);
        }
        '▐' => canvas.fill(x + half_width, y, width - half_width, height, color),
        '░' | '▒' | '▓' => {
            let share = (symbol as i32 - '░' as i32 + 1) as f32 / 4.0;
            for row in y..y + height {
                for column in x..x + width {
                    canvas.blend(column, row, color, share);
                }
            }
        }
        '▔' => canvas.fill(x, y, width, (height + 4) / 8, color),
        '▕' => {
            let filled = (width + 4) / 8;
            canvas.fill(x + width - filled, y, filled, height, color);
        }
        '▖'..='▟' => {
            // Upper left, upper right, lower left, lower right.
            const QUADRANTS: [u8; 10] = [
                0b0010, 0b0001, 0b1000, 0b1011, 0b1001, 0b1110, 0b1101, 0b0100, 0b0110, 0b0111,
            ];
            let bits = QUADRANTS[symbol as usize - '▖' as usize];
            for (bit, right, low) in [
                (8, false, false),
                (4, true, false),
                (2, false, true),
                (1, true, true),
            ] {
                if bits & bit != 0 {
                    let (left, wide) = half(x, width, right);
                    let (top, high) = half(y, height, low);
                    canvas.fill(left, top, wide, high, color);
                }
            }
        }
        _ => return false,
    }
    true
}

fn half(start: i32, length: i32, second: bool) -> (i32, i32) {
    if second {
        (start + length / 2, length - length / 2)
    } else {
        (start, length / 2)
    }
}

fn braille(canvas: &mut Canvas, cell: Cell, bits: u32, color: Rgb) {
    // Unicode numbers the dots down the left column, down the right, then the fourth row.
    const PLACES: [(i32, i32); 8] = [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
        (0, 3),
        (1, 3),
    ];
    let radius = cell.width as f32 / 7.0;
    for (bit, (column, row)) in PLACES.into_iter().enumerate() {
        if bits & (1 << bit) != 0 {
            let x = cell.x as f32 + cell.width as f32 * (2 * column + 1) as f32 / 4.0;
            let y = cell.y as f32 + cell.height as f32 * (2 * row + 1) as f32 / 8.0;
            canvas.shape(
                [cell.x, cell.y, cell.width, cell.height],
                color,
                |px, py| (px - x).hypot(py - y) - radius,
            );
        }
    }
}

/// Which arms a box character has: 0 none, 1 light, 2 heavy; left, right, up, down.
fn arms(symbol: char) -> Option<[i32; 4]> {
    Some(match symbol {
        '─' => [1, 1, 0, 0],
        '━' => [2, 2, 0, 0],
        '│' => [0, 0, 1, 1],
        '┃' => [0, 0, 2, 2],
        '┌' => [0, 1, 0, 1],
        '┐' => [1, 0, 0, 1],
        '└' => [0, 1, 1, 0],
        '┘' => [1, 0, 1, 0],
        '├' => [0, 1, 1, 1],
        '┤' => [1, 0, 1, 1],
        '┬' => [1, 1, 0, 1],
        '┴' => [1, 1, 1, 0],
        '┼' => [1, 1, 1, 1],
        '┏' => [0, 2, 0, 2],
        '┓' => [2, 0, 0, 2],
        '┗' => [0, 2, 2, 0],
        '┛' => [2, 0, 2, 0],
        '┣' => [0, 2, 2, 2],
        '┫' => [2, 0, 2, 2],
        '┳' => [2, 2, 0, 2],
        '┻' => [2, 2, 2, 0],
        '╋' => [2, 2, 2, 2],
        '╴' => [1, 0, 0, 0],
        '╵' => [0, 0, 1, 0],
        '╶' => [0, 1, 0, 0],
        '╷' => [0, 0, 0, 1],
        '╸' => [2, 0, 0, 0],
        '╹' => [0, 0, 2, 0],
        '╺' => [0, 2, 0, 0],
        '╻' => [0, 0, 0, 2],
        _ => return None,
    })
}

fn lines(canvas: &mut Canvas, cell: Cell, symbol: char, color: Rgb) -> bool {
    if let Some(corner) = corner(symbol) {
        rounded(canvas, cell, corner, color);
        return true;
    }
    let Some([left, right, up, down]) = arms(symbol) else {
        return false;
    };
    let unit = (cell.width / 8).max(1);
    let widest = unit * left.max(right).max(up).max(down);
    let (middle_x, middle_y) = (cell.x + cell.width / 2, cell.y + cell.height / 2);
    let reach = widest / 2;
    for (weight, start, end) in [
        (left, cell.x, middle_x + reach),
        (right, middle_x - reach, cell.x + cell.width),
    ] {
        let thick = unit * weight;
        canvas.fill(start, middle_y - thick / 2, end - start, thick, color);
    }
    for (weight, start, end) in [
        (up, cell.y, middle_y + reach),
        (down, middle_y - reach, cell.y + cell.height),
    ] {
        let thick = unit * weight;
        canvas.fill(middle_x - thick / 2, start, thick, end - start, color);
    }
    true
}

/// The arms of a rounded corner: whether it goes right, whether down.
fn corner(symbol: char) -> Option<(bool, bool)> {
    Some(match symbol {
        '╭' => (true, true),
        '╮' => (false, true),
        '╰' => (true, false),
        '╯' => (false, false),
        _ => return None,
    })
}

fn rounded(canvas: &mut Canvas, cell: Cell, (right, down): (bool, bool), color: Rgb) {
    let unit = (cell.width / 8).max(1);
    let thick = unit as f32 / 2.0;
    // The middle of a straight line, which covers whole pixels from `middle - unit / 2`.
    let x = (cell.x + cell.width / 2 - unit / 2) as f32 + thick;
    let y = (cell.y + cell.height / 2 - unit / 2) as f32 + thick;
    let radius = cell.width as f32 / 2.0;
    let (to_x, to_y) = (
        if right { 1.0 } else { -1.0 },
        if down { 1.0 } else { -1.0 },
    );
    canvas.shape(
        [cell.x, cell.y, cell.width, cell.height],
        color,
        |px, py| {
            // Along the two arms, measured from the corner's middle.
            let (along_x, along_y) = ((px - x) * to_x, (py - y) * to_y);
            if along_x >= radius {
                along_y.abs() - thick
            } else if along_y >= radius {
                along_x.abs() - thick
            } else {
                ((along_x - radius).hypot(along_y - radius) - radius).abs() - thick
            }
        },
    );
}
