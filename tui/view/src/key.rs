//! Keys as people write them: `q`, `ctrl-c`, `pgdn`, `space`.

use std::fmt;
use std::str::FromStr;

/// What is on a key. The program's terminal library names them its own way; this crate
/// does not reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum KeyCode {
    Char(char),
    F(u8),
    Enter,
    Esc,
    Tab,
    BackTab,
    Backspace,
    Delete,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
}

/// One key press: a code and the modifiers that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What was pressed.
    pub code: KeyCode,
    /// With Ctrl.
    pub ctrl: bool,
    /// With Alt.
    pub alt: bool,
}

impl Key {
    /// A key without modifiers.
    pub const fn plain(code: KeyCode) -> Self {
        Self {
            code,
            ctrl: false,
            alt: false,
        }
    }

    /// The character that it types into a field, if it types one.
    pub fn typed(self) -> Option<char> {
        match self.code {
            KeyCode::Char(c) if !self.ctrl && !self.alt && !c.is_control() => Some(c),
            _ => None,
        }
    }
}

/// Names of keys that are not characters: parsed, and printed as the second.
const NAMED: &[(&str, &str, KeyCode)] = &[
    ("enter", "Enter", KeyCode::Enter),
    ("esc", "Esc", KeyCode::Esc),
    ("space", "Space", KeyCode::Char(' ')),
    ("tab", "Tab", KeyCode::Tab),
    ("backtab", "Shift-Tab", KeyCode::BackTab),
    ("backspace", "Backspace", KeyCode::Backspace),
    ("delete", "Del", KeyCode::Delete),
    ("up", "↑", KeyCode::Up),
    ("down", "↓", KeyCode::Down),
    ("left", "←", KeyCode::Left),
    ("right", "→", KeyCode::Right),
    ("pgup", "PgUp", KeyCode::PageUp),
    ("pgdn", "PgDn", KeyCode::PageDown),
    ("home", "Home", KeyCode::Home),
    ("end", "End", KeyCode::End),
];

/// The text is not a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key: write q, Q, ctrl-c, alt-x, f1, enter, esc, space, pgdn, ...")]
pub struct BadKey(pub String);

/// What follows a prefix in either case, if anything does.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    let tail = &text[prefix.len()..];
    (head.eq_ignore_ascii_case(prefix) && !tail.is_empty()).then_some(tail)
}

impl FromStr for Key {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bad = || BadKey(text.to_owned());
        let mut rest = text;
        let (mut ctrl, mut alt) = (false, false);
        loop {
            if let Some(tail) = after(rest, "ctrl-") {
                (ctrl, rest) = (true, tail);
            } else if let Some(tail) = after(rest, "alt-") {
                (alt, rest) = (true, tail);
            } else {
                break;
            }
        }
        // As it is shown, too: what is printed can be written into a file of keys.
        let named = NAMED.iter().find(|(name, shown, _)| {
            name.eq_ignore_ascii_case(rest) || shown.eq_ignore_ascii_case(rest)
        });
        let mut chars = rest.chars();
        let code = match (named, chars.next(), chars.next()) {
            (Some((_, _, code)), _, _) => *code,
            // A terminal sends the same for both cases of a letter.
            (None, Some(c), None) if ctrl && !c.is_control() && c != ' ' => {
                KeyCode::Char(c.to_ascii_lowercase())
            }
            (None, Some(c), None) if !c.is_control() && c != ' ' => KeyCode::Char(c),
            (None, Some('f' | 'F'), Some(_)) => match rest[1..].parse() {
                Ok(n @ 1..=24) => KeyCode::F(n),
                _ => return Err(bad()),
            },
            _ => return Err(bad()),
        };
        Ok(Self { code, ctrl, alt })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ctrl {
            f.write_str("Ctrl-")?;
        }
        if self.alt {
            f.write_str("Alt-")?;
        }
        if let Some((_, shown, _)) = NAMED.iter().find(|(_, _, code)| *code == self.code) {
            return f.write_str(shown);
        }
        match self.code {
            KeyCode::Char(c) if self.ctrl => write!(f, "{}", c.to_ascii_uppercase()),
            KeyCode::Char(c) => write!(f, "{c}"),
            KeyCode::F(n) => write!(f, "F{n}"),
            // All others have a name above.
            other => write!(f, "{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_written() {
        for text in [
            "f1",
            "ctrl-c",
            "alt-ctrl-x",
            "pgdn",
            "up",
            "space",
            "Q",
            "ctrl--",
        ] {
            let key: Key = text.parse().unwrap();
            assert_eq!(key.to_string().parse(), Ok(key), "{text}");
        }
    }

    #[test]
    fn keys_read_as_people_write_them() {
        let shown = |text: &str| text.parse::<Key>().map(|k| k.to_string());
        assert_eq!(shown("ctrl-c").unwrap(), "Ctrl-C");
        assert_eq!(shown("Q").unwrap(), "Q");
        assert_eq!(shown("pgdn").unwrap(), "PgDn");
        assert_eq!(shown("f1").unwrap(), "F1");
        assert_eq!(shown("f").unwrap(), "f");
        assert_eq!(shown("-").unwrap(), "-");
        assert_eq!(shown("ctrl-").unwrap_err(), BadKey("ctrl-".into()));
        assert!(shown("").is_err());
        assert!(shown("f99").is_err());
        assert!(shown("\u{1b}").is_err());
    }
}
