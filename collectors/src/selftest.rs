//! Ground truth: known trouble, made on this host, and what stalltop made of it.
//!
//! - [`plan`]: what is injected. Pure.
//! - [`score`]: what was injected against what was detected. Pure.
//! - [`inject`]: the processes that make it, each with a name of its own.

pub mod inject;
pub mod plan;
pub mod score;
mod spin;
