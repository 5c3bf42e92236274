"""What a cache needs to know of a model, read from its config."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

# Models whose keys have biases, which their config does not say.
BIASED = ("gpt2", "qwen2", "qwen2_moe")


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The part of a config that describes the decoder."""
    return config.get_text_config(decoder=True)


def read(config: PretrainedConfig) -> list[dict[str, Any]]:
    """The layers as `AttentionCaches` takes them.

    Raises a `ValueError` for a model whose attention the cache does not have.
    """
    config = text_config(config)
    _refuse(config)
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    layers = []
    for number, window in enumerate(_windows(config)):
        layers.append(
            {
                "heads": heads,
                "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
                "key_dim": head_dim,
                "value_dim": head_dim,
                "scale": head_dim**-0.5,
                "softcap": getattr(config, "attn_logit_softcapping", None),
                "window": window,
                "biased_keys": config.model_type in BIASED or getattr(config, "attention_bias", False),
                "inverse_frequencies": _inverse_frequencies(config, number, window is not None, head_dim),
            }
        )
    return layers


def _refuse(config: PretrainedConfig) -> None:
    reasons = {
        "is an encoder-decoder": getattr(config, "is_encoder_decoder", False),
        "looks at later tokens": getattr(config, "use_bidirectional_attention", False),
        "attends in chunks": getattr(config, "attention_chunk_size", None),
        "lets layers share keys and values": getattr(config, "num_kv_shared_layers", 0),
        "has latent attention": getattr(config, "kv_lora_rank", None),
    }
    for reason, found in reasons.items():
        if found:
            raise ValueError(f"{config.model_type} {reason}, which the caches of sketchkv do not support")


def _windows(config: PretrainedConfig) -> list[int | None]:
    """The sliding window of each layer; None where it sees everything."""
    count = config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        unknown = set(kinds) - {"full_attention", "sliding_attention"}
        if unknown:
            raise ValueError(
                f"{config.model_type} has layers of {', '.join(sorted(unknown))}: the caches of sketchkv are for "
                "full and sliding attention"
            )
        return [window if kind == "sliding_attention" else None for kind in kinds]
    if window is None or not getattr(config, "use_sliding_window", True):
        return [None] * count
    # How versions before 4.53 say which layers slide.
    first = config.max_window_layers if hasattr(config, "use_sliding_window") else 0
    pattern = getattr(config, "sliding_window_pattern", 2 if config.model_type == "gemma2" else None)
    slides = [number >= first and (pattern is None or (number + 1) % pattern != 0) for number in range(count)]
    return [window if slide else None for slide in slides]


def _inverse_frequencies(
    config: PretrainedConfig, number: int, slides: bool, head_dim: int
) -> list[float] | None:
    """Radians per position of each pair of dimensions, which keeps need that turn keys back; None without rotation."""
    no_rope = getattr(config, "no_rope_layers", None)
    if no_rope and not no_rope[number]:
        return None
    kind = "sliding_attention" if slides else "full_attention"
    parameters = getattr(config, "rope_parameters", None)
    by_kind = parameters is not None and kind in parameters
    if by_kind:
        parameters = parameters[kind]
    elif parameters is None:
        # Versions before 5.
        theta = getattr(config, "rope_theta", None)
        if theta is None:
            return None
        parameters = {"rope_theta": theta, **(getattr(config, "rope_scaling", None) or {})}
        local = getattr(config, "rope_local_base_freq", None)
        if slides and local is not None:
            parameters = {"rope_theta": local}
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    if rope_type == "default":
        share = parameters.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None)) or 1.0
        dim = int(head_dim * share)
        return [parameters["rope_theta"] ** (-2 * pair / dim) for pair in range(dim // 2)]
    layer_type = {"layer_type": kind} if by_kind else {}
    frequencies, _ = ROPE_INIT_FUNCTIONS[rope_type](config, device="cpu", **layer_type)
    return frequencies.tolist()
