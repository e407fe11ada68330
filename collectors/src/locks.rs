//! What waits for the kernel's own locks.
//!
//! Two sources, neither of which sees everything. The tracepoints of contention (5.19+) give every
//! wait exactly, as far as they show it on this machine ([`hidden`], found out by contending locks
//! of our own, [`contend`], once a person looks). The samples of what CPUs run, which are taken
//! anyway, give the share of time in lock slow paths ([`share`]), on every kernel; while a person
//! looks or a lock is suspected, there are more of them for a while (`sampled`, `closer`).
//!
//! One thread (`thread`) does what there is to do in a window (`watch`), as often as the
//! [`governor`] lets it: reads what the kernel side added up, names it (`names`, [`window`],
//! `statics`), and has owners looked up by another thread, as that may block (`owners`), measures what
//! it costs (`meter`).
//!
//! On a quiet host it wakes once a second and reads some words of shared memory.

mod closer;
pub mod contend;
pub mod governor;
pub mod hidden;
mod lasting;
mod long;
mod meter;
mod names;
mod owners;
mod sampled;
pub mod share;
mod statics;
mod thread;
pub(crate) mod watch;
pub mod window;

pub use governor::LocksMode;
pub(crate) use thread::{LockHandle, Setup};
