//! Sources of a host's state, and (in [`change`], nowhere else) changes to it.
//!
//! Every reader takes an [`Env`], whose root is `/` on a live host and a recorded
//! tree in tests; every parser takes bytes. A source that is missing gives a
//! [`stalltop_model::Reason`], never an early exit.

pub mod alive;
pub mod cgroups;
pub mod change;
pub mod cores;
pub mod costs;
pub mod cpu_list;
mod desk;
pub mod doctor;
mod duty;
pub mod env;
pub mod file;
pub mod host;
pub mod kernel_config;
pub mod live;
pub mod locks;
mod newest;
pub mod own;
pub mod owner;
pub mod selftest;
mod shared;
pub mod stalls;
pub mod sys;
pub mod system;
pub mod tracing;

pub use env::Env;

use stalltop_model::{Reason, Sample};

/// One source: fills its part of a sample. Warm calls allocate nothing.
pub trait Collector {
    /// A short name for `doctor` and errors.
    fn name(&self) -> &'static str;

    /// Fills this source's part of `out`. A part that cannot be read is set to
    /// [`stalltop_model::Reading::Off`] and its reason returned; other parts go on.
    ///
    /// # Errors
    /// The reason why the source as a whole gives nothing.
    fn collect(&mut self, out: &mut Sample) -> Result<(), Reason>;
}
