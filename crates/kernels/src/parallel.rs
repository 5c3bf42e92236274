//! Parallel regions over slices whose elements are changed, each by one task.

use crate::ThreadPool;

/// A pointer that tasks may share because each touches its own element.
struct Shared<T>(*mut T);

// SAFETY: only used for elements that no two tasks share; see `for_each_mut`.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `i` is in bounds and no other reference to element `i` lives.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self, i: usize) -> &mut T {
        // SAFETY: the caller's.
        unsafe { &mut *self.0.add(i) }
    }
}

/// Runs `task(i, &mut items[i])` once for every item.
pub fn for_each_mut<T: Send>(pool: &ThreadPool, items: &mut [T], task: impl Fn(usize, &mut T) + Sync) {
    let shared = Shared(items.as_mut_ptr());
    // SAFETY: `run` calls each index once, and returns before `items` is free again.
    pool.run(items.len(), &|i| task(i, unsafe { shared.get(i) }));
}

/// Runs `task(i, &mut a[i], &mut b[i])` once for every pair.
///
/// # Panics
/// When the lengths differ.
pub fn for_each_pair_mut<A: Send, B: Send>(
    pool: &ThreadPool,
    a: &mut [A],
    b: &mut [B],
    task: impl Fn(usize, &mut A, &mut B) + Sync,
) {
    assert_eq!(a.len(), b.len());
    let (shared_a, shared_b) = (Shared(a.as_mut_ptr()), Shared(b.as_mut_ptr()));
    // SAFETY: as above.
    pool.run(a.len(), &|i| unsafe { task(i, shared_a.get(i), shared_b.get(i)) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_once() {
        let pool = ThreadPool::new(2);
        let (mut a, mut b) = (vec![1u32; 1000], vec![0usize; 1000]);
        for_each_mut(&pool, &mut a, |i, a| *a += i as u32);
        for_each_pair_mut(&pool, &mut a, &mut b, |i, a, b| *b = *a as usize + i);
        assert!(b.iter().enumerate().all(|(i, &b)| b == 1 + 2 * i));
    }
}
