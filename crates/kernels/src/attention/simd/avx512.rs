use super::{Multipliers, Simd};
use std::arch::x86_64::*;

/// One 512-bit register a value; int8 products by VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

// SAFETY throughout: the caller has avx512f/bw/vl/dq/vnni and f16c, and valid pointers (see the trait).
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    const VALUES: usize = 32;
    const QUERIES: usize = 4;
    const SMALL: usize = usize::MAX;
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    type W = [__m512i; 2];

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn run<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(x: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(x) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
    }
    #[inline(always)]
    unsafe fn exp2i(x: __m512) -> __m512 {
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    unsafe fn maximum(a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    unsafe fn zero_i() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn to_f(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn add_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn multipliers(x: __m512) -> Multipliers {
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x));
            // `dot4` needs no more than the words.
            let mut all = Multipliers::default();
            _mm_storeu_si128(all.words.as_mut_ptr().cast(), bytes);
            all
        }
    }
    #[inline(always)]
    unsafe fn dot4(acc: __m512i, bytes: __m512i, x: &Multipliers, n: usize) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, bytes, _mm512_set1_epi32(*x.words.get_unchecked(n))) }
    }
    #[inline(always)]
    unsafe fn dot4_small(acc: __m512i, bytes: __m512i, x: &Multipliers, n: usize) -> __m512i {
        unsafe { Self::dot4(acc, bytes, x, n) }
    }
    #[inline(always)]
    unsafe fn widen(acc: __m512i) -> __m512i {
        acc
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn field(b: __m512i, n: u32, mask: u8) -> __m512i {
        unsafe {
            let shifted = _mm512_srl_epi16(b, _mm_cvtsi32_si128(n as i32));
            _mm512_and_si512(shifted, _mm512_set1_epi8(mask as i8))
        }
    }
    #[inline(always)]
    unsafe fn byte(b: __m512i, n: u32) -> __m512 {
        unsafe {
            let shifted = _mm512_srl_epi32(b, _mm_cvtsi32_si128(8 * n as i32));
            _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(0xff)))
        }
    }
    #[inline(always)]
    unsafe fn join(low: __m512i, high: __m512i) -> __m512i {
        // `high` is 0 or 1 in each byte: no bit crosses into the next.
        unsafe { _mm512_or_si512(low, _mm512_slli_epi16::<2>(high)) }
    }
    #[inline(always)]
    unsafe fn table(table: &[u8; 16]) -> __m512i {
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())) }
    }
    #[inline(always)]
    unsafe fn lookup(table: __m512i, index: __m512i) -> __m512i {
        unsafe { _mm512_shuffle_epi8(table, index) }
    }
    #[inline(always)]
    unsafe fn add_bytes(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi8(a, b) }
    }
    #[inline(always)]
    unsafe fn zero_w() -> Self::W {
        unsafe { [_mm512_setzero_si512(); 2] }
    }
    #[inline(always)]
    unsafe fn add_w(acc: Self::W, bytes: __m512i) -> Self::W {
        unsafe { [_mm512_add_epi16(acc[0], bytes), _mm512_add_epi16(acc[1], _mm512_srli_epi16::<8>(bytes))] }
    }
    #[inline(always)]
    unsafe fn store_w(p: *mut u16, x: Self::W) {
        unsafe {
            let [pairs, odd] = x;
            _mm512_storeu_si512(p.cast(), _mm512_sub_epi16(pairs, _mm512_slli_epi16::<8>(odd)));
            _mm512_storeu_si512(p.add(32).cast(), odd);
        }
    }
    #[inline(always)]
    unsafe fn load_u16(p: *const u16) -> __m512i {
        unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())) }
    }
}
