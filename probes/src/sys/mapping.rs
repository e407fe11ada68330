//! A part of a map, mapped into this process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether the mapping is written too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// Shared memory, read and written word by word. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<AtomicU64>,
    /// Bytes mapped.
    len: usize,
    /// Bytes between the start of the mapping and what was asked for.
    skip: usize,
}

// SAFETY: the mapping belongs to this value and is only accessed through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    // SAFETY: no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset` on; neither need be a multiple of the page size.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        offset: usize,
        len: usize,
        access: Access,
    ) -> io::Result<Self> {
        let skip = offset % page_size();
        let len = len + skip;
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        // SAFETY: a new mapping of a live descriptor; the kernel rounds the length up to pages,
        // which a map's memory fills (array_map_alloc, kernel/bpf/arraymap.c).
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                (offset - skip) as libc::off_t,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, skip })
    }

    /// Bytes that were asked for.
    pub(crate) fn len(&self) -> usize {
        self.len - self.skip
    }

    /// The word at a byte offset, which is a multiple of 8 (else the word that contains it).
    ///
    /// # Panics
    /// Beyond the mapping.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        let at = self.skip + offset;
        assert!(
            at + size_of::<AtomicU64>() <= self.len,
            "beyond the mapping"
        );
        // SAFETY: in bounds by the check above, and aligned: the mapping is by pages, what was
        // asked for begins at a multiple of 8, and the division drops what is not one.
        unsafe { self.base.add(at / size_of::<AtomicU64>()).as_ref() }
    }

    /// A word without ordering.
    pub(crate) fn get(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Relaxed)
    }

    /// Copies whole words from `offset` on, without ordering.
    pub(crate) fn copy(&self, offset: usize, out: &mut [u64]) {
        for (i, word) in out.iter_mut().enumerate() {
            *word = self.get(offset + i * size_of::<u64>());
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference to it is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
