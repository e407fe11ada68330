//! Names that come from the host: shared, and safe to show.

use std::borrow::Cow;
use std::sync::Arc;

/// A name read from the host, kept exactly as it was read (lossy UTF-8 only).
///
/// Shared so that copying one into a sample each tick allocates nothing.
/// It may hold anything: pass it through [`printable`] before a terminal sees it.
pub type Name = Arc<str>;

/// The longest name, in characters, that [`printable`] lets through.
pub const MAX_PRINTABLE: usize = 512;

/// Makes a host-supplied string harmless for a terminal.
///
/// As [`escaped`], and overlong strings are cut with `…`: for names and texts. What a person is
/// to confirm or to copy is never cut.
pub fn printable(raw: &str) -> Cow<'_, str> {
    if raw.len() <= MAX_PRINTABLE {
        return escaped(raw);
    }
    match raw.char_indices().nth(MAX_PRINTABLE) {
        None => escaped(raw),
        Some((at, _)) => Cow::Owned(format!("{}…", escaped(&raw[..at]))),
    }
}

/// Makes a host-supplied string harmless for a terminal, however long it is: for commands and
/// errors.
///
/// Control characters (C0, DEL, C1) become their `\u{..}`-free visible forms
/// (`^[` style for C0, `\x9b` style for C1), bidirectional overrides and other
/// invisible format characters become `?`.
pub fn escaped(raw: &str) -> Cow<'_, str> {
    if !raw.chars().any(is_hostile) {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len().saturating_mul(2));
    for c in raw.chars() {
        match c {
            '\0'..='\x1f' => {
                out.push('^');
                out.push(char::from(c as u8 + 0x40));
            }
            '\x7f' => out.push_str("^?"),
            '\u{80}'..='\u{9f}' => {
                out.push_str("\\x");
                let byte = c as u32;
                for digit in [byte >> 4, byte & 0xf] {
                    out.push(char::from_digit(digit, 16).unwrap_or('?'));
                }
            }
            c if is_hostile(c) => out.push('?'),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Undoes systemd's `\xNN` (systemd-escape(1)). Escapes that hide control characters or
/// broken UTF-8 stay as they are: they read no worse, and do no harm.
pub fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let byte = match rest {
            [b'\\', b'x', high, low, ..] => hex_digit(*high)
                .zip(hex_digit(*low))
                .map(|(h, l)| h << 4 | l),
            _ => None,
        };
        if let Some(byte) = byte {
            out.push(byte);
            rest = &rest[4..];
        } else {
            out.push(first);
            rest = after;
        }
    }
    match String::from_utf8(out) {
        Ok(clear) if !clear.chars().any(char::is_control) => clear,
        _ => text.to_owned(),
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

/// Whether a terminal or a reader could be misled by the character.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_borrowed() {
        assert!(matches!(
            printable("ksoftirqd/11"),
            Cow::Borrowed("ksoftirqd/11")
        ));
        assert!(matches!(printable("größe-日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(printable("a\x1b[2Jb\x07\x7f\u{9b}1m"), "a^[[2Jb^G^?\\x9b1m");
        assert_eq!(printable("x\u{202e}y"), "x?y");
    }

    #[test]
    fn absurd_lengths_are_cut() {
        let long = "x".repeat(100_000);
        assert_eq!(printable(&long).chars().count(), MAX_PRINTABLE + 1);
        let wide = "ö".repeat(MAX_PRINTABLE);
        assert_eq!(printable(&wide), wide);
        assert_eq!(printable(&(wide.clone() + "\n")), wide + "…");
    }

    #[test]
    fn what_is_escaped_is_never_cut() {
        let long = "x".repeat(100_000) + "\x1b[2J";
        assert_eq!(escaped(&long), "x".repeat(100_000) + "^[[2J");
        assert!(matches!(escaped(&long[..100_000]), Cow::Borrowed(_)));
    }
}
