//! A config from GGUF metadata, its absent keys as llama.cpp takes them.

use super::rotation::{Rotary, Scaling, longrope_magnitude, yarn_magnitude};
use super::{
    Architecture, Bias, Biases, Config, Experts, HEAD_DIM, LAYERS, MOST_HEAD_DIM, MOST_LAYERS, layers,
    plausible, unused_keys,
};
use crate::ModelError;
use crate::file::Gguf;
use sketchkv_cache::LayerShape;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Keys of an architecture that do not change what a model computes here.
const INERT: &[&str] =
    &["vocab_size", "rope.scaling.finetuned", "use_parallel_residual", "tensor_data_layout", "pooling_type"];

pub(super) fn read(gguf: &Gguf) -> Result<Config, ModelError> {
    let path = gguf.path();
    let family = gguf
        .text("general.architecture")?
        .ok_or_else(|| ModelError::format(path, "metadata key `general.architecture` is missing"))?;
    let keys = Keys { gguf, family, read: RefCell::default(), tensors: RefCell::default() };
    let architecture = match Architecture::of_gguf(family)
        .ok_or_else(|| super::unsupported(path, "metadata key `general.architecture`", family))?
    {
        // Mistral and Mixtral files carry the name of the family they share with Llama.
        Architecture::Llama | Architecture::Mistral if keys.number("expert_count")?.unwrap_or(0) > 0 => {
            Architecture::Mixtral
        }
        architecture => architecture,
    };
    for key in INERT {
        keys.ignore(key);
    }
    let mut config = config(&keys, architecture)?;
    config.name = match gguf.text("general.name")? {
        Some(name) => name.to_owned(),
        None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    config.notes.extend(unused_keys(&keys.unread()));
    config.read_tensors = keys.tensors.into_inner();
    Ok(config)
}

fn config(keys: &Keys<'_>, architecture: Architecture) -> Result<Config, ModelError> {
    use Architecture::*;
    let gguf = keys.gguf;
    let impossible = |reason: String| ModelError::format(gguf.path(), reason);
    let (hidden, heads) = (keys.required("embedding_length")?, keys.required("attention.head_count")?);
    let head_dim = keys.number("attention.key_length")?.unwrap_or(hidden / heads.max(1));
    let head_dim = plausible(HEAD_DIM, head_dim, MOST_HEAD_DIM).map_err(impossible)?;
    if let Some(width) = keys.number("attention.value_length")?.filter(|width| *width != head_dim) {
        let key = keys.name("attention.value_length");
        return Err(impossible(format!(
            "metadata key `{key}` is {width} beside keys of {head_dim}: keys and values of different widths are not \
             supported"
        )));
    }
    let kv_heads = keys.number("attention.head_count_kv")?.unwrap_or(heads);
    let count = plausible(LAYERS, keys.required("block_count")?, MOST_LAYERS).map_err(impossible)?;
    let context = keys.required("context_length")?;
    let embedding = gguf
        .tensor("token_embd.weight")
        .ok_or_else(|| impossible("tensor `token_embd.weight` is missing".into()))?;
    let windows = windows(keys, architecture, count)?;
    let rotary = rotary(keys, architecture, head_dim, context, &windows)?;
    let scale = match architecture {
        Granite => keys.positive("attention.scale")?.unwrap_or(1.0 / (head_dim as f32).sqrt()),
        // The 27 billion parameters of either generation scale by another width, which no key says.
        Gemma2 if count == 46 => 1.0 / ((hidden / heads.max(1)) as f32).sqrt(),
        Gemma3 if count == 62 => 1.0 / ((hidden / heads.max(1)) as f32).sqrt(),
        _ => 1.0 / (head_dim as f32).sqrt(),
    };
    let (score_softcap, logit_softcap) = match architecture {
        Gemma2 => (
            Some(keys.positive("attn_logit_softcapping")?.unwrap_or(50.0)),
            Some(keys.positive("final_logit_softcapping")?.unwrap_or(30.0)),
        ),
        _ => (None, None),
    };
    let biases = match architecture {
        Gpt2 => Biases::ALL,
        Qwen2 => Biases { qkv: Bias::Present, ..Biases::NONE },
        Gemma2 | Gemma3 | Olmo2 | Mixtral | Qwen3Moe => Biases::NONE,
        _ => Biases::AS_IN_FILE,
    };
    let biased_keys = match biases.qkv {
        Bias::Present => true,
        Bias::Absent => false,
        Bias::AsInFile => {
            ["blk.0.attn_k.bias", "blk.0.attn_qkv.bias"].iter().any(|name| gguf.tensor(name).is_some())
        }
    };
    let like = LayerShape {
        scale,
        softcap: score_softcap,
        biased_keys,
        ..LayerShape::new(heads, kv_heads, head_dim)
    };
    let epsilon = match architecture {
        Gpt2 => "attention.layer_norm_epsilon",
        _ => "attention.layer_norm_rms_epsilon",
    };
    let multiplier = |key| -> Result<f32, ModelError> {
        if architecture == Granite { Ok(keys.positive(key)?.unwrap_or(1.0)) } else { Ok(1.0) }
    };
    let feed_forward = keys.number("feed_forward_length")?;
    let experts = experts(keys, architecture, feed_forward, count)?;
    let feed_forward = feed_forward.or(experts.as_ref().map(|experts| experts.width)).ok_or_else(|| {
        impossible(format!("metadata key `{}.feed_forward_length` is missing", keys.family))
    })?;
    Ok(Config {
        architecture,
        name: String::new(),
        layers: layers(&like, &windows, &rotary),
        hidden,
        feed_forward,
        experts,
        vocabulary: embedding.entry.shape[0],
        context,
        norm_epsilon: keys.positive(epsilon)?.unwrap_or(1e-5),
        // The converter has added 1 to Gemma's.
        norm_offset: 0.0,
        embedding_scale: if architecture.is_gemma() {
            (hidden as f32).sqrt()
        } else {
            multiplier("embedding_scale")?
        },
        residual_scale: multiplier("residual_scale")?,
        logit_scale: 1.0 / multiplier("logit_scale")?,
        logit_softcap,
        tied_embeddings: gguf.tensor("output.weight").is_none(),
        notes: vec![],
        read_tensors: vec![],
        rotary,
        biases,
    })
}

/// The sliding window of each layer.
fn windows(
    keys: &Keys<'_>,
    architecture: Architecture,
    count: usize,
) -> Result<Vec<Option<usize>>, ModelError> {
    use Architecture::*;
    // The reference implementation knows no windows in these; unread, the keys are remarked on.
    if matches!(architecture, Gpt2 | Granite | SmolLm3) {
        return Ok(vec![None; count]);
    }
    let window = keys.number("attention.sliding_window")?;
    let window = if architecture == Gemma2 { window.or(Some(4096)) } else { window };
    let window = window.filter(|window| *window > 0);
    if let Some(window) = window.filter(|_| architecture == Olmo2) {
        // OLMo 3 under the name of OLMo 2, whose sliding layers also rotate otherwise.
        let key = keys.name("attention.sliding_window");
        let reason =
            format!("metadata key `{key}` is {window}: sliding windows are not supported in {architecture}");
        return Err(ModelError::format(keys.gguf.path(), reason));
    }
    let pattern = keys.pattern("attention.sliding_window_pattern", count)?;
    let slides = |layer: usize| match (&pattern, architecture) {
        (Some(pattern), _) => pattern[layer],
        (None, Gemma2) => layer.is_multiple_of(2),
        (None, Gemma3) => !(layer + 1).is_multiple_of(6),
        _ => true,
    };
    Ok((0..count).map(|layer| window.filter(|_| slides(layer))).collect())
}

fn experts(
    keys: &Keys<'_>,
    architecture: Architecture,
    feed_forward: Option<usize>,
    count: usize,
) -> Result<Option<Experts>, ModelError> {
    if !matches!(architecture, Architecture::Mixtral | Architecture::Qwen3Moe) {
        return Ok(None);
    }
    let width = keys.number("expert_feed_forward_length")?.or(feed_forward).unwrap_or(0);
    Ok(Some(Experts {
        count: keys.required("expert_count")?,
        used: keys.required("expert_used_count")?,
        width,
        normalized: true,
        layers: (0..count)
            .map(|layer| keys.gguf.tensor(&format!("blk.{layer}.ffn_gate_inp.weight")).is_some())
            .collect(),
    }))
}

/// The rotation of each layer.
fn rotary(
    keys: &Keys<'_>,
    architecture: Architecture,
    head_dim: usize,
    context: usize,
    windows: &[Option<usize>],
) -> Result<Vec<Option<Rotary>>, ModelError> {
    use Architecture::*;
    if architecture == Gpt2 {
        return Ok(vec![None; windows.len()]);
    }
    let impossible = |reason: String| ModelError::format(keys.gguf.path(), reason);
    let base = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    let local_base = keys.positive("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let dimensions = keys.number("rope.dimension_count")?.unwrap_or(head_dim);
    if dimensions == 0 || dimensions > head_dim || !dimensions.is_multiple_of(2) {
        let key = keys.name("rope.dimension_count");
        return Err(impossible(format!(
            "metadata key `{key}` is {dimensions}: so many of a head's {head_dim} values cannot be rotated"
        )));
    }
    let scaling = scaling(keys, dimensions, context)?;
    let mut global = Rotary::new(base, dimensions, &scaling);
    // Llama 3.1 files carry their scaling as one divisor for each frequency.
    if let Some(divisors) = factors(keys, "rope_freqs.weight", dimensions)? {
        global = global.divided_by(&divisors);
    }
    // Gemma 3's scaling is one of its global layers.
    let sliding = if architecture == Gemma3 {
        Rotary::new(local_base, dimensions, &Scaling::None)
    } else {
        global.clone()
    };
    let of_layer = |(layer, window): (usize, &Option<usize>)| match architecture {
        // No key says so.
        SmolLm3 if (layer + 1).is_multiple_of(4) => None,
        _ => Some(if window.is_some() { sliding.clone() } else { global.clone() }),
    };
    Ok(windows.iter().enumerate().map(of_layer).collect())
}

fn scaling(keys: &Keys<'_>, dimensions: usize, context: usize) -> Result<Scaling, ModelError> {
    let gguf = keys.gguf;
    // Read where they count; elsewhere they are remarked on.
    let original_context = || keys.number("rope.scaling.original_context_length");
    let magnitude = || keys.positive("rope.scaling.attn_factor");
    let factor = keys.float("rope.scaling.factor")?.filter(|factor| *factor != 0.0);
    // What linear scaling was called at first.
    let factor = factor.or(keys.float("rope.scale_linear")?.filter(|factor| *factor != 0.0));
    let kind = keys.text("rope.scaling.type")?;
    if let Some(short) = factors(keys, "rope_factors_short.weight", dimensions)? {
        let long = factors(keys, "rope_factors_long.weight", dimensions)?.ok_or_else(|| {
            ModelError::format(
                gguf.path(),
                "tensor `rope_factors_long.weight` is missing beside the short one",
            )
        })?;
        let original_context = original_context()?.unwrap_or(context).max(2);
        let stretch = context as f32 / original_context as f32;
        let magnitude = magnitude()?.unwrap_or(longrope_magnitude(stretch, original_context));
        return Ok(Scaling::Longrope { short, long, original_context, magnitude });
    }
    let needed = |kind: &str| {
        factor.filter(|factor| *factor > 0.0).ok_or_else(|| {
            let key = keys.name("rope.scaling.factor");
            ModelError::format(gguf.path(), format!("rope scaling `{kind}` needs a positive `{key}`"))
        })
    };
    match kind {
        Some("none") => Ok(Scaling::None),
        Some("linear") => Ok(Scaling::Linear { factor: needed("linear")? }),
        Some("yarn") => {
            let factor = needed("yarn")?;
            Ok(Scaling::Yarn {
                factor,
                fast: keys.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                slow: keys.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                original_context: original_context()?.unwrap_or(context) as f32,
                truncated: true,
                magnitude: magnitude()?.unwrap_or(1.0) * yarn_magnitude(factor, 1.0),
            })
        }
        None => match factor {
            None => Ok(Scaling::None),
            Some(_) => Ok(Scaling::Linear { factor: needed("linear")? }),
        },
        Some(other) => Err(super::unsupported_scaling(
            gguf.path(),
            &format!("metadata key `{}`", keys.name("rope.scaling.type")),
            other,
            // The others come as tensors of factors.
            &["none", "linear", "yarn"],
        )),
    }
}

/// A tensor with a number for each pair of rotated dimensions, if the file has it.
fn factors(keys: &Keys<'_>, name: &str, dimensions: usize) -> Result<Option<Vec<f32>>, ModelError> {
    let Some(tensor) = keys.gguf.tensor(name) else { return Ok(None) };
    keys.tensors.borrow_mut().push(name.to_owned());
    let path = keys.gguf.path();
    let factors = tensor.floats().map_err(|reason| ModelError::format(path, reason))?;
    if factors.len() != dimensions / 2 || factors.iter().any(|factor| !(factor.is_finite() && *factor > 0.0))
    {
        let reason = format!("tensor `{name}` is no list of {} positive numbers", dimensions / 2);
        return Err(ModelError::format(path, reason));
    }
    Ok(Some(factors))
}

/// The metadata of the architecture, which knows what was read of it.
struct Keys<'a> {
    gguf: &'a Gguf,
    family: &'a str,
    read: RefCell<BTreeSet<String>>,
    /// Tensors that belong to the config.
    tensors: RefCell<Vec<String>>,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.family)
    }

    /// Counts a key as read; its whole name.
    fn ignore(&self, key: &str) -> String {
        let name = self.name(key);
        self.read.borrow_mut().insert(name.clone());
        name
    }

    fn number(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.gguf.number(&self.ignore(key))
    }

    fn required(&self, key: &str) -> Result<usize, ModelError> {
        self.gguf.required(&self.ignore(key))
    }

    fn float(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.gguf.float(&self.ignore(key))
    }

    fn positive(&self, key: &str) -> Result<Option<f32>, ModelError> {
        match self.float(key)? {
            Some(number) if number.is_nan() || number <= 0.0 => {
                let reason = format!("metadata key `{}` is {number}, not positive", self.name(key));
                Err(ModelError::format(self.gguf.path(), reason))
            }
            number => Ok(number),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.gguf.text(&self.ignore(key))
    }

    /// A flag for each layer, or the number of layers of which the last does not have it.
    fn pattern(&self, key: &str, count: usize) -> Result<Option<Vec<bool>>, ModelError> {
        let Some(value) = self.gguf.header().value(&self.ignore(key)) else { return Ok(None) };
        if let Some(every) = value.unsigned().and_then(|n| usize::try_from(n).ok()) {
            let every = every.max(1);
            return Ok(Some((1..=count).map(|layer| !layer.is_multiple_of(every)).collect()));
        }
        value.flags().filter(|flags| flags.len() == count).map(|flags| Some(flags.to_vec())).ok_or_else(
            || {
                let reason = format!("metadata key `{}` is no list of {count} flags", self.name(key));
                ModelError::format(self.gguf.path(), reason)
            },
        )
    }

    /// The keys of the architecture that were not read.
    fn unread(&self) -> Vec<String> {
        let (read, prefix) = (self.read.borrow(), format!("{}.", self.family));
        let keys = self.gguf.header().metadata().keys();
        keys.filter(|key| key.starts_with(&prefix) && !read.contains(*key)).cloned().collect()
    }
}
