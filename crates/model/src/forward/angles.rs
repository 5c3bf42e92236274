//! The angles by which queries and keys of a pass are rotated.

use crate::config::Rotary;
use sketchkv_kernels::ops::{RopeLayout, fill_angles, rotate};

/// The rotations of a model's layers, each distinct one once: most models have one, those with sliding layers two.
pub(crate) struct Rotations {
    distinct: Vec<Rotary>,
    /// Which of them a layer has, `None` where nothing is rotated; and the width of its heads.
    of_layer: Vec<Option<(usize, usize)>>,
}

impl Rotations {
    /// Those of layers, each with the width of its heads.
    pub(crate) fn new<'r>(layers: impl Iterator<Item = (&'r Option<Rotary>, usize)>) -> Rotations {
        let mut distinct: Vec<Rotary> = vec![];
        let mut index = |rotary: &Rotary| {
            distinct.iter().position(|other| other == rotary).unwrap_or_else(|| {
                distinct.push(rotary.clone());
                distinct.len() - 1
            })
        };
        let of_layer = layers.map(|(rotary, width)| rotary.as_ref().map(|rotary| (index(rotary), width)));
        let of_layer = of_layer.collect();
        Rotations { distinct, of_layer }
    }
}

/// The angles of the tokens of a pass, computed once for all layers and heads.
#[derive(Default)]
pub(super) struct Angles {
    /// Of each distinct rotation `[token][cos, sin][dimensions / 2]`.
    tables: Vec<Vec<f32>>,
    frequencies: Vec<f32>,
}

impl Angles {
    /// Those of tokens at these positions, which are stretches of `spans`: the number of tokens of each, and of its
    /// sequence at the end of the call.
    pub(super) fn fill(
        &mut self,
        rotations: &Rotations,
        positions: &[usize],
        spans: impl Iterator<Item = (usize, usize)> + Clone,
    ) {
        let Angles { tables, frequencies } = self;
        tables.resize_with(rotations.distinct.len(), Vec::new);
        for (rotary, table) in rotations.distinct.iter().zip(tables) {
            table.clear();
            let mut rest = positions;
            for (count, length) in spans.clone() {
                let own;
                (own, rest) = rest.split_at(count);
                rotary.frequencies(length, frequencies);
                fill_angles(frequencies, own, table);
            }
            let magnitude = rotary.magnitude();
            if magnitude != 1.0 {
                table.iter_mut().for_each(|x| *x *= magnitude);
            }
        }
    }

    /// Rotates the first dimensions of the heads of `rows`, `[token][head][width]`, as layer `layer` does.
    pub(super) fn rotate(&self, rotations: &Rotations, layer: usize, rows: &mut [f32], row_width: usize) {
        let Some((index, width)) = rotations.of_layer[layer] else { return };
        let dimensions = rotations.distinct[index].dimensions();
        let angles = self.tables[index].chunks_exact(dimensions);
        for (row, angles) in rows.chunks_exact_mut(row_width).zip(angles) {
            if dimensions == width {
                rotate(row, angles, RopeLayout::Halves);
                continue;
            }
            for head in row.chunks_exact_mut(width) {
                rotate(&mut head[..dimensions], angles, RopeLayout::Halves);
            }
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let tables = self.tables.iter().chain([&self.frequencies]);
        tables.map(|table| table.capacity() * size_of::<f32>()).sum::<usize>()
            + self.tables.capacity() * size_of::<Vec<f32>>()
    }
}
