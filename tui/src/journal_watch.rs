//! What is in the journal of changes: ours, and other instances' on the same host.

use std::path::PathBuf;
use std::time::SystemTime;

use stalltop_collectors::Env;
use stalltop_collectors::change::{Entry, Journal};

/// Looks for entries that are new or got further since the last look.
pub(crate) struct JournalWatch {
    path: PathBuf,
    stamp: Option<(u64, Option<SystemTime>)>,
    shown: Vec<Entry>,
}

impl JournalWatch {
    /// Watches the journal at `path`, which need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            stamp: None,
            shown: Vec::new(),
        }
    }

    /// The journal's path.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Entries of this boot that changed since the last call; all of them at first. A
    /// journal that cannot be read gives none: that is reported when a change needs it.
    pub(crate) fn news(&mut self) -> Vec<Entry> {
        let stamp = std::fs::metadata(&self.path)
            .ok()
            .map(|m| (m.len(), m.modified().ok()));
        if stamp == self.stamp {
            return Vec::new();
        }
        self.stamp = stamp;
        let Ok(journal) = Journal::read(&Env::live(), &self.path) else {
            return Vec::new();
        };
        let is_news = |e: &&Entry| journal.is_current(e) && !self.shown.contains(e);
        let news = journal.entries().iter().filter(is_news).cloned().collect();
        self.shown = journal.entries().to_vec();
        news
    }
}
