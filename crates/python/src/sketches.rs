//! `CountMin` and `CountSketch`: counts of keys, on arrays.

use crate::error::Failure;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Counts per key in a table, never too few.
#[pyclass(module = "sketchkv")]
pub(crate) struct CountMin(sketchkv_sketch::CountMin<u64>);

/// Counts per key in a table of signed counters: errors go either way.
#[pyclass(module = "sketchkv")]
pub(crate) struct CountSketch(sketchkv_sketch::CountSketch<i64>);

/// Keys, and an amount for each if there are any.
fn check(keys: &[u64], amounts: usize) -> Result<(), Failure> {
    if keys.len() == amounts {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("{} keys and {amounts} amounts: give one for each key", keys.len()))
        .into())
}

macro_rules! counts {
    ($name:ident, $sketch:ident, $amount:ty) => {
        #[pymethods]
        impl $name {
            #[new]
            #[pyo3(signature = (width, depth, *, seed = 0))]
            fn new(width: usize, depth: usize, seed: u64) -> Result<Self, Failure> {
                Ok($name(sketchkv_sketch::$sketch::new(width, depth, seed)?))
            }

            /// A sketch whose estimates are off by more than its bound with probability `delta` at most.
            #[staticmethod]
            #[pyo3(signature = (epsilon, delta, *, seed = 0))]
            fn for_error(epsilon: f64, delta: f64, seed: u64) -> Result<Self, Failure> {
                Ok($name(sketchkv_sketch::$sketch::for_error(epsilon, delta, seed)?))
            }

            #[getter]
            fn width(&self) -> usize {
                self.0.width()
            }

            #[getter]
            fn depth(&self) -> usize {
                self.0.depth()
            }

            /// Bytes of the table.
            #[getter]
            fn nbytes(&self) -> usize {
                self.0.bytes()
            }

            /// Adds an amount to each key; one where no amounts are given.
            #[pyo3(signature = (keys, amounts = None))]
            fn update(
                &mut self,
                py: Python<'_>,
                keys: PyReadonlyArray1<'_, u64>,
                amounts: Option<PyReadonlyArray1<'_, $amount>>,
            ) -> Result<(), Failure> {
                let keys = keys.as_slice().map_err(|_| contiguous())?;
                let ones;
                let amounts = match &amounts {
                    Some(amounts) => amounts.as_slice().map_err(|_| contiguous())?,
                    None => {
                        ones = vec![1; keys.len()];
                        &ones
                    }
                };
                check(keys, amounts.len())?;
                py.detach(|| self.0.update_hash_batch_weighted(keys, amounts));
                Ok(())
            }

            /// An estimate for each key.
            fn query<'py>(
                &self,
                py: Python<'py>,
                keys: PyReadonlyArray1<'_, u64>,
            ) -> Result<Bound<'py, PyArray1<$amount>>, Failure> {
                let keys = keys.as_slice().map_err(|_| contiguous())?;
                let mut estimates = vec![0; keys.len()];
                py.detach(|| self.0.query_hash_batch(keys, &mut estimates));
                Ok(PyArray1::from_vec(py, estimates))
            }

            /// Takes in what another sketch of the same size and seed has counted.
            fn merge(&mut self, other: PyRef<'_, Self>) -> Result<(), Failure> {
                Ok(self.0.merge(&other.0)?)
            }

            fn clear(&mut self) {
                self.0.clear();
            }

            fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
                PyBytes::new(py, &self.0.to_bytes())
            }

            #[staticmethod]
            fn from_bytes(bytes: &[u8]) -> Result<Self, Failure> {
                Ok($name(sketchkv_sketch::$sketch::from_bytes(bytes)?))
            }
        }
    };
}

counts!(CountMin, CountMin, u64);
counts!(CountSketch, CountSketch, i64);

/// Said of arrays that are strided.
pub(crate) fn contiguous() -> Failure {
    PyValueError::new_err("the array is strided: give numpy.ascontiguousarray of it").into()
}
