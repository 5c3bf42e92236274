//! `SimHash` and `Race`: sketches of vectors, on arrays.

use crate::error::Failure;
use crate::sketches::contiguous;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sketchkv_sketch::Projection;

/// Codes of signs: vectors at a small angle have codes at a small distance.
#[pyclass(module = "sketchkv")]
pub(crate) struct SimHash(sketchkv_sketch::SimHash);

/// Densities of a set of vectors, counted in hashed buckets.
#[pyclass(module = "sketchkv")]
pub(crate) struct Race(sketchkv_sketch::Race);

/// `[vector][dim]` as one slice.
fn rows<'a>(vectors: &'a PyReadonlyArray2<'_, f32>, dim: usize) -> Result<&'a [f32], Failure> {
    let found = vectors.shape()[1];
    if found != dim {
        return Err(PyValueError::new_err(format!(
            "vectors of {found} numbers where the sketch takes {dim}"
        ))
        .into());
    }
    vectors.as_slice().map_err(|_| contiguous())
}

#[pymethods]
impl SimHash {
    #[new]
    #[pyo3(signature = (dim, bits, *, projection = "gaussian", seed = 0))]
    fn new(dim: usize, bits: usize, projection: &str, seed: u64) -> Result<Self, Failure> {
        let projection = match projection {
            "gaussian" => Projection::Gaussian,
            "orthogonal" => Projection::Orthogonal,
            "hadamard" => Projection::Hadamard,
            _ => {
                let reason = format!(
                    "a projection is \"gaussian\", \"orthogonal\" or \"hadamard\", not {projection:?}"
                );
                return Err(PyValueError::new_err(reason).into());
            }
        };
        Ok(SimHash(sketchkv_sketch::SimHash::new(dim, bits, projection, seed)?))
    }

    #[getter]
    fn dim(&self) -> usize {
        self.0.dim()
    }

    #[getter]
    fn bits(&self) -> usize {
        self.0.bits()
    }

    /// The codes of many vectors.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        vectors: PyReadonlyArray2<'_, f32>,
    ) -> Result<Bound<'py, PyArray2<u64>>, Failure> {
        let (count, words) = (vectors.shape()[0], self.0.words());
        let vectors = rows(&vectors, self.0.dim())?;
        let mut codes = vec![0; count * words];
        py.detach(|| self.0.encode_many(vectors, &mut codes));
        Ok(PyArray1::from_vec(py, codes).reshape([count, words])?)
    }

    /// The angle, in radians, that a Hamming distance of two codes stands for.
    fn angle(&self, distance: u32) -> f64 {
        self.0.angle(distance)
    }
}

/// The Hamming distances of one code to many.
#[pyfunction]
pub(crate) fn hamming<'py>(
    py: Python<'py>,
    query: PyReadonlyArray1<'_, u64>,
    codes: PyReadonlyArray2<'_, u64>,
) -> Result<Bound<'py, PyArray1<u32>>, Failure> {
    let (count, words) = (codes.shape()[0], codes.shape()[1]);
    let query = query.as_slice().map_err(|_| contiguous())?;
    if query.len() != words {
        let reason =
            format!("a code of {} words and others of {words}: give codes of one SimHash", query.len());
        return Err(PyValueError::new_err(reason).into());
    }
    let codes = codes.as_slice().map_err(|_| contiguous())?;
    let mut distances = vec![0; count];
    py.detach(|| sketchkv_sketch::hamming_many(query, codes, &mut distances));
    Ok(PyArray1::from_vec(py, distances))
}

#[pymethods]
impl Race {
    #[new]
    #[pyo3(signature = (rows, bits, dim, *, seed = 0))]
    fn new(rows: usize, bits: usize, dim: usize, seed: u64) -> Result<Self, Failure> {
        Ok(Race(sketchkv_sketch::Race::new(rows, bits, dim, seed)?))
    }

    #[getter]
    fn rows(&self) -> usize {
        self.0.rows()
    }

    #[getter]
    fn bits(&self) -> usize {
        self.0.bits()
    }

    #[getter]
    fn dim(&self) -> usize {
        self.0.dim()
    }

    /// Bytes of the counters and of the hash.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.bytes()
    }

    /// Adds vectors, each with a weight; 1 where none are given.
    #[pyo3(signature = (vectors, weights = None))]
    fn add(
        &mut self,
        py: Python<'_>,
        vectors: PyReadonlyArray2<'_, f32>,
        weights: Option<PyReadonlyArray1<'_, f32>>,
    ) -> Result<(), Failure> {
        let (count, dim) = (vectors.shape()[0], self.0.dim());
        let vectors = rows(&vectors, dim)?;
        let weights =
            weights.as_ref().map(|weights| weights.as_slice().map_err(|_| contiguous())).transpose()?;
        if let Some(weights) = weights.filter(|weights| weights.len() != count) {
            let reason = format!("{count} vectors and {} weights: give one for each vector", weights.len());
            return Err(PyValueError::new_err(reason).into());
        }
        py.detach(|| {
            for (index, vector) in vectors.chunks_exact(dim).enumerate() {
                self.0.add(vector, weights.map_or(1.0, |weights| weights[index]));
            }
        });
        Ok(())
    }

    /// The estimated density at each vector.
    fn query<'py>(
        &self,
        py: Python<'py>,
        vectors: PyReadonlyArray2<'_, f32>,
    ) -> Result<Bound<'py, PyArray1<f32>>, Failure> {
        let dim = self.0.dim();
        let vectors = rows(&vectors, dim)?;
        let densities = py.detach(|| vectors.chunks_exact(dim).map(|vector| self.0.query(vector)).collect());
        Ok(PyArray1::from_vec(py, densities))
    }

    /// Takes in what another sketch of the same size and seed has counted.
    fn merge(&mut self, other: PyRef<'_, Self>) -> Result<(), Failure> {
        Ok(self.0.merge(&other.0)?)
    }

    /// Multiplies everything added so far.
    fn decay(&mut self, factor: f32) -> Result<(), Failure> {
        if !(0.0..=1.0).contains(&factor) {
            return Err(PyValueError::new_err(format!("a factor is from 0 to 1, not {factor}")).into());
        }
        self.0.decay(factor);
        Ok(())
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    #[staticmethod]
    fn from_bytes(bytes: &[u8]) -> Result<Self, Failure> {
        Ok(Race(sketchkv_sketch::Race::from_bytes(bytes)?))
    }
}
