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
        zeros(&mut self.floats, count)
    }

    /// Takes floats back.
    pub fn give_floats(&mut self, floats: impl IntoIterator<Item = Vec<f32>>) {
        self.floats.extend(floats);
    }

    /// So many zeros, for sums that must be exact.
    pub fn doubles(&mut self, count: usize) -> Vec<f64> {
        zeros(&mut self.doubles, count)
    }

    /// Takes doubles back.
    pub fn give_doubles(&mut self, doubles: impl IntoIterator<Item = Vec<f64>>) {
        self.doubles.extend(doubles);
    }

    /// Room for words, none yet.
    pub fn words(&mut self) -> Vec<u64> {
        zeros(&mut self.words, 0)
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
        let queries = self.queries.iter().map(Queries::bytes).sum::<usize>();
        let table = self.queries.capacity() * size_of::<Queries>();
        held(&self.floats) + held(&self.doubles) + held(&self.words) + queries + table
    }
}

/// So many zeros in a buffer that was given back, or a new one.
fn zeros<T: Clone + Default>(idle: &mut Vec<Vec<T>>, count: usize) -> Vec<T> {
    let mut buffer = idle.pop().unwrap_or_default();
    buffer.clear();
    buffer.resize(count, T::default());
    buffer
}

/// Heap bytes of buffers that were given back.
fn held<T>(idle: &Vec<Vec<T>>) -> usize {
    idle.iter().map(|buffer| buffer.capacity() * size_of::<T>()).sum::<usize>()
        + idle.capacity() * size_of::<Vec<T>>()
}
