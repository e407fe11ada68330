//! Glyphs, and what stands for them on terminals that have only ASCII.

use ratatui::buffer::Buffer;

/// Eighths of a cell, lowest first.
pub(crate) const BLOCKS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
/// The same share in cells in which ksoftirqd ran.
pub(crate) const SHADES: [&str; 3] = ["░", "▒", "▓"];
/// Quarters of a cell: how much of the time that a cell of a heat map stands for.
pub(crate) const HEAT: [&str; 4] = ["▖", "▚", "▙", "█"];
/// Eighths of a cell from the left.
pub(crate) const PARTS: [&str; 8] = ["▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];

/// What replaces a glyph in `--ascii`.
const ASCII: &[(&str, &str)] = &[
    ("▁", "_"),
    ("▂", "."),
    ("▃", "-"),
    ("▄", "-"),
    ("▅", "="),
    ("▆", "+"),
    ("▇", "*"),
    ("█", "#"),
    ("░", "k"),
    ("▒", "k"),
    ("▓", "K"),
    ("▏", "|"),
    ("▎", "|"),
    ("▍", "|"),
    ("▌", "="),
    ("▋", "="),
    ("▊", "#"),
    ("▉", "#"),
    ("▖", "."),
    ("▚", "+"),
    ("▙", "%"),
    ("◆", "@"),
    ("◇", "&"),
    ("─", "-"),
    ("│", "|"),
    ("┌", "+"),
    ("┐", "+"),
    ("└", "+"),
    ("┘", "+"),
    ("├", "+"),
    ("┤", "+"),
    ("●", "*"),
    ("○", "o"),
    ("◐", "~"),
    ("✱", "!"),
    ("✖", "X"),
    ("▲", "^"),
    ("△", "^"),
    ("▼", "v"),
    ("▾", "v"),
    ("▸", ">"),
    ("→", ">"),
    ("←", "<"),
    ("↑", "^"),
    ("↓", "v"),
    ("·", "."),
    ("…", "~"),
    ("–", "-"),
    ("✔", "+"),
    ("×", "x"),
];

/// Replaces everything in the buffer that is not ASCII.
pub(crate) fn flatten(buf: &mut Buffer) {
    for cell in &mut buf.content {
        let symbol = cell.symbol();
        if symbol.is_ascii() {
            continue;
        }
        let plain = ASCII
            .iter()
            .find(|(glyph, _)| *glyph == symbol)
            .map_or("?", |(_, ascii)| ascii);
        cell.set_symbol(plain);
    }
}

/// The block of a share between 0 and 1; nothing but exact zero looks like zero.
pub(crate) fn block(share: f64) -> &'static str {
    BLOCKS[level(share, BLOCKS.len())]
}

/// The shade of a share between 0 and 1.
pub(crate) fn shade(share: f64) -> &'static str {
    SHADES[level(share, SHADES.len())]
}

/// The cell of a share between 0 and 1 in a heat map.
pub(crate) fn heat(share: f64) -> &'static str {
    HEAT[level(share, HEAT.len())]
}

fn level(share: f64, levels: usize) -> usize {
    let share = if share.is_finite() { share } else { 0.0 };
    ((share.clamp(0.0, 1.0) * levels as f64) as usize).min(levels - 1)
}

/// A horizontal bar of `share` in `width` cells; a share above zero shows at least an eighth.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let mut eighths = (share * width as f64 * 8.0).round() as usize;
    if share > 0.0 {
        eighths = eighths.max(1);
    }
    let mut out = "█".repeat(eighths / 8);
    if let Some(part) = (eighths % 8).checked_sub(1) {
        out.push_str(PARTS[part]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_their_length() {
        assert_eq!(bar(0.0, 10), "");
        assert_eq!(bar(1.0, 3), "███");
        assert_eq!(bar(0.5, 3), "█▌");
        assert_eq!(bar(1e-9, 10), "▏");
        assert_eq!(bar(f64::NAN, 10), "");
        assert_eq!(bar(9.0, 2), "██");
    }

    #[test]
    fn blocks_rise() {
        assert_eq!(block(0.0), "▁");
        assert_eq!(block(1.0), "█");
        assert_eq!(block(-1.0), "▁");
        assert_eq!(shade(0.99), "▓");
    }

    #[test]
    fn every_replacement_is_one_ascii_character() {
        for (_, ascii) in ASCII {
            assert!(ascii.is_ascii() && ascii.len() == 1);
        }
    }
}
