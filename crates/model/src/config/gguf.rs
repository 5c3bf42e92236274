//! A config from GGUF metadata.

use super::rotation::{Scaling, frequencies};
use super::{Architecture, Config, MOST_HEAD_DIM, MOST_LAYERS, plausible};
use crate::ModelError;
use crate::file::Gguf;
use sketchkv_cache::{LayerShape, Rotation};

pub(super) fn read(gguf: &Gguf) -> Result<Config, ModelError> {
    let path = gguf.path();
    if gguf.number("split.count")?.is_some_and(|count| count > 1) {
        let reason = "this is one part of a split GGUF: join the parts with llama-gguf-split --merge first";
        return Err(ModelError::format(path, reason));
    }
    let family = gguf
        .text("general.architecture")?
        .ok_or_else(|| ModelError::format(path, "metadata key `general.architecture` is missing"))?;
    let architecture = match family {
        "gpt2" => Architecture::Gpt2,
        // Mistral files carry the name of the family they share with Llama.
        "llama" if gguf.number("llama.expert_count")?.is_none_or(|n| n == 0) => Architecture::Llama,
        "mistral" => Architecture::Mistral,
        "qwen2" => Architecture::Qwen2,
        other => return Err(super::unsupported(path, other)),
    };
    let key = |name: &str| format!("{family}.{name}");
    let hidden = gguf.required(&key("embedding_length"))?;
    let heads = gguf.required(&key("attention.head_count"))?;
    let impossible = |reason: String| ModelError::format(path, reason);
    let head_dim = match gguf.number(&key("attention.key_length"))? {
        Some(width) => width,
        None => hidden / heads.max(1),
    };
    let head_dim = plausible("head size", head_dim, MOST_HEAD_DIM).map_err(impossible)?;
    if gguf.number(&key("attention.value_length"))?.is_some_and(|width| width != head_dim) {
        return Err(ModelError::format(path, "keys and values of different widths are not supported"));
    }
    let layer_norm = architecture == Architecture::Gpt2;
    let epsilon =
        if layer_norm { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
    let embedding = gguf
        .tensor("token_embd.weight")
        .ok_or_else(|| ModelError::format(path, "tensor `token_embd.weight` is missing"))?;
    let layers = plausible("layers", gguf.required(&key("block_count"))?, MOST_LAYERS).map_err(impossible)?;
    let layer = LayerShape {
        window: gguf.number(&key("attention.sliding_window"))?.filter(|w| *w > 0),
        rotation: if layer_norm { None } else { Some(rotation(gguf, &key, head_dim)?) },
        ..LayerShape::new(heads, gguf.number(&key("attention.head_count_kv"))?.unwrap_or(heads), head_dim)
    };
    Ok(Config {
        architecture,
        name: match gguf.text("general.name")? {
            Some(name) => name.to_owned(),
            None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        },
        layers: vec![layer; layers],
        hidden,
        feed_forward: gguf.required(&key("feed_forward_length"))?,
        vocabulary: embedding.entry.shape[0],
        context: gguf.required(&key("context_length"))?,
        norm_epsilon: gguf.float(&key(epsilon))?.unwrap_or(1e-5),
        norm_offset: 0.0,
        embedding_scale: 1.0,
        logit_softcap: None,
        tied_embeddings: gguf.tensor("output.weight").is_none(),
        notes: vec![],
    })
}

fn rotation(gguf: &Gguf, key: &dyn Fn(&str) -> String, head_dim: usize) -> Result<Rotation, ModelError> {
    let path = gguf.path();
    let base = gguf.float(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    if gguf.number(&key("rope.dimension_count"))?.is_some_and(|d| d != head_dim) {
        return Err(ModelError::format(path, "a rotary embedding over a part of the head is not supported"));
    }
    let scaling = match gguf.text(&key("rope.scaling.type"))? {
        None => match gguf.float(&key("rope.scale_linear"))? {
            Some(factor) if factor > 0.0 => Scaling::Linear { factor },
            _ => Scaling::None,
        },
        Some("none") => Scaling::None,
        Some("linear") => Scaling::Linear {
            factor: gguf.float(&key("rope.scaling.factor"))?.filter(|f| *f > 0.0).unwrap_or(1.0),
        },
        Some(other) => return Err(super::unsupported_scaling(path, other)),
    };
    let rotation = frequencies(base, head_dim, &scaling);
    // Llama 3.1 files carry their scaling as one divisor for each frequency.
    let Some(tensor) = gguf.tensor("rope_freqs.weight") else { return Ok(rotation) };
    let divisors = tensor.floats().map_err(|reason| ModelError::format(path, reason))?;
    if divisors.len() != rotation.inverse_frequencies.len() {
        return Err(ModelError::format(path, "tensor `rope_freqs.weight` does not fit the head size"));
    }
    let divided = rotation.inverse_frequencies.iter().zip(&divisors).map(|(f, d)| f / d);
    Ok(Rotation { inverse_frequencies: divided.collect() })
}
