//! The only code that writes to the kernel.
//!
//! A person asks ([`Request`]), [`plan()`] reads the host and answers with literal writes
//! ([`Plan`]), and after a confirmation [`apply()`] carries them out: each is journaled
//! before it is made, looked at right before, read back right after. [`Writer`] is what
//! apply needs and only [`crate::live::Live`] gives.
//!
//! | change | files | undo |
//! |---|---|---|
//! | events on, off | `events/*/*/enable`, one by one | exact |
//! | remove a dynamic event | its `enable`, `trigger`, `filter`, then `dynamic_events` | all but its hit counts |
//! | all kprobes on, off | debugfs `kprobes/enabled` | exact |
//! | recording on, off | `tracing_on` | exact |
//! | tracer | `current_tracer` | all but what its buffer held |
//! | mount tracefs, debugfs | mount(2) | exact |
//! | drop caches | `/proc/sys/vm/drop_caches` | never |
//! | stop a holder | none: a signal to a process | never |
//!
//! `set_event` is never written: its text lists soft-armed events as if they were on, so
//! nothing can be restored from it.
//!
//! Two instances on one host: the journal is locked while a change is made, and each
//! value is looked at again right before it is written. Between that look and the write
//! another program (not stalltop) could still slip in; the kernel offers no
//! compare-and-write for these files. It would be seen at the next undo.

mod apply;
pub mod drop_caches;
mod dynamic;
mod glob;
mod host;
pub mod journal;
mod plan;
mod process;
pub mod selector;
mod stop;
mod target;
mod trigger;
mod undo;
mod writer;

pub use apply::{Progress, apply};
pub use journal::Journal;
pub use plan::{plan, plan_now};
pub use stalltop_model::change::{ChangeError, Entry, Failure, Outcome, Plan, Request, UndoClass};
pub use writer::Writer;
