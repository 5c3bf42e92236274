use crate::cpu::{self, per_level};

/// Which two values of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// Value i with value i + d/2: Hugging Face checkpoints, and the Qwen2 family in GGUF.
    Halves,
    /// Value 2i with value 2i + 1: the Llama family in GGUF, whose converter reorders the rows for it.
    Adjacent,
}

/// Appends the angles of `positions` to `table`, `[position][cos, sin][frequency]`: the angle of a pair of values at
/// position p is p times its frequency, in radians. Once for all layers and heads of a forward pass.
pub fn fill_angles(frequencies: &[f32], positions: &[usize], table: &mut Vec<f32>) {
    for &position in positions {
        // The product is rounded to f32 before the sine, as the models' training code does.
        let angle = |frequency: &f32| f64::from(position as f32 * frequency);
        table.extend(frequencies.iter().map(|f| angle(f).cos() as f32));
        table.extend(frequencies.iter().map(|f| angle(f).sin() as f32));
    }
}

/// Rotates the heads of one token in place.
///
/// `heads` is `[head][head_dim]`, `angles` this token's `[cos, sin][head_dim / 2]` of [`fill_angles`].
///
/// # Panics
/// When `heads` is not made of whole heads.
pub fn rotate(heads: &mut [f32], angles: &[f32], layout: RopeLayout) {
    assert!(!angles.is_empty() && heads.len().is_multiple_of(angles.len()), "rotate takes whole heads");
    match layout {
        RopeLayout::Halves => rotate_halves(cpu::level(), heads, angles),
        RopeLayout::Adjacent => rotate_adjacent(cpu::level(), heads, angles),
    }
}

per_level! {
    fn rotate_halves(heads: &mut [f32], angles: &[f32]) {
        let (cos, sin) = angles.split_at(angles.len() / 2);
        for head in heads.chunks_exact_mut(angles.len()) {
            let (first, second) = head.split_at_mut(cos.len());
            for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
            }
        }
    }
}

per_level! {
    fn rotate_adjacent(heads: &mut [f32], angles: &[f32]) {
        let (cos, sin) = angles.split_at(angles.len() / 2);
        for head in heads.chunks_exact_mut(angles.len()) {
            for (([a, b], c), s) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Level;

    #[test]
    fn rotation_is_the_complex_product() {
        let (dim, position) = (10, 7);
        let frequency = |i: usize| 100.0_f32.powf(-2.0 * i as f32 / dim as f32);
        let frequencies: Vec<f32> = (0..dim / 2).map(frequency).collect();
        let mut table = Vec::new();
        fill_angles(&frequencies, &[0, position], &mut table);
        let angles = &table[dim..];
        let x: Vec<f32> = (0..3 * dim).map(|i| (i as f32 * 0.7).sin()).collect();
        for &level in Level::available() {
            let (mut halves, mut adjacent) = (x.clone(), x.clone());
            rotate_halves(level, &mut halves, angles);
            rotate_adjacent(level, &mut adjacent, angles);
            for head in 0..3 {
                for i in 0..dim / 2 {
                    let angle = position as f32 * frequency(i);
                    let check = |out: &[f32], a: usize, b: usize| {
                        let (a, b) = (head * dim + a, head * dim + b);
                        let want = x[a] * angle.cos() - x[b] * angle.sin();
                        assert!((out[a] - want).abs() < 1e-5, "{level:?}: {} is not {want}", out[a]);
                        let want = x[a] * angle.sin() + x[b] * angle.cos();
                        assert!((out[b] - want).abs() < 1e-5, "{level:?}: {} is not {want}", out[b]);
                    };
                    check(&halves, i, i + dim / 2);
                    check(&adjacent, 2 * i, 2 * i + 1);
                }
            }
        }
        let mut unmoved = x.clone();
        rotate(&mut unmoved, &table[..dim], RopeLayout::Halves);
        assert_eq!(unmoved, x);
    }
}
