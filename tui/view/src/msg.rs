//! What happens to the screen, and what the screen asks for.

use stalltop_model::Name;
use stalltop_model::change::{ChangeError, Entry, Failure, Plan, Request};

use crate::job::JobId;
use crate::key::Key;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Msg {
    /// The model took a frame.
    Advanced,
    /// A key was pressed.
    Key(Key),
    /// The mouse was used.
    Mouse(Mouse),
    /// The terminal has this many columns and rows now.
    Resize(u16, u16),
    /// Where the frames come from, or how far a replay is.
    Feed(Feed),
    /// An [`Effect::Plan`] was worked out, or could not be.
    Planned {
        /// Of which change.
        job: JobId,
        /// The plan, or why there is none.
        result: Result<Box<Plan>, ChangeError>,
    },
    /// An [`Effect::Apply`] goes on.
    Applying {
        /// Which.
        job: JobId,
        /// How far it is.
        progress: Progress,
    },
    /// An [`Effect::Apply`] ended.
    Applied {
        /// Which.
        job: JobId,
        /// What the journal has of it, or why it stopped, and how much was written by then.
        result: Result<Box<Entry>, Failure>,
    },
    /// Long work that is not a change goes on: opening a recording, the first sweep.
    Work(Option<Progress>),
    /// A file of an [`Effect::Snapshot`] was written here, or why not.
    SnapshotWritten(Result<String, String>),
    /// Something worth one line.
    Note(String),
}

/// How far long work is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, for a person.
    pub what: String,
    /// Steps done.
    pub done: u64,
    /// Steps in all; `None` while unknown.
    pub total: Option<u64>,
}

/// Where the frames come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Feed {
    /// This host, with the time between ticks in ns.
    Live {
        /// Time between ticks, ns.
        tick_ns: u64,
    },
    /// A recording.
    Replay {
        /// Position in the recording, ns.
        at_ns: u64,
        /// Its length, ns.
        length_ns: u64,
        /// Times real speed.
        speed: f32,
        /// Whether it stands still.
        paused: bool,
        /// Whether its end is reached.
        ended: bool,
    },
}

/// A use of the mouse, at a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mouse {
    /// What.
    pub kind: MouseKind,
    /// Column, from 0.
    pub column: u16,
    /// Row, from 0.
    pub row: u16,
}

/// Uses of the mouse that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MouseKind {
    /// The left button went down.
    Press,
    /// The mouse moved with the left button down.
    Drag,
    /// The wheel turned away.
    WheelUp,
    /// The wheel turned near.
    WheelDown,
}

/// Something that only the program can do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Leave.
    Quit,
    /// Draw every cell anew: something else wrote to the terminal.
    Redraw,
    /// Work out the plan of a change, and answer with [`Msg::Planned`]. Reads only.
    Plan {
        /// For the answer.
        job: JobId,
        /// What is asked for.
        request: Request,
    },
    /// Carry a confirmed plan out: [`Msg::Applying`] as it goes, then [`Msg::Applied`].
    Apply {
        /// For the answers.
        job: JobId,
        /// What is to be written.
        plan: Box<Plan>,
    },
    /// Hold a replay, or let it go on. Live frames keep coming: the view holds its own copy.
    SetPaused(bool),
    /// Move a replay.
    Seek(Seek),
    /// Times real speed of a replay.
    SetSpeed(f32),
    /// Write what is shown to files, and answer with [`Msg::SnapshotWritten`] for the text, and for
    /// the stacks.
    Snapshot {
        /// The screen as text.
        text: String,
        /// Stacks, to be written as folded text and as a picture.
        flame: Option<Box<FlameGraph>>,
    },
    /// What is on the screen now: sources that cost something run only while wanted.
    Wants(Wants),
    /// Read this cgroup's `memory.stat` as soon as may be, on the sweep's thread.
    ReadCgroupNow(Name),
}

/// Call stacks with what they weigh, as flame graph tools take them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlameGraph {
    /// What it shows, of when.
    pub title: String,
    /// What the weights count: `ns waited`, `samples`.
    pub unit: &'static str,
    /// `outermost;...;innermost weight`, one line per stack; names are fit for a terminal.
    pub folded: Vec<String>,
}

/// Where a replay is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// So many samples forward, or back.
    Ticks(i64),
}

/// Which sources are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The tracing state in full.
    pub tracing: bool,
    /// Cgroups.
    pub cgroups: bool,
    /// What probes cost.
    pub costs: bool,
    /// Contention of the kernel's locks.
    pub locks: bool,
    /// The CPU whose details are open, or the details of a stall on it: it may be sampled
    /// more closely while they are.
    pub cpu: Option<u32>,
}

/// What is to be done after an update.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// In this order.
    pub list: Vec<Effect>,
    /// Whether the screen differs now.
    pub redraw: bool,
}

impl Effects {
    /// Nothing, and the screen stays.
    pub fn none() -> Self {
        Self::default()
    }

    /// Only another screen.
    pub fn redraw() -> Self {
        Self {
            list: Vec::new(),
            redraw: true,
        }
    }

    /// One effect, and another screen.
    pub fn one(effect: Effect) -> Self {
        Self {
            list: vec![effect],
            redraw: true,
        }
    }

    /// Both.
    pub fn and(mut self, other: Self) -> Self {
        self.list.extend(other.list);
        self.redraw |= other.redraw;
        self
    }
}
