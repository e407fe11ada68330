//! Events on and off, one `enable` file each.

use stalltop_model::change::{ChangeError, OpenMode, UndoWrite, Write};
use stalltop_model::printable;
use stalltop_model::sample::EnableState;

use super::super::host::Host;
use super::super::selector::{Scope, Selector, What};
use super::super::target::Target;
use super::{Context, Direction, Draft, holders};

/// What was found besides what is switched.
#[derive(Default)]
struct Found {
    /// Events that the selector names.
    matched: usize,
    /// Already as asked.
    already: usize,
    /// Off but for a trigger's arming, while switching off.
    armed: usize,
    /// Off, and not switched off by stalltop, while switching on.
    unknown: usize,
    /// Switched by this selector.
    switched: usize,
    /// The last one that was looked at, for the text about one.
    last: String,
}

/// Adds the writes for the events that `selector` names.
pub(super) fn add(
    context: &Context<'_>,
    draft: &mut Draft,
    selector: &Selector,
) -> Result<(), ChangeError> {
    let host = Host::new(context.env)?;
    let (instances, left_out) = host.instances();
    if left_out && selector.scope.is_pattern() {
        draft.leave("instances", "one with a name that is not UTF-8: by hand");
    }
    let mut found = Found::default();
    let mut switched_in: Vec<&str> = Vec::new();
    for instance in instances.iter().filter(|i| selector.scope.matches(i)) {
        let before = found.switched;
        for (system, event) in host.named(instance, &selector.what) {
            one(
                context,
                draft,
                &host,
                (instance, &system, &event),
                &mut found,
            )?;
        }
        if found.switched > before {
            switched_in.push(instance);
        }
    }
    holders::of_events(context, draft, selector);
    if found.matched == 0 {
        return Err(holders::instead_of(context, selector)
            .unwrap_or_else(|| nothing_matches(context, &host, &instances, selector)));
    }
    title(draft, selector, &found, &switched_in);
    say_what_is_left(draft, selector, &found);
    let all_of_top = selector.what == What::SetEvent && selector.scope == Scope::Top;
    if draft.direction == Direction::Off && (all_of_top || found.switched == 0) {
        on_elsewhere(draft, &host, &instances, selector)?;
    }
    Ok(())
}

/// Adds the write for one event, or counts why there is none.
fn one(
    context: &Context<'_>,
    draft: &mut Draft,
    host: &Host<'_>,
    (instance, system, event): (&str, &str, &str),
    found: &mut Found,
) -> Result<(), ChangeError> {
    let dir = host.event_dir(instance, system, event);
    let path = format!("{dir}/enable");
    // The `ftrace` subsystem has no such file; an event may also have gone meanwhile.
    let Some(state) = host.state(&dir)? else {
        return Ok(());
    };
    found.matched += 1;
    found.last = label(instance, system, event);
    if draft.seen.contains(&path) {
        return Ok(());
    }
    let after = match (draft.direction, state) {
        (Direction::Off, EnableState::On) => EnableState::Off,
        (Direction::Off, EnableState::OnSoftArmed) => EnableState::SoftArmed,
        (Direction::On { .. }, EnableState::Off) => EnableState::On,
        (Direction::On { .. }, EnableState::SoftArmed) => EnableState::OnSoftArmed,
        (Direction::Off, EnableState::SoftArmed) => {
            found.armed += 1;
            return Ok(());
        }
        _ => {
            found.already += 1;
            return Ok(());
        }
    };
    let kept = host.kept(&dir, state);
    let mut value = "0";
    if let Direction::On { force } = draft.direction {
        value = "1";
        match context.journal.switched_off(&path) {
            Some(known) => {
                let filter = |kept: &[stalltop_model::change::Kept]| {
                    kept.iter().find(|k| k.path.ends_with("/filter")).cloned()
                };
                let (was, is) = (filter(&known.kept), filter(&kept));
                if let (Some(was), Some(is)) = (was, is)
                    && was.value != is.value
                {
                    draft.note(format!(
                        "{}: its filter was {} when it was switched off, and is {} now",
                        found.last,
                        printable(&was.value),
                        printable(&is.value)
                    ));
                }
            }
            None if !force => {
                found.unknown += 1;
                return Ok(());
            }
            None => {}
        }
    }
    found.switched += 1;
    draft.seen.insert(path.clone());
    draft.writes.push(Write {
        path: path.as_str().into(),
        mode: OpenMode::Truncate,
        value: value.into(),
        item: None,
        before: Some(state.as_str().into()),
        after: Some(after.as_str().into()),
        kept,
        undo: vec![UndoWrite {
            path: path.into(),
            mode: OpenMode::Truncate,
            value: if value == "0" { "1" } else { "0" }.into(),
        }],
    });
    draft.count_as_undo(context, Target::Enable);
    Ok(())
}

/// An event as a selector names it.
fn label(instance: &str, system: &str, event: &str) -> String {
    if instance.is_empty() {
        format!("{system}:{event}")
    } else {
        format!("{}/{system}:{event}", printable(instance))
    }
}

fn title(draft: &mut Draft, selector: &Selector, found: &Found, instances: &[&str]) {
    if found.switched == 0 {
        return;
    }
    if found.switched == 1 && selector.what.is_one() {
        draft.titles.push(found.last.clone());
        return;
    }
    let place = match instances {
        [""] => "the top-level instance".to_owned(),
        [one] => format!("instance {}", printable(one)),
        many => format!("{} instances", many.len()),
    };
    let events = plural(found.switched);
    let of = if selector.what == What::SetEvent {
        String::new()
    } else {
        format!(" of {}", printable(&selector.text))
    };
    draft
        .titles
        .push(format!("{} {events}{of} in {place}", found.switched));
}

fn say_what_is_left(draft: &mut Draft, selector: &Selector, found: &Found) {
    let asked = draft.direction.verb();
    let what = |n: usize| {
        if found.matched == 1 {
            found.last.clone()
        } else {
            format!("{n} of {}", printable(&selector.text))
        }
    };
    // All that is off of a family that is being switched off is no news.
    let news = found.matched == 1 || found.switched == 0 || asked == "on";
    if found.already > 0 && news {
        draft.leave(what(found.already), format!("already {asked}"));
    }
    if found.armed > 0 {
        draft.leave(
            what(found.armed),
            "0*, armed by a trigger and not recording; stays so",
        );
    }
    if found.unknown > 0 {
        draft.leave(
            what(found.unknown),
            "off, but stalltop did not switch it off; --force switches it on all the same",
        );
    }
}

/// Instances share no event's state: says, in one line, where else events of this name are
/// on and which selectors name them there.
fn on_elsewhere(
    draft: &mut Draft,
    host: &Host<'_>,
    instances: &[String],
    selector: &Selector,
) -> Result<(), ChangeError> {
    /// Instances that are named; the rest is counted.
    const NAMED: usize = 3;
    let name = selector.name();
    let (mut events, mut places, mut selectors) = (0, Vec::new(), Vec::new());
    for instance in instances.iter().filter(|i| !selector.scope.matches(i)) {
        let mut on = 0;
        for (system, event) in host.named(instance, &selector.what) {
            let state = host.state(&host.event_dir(instance, &system, &event))?;
            on += usize::from(state.is_some_and(EnableState::is_on));
        }
        if on == 0 {
            continue;
        }
        events += on;
        if instance.is_empty() {
            places.push("the top level".to_owned());
            selectors.push(name.to_owned());
        } else {
            places.push(printable(instance).into_owned());
            selectors.push(format!("{}/{name}", as_selector(instance)));
        }
    }
    if places.is_empty() {
        return Ok(());
    }
    let what = match &selector.what {
        What::SetEvent => format!("{events} {}", plural(events)),
        _ if events == 1 => name.to_owned(),
        _ => format!("{events} of {name}"),
    };
    let more = places.len().saturating_sub(NAMED);
    places.truncate(NAMED);
    selectors.truncate(NAMED);
    if more > 0 {
        places.push(format!("{more} more instances"));
    }
    if more > 0 || places.len() > 1 {
        selectors.push(format!("*/{name} for all instances"));
    } else {
        selectors.push(format!("*/{name}"));
    }
    draft.leave(
        format!("{} on in {}", printable(&what), places.join(", ")),
        format!("not asked for: {}", printable(&selectors.join(", or "))),
    );
    Ok(())
}

/// The name of an instance as a selector has it: what it cannot hold is matched by `?`.
fn as_selector(instance: &str) -> String {
    let special = |c: char| c.is_control() || " *?[\\".contains(c);
    instance
        .chars()
        .map(|c| if special(c) { '?' } else { c })
        .collect()
}

fn plural(events: usize) -> &'static str {
    if events == 1 { "event" } else { "events" }
}

/// The error for a selector that names no event, with what may have been meant.
pub(super) fn nothing_matches(
    context: &Context<'_>,
    host: &Host<'_>,
    instances: &[String],
    selector: &Selector,
) -> ChangeError {
    ChangeError::NothingMatches {
        selector: printable(&selector.text).as_ref().into(),
        hint: hint(context, host, instances, selector)
            .map_or(String::new(), |hint| format!("; {hint}"))
            .into(),
    }
}

fn hint(
    context: &Context<'_>,
    host: &Host<'_>,
    instances: &[String],
    selector: &Selector,
) -> Option<String> {
    let (place, name) = match selector.text.split_once('/') {
        Some((place, name)) => (place, name),
        None => ("", selector.text.as_str()),
    };
    let events = host.events("");
    if !instances.iter().any(|i| selector.scope.matches(i)) {
        // `kprobes/NAME`, as dynamic_events prints it.
        if events.iter().any(|(s, e)| s == place && e == name) {
            return Some(format!("did you mean {place}:{name}?"));
        }
        let names: Vec<String> = instances.iter().skip(1).cloned().collect();
        return Some(match nearest(place, names.iter().map(String::as_str)) {
            Some(near) => format!("no such instance; did you mean {}/{name}?", printable(near)),
            None if names.is_empty() => "this host has no tracefs instances".to_owned(),
            None => format!(
                "the instances are: {}",
                names
                    .iter()
                    .take(8)
                    .map(|n| printable(n))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        });
    }
    if let What::Either(of) = &selector.what
        && let Some(instance) = instances.iter().skip(1).find(|i| of.matches(i))
    {
        let instance = as_selector(instance);
        return Some(format!(
            "it is an instance: did you mean {0}/set_event or {0}/*:*?",
            printable(&instance)
        ));
    }
    if let Some(id) = context.journal.removed(&name.replacen(':', "/", 1)) {
        return Some(format!(
            "stalltop removed it; `stalltop undo {id}` brings it back"
        ));
    }
    let full = |s: &str, e: &str| format!("{s}:{e}");
    let prefix = if place.is_empty() {
        String::new()
    } else {
        format!("{place}/")
    };
    // The right event in the wrong subsystem, or nearly the right name.
    let event = name.rsplit_once(':').map_or(name, |(_, event)| event);
    if let Some((s, e)) = events.iter().find(|(_, e)| e == event) {
        return Some(format!("did you mean {prefix}{}?", full(s, e)));
    }
    let all: Vec<String> = events
        .iter()
        .map(|(s, e)| full(s, e))
        .chain(events.iter().map(|(s, _)| format!("{s}:*")))
        .chain(["set_event", "tracing_on", "current_tracer", "kprobes"].map(str::to_owned))
        .collect();
    nearest(name, all.iter().map(String::as_str))
        .map(|near| format!("did you mean {prefix}{}?", printable(near)))
}

/// The candidate most like `name`, if any is like it at all.
fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    all.map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
