//! System calls that rustix does not wrap: the only place in this crate with `unsafe`.

pub mod isolate;
