//! Reading a `BPF_MAP_TYPE_RINGBUF` (kernel/bpf/ringbuf.c, 5.8).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::mapping::{Access, Mapping, page_size};

/// The record is still being written.
const BUSY: u32 = 1 << 31;
/// The record was given up.
const DISCARDED: u32 = 1 << 30;
/// Bytes of a record's header.
const HEADER: usize = 8;

/// The consuming end of a ring buffer. There may be only one.
#[derive(Debug)]
pub(crate) struct RingBuf {
    map: OwnedFd,
    /// The page of the consumer's position.
    consumer: Mapping,
    /// The page of the producer's position, then the data, twice in a row.
    producer: Mapping,
    page: usize,
    size: usize,
}

impl RingBuf {
    /// Maps a ring buffer of `size` bytes of data.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn new(map: OwnedFd, size: usize) -> io::Result<Self> {
        let page = page_size();
        let consumer = Mapping::new(map.as_fd(), 0, page, Access::ReadWrite)?;
        let producer = Mapping::new(map.as_fd(), page, page + 2 * size, Access::Read)?;
        Ok(Self {
            map,
            consumer,
            producer,
            page,
            size,
        })
    }

    /// Readable (poll(2)) when there is a record.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// Takes the oldest record, as many words of it as `out` has. False when there is none.
    pub(crate) fn next(&mut self, out: &mut [u64]) -> bool {
        loop {
            let at = self.consumer.get(0);
            if at >= self.producer.word(0).load(Ordering::Acquire) {
                return false;
            }
            let offset = self.page + (at as usize & (self.size - 1));
            // The length and its two flags are the first half of the header.
            let header = self.producer.word(offset).load(Ordering::Acquire);
            let len = u32::from_ne_bytes(header.to_ne_bytes()[..4].try_into().unwrap_or_default());
            if len & BUSY != 0 {
                return false;
            }
            let bytes = (len & !DISCARDED) as usize;
            let whole = len & DISCARDED == 0 && bytes >= size_of_val(out);
            if whole {
                self.producer.copy(offset + HEADER, out);
            }
            let next = at + (HEADER + bytes).next_multiple_of(8) as u64;
            self.consumer.word(0).store(next, Ordering::Release);
            if whole {
                return true;
            }
        }
    }
}
