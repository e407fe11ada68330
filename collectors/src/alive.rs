//! Threads whose end is told in what is measured.

use std::cell::Cell;
use std::thread;

thread_local! {
    /// How many tell.
    static TOLD_OF: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic of this thread is told of by the collector that it belongs to: others go on
/// without it.
pub fn is_told_of() -> bool {
    TOLD_OF.get() > 0
}

/// Where a thread ends that should not, says so: what it published last would be taken for the
/// present for ever.
pub(crate) struct Alive<F: FnMut()>(F);

impl<F: FnMut()> Alive<F> {
    /// For this thread, until it is dropped.
    pub(crate) fn new(tell: F) -> Self {
        TOLD_OF.set(TOLD_OF.get() + 1);
        Self(tell)
    }
}

impl<F: FnMut()> Drop for Alive<F> {
    fn drop(&mut self) {
        TOLD_OF.set(TOLD_OF.get() - 1);
        if thread::panicking() {
            (self.0)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_told_of_while_somebody_tells() {
        assert!(!is_told_of());
        let alive = Alive::new(|| panic!("it does not panic"));
        assert!(is_told_of());
        // Loading is told of by itself, within the thread that goes on after it.
        drop(Alive::new(|| panic!("it does not panic")));
        assert!(is_told_of());
        drop(alive);
        assert!(!is_told_of());
    }
}
