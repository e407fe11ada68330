//! From raw samples to a named culprit.
//!
//! `watch` hands each event with the samples around it to [`attribute`], which asks
//! [`kallsyms`] for names and [`stack`] for what they mean; [`merge`] holds stalls back for a
//! moment so that those of several CPUs with one cause become one row. Everything but the
//! reading of `/proc/kallsyms` is a pure function.

pub mod attribute;
pub mod kallsyms;
pub mod merge;
pub mod stack;
