use super::packed::fetch_lines;
use super::simd::Cache;

/// Consecutive strips to be read, and what will be read after them.
///
/// Pages lie apart in memory, where no hardware foresees the next one: kernels fetch it line by line while they work on
/// this one.
#[derive(Debug, Clone, Copy)]
pub struct Stream<'a> {
    /// To be read now.
    pub strips: &'a [u8],
    /// To be read next, as far as that is known.
    pub ahead: &'a [u8],
}

impl<'a> From<&'a [u8]> for Stream<'a> {
    fn from(strips: &'a [u8]) -> Self {
        Stream { strips, ahead: &[] }
    }
}

impl<'a> Stream<'a> {
    /// Runs of at most `bytes` bytes.
    pub(super) fn runs(self, bytes: usize) -> impl Iterator<Item = Stream<'a>> {
        let ahead = self.ahead.chunks(bytes).chain(std::iter::repeat(&[][..]));
        self.strips.chunks(bytes).zip(ahead).map(|(strips, ahead)| Stream { strips, ahead })
    }

    /// Strips of `bytes` bytes, each with as much of what will be read next, or with itself where there is no more.
    #[inline(always)]
    pub(super) fn each(self, bytes: usize) -> impl Iterator<Item = (&'a [u8], *const u8)> {
        let ahead = self.ahead.chunks_exact(bytes).map(Some).chain(std::iter::repeat(None));
        self.strips
            .chunks_exact(bytes)
            .zip(ahead)
            .map(|(strip, ahead)| (strip, ahead.unwrap_or(strip).as_ptr()))
    }
}

/// Asks for the cache lines of a value that will be needed soon.
pub fn prefetch<T: ?Sized>(value: &T) {
    fetch_lines(std::ptr::from_ref(value).cast(), size_of_val(value), Cache::First);
}

/// A growable buffer of bytes that starts on a cache line, for the strips of a page.
#[derive(Clone, Default)]
pub struct Strips {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Strips {
    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let mut strips = Strips::default();
        strips.resize(len);
        strips
    }

    /// Grows with zeros or shrinks to `len` bytes; memory that is no longer needed is given back.
    pub fn resize(&mut self, len: usize) {
        let lines = len.div_ceil(64);
        if lines < self.lines.len() {
            self.lines.truncate(lines);
            self.lines.shrink_to_fit();
        } else {
            self.lines.reserve_exact(lines - self.lines.len());
            self.lines.resize(lines, Line([0; 64]));
        }
        self.len = len;
    }

    /// Bytes allocated.
    pub fn allocated(&self) -> usize {
        self.lines.capacity() * 64
    }
}

impl std::ops::Deref for Strips {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: a line is 64 initialised bytes without padding, and `len` is within the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Strips {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl std::fmt::Debug for Strips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Strips({} bytes)", self.len)
    }
}
