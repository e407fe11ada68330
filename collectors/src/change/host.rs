//! What planning reads of tracefs: instances, events, states.

use std::io;

use stalltop_model::change::{ChangeError, Kept};
use stalltop_model::sample::{EnableState, Lockdown};
use stalltop_model::{Name, Reading, Reason};

use crate::Env;

use super::selector::What;
use super::target::Target;

/// tracefs of a host.
pub(crate) struct Host<'a> {
    pub(crate) env: &'a Env,
    /// Where it is mounted, as the host names it.
    pub(crate) mount: String,
}

impl<'a> Host<'a> {
    /// # Errors
    /// [`ChangeError::Instead`] where tracefs is not mounted, [`ChangeError::Missing`] where
    /// its events cannot be listed: that they are none would be wrong.
    pub(crate) fn new(env: &'a Env) -> Result<Self, ChangeError> {
        match env.tracefs() {
            Ok(mount) => {
                let events = format!("{mount}/events");
                match std::fs::read_dir(env.path(&events)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => Err(missing(env, &events, &e)),
                    _ => Ok(Self { env, mount }),
                }
            }
            Err(reason) => Err(ChangeError::Instead {
                reason,
                instead: "stalltop on tracefs (mounts it; stalltop undo unmounts it)".into(),
            }),
        }
    }

    /// The names of all instances, the top level (empty) first, and whether some were left
    /// out because their names are not UTF-8.
    pub(crate) fn instances(&self) -> (Vec<String>, bool) {
        let (mut names, left_out) = self.folders(&format!("{}/instances", self.mount));
        names.insert(0, String::new());
        (names, left_out)
    }

    /// The folder of an instance.
    pub(crate) fn dir(&self, instance: &str) -> String {
        if instance.is_empty() {
            self.mount.clone()
        } else {
            format!("{}/instances/{instance}", self.mount)
        }
    }

    /// All events of an instance as (subsystem, event), in the order of their names.
    pub(crate) fn events(&self, instance: &str) -> Vec<(String, String)> {
        self.events_of(instance, &|_| true, &|_, _| true)
    }

    /// The events of an instance that a selector names. Only the subsystems it may mean are
    /// listed: listing all takes tens of milliseconds where nobody did before.
    pub(crate) fn named(&self, instance: &str, what: &What) -> Vec<(String, String)> {
        self.events_of(instance, &|s| what.looks_into(s), &|s, e| {
            what.matches(s, e)
        })
    }

    fn events_of(
        &self,
        instance: &str,
        system_wanted: &dyn Fn(&str) -> bool,
        event_wanted: &dyn Fn(&str, &str) -> bool,
    ) -> Vec<(String, String)> {
        let top = format!("{}/events", self.dir(instance));
        let mut all = Vec::new();
        for system in self.folders(&top).0 {
            if !system_wanted(&system) {
                continue;
            }
            let (events, _) = self.folders(&format!("{top}/{system}"));
            let wanted = events
                .into_iter()
                .filter(|event| event_wanted(&system, event));
            all.extend(wanted.map(|event| (system.clone(), event)));
        }
        all
    }

    fn folders(&self, path: &str) -> (Vec<String>, bool) {
        let mut left_out = false;
        let mut names: Vec<String> = std::fs::read_dir(self.env.path(path))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|entry| match entry.file_name().into_string() {
                Ok(name) => Some(name),
                Err(_) => {
                    left_out = true;
                    None
                }
            })
            .collect();
        names.sort_unstable();
        (names, left_out)
    }

    /// The folder of an event.
    pub(crate) fn event_dir(&self, instance: &str, system: &str, event: &str) -> String {
        format!("{}/events/{system}/{event}", self.dir(instance))
    }

    /// An event's state; `None` if it has none (the `ftrace` subsystem) or is gone.
    ///
    /// # Errors
    /// Why it cannot be read although it is there.
    pub(crate) fn state(&self, event_dir: &str) -> Result<Option<EnableState>, ChangeError> {
        let path = format!("{event_dir}/enable");
        match Target::Enable.read(self.env, &path, None) {
            Ok(text) => match EnableState::parse(text.as_bytes()) {
                Some(state) => Ok(Some(state)),
                None => Err(ChangeError::Missing(Reason::parse(&path, text.as_bytes()))),
            },
            Err(e) => match missing(self.env, &path, &e) {
                ChangeError::Missing(Reason::NoFile { .. }) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// What undo must find again besides an event's state: its filter, and its triggers
    /// where the state says that there may be some.
    pub(crate) fn kept(&self, event_dir: &str, state: EnableState) -> Vec<Kept> {
        let armed = matches!(state, EnableState::SoftArmed | EnableState::OnSoftArmed);
        let files = [("filter", Target::Filter), ("trigger", Target::Trigger)];
        files[..if armed { 2 } else { 1 }]
            .iter()
            .filter_map(|(file, target)| {
                let path: Name = format!("{event_dir}/{file}").into();
                let value = target.read(self.env, &path, None).ok()?.into();
                Some(Kept { path, value })
            })
            .collect()
    }
}

/// The error for a file that cannot be read, lockdown named where it is the cause.
pub(crate) fn missing(env: &Env, path: &str, error: &io::Error) -> ChangeError {
    // EPERM, not EACCES: what security_locked_down() gives.
    if error.raw_os_error() == Some(1)
        && let Some(level) = lockdown(env)
    {
        return ChangeError::Missing(Reason::Lockdown {
            level: level.into(),
            what: path.into(),
        });
    }
    ChangeError::Missing(Reason::from_io(path, error))
}

/// The name of the active lockdown level, if any.
pub(crate) fn lockdown(env: &Env) -> Option<&'static str> {
    match env.lockdown {
        Reading::Value(Lockdown::Integrity) => Some("integrity"),
        Reading::Value(Lockdown::Confidentiality) => Some("confidentiality"),
        _ => None,
    }
}
