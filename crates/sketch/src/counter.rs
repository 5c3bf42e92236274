//! The number types a sketch can count in.

use std::cmp::Ordering;
use std::fmt::Debug;

use crate::bytes::{Reader, Writer};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
    impl Sealed for f32 {}
    impl Sealed for i32 {}
    impl Sealed for i64 {}
}

/// What all counters have in common. Sealed: implemented for the five number types of this crate.
pub trait Number: sealed::Sealed + Copy + Default + PartialOrd + Debug + Send + Sync + 'static {
    /// One occurrence.
    const ONE: Self;
    /// The type's name in the byte format.
    #[doc(hidden)]
    const CODE: u8;

    /// The sum, held at the ends of the range instead of wrapping.
    #[doc(hidden)]
    fn plus(self, other: Self) -> Self;
    #[doc(hidden)]
    fn to_f64(self) -> f64;
    /// True units to stored units of a sketch that decays, `self · factor`; integers do not decay.
    #[doc(hidden)]
    fn scaled(self, factor: f32) -> Self;
    /// Half of it, rounded toward zero.
    #[doc(hidden)]
    fn halved(self) -> Self;
    #[doc(hidden)]
    fn is_float() -> bool;
    #[doc(hidden)]
    fn write(self, writer: &mut Writer);
    #[doc(hidden)]
    fn read(reader: &mut Reader<'_>) -> Option<Self>;
}

/// A counter of a [`CountMin`](crate::CountMin): `u32`, `u64` or `f32`.
pub trait Counter: Number {
    /// The difference, or nothing where it would be negative.
    #[doc(hidden)]
    fn minus(self, other: Self) -> Option<Self>;
    /// An amount as a sketch can take it: not negative, a number.
    #[doc(hidden)]
    fn admitted(self) -> Self;
    /// Whether no sum of admitted amounts that add up to `total` can leave the range.
    #[doc(hidden)]
    fn holds(total: f64) -> bool;
    /// The sum, where it is known to be in the range.
    #[doc(hidden)]
    fn plus_within(self, other: Self) -> Self;
    /// Whether sums may have been cut off at the end of the range.
    #[doc(hidden)]
    fn is_saturated(self) -> bool;
}

/// A counter of a [`CountSketch`](crate::CountSketch): `i32`, `i64` or `f32`.
pub trait SignedCounter: Number {
    #[doc(hidden)]
    fn negated_if(self, negative: bool) -> Self;
    #[doc(hidden)]
    fn midpoint(self, other: Self) -> Self;
    /// A total order, so that sorting cannot go wrong on a NaN.
    #[doc(hidden)]
    fn order(&self, other: &Self) -> Ordering;
    /// An amount as a sketch can take it: a number, with a negative.
    #[doc(hidden)]
    fn admitted(self) -> Self;
}

macro_rules! integer {
    ($type:ty, $code:literal, $bytes:literal) => {
        impl Number for $type {
            const ONE: Self = 1;
            const CODE: u8 = $code;

            #[inline]
            fn plus(self, other: Self) -> Self {
                self.saturating_add(other)
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline]
            fn scaled(self, _factor: f32) -> Self {
                self
            }
            #[inline]
            fn halved(self) -> Self {
                self / 2
            }
            #[inline]
            fn is_float() -> bool {
                false
            }
            fn write(self, writer: &mut Writer) {
                writer.raw(&self.to_le_bytes());
            }
            fn read(reader: &mut Reader<'_>) -> Option<Self> {
                reader.raw::<$bytes>().map(Self::from_le_bytes)
            }
        }
    };
}

integer!(u32, 1, 4);
integer!(u64, 2, 8);
integer!(i32, 4, 4);
integer!(i64, 5, 8);

macro_rules! unsigned {
    ($type:ty) => {
        impl Counter for $type {
            #[inline]
            fn minus(self, other: Self) -> Option<Self> {
                self.checked_sub(other)
            }
            #[inline]
            fn admitted(self) -> Self {
                self
            }
            #[inline]
            fn holds(total: f64) -> bool {
                // A margin for the rounding of the total.
                total < Self::MAX as f64 * 0.999
            }
            #[inline]
            fn plus_within(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline]
            fn is_saturated(self) -> bool {
                self == Self::MAX
            }
        }
    };
}

unsigned!(u32);
unsigned!(u64);

macro_rules! signed {
    ($type:ty) => {
        impl SignedCounter for $type {
            #[inline]
            fn negated_if(self, negative: bool) -> Self {
                // Two's complement: (x ^ -1) + 1 = -x.
                let mask = -(negative as Self);
                (self ^ mask).wrapping_sub(mask)
            }
            #[inline]
            fn midpoint(self, other: Self) -> Self {
                <$type>::midpoint(self, other)
            }
            #[inline]
            fn order(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
            #[inline]
            fn admitted(self) -> Self {
                // The one value without a negative.
                self.max(-Self::MAX)
            }
        }
    };
}

signed!(i32);
signed!(i64);

impl Number for f32 {
    const ONE: Self = 1.0;
    const CODE: u8 = 3;

    #[inline]
    fn plus(self, other: Self) -> Self {
        (self + other).clamp(-f32::MAX, f32::MAX)
    }
    #[inline]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline]
    fn scaled(self, factor: f32) -> Self {
        (self * factor).clamp(-f32::MAX, f32::MAX)
    }
    #[inline]
    fn halved(self) -> Self {
        self * 0.5
    }
    #[inline]
    fn is_float() -> bool {
        true
    }
    fn write(self, writer: &mut Writer) {
        writer.f32(self);
    }
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.f32().filter(|x| x.is_finite())
    }
}

impl Counter for f32 {
    #[inline]
    fn minus(self, other: Self) -> Option<Self> {
        let difference = self - other;
        // Two equal sums added up in different orders differ by rounding; that is no stream that is not a part.
        if difference < -1e-5 * other { None } else { Some(difference.max(0.0)) }
    }
    #[inline]
    fn admitted(self) -> Self {
        if self > 0.0 { self.min(f32::MAX) } else { 0.0 }
    }
    #[inline]
    fn holds(total: f64) -> bool {
        total < 1e38
    }
    #[inline]
    fn plus_within(self, other: Self) -> Self {
        self + other
    }
    #[inline]
    fn is_saturated(self) -> bool {
        self == f32::MAX
    }
}

impl SignedCounter for f32 {
    #[inline]
    fn negated_if(self, negative: bool) -> Self {
        f32::from_bits(self.to_bits() ^ (u32::from(negative) << 31))
    }
    #[inline]
    fn midpoint(self, other: Self) -> Self {
        f32::midpoint(self, other)
    }
    #[inline]
    fn order(&self, other: &Self) -> Ordering {
        self.total_cmp(other)
    }
    #[inline]
    fn admitted(self) -> Self {
        if self.is_nan() { 0.0 } else { self.clamp(-f32::MAX, f32::MAX) }
    }
}
