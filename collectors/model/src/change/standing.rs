//! How a journaled change stands: whether it is in effect, and whether undo takes it.
//!
//! The one rule of this for the journal, `stalltop undo`, the screen and the rules.

use super::{Entry, Outcome, Plan, Request, UndoClass};

/// How an entry of the journal stands. Of an earlier boot nothing is in effect, whatever this
/// says: an entry does not know the boot that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was written: it failed before that.
    Nothing,
    /// Interrupted, or under way: some of it may be in effect. Undo looks at each write.
    Open,
    /// It stopped after some writes. These are in effect, and undo puts them back.
    Part,
    /// It is in effect, and undo puts it back.
    Whole,
    /// A later entry put it back.
    Undone,
    /// It is nothing that could be undone, however it went: it put something back itself, or it
    /// is done once and for all, as a drop of caches and a signal are.
    Settled,
}

impl Standing {
    /// Whether undo takes an entry of the running boot that stands so.
    pub fn can_undo(self) -> bool {
        matches!(self, Self::Open | Self::Part | Self::Whole)
    }

    /// Whether at least some of it is known to be in effect, until somebody undoes it.
    pub fn in_effect(self) -> bool {
        matches!(self, Self::Part | Self::Whole)
    }
}

impl Plan {
    /// Whether all it does is to put back what was there before other changes: an undo, or a
    /// switch all of whose writes the journal has the reverse of.
    pub fn puts_back(&self) -> bool {
        match self.request {
            Request::Undo { .. } => true,
            // Whatever else these do has an undo.
            Request::On { .. } | Request::Off { .. } => self.undo == UndoClass::Never,
            Request::Remove { .. } | Request::DropCaches { .. } | Request::Stop { .. } => false,
        }
    }
}

impl Entry {
    /// How it stands.
    pub fn standing(&self) -> Standing {
        let settled = self.undoes.is_some() || self.plan.undo == UndoClass::Never;
        match self.outcome {
            Outcome::Failed { written: 0, .. } => Standing::Nothing,
            Outcome::Undone { .. } => Standing::Undone,
            _ if settled => Standing::Settled,
            Outcome::Intended => Standing::Open,
            Outcome::Failed { .. } => Standing::Part,
            Outcome::Done => Standing::Whole,
        }
    }

    /// Whether it is known to have done anything to the host, undone since or not.
    pub fn took_effect(&self) -> bool {
        match self.standing() {
            Standing::Nothing | Standing::Open => false,
            Standing::Part | Standing::Whole | Standing::Undone => true,
            Standing::Settled => self.outcome != Outcome::Intended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(undo: UndoClass, undoes: Option<u64>, outcome: Outcome) -> Entry {
        let mut entry = crate::made::entry(1, 0, crate::made::kprobes_off());
        (entry.plan.undo, entry.undoes, entry.outcome) = (undo, undoes, outcome);
        entry
    }

    #[test]
    fn every_outcome_of_every_kind_stands_one_way() {
        use Standing::{Nothing, Open, Part, Settled, Undone, Whole};
        let failed = |written| Outcome::Failed {
            written,
            why: "x".into(),
        };
        let all = |undo: UndoClass, undoes: Option<u64>| {
            [
                Outcome::Intended,
                Outcome::Done,
                failed(0),
                failed(1),
                Outcome::Undone { by: 2 },
            ]
            .map(|outcome| {
                let entry = entry(undo, undoes, outcome);
                (entry.standing(), entry.took_effect())
            })
        };
        let changed = [
            (Open, false),
            (Whole, true),
            (Nothing, false),
            (Part, true),
            (Undone, true),
        ];
        assert_eq!(all(UndoClass::Exact, None), changed);
        assert_eq!(all(UndoClass::Partial, None), changed);
        let settled = [
            (Settled, false),
            (Settled, true),
            (Nothing, false),
            (Settled, true),
            (Undone, true),
        ];
        assert_eq!(all(UndoClass::Never, None), settled);
        assert_eq!(all(UndoClass::Never, Some(7)), settled);
        assert_eq!(all(UndoClass::Exact, Some(7)), settled);
    }

    #[test]
    fn only_what_is_not_settled_can_be_undone() {
        let undoable = [Standing::Open, Standing::Part, Standing::Whole];
        for standing in [Standing::Nothing, Standing::Undone, Standing::Settled] {
            assert!(!standing.can_undo() && !standing.in_effect());
        }
        assert!(undoable.into_iter().all(Standing::can_undo));
        assert!(!Standing::Open.in_effect(), "nobody knows");
    }
}
