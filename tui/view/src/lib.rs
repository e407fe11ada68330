//! The screen: state, panes, actions, keymap and themes over a [`stalltop_model::Model`].
//!
//! [`App::update`] takes a [`Msg`] and gives [`Effects`]; [`App::render`] draws. Nothing
//! here does I/O, asks the time or knows a runtime: the program carries effects out and
//! answers with messages. Panes own their state ([`PANES`]); everything a person can do is
//! a row of [`ACTIONS`], which feeds dispatch, footer, help, palette, rebinding and docs.

mod action;
mod app;
mod cgroups;
mod chrome;
mod cores;
mod dialog;
mod draw;
mod glyph;
mod job;
mod key;
mod keymap;
mod list;
mod listing;
mod locks;
mod msg;
mod overview;
mod pane;
mod panes;
mod stalls;
mod text;
mod theme;
mod tracing;

pub use action::{ACTIONS, Action, ActionId, Context, Danger, Needs, key_table};
pub use app::{App, Options};
pub use job::JobId;
pub use key::{BadKey, Key, KeyCode};
pub use keymap::{Keymap, KeymapError};
pub use msg::{Effect, Effects, Feed, FlameGraph, Mouse, MouseKind, Msg, Progress, Seek, Wants};
pub use pane::{PANES, PaneId, PaneInfo};
pub use theme::{Depth, Role, THEMES, Theme, ThemeError};
