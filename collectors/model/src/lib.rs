//! The contract between what is measured and what is shown.
//!
//! A collector fills its part of one [`Sample`] (raw, cumulative, timestamped).
//! Samples travel as [`Frame`]s, live or from a recording, into the [`Model`],
//! which derives rates, history and findings. Nothing in this crate does I/O,
//! asks the time, or knows a runtime: the same frames give the same model.
//!
//! "Not measured" is a [`Reading::Off`] with the [`Reason`], never a zero.

mod bounded;
pub mod change;
pub mod frame;
pub mod hist;
#[cfg(test)]
mod made;
pub mod model;
pub mod name;
pub mod reason;
pub mod recording;
pub mod rules;
pub mod sample;
pub mod units;

pub use frame::{Frame, Header};
pub use hist::Hist;
pub use model::Model;
pub use name::{Name, escaped, printable};
pub use reason::{Reading, Reason};
pub use sample::Sample;
