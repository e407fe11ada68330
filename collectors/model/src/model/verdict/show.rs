//! Verdicts in words.

use std::fmt::{self, Write as _};

use super::{Came, HolderRow, Metric, Row, StallVerdict, Told, Verdict};
use crate::change::{Entry, Request};
use crate::model::costs::HeldBy;
use crate::name::printable;
use crate::units::{Count, Duration};

/// Figures without which a verdict on what is switched off is only half of one: said where they
/// were not measured.
const WANTED: [Metric; 2] = [Metric::LockWait, Metric::ProbeCost];

/// Both figures with one unit: `3.1 -> 0.0 s/s`.
struct Pair(f64, f64, &'static str);

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(was, is, unit) = *self;
        let most = was.abs().max(is.abs());
        let number = |x: f64| match x.abs() {
            x if x >= 9.95 => 0,
            0.0 if most >= 9.95 => 0,
            _ if most >= 0.995 => 1,
            _ if most >= 0.0995 => 2,
            _ => 3,
        };
        write!(f, "{was:.*} -> {is:.*} {unit}", number(was), number(is))
    }
}

/// A figure alone, as it stands in both: `3.1 s/s`.
struct One(Metric, f64);

impl fmt::Display for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(metric, x) = *self;
        match metric {
            Metric::LockWait => write!(f, "{x:.3} s/s"),
            Metric::ProbeCost => write!(f, "{:.1} % of one CPU", x * 100.0),
            Metric::LockSamples | Metric::LockSuspected | Metric::System | Metric::User => {
                write!(f, "{:.1} %", x * 100.0)
            }
            Metric::WorstDelay => write!(f, "{}", Duration(x as u64)),
            Metric::Contentions
            | Metric::ProbeRuns
            | Metric::Packets
            | Metric::Switches
            | Metric::Softirqs => write!(f, "{}/s", Count(x as u64)),
        }
    }
}

/// `lock wait 3.1 -> 0.0 s/s`.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.metric.name())?;
        let (was, is) = match (self.before, self.after) {
            (Some(was), Some(is)) => (was, is),
            (Some(was), None) => return write!(f, "{}, not measured since", One(self.metric, was)),
            (None, Some(is)) => return write!(f, "{}, not measured before", One(self.metric, is)),
            (None, None) => return f.write_str("not measured"),
        };
        match self.metric {
            Metric::LockWait => Pair(was, is, "s/s").fmt(f),
            Metric::ProbeCost => Pair(was * 100.0, is * 100.0, "% of one CPU").fmt(f),
            Metric::LockSamples | Metric::LockSuspected | Metric::System | Metric::User => {
                Pair(was * 100.0, is * 100.0, "%").fmt(f)
            }
            Metric::WorstDelay if was.max(is) >= 1e9 => Pair(was / 1e9, is / 1e9, "s").fmt(f),
            Metric::WorstDelay if was.max(is) >= 1e6 => Pair(was / 1e6, is / 1e6, "ms").fmt(f),
            Metric::WorstDelay => Pair(was / 1e3, is / 1e3, "us").fmt(f),
            Metric::Contentions
            | Metric::ProbeRuns
            | Metric::Packets
            | Metric::Switches
            | Metric::Softirqs => write!(f, "{} -> {}/s", Count(was as u64), Count(is as u64)),
        }
    }
}

/// `netdata[812]`.
struct By<'a>(&'a HeldBy);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            HeldBy::Process { pid, comm, .. } => write!(f, "{}[{pid}]", printable(comm)),
            HeldBy::Nobody => f.write_str("no process"),
        }
    }
}

/// `netdata[812] 173 -> 0 % of one CPU`.
impl fmt::Display for HolderRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = "% of one CPU";
        write!(f, "{} ", By(&self.by))?;
        match (self.before, self.after) {
            (Some(was), Some(is)) => Pair(was * 100.0, is * 100.0, unit).fmt(f),
            (Some(was), None) => write!(f, "{:.1} {unit}, not measured since", was * 100.0),
            (None, Some(is)) => write!(f, "{:.1} {unit}, not measured before", is * 100.0),
            (None, None) => f.write_str("not measured"),
        }
    }
}

/// In one line: `lock wait 3.1 -> 0.0 s/s, worst delay 41 -> 0.3 ms, probe cost 173 -> 0 % of
/// one CPU`; or why there is nothing to say.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ns: u64| ns / 1_000_000_000;
        match self.came() {
            Came::NotWatched => return f.write_str("not watched before it: nothing to compare"),
            Came::TooEarly => {
                return write!(
                    f,
                    "too early to tell ({} s before, {} s since)",
                    seconds(self.before_ns),
                    seconds(self.after_ns)
                );
            }
            Came::TooLittle => {
                return write!(
                    f,
                    "too little to tell ({} s before, {} s after)",
                    seconds(self.before_ns),
                    seconds(self.after_ns)
                );
            }
            Came::NoEffect => {
                write!(f, "no effect seen in {} s", seconds(self.after_ns))?;
                return self.unmeasured(f);
            }
            Came::Moved => {}
        }
        let mut comma = "";
        let has = |metric: Metric| self.moved().any(|row| row.metric == metric);
        // Waits come with their time, runs with their cost, softirqs with packets: told once.
        let (wait, packets) = (has(Metric::LockWait), has(Metric::Packets));
        let cost = has(Metric::ProbeCost);
        let told = |row: &Row| match row.metric {
            Metric::Contentions => wait,
            Metric::ProbeRuns => cost,
            Metric::Softirqs => packets,
            _ => false,
        };
        for work in [false, true] {
            for row in self.moved().filter(|r| r.metric.is_work() == work) {
                if !told(row) {
                    write!(f, "{comma}{row}")?;
                    comma = ", ";
                }
                if row.metric == Metric::ProbeCost {
                    self.whose(f)?;
                }
            }
            if !work && !cost {
                for holder in self.holders_moved() {
                    write!(f, "{comma}probe cost of {holder}")?;
                    comma = ", ";
                }
            }
            if let (false, Some(stalls)) = (work, self.stalls_moved()) {
                let (was, is) = (stalls.before.per_minute(), stalls.after.per_minute());
                write!(f, "{comma}stalls {}", Pair(was, is, "a minute"))?;
                comma = ", ";
            }
        }
        self.unmeasured(f)?;
        if self.less_work().is_some() {
            f.write_str(" (less work, too: the load may have ended by itself)")?;
        }
        if self.others > 0 {
            write!(f, " (with {} at the same time)", changes(self.others))?;
        }
        Ok(())
    }
}

fn changes(n: u32) -> String {
    format!("{n} other change{}", if n == 1 { "" } else { "s" })
}

impl Verdict {
    /// ` (netdata[812] 157 -> 0)`: whose probes cost less or more, where several hold some.
    fn whose(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holders.len() < 2 {
            return Ok(());
        }
        let mut before = " (";
        for row in self.holders_moved() {
            if let (Some(was), Some(is)) = (row.before, row.after) {
                let pair = Pair(was * 100.0, is * 100.0, "%");
                write!(f, "{before}{} {pair}", By(&row.by))?;
                before = ", ";
            }
        }
        f.write_str(if before == ", " { ")" } else { "" })
    }

    /// `; probe cost not measured`.
    fn unmeasured(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = |metric: &&Metric| {
            // Where waits are not seen, samples stand in their place.
            let instead = **metric == Metric::LockWait
                && self
                    .row(Metric::LockSamples)
                    .is_some_and(|r| r.told != Told::NotMeasured);
            let told = self.row(**metric).map(|row| row.told);
            !instead && told == Some(Told::NotMeasured)
        };
        let mut names = WANTED.iter().filter(missing).map(|m| m.name());
        let Some(first) = names.next() else {
            return Ok(());
        };
        write!(f, "; {first}")?;
        for name in names {
            write!(f, " and {name}")?;
        }
        f.write_str(" not measured")
    }

    /// Everything that was compared, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut out = Vec::with_capacity(Metric::COUNT + self.holders.len() + 3);
        for row in &self.rows {
            out.push(format!("{row}{}", words(row.told)));
            if row.metric == Metric::ProbeCost {
                let holders = self.holders.iter();
                out.extend(holders.map(|h| format!("  of {h}{}", words(h.told))));
            }
        }
        if let Some(stalls) = &self.stalls {
            let mut line = stalls.to_string();
            if stalls.verdict() == StallVerdict::Worse {
                let _ = write!(line, ": more than before");
            }
            out.push(line);
        }
        let seconds = |ns: u64| ns / 1_000_000_000;
        out.push(format!(
            "compared: {} s before with {} s after",
            seconds(self.before_ns),
            seconds(self.after_ns)
        ));
        if self.others > 0 {
            out.push(format!(
                "{} within seconds of it: what each alone did cannot be told",
                changes(self.others)
            ));
        }
        out
    }
}

/// What came of a figure, after it.
fn words(told: Told) -> &'static str {
    match told {
        Told::Moved(_) | Told::NotMeasured => "",
        Told::NoEffect => ": no effect seen",
        Told::TooEarly => ": too early to tell",
        Told::TooLittle => ": too little to tell",
    }
}

/// A change in a few words: `kprobes off`.
pub fn short(entry: &Entry) -> String {
    match &entry.plan.request {
        Request::Off { selector } => format!("{} off", printable(selector)),
        Request::On { selector, .. } => format!("{} on", printable(selector)),
        Request::DropCaches { .. } => "caches dropped".to_owned(),
        _ => printable(&entry.plan.title).into_owned(),
    }
}
