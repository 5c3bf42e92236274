//! Groups of tokens that are attended to as one token each.

use crate::context::{Buffers, Context, Partial, Softcap};
use crate::state::{Reader, StateError, Writer};
use sketchkv_kernels::attention::layout::{Encoding, STRIP, Side, StripLayout, padded};
use sketchkv_kernels::attention::{Queries, Strips, exponentials, key_scores, maximum, value_sums};
use sketchkv_kernels::cpu;
use std::mem::size_of;

/// Mean keys and values of groups, in the strips of an f16 page: half the bytes of f32, and the rounding of a mean is
/// far below the spread of what it stands for.
///
/// A group of c tokens with mean key k̄ and mean value v̄ enters attention as one token of value v̄ and logit
/// q·k̄/√d + ln c + β·r²‖q‖²/2d², where r² is the mean of ‖k − k̄‖². The last term is there because a mean of exponentials
/// exceeds the exponential of the mean, by e^(σ²/2) where logits are normal with variance σ². Queries vary less along
/// the spread of a group than in all directions alike, hence a share β below 1.
#[derive(Clone)]
pub(crate) struct Means {
    key_dim: usize,
    value_dim: usize,
    softcap: Softcap,
    /// Dimension-major.
    keys: Strips,
    /// Slot-major.
    values: Strips,
    /// ‖k̄‖² of each group.
    norms: Vec<f32>,
    /// Mean ‖k − k̄‖² of each group.
    spreads: Vec<f32>,
}

fn layout(side: Side, head_dim: usize) -> StripLayout {
    StripLayout::new(side, Encoding::F16, padded(head_dim))
}

impl Means {
    /// Room for `groups` groups, a multiple of 16.
    pub(crate) fn new(groups: usize, context: &Context<'_>) -> Self {
        let (keys, values) = (Strips::default(), Strips::default());
        let (key_dim, value_dim) = (context.layer().key_dim, context.layer().value_dim);
        let softcap = context.softcap();
        let mut means = Means { key_dim, value_dim, softcap, keys, values, norms: vec![], spreads: vec![] };
        means.resize(groups);
        means
    }

    /// Heap bytes of `groups` groups, a multiple of 16.
    pub(crate) fn bytes_of(&self, groups: usize) -> usize {
        groups * (2 * (padded(self.key_dim) + padded(self.value_dim)) + 2 * size_of::<f32>())
    }

    /// Makes room for `groups` groups, a multiple of 16, or gives room back.
    pub(crate) fn resize(&mut self, groups: usize) {
        self.keys.resize(groups / STRIP * layout(Side::Keys, self.key_dim).strip_bytes());
        self.values.resize(groups / STRIP * layout(Side::Values, self.value_dim).strip_bytes());
        for floats in [&mut self.norms, &mut self.spreads] {
            floats.reserve_exact(groups.saturating_sub(floats.len()));
            floats.resize(groups, 0.0);
            floats.shrink_to_fit();
        }
    }

    /// ‖k − k̄‖² to the mean key of every group; to be given back.
    pub(crate) fn distances(&self, key: &[f32], buffers: &mut Buffers) -> Vec<f32> {
        let norm: f32 = key.iter().map(|x| x * x).sum();
        let mut dots = self.dots(key, buffers);
        for (dot, mean) in dots.iter_mut().zip(&self.norms) {
            *dot = (norm - 2.0 * *dot + mean).max(0.0);
        }
        dots
    }

    /// Takes a token into a group of which it becomes the 1/`rate`-th; `distance` is its ‖k − k̄‖² before.
    pub(crate) fn join(&mut self, group: usize, key: &[f32], value: &[f32], rate: f32, distance: f32) {
        pull(&layout(Side::Values, self.value_dim), &mut self.values, group, value, rate);
        self.norms[group] = pull(&layout(Side::Keys, self.key_dim), &mut self.keys, group, key, rate);
        // Σ‖k − k̄‖² grows by ‖k − k̄‖²·c/(c + 1) when a group of c takes k in, and rate is 1/(c + 1).
        let spread = &mut self.spreads[group];
        *spread += (distance * (1.0 - rate) - *spread) * rate;
    }

    /// Adds the groups to the attention of `queries`, `[query][key_dim]`, scaled; `logs` is ln c of each group, −∞ of
    /// those to be left out, and `share` is β.
    pub(crate) fn attend(
        &self,
        queries: &[f32],
        logs: &[f32],
        share: f32,
        partial: &mut Partial,
        buffers: &mut Buffers,
    ) {
        let (level, d, n) = (cpu::level(), self.key_dim, self.norms.len());
        let layout = layout(Side::Values, self.value_dim);
        let rows = queries.len() / d;
        let mut weights = self.dots(queries, buffers);
        self.softcap.apply(&mut weights);
        let mut acc = buffers.floats(rows * layout.dim());
        let (mut max, mut sum) = (buffers.floats(rows), buffers.floats(rows));
        for (row, weights) in weights.chunks_exact_mut(n).enumerate() {
            let norm: f32 = queries[row * d..][..d].iter().map(|q| q * q).sum();
            let variance = share * norm / (2 * d) as f32;
            for ((logit, log), spread) in weights.iter_mut().zip(logs).zip(&self.spreads) {
                *logit += log + variance * spread;
            }
            max[row] = maximum(level, weights);
            sum[row] = exponentials(level, weights, max[row]);
        }
        value_sums(level, &layout, &weights, n, self.values[..].into(), &mut acc);
        for (row, acc) in acc.chunks_exact(layout.dim()).enumerate() {
            partial.add(row, max[row], sum[row], &acc[..self.value_dim]);
        }
        buffers.give_floats([weights, acc, max, sum]);
    }

    /// The product of every mean key with every query, `[query][group]`; to be given back.
    fn dots(&self, queries: &[f32], buffers: &mut Buffers) -> Vec<f32> {
        let (d, n) = (self.key_dim, self.norms.len());
        let queries = wide(queries, d, buffers);
        let mut dots = buffers.floats(queries.count() * n);
        key_scores(cpu::level(), &layout(Side::Keys, d), None, &queries, self.keys[..].into(), &mut dots, n);
        buffers.give_queries([queries]);
        dots
    }

    pub(crate) fn save(&self, out: &mut Writer) {
        out.floats(&self.norms);
        out.floats(&self.spreads);
        out.blob(&self.keys);
        out.blob(&self.values);
    }

    /// Reads what [`Means::save`] wrote for as many groups.
    pub(crate) fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.norms = from.floats(self.norms.len())?;
        self.spreads = from.floats(self.spreads.len())?;
        load_strips(&mut self.keys, from)?;
        load_strips(&mut self.values, from)
    }
}

/// Reads strips of the length that they have.
pub(crate) fn load_strips(strips: &mut Strips, from: &mut Reader<'_>) -> Result<(), StateError> {
    let bytes = from.blob()?;
    if bytes.len() != strips.len() {
        let (n, belong) = (bytes.len(), strips.len());
        return Err(StateError::Corrupt(format!("{n} bytes of strips where {belong} belong")));
    }
    strips.copy_from_slice(bytes);
    Ok(())
}

/// Queries `[query][head_dim]` as the kernels take them, padded to whole blocks; to be given back.
pub(crate) fn wide(queries: &[f32], head_dim: usize, buffers: &mut Buffers) -> Queries {
    let dim = padded(head_dim);
    let mut wide = buffers.queries();
    if dim == head_dim {
        wide.set(queries, dim);
    } else {
        let mut rows = buffers.floats(queries.len() / head_dim * dim);
        for (row, q) in rows.chunks_exact_mut(dim).zip(queries.chunks_exact(head_dim)) {
            row[..head_dim].copy_from_slice(q);
        }
        wide.set(&rows, dim);
        buffers.give_floats([rows]);
    }
    wide
}

/// Moves the mean in one lane towards `x` by `rate`; returns its squared norm.
fn pull(layout: &StripLayout, strips: &mut [u8], group: usize, x: &[f32], rate: f32) -> f32 {
    let bytes = layout.strip_bytes();
    let strip = &mut strips[group / STRIP * bytes..][..bytes];
    let mut mean = [0.0f32; 512];
    let mean = &mut mean[..layout.dim()];
    layout.get(strip, group % STRIP, None, mean);
    mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += (x - *mean) * rate);
    layout.put(strip, group % STRIP, mean);
    layout.get(strip, group % STRIP, None, mean);
    mean.iter().map(|x| x * x).sum()
}
