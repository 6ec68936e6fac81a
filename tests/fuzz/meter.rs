//! Counts the bytes that the program has from the allocator, and the most that it had.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn add(bytes: usize) {
    // No layout is larger than `isize::MAX`.
    let bytes = bytes.cast_signed();
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

fn remove(bytes: usize) {
    LIVE.fetch_sub(bytes.cast_signed(), Ordering::Relaxed);
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        remove(layout.size());
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        remove(layout.size());
        add(size);
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Bytes that the program has now.
pub(crate) fn live() -> isize {
    LIVE.load(Ordering::Relaxed)
}

/// Begins to look for the most; returns what it has now.
pub(crate) fn begin() -> isize {
    let live = live();
    PEAK.store(live, Ordering::Relaxed);
    live
}

/// The most that it had since.
pub(crate) fn peak() -> isize {
    PEAK.load(Ordering::Relaxed)
}
