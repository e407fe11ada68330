use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::*;

const SLOTS: u64 = 64;

/// A ring of two CPUs over plain memory, into which the test writes as CPU 1.
struct Played {
    ring: SampleRing,
    program: Mapping,
    newest: u64,
}

impl Played {
    fn new() -> Self {
        let bytes = 2 * SLOTS as usize * SAMPLE;
        // SAFETY: a new descriptor of an anonymous file, sized before it is mapped.
        let map = unsafe {
            let fd = libc::memfd_create(c"samples".as_ptr(), 0);
            assert!(fd >= 0);
            assert_eq!(libc::ftruncate(fd, bytes as i64), 0);
            OwnedFd::from_raw_fd(fd)
        };
        Self {
            program: Mapping::new(map.as_fd(), 0, bytes, Access::ReadWrite).unwrap(),
            ring: Ring::new(map, SLOTS, 2),
            newest: 0,
        }
    }

    fn put(&self, seq: u64, field: usize, value: u64) {
        let entry = (SLOTS + (seq & (SLOTS - 1))) as usize;
        let word = self.program.word(entry * SAMPLE + field);
        word.store(value, Ordering::Relaxed);
    }

    /// Samples up to that number, one a millisecond.
    fn take_until(&mut self, newest: u64) {
        for seq in self.newest + 1..=newest {
            self.put(seq, offset_of!(StackSample, at_ns), seq * 1_000_000);
            self.put(seq, offset_of!(StackSample, frames), NONE);
            self.put(seq, 0, seq);
        }
        self.newest = newest;
    }

    /// Numbers read and how many were lost, for a window in milliseconds.
    fn window(&mut self, from: u64, to: u64) -> (Vec<u64>, u32) {
        let mut out = Vec::new();
        let (from, to) = (from * 1_000_000, to * 1_000_000);
        let lost = window(&mut self.ring, 1, self.newest, from, to, &mut out);
        (out.iter().map(|sample| sample.seq).collect(), lost)
    }

    /// Numbers read after that one, where reading goes on from, and how many were lost.
    fn newer(&mut self, mut after: u64) -> (Vec<u64>, u64, u64) {
        let mut out = Vec::new();
        let part = self.ring.part(1).unwrap();
        let lost = part.newer(self.newest, &mut after, |words| out.push(sample(words)));
        (out.iter().map(|sample| sample.seq).collect(), after, lost)
    }
}

#[test]
fn a_window_has_a_few_samples_before_it_and_all_after_it() {
    let mut played = Played::new();
    assert_eq!(played.window(0, 9), (vec![], 0));
    played.take_until(30);
    assert_eq!(played.window(20, 25), ((16..=30).collect(), 0));
    // Nothing was ever before the first.
    assert_eq!(played.window(2, 3), ((1..=30).collect(), 0));
    let mut none = Vec::new();
    assert_eq!(
        window(&mut played.ring, 2, 30, 0, 9, &mut none),
        0,
        "no such CPU"
    );
}

#[test]
fn what_the_ring_has_forgotten_is_lost() {
    let mut played = Played::new();
    played.take_until(200);
    let newest: Vec<u64> = (137..=200).collect();
    assert_eq!(played.window(150, 160).1, 0);
    assert_eq!(played.window(100, 160), (newest, 1));
}

#[test]
fn what_is_being_written_is_lost_only_within_the_window() {
    let mut played = Played::new();
    played.take_until(40);
    // One is being written, one was overwritten under the reader.
    played.put(22, 0, 0);
    played.put(35, 0, 99);
    let (read, lost) = played.window(20, 30);
    assert_eq!((read.len(), lost), (23, 1));
    assert!(!read.contains(&22) && !read.contains(&35));
}

#[test]
fn frames_of_the_interrupt_are_left_out() {
    let mut played = Played::new();
    played.take_until(1);
    for i in 0..5 {
        let field = offset_of!(StackSample, stack) + 8 * i;
        played.put(1, field, 100 + i as u64);
    }
    for (skip, expected) in [(2, vec![102, 103, 104]), (5, vec![]), (200, vec![])] {
        played.put(1, offset_of!(StackSample, frames), 5);
        let flags = skip << flag::SKIP_SHIFT | flag::REGS;
        played.put(1, offset_of!(StackSample, flags), flags);
        let mut out = Vec::new();
        assert_eq!(window(&mut played.ring, 1, 1, 0, 9, &mut out), 0);
        let sample = &out[0];
        assert_eq!(sample.frames as usize, expected.len());
        assert_eq!(sample.stack[..expected.len()], expected);
        assert_eq!(sample.flags, flag::REGS);
    }
    // More frames than there is room for: the words are another program's.
    played.put(1, offset_of!(StackSample, frames), 1 << 40);
    let mut out = Vec::new();
    window(&mut played.ring, 1, 1, 0, 9, &mut out);
    assert_eq!(out[0].frames, 0);
}

#[test]
fn newer_samples_are_read_once() {
    let mut played = Played::new();
    assert_eq!(played.newer(0), (vec![], 0, 0));
    played.take_until(3);
    assert_eq!(played.newer(0), (vec![1, 2, 3], 3, 0));
    assert_eq!(played.newer(3), (vec![], 3, 0));
    played.take_until(200);
    assert_eq!(played.newer(3), ((137..=200).collect(), 200, 133));
    assert!(played.ring.part(2).is_none(), "no such CPU");
}

#[test]
fn a_sample_in_the_making_is_read_when_it_is_done() {
    let mut played = Played::new();
    played.take_until(70);
    played.put(70, 0, 0);
    assert_eq!(played.newer(68), (vec![69], 69, 0));
    played.put(70, 0, 70);
    assert_eq!(played.newer(69), (vec![70], 70, 0));
    // An older one that cannot be read was overwritten meanwhile.
    played.put(60, 0, 124);
    assert_eq!(played.newer(58).2, 1);
}
