//! Themes: semantic roles to styles, read from TOML that is built into the program.
//!
//! A role is looked up with dotted fallback (`severity.critical`, then `severity`, then
//! `text`), after the files a theme `inherits` from. What a terminal cannot show is
//! brought down to 256 or 16 colours, or to none (`NO_COLOR`), where weight, inversion
//! and glyphs remain: no colour carries a meaning alone.

mod color;
mod file;

use ratatui::style::Style;

pub use color::Depth;
pub use file::ThemeError;

/// The built-in themes: name and TOML text, in the order in which `t` walks through them.
/// Adding a theme is adding its file and its row here.
pub const THEMES: &[(&str, &str)] = &[
    ("night", include_str!("../../../themes/night.toml")),
    ("paper", include_str!("../../../themes/paper.toml")),
    ("contrast", include_str!("../../../themes/contrast.toml")),
    ("okabe", include_str!("../../../themes/okabe.toml")),
    ("mono", include_str!("../../../themes/mono.toml")),
];

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a piece of the screen means; themes give each a style.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Role { $($(#[$doc])* $name,)* }

        impl Role {
            /// All roles.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name that theme files use.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

roles! {
    /// Ordinary text, and the background of everything.
    Text = "text",
    /// Labels, units, what is less important.
    Dim = "text.dim",
    /// Hints, and what is not measured.
    Faint = "text.faint",
    /// What the eye should meet first.
    Strong = "text.strong",
    /// Section titles.
    Title = "title",
    /// Rules and tree branches.
    Line = "line",
    /// The header line.
    Header = "header",
    /// The host's name in it.
    HeaderHost = "header.host",
    /// The program's name in it.
    HeaderName = "header.name",
    /// A tab.
    Tab = "tab",
    /// The open pane's tab.
    TabActive = "tab.active",
    /// The selected row; laid over what is in it.
    Cursor = "cursor",
    /// The footer.
    Footer = "footer",
    /// A key in it.
    FooterKey = "footer.key",
    /// A key that leads to a write to the kernel.
    FooterDanger = "footer.danger",
    /// `✖`.
    Critical = "severity.critical",
    /// `▲`.
    Warning = "severity.warning",
    /// `·`.
    Notice = "severity.notice",
    /// All is well.
    Ok = "severity.ok",
    /// LIVE.
    Live = "mode.live",
    /// PAUSED.
    Paused = "mode.paused",
    /// REPLAY.
    Replay = "mode.replay",
    /// On: `●`.
    On = "mark.on",
    /// Off: `○`.
    Off = "mark.off",
    /// Soft-armed: `◐`.
    Armed = "mark.armed",
    /// Changed since stalltop started: `✱`.
    Changed = "mark.changed",
    /// Made by stalltop itself.
    Ours = "mark.ours",
    /// The least heat.
    Heat1 = "heat.1",
    /// Some.
    Heat2 = "heat.2",
    /// Middling.
    Heat3 = "heat.3",
    /// Much.
    Heat4 = "heat.4",
    /// The most.
    Heat5 = "heat.5",
    /// ksoftirqd ran.
    Ksoftirqd = "ksoftirqd",
    /// First series of a chart.
    Series1 = "series.1",
    /// Second series.
    Series2 = "series.2",
    /// Third series.
    Series3 = "series.3",
    /// Fourth series.
    Series4 = "series.4",
    /// A dialog's text.
    Dialog = "dialog",
    /// Its border.
    DialogBorder = "dialog.border",
    /// What in it cannot be undone.
    DialogDanger = "dialog.danger",
    /// Literal commands.
    DialogCode = "dialog.code",
    /// A field one types into.
    Input = "input",
    /// What a filter or the palette matched.
    Match = "match",
}

impl Role {
    /// The heat role of a share between 0 and 1.
    pub fn heat(share: f64) -> Self {
        match share {
            s if s >= 0.8 => Self::Heat5,
            s if s >= 0.5 => Self::Heat4,
            s if s >= 0.25 => Self::Heat3,
            s if s >= 0.05 => Self::Heat2,
            _ => Self::Heat1,
        }
    }
}

/// A theme, ready to draw with.
#[derive(Clone, Debug)]
pub struct Theme {
    /// Position in [`THEMES`].
    index: usize,
    depth: Depth,
    styles: Vec<Style>,
}

impl Theme {
    /// Loads the built-in theme `name` for a terminal of `depth` colours.
    ///
    /// # Errors
    /// If there is no such theme, or its file is wrong.
    pub fn named(name: &str, depth: Depth) -> Result<Self, ThemeError> {
        let index = THEMES
            .iter()
            .position(|(have, _)| *have == name)
            .ok_or_else(|| ThemeError::Unknown { name: name.into() })?;
        Ok(Self {
            index,
            depth,
            styles: file::load(name, depth)?,
        })
    }

    /// The next built-in theme; a file that is wrong is passed over.
    pub fn next(&self) -> Self {
        (1..=THEMES.len())
            .filter_map(|n| THEMES.get((self.index + n) % THEMES.len()))
            .find_map(|(name, _)| Self::named(name, self.depth).ok())
            .unwrap_or_else(|| self.clone())
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        THEMES.get(self.index).map_or("", |(name, _)| name)
    }

    /// The style of a role.
    pub fn style(&self, role: Role) -> Style {
        self.styles.get(role as usize).copied().unwrap_or_default()
    }
}

impl Default for Theme {
    /// Without a theme: the terminal's own colours.
    fn default() -> Self {
        Self {
            index: 0,
            depth: Depth::None,
            styles: vec![Style::default(); Role::ALL.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::style::{Color, Modifier};

    use super::*;

    #[test]
    fn every_theme_loads_at_every_depth_and_names_only_roles() {
        for (name, _) in THEMES {
            for depth in [Depth::None, Depth::Ansi16, Depth::Ansi256, Depth::True] {
                let theme = Theme::named(name, depth).unwrap();
                assert_eq!(theme.styles.len(), Role::ALL.len());
                assert_eq!(&theme.name(), name);
            }
        }
    }

    #[test]
    fn themes_folder_and_table_agree() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../themes");
        let mut files: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let mut table: Vec<String> = THEMES.iter().map(|(n, _)| format!("{n}.toml")).collect();
        table.sort();
        assert_eq!(files, table);
    }

    #[test]
    fn no_color_leaves_no_colour() {
        for (name, _) in THEMES {
            let theme = Theme::named(name, Depth::None).unwrap();
            for role in Role::ALL {
                let style = theme.style(*role);
                assert_eq!(style.fg, None, "{name} {role:?}");
                assert_eq!(style.bg, None, "{name} {role:?}");
            }
            let cursor = theme.style(Role::Cursor);
            assert!(
                cursor.add_modifier.contains(Modifier::REVERSED),
                "{name}: a cursor must be seen without colour"
            );
        }
    }

    #[test]
    fn sixteen_colours_use_only_the_terminals_own() {
        for (name, _) in THEMES {
            let theme = Theme::named(name, Depth::Ansi16).unwrap();
            for role in Role::ALL {
                let style = theme.style(*role);
                for color in [style.fg, style.bg].into_iter().flatten() {
                    assert!(
                        !matches!(color, Color::Rgb(..) | Color::Indexed(_)),
                        "{name} {role:?} {color:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn text_is_readable_on_its_background() {
        for (name, _) in THEMES.iter().filter(|(n, _)| *n != "mono") {
            let theme = Theme::named(name, Depth::True).unwrap();
            let base = theme.style(Role::Text).bg.unwrap();
            for role in Role::ALL {
                let style = theme.style(*role);
                let (Some(fg), bg) = (style.fg, style.bg.unwrap_or(base)) else {
                    continue;
                };
                let least = match role {
                    Role::Line => 1.2,
                    Role::Heat1 => 2.0,
                    Role::Faint | Role::Off => 3.0,
                    _ => 4.0,
                };
                let ratio = color::contrast(fg, bg).unwrap();
                assert!(ratio >= least, "{name} {role:?}: {ratio:.2} < {least}");
            }
        }
    }
}
