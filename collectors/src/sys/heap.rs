//! What the C library's allocator keeps of memory that was freed.
#![expect(
    unsafe_code,
    reason = "a system library's call that rustix does not wrap"
)]

/// Larger blocks are mapped one by one, and given back one by one. glibc's own threshold starts
/// here as well, but grows with each such block that is freed, up to 32 MB, and how much free memory
/// an arena keeps grows with it: after the first reading of the kernel's types (5.5 MB) every
/// thread that reads them kept as much for good.
const MAPPED_FROM: i32 = 128 << 10;

/// Arenas at most, for all threads: glibc's own limit is eight a CPU. Threads that work in the
/// background allocate seldom, and a warm tick not at all.
const ARENAS: i32 = 2;

/// Keeps the heap of this process small. To be called before there are other threads.
///
/// Measured on 6.18 with the screen on 2 CPUs: 6.4 MB of anonymous memory in place of 20 to 23,
/// 6.5 by the threshold alone. With another C library than glibc it does nothing.
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM),
        (libc::M_TRIM_THRESHOLD, MAPPED_FROM),
        (libc::M_ARENA_MAX, ARENAS),
    ] {
        // SAFETY: integers only; no other thread allocates meanwhile. Refused, it is as it was.
        unsafe { libc::mallopt(what, value) };
    }
}
