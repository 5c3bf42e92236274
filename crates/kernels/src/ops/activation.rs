use super::lanes;
use crate::cpu::{self, Level, per_level};

/// `out = silu(gate) · up` with silu(x) = x / (1 + e⁻ˣ).
///
/// # Panics
/// When the lengths differ.
pub fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
    silu_mul_at(cpu::level(), gate, up, out);
}

/// `out = gelu(gate) · up`, see [`gelu`].
///
/// # Panics
/// When the lengths differ.
pub fn gelu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
    gelu_mul_at(cpu::level(), gate, up, out);
}

/// GPT-2's gelu, in place: x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))).
pub fn gelu(x: &mut [f32]) {
    gelu_at(cpu::level(), x);
}

/// `target += source`.
///
/// # Panics
/// When the lengths differ.
pub fn add(source: &[f32], target: &mut [f32]) {
    assert_eq!(source.len(), target.len(), "add takes slices of one length");
    add_lanes(cpu::level(), source, target);
}

pub(crate) fn silu_mul_at(level: Level, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len(), "silu_mul takes slices of one length");
    if level == Level::Scalar {
        out.iter_mut().zip(gate).zip(up).for_each(|((o, g), u)| *o = g / (1.0 + (-g).exp()) * u);
    } else {
        silu_mul_lanes(level, gate, up, out);
    }
}

pub(crate) fn gelu_mul_at(level: Level, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len(), "gelu_mul takes slices of one length");
    out.copy_from_slice(gate);
    gelu_at(level, out);
    out.iter_mut().zip(up).for_each(|(o, u)| *o *= u);
}

pub(crate) fn gelu_at(level: Level, x: &mut [f32]) {
    if level == Level::Scalar {
        let scale = (2.0 / std::f32::consts::PI).sqrt();
        x.iter_mut().for_each(|x| *x = *x / 2.0 * (1.0 + (scale * (*x + 0.044715 * x.powi(3))).tanh()));
    } else {
        gelu_all(level, x);
    }
}

/// silu of one value.
#[inline(always)]
fn silu_lanes(x: f32) -> f32 {
    x / (1.0 + lanes::exp(-x))
}

/// gelu of one value as x·σ(2y), since (1 + tanh y) / 2 = σ(2y): no cancellation where tanh is near −1.
#[inline(always)]
fn gelu_lanes(x: f32) -> f32 {
    /// 2·√(2/π)
    const SCALE: f32 = 1.595_769;
    x / (1.0 + lanes::exp(-SCALE * x * (0.044715 * x).mul_add(x, 1.0)))
}

per_level! {
    fn silu_mul_lanes(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
            *o = silu_lanes(*g) * u;
        }
    }
}

per_level! {
    fn gelu_all(x: &mut [f32]) {
        for x in x {
            *x = gelu_lanes(*x);
        }
    }
}

per_level! {
    fn add_lanes(source: &[f32], target: &mut [f32]) {
        for (t, s) in target.iter_mut().zip(source) {
            *t += s;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(got: f32, want: f32, scale: f32) -> bool {
        got == want || (got - want).abs() <= 2e-6 * scale
    }

    proptest! {
        #[test]
        fn activations_agree_with_the_reference(values in prop::collection::vec((-120.0_f32..120.0, -3.0_f32..3.0), 0..100)) {
            let gate: Vec<f32> = values.iter().map(|v| v.0).collect();
            let up: Vec<f32> = values.iter().map(|v| v.1).collect();
            for &level in Level::available() {
                let (mut want, mut got) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
                silu_mul_at(Level::Scalar, &gate, &up, &mut want);
                silu_mul_at(level, &gate, &up, &mut got);
                for ((g, e), x) in got.iter().zip(&want).zip(&gate) {
                    prop_assert!(close(*g, *e, 1e-30 + x.abs()), "silu at {level:?} of {x}: {g} is not {e}");
                }
                (want, got) = (gate.clone(), gate.clone());
                gelu_at(Level::Scalar, &mut want);
                gelu_at(level, &mut got);
                for ((g, e), x) in got.iter().zip(&want).zip(&gate) {
                    prop_assert!(close(*g, *e, 1e-30 + x.abs()), "gelu at {level:?} of {x}: {g} is not {e}");
                }
                let gelu = got.clone();
                gelu_mul_at(level, &gate, &up, &mut got);
                for ((g, e), u) in got.iter().zip(&gelu).zip(&up) {
                    prop_assert_eq!(*g, e * u);
                }
            }
        }
    }

    #[test]
    fn add_adds() {
        let mut target = [1.0, 2.0, 3.0];
        add(&[0.5, 0.0, -3.0], &mut target);
        assert_eq!(target, [1.5, 2.0, 0.0]);
    }
}
