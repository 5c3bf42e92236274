//! What methods work in.

use sketchkv_kernels::attention::Queries;
use std::mem::size_of;

/// Buffers that a method borrows while it computes and gives back: they serve again, so that a step asks for no memory.
/// Nothing in them outlives a call, so they are no part of a ledger.
#[derive(Default)]
pub struct Buffers {
    floats: Vec<Vec<f32>>,
    doubles: Vec<Vec<f64>>,
    words: Vec<Vec<u64>>,
    queries: Vec<Queries>,
}

impl Buffers {
    /// So many zeros.
    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        let mut floats = self.floats.pop().unwrap_or_default();
        floats.clear();
        floats.resize(count, 0.0);
        floats
    }

    /// Takes floats back.
    pub fn give_floats(&mut self, floats: impl IntoIterator<Item = Vec<f32>>) {
        self.floats.extend(floats);
    }

    /// So many zeros, for sums that must be exact.
    pub fn doubles(&mut self, count: usize) -> Vec<f64> {
        let mut doubles = self.doubles.pop().unwrap_or_default();
        doubles.clear();
        doubles.resize(count, 0.0);
        doubles
    }

    /// Takes doubles back.
    pub fn give_doubles(&mut self, doubles: impl IntoIterator<Item = Vec<f64>>) {
        self.doubles.extend(doubles);
    }

    /// Room for words, none yet.
    pub fn words(&mut self) -> Vec<u64> {
        let mut words = self.words.pop().unwrap_or_default();
        words.clear();
        words
    }

    /// Takes words back.
    pub fn give_words(&mut self, words: Vec<u64>) {
        self.words.push(words);
    }

    /// Queries to be set.
    pub(crate) fn queries(&mut self) -> Queries {
        self.queries.pop().unwrap_or_default()
    }

    /// Takes queries back.
    pub(crate) fn give_queries(&mut self, queries: impl IntoIterator<Item = Queries>) {
        self.queries.extend(queries);
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        let floats = self.floats.iter().map(|floats| floats.capacity() * size_of::<f32>()).sum::<usize>();
        let doubles = self.doubles.iter().map(|doubles| doubles.capacity() * size_of::<f64>()).sum::<usize>();
        let words = self.words.iter().map(|words| words.capacity() * size_of::<u64>()).sum::<usize>();
        let queries = self.queries.iter().map(Queries::bytes).sum::<usize>();
        let tables = self.floats.capacity() * size_of::<Vec<f32>>()
            + self.doubles.capacity() * size_of::<Vec<f64>>()
            + self.words.capacity() * size_of::<Vec<u64>>()
            + self.queries.capacity() * size_of::<Queries>();
        floats + doubles + words + queries + tables
    }
}
