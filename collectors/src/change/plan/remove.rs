//! Removing dynamic events, so that each comes back as it was.
//!
//! The kernel refuses to remove an event that is on, or soft-armed by a trigger, in any
//! instance (EBUSY; kernel/trace/trace_events.c, `probe_remove_event_call`), and forgets
//! its filters. So the plan first takes these away one by one, each a write with its own
//! undo, and undo runs the same steps backwards from the definition on.

use stalltop_model::change::{ChangeError, OpenMode, Plan, UndoWrite, Write};
use stalltop_model::printable;
use stalltop_model::sample::EnableState;

use super::super::dynamic;
use super::super::host::{Host, missing};
use super::super::selector::{self, Scope, Selector};
use super::super::target::Target;
use super::super::trigger;
use super::{Context, Direction, Draft, events, holders};

/// The files that list dynamic events, the newest first: `dynamic_events` is there since 5.0.
const FILES: [&str; 3] = ["dynamic_events", "kprobe_events", "uprobe_events"];

pub(super) fn plan(context: &Context<'_>, text: &str) -> Result<Plan, ChangeError> {
    let host = Host::new(context.env)?;
    let mut draft = Draft::new(Direction::Off);
    for selector in &selector::parse(text)? {
        add(context, &mut draft, &host, selector)?;
    }
    draft.partial = true;
    draft.note("undo makes it again from its definition; its hit counts begin at 0");
    let title = format!("remove {}", draft.titles.join(", "));
    draft.finish(context, title)
}

fn add(
    context: &Context<'_>,
    draft: &mut Draft,
    host: &Host<'_>,
    selector: &Selector,
) -> Result<(), ChangeError> {
    if selector.scope != Scope::Top {
        return Err(ChangeError::BadSelector {
            selector: printable(&selector.text).as_ref().into(),
            why: "dynamic events belong to the host; say GROUP:NAME without an instance".into(),
        });
    }
    let mut seen = Vec::new();
    for file in FILES {
        let path = format!("{}/{file}", host.mount);
        if !context.env.path(&path).exists() {
            continue;
        }
        let text = crate::file::read(&context.env.path(&path)).map_err(ChangeError::Missing)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        for line in dynamic::lines(&text) {
            let (group, name) = line.names();
            if selector.what.matches(group, name) && !seen.contains(&line.item.to_owned()) {
                seen.push(line.item.to_owned());
                one(context, draft, host, &path, &line, &text)?;
            }
        }
    }
    if seen.is_empty() {
        let (instances, _) = host.instances();
        return Err(holders::instead_of(context, selector)
            .unwrap_or_else(|| events::nothing_matches(context, host, &instances, selector)));
    }
    Ok(())
}

/// Adds the writes that remove one event.
fn one(
    context: &Context<'_>,
    draft: &mut Draft,
    host: &Host<'_>,
    file: &str,
    line: &dynamic::Line<'_>,
    text: &str,
) -> Result<(), ChangeError> {
    let (group, name) = line.names();
    let label = format!("{}:{}", printable(group), printable(name));
    let definition = dynamic::definition_of(text, line.item);
    if !matches!(line.kind, 'p' | 'r' | 'e' | 'f' | 't') {
        draft.leave(
            label,
            "only probe events are removed; `stalltop off` switches it off",
        );
        return Ok(());
    }
    if definition.contains('\u{fffd}') {
        draft.leave(
            label,
            "its definition is not UTF-8 and could not be put back: by hand",
        );
        return Ok(());
    }
    if !draft.seen.insert(line.item.to_owned()) {
        return Ok(());
    }
    let (instances, _) = host.instances();
    for instance in &instances {
        quiet(context, draft, host, instance, group, name)?;
    }
    draft.writes.push(Write {
        path: file.into(),
        mode: OpenMode::Append,
        value: format!("-:{}", line.item).into(),
        item: Some(line.item.into()),
        before: Some(definition.as_str().into()),
        after: Some("".into()),
        kept: Vec::new(),
        undo: vec![UndoWrite {
            path: file.into(),
            mode: OpenMode::Append,
            value: definition.into(),
        }],
    });
    draft.titles.push(label);
    Ok(())
}

/// Adds the writes that take an event's state, triggers and filter away in one instance.
fn quiet(
    context: &Context<'_>,
    draft: &mut Draft,
    host: &Host<'_>,
    instance: &str,
    group: &str,
    name: &str,
) -> Result<(), ChangeError> {
    let dir = host.event_dir(instance, group, name);
    let Some(state) = host.state(&dir)? else {
        return Ok(());
    };
    let armed = matches!(state, EnableState::SoftArmed | EnableState::OnSoftArmed);
    if state.is_on() {
        let after = if armed { "0*" } else { "0" };
        draft.switch(&format!("{dir}/enable"), state.as_str(), after, "0", "1");
        if let Some(write) = draft.writes.last_mut() {
            write.kept = host.kept(&dir, state);
        }
    }
    let read = |target: Target, file: &str| {
        let path = format!("{dir}/{file}");
        match target.read(context.env, &path, None) {
            Ok(text) => Ok((path, text)),
            Err(e) => Err(missing(context.env, &path, &e)),
        }
    };
    if armed {
        let (path, text) = read(Target::Trigger, "trigger")?;
        take_triggers(draft, &path, &text);
        if text.is_empty() {
            return Err(armed_elsewhere(context, host, instance, group, name));
        }
    }
    let (path, filter) = read(Target::Filter, "filter")?;
    // A filter that did not parse reads as its own error message and filters nothing.
    if filter != "none" && !filter.is_empty() && !filter.contains('\n') {
        draft.switch(&path, &filter, "none", "0", &filter);
    }
    Ok(())
}

/// Removes the triggers from the top, the newest first; undo, which runs backwards, makes
/// the oldest first and so gives the same order.
fn take_triggers(draft: &mut Draft, path: &str, text: &str) {
    let lines: Vec<&str> = trigger::lines(text).collect();
    for (n, line) in lines.iter().enumerate() {
        let restore = trigger::restore(line);
        if restore.starts_with("hist:") {
            draft.note("what its histograms have counted is lost");
        }
        draft.writes.push(Write {
            path: path.into(),
            mode: OpenMode::Append,
            value: format!("!{restore}").into(),
            item: None,
            before: Some(lines[n..].join("\n").into()),
            after: Some(lines[n + 1..].join("\n").into()),
            kept: Vec::new(),
            undo: vec![UndoWrite {
                path: path.into(),
                mode: OpenMode::Append,
                value: restore.into(),
            }],
        });
    }
}

/// The error for an event that another event's trigger arms: the kernel would refuse.
fn armed_elsewhere(
    context: &Context<'_>,
    host: &Host<'_>,
    instance: &str,
    group: &str,
    name: &str,
) -> ChangeError {
    let by = host
        .events(instance)
        .into_iter()
        .find_map(|(system, event)| {
            let path = format!("{}/trigger", host.event_dir(instance, &system, &event));
            let text = Target::Trigger.read(context.env, &path, None).ok()?;
            let line = trigger::lines(&text)
                .find(|l| trigger::arms(l, group, name))?
                .to_owned();
            Some((path, line))
        });
    let reason = stalltop_model::Reason::Busy {
        by: match &by {
            Some((path, line)) => format!("the trigger {line} in {path}").into(),
            None => "a trigger that arms it".into(),
        },
    };
    let instead = match by {
        Some((path, line)) => format!(
            "remove that trigger first: echo '!{}' >> {path}",
            trigger::restore(&line)
        ),
        None => format!("stalltop off {group}:{name} switches it off"),
    };
    ChangeError::Instead {
        reason,
        instead: printable(&instead).as_ref().into(),
    }
}
