//! What other panes say of lock contention: a figure on the tab, a line in the Overview.

use stalltop_model::model::locks::SharePoint;

use crate::pane::Scene;
use crate::text;
use crate::theme::Role;

use super::{names, over, rows, stretch, when};

/// Seconds of waiting per second from which on they are told: a hundredth of a CPU.
const WORTH_TAB: f64 = 0.01;
/// From which on the Overview has a line of them.
const WORTH_LINE: f64 = 0.05;
/// A part of the samples of which the same holds.
const WORTH_SHARE: f64 = 0.05;

/// What the tab says: ` 3.1 s/s`, ` 41 %` of samples; nothing where locks are calm.
pub(crate) fn badge(scene: &Scene<'_>, width: u16) -> String {
    let locks = &scene.model.locks;
    if scene.sample().locks.value().is_none() {
        return String::new();
    }
    let (from, to) = stretch(scene);
    let rate = locks.rate(from, to);
    if let Some(rate) = rate.filter(|rate| rate.wait_per_s >= WORTH_TAB) {
        let per_s = names::wait_per_s(Some(rate.wait_per_s));
        return match width {
            100.. => format!(" {per_s}"),
            // A narrow tab has no room for what it is per.
            _ => format!(" {}", per_s.trim_end_matches("/s").replace(' ', "")),
        };
    }
    let mut all = SharePoint::default();
    let inside = |p: &&stalltop_model::model::locks::Point| p.at_ns > from && p.at_ns <= to;
    for point in locks.history().filter(inside) {
        all.add(&point.share.unwrap_or_default());
    }
    let share = (all.in_lock + all.suspected) as f64 / all.samples.max(1) as f64;
    if share < WORTH_SHARE {
        return String::new();
    }
    format!(" {:.0} %", share * 100.0)
}

/// The Overview's line, in parts, where there is something to tell.
pub(crate) fn brief(scene: &Scene<'_>) -> Option<Vec<(String, Role)>> {
    scene.sample().locks.value()?;
    let over = over(scene);
    let per_s = over.wait_per_s(&over.total);
    let mut out = Vec::new();
    let (frames, programs, who);
    if let Some(wait) = per_s.filter(|s| *s >= WORTH_LINE) {
        let role = if wait >= 1.0 {
            Role::Critical
        } else {
            Role::Warning
        };
        out.push((
            format!("{} waited for locks", names::wait_per_s(per_s)),
            role,
        ));
        let top = over.stacks.first()?;
        let share = top.waits.wait_ns as f64 / over.total.wait_ns.max(1) as f64;
        out.push((format!(" · {:.0} % ", share * 100.0), Role::Dim));
        (frames, programs) = (&top.stack.frames, &top.stack.programs);
        who = rows::who(&top.stack.comm, top.stack.tgid);
    } else {
        let share = over.share.value()?;
        let part = |n: u64| n as f64 / share.samples.max(1) as f64;
        let (in_lock, suspected) = (part(share.in_lock), part(share.suspected));
        if in_lock + suspected < WORTH_SHARE {
            return None;
        }
        let about = format!("{} % of samples in lock slow paths", text::percent(in_lock));
        out.push((about, Role::Warning));
        if share.suspected > 0 {
            let about = format!(", {} % suspected", text::percent(suspected));
            out.push((about, Role::Warning));
        }
        let top = share.stacks.first()?;
        out.push((" · ".to_owned(), Role::Dim));
        (frames, programs) = (&top.stack.frames, &top.stack.programs);
        who = rows::who(&top.stack.comm, top.stack.tgid);
    }
    out.push((text::cut(&who, 30).into_owned(), Role::Strong));
    if let Some(probe) = names::probe(scene, frames, programs) {
        out.push((format!(" {} {probe}", names::PROBE), Role::Critical));
    }
    out.push((format!(" in {}", rows::caller(frames)), Role::Text));
    out.push((format!(" · {}", when(scene, &over)), Role::Faint));
    Some(out)
}
