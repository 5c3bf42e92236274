//! How well stores give vectors back, apart from any attention.

use crate::{EvalError, Progress, Rng, Step};
use serde::{Deserialize, Serialize};
use sketchkv_cache::{
    AttentionWorkspace, Cache, CacheShape, LayerShape, Registry, Spec, method::Choice, tail,
};
use sketchkv_model::{Logits, Model, Sequence, Workspace};

/// Mean squared errors of stores, and cosines of the `countsketch` tail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distortion {
    /// The model's name.
    pub model: String,
    /// Tokens whose keys and values were stored.
    pub tokens: usize,
    /// One row per store.
    pub stores: Vec<StoreDistortion>,
    /// One row per number of vectors.
    pub countsketch: Vec<Recall>,
}

/// What a store loses: mean squared errors, as shares of the mean square.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreDistortion {
    /// The store's name.
    pub store: String,
    /// Bits a value of keys and values together takes, scales included.
    pub bits: f64,
    /// 4^-bits: no code of so many bits can do better on independent Gaussian values (Shannon's distortion-rate
    /// function).
    pub least: f64,
    /// Error on Gaussian vectors, keys and values alike.
    pub gaussian: f64,
    /// Error on the model's keys, all layers and heads.
    pub keys: f64,
    /// The least for Gaussian values with the variances of the channels of every page of keys, at `model_bits`.
    pub least_keys: f64,
    /// Error on the model's values, all layers and heads.
    pub values: f64,
    /// As `least_keys`, of values.
    pub least_values: f64,
    /// Bits a value of the model's keys and values together takes, scales included.
    pub model_bits: f64,
}

/// What a Count-Sketch of vectors gives back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// Vectors in the sketch.
    pub vectors: usize,
    /// Buckets of a row.
    pub width: usize,
    /// Rows.
    pub depth: usize,
    /// Mean cosine of a vector with what the sketch gives back for it.
    pub cosine: f64,
    /// 1/√(1 + vectors/width), which one row has in the mean.
    pub theory: f64,
}

/// Stores Gaussian vectors, and the model's keys and values of `tokens`, in every store, and reads them back.
///
/// # Errors
/// When there are fewer than 256 tokens, or the model fails.
pub fn distortion(
    model: &Model,
    tokens: &[u32],
    seed: u64,
    progress: &mut dyn Progress,
) -> Result<Distortion, EvalError> {
    let tokens = &tokens[..tokens.len() / 128 * 128];
    if tokens.len() < 256 {
        return Err(EvalError::Input("give a text of 256 tokens or more".into()));
    }
    // Without windows: a sliding layer would forget what is to be compared.
    let mut shape = CacheShape { output: None, ..model.cache_shape() };
    shape.layers.iter_mut().for_each(|layer| layer.window = None);
    let real = Vectors::of_model(model, &shape, tokens)?;
    let width = shape.layers[0].key_dim;
    let one = CacheShape::uniform(1, LayerShape::new(1, 1, width), shape.context);
    let gaussian = Vectors::gaussian(&one, tokens.len(), seed);
    let stores: Vec<&str> =
        Registry::builtin().methods().filter(|m| m.choice == Choice::Store).map(|m| m.name).collect();
    let mut rows = Vec::new();
    for (done, store) in stores.iter().enumerate() {
        let spec: Spec = format!("full+{store}").parse()?;
        let (bits, noise) = gaussian.stored(&one, &spec, model)?;
        let (model_bits, error) = real.stored(&shape, &spec, model)?;
        rows.push(StoreDistortion {
            store: (*store).to_owned(),
            bits,
            least: 4f64.powf(-bits),
            gaussian: (noise.keys + noise.values) / 2.0,
            keys: error.keys,
            least_keys: least(&real.keys, &shape, |layer| layer.key_dim, model_bits),
            values: error.values,
            least_values: least(&real.values, &shape, |layer| layer.value_dim, model_bits),
            model_bits,
        });
        progress.step(Step { what: store, done: done as u64 + 1, total: stores.len() as u64 });
    }
    Ok(Distortion {
        model: model.config().name.clone(),
        tokens: tokens.len(),
        stores: rows,
        countsketch: [16, 64, 256, 1024, 4096]
            .into_iter()
            .map(|vectors| recall(vectors, width, seed))
            .collect::<Result<_, _>>()?,
    })
}

/// The `countsketch` tail's own size.
fn recall(vectors: usize, dim: usize, seed: u64) -> Result<Recall, EvalError> {
    let spec: Spec = "window+countsketch@50%".parse()?;
    let size = |name| spec.tail.integer(name).unwrap_or(1).max(1);
    let (width, depth) = (size("width"), size("depth"));
    let cosine = tail::countsketch_cosine(vectors, width, depth, dim, seed)
        .map_err(|error| EvalError::Input(error.to_string()))?;
    Ok(Recall { vectors, width, depth, cosine, theory: (1.0 + vectors as f64 / width as f64).powf(-0.5) })
}

/// Keys and values of a text, `[layer][token][kv_head][key_dim]` and `[value_dim]`.
struct Vectors {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

/// Shares of the mean square.
struct Errors {
    keys: f64,
    values: f64,
}

/// A page is encoded when it is full: the last may not be yet.
const PAGE: usize = 64;

impl Vectors {
    fn gaussian(shape: &CacheShape, tokens: usize, seed: u64) -> Self {
        let mut rng = Rng::for_part(seed, "distortion");
        // Box and Muller.
        let mut normal = |_| {
            let (radius, angle) = (1.0 - rng.unit(), rng.unit());
            ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
        };
        let mut vectors = || vec![(0..tokens * shape.layers[0].key_dim).map(&mut normal).collect()];
        Vectors { keys: vectors(), values: vectors() }
    }

    /// Those that a model makes of some tokens in layers of this `shape`.
    fn of_model(model: &Model, shape: &CacheShape, tokens: &[u32]) -> Result<Self, EvalError> {
        let mut cache = Cache::new(model.cache_shape(), &crate::REFERENCE_SPEC.parse()?, 0)?;
        let tokens = &tokens[..tokens.len().min(narrowest(&model.cache_shape()))];
        let mut batch = [Sequence { tokens, cache: &mut cache }];
        model.forward(&mut batch, &mut Workspace::new(), Logits::None).all()?;
        Ok(Vectors::of(&cache, shape, tokens.len()))
    }

    /// What a cache that has evicted nothing holds.
    fn of(cache: &Cache, shape: &CacheShape, tokens: usize) -> Self {
        let empty = |width: fn(&LayerShape) -> usize| -> Vec<Vec<f32>> {
            shape.layers.iter().map(|layer| vec![0.0; tokens * layer.kv_heads * width(layer)]).collect()
        };
        let mut vectors =
            Vectors { keys: empty(|layer| layer.key_dim), values: empty(|layer| layer.value_dim) };
        for (layer, shape) in shape.layers.iter().enumerate() {
            for head in 0..shape.kv_heads {
                let slots = cache.slots(layer, head);
                let keys = (&slots.keys, &mut vectors.keys[layer], shape.key_dim);
                let values = (&slots.values, &mut vectors.values[layer], shape.value_dim);
                for (from, to, d) in [keys, values] {
                    for (token, x) in from.chunks_exact(d).enumerate() {
                        to[(token * shape.kv_heads + head) * d..][..d].copy_from_slice(x);
                    }
                }
            }
        }
        vectors
    }

    /// Bits a value takes in this cache, and what is lost of these vectors.
    fn stored(&self, shape: &CacheShape, spec: &Spec, model: &Model) -> Result<(f64, Errors), EvalError> {
        let mut cache = Cache::new(shape.clone(), spec, 0)?;
        let mut workspace = AttentionWorkspace::new();
        let first = &shape.layers[0];
        let tokens = self.keys[0].len() / (first.kv_heads * first.key_dim);
        let (pool, half) = (model.pool(), tokens / 2);
        let mut bytes = Vec::new();
        for part in 0..2 {
            let mut pass = cache.begin(half, &mut workspace)?;
            for (index, layer) in shape.layers.iter().enumerate() {
                let rows = |all: &[f32]| part * all.len() / 2..(part + 1) * all.len() / 2;
                let (keys, values) = (&self.keys[index], &self.values[index]);
                let (keys, values) = (&keys[rows(keys)], &values[rows(values)]);
                let query = vec![0.0; half * layer.heads * layer.key_dim];
                let mut out = vec![0.0; half * layer.heads * layer.value_dim];
                pass.attend(index, pool, &mut workspace, &query, keys, values, &mut out)?;
            }
            pass.finish(pool, &mut workspace)?;
            let ledger = cache.ledger();
            bytes.push(ledger.keys + ledger.values + ledger.scales);
        }
        // The second half's growth: what one page waits in is in both.
        let numbers = self.keys.iter().chain(&self.values).map(Vec::len).sum::<usize>() / 2;
        let bits = 8.0 * (bytes[1] - bytes[0]) as f64 / numbers as f64;
        let stored = Vectors::of(&cache, shape, tokens);
        let counted = 1.0 - PAGE as f64 / tokens as f64;
        let errors = Errors {
            keys: lost(&self.keys, &stored.keys, counted),
            values: lost(&self.values, &stored.values, counted),
        };
        Ok((bits, errors))
    }
}

/// Tokens that every layer of a model still sees.
fn narrowest(shape: &CacheShape) -> usize {
    shape.layers.iter().map(|layer| layer.visible(usize::MAX)).min().unwrap_or(0) / 128 * 128
}

/// The distortion-rate function of Gaussian values that have the variances of these in every channel of every page, by
/// reverse water-filling over the channels of a page and head (Cover & Thomas, Elements of Information Theory, 10.3.3), as
/// a share of the mean square. `[layer][token][kv_head][dim]`; a page's means are free.
fn least(vectors: &[Vec<f32>], shape: &CacheShape, dim: fn(&LayerShape) -> usize, bits: f64) -> f64 {
    let (mut error, mut square) = (0.0, 0.0);
    for (vectors, layer) in vectors.iter().zip(&shape.layers) {
        let width = layer.kv_heads * dim(layer);
        for page in vectors.chunks_exact(PAGE * width) {
            let channel = |c: usize| {
                let values = page.iter().skip(c).step_by(width).map(|&x| f64::from(x));
                let (sum, squares) = values.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
                square += squares;
                (squares - sum * sum / PAGE as f64).max(0.0)
            };
            let variances: Vec<f64> = (0..width).map(channel).collect();
            error += variances.chunks(dim(layer)).map(|head| water_filled(head, bits)).sum::<f64>();
        }
    }
    error / square
}

/// Σ min(θ, variance), with the level θ at which Σ max(0, ½·log2(variance/θ)) is so many bits for each variance.
fn water_filled(variances: &[f64], bits: f64) -> f64 {
    let mut sorted: Vec<f64> = variances.iter().copied().filter(|v| *v > 0.0).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    // The channels above the level: as many of the largest as lie above what their own share of the bits gives.
    let mut logs = 0.0;
    let mut level = 0.0;
    for (above, variance) in sorted.iter().rev().enumerate() {
        let next = (logs + variance.log2() - 2.0 * bits * variances.len() as f64) / (above + 1) as f64;
        if next.exp2() >= *variance {
            break;
        }
        logs += variance.log2();
        level = next.exp2();
    }
    variances.iter().map(|variance| variance.min(level)).sum()
}

/// Squared error over squares, of the share `counted` of the values of every layer, from the first on.
fn lost(exact: &[Vec<f32>], stored: &[Vec<f32>], counted: f64) -> f64 {
    let (mut error, mut square) = (0.0, 0.0);
    for (exact, stored) in exact.iter().zip(stored) {
        for (&x, &y) in exact.iter().zip(stored).take((counted * exact.len() as f64).round() as usize) {
            error += f64::from(x - y).powi(2);
            square += f64::from(x).powi(2);
        }
    }
    error / square
}

#[cfg(test)]
mod tests {
    use super::water_filled;

    #[test]
    fn water_finds_its_level() {
        // Equal variances: 4^-bits of each.
        assert!((water_filled(&[2.0; 8], 3.0) - 16.0 / 64.0).abs() < 1e-12);
        // 1 bit each of 16, 1 and 0: two bits and a half above the first, half a bit above the second.
        let (level, error) = (0.5, water_filled(&[16.0, 1.0, 0.0], 1.0));
        assert!((error - 2.0 * level).abs() < 1e-12, "{error}");
        // Few bits go to the largest alone.
        assert!((water_filled(&[16.0, 1.0], 0.5) - 5.0).abs() < 1e-12);
        // Whatever the split of the bits, none does better.
        let variances = [9.0, 4.0, 0.3, 0.01];
        for share in 0..=100 {
            let first = 8.0 * f64::from(share) / 100.0;
            let split = [first, 8.0 - first, 0.0, 0.0];
            let error: f64 = variances.iter().zip(split).map(|(v, b)| v * 4f64.powf(-b)).sum();
            assert!(water_filled(&variances, 2.0) <= error + 1e-12);
        }
    }
}
