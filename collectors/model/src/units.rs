//! Quantities as people read them: short, with a unit, and the same everywhere.

use std::fmt;

/// A duration in ns, shown with three digits at most before the unit: `412 ns`,
/// `3.1 us`, `41 ms`, `178.2 ms`, `2.4 s`.
#[derive(Clone, Copy, Debug)]
pub struct Duration(pub u64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0 as f64;
        let text = match self.0 {
            0..1_000 => return f.pad(&format!("{} ns", self.0)),
            1_000..1_000_000 => format!("{:.1} us", ns / 1e3),
            1_000_000..1_000_000_000 => format!("{:.1} ms", ns / 1e6),
            1_000_000_000..60_000_000_000 => format!("{:.1} s", ns / 1e9),
            60_000_000_000..3_600_000_000_000 => format!("{:.1} min", ns / 60e9),
            3_600_000_000_000..86_400_000_000_000 => format!("{:.1} h", ns / 3600e9),
            _ => format!("{:.1} d", ns / 86_400e9),
        };
        f.pad(&text)
    }
}

/// The window that a figure is of, ns: `45 s`, `2 min`.
#[derive(Clone, Copy, Debug)]
pub struct Window(pub u64);

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 / 1_000_000_000 {
            seconds @ 0..90 => write!(f, "{seconds} s"),
            seconds => write!(f, "{} min", (seconds + 30) / 60),
        }
    }
}

/// How much more or less there is of something every minute, over so many ns:
/// `+12/min over 2 min`.
#[derive(Clone, Copy, Debug)]
pub struct Trend {
    /// More a minute; less where negative.
    pub per_minute: f64,
    /// Over how long that was seen, ns.
    pub span_ns: u64,
}

impl Trend {
    /// Whether it is next to nothing.
    pub fn is_steady(&self) -> bool {
        self.per_minute.abs() < 0.5
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.per_minute < 0.0 { '-' } else { '+' };
        let count = Count(self.per_minute.abs().round() as u64);
        write!(f, "{sign}{count}/min over {}", Window(self.span_ns))
    }
}

/// A long time in nanoseconds, two units: `12d 4h`, `3m 07s`, `41s`.
#[derive(Clone, Copy, Debug)]
pub struct Age(pub u64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0 / 1_000_000_000;
        match s {
            0..60 => write!(f, "{s}s"),
            60..3_600 => write!(f, "{}m {:02}s", s / 60, s % 60),
            3_600..86_400 => write!(f, "{}h {:02}m", s / 3_600, s % 3_600 / 60),
            _ => write!(f, "{}d {}h", s / 86_400, s % 86_400 / 3_600),
        }
    }
}

/// A number of bytes in binary units: `512 B`, `4.0 KiB`, `1.5 GiB`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

/// A count with its thousands separated: `4,812`.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut out = String::with_capacity(digits.len() + digits.len() / 3);
        for (i, c) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                out.push(',');
            }
            out.push(c);
        }
        f.pad(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(Duration(412).to_string(), "412 ns");
        assert_eq!(Duration(178_200_000).to_string(), "178.2 ms");
        assert_eq!(format!("{:>9}", Duration(2_400_000_000)), "    2.4 s");
        let trend = |per_minute, span_ns| Trend {
            per_minute,
            span_ns,
        };
        let falls = trend(-11_840.2, 37_000_000_000).to_string();
        assert_eq!(falls, "-11,840/min over 37 s");
        assert_eq!(trend(12.0, 100e9 as u64).to_string(), "+12/min over 2 min");
        assert_eq!(Age(59_999_999_999).to_string(), "59s");
        assert_eq!(Age(187_000_000_000).to_string(), "3m 07s");
        assert_eq!(Age(7_260_000_000_000).to_string(), "2h 01m");
        assert_eq!(Age(u64::MAX).to_string(), "213503d 23h");
        assert_eq!(Bytes(1024).to_string(), "1.0 KiB");
        assert_eq!(Bytes(u64::MAX).to_string(), "16.0 EiB");
        assert_eq!(Bytes(1024 * 1024 - 1).to_string(), "1.0 MiB");
        assert_eq!(Count(1_043_000).to_string(), "1,043,000");
        assert_eq!(Count(12).to_string(), "12");
    }
}
