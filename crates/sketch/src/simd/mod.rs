//! The operations worth a vector register, each with a scalar reference that reads like its formula.
//!
//! The level is chosen once per process; the public sketches never see it. `unsafe` lives in this folder only.

pub(crate) mod columns;
pub(crate) mod hamming;
pub(crate) mod places;
pub(crate) mod project;
pub(crate) mod score;

use std::sync::OnceLock;

/// A set of processor instructions that this crate has code for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No more than the target's baseline.
    Scalar,
    /// AVX2 and FMA (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, DQ, VL, IFMA and VPOPCNTDQ (Ice Lake, Zen 4 and later).
    Avx512,
}

impl Level {
    /// The best level of this processor, or a lower one where the environment variable `SKETCHKV_CPU` says
    /// `scalar`, `avx2` or `avx512`. Read once per process; an unknown word or a level that the processor lacks
    /// changes nothing.
    pub fn current() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let best = Self::best();
            match std::env::var("SKETCHKV_CPU").as_deref() {
                Ok("scalar") => Self::Scalar,
                Ok("avx2") => best.min(Self::Avx2),
                _ => best,
            }
        })
    }

    /// Every level this processor has, lowest first.
    #[cfg(test)]
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512].into_iter().filter(|&level| level <= Self::best())
    }

    #[cfg(target_arch = "x86_64")]
    fn best() -> Self {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("popcnt");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vpopcntdq");
        match (avx2, avx512) {
            (true, true) => Self::Avx512,
            (true, false) => Self::Avx2,
            _ => Self::Scalar,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn best() -> Self {
        Self::Scalar
    }
}
