//! What is said in the footer's place.

use stalltop_model::Model;
use stalltop_model::model::verdict;

use crate::text;
use crate::theme::Role;

/// One line that stands in the footer's place until the next key.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(super) role: Role,
    pub(super) text: String,
    /// Whether the key that undoes it is told.
    pub(super) undo: bool,
    /// The journal's number of the change that it is about.
    change: Option<u64>,
}

impl Status {
    pub(crate) fn new(role: Role, text: String) -> Self {
        Self {
            role,
            text,
            undo: false,
            change: None,
        }
    }

    /// About a change: what it did is told in its place, once that is known.
    pub(crate) fn about(mut self, change: u64) -> Self {
        self.change = Some(change);
        self
    }

    /// Tells what the change did, as far as that is known; gives whether that is news.
    pub(crate) fn judge(&mut self, model: &Model) -> bool {
        let Some(id) = self.change else {
            return false;
        };
        let entry = model.changes().iter().find(|e| e.id == id);
        let (Some(entry), Some(verdict)) = (entry, model.verdict(id)) else {
            return false;
        };
        let clock = text::clock(entry.wall_ns);
        let told = format!("{clock} {}: {verdict}", verdict::short(entry));
        let news = told != self.text;
        self.text = told;
        news
    }

    /// With something more to say; the graver role counts.
    pub(crate) fn and(mut self, role: Role, text: &str) -> Self {
        if role != Role::Ok {
            self.role = role;
        }
        self.text = format!("{}, {}", self.text, text);
        self
    }

    /// With another file that was written; a directory is named once.
    pub(crate) fn and_file(self, path: &str) -> Self {
        if !self.text.starts_with("written to ") {
            return self.and(Role::Ok, &format!("written to {path}"));
        }
        let name = match path.rfind('/') {
            Some(at) if self.text.contains(&path[..=at]) => &path[at + 1..],
            _ => path,
        };
        self.and(Role::Ok, name)
    }

    /// With the key that undoes what it tells.
    pub(crate) fn with_undo(mut self, undo: bool) -> Self {
        self.undo = undo;
        self
    }
}
