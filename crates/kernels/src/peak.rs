//! What the processor's 8-bit products give at best: the measure of prefill.

use crate::ThreadPool;
use crate::cpu::{self, Level};
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread multiplies.
const TIME: Duration = Duration::from_millis(60);
/// Rounds between looks at the clock.
const ROUNDS: usize = 4096;

/// 8-bit multiply-adds per second that the threads of `pool` reach together, from registers alone, by the instructions that
/// [`Matrix::product`](crate::Matrix::product) uses. `None` at the scalar level, which has none.
pub fn int8_peak(pool: &ThreadPool) -> Option<f64> {
    let level = cpu::level();
    let work: fn(usize) -> usize = match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only ever in use where the machine has its features.
        Level::Avx512 => |rounds| unsafe { x86::avx512(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::AvxVnni => |rounds| unsafe { x86::avx_vnni(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => |rounds| unsafe { x86::avx2(rounds) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon => |rounds| unsafe { neon::dotprod(rounds) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::I8mm => |rounds| unsafe { neon::i8mm(rounds) },
        _ => return None,
    };
    let sum = Mutex::new(0.0);
    pool.run(pool.threads(), &|_| {
        let (begin, mut done) = (Instant::now(), 0);
        while begin.elapsed() < TIME {
            done += work(ROUNDS);
        }
        *sum.lock().unwrap_or_else(PoisonError::into_inner) += done as f64 / begin.elapsed().as_secs_f64();
    });
    Some(sum.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Sums that do not wait for each other.
const SUMS: usize = 8;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{SUMS, black_box};
    use std::arch::asm;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn avx512(rounds: usize) -> usize {
        let (a, b) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(5)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm512_dpbusd_epi32(*sum, a, b));
        }
        black_box(sums);
        rounds * SUMS * 64
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn avx_vnni(rounds: usize) -> usize {
        let (a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(5)));
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm256_dpbusd_avx_epi32(*sum, a, b));
        }
        black_box(sums);
        rounds * SUMS * 32
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(rounds: usize) -> usize {
        let (a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(5)));
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| {
                // As assembly, or it would be one product for all sums.
                let product;
                // SAFETY: the instruction touches its registers alone.
                unsafe {
                    asm!("vpmaddubsw {0}, {1}, {2}", out(ymm_reg) product, in(ymm_reg) a, in(ymm_reg) b,
                        options(nomem, nostack, preserves_flags));
                }
                *sum = _mm256_add_epi16(*sum, product);
            });
        }
        black_box(sums);
        rounds * SUMS * 32
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{SUMS, black_box};
    use crate::aarch64::{dot_word, multiply_matrices};
    use std::arch::aarch64::*;

    #[target_feature(enable = "neon,dotprod")]
    pub(super) fn dotprod(rounds: usize) -> usize {
        let (a, b) = (vdupq_n_s8(black_box(3)), vdupq_n_s8(black_box(5)));
        let mut sums = [vdupq_n_s32(0); SUMS];
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = dot_word::<0>(*sum, a, b));
        }
        black_box(sums);
        rounds * SUMS * 16
    }

    #[target_feature(enable = "neon,i8mm")]
    pub(super) fn i8mm(rounds: usize) -> usize {
        let (a, b) = (vdupq_n_s8(black_box(3)), vdupq_n_s8(black_box(5)));
        let mut sums = [vdupq_n_s32(0); SUMS];
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = multiply_matrices(*sum, a, b));
        }
        black_box(sums);
        rounds * SUMS * 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_timed() {
        let peak = int8_peak(&ThreadPool::new(1));
        assert_eq!(peak.is_none(), cpu::level() == Level::Scalar);
        assert!(peak.is_none_or(|rate| rate > 1e8 && rate.is_finite()), "{peak:?}");
    }
}
