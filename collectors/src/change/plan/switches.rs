//! Single switches: `tracing_on`, `current_tracer`, `kprobes/enabled`, mounts.

use stalltop_model::change::{ChangeError, OpenMode, UndoWrite, Write};
use stalltop_model::{Reason, printable};

use super::super::dynamic;
use super::super::host::{Host, lockdown, missing};
use super::super::selector::{Selector, What};
use super::super::target::{Target, mount_point, text_or_empty};
use super::{Context, Direction, Draft, events, holders};

/// `tracing_on` and `current_tracer` of the instances that are named.
pub(super) fn instance_file(
    context: &Context<'_>,
    draft: &mut Draft,
    selector: &Selector,
) -> Result<(), ChangeError> {
    let host = Host::new(context.env)?;
    let (instances, _) = host.instances();
    let mut matched = false;
    for instance in instances.iter().filter(|i| selector.scope.matches(i)) {
        matched = true;
        let place = if instance.is_empty() {
            "the top-level instance".to_owned()
        } else {
            format!("instance {}", printable(instance))
        };
        if selector.what == What::TracingOn {
            let path = format!("{}/tracing_on", host.dir(instance));
            let what = format!("recording (tracing_on) in {place}");
            on_off(context, draft, Target::TracingOn, &path, &what)?;
        } else {
            tracer(context, draft, &host.dir(instance), &place)?;
        }
    }
    if matched {
        Ok(())
    } else {
        Err(events::nothing_matches(
            context, &host, &instances, selector,
        ))
    }
}

/// A file that reads and takes `0` or `1`. Whether it was added to the plan.
fn on_off(
    context: &Context<'_>,
    draft: &mut Draft,
    target: Target,
    path: &str,
    what: &str,
) -> Result<bool, ChangeError> {
    let now = target
        .read(context.env, path, None)
        .map_err(|e| missing(context.env, path, &e))?;
    let (want, other) = match draft.direction {
        Direction::Off => ("0", "1"),
        Direction::On { .. } => ("1", "0"),
    };
    if now == want {
        draft.leave(what, format!("already {}", draft.direction.verb()));
        return Ok(false);
    }
    if now != other {
        return Err(ChangeError::Missing(Reason::parse(path, now.as_bytes())));
    }
    if draft.direction == (Direction::On { force: false })
        && context.journal.switched_off(path).is_none()
    {
        draft.leave(
            what,
            "off, but stalltop did not switch it off; --force switches it on all the same",
        );
        return Ok(false);
    }
    if !draft.seen.insert(path.to_owned()) {
        return Ok(false);
    }
    draft.switch(path, &now, want, want, other);
    draft.count_as_undo(context, target);
    draft.titles.push(what.to_owned());
    Ok(true)
}

fn tracer(
    context: &Context<'_>,
    draft: &mut Draft,
    dir: &str,
    place: &str,
) -> Result<(), ChangeError> {
    let path = format!("{dir}/current_tracer");
    let what = format!("the tracer of {place}");
    let now = Target::CurrentTracer
        .read(context.env, &path, None)
        .map_err(|e| missing(context.env, &path, &e))?;
    let want = match draft.direction {
        Direction::Off => "nop".to_owned(),
        Direction::On { .. } => match context.journal.switched_off(&path) {
            Some(known) => known.before.as_deref().unwrap_or("nop").to_owned(),
            None => {
                draft.leave(
                    what,
                    format!("stalltop did not switch it off, so does not know which; by hand: echo TRACER > {path}"),
                );
                return Ok(());
            }
        },
    };
    if now == want {
        draft.leave(what, format!("already {want}"));
        return Ok(());
    }
    if draft.seen.insert(path.clone()) {
        draft.switch(&path, &now, &want, &want, &now);
        draft.count_as_undo(context, Target::CurrentTracer);
        draft.partial = true;
        draft.titles.push(format!(
            "{what} ({} -> {})",
            printable(&now),
            printable(&want)
        ));
        draft.note(
            "changing the tracer empties the instance's buffer, which undo cannot bring back",
        );
    }
    Ok(())
}

/// debugfs `kprobes/enabled` (Documentation/trace/kprobes.rst).
pub(super) fn kprobes(context: &Context<'_>, draft: &mut Draft) -> Result<(), ChangeError> {
    let env = context.env;
    let Some(debugfs) = env.mount_of("debugfs") else {
        return Err(ChangeError::Instead {
            reason: Reason::NotMounted {
                fs: "debugfs".into(),
                at: "/sys/kernel/debug".into(),
            },
            instead: "stalltop on debugfs (mounts it; stalltop undo unmounts it)".into(),
        });
    };
    let path = format!("{debugfs}/kprobes/enabled");
    let list = text_or_empty(env, &format!("{debugfs}/kprobes/list"));
    if !env.path(&format!("{debugfs}/kprobes")).exists() {
        return Err(ChangeError::Missing(Reason::NotBuilt {
            config: "CONFIG_KPROBES".into(),
        }));
    }
    // Under lockdown debugfs refuses every file with a write bit, even to readers
    // (fs/debugfs/file.c, `debugfs_locked_down`).
    if let Some(level) = lockdown(env) {
        let reason = Reason::Lockdown {
            level: level.into(),
            what: path.as_str().into(),
        };
        return Err(instead_of_kprobes(context, reason));
    }
    let added = on_off(
        context,
        draft,
        Target::KprobesEnabled,
        &path,
        "all kprobes of this host",
    )
    .map_err(|e| match e {
        ChangeError::Missing(reason @ Reason::Lockdown { .. }) => {
            instead_of_kprobes(context, reason)
        }
        other => other,
    })?;
    if added && draft.direction == Direction::Off {
        let count = list.lines().filter(|l| !l.trim().is_empty()).count();
        draft.note(format!(
            "stops {count} kprobes and kretprobes (kprobes/list)"
        ));
        holders::of_tracefs(context, draft);
        holders::of_kprobes(context, draft);
    }
    Ok(())
}

/// What can be done where the master switch cannot be had.
fn instead_of_kprobes(context: &Context<'_>, reason: Reason) -> ChangeError {
    let mut offers = Vec::new();
    if let Ok(mount) = context.env.tracefs() {
        let text = text_or_empty(context.env, &format!("{mount}/kprobe_events"));
        let mut groups: Vec<&str> = dynamic::lines(&text).map(|l| l.names().0).collect();
        groups.sort_unstable();
        groups.dedup();
        offers.extend(
            groups
                .iter()
                .map(|g| format!("stalltop off '{}:*'", printable(g))),
        );
    }
    offers.extend(holders::stop_kprobe_holders(context));
    if offers.is_empty() {
        offers.push("stop who holds them (stalltop audit names them)".to_owned());
    }
    ChangeError::Instead {
        reason,
        instead: offers.join("; ").into(),
    }
}

/// Mounting is a change too: undo unmounts what was mounted.
pub(super) fn mount(
    context: &Context<'_>,
    draft: &mut Draft,
    fs: &'static str,
) -> Result<(), ChangeError> {
    let Some(at) = mount_point(fs) else {
        return Ok(());
    };
    let mounted = context.env.mount_of(fs);
    let what = format!("the mount of {fs}");
    let on = draft.direction != Direction::Off;
    match (on, mounted) {
        (true, Some(there)) => {
            draft.leave(what, format!("already mounted at {}", printable(there)));
            return Ok(());
        }
        (false, None) => {
            draft.leave(what, "not mounted");
            return Ok(());
        }
        (false, Some(there)) => {
            let ours = context.journal.mounted(at);
            if there != at || !ours {
                draft.leave(
                    what,
                    format!(
                        "stalltop did not mount it; by hand: umount {}",
                        printable(there)
                    ),
                );
                return Ok(());
            }
        }
        (true, None) => {}
    }
    let (mode, undo) = if on {
        (OpenMode::Mount, OpenMode::Unmount)
    } else {
        (OpenMode::Unmount, OpenMode::Mount)
    };
    let (before, after) = if on { ("", fs) } else { (fs, "") };
    if !draft.seen.insert(at.to_owned()) {
        return Ok(());
    }
    draft.writes.push(Write {
        path: at.into(),
        mode,
        value: fs.into(),
        item: None,
        before: Some(before.into()),
        after: Some(after.into()),
        kept: Vec::new(),
        undo: vec![UndoWrite {
            path: at.into(),
            mode: undo,
            value: fs.into(),
        }],
    });
    draft.count_as_undo(context, Target::MountPoint);
    draft.titles.push(what);
    if !on {
        draft.note("fails while a process uses it");
    }
    Ok(())
}
