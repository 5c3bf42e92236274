//! What the memory gives: the measure of every kernel that streams weights or cache pages.

use crate::ThreadPool;
use crate::buffer::AlignedBuffer;
use crate::cpu::{self, per_level};
use std::hint::black_box;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

/// Bytes that a task reads at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes per second at which the threads of `pool` together read memory: the median of `passes` over a buffer of `bytes`.
///
/// For main memory let `bytes` be several times the last-level cache, 256 MiB or more.
pub fn bandwidth(pool: &ThreadPool, bytes: usize, passes: usize) -> f64 {
    let mut buffer = AlignedBuffer::<i32>::zeroed(bytes.max(CHUNK_BYTES) / size_of::<i32>());
    // Pages that were never written may all be the system's one page of zeros.
    buffer.fill(1);
    let level = cpu::level();
    let mut rates: Vec<f64> = (0..passes.max(1))
        .map(|_| {
            let (total, begin) = (AtomicI32::new(0), Instant::now());
            pool.run_ranges(buffer.len(), CHUNK_BYTES / size_of::<i32>(), &|range| {
                total.fetch_add(sum_words(level, &buffer[range]), Ordering::Relaxed);
            });
            black_box(total);
            buffer.bytes() as f64 / begin.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

per_level! {
    fn sum_words(words: &[i32]) -> i32 {
        // Eight registers of 512 bits, so that no addition waits for another.
        let mut sums = [0_i32; 128];
        let (lines, rest) = words.as_chunks::<128>();
        for line in lines {
            for (sum, word) in sums.iter_mut().zip(line) {
                *sum = sum.wrapping_add(*word);
            }
        }
        let mut total = 0_i32;
        for word in sums.iter().chain(rest) {
            total = total.wrapping_add(*word);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_and_timed() {
        for &level in cpu::Level::available() {
            assert_eq!(sum_words(level, &(0..1000).collect::<Vec<i32>>()), 499_500);
        }
        let rate = bandwidth(&ThreadPool::new(2), 8 << 20, 3);
        assert!(rate > 1e8 && rate.is_finite(), "{rate} bytes a second");
    }
}
