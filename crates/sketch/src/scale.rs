//! Exponential decay without touching a table.

/// The factor between what a table stores and what it means: `true = stored · scale`.
///
/// Decaying everything by `f` is `scale *= f`; what is added later is divided by the scale. When the scale has
/// become small the table is multiplied once by a power of two, which rounds nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    value: f32,
    inverse: f32,
}

/// Below this the table is brought back: 2^-32, far from the ends of the range of `f32` in both directions.
const FLOOR: f32 = 1.0 / 4_294_967_296.0;

impl Scale {
    pub(crate) const ONE: Self = Self { value: 1.0, inverse: 1.0 };

    pub(crate) fn from_value(value: f32) -> Option<Self> {
        (FLOOR..=1.0).contains(&value).then(|| Self { value, inverse: 1.0 / value })
    }

    /// From stored to true units.
    #[inline]
    pub(crate) fn value(self) -> f32 {
        self.value
    }

    /// From true to stored units.
    #[inline]
    pub(crate) fn inverse(self) -> f32 {
        self.inverse
    }

    /// Multiplies by `factor`, clamped to 0..=1; returns the power of two that the table must now be multiplied
    /// by, if it must be. A NaN counts as 1.
    #[must_use]
    pub(crate) fn decay(&mut self, factor: f32) -> Option<f32> {
        let factor = if factor.is_nan() { 1.0 } else { factor.clamp(0.0, 1.0) };
        if factor < FLOOR {
            *self = Self::ONE;
            return Some(0.0);
        }
        self.value *= factor;
        let shift = (self.value < FLOOR).then(|| {
            self.value /= FLOOR;
            FLOOR
        });
        self.inverse = 1.0 / self.value;
        shift
    }
}

/// Counts the times that a table was changed otherwise than by adding to it, for those who keep estimates taken
/// from it. Sketches that differ in nothing else are equal.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Epoch(u64);

impl Epoch {
    pub(crate) fn advance(&mut self) {
        self.0 = self.0.wrapping_add(1);
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl PartialEq for Epoch {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_and_value_together_are_the_decay() {
        let mut scale = Scale::ONE;
        let mut table = 1.0f64;
        for _ in 0..10_000 {
            if let Some(shift) = scale.decay(0.99) {
                table *= f64::from(shift);
            }
            assert!(scale.value() >= FLOOR && scale.value() <= 1.0);
        }
        let decayed = (table * f64::from(scale.value())).ln();
        assert!((decayed / (10_000.0 * 0.99f64.ln()) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn strange_factors_are_clamped() {
        let mut scale = Scale::ONE;
        assert_eq!(scale.decay(f32::NAN), None);
        assert_eq!(scale.decay(2.0), None);
        assert_eq!(scale, Scale::ONE);
        assert_eq!(scale.decay(0.0), Some(0.0));
        assert_eq!(scale, Scale::ONE);
    }
}
