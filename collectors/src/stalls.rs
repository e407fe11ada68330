//! Stalls: from the kernel's events to whole rows.
//!
//! Two threads, so that nothing that blocks holds up what must not wait (`thread`): one empties
//! the ring buffer, holds each event for a moment until what belongs to it has come (`hold`), reads
//! the samples around it (`watch`) and understands them; the other looks culprits up in `/proc`
//! (`process`). Understanding is [`attribute`], which asks [`kallsyms`] for names and [`stack`]
//! for what they mean, and [`merge`], which makes one row of the stalls of several CPUs with one
//! cause: pure functions, but for the reading of `/proc/kallsyms`.
//!
//! What counts as a stall is in `threshold`, which kinds can be seen here in `kinds`, where the
//! 1 kHz sampler runs in `sampling`.

pub mod attribute;
mod hold;
pub mod kallsyms;
pub mod merge;
mod process;
mod sampling;
pub mod stack;
mod threshold;
mod watch;

pub use sampling::SampleMode;
pub use threshold::{Ask, Asked, LEAST, MOST, Thresholds};
