//! What starts a holder again that was stopped.

use stalltop_model::change::ways;
use stalltop_model::sample::{Owner, OwnerKind};

use crate::{Env, file};

/// Where systemd looks for units, what counts most first (systemd.unit(5)).
const UNITS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// A service's `Restart=` and the file that has it; `None` where it has none, so that systemd
/// leaves it stopped, or is no service of this host.
pub(super) fn of(env: &Env, owner: &Owner) -> Option<(String, String)> {
    // One inside a container or of a user is none of this host's.
    if owner.kind != OwnerKind::Unit || owner.name.contains(['/', '\0']) {
        return None;
    }
    let unit = ways::unit(owner).strip_suffix(".service")?;
    let mut names = vec![format!("{unit}.service")];
    if let Some((template, _)) = unit.split_once('@') {
        names.push(format!("{template}@.service"));
    }
    // Drop-ins count more than the unit, and among them the last by name.
    let mut drop_ins: Vec<(String, String)> = Vec::new();
    for name in &names {
        for folder in UNITS {
            let folder = format!("{folder}/{name}.d");
            let entries = std::fs::read_dir(env.path(&folder));
            for entry in entries.into_iter().flatten().flatten() {
                if let Ok(file) = entry.file_name().into_string()
                    && file.ends_with(".conf")
                    && !drop_ins.iter().any(|(known, _)| *known == file)
                {
                    drop_ins.push((file.clone(), format!("{folder}/{file}")));
                }
            }
        }
    }
    drop_ins.sort();
    let unit = names
        .iter()
        .flat_map(|name| UNITS.map(|folder| format!("{folder}/{name}")))
        .find(|path| env.path(path).exists());
    let files = drop_ins.into_iter().rev().map(|(_, path)| path).chain(unit);
    let (value, path) = files
        .filter_map(|path| {
            let text = file::read_text(&env.path(&path)).ok()?;
            let last = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("Restart="))
                .next_back()?;
            Some((last.trim().to_owned(), path))
        })
        .next()?;
    (!value.is_empty() && value != "no").then_some((value, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_restarting_counts() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::at(dir.path());
        let owner = |name: &str| Owner {
            kind: OwnerKind::Unit,
            name: name.into(),
            cgroup: "/".into(),
        };
        let put = |path: &str, text: &str| {
            let path = env.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(of(&env, &owner("a@1.service")), None);
        put(
            "/usr/lib/systemd/system/a@.service",
            "[Service]\nRestart=on-failure\n",
        );
        let found = || of(&env, &owner("a@1.service")).map(|(value, _)| value);
        assert_eq!(found().as_deref(), Some("on-failure"));
        put(
            "/etc/systemd/system/a@1.service.d/10.conf",
            "[Service]\nRestart=always\n",
        );
        assert_eq!(found().as_deref(), Some("always"));
        put(
            "/run/systemd/system/a@.service.d/20.conf",
            "[Service]\n Restart=no\n",
        );
        assert_eq!(found(), None);
        assert_eq!(of(&env, &owner("../../x.service")), None);
    }
}
