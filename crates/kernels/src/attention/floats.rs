//! How kernels read floats of a strip.

use super::layout::Encoding;
use super::simd::Simd;

/// How the floats of a strip are read.
pub(super) trait Float {
    /// Bytes of one.
    const BYTES: usize;
    /// 16 consecutive floats, the first being number `at`.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn load<S: Simd>(floats: *const u8, at: usize) -> S::F;
}

macro_rules! float {
    ($name:ident, $element:ty, $load:ident) => {
        pub(super) struct $name;

        impl Float for $name {
            const BYTES: usize = size_of::<$element>();
            #[inline(always)]
            unsafe fn load<S: Simd>(floats: *const u8, at: usize) -> S::F {
                // SAFETY: the caller's.
                unsafe { S::$load(floats.cast::<$element>().add(at)) }
            }
        }
    };
}

float!(F32, f32, load);
float!(F16, u16, load_f16);
float!(Bf16, u16, load_bf16);

/// Evaluates `$body` with the [`Float`] that an encoding is, or `$other` with its codes.
macro_rules! for_each_float {
    ($encoding:expr, |$float:ident| $body:expr, |$codes:pat_param| $other:expr) => {{
        macro_rules! float {
            ($name:ident) => {{
                type $float = $crate::attention::floats::$name;
                $body
            }};
        }
        match $encoding {
            Encoding::F32 => float!(F32),
            Encoding::F16 => float!(F16),
            Encoding::Bf16 => float!(Bf16),
            Encoding::Codes($codes) => $other,
            Encoding::Graded { .. } => unreachable!("graded codes are read elsewhere"),
        }
    }};
}
pub(super) use for_each_float;

/// The floats of a strip in f32, in their order; no codes.
///
/// # Safety
/// As [`Simd`]; the strip holds as many as `out`.
#[inline(always)]
pub(super) unsafe fn decode_floats<S: Simd>(encoding: Encoding, strip: &[u8], out: &mut [f32]) {
    // SAFETY: the caller's.
    unsafe {
        for_each_float!(encoding, |E| copy::<S, E>(strip, out), |_| unreachable!(
            "codes are decoded elsewhere"
        ))
    }
}

#[inline(always)]
unsafe fn copy<S: Simd, E: Float>(strip: &[u8], out: &mut [f32]) {
    for at in (0..out.len()).step_by(16) {
        // SAFETY: strip and out have the sizes of the layout.
        unsafe { S::store(out.as_mut_ptr().add(at), E::load::<S>(strip.as_ptr(), at)) };
    }
}
