//! Memory for weights: many matrices side by side on huge pages.
//!
//! A decode step streams every matrix once. On pages of 4 KiB that costs a walk of the page tables, and a stop of the
//! hardware's prefetcher, every 4 KiB; huge pages read half as fast again. A matrix of a small model is smaller than one,
//! so matrices share them, in chunks that live until their last matrix is gone. Like the heap, the arena is one for the
//! whole process.

use crate::ThreadPool;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A huge page.
const PAGE: usize = 2 << 20;
/// Bytes of a chunk, of which only the huge pages that were written take memory. What is larger has its own.
const CHUNK: usize = 16 * PAGE;
/// Every allocation begins on a cache line, and on a register of 512 bits.
const LINE: usize = 64;

/// The chunk that allocations come from, while it lives, and how many of its bytes are taken.
static OPEN: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));

struct Chunk {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a chunk is only an address range; who may touch which bytes is decided by `WeightBuffer`.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(bytes: usize) -> Arc<Chunk> {
        let layout = Layout::from_size_align(bytes, PAGE).expect("weights fit the address space");
        // SAFETY: the layout is not empty.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        advise_huge_pages(start, bytes);
        Arc::new(Chunk { start, layout })
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; nobody holds a part of it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Bytes that begin on a cache line and never change once made.
pub(crate) struct WeightBuffer {
    /// `None` for no bytes.
    chunk: Option<Arc<Chunk>>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes are owned, and only read once made.
unsafe impl Send for WeightBuffer {}
// SAFETY: as above.
unsafe impl Sync for WeightBuffer {}

impl WeightBuffer {
    /// Memory for `parts` parts of `part_bytes`, each zeroed and then filled in by `fill(index, part)`, by all threads of
    /// `pool`.
    pub(crate) fn new(
        pool: &ThreadPool,
        parts: usize,
        part_bytes: usize,
        fill: &(dyn Fn(usize, &mut [u8]) + Sync),
    ) -> WeightBuffer {
        let len = parts.checked_mul(part_bytes).expect("weights fit the address space");
        if len == 0 {
            return WeightBuffer { chunk: None, start: NonNull::dangling(), len };
        }
        let (chunk, start) = take(len);
        let shared = Start(start);
        pool.run(parts, &|index| {
            // SAFETY: the parts divide the taken range, each is run once, and it is zeroed before it is lent as a slice.
            let part = unsafe {
                let part = shared.get().add(index * part_bytes);
                part.write_bytes(0, part_bytes);
                std::slice::from_raw_parts_mut(part.as_ptr(), part_bytes)
            };
            fill(index, part);
        });
        WeightBuffer { chunk: Some(chunk), start, len }
    }
}

/// An address that tasks share.
struct Start(NonNull<u8>);

// SAFETY: the tasks touch disjoint parts behind it.
unsafe impl Sync for Start {}

impl Start {
    fn get(&self) -> NonNull<u8> {
        self.0
    }
}

/// Takes `len` bytes, which nobody else has, from the open chunk or from a new one.
fn take(len: usize) -> (Arc<Chunk>, NonNull<u8>) {
    let needed = len.checked_next_multiple_of(LINE).expect("weights fit the address space");
    if needed > CHUNK / 2 {
        let chunk = Chunk::new(needed);
        let start = chunk.start;
        return (chunk, start);
    }
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let chunk = match open.0.upgrade() {
        Some(chunk) if open.1 + needed <= CHUNK => chunk,
        _ => {
            let chunk = Chunk::new(CHUNK);
            *open = (Arc::downgrade(&chunk), 0);
            chunk
        }
    };
    // SAFETY: the range is within the chunk.
    let start = unsafe { chunk.start.add(open.1) };
    open.1 += needed;
    (chunk, start)
}

impl Deref for WeightBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        debug_assert!(self.len == 0 || self.chunk.is_some());
        // SAFETY: `len` bytes, written in `new`; the chunk lives as long as this buffer.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

/// Asks for huge pages. A refusal is harmless.
fn advise_huge_pages(start: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the range was just allocated, on a page boundary; the advice does not change its contents.
    unsafe {
        libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_apart_and_as_they_were_filled() {
        let pool = ThreadPool::new(2);
        let sizes = [(3, 100), (1, 1), (0, 64), (7, CHUNK / 16), (5, 0), (40, PAGE / 2), (2, 64)];
        let make = |&(parts, bytes): &(usize, usize)| {
            WeightBuffer::new(&pool, parts, bytes, &|index, part| {
                assert!(part.iter().all(|&b| b == 0));
                part.fill(index as u8 + 1);
            })
        };
        // Twice, with memory given back in between.
        for _ in 0..2 {
            let buffers: Vec<WeightBuffer> = sizes.iter().map(make).collect();
            for (buffer, (parts, bytes)) in buffers.iter().zip(sizes) {
                assert_eq!(buffer.len(), parts * bytes);
                assert!(buffer.is_empty() || buffer.as_ptr().addr().is_multiple_of(LINE));
                assert!(buffer.iter().enumerate().all(|(i, &b)| b == (i / bytes) as u8 + 1));
            }
        }
    }
}
