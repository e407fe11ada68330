//! What is shown: rates, history, marks and findings, derived from samples.
//!
//! [`Model::advance`] is the only way forward. It takes the new sample by swapping
//! buffers, so that a warm tick allocates nothing, and gives the caller an old one
//! to fill next.

pub mod cgroups;
pub mod cores;
pub mod costs;
mod kept;
pub mod locks;
pub mod own;
pub mod stalls;
pub mod tracing;
pub mod verdict;

use crate::change::{Entry, Outcome};
use crate::frame::{Frame, Header};
use crate::rules::{self, Finding};
use crate::sample::Sample;

/// How many changes are kept for display.
const CHANGES_KEPT: usize = 200;

/// Everything that panes draw.
#[derive(Clone, Debug, Default)]
pub struct Model {
    header: Option<Box<Header>>,
    now: Sample,
    before: Sample,
    samples: u64,
    /// Per-CPU rates and history.
    pub cores: cores::CoresModel,
    /// Zombies over time.
    pub cgroups: cgroups::CgroupsModel,
    /// What changed in the tracing state since the first sample.
    pub tracing: tracing::TracingModel,
    /// What the probes of others cost, over time.
    pub costs: costs::CostsModel,
    /// The newest stalls.
    pub stalls: stalls::StallsModel,
    /// Contention of the kernel's locks over time.
    pub locks: locks::LocksModel,
    /// stalltop's own cost as shares of one CPU.
    pub own: own::OwnModel,
    changes: Vec<Entry>,
    /// What changes did.
    verdicts: verdict::Verdicts,
    /// Who stalls CPUs by reading statistics: several rules ask.
    reader: Option<rules::Reader>,
    findings: Vec<Finding>,
}

impl Model {
    /// An empty model: nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one frame. A sample's buffers are swapped for older ones, to be filled again; a
    /// stall is taken out of it.
    pub fn apply(&mut self, frame: &mut Frame) {
        match frame {
            Frame::Header(header) => self.set_header((**header).clone()),
            Frame::Sample(sample) => self.advance(sample),
            Frame::Stall(stall) => self.stalls.push(std::mem::take(&mut **stall)),
            Frame::Change(entry) => self.note_change((**entry).clone()),
            Frame::Unknown => {}
        }
    }

    /// Facts about the host and the recording, once known. Another host's, as where recordings
    /// were put together, begin everything anew.
    pub fn set_header(&mut self, header: Header) {
        if self
            .header()
            .is_some_and(|known| known.host.hostname != header.host.hostname)
        {
            *self = Self::default();
        }
        self.cores.set_topology(&header.host.topology);
        self.header = Some(Box::new(header));
    }

    /// Takes the next sample, and leaves an old one's buffers in `next`.
    pub fn advance(&mut self, next: &mut Sample) {
        if self.samples > 0 && next.at_ns <= self.now.at_ns {
            self.restart();
        }
        std::mem::swap(&mut self.before, &mut self.now);
        std::mem::swap(&mut self.now, next);
        let before = (self.samples > 0).then_some(&self.before);
        self.samples += 1;
        self.cores.advance(before, &self.now);
        self.cgroups.advance(&self.now);
        self.tracing
            .advance(&self.now, self.cores.newest().unwrap_or(0));
        self.costs
            .advance(&self.now, self.cores.newest().unwrap_or(0));
        self.own.advance(before, &self.now);
        self.stalls.advance(&self.now);
        self.locks.advance(&self.now);
        self.verdicts.advance(before, &self.now, &self.changes);
        self.judge();
        self.reader = rules::reader(self);
        self.findings.clear();
        // Moved out so that rules see the model without the list they fill.
        let mut findings = std::mem::take(&mut self.findings);
        rules::check_all(self, &mut findings);
        self.findings = findings;
    }

    /// Time went back: another boot, another recording, or an earlier point of this one. What was
    /// is not the past of what comes: nothing of it stays but whose samples these are, as far as
    /// is known, and the journal, whose entries name their boot.
    fn restart(&mut self) {
        let header = self.header.take();
        let changes = std::mem::take(&mut self.changes);
        *self = Self {
            changes,
            ..Self::default()
        };
        self.verdicts.journaled();
        if let Some(header) = header {
            self.set_header(*header);
        }
    }

    /// Takes a journal entry: a change that was planned, done or undone. A later state of
    /// the same entry replaces the earlier one.
    pub fn note_change(&mut self, entry: Entry) {
        self.verdicts.journaled();
        match self
            .changes
            .iter_mut()
            .find(|e| e.id == entry.id && e.boot == entry.boot)
        {
            // A look at the journal may be older than what is known: no change is begun twice.
            Some(_) if entry.outcome == Outcome::Intended => {}
            Some(known) => *known = entry,
            None => {
                if self.changes.len() == CHANGES_KEPT {
                    self.changes.remove(0);
                }
                self.changes.push(entry);
            }
        }
    }

    /// The host's facts, once known.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_deref()
    }

    /// The newest sample; empty before the first.
    pub fn now(&self) -> &Sample {
        &self.now
    }

    /// The sample before the newest one, if there is one.
    pub fn before(&self) -> Option<&Sample> {
        (self.samples > 1).then_some(&self.before)
    }

    /// How many samples were taken.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Journaled changes, oldest first.
    pub fn changes(&self) -> &[Entry] {
        &self.changes
    }

    /// What is wrong on this host, gravest first. Empty on a healthy one.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The process that stalls CPUs by reading statistics, by the newest sample.
    pub(crate) fn reader(&self) -> Option<&rules::Reader> {
        self.reader.as_ref()
    }

    /// Whether the host runs in a virtual machine: its softirqs may be late because
    /// the hypervisor paused a CPU.
    pub fn is_virtual(&self) -> bool {
        self.header()
            .and_then(|h| h.host.virtual_machine.get())
            .unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use crate::made;

    use super::*;

    #[test]
    fn an_old_look_at_the_journal_takes_no_end_back() {
        let mut model = Model::new();
        let entry = |outcome| Entry {
            outcome,
            ..made::entry(1, 0, made::kprobes_off())
        };
        for outcome in [Outcome::Intended, Outcome::Done, Outcome::Intended] {
            model.note_change(entry(outcome));
        }
        assert_eq!(model.changes(), [entry(Outcome::Done)]);
    }
}
