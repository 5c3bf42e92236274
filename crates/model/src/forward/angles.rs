//! The angles by which queries and keys of a pass are rotated.

use sketchkv_cache::{LayerShape, Rotation};
use sketchkv_kernels::ops::{Rope, RopeLayout, rotate};

/// The rotations of a model's layers, each distinct one once: most models have one, those with sliding layers two.
pub(crate) struct Rotations {
    distinct: Vec<Rope>,
    /// Which of them a layer has, `None` where nothing is rotated.
    of_layer: Vec<Option<usize>>,
}

impl Rotations {
    pub(crate) fn new(layers: &[LayerShape]) -> Rotations {
        let mut known = vec![];
        let mut of_layer = vec![];
        for layer in layers {
            of_layer.push(layer.rotation.as_ref().map(|rotation| {
                known.iter().position(|other| *other == rotation).unwrap_or_else(|| {
                    known.push(rotation);
                    known.len() - 1
                })
            }));
        }
        let rope = |rotation: &&Rotation| Rope::from_frequencies(rotation.inverse_frequencies.to_vec());
        Rotations { distinct: known.iter().map(rope).collect(), of_layer }
    }
}

/// The angles of the tokens of a pass, computed once for all layers and heads.
#[derive(Default)]
pub(super) struct Angles {
    /// Of each distinct rotation `[token][cos, sin][head_dim / 2]`.
    tables: Vec<Vec<f32>>,
}

impl Angles {
    /// Those of tokens at these positions.
    pub(super) fn fill(&mut self, rotations: &Rotations, positions: &[usize]) {
        self.tables.resize_with(rotations.distinct.len(), Vec::new);
        for (rope, table) in rotations.distinct.iter().zip(&mut self.tables) {
            rope.fill(positions.iter().copied(), table);
        }
    }

    /// Rotates `rows`, `[token][head][head_dim]`, as layer `layer` does.
    pub(super) fn rotate(&self, rotations: &Rotations, layer: usize, rows: &mut [f32], width: usize) {
        let Some(index) = rotations.of_layer[layer] else { return };
        let angles = self.tables[index].chunks_exact(rotations.distinct[index].head_dim());
        for (row, angles) in rows.chunks_exact_mut(width).zip(angles) {
            rotate(row, angles, RopeLayout::Halves);
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let tables = self.tables.iter().map(|table| table.capacity() * size_of::<f32>());
        tables.sum::<usize>() + self.tables.capacity() * size_of::<Vec<f32>>()
    }
}
