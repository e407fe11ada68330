//! The screen: of this host, or of a recording.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use stalltop_view::{App, Depth, Feed, Keymap, Options, Theme};

use super::Usage;
use crate::cli::{LiveArgs, ScreenArgs};
use crate::ui::{self, FeedOptions, UiOptions};

/// Shows this host.
pub(crate) fn live(
    args: LiveArgs,
    screen: &ScreenArgs,
    journal: PathBuf,
    read_only: bool,
) -> anyhow::Result<ExitCode> {
    let tick_ns = u64::try_from(args.tick.as_nanos()).unwrap_or(u64::MAX);
    let why = read_only.then(|| "started with --read-only".to_owned());
    let app = app(screen, Feed::Live { tick_ns }, why)?;
    ui::run(UiOptions {
        app,
        feed: FeedOptions::Live {
            args,
            journal: journal.clone(),
            read_only,
        },
        journal: Some(journal),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Shows a recording.
pub(crate) fn replay(file: PathBuf, speed: f64, screen: &ScreenArgs) -> anyhow::Result<ExitCode> {
    let speed = speed as f32;
    let feed = Feed::Replay {
        at_ns: 0,
        length_ns: 0,
        speed,
        paused: false,
        ended: false,
    };
    let why = Some("a recording cannot be changed".to_owned());
    let app = app(screen, feed, why)?;
    crate::open_recording::check(&file)?;
    ui::run(UiOptions {
        app,
        feed: FeedOptions::Replay { file, speed },
        journal: None,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn app(screen: &ScreenArgs, feed: Feed, read_only: Option<String>) -> anyhow::Result<App> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let text =
            "the screen needs a terminal; without one: stalltop stream, record, audit, doctor";
        return Err(Usage(text.to_owned()).into());
    }
    let variable = |name: &str| std::env::var(name).ok();
    let depth = Depth::from_env(
        variable("NO_COLOR").as_deref(),
        variable("COLORTERM").as_deref(),
        variable("TERM").as_deref(),
    );
    let name = screen
        .theme
        .as_deref()
        .unwrap_or(stalltop_view::THEMES[0].0);
    let theme = Theme::named(name, depth).map_err(|e| Usage(e.to_string()))?;
    let keymap = keymap(screen.keys.as_deref())?;
    Ok(App::new(Options {
        theme,
        keymap,
        ascii: screen.ascii,
        read_only,
        feed,
    }))
}

fn keymap(file: Option<&Path>) -> anyhow::Result<Keymap> {
    let keymap = match file {
        None => Keymap::builtin().map_err(|e| e.to_string()),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|e| e.to_string())
            .and_then(|text| Keymap::with(&text).map_err(|e| e.to_string()))
            .map_err(|e| format!("{}: {e}", file.display())),
    };
    Ok(keymap.map_err(Usage)?)
}
