//! Memory for activations, aligned to cache lines, and its division between threads.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

/// A cache line, and one 512-bit vector.
const LINE: usize = 64;

/// Plain numbers: any bytes are a value, zero bytes are zero.
pub(crate) trait Plain: Copy + Send + Sync + 'static {}
impl Plain for i8 {}
impl Plain for i32 {}
impl Plain for [i32; 2] {}
impl Plain for f32 {}

/// A fixed number of zeroed values that begin on a cache line.
pub(crate) struct AlignedBuffer<T: Plain> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: the buffer owns its values, which are plain numbers.
unsafe impl<T: Plain> Send for AlignedBuffer<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Plain> Sync for AlignedBuffer<T> {}

impl<T: Plain> AlignedBuffer<T> {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let Some(layout) = Self::layout(len) else {
            return AlignedBuffer { start: NonNull::dangling(), len: 0 };
        };
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(memory.cast::<T>()) else { handle_alloc_error(layout) };
        // SAFETY: the memory was just allocated with at least `len` values.
        unsafe { start.write_bytes(0, len) };
        AlignedBuffer { start, len }
    }

    /// The layout of `len` values, `None` for no bytes.
    fn layout(len: usize) -> Option<Layout> {
        let bytes = len.checked_mul(size_of::<T>()).expect("a buffer fits the address space");
        (bytes > 0).then(|| Layout::from_size_align(bytes, LINE).expect("a buffer fits the address space"))
    }

    /// Makes room for at least `len` values; what was there is lost.
    pub(crate) fn reserve(&mut self, len: usize) {
        if self.len < len {
            // The old buffer goes first, so that the two never coexist.
            *self = Self::zeroed(0);
            *self = Self::zeroed(len);
        }
    }

    /// Bytes owned.
    pub(crate) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T: Plain> Drop for AlignedBuffer<T> {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated in `zeroed` with this very layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}

impl<T: Plain> Deref for AlignedBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised values, owned.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for AlignedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `len` initialised values, owned and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// A mutable slice that parallel tasks write disjoint parts of.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the tasks that share it promise, by calling `part`, to touch disjoint parts only.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Shares `whole` for as long as it stays borrowed.
    pub(crate) fn new(whole: &'a mut [T]) -> Self {
        Disjoint { start: whole.as_mut_ptr(), len: whole.len(), borrow: PhantomData }
    }

    /// The values in `range`.
    ///
    /// # Safety
    /// No two parts that overlap may live at the same time.
    ///
    /// # Panics
    /// When the range leaves the slice.
    #[allow(clippy::mut_from_ref, reason = "the caller promises that parts do not overlap")]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {} values", self.len);
        // SAFETY: within the borrowed slice, and nobody else holds this part.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_and_aligned() {
        for len in [0, 1, 63, 4096, 2_000_005] {
            let mut buffer = AlignedBuffer::<f32>::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&x| x == 0.0));
            assert!(len == 0 || buffer.as_ptr().addr().is_multiple_of(LINE));
            buffer.reserve(len + 1);
            buffer[len] = 1.0;
            assert_eq!(buffer.bytes(), 4 * (len + 1));
        }
    }
}
