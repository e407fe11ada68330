//! Theme files: TOML with a palette, roles and `inherits`.

use std::collections::BTreeMap;

use ratatui::style::{Modifier, Style};
use serde::Deserialize;

use super::color::{self, Depth};
use super::{Role, THEMES};

/// What is wrong with a theme.
#[derive(Debug, thiserror::Error)]
pub enum ThemeError {
    /// No such theme.
    #[error("no theme {name}; there are: {}", THEMES.map_names())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Its file is not understood.
    #[error("theme {name}: {why}")]
    Wrong {
        /// Which theme.
        name: String,
        /// What is wrong, with the line or the role.
        why: String,
    },
}

trait Names {
    fn map_names(&self) -> String;
}

impl Names for [(&str, &str)] {
    fn map_names(&self) -> String {
        self.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// One line for the palette.
    #[serde(rename = "about")]
    _about: String,
    inherits: Option<String>,
    #[serde(default)]
    palette: BTreeMap<String, String>,
    #[serde(default)]
    roles: BTreeMap<String, RoleStyle>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields)]
struct RoleStyle {
    fg: Option<String>,
    bg: Option<String>,
    #[serde(default)]
    mods: Vec<String>,
}

/// The style of each role, in the order of [`Role::ALL`].
pub(super) fn load(name: &str, depth: Depth) -> Result<Vec<Style>, ThemeError> {
    let wrong = |why: String| ThemeError::Wrong {
        name: name.into(),
        why,
    };
    let mut palette = BTreeMap::new();
    let mut roles = BTreeMap::new();
    gather(name, &mut palette, &mut roles, THEMES.len())?;
    if let Some(unknown) = roles.keys().find(|role| !is_known(role)) {
        return Err(wrong(format!("no role is called {unknown}")));
    }
    let color = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => {
            let value = palette.get(text).unwrap_or(text);
            color::parse(value, depth).ok_or_else(|| wrong(format!("no colour {text}")))
        }
    };
    Role::ALL
        .iter()
        .map(|role| {
            let found = lookup(&roles, role.as_str()).unwrap_or_default();
            let mut style = Style {
                fg: color(&found.fg)?,
                bg: color(&found.bg)?,
                ..Style::default()
            };
            for name in &found.mods {
                let bit = modifier(name).ok_or_else(|| wrong(format!("no modifier {name}")))?;
                style = style.add_modifier(bit);
            }
            // What a theme says with a background alone must survive without colour.
            if depth == Depth::None && found.bg.is_some() && is_inverted_without_color(*role) {
                style = style.add_modifier(Modifier::REVERSED);
            }
            Ok(style)
        })
        .collect()
}

fn is_inverted_without_color(role: Role) -> bool {
    matches!(role, Role::Cursor | Role::TabActive | Role::Input)
}

/// Reads a theme over the ones it inherits from. `left` bounds the chain, so that a
/// circle ends.
fn gather(
    name: &str,
    palette: &mut BTreeMap<String, String>,
    roles: &mut BTreeMap<String, RoleStyle>,
    left: usize,
) -> Result<(), ThemeError> {
    let (_, text) = THEMES
        .iter()
        .find(|(have, _)| *have == name)
        .ok_or_else(|| ThemeError::Unknown { name: name.into() })?;
    let file: File = toml::from_str(text).map_err(|error| ThemeError::Wrong {
        name: name.into(),
        why: error.to_string(),
    })?;
    if let Some(parent) = &file.inherits {
        let left = left.checked_sub(1).ok_or_else(|| ThemeError::Wrong {
            name: name.into(),
            why: "inherits from itself".into(),
        })?;
        gather(parent, palette, roles, left)?;
    }
    palette.extend(file.palette);
    roles.extend(file.roles);
    Ok(())
}

/// The role itself, then what is left of its last dot, then `text`.
fn lookup(roles: &BTreeMap<String, RoleStyle>, role: &str) -> Option<RoleStyle> {
    if let Some(found) = roles.get(role) {
        return Some(found.clone());
    }
    match role.rsplit_once('.') {
        Some((parent, _)) => lookup(roles, parent),
        // Only the text itself paints the background.
        None => roles.get("text").map(|text| RoleStyle {
            bg: None,
            ..text.clone()
        }),
    }
}

/// A role, or the parent of one.
fn is_known(name: &str) -> bool {
    Role::ALL.iter().any(|role| {
        role.as_str() == name
            || role
                .as_str()
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('.'))
    })
}

fn modifier(name: &str) -> Option<Modifier> {
    Some(match name {
        "bold" => Modifier::BOLD,
        "dim" => Modifier::DIM,
        "italic" => Modifier::ITALIC,
        "underlined" => Modifier::UNDERLINED,
        "reversed" => Modifier::REVERSED,
        _ => return None,
    })
}
