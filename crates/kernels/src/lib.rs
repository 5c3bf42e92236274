//! SIMD kernels and the thread pool of sketchkv. Knows slices, not models.

mod pool;

pub use pool::ThreadPool;
