/// A range of values laid out along an axis.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    base: Option<f64>,
    /// Where the ends lie in the drawing.
    from: f64,
    to: f64,
}

impl Scale {
    /// Even steps from 0 to a little above the largest value.
    pub(super) fn linear(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let high = values.fold(0.0, f64::max);
        Scale { low: 0.0, high: if high > 0.0 { high * 1.05 } else { 1.0 }, base: None, from, to }
    }

    /// Even ratios over the values, none of which may be 0, with a margin; ticks at powers of `base`.
    pub(super) fn log(values: impl Iterator<Item = f64>, base: f64, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|&value| value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, base);
        }
        // A margin, and at least one step, so that a single value has a place.
        let margin = (high / low).ln().max(base.ln()) * 0.06;
        Scale { low: low / margin.exp(), high: high * margin.exp(), base: Some(base), from, to }
    }

    /// Where `value` lies in the drawing.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = match self.base {
            None => (value - self.low) / (self.high - self.low),
            Some(_) => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round values to mark, at most about `most`.
    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        match self.base {
            None => self.even_ticks(most),
            Some(base) => self.powers(base, most),
        }
    }

    fn even_ticks(&self, most: usize) -> Vec<f64> {
        let raw = self.high / most.saturating_sub(2).max(1) as f64;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&s| s >= raw).unwrap_or(raw);
        (0..=(self.high / step) as usize).map(|i| i as f64 * step).collect()
    }

    /// Powers of `base`, and what is between where there are few.
    fn powers(&self, base: f64, most: usize) -> Vec<f64> {
        let (first, last) =
            ((self.low.ln() / base.ln()).floor() as i32, (self.high.ln() / base.ln()).ceil() as i32);
        let marked = |between: &[f64]| -> Vec<f64> {
            (first..=last)
                .flat_map(|power| between.iter().map(move |m| m * base.powi(power)))
                .filter(|tick| (self.low..=self.high).contains(tick))
                .collect()
        };
        let ticks = marked(&[1.0]);
        if ticks.len() < 3 {
            return marked(if base > 5.0 { &[1.0, 2.0, 5.0] } else { &[1.0, 1.5] });
        }
        let every = ticks.len().div_ceil(most).max(1);
        ticks.into_iter().step_by(every).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_keeps_order_and_ends() {
        let log = Scale::log([0.001, 1.0].into_iter(), 10.0, 100.0, 0.0);
        assert!(log.at(0.001) < 100.0 && log.at(0.001) > log.at(0.1) && log.at(0.1) > log.at(1.0));
        assert_eq!(log.at(0.0), 100.0);
        assert_eq!(log.ticks(8).len(), 4);
        let linear = Scale::linear([3.0, 97.0].into_iter(), 0.0, 100.0);
        assert_eq!(linear.at(0.0), 0.0);
        assert_eq!(linear.ticks(8), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
    }

    #[test]
    fn nothing_and_one_value_have_a_scale() {
        assert!(!Scale::log(std::iter::empty(), 2.0, 0.0, 10.0).ticks(8).is_empty());
        let one = Scale::log(std::iter::once(5.0), 10.0, 0.0, 10.0);
        assert!((one.at(5.0) - 5.0).abs() < 1e-9);
        assert_eq!(Scale::linear(std::iter::empty(), 0.0, 1.0).ticks(8).first(), Some(&0.0));
    }
}
