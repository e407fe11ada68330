//! Calls of the system that rustix does not wrap: the only place in this crate with `unsafe`.

pub mod heap;
pub mod isolate;
