"""The attention implementation "sketchkv": the cache attends where there is one, SDPA where there is none."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

try:
    from transformers import AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask
except ImportError:
    # Before 4.53 every model makes a mask of four dimensions.
    AttentionMaskInterface = None

NAME = "sketchkv"
"""The name of the attention implementation, for `attn_implementation`."""


class Seen(int):
    """A number of tokens, told to whoever makes masks: they are for a cache that attends by itself."""


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of `query` `[batch][head][token][dim]`; gives `[batch][token][head][dim]`.

    `SketchCache.update` has left on `key` which cache it belongs to. Arguments are in the order of transformers' own
    implementations, for those that wrap them.
    """
    cache = getattr(key, "sketchkv_cache", None)
    if cache is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    for option in ("position_bias", "s_aux"):
        if options.get(option) is not None:
            raise NotImplementedError(f"attention with {option} cannot run in a SketchCache: use a CompressedCache")
    if options.get("is_causal") is False or not getattr(module, "is_causal", True):
        raise NotImplementedError("a SketchCache attends to earlier tokens alone, and this layer looks at later ones")
    out = cache.attend(query, key, value, attention_mask, scaling, options)
    return _NoGradient.apply(query, out) if query.requires_grad else out, None


def padding_mask(*, kv_length: int, attention_mask: torch.Tensor | None = None, **options: Any) -> torch.Tensor | None:
    """The mask of padding as it is where a `SketchCache` attends, else that of SDPA."""
    if not isinstance(kv_length, Seen):
        return sdpa_mask(kv_length=kv_length, attention_mask=attention_mask, **options)
    if options.get("use_vmap"):
        raise NotImplementedError("masks beyond padding and sliding windows cannot be had in a SketchCache")
    return attention_mask


def spans(mask: torch.Tensor | None, batch: int, tokens: int, seen: int) -> list[tuple[int, int]]:
    """From where to where the new tokens of each sequence are no padding.

    `mask` is that of padding, `[batch][at least tokens]`, or, before 4.53, `[batch][1][tokens][keys]`.
    """
    if mask is None:
        return [(0, tokens)] * batch
    if mask.dim() == 2:
        valid = mask[:, -tokens:].bool()
    elif AttentionMaskInterface is not None:
        raise NotImplementedError("a mask of four dimensions cannot be had in a SketchCache: give that of padding")
    else:
        # A token that is none is masked even for itself. Gemma's sliding layers see the end of a mask; of none, not even that.
        if mask.shape[-1] < tokens:
            return [(0, tokens)] * batch
        first = seen if mask.shape[-1] >= seen + tokens else mask.shape[-1] - tokens
        own = mask[:, 0].diagonal(offset=first, dim1=1, dim2=2)[:, :tokens]
        valid = own if own.dtype == torch.bool else own == 0
    if valid.shape != (batch, tokens):
        valid = valid.expand(batch, tokens)
    if valid.all():
        return [(0, tokens)] * batch
    found = []
    for row in valid.tolist():
        count = sum(row)
        start = row.index(True) if count else 0
        if not all(row[start : start + count]):
            raise NotImplementedError("padding between the tokens of a text cannot be had in a SketchCache")
        found.append((start, start + count))
    return found


class _NoGradient(torch.autograd.Function):
    """Lets a model run without `torch.no_grad`, and says what is missing when gradients are asked for."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        raise NotImplementedError("attention in a SketchCache has no gradients: train with another cache")


AttentionInterface.register(NAME, attention)
if AttentionMaskInterface is not None:
    AttentionMaskInterface.register(NAME, padding_mask)
