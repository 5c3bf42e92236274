use super::{Multipliers, Simd};
use crate::aarch64::{dot_bytes, load_halves};
use std::arch::aarch64::*;

/// Four 128-bit registers a value.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

/// Evaluates `$body` for each of the four registers of a value.
macro_rules! each {
    (|$i:ident| $body:expr) => {
        [
            {
                const $i: usize = 0;
                $body
            },
            {
                const $i: usize = 1;
                $body
            },
            {
                const $i: usize = 2;
                $body
            },
            {
                const $i: usize = 3;
                $body
            },
        ]
    };
}

// SAFETY throughout: the caller has neon and dotprod, and valid pointers (see the trait).
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Neon {
    const VALUES: usize = 8;
    const QUERIES: usize = 3;
    const SMALL: usize = usize::MAX;
    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    type B = [uint8x16_t; 4];
    type W = [[uint16x8_t; 4]; 2];

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn run<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        unsafe { each!(|I| vld1q_f32(p.add(4 * I))) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Self::F) {
        unsafe { each!(|I| vst1q_f32(p.add(4 * I), x[I])) };
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        unsafe { each!(|I| load_halves(p.add(4 * I).cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        unsafe { each!(|I| vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p.add(4 * I))))) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        unsafe { each!(|I| vaddq_f32(a[I], b[I])) }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        unsafe { each!(|I| vsubq_f32(a[I], b[I])) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        unsafe { each!(|I| vmulq_f32(a[I], b[I])) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        unsafe { each!(|I| vmaxnmq_f32(a[I], b[I])) }
    }
    #[inline(always)]
    unsafe fn abs(x: Self::F) -> Self::F {
        unsafe { each!(|I| vabsq_f32(x[I])) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { each!(|I| vfmaq_f32(c[I], a[I], b[I])) }
    }
    #[inline(always)]
    unsafe fn round(x: Self::F) -> Self::F {
        unsafe { each!(|I| vrndnq_f32(x[I])) }
    }
    #[inline(always)]
    unsafe fn exp2i(x: Self::F) -> Self::F {
        unsafe {
            let bias = vdupq_n_s32(127);
            each!(|I| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(x[I]), bias))))
        }
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        unsafe { vaddvq_f32(vaddq_f32(vaddq_f32(a[0], a[1]), vaddq_f32(a[2], a[3]))) }
    }
    #[inline(always)]
    unsafe fn maximum(a: Self::F) -> f32 {
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a[0], a[1]), vmaxnmq_f32(a[2], a[3]))) }
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        unsafe { [vdupq_n_s32(0); 4] }
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    unsafe fn to_f(a: Self::I) -> Self::F {
        unsafe { each!(|I| vcvtq_f32_s32(a[I])) }
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        unsafe { each!(|I| vaddq_s32(a[I], b[I])) }
    }
    #[inline(always)]
    unsafe fn multipliers(x: Self::F) -> Multipliers {
        unsafe {
            let q = each!(|I| vmovn_s32(vcvtnq_s32_f32(x[I])));
            let bytes = vcombine_s8(vmovn_s16(vcombine_s16(q[0], q[1])), vmovn_s16(vcombine_s16(q[2], q[3])));
            // The halves of 16 bits are for instruction sets that cannot multiply bytes.
            let mut all = Multipliers::default();
            vst1q_s32(all.words.as_mut_ptr(), vreinterpretq_s32_s8(bytes));
            all
        }
    }
    #[inline(always)]
    unsafe fn dot4(acc: Self::I, bytes: Self::B, x: &Multipliers, n: usize) -> Self::I {
        // `sdot` takes signed bytes: u·x = (u − 128)·x + 64·x + 64·x.
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(*x.words.get_unchecked(n)));
            let half = dot_bytes(vdupq_n_s32(0), vdupq_n_s8(64), x);
            let offset = vaddq_s32(half, half);
            let flip = vdupq_n_u8(0x80);
            each!(|I| {
                let signed = vreinterpretq_s8_u8(veorq_u8(bytes[I], flip));
                dot_bytes(vaddq_s32(acc[I], offset), signed, x)
            })
        }
    }
    #[inline(always)]
    unsafe fn dot4_small(acc: Self::I, bytes: Self::B, x: &Multipliers, n: usize) -> Self::I {
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(*x.words.get_unchecked(n)));
            each!(|I| dot_bytes(acc[I], vreinterpretq_s8_u8(bytes[I]), x))
        }
    }
    #[inline(always)]
    unsafe fn widen(acc: Self::I) -> Self::I {
        acc
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> Self::B {
        unsafe { each!(|I| vld1q_u8(p.add(16 * I))) }
    }
    #[inline(always)]
    unsafe fn field(b: Self::B, n: u32, mask: u8) -> Self::B {
        unsafe {
            let (right, mask) = (vdupq_n_s8(-(n as i8)), vdupq_n_u8(mask));
            each!(|I| vandq_u8(vshlq_u8(b[I], right), mask))
        }
    }
    #[inline(always)]
    unsafe fn byte(b: Self::B, n: u32) -> Self::F {
        unsafe {
            let (right, mask) = (vdupq_n_s32(-8 * n as i32), vdupq_n_u32(0xff));
            each!(|I| vcvtq_f32_u32(vandq_u32(vshlq_u32(vreinterpretq_u32_u8(b[I]), right), mask)))
        }
    }
    #[inline(always)]
    unsafe fn join(low: Self::B, high: Self::B) -> Self::B {
        unsafe { each!(|I| vorrq_u8(low[I], vshlq_n_u8::<2>(high[I]))) }
    }
    #[inline(always)]
    unsafe fn table(table: &[u8; 16]) -> Self::B {
        unsafe { [vld1q_u8(table.as_ptr()); 4] }
    }
    #[inline(always)]
    unsafe fn lookup(table: Self::B, index: Self::B) -> Self::B {
        unsafe { each!(|I| vqtbl1q_u8(table[I], index[I])) }
    }
    #[inline(always)]
    unsafe fn add_bytes(a: Self::B, b: Self::B) -> Self::B {
        unsafe { each!(|I| vaddq_u8(a[I], b[I])) }
    }
    #[inline(always)]
    unsafe fn zero_w() -> Self::W {
        unsafe { [[vdupq_n_u16(0); 4]; 2] }
    }
    #[inline(always)]
    unsafe fn add_w(acc: Self::W, bytes: Self::B) -> Self::W {
        unsafe {
            let bytes = each!(|I| vreinterpretq_u16_u8(bytes[I]));
            [each!(|I| vaddq_u16(acc[0][I], bytes[I])), each!(|I| vsraq_n_u16::<8>(acc[1][I], bytes[I]))]
        }
    }
    #[inline(always)]
    unsafe fn store_w(p: *mut u16, x: Self::W) {
        unsafe {
            let [pairs, odd] = x;
            each!(|I| vst1q_u16(p.add(8 * I), vsubq_u16(pairs[I], vshlq_n_u16::<8>(odd[I]))));
            each!(|I| vst1q_u16(p.add(32 + 8 * I), odd[I]));
        }
    }
    #[inline(always)]
    unsafe fn load_u16(p: *const u16) -> Self::I {
        unsafe { each!(|I| vreinterpretq_s32_u32(vmovl_u16(vld1_u16(p.add(4 * I))))) }
    }
}
