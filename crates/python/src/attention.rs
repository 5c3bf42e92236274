//! `AttentionCaches`: the caches of a batch whose model runs elsewhere, layer by layer.

use crate::cache::{self, ledger_dict};
use crate::error::Failure;
use crate::options;
use numpy::{PyArray1, PyArray4, PyArrayMethods, PyReadonlyArray4, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sketchkv_cache::{
    AttentionWorkspace, Cache, CacheError, CacheShape, LayerShape, Ledger, PausedPass, Rotation, Slots, Spec,
};
use sketchkv_engine::Profile;
use sketchkv_kernels::{ThreadPool, for_each_mut};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// One cache for each sequence of a batch, and the pass that runs over them.
#[pyclass(module = "sketchkv._sketchkv")]
pub(crate) struct AttentionCaches {
    rows: Vec<Row>,
    /// Tokens of a row in the pass that runs, padding included; 0 between passes.
    tokens: usize,
    shape: CacheShape,
    spec: Spec,
    seed: u64,
    pool: Arc<ThreadPool>,
    workspace: AttentionWorkspace,
}

struct Row {
    cache: Cache,
    /// Of the tokens of the pass, those that are no padding.
    span: Range<usize>,
    pass: Option<PausedPass>,
}

/// One layer, as `sketchkv.transformers` reads it from a config.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Layer {
    heads: usize,
    kv_heads: usize,
    key_dim: usize,
    value_dim: usize,
    scale: f32,
    softcap: Option<f32>,
    window: Option<usize>,
    inverse_frequencies: Option<Vec<f32>>,
    biased_keys: bool,
}

impl From<Layer> for LayerShape {
    fn from(layer: Layer) -> LayerShape {
        LayerShape {
            heads: layer.heads,
            kv_heads: layer.kv_heads,
            key_dim: layer.key_dim,
            value_dim: layer.value_dim,
            scale: layer.scale,
            softcap: layer.softcap,
            window: layer.window,
            biased_keys: layer.biased_keys,
            rotation: layer.inverse_frequencies.map(|all| Rotation { inverse_frequencies: all.into() }),
        }
    }
}

#[pymethods]
impl AttentionCaches {
    #[new]
    fn new(
        layers: Vec<Layer>,
        context: usize,
        spec: &str,
        bytes: Option<&Bound<'_, PyAny>>,
        seed: u64,
        threads: usize,
        profile: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        if threads == 0 || threads > 1024 {
            return Err(PyValueError::new_err("threads are 1 to 1024").into());
        }
        let layers = layers.into_iter().map(LayerShape::from).collect();
        let mut shape = CacheShape { layers, context, output: None, scorer: None };
        if let Some(name) = profile {
            let profile = Profile::open(&name.to_string_lossy(), &shape).map_err(Failure::refuse)?;
            shape.scorer = Some(profile.scorer);
        }
        let spec = options::spec(spec, bytes)?;
        // What does not fit is told before a model runs.
        Cache::new(shape.clone(), &spec, seed)?;
        let (pool, workspace) = (Arc::new(ThreadPool::new(threads)), AttentionWorkspace::new());
        Ok(AttentionCaches { rows: Vec::new(), tokens: 0, shape, spec, seed, pool, workspace })
    }

    #[getter]
    fn spec(&self) -> String {
        self.spec.to_string()
    }

    /// Sequences in the batch; 0 before the first pass.
    fn __len__(&self) -> usize {
        self.rows.len()
    }

    /// Tokens that each sequence has seen.
    #[getter]
    fn positions(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.cache.position()).collect()
    }

    #[getter]
    fn has_evicted(&self) -> bool {
        self.rows.iter().any(|row| row.cache.has_evicted())
    }

    /// Bytes by what takes them, of all sequences, and their `total`.
    fn ledger<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let sum: Ledger = self.rows.iter().map(|row| row.cache.ledger()).sum();
        ledger_dict(py, &sum)
    }

    /// Begins a pass over `tokens` tokens of every sequence, of which `spans` are no padding. One that was not finished has
    /// never been.
    fn begin(&mut self, tokens: usize, spans: Vec<(usize, usize)>) -> Result<(), Failure> {
        self.abandon();
        if let Some((from, to)) = spans.iter().find(|(from, to)| from > to || *to > tokens) {
            return Err(PyValueError::new_err(format!("{from} to {to} is no span of {tokens} tokens")).into());
        }
        if self.rows.is_empty() {
            let new = || Cache::new(self.shape.clone(), &self.spec, self.seed);
            let row = |cache| Row { cache, span: 0..0, pass: None };
            self.rows = spans.iter().map(|_| new().map(row)).collect::<Result<_, CacheError>>()?;
        }
        if spans.len() != self.rows.len() {
            let (given, held) = (spans.len(), self.rows.len());
            return Err(Failure::refuse(format!(
                "a batch of {given} over a cache of {held}: make a cache for each batch, or use batch_repeat_interleave"
            )));
        }
        for (row, (from, to)) in self.rows.iter_mut().zip(spans) {
            row.span = from..to;
            if from < to {
                row.pass = Some(row.cache.begin(to - from, &mut self.workspace)?.pause());
            }
        }
        self.tokens = tokens;
        Ok(())
    }

    /// Drops the pass that runs, if one does.
    fn abandon(&mut self) {
        self.tokens = 0;
        self.rows.iter_mut().for_each(|row| row.pass = None);
    }

    /// Attention of one layer: `q` `[sequence][token][head][key_dim]`, `k` and `v` `[sequence][token][kv_head][…]`; the
    /// output is `[sequence][token][head][value_dim]`, 0 where there is padding.
    fn attend<'py>(
        &mut self,
        py: Python<'py>,
        layer: usize,
        q: PyReadonlyArray4<'_, f32>,
        k: PyReadonlyArray4<'_, f32>,
        v: PyReadonlyArray4<'_, f32>,
    ) -> Result<Bound<'py, PyArray4<f32>>, Failure> {
        let shape = self.layer(layer)?.clone();
        let (rows, tokens) = (self.rows.len(), self.tokens);
        let q = numbers("queries", &q, [rows, tokens, shape.heads, shape.key_dim])?;
        let k = numbers("keys", &k, [rows, tokens, shape.kv_heads, shape.key_dim])?;
        let v = numbers("values", &v, [rows, tokens, shape.kv_heads, shape.value_dim])?;
        let mut out = vec![0.0; rows * tokens * shape.heads * shape.value_dim];
        py.detach(|| {
            let AttentionCaches { rows, pool, workspace, .. } = self;
            let part = |x: &Range<usize>, width: usize| x.start * width..x.end * width;
            for (index, row) in rows.iter_mut().enumerate() {
                let Some(paused) = row.pass.take() else { continue };
                let at = index * tokens + row.span.start..index * tokens + row.span.end;
                let mut pass = row.cache.resume(paused)?;
                pass.attend(
                    layer,
                    pool,
                    workspace,
                    &q[part(&at, shape.heads * shape.key_dim)],
                    &k[part(&at, shape.kv_heads * shape.key_dim)],
                    &v[part(&at, shape.kv_heads * shape.value_dim)],
                    &mut out[part(&at, shape.heads * shape.value_dim)],
                )?;
                row.pass = Some(pass.pause());
            }
            Ok::<_, CacheError>(())
        })?;
        Ok(PyArray1::from_vec(py, out).reshape([rows, tokens, shape.heads, shape.value_dim])?)
    }

    /// Takes in the keys and values of one layer, without attention.
    fn store(
        &mut self,
        py: Python<'_>,
        layer: usize,
        k: PyReadonlyArray4<'_, f32>,
        v: PyReadonlyArray4<'_, f32>,
    ) -> Result<(), Failure> {
        let shape = self.layer(layer)?.clone();
        let (rows, tokens) = (self.rows.len(), self.tokens);
        let k = numbers("keys", &k, [rows, tokens, shape.kv_heads, shape.key_dim])?;
        let v = numbers("values", &v, [rows, tokens, shape.kv_heads, shape.value_dim])?;
        py.detach(|| {
            let (k_row, v_row) = (k.len() / rows.max(1), v.len() / rows.max(1));
            for (index, row) in self.rows.iter_mut().enumerate() {
                let Some(paused) = row.pass.take() else { continue };
                let mut pass = row.cache.resume(paused)?;
                pass.store(layer, &k[index * k_row..][..k_row], &v[index * v_row..][..v_row])?;
                row.pass = Some(pass.pause());
            }
            Ok::<_, CacheError>(())
        })?;
        Ok(())
    }

    /// Commits the pass.
    fn finish(&mut self, py: Python<'_>) -> Result<(), Failure> {
        let single = self.tokens == 1;
        self.tokens = 0;
        py.detach(|| {
            let AttentionCaches { rows, pool, workspace, .. } = self;
            for row in rows {
                let Some(paused) = row.pass.take() else { continue };
                row.cache.resume(paused)?.finish(pool, workspace)?;
            }
            Ok::<_, CacheError>(())
        })?;
        // The draft of a long pass is an uncompressed copy of its tokens: it must not stay.
        if !single {
            self.workspace = AttentionWorkspace::new();
        }
        Ok(())
    }

    /// What one layer holds, decoded: keys `[sequence][kv_head][token][key_dim]` and values, of sequences that are equally long.
    fn decoded<'py>(&self, py: Python<'py>, layer: usize) -> Result<Decoded<'py>, Failure> {
        let shape = self.layer(layer)?;
        let tokens = self.rows.first().map_or(0, |row| row.cache.position());
        if self.rows.iter().any(|row| {
            row.cache.position() != tokens || row.cache.kept(layer).iter().any(|&kept| kept != tokens)
        }) {
            return Err(Failure::refuse(
                "sequences that have lost tokens, or are not equally long, are no one tensor",
            ));
        }
        let (rows, heads) = (self.rows.len(), shape.kv_heads);
        let (keys, values) = py.detach(|| {
            let mut decoded = vec![Slots::default(); rows * heads];
            for_each_mut(&self.pool, &mut decoded, |index, slots| {
                *slots = self.rows[index / heads].cache.slots(layer, index % heads);
            });
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for slots in decoded {
                keys.extend(slots.keys);
                values.extend(slots.values);
            }
            (keys, values)
        });
        Ok((
            PyArray1::from_vec(py, keys).reshape([rows, heads, tokens, shape.key_dim])?,
            PyArray1::from_vec(py, values).reshape([rows, heads, tokens, shape.value_dim])?,
        ))
    }

    /// Positions, keys and values in the slots of one KV head of a sequence; positions do not count padding.
    fn slots<'py>(
        &self,
        py: Python<'py>,
        row: usize,
        layer: usize,
        kv_head: usize,
    ) -> Result<cache::Slots<'py>, Failure> {
        let Some(of) = self.rows.get(row) else {
            let held = self.rows.len();
            return Err(Failure::refuse(format!("there is no sequence {row} in a batch of {held}")));
        };
        py.detach(|| cache::held(&of.cache, layer, kv_head))?.arrays(py)
    }

    /// A second batch that goes on from here; they share pages until one writes to them. A pass that runs is not part of it.
    fn fork(&self) -> Self {
        let fork = |row: &Row| Row { cache: row.cache.fork(), span: 0..0, pass: None };
        AttentionCaches {
            rows: self.rows.iter().map(fork).collect(),
            tokens: 0,
            shape: self.shape.clone(),
            spec: self.spec.clone(),
            seed: self.seed,
            pool: self.pool.clone(),
            workspace: AttentionWorkspace::new(),
        }
    }

    /// Makes a batch of these sequences, any of them several times; they share pages until one writes to them.
    fn select(&mut self, indices: Vec<usize>) -> Result<(), Failure> {
        self.abandon();
        let held = self.rows.len();
        if let Some(index) = indices.iter().find(|&&index| index >= held) {
            return Err(
                PyValueError::new_err(format!("there is no sequence {index} in a batch of {held}")).into()
            );
        }
        let fork = |&index: &usize| Row { cache: self.rows[index].cache.fork(), span: 0..0, pass: None };
        self.rows = indices.iter().map(fork).collect();
        Ok(())
    }

    /// Forgets the newest `tokens` of every sequence; none does where one cannot.
    fn forget(&mut self, tokens: usize) -> Result<(), Failure> {
        self.abandon();
        let mut cut: Vec<Cache> = self.rows.iter().map(|row| row.cache.fork()).collect();
        for cache in &mut cut {
            cache.truncate(cache.position().saturating_sub(tokens))?;
        }
        for (row, cache) in self.rows.iter_mut().zip(cut) {
            row.cache = cache;
        }
        Ok(())
    }

    /// Another cap for every sequence from now on.
    fn set_cap(&mut self, py: Python<'_>, cap: &Bound<'_, PyAny>) -> Result<(), Failure> {
        self.abandon();
        let cap = options::cap(cap)?;
        let spec = Spec { cap, ..self.spec.clone() };
        Cache::new(self.shape.clone(), &spec, self.seed)?;
        py.detach(|| {
            let AttentionCaches { rows, pool, workspace, .. } = self;
            rows.iter_mut().try_for_each(|row| row.cache.set_cap(cap, pool, workspace))
        })?;
        self.spec = spec;
        Ok(())
    }

    /// Forgets every sequence.
    fn reset(&mut self) {
        self.tokens = 0;
        self.rows.clear();
    }
}

type Decoded<'py> = (Bound<'py, PyArray4<f32>>, Bound<'py, PyArray4<f32>>);

impl AttentionCaches {
    fn layer(&self, layer: usize) -> Result<&LayerShape, Failure> {
        self.shape.layers.get(layer).ok_or_else(|| {
            Failure::refuse(format!(
                "there is no layer {layer}: the cache was made for {}",
                self.shape.layers.len()
            ))
        })
    }
}

/// The numbers of an array that must have this shape.
fn numbers<'a>(
    what: &str,
    array: &'a PyReadonlyArray4<'_, f32>,
    shape: [usize; 4],
) -> Result<&'a [f32], Failure> {
    if array.shape() != shape {
        return Err(Failure::refuse(format!(
            "{what} of shape {:?} where the cache takes {shape:?}: it was made for a model of another config",
            array.shape()
        )));
    }
    array.as_slice().map_err(|_| crate::sketches::contiguous())
}
