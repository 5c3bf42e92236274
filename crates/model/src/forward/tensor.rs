//! Activations of a pass, in memory that is lent and comes back.

use std::cell::RefCell;
use std::mem;

/// Memory for activations. It grows to what a pass needs at once and serves every later pass; of two buffers that would
/// do, the smaller is lent.
#[derive(Default)]
pub(crate) struct Arena {
    free: RefCell<Vec<Vec<f32>>>,
}

impl Arena {
    /// Activations `[rows][width]`, to be written before they are read.
    pub(crate) fn tensor(&self, rows: usize, width: usize) -> Tensor<'_> {
        let length = rows * width;
        let mut memory = self.lend(length);
        if memory.len() < length {
            memory.reserve_exact(length - memory.len());
            memory.resize(length, 0.0);
        }
        Tensor { memory, rows, width, arena: self }
    }

    /// The smallest buffer that holds `length` values, or the largest of those that do not.
    fn lend(&self, length: usize) -> Vec<f32> {
        let mut free = self.free.borrow_mut();
        let order = |memory: &Vec<f32>| {
            let fits = memory.len() >= length;
            (!fits, if fits { memory.len() } else { usize::MAX - memory.len() })
        };
        let best = (0..free.len()).min_by_key(|i| order(&free[*i]));
        best.map(|i| free.swap_remove(i)).unwrap_or_default()
    }

    /// Bytes held, while none are lent.
    pub(crate) fn bytes(&self) -> usize {
        let free = self.free.borrow();
        let values: usize = free.iter().map(Vec::capacity).sum();
        values * size_of::<f32>() + free.capacity() * size_of::<Vec<f32>>()
    }
}

/// Activations `[row][width]`, a row for each token of the pass.
///
/// Architectures hand them from one operation to the next and cannot look inside: where they lie is the operations'
/// business.
pub(crate) struct Tensor<'a> {
    /// At least `rows · width` values.
    memory: Vec<f32>,
    rows: usize,
    width: usize,
    arena: &'a Arena,
}

impl Tensor<'_> {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.memory[..self.rows * self.width]
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.rows * self.width]
    }
}

impl Drop for Tensor<'_> {
    fn drop(&mut self) {
        self.arena.free.borrow_mut().push(mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_back_is_lent_again() {
        let arena = Arena::default();
        let pass = || {
            let x = arena.tensor(2, 3);
            let wide = arena.tensor(2, 40);
            drop(arena.tensor(2, 4));
            let like_x = arena.tensor(1, 6);
            assert_eq!((x.values().len(), wide.values().len(), like_x.rows(), like_x.width()), (6, 80, 1, 6));
        };
        pass();
        let held = arena.bytes();
        assert_eq!(arena.free.borrow().iter().map(Vec::len).sum::<usize>(), 6 + 80 + 8, "6 fit where 8 were");
        pass();
        assert_eq!(arena.bytes(), held);
        // A longer pass makes the buffers longer, not more.
        drop((arena.tensor(4, 40), arena.tensor(4, 3), arena.tensor(4, 3)));
        assert_eq!(arena.free.borrow().len(), 3);
    }
}
