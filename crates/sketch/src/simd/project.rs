//! Linear projections and their signs.

use super::Level;

/// The columns a dense projection computes at once: what a word of code holds.
pub(crate) const BLOCK: usize = 64;

/// `out[j] = Σ_i x[i] · basis[i][j]` for the first `columns` columns of a basis with rows of `stride` floats.
///
/// # Panics
/// If `columns` is not 16, 32, 48 or 64, or the basis is too short.
pub(crate) fn dense(
    level: Level,
    basis: &[f32],
    stride: usize,
    x: &[f32],
    columns: usize,
    out: &mut [f32; BLOCK],
) {
    match level {
        // SAFETY: a level is only ever one that the processor was found to have.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::dense_avx512(basis, stride, x, columns, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::dense_avx2(basis, stride, x, columns, out) },
        _ => dense_of::<false>(basis, stride, x, columns, out),
    }
}

/// The reference; compiled for each level with its vectors, and fused multiplication where the processor has it.
#[inline(always)]
fn dense_of<const FUSED: bool>(
    basis: &[f32],
    stride: usize,
    x: &[f32],
    columns: usize,
    out: &mut [f32; BLOCK],
) {
    match columns {
        16 => block::<FUSED, 16>(basis, stride, x, out),
        32 => block::<FUSED, 32>(basis, stride, x, out),
        48 => block::<FUSED, 48>(basis, stride, x, out),
        64 => block::<FUSED, 64>(basis, stride, x, out),
        _ => panic!("{columns} columns are not 16, 32, 48 or 64"),
    }
}

#[inline(always)]
fn block<const FUSED: bool, const N: usize>(basis: &[f32], stride: usize, x: &[f32], out: &mut [f32; BLOCK]) {
    let mut sums = [0.0; N];
    for (&x, row) in x.iter().zip(basis.chunks(stride)) {
        let row = row.first_chunk::<N>().expect("the basis has a row for every dimension");
        for (sum, &b) in sums.iter_mut().zip(row) {
            *sum = if FUSED { x.mul_add(b, *sum) } else { *sum + x * b };
        }
    }
    out[..N].copy_from_slice(&sums);
}

/// The unnormalised Walsh-Hadamard transform in place; `x.len()` is a power of two.
pub(crate) fn hadamard(level: Level, x: &mut [f32]) {
    debug_assert!(x.len().is_power_of_two());
    match level {
        // SAFETY: a level is only ever one that the processor was found to have.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::hadamard_avx512(x) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::hadamard_avx2(x) },
        _ => butterflies(x, 1),
    }
}

/// The stages of the transform whose partners are `half`, 2·`half`, … apart.
#[inline(always)]
fn butterflies(x: &mut [f32], mut half: usize) {
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// Bit j is set where `x[j] >= 0`, for j below `bits`.
pub(crate) fn signs(level: Level, x: &[f32; BLOCK], bits: usize) -> u64 {
    let word = match level {
        // SAFETY: a level is only ever one that the processor was found to have.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::signs_avx512(x) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::signs_avx2(x) },
        _ => x.iter().rev().fold(0, |word, &x| word << 1 | u64::from(x >= 0.0)),
    };
    if bits < BLOCK { word & ((1 << bits) - 1) } else { word }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::BLOCK;

    #[target_feature(enable = "avx512f,fma")]
    pub(super) fn dense_avx512(
        basis: &[f32],
        stride: usize,
        x: &[f32],
        columns: usize,
        out: &mut [f32; BLOCK],
    ) {
        super::dense_of::<true>(basis, stride, x, columns, out);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dense_avx2(
        basis: &[f32],
        stride: usize,
        x: &[f32],
        columns: usize,
        out: &mut [f32; BLOCK],
    ) {
        super::dense_of::<true>(basis, stride, x, columns, out);
    }

    /// Partners within a register first: the register with its upper partners negated, plus itself exchanged.
    #[target_feature(enable = "avx512f,fma")]
    pub(super) fn hadamard_avx512(x: &mut [f32]) {
        let (registers, rest) = x.as_chunks_mut::<16>();
        if !rest.is_empty() {
            return super::butterflies(x, 1);
        }
        let sign = |mask: u16| _mm512_mask_blend_ps(mask, _mm512_set1_ps(1.0), _mm512_set1_ps(-1.0));
        let (s1, s2, s4, s8) = (sign(0xaaaa), sign(0xcccc), sign(0xf0f0), sign(0xff00));
        for register in registers {
            // SAFETY: the array is one register wide.
            unsafe {
                let mut v = _mm512_loadu_ps(register.as_ptr());
                v = _mm512_fmadd_ps(v, s1, _mm512_permute_ps::<0b10_11_00_01>(v));
                v = _mm512_fmadd_ps(v, s2, _mm512_permute_ps::<0b01_00_11_10>(v));
                v = _mm512_fmadd_ps(v, s4, _mm512_shuffle_f32x4::<0b10_11_00_01>(v, v));
                v = _mm512_fmadd_ps(v, s8, _mm512_shuffle_f32x4::<0b01_00_11_10>(v, v));
                _mm512_storeu_ps(register.as_mut_ptr(), v);
            }
        }
        super::butterflies(x, 16);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn hadamard_avx2(x: &mut [f32]) {
        let (registers, rest) = x.as_chunks_mut::<8>();
        if !rest.is_empty() {
            return super::butterflies(x, 1);
        }
        let s1 = _mm256_setr_ps(1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0);
        let s2 = _mm256_setr_ps(1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0);
        let s4 = _mm256_setr_ps(1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0);
        for register in registers {
            // SAFETY: the array is one register wide.
            unsafe {
                let mut v = _mm256_loadu_ps(register.as_ptr());
                v = _mm256_fmadd_ps(v, s1, _mm256_permute_ps::<0b10_11_00_01>(v));
                v = _mm256_fmadd_ps(v, s2, _mm256_permute_ps::<0b01_00_11_10>(v));
                v = _mm256_fmadd_ps(v, s4, _mm256_permute2f128_ps::<1>(v, v));
                _mm256_storeu_ps(register.as_mut_ptr(), v);
            }
        }
        super::butterflies(x, 8);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn signs_avx512(x: &[f32; BLOCK]) -> u64 {
        let mut word = 0;
        for (i, x) in x.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: the array is one register wide.
            let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
            let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, _mm512_setzero_ps());
            word |= u64::from(mask) << (16 * i);
        }
        word
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn signs_avx2(x: &[f32; BLOCK]) -> u64 {
        let mut word = 0;
        for (i, x) in x.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: the array is one register wide.
            let x = unsafe { _mm256_loadu_ps(x.as_ptr()) };
            let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(x, _mm256_setzero_ps()));
            word |= u64::from(mask as u8) << (8 * i);
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn every_level_projects_alike() {
        let mut random = Random::new(4, 4);
        for (dim, stride) in [(1, 16), (3, 32), (64, 64), (65, 80), (128, 144), (200, 208)] {
            let basis: Vec<f32> = (0..dim * stride).map(|_| random.normal() as f32).collect();
            let x: Vec<f32> = (0..dim).map(|_| random.normal() as f32).collect();
            for first in (0..stride).step_by(BLOCK) {
                let columns = BLOCK.min(stride - first);
                for level in Level::available() {
                    let mut out = [f32::NAN; BLOCK];
                    dense(level, &basis[first..], stride, &x, columns, &mut out);
                    for (j, &out) in out[..columns].iter().enumerate() {
                        let at = |i: usize| f64::from(basis[i * stride + first + j]) * f64::from(x[i]);
                        let expected: f64 = (0..dim).map(at).sum();
                        assert!((f64::from(out) - expected).abs() < 1e-4, "{level:?}, {dim} x {stride}, {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_level_transforms_alike() {
        let mut random = Random::new(5, 5);
        for log in 0..10 {
            let n = 1 << log;
            // Small integers: sums are exact, and so must be the results.
            let x: Vec<f32> = (0..n).map(|_| (random.next_u64() % 17) as f32 - 8.0).collect();
            let sign = |i: usize, j: usize| 1.0 - 2.0 * ((i & j).count_ones() % 2) as f32;
            let expected: Vec<f32> = (0..n).map(|i| (0..n).map(|j| sign(i, j) * x[j]).sum()).collect();
            for level in Level::available() {
                let mut out = x.clone();
                hadamard(level, &mut out);
                assert_eq!(out, expected, "{level:?}, {n}");
            }
        }
    }

    #[test]
    fn every_level_takes_the_same_signs() {
        let mut random = Random::new(6, 6);
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, -1e-45];
        for bits in 0..=64 {
            let x: [f32; BLOCK] =
                std::array::from_fn(|j| match special.get(random.next_u64() as usize % 20) {
                    Some(&x) if j % 2 == 0 => x,
                    _ => random.normal() as f32,
                });
            let expected = (0..bits).fold(0, |word, j| word | u64::from(x[j] >= 0.0) << j);
            for level in Level::available() {
                assert_eq!(signs(level, &x, bits), expected, "{level:?}, {bits} bits");
            }
        }
    }
}
