//! Colours as theme files write them, and what a terminal with fewer makes of them.

use ratatui::style::Color;

/// How many colours the terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// None: `NO_COLOR`, or a dumb terminal.
    None,
    /// The 16 of ECMA-48 and aixterm, as the terminal's user has set them.
    Ansi16,
    /// xterm's 256.
    Ansi256,
    /// 24 bits.
    True,
}

impl Depth {
    /// The depth that the environment announces: the values of `NO_COLOR` (any non-empty
    /// value, <https://no-color.org>), `COLORTERM` and `TERM`.
    pub fn from_env(no_color: Option<&str>, colorterm: Option<&str>, term: Option<&str>) -> Self {
        let term = term.unwrap_or("");
        if no_color.is_some_and(|v| !v.is_empty()) || term == "dumb" {
            Self::None
        } else if matches!(colorterm, Some("truecolor" | "24bit"))
            || term.ends_with("-direct")
            || [
                "xterm-kitty",
                "alacritty",
                "foot",
                "xterm-ghostty",
                "wezterm",
            ]
            .contains(&term)
        {
            Self::True
        } else if term.contains("256color") {
            Self::Ansi256
        } else {
            Self::Ansi16
        }
    }
}

/// `#rrggbb name`: a true colour and the one of the 16 that stands for it.
pub(super) fn parse(text: &str, depth: Depth) -> Option<Option<Color>> {
    let (rgb, name) = text.split_once(' ')?;
    let hex = rgb.strip_prefix('#').filter(|h| h.len() == 6)?;
    let value = u32::from_str_radix(hex, 16).ok()?;
    let [_, r, g, b] = value.to_be_bytes();
    let named = named(name)?;
    Some(match depth {
        Depth::None => None,
        Depth::Ansi16 => Some(named),
        Depth::Ansi256 => Some(Color::Indexed(nearest_256(r, g, b))),
        Depth::True => Some(Color::Rgb(r, g, b)),
    })
}

fn named(name: &str) -> Option<Color> {
    Some(match name {
        "default" => Color::Reset,
        "black" => Color::Black,
        "red" => Color::Red,
        "green" => Color::Green,
        "yellow" => Color::Yellow,
        "blue" => Color::Blue,
        "magenta" => Color::Magenta,
        "cyan" => Color::Cyan,
        "gray" => Color::Gray,
        "bright-black" => Color::DarkGray,
        "bright-red" => Color::LightRed,
        "bright-green" => Color::LightGreen,
        "bright-yellow" => Color::LightYellow,
        "bright-blue" => Color::LightBlue,
        "bright-magenta" => Color::LightMagenta,
        "bright-cyan" => Color::LightCyan,
        "white" => Color::White,
        _ => return None,
    })
}

/// The steps of xterm's 6x6x6 cube (256colres.pl in its sources).
const STEPS: [u8; 6] = [0, 95, 135, 175, 215, 255];

/// The nearest of xterm's 240 fixed colours; its first 16 belong to the user's theme.
fn nearest_256(r: u8, g: u8, b: u8) -> u8 {
    let step = |v: u8| {
        (0..6u8)
            .min_by_key(|i| v.abs_diff(STEPS[usize::from(*i)]))
            .unwrap_or(0)
    };
    let (ri, gi, bi) = (step(r), step(g), step(b));
    let cube = [ri, gi, bi].map(|i| STEPS[usize::from(i)]);
    let gray = (0..24u8)
        .min_by_key(|i| distance([r, g, b], [8 + 10 * i; 3]))
        .unwrap_or(0);
    if distance([r, g, b], [8 + 10 * gray; 3]) < distance([r, g, b], cube) {
        232 + gray
    } else {
        16 + 36 * ri + 6 * gi + bi
    }
}

fn distance(a: [u8; 3], b: [u8; 3]) -> u32 {
    a.iter()
        .zip(b)
        .map(|(x, y)| u32::from(x.abs_diff(y)).pow(2))
        .sum()
}

/// Contrast ratio of two true colours (WCAG 2.2, "contrast ratio").
#[cfg(test)]
pub(super) fn contrast(a: Color, b: Color) -> Option<f64> {
    let luminance = |c: Color| {
        let Color::Rgb(r, g, b) = c else { return None };
        let linear = |v: u8| {
            let v = f64::from(v) / 255.0;
            if v <= 0.040_45 {
                v / 12.92
            } else {
                ((v + 0.055) / 1.055).powf(2.4)
            }
        };
        Some(0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b))
    };
    let (a, b) = (luminance(a)?, luminance(b)?);
    Some((a.max(b) + 0.05) / (a.min(b) + 0.05))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_degrade_to_the_nearest() {
        assert_eq!(
            parse("#ff0000 red", Depth::True),
            Some(Some(Color::Rgb(255, 0, 0)))
        );
        assert_eq!(
            parse("#ff0000 red", Depth::Ansi256),
            Some(Some(Color::Indexed(196)))
        );
        assert_eq!(
            parse("#808080 gray", Depth::Ansi256),
            Some(Some(Color::Indexed(244)))
        );
        assert_eq!(parse("#ff0000 red", Depth::Ansi16), Some(Some(Color::Red)));
        assert_eq!(parse("#ff0000 red", Depth::None), Some(None));
        assert_eq!(parse("#ff000 red", Depth::True), None);
        assert_eq!(parse("#ff0000 crimson", Depth::True), None);
    }

    #[test]
    fn the_environment_decides_the_depth() {
        let depth = Depth::from_env;
        assert_eq!(depth(None, None, Some("xterm-256color")), Depth::Ansi256);
        assert_eq!(
            depth(None, Some("truecolor"), Some("xterm-256color")),
            Depth::True
        );
        assert_eq!(
            depth(Some("1"), Some("truecolor"), Some("xterm")),
            Depth::None
        );
        assert_eq!(depth(Some(""), None, Some("linux")), Depth::Ansi16);
        assert_eq!(depth(None, None, Some("dumb")), Depth::None);
        assert_eq!(depth(None, None, None), Depth::Ansi16);
    }
}
