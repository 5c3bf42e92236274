//! What the memory gives: the measure of every kernel that streams weights or cache pages.

use crate::ThreadPool;
use crate::arena::WeightBuffer;
use crate::cpu::{self, per_level};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bytes that a task reads at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Memory that is read to see how fast it is.
pub struct MemoryProbe {
    buffer: WeightBuffer,
}

impl MemoryProbe {
    /// Takes `bytes`, for main memory several times the last-level cache: 256 MiB or more.
    pub fn new(pool: &ThreadPool, bytes: usize) -> MemoryProbe {
        let chunks = bytes.div_ceil(CHUNK_BYTES).max(1);
        // On huge pages, as weights are. Pages that were never written might all be the system's one page of zeros.
        MemoryProbe { buffer: WeightBuffer::new(pool, chunks, CHUNK_BYTES, &|_, chunk| chunk.fill(1)) }
    }

    /// Bytes per second at which the threads of `pool` together read all of it once.
    pub fn rate(&self, pool: &ThreadPool) -> f64 {
        let level = cpu::level();
        let (total, begin) = (AtomicU64::new(0), Instant::now());
        pool.run_ranges(self.buffer.len(), CHUNK_BYTES, &|range| {
            total.fetch_add(sum_words(level, &self.buffer[range]), Ordering::Relaxed);
        });
        black_box(total);
        self.buffer.len() as f64 / begin.elapsed().as_secs_f64()
    }
}

/// The median of `passes` of a [`MemoryProbe`] of `bytes`.
pub fn bandwidth(pool: &ThreadPool, bytes: usize, passes: usize) -> f64 {
    let probe = MemoryProbe::new(pool, bytes);
    let mut rates: Vec<f64> = (0..passes.max(1)).map(|_| probe.rate(pool)).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

per_level! {
    fn sum_words(bytes: &[u8]) -> u64 {
        // Eight registers of 512 bits, so that no addition waits for another.
        let mut sums = [0_u64; 64];
        for line in bytes.as_chunks::<8>().0.as_chunks::<64>().0 {
            for (sum, word) in sums.iter_mut().zip(line) {
                *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
            }
        }
        let mut total = 0_u64;
        for sum in sums {
            total = total.wrapping_add(sum);
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
            assert_eq!(sum_words(level, &[1; 4096]), 0x0101_0101_0101_0101_u64.wrapping_mul(512));
        }
        let rate = bandwidth(&ThreadPool::new(2), 8 << 20, 3);
        assert!(rate > 1e8 && rate.is_finite(), "{rate} bytes a second");
    }
}
