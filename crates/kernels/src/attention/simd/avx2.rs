use super::{Multipliers, Simd};
use std::arch::x86_64::*;

/// Two 256-bit registers a value.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

// SAFETY throughout: the caller has avx2, fma and f16c, and valid pointers (see the trait).
#[allow(clippy::undocumented_unsafe_blocks)]
impl Avx2 {
    /// Exact 4-byte dot product in 16-bit steps: `maddubs` alone would saturate on 8-bit codes.
    #[inline(always)]
    unsafe fn dot4_half(acc: __m256i, bytes: __m256i, even: __m256i, odd: __m256i) -> __m256i {
        unsafe {
            let low = _mm256_and_si256(bytes, _mm256_set1_epi16(0xff));
            let high = _mm256_srli_epi16::<8>(bytes);
            let sum = _mm256_add_epi32(_mm256_madd_epi16(low, even), _mm256_madd_epi16(high, odd));
            _mm256_add_epi32(acc, sum)
        }
    }
}

// SAFETY throughout: the caller has avx2, fma and f16c, and valid pointers (see the trait).
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    const VALUES: usize = 8;
    const QUERIES: usize = 3;
    const SMALL: usize = 8;
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type B = [__m256i; 2];
    type W = [[__m256i; 2]; 2];

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn run<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Self::F) {
        unsafe {
            _mm256_storeu_ps(p, x[0]);
            _mm256_storeu_ps(p.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        unsafe {
            [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))]
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn abs(x: Self::F) -> Self::F {
        unsafe { x.map(|x| _mm256_andnot_ps(_mm256_set1_ps(-0.0), x)) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn round(x: Self::F) -> Self::F {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe { [_mm256_round_ps::<NEAREST>(x[0]), _mm256_round_ps::<NEAREST>(x[1])] }
    }
    #[inline(always)]
    unsafe fn exp2i(x: Self::F) -> Self::F {
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(x[0]), bias));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(x[1]), bias));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        }
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        unsafe {
            let s = _mm256_add_ps(a[0], a[1]);
            let s = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
            let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps::<1>(s, s)))
        }
    }
    #[inline(always)]
    unsafe fn sums(a: [Self::F; 4]) -> [f32; 4] {
        unsafe {
            let [a, b, c, d] = a.map(|a| _mm256_add_ps(a[0], a[1]));
            let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let sums = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), sums);
            out
        }
    }
    #[inline(always)]
    unsafe fn maximum(a: Self::F) -> f32 {
        unsafe {
            let s = _mm256_max_ps(a[0], a[1]);
            let s = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
            let s = _mm_max_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps::<1>(s, s)))
        }
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    unsafe fn to_f(a: Self::I) -> Self::F {
        unsafe { [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])] }
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn multipliers(x: Self::F) -> Multipliers {
        unsafe {
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1]));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let (low, high) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let bytes = _mm_packs_epi16(low, high);
            let mut all = Multipliers::default();
            _mm_storeu_si128(all.words.as_mut_ptr().cast(), bytes);
            _mm_storeu_si128(all.even.as_mut_ptr().cast(), _mm_srai_epi16::<8>(_mm_slli_epi16::<8>(bytes)));
            _mm_storeu_si128(all.odd.as_mut_ptr().cast(), _mm_srai_epi16::<8>(bytes));
            all
        }
    }
    #[inline(always)]
    unsafe fn dot4(acc: Self::I, bytes: Self::B, x: &Multipliers, n: usize) -> Self::I {
        unsafe {
            let even = _mm256_set1_epi32(*x.even.get_unchecked(n));
            let odd = _mm256_set1_epi32(*x.odd.get_unchecked(n));
            [Self::dot4_half(acc[0], bytes[0], even, odd), Self::dot4_half(acc[1], bytes[1], even, odd)]
        }
    }
    #[inline(always)]
    unsafe fn dot4_small(acc: Self::I, bytes: Self::B, x: &Multipliers, n: usize) -> Self::I {
        // Two products of 15 and 127 come to 3,810: eight such sums fit into 16 bits.
        unsafe {
            let x = _mm256_set1_epi32(*x.words.get_unchecked(n));
            [
                _mm256_add_epi16(acc[0], _mm256_maddubs_epi16(bytes[0], x)),
                _mm256_add_epi16(acc[1], _mm256_maddubs_epi16(bytes[1], x)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn widen(acc: Self::I) -> Self::I {
        unsafe {
            let ones = _mm256_set1_epi16(1);
            [_mm256_madd_epi16(acc[0], ones), _mm256_madd_epi16(acc[1], ones)]
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> Self::B {
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn field(b: Self::B, n: u32, mask: u8) -> Self::B {
        unsafe {
            let (n, mask) = (_mm_cvtsi32_si128(n as i32), _mm256_set1_epi8(mask as i8));
            [
                _mm256_and_si256(_mm256_srl_epi16(b[0], n), mask),
                _mm256_and_si256(_mm256_srl_epi16(b[1], n), mask),
            ]
        }
    }
    #[inline(always)]
    unsafe fn byte(b: Self::B, n: u32) -> Self::F {
        unsafe {
            let (n, mask) = (_mm_cvtsi32_si128(8 * n as i32), _mm256_set1_epi32(0xff));
            [
                _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srl_epi32(b[0], n), mask)),
                _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srl_epi32(b[1], n), mask)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn join(low: Self::B, high: Self::B) -> Self::B {
        // `high` is 0 or 1 in each byte: no bit crosses into the next.
        unsafe {
            [
                _mm256_or_si256(low[0], _mm256_slli_epi16::<2>(high[0])),
                _mm256_or_si256(low[1], _mm256_slli_epi16::<2>(high[1])),
            ]
        }
    }
    #[inline(always)]
    unsafe fn table(table: &[u8; 16]) -> Self::B {
        unsafe { [_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())); 2] }
    }
    #[inline(always)]
    unsafe fn lookup(table: Self::B, index: Self::B) -> Self::B {
        unsafe { [_mm256_shuffle_epi8(table[0], index[0]), _mm256_shuffle_epi8(table[1], index[1])] }
    }
    #[inline(always)]
    unsafe fn add_bytes(a: Self::B, b: Self::B) -> Self::B {
        unsafe { [_mm256_add_epi8(a[0], b[0]), _mm256_add_epi8(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn zero_w() -> Self::W {
        unsafe { [[_mm256_setzero_si256(); 2]; 2] }
    }
    #[inline(always)]
    unsafe fn add_w(mut acc: Self::W, bytes: Self::B) -> Self::W {
        unsafe {
            for (half, bytes) in bytes.into_iter().enumerate() {
                acc[0][half] = _mm256_add_epi16(acc[0][half], bytes);
                acc[1][half] = _mm256_add_epi16(acc[1][half], _mm256_srli_epi16::<8>(bytes));
            }
            acc
        }
    }
    #[inline(always)]
    unsafe fn store_w(p: *mut u16, x: Self::W) {
        unsafe {
            let [pairs, odd] = x;
            for (half, (pairs, odd)) in pairs.into_iter().zip(odd).enumerate() {
                let even = _mm256_sub_epi16(pairs, _mm256_slli_epi16::<8>(odd));
                _mm256_storeu_si256(p.add(16 * half).cast(), even);
                _mm256_storeu_si256(p.add(32 + 16 * half).cast(), odd);
            }
        }
    }
    #[inline(always)]
    unsafe fn load_u16(p: *const u16) -> Self::I {
        unsafe {
            [
                _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast())),
            ]
        }
    }
}
