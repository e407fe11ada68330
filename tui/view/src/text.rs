//! Numbers and names in columns that never move.

use std::borrow::Cow;
use std::fmt::Write as _;

use stalltop_model::printable;
use stalltop_model::units::Age;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands for "not measured": never a zero.
pub(crate) const NONE: &str = "–";

/// Cells that a string takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The beginning of `text` in at most `max` cells, `…` for what is cut off.
pub(crate) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max && text.is_ascii() || width(text) <= max {
        return Cow::Borrowed(text);
    }
    if max == 0 {
        return Cow::Borrowed("");
    }
    let mut out = String::with_capacity(max + 4);
    let mut used = 0;
    for c in text.chars() {
        let w = c.width().unwrap_or(0);
        if used + w + 1 > max {
            break;
        }
        used += w;
        out.push(c);
    }
    out.push('…');
    Cow::Owned(out)
}

/// The end of `text` in at most `max` cells: of a path, the end tells more.
pub(crate) fn cut_left(text: &str, max: usize) -> Cow<'_, str> {
    if width(text) <= max {
        return Cow::Borrowed(text);
    }
    if max == 0 {
        return Cow::Borrowed("");
    }
    let mut used = 1;
    let mut from = text.len();
    for (at, c) in text.char_indices().rev() {
        let w = c.width().unwrap_or(0);
        if used + w > max {
            break;
        }
        used += w;
        from = at;
    }
    Cow::Owned(format!("…{}", &text[from..]))
}

/// A name from the host: harmless, and at most `max` cells.
pub(crate) fn name(raw: &str, max: usize) -> Cow<'_, str> {
    match printable(raw) {
        Cow::Borrowed(text) => cut(text, max),
        Cow::Owned(text) => Cow::Owned(cut(&text, max).into_owned()),
    }
}

/// A path from the host: harmless, and its last `max` cells.
pub(crate) fn path(raw: &str, max: usize) -> Cow<'_, str> {
    match printable(raw) {
        Cow::Borrowed(text) => cut_left(text, max),
        Cow::Owned(text) => Cow::Owned(cut_left(&text, max).into_owned()),
    }
}

/// Breaks `text` into lines of at most `max` cells, at spaces where there are any; a path that
/// is too long behind one of its slashes.
pub(crate) fn wrap(text: &str, max: usize) -> Vec<String> {
    let max = max.max(1);
    let mut out = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        let mut used = 0;
        for word in paragraph.split(' ') {
            let w = width(word);
            if used > 0 && used + 1 + w > max {
                out.push(std::mem::take(&mut line));
                used = 0;
            }
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            if w <= max {
                line.push_str(word);
                used += w;
                continue;
            }
            for c in word.chars() {
                let w = c.width().unwrap_or(0);
                if used + w > max {
                    let slash = line.rfind('/').filter(|at| *at > line.len() / 2);
                    let rest = slash.map(|at| line.split_off(at + 1));
                    out.push(std::mem::replace(&mut line, rest.unwrap_or_default()));
                    used = width(&line);
                }
                line.push(c);
                used += w;
            }
        }
        out.push(line);
    }
    out
}

/// A count with thousands separators: `1,234,567`; from ten million on in `M`, `G`, `T`.
/// At most 9 cells.
pub(crate) fn count(n: u64) -> String {
    for (limit, unit, letter) in [
        (10_000_000_000_000, 1e12, 'T'),
        (10_000_000_000, 1e9, 'G'),
        (10_000_000, 1e6, 'M'),
    ] {
        if n >= limit {
            return format!("{:.1} {letter}", n as f64 / unit);
        }
    }
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A rate per second: as [`count`], with decimals while it is small.
pub(crate) fn rate(per_s: f64) -> String {
    match per_s {
        r if !r.is_finite() || r < 0.0 => NONE.into(),
        r if r >= 100.0 => count(r.round() as u64),
        0.0 => "0".into(),
        r if r < 0.05 => "<0.1".into(),
        r => format!("{r:.1}"),
    }
}

/// A duration with the unit that fits, at most 8 cells: `812 ns`, `41.3 us`, `178.2 ms`.
pub(crate) fn duration(ns: u64) -> String {
    match ns {
        0..=999 => format!("{ns} ns"),
        1_000..=999_949 => format!("{:.1} us", ns as f64 / 1e3),
        999_950..=999_949_999 => format!("{:.1} ms", ns as f64 / 1e6),
        999_950_000..=999_949_999_999 => format!("{:.1} s", ns as f64 / 1e9),
        _ => ago(ns),
    }
}

/// Milliseconds for a column whose heading says so: always two decimals below 100.
pub(crate) fn millis(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    if ms < 99.995 {
        format!("{ms:.2}")
    } else {
        format!("{ms:.1}")
    }
}

/// A share as a percentage with one decimal, without the sign.
pub(crate) fn percent(share: f64) -> String {
    if !share.is_finite() || share < 0.0 {
        return NONE.into();
    }
    if share > 0.0 && share < 0.0005 {
        return "<0.1".into();
    }
    // The sum of nothing is -0.0.
    format!("{:.1}", share.abs() * 100.0)
}

/// Bytes in binary units, at most 9 cells: `812 B`, `41.3 KiB`, `1.2 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1023.95 {
            return if unit == "B" {
                format!("{n} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.0} PiB")
}

/// A long time, two units: `12d 4h`, `3m 07s`, `41s`.
pub(crate) fn ago(ns: u64) -> String {
    Age(ns).to_string()
}

/// Time of day, UTC: `22:41:07`. The view knows no time zone.
pub(crate) fn clock(wall_ns: u64) -> String {
    let s = wall_ns / 1_000_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3_600, s % 3_600 / 60, s % 60)
}

/// Time of day with so many digits of the second's parts, 1 to 9: `22:40:31.204`.
pub(crate) fn clock_part(wall_ns: u64, digits: u32) -> String {
    let part = wall_ns % 1_000_000_000 / 10u64.pow(9 - digits.clamp(1, 9));
    format!(
        "{}.{part:0width$}",
        clock(wall_ns),
        width = digits.clamp(1, 9) as usize
    )
}

/// Date and time, UTC, as RFC 3339 writes it (civil-from-days, Howard Hinnant).
pub(crate) fn date(wall_ns: u64) -> String {
    let days = (wall_ns / 86_400_000_000_000) as i64 + 719_468;
    let era = days / 146_097;
    let doe = days % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{}Z", clock(wall_ns))
}

/// `text` in at most `max` cells, pushed to the right edge of `max` cells.
pub(crate) fn right(text: &str, max: usize) -> String {
    let text = cut(text, max);
    let mut out = String::with_capacity(max);
    for _ in width(&text)..max {
        out.push(' ');
    }
    let _ = write!(out, "{text}");
    out
}

/// `text` in exactly `max` cells, at the left.
pub(crate) fn left(text: &str, max: usize) -> String {
    let text = cut(text, max);
    let mut out = text.to_string();
    for _ in width(&text)..max {
        out.push(' ');
    }
    out
}

/// `1 event`, `2 events`.
pub(crate) fn plural(n: u64, one: &str) -> String {
    // `struct_ops` is many already.
    let s = if n == 1 || one.ends_with('s') {
        ""
    } else {
        "s"
    };
    format!("{} {one}{s}", count(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_counts_cells_not_bytes() {
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut_left("/a/日本語", 5), "…本語");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(name("a\x1b[2J", 20), "a^[[2J");
        assert_eq!(width(&name(&"é".repeat(9_000), 7)), 7);
    }

    #[test]
    fn numbers_fit_their_columns() {
        for shift in 0..64 {
            for n in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                assert!(width(&count(n)) <= 12, "{n}: {}", count(n));
                assert!(width(&duration(n)) <= 12, "{n}: {}", duration(n));
                assert!(width(&bytes(n)) <= 10, "{n}: {}", bytes(n));
            }
        }
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12_345_678), "12.3 M");
        assert_eq!(duration(178_200_000), "178.2 ms");
        assert_eq!(duration(999_960), "1.0 ms");
        assert_eq!(percent(-0.0), "0.0");
        assert_eq!(percent(0.0), "0.0");
        assert_eq!(percent(0.0001), "<0.1");
        assert_eq!(percent(f64::NAN), NONE);
        assert_eq!(bytes(1_073_741_824), "1.0 GiB");
        assert_eq!(ago(1_051_200_000_000_000), "12d 4h");
    }

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_795_228_838_000_000_000), "2026-11-21T02:40:38Z");
    }

    #[test]
    fn wrapping_keeps_every_word_and_the_width() {
        let text = "echo 0 > /sys/kernel/debug/kprobes/enabled and more";
        for max in 1..60 {
            let lines = wrap(text, max);
            assert!(lines.iter().all(|l| width(l) <= max));
            let joined: String = lines.concat().replace(' ', "");
            assert_eq!(joined, text.replace(' ', ""));
        }
        let path = "/sys/kernel/tracing/instances/x/events/sched/sched_switch/enable";
        let lines = [
            "/sys/kernel/tracing/instances/x/",
            "events/sched/sched_switch/enable",
        ];
        assert_eq!(wrap(path, 36), lines);
    }
}
