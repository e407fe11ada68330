//! What a measured change brought: before and after, side by side.

use stalltop_model::change::{Entry, stop};
use stalltop_model::{Reading, printable};

use crate::text;

/// The title, then one line per figure.
pub(super) fn lines(entry: &Entry) -> Vec<String> {
    let mut out = vec![printable(&entry.plan.title).into_owned()];
    let Some(effect) = &entry.effect else {
        return out;
    };
    let outcome = stop::outcome(entry);
    if let Some(outcome) = &outcome {
        out.push(outcome.clone());
        if stop::exited(entry) == Some(false) {
            out.push("here, the same key again proposes KILL".into());
        }
        out.push(String::new());
    }
    let what = effect
        .rows
        .iter()
        .map(|r| text::width(&printable(&r.what)))
        .max()
        .unwrap_or(0)
        .min(40);
    out.push(format!(
        "{}  {}  {}",
        text::left("", what),
        text::right("before", 12),
        text::right("after", 12)
    ));
    for row in &effect.rows {
        let value = |v: &Reading<u64>| match v {
            Reading::Off(_) => text::NONE.to_owned(),
            Reading::Value(n) => match &*row.unit {
                "ns" => text::duration(*n),
                "bytes" => text::bytes(*n),
                _ => text::count(*n),
            },
        };
        out.push(format!(
            "{}  {}  {}",
            text::left(&printable(&row.what), what),
            text::right(&value(&row.before), 12),
            text::right(&value(&row.after), 12),
        ));
    }
    for row in &effect.rows {
        for reason in [row.before.reason(), row.after.reason()]
            .into_iter()
            .flatten()
        {
            out.push(format!(
                "{}: {}",
                printable(&row.what),
                printable(&reason.to_string())
            ));
        }
    }
    if outcome.is_none() {
        out.push(String::new());
        out.push(format!(
            "the write itself took {}",
            text::duration(effect.took_ns)
        ));
    }
    out
}
