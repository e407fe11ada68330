//! Shared helpers of the tests.

pub mod bpf;
pub mod change;
pub mod cores;
pub mod flood;
pub mod held_lock;
pub mod instance;
pub mod need;
pub mod program;
pub mod stalls;
pub mod storm;
pub mod story;
pub mod tool;
pub mod tty;
pub mod zombies;
