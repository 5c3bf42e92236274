//! Which instruction set the kernels use, decided once at run time.

use std::sync::OnceLock;

/// Name of the environment variable that lowers the level, see [`Level::parse_choice`].
pub const LEVEL_VARIABLE: &str = "SKETCHKV_CPU";

/// An instruction set that every kernel has a version for, from the plainest to the widest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Portable code that reads like the formula; the reference of all others.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C: 256-bit vectors.
    Avx2,
    /// `Avx2` and the 256-bit VNNI dot products of recent desktop processors.
    AvxVnni,
    /// AVX-512 F, BW, VL, DQ and VNNI: 512-bit vectors and dot products.
    Avx512,
    /// aarch64 with the dot product extension.
    Neon,
    /// `Neon` and the 8-bit matrix products of recent processors.
    I8mm,
}

impl Level {
    const ALL: [Level; 6] =
        [Level::Scalar, Level::Avx2, Level::AvxVnni, Level::Avx512, Level::Neon, Level::I8mm];

    /// The widest level this machine runs.
    pub fn detect() -> Level {
        *Level::available().last().expect("scalar code runs everywhere")
    }

    /// Every level this machine runs, plainest first, so that one machine tests them all.
    pub fn available() -> &'static [Level] {
        static AVAILABLE: OnceLock<Vec<Level>> = OnceLock::new();
        AVAILABLE.get_or_init(|| Level::ALL.into_iter().filter(|level| level.runs_here()).collect())
    }

    /// The level that a user's `choice` names.
    ///
    /// A name of a level that this machine lacks gives the widest available level below it, so that a choice only
    /// ever lowers; no name, or an unknown one, gives [`Level::detect`].
    ///
    /// ```
    /// use sketchkv_kernels::cpu::Level;
    /// assert_eq!(Level::parse_choice(Some("scalar")), Level::Scalar);
    /// assert_eq!(Level::parse_choice(Some("quantum")), Level::detect());
    /// ```
    pub fn parse_choice(choice: Option<&str>) -> Level {
        let named = choice.and_then(|name| Level::ALL.into_iter().find(|level| level.name() == name.trim()));
        named.map_or_else(Level::detect, Level::clamp)
    }

    /// The name by which [`LEVEL_VARIABLE`] knows this level.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::AvxVnni => "avxvnni",
            Level::Avx512 => "avx512",
            Level::Neon => "neon",
            Level::I8mm => "i8mm",
        }
    }

    /// This level where the machine runs it, else the widest available one below it.
    pub fn clamp(self) -> Level {
        *Level::available().iter().rfind(|&&level| level <= self).expect("scalar code runs everywhere")
    }

    fn runs_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            match self {
                Level::Scalar => true,
                Level::Avx2 => avx2,
                Level::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
                Level::Avx512 => {
                    avx2 && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512vnni")
                }
                Level::Neon | Level::I8mm => false,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected;
            let dotprod = is_aarch64_feature_detected!("dotprod");
            match self {
                Level::Scalar => true,
                Level::Neon => dotprod,
                Level::I8mm => dotprod && is_aarch64_feature_detected!("i8mm"),
                _ => false,
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Level::Scalar
        }
    }
}

/// The level in use: the widest this machine runs, unless [`LEVEL_VARIABLE`] lowers it; read once.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| Level::parse_choice(std::env::var(LEVEL_VARIABLE).ok().as_deref()))
}

/// Compiles one portable body for every level and picks the version at run time.
///
/// The body is plain Rust over fixed-width chunks; inside a function with the level's target features the compiler
/// turns it into that level's vectors. The order of operations is the same everywhere, so all levels agree bit for
/// bit. `level` must come from [`level`] or [`Level::clamp`].
macro_rules! per_level {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name(level: $crate::cpu::Level, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn portable($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { portable($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { portable($($arg),*) }

            match level {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a level is only ever handed to kernels where the machine has its features.
                $crate::cpu::Level::Avx2 | $crate::cpu::Level::AvxVnni => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::cpu::Level::Avx512 => unsafe { avx512($($arg),*) },
                _ => portable($($arg),*),
            }
        }
    };
}
pub(crate) use per_level;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_only_lowers() {
        for level in Level::ALL {
            let chosen = Level::parse_choice(Some(level.name()));
            assert!(Level::available().contains(&chosen));
            assert!(chosen <= level);
            assert_eq!(chosen == level, Level::available().contains(&level));
        }
        assert_eq!(Level::parse_choice(None), Level::detect());
        assert_eq!(Level::parse_choice(Some(" scalar ")), Level::Scalar);
    }

    #[test]
    fn level_in_use_is_available() {
        assert!(Level::available().contains(&level()));
    }
}
