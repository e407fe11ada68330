//! Ground truth: known trouble, made on this host, and what stalltop made of it.
//!
//! - [`plan`]: what is injected. Pure.
//! - [`score`]: what was injected against what was detected. Pure.
//! - [`trace`]: the kernel's own trace as a second opinion. Pure.
//! - [`keeper`]: the process that reads that trace and cleans up.
//! - [`run`]: all of it in order.
//! - [`zombies`]: zombie cgroups and one reader.
//! - [`inject`]: the processes that make it, each with a name of its own.

mod child;
pub mod inject;
pub mod keeper;
pub mod plan;
pub mod run;
pub mod score;
mod spin;
pub mod trace;
pub mod zombies;

/// What cgroups and tracefs instances of a self-test are named, before its process id.
pub const NAME: &str = "stalltop-selftest-";
