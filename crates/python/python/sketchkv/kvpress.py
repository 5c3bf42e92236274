"""sketchkv's caches in kvpress, and kvpress's presses under sketchkv's account of bytes. It needs kvpress.

`SketchPress` runs where a press of kvpress does, in its pipeline and its evaluations, but what it leaves is a cache in Rust that
really holds compressed bytes:

    from transformers import pipeline
    from sketchkv.kvpress import SketchPress

    pipe = pipeline("kv-press-text-generation", model="Qwen/Qwen2.5-0.5B-Instruct", device="cpu")
    press = SketchPress("auto@64MiB")
    pipe(context, questions=questions, press=press)["answers"], press.ledger()

`ledger` says of any cache what it holds, and how much of that a press only counts as saved.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from kvpress import BasePress
from kvpress.attention_patch import attention_patch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .transformers import NAME, CompressedCache, SketchCache
from .transformers.attention import attention

__all__ = ["SketchPress", "ledger"]

# kvpress hides keys from attention by a wrapper around every implementation that was there when it was imported. Where this one
# came later, its head-wise presses would hide nothing on a model that has used a SketchCache.
if ALL_ATTENTION_FUNCTIONS[NAME] is attention:
    ALL_ATTENTION_FUNCTIONS[NAME] = attention_patch(attention)


@dataclass
class SketchPress(BasePress):
    """A press whose cache is a `SketchCache`.

    `spec`, `bytes`, `seed`, `threads` and `profile` are those of `SketchCache`. The new `DynamicCache` that a model is run with, in
    `with press(model):`, becomes one that holds its tokens in Rust. The context is one pass, after which the cap binds; it goes on
    to bind while questions are answered, and after each answer the cache is again as it was at the end of the context.

    `compression_ratio`, which kvpress's evaluations set, is the share that is to go, in bytes of a cache in f16, where `spec` has no
    cap: 0.75 is the cap "@25%". 0 leaves the spec alone.

    As a `SketchCache` does, it leaves the model's attention implementation at "sketchkv", which is SDPA for other caches.
    """

    spec: str = "auto"
    bytes: int | str | None = None
    compression_ratio: float = 0.0
    seed: int = 0
    threads: int = 0
    profile: str | PathLike[str] | None = None
    _held: _Held | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._cap()

    def _cap(self) -> int | str | None:
        ratio = self.compression_ratio
        if not 0 <= ratio < 1:
            raise ValueError(f"compression_ratio is the share that goes, from 0 to below 1, not {ratio}")
        if not ratio:
            return self.bytes
        if self.bytes is not None or "@" in self.spec:
            raise ValueError(
                f"this SketchPress has a cap and a compression_ratio of {ratio}: leave one out; 0 is no compression_ratio"
            )
        return f"{100 * (1 - ratio):.6g}%"

    @property
    def cache(self) -> SketchCache:
        """The cache of the last run: of the context, and of the answer that is being given."""
        if self._held is None:
            raise ValueError("this SketchPress has not run yet: use it in `with press(model):`, or in kvpress's pipeline")
        return self._held.cache

    def ledger(self) -> dict[str, int]:
        """Bytes that the cache of the last run holds, by what takes them, and their `total`."""
        return self.cache.ledger()

    @contextmanager
    def __call__(self, model: PreTrainedModel) -> Generator[None]:
        """Lets `model` run over a new cache. What it is run with must be a new `DynamicCache`, or nothing."""
        self.post_init_from_model(model)
        cap = self._cap()
        # A new cache each time: what is found here afterwards belongs to this run.
        self._held = None

        def begin(module: torch.nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
            given = options.get("past_key_values")
            if given is None:
                if options.get("use_cache") is False:
                    raise ValueError("a SketchPress is for a model that is run with a cache, and use_cache is off")
                given = DynamicCache()
            if self._held is None or not self._held.is_in(given):
                new = SketchCache(
                    model.config, self.spec, cap, seed=self.seed, threads=self.threads, profile=self.profile
                )
                self._held = _Held(new)
                self._held.put_into(given)
            return args, {**options, "past_key_values": given}

        decoder = model.model.language_model if hasattr(model.model, "language_model") else model.model
        hook = decoder.register_forward_pre_hook(begin, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
        if self._held is not None:
            self._held.mark()


class _Held:
    """The cache behind the layers of a `DynamicCache`, and what it was at the end of the context."""

    def __init__(self, cache: SketchCache) -> None:
        self.cache = cache
        self._marked: SketchCache | None = None

    def put_into(self, outer: Cache) -> None:
        if not isinstance(outer, DynamicCache) or getattr(outer, "offloading", False):
            raise ValueError(f"a SketchPress takes the place of a DynamicCache, and cannot of a {type(outer).__name__}")
        if outer.get_seq_length():
            raise ValueError(f"a SketchPress begins with a new cache, and this one has {outer.get_seq_length()} tokens")
        # The layers that a DynamicCache makes for a config are replaced; it must not add others.
        outer.layers = [_Layer(self, number) for number in range(len(self.cache))]

    def is_in(self, outer: Cache) -> bool:
        first = next(iter(getattr(outer, "layers", ())), None)
        return isinstance(first, _Layer) and first.held is self

    def mark(self) -> None:
        """What comes from here on can be forgotten, whatever is evicted for it."""
        self._marked = self.cache.fork()

    def cut(self, length: int) -> None:
        """Forgets what came after the first `length` tokens."""
        seen = self.cache.get_seq_length()
        if length >= seen:
            return
        if self._marked is not None and length == self._marked.get_seq_length():
            self.cache = self._marked.fork()
        else:
            self.cache.crop(length)


class _Layer(CacheLayerMixin):
    """A layer of a `DynamicCache` whose keys and values are in Rust. What is done to all layers of a cache is done once, by the first."""

    is_compileable = False
    is_initialized = True

    def __init__(self, held: _Held, number: int) -> None:
        self.held = held
        self.number = number
        self.is_sliding = held.cache.is_sliding[number]

    def lazy_initialization(self, *states: torch.Tensor) -> None:
        pass

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.held.cache.update(key_states, value_states, self.number)

    def get_mask_sizes(self, query: Any) -> tuple[int, int]:
        return self.held.cache.get_mask_sizes(query, self.number)

    def get_seq_length(self) -> int:
        return self.held.cache.get_seq_length(self.number)

    def get_max_cache_shape(self) -> int:
        return self.held.cache.get_max_cache_shape()

    @property
    def keys(self) -> _Tokens:
        return _Tokens(self.get_seq_length())

    @keys.setter
    def keys(self, kept: _Tokens) -> None:
        if not isinstance(kept, _Tokens):
            raise TypeError("keys and values of a SketchPress are compressed in Rust: no other press can be laid over it")
        self.held.cut(kept.length)

    values = keys

    def crop(self, max_length: int) -> None:
        if self.number == 0:
            seen = self.get_seq_length()
            self.held.cut(max_length if max_length >= 0 else max(seen + max_length, 0))

    def reset(self) -> None:
        if self.number == 0:
            self.held.cache.reset()

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        if self.number == 0:
            self.held.cache.reorder_cache(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.number == 0:
            self.held.cache.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self.number == 0:
            self.held.cache.batch_select_indices(indices)


class _Tokens:
    """Stands where a layer's keys or values are cut, `keys[:, :, :length]`, as kvpress takes answers out of a cache."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __getitem__(self, index: Any) -> _Tokens:
        everything = slice(None)
        if isinstance(index, tuple) and len(index) == 3 and index[:2] == (everything, everything):
            cut = index[2]
            if isinstance(cut, slice) and cut.start is None and cut.step is None and (cut.stop is None or cut.stop >= 0):
                return _Tokens(self.length if cut.stop is None else min(cut.stop, self.length))
        return self._refuse()

    def __getattr__(self, name: str) -> Any:
        return self._refuse()

    def _refuse(self) -> Any:
        # An AttributeError, so that whoever asks whether there is a tensor is told that there is none.
        raise AttributeError("keys and values of a SketchPress are compressed in Rust: they can be cut back, not looked at")


ITEMS = ("keys", "values", "scales", "positions", "scores", "codes", "sketches", "tail", "tables", "slack")
"""What takes bytes in a cache, by the names of every ledger of sketchkv."""


def ledger(cache: Cache, model: PreTrainedModel | None = None) -> dict[str, int]:
    """Bytes that a cache of transformers holds after a press ran, by what takes them, and their `total`.

    Of `DynamicCache`, `StaticCache` and `QuantizedCache` these are `keys`, `values`, `scales` (and zero points), `slack` (memory that
    tensors keep alive beyond what they show, as slices of longer ones do) and, where `model` is given, `tables`: the lists of what a
    head-wise press hides. The other items, which sketchkv's own caches have, are 0.

    Three more say what is simulated:

    * `masked`: keys and values that are held, and only hidden from attention: what head-wise presses of kvpress (AdaKV, KVzip,
      DuoAttention, ...) count as gone. They leave their lists on the layers of `model`; without it, this is 0.
    * `zeroed`: numbers of keys that are exactly 0, as channels that `ThinKPress` counts as gone.
    * `claimed`: the total as if all that were gone, `masked`, `zeroed` and `tables`.

    For a cache of sketchkv it is its own ledger, of which nothing is simulated. A `ValueError` for what is no such cache.
    """
    if isinstance(cache, (SketchCache, CompressedCache)):
        own = cache.ledger()
        return {**own, "masked": 0, "zeroed": 0, "claimed": own["total"]}
    layers = getattr(cache, "layers", None)
    if layers is None:
        raise ValueError(f"a {type(cache).__name__} has no layers whose bytes could be told")
    if layers and isinstance(layers[0], _Layer):
        return ledger(layers[0].held.cache)
    found = dict.fromkeys(ITEMS, 0)
    used, storages = 0, {}
    held = []
    for layer in layers:
        before = sum(found.values())
        for item in ("keys", "values"):
            for name, tensor in _tensors(item, [getattr(layer, item, None), getattr(layer, f"_quantized_{item}", None)]):
                size = tensor.numel() * tensor.element_size()
                found["scales" if any(word in name for word in ("scale", "shift", "zero")) else item] += size
                used += size
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        held.append(sum(found.values()) - before)
    found["slack"] = max(sum(storages.values()) - used, 0)
    zeroed = sum(_zeros(layer) for layer in layers)
    masked = 0
    for number, hidden in _hidden(model):
        if number < len(layers) and held[number]:
            batch, heads, tokens = _shape(layers[number])
            masked += round(held[number] * len(hidden.unique(dim=1).T) / (batch * heads * tokens))
            found["tables"] += hidden.numel() * hidden.element_size()
    total = sum(found.values())
    return {**found, "total": total, "masked": masked, "zeroed": zeroed, "claimed": total - masked - zeroed - found["tables"]}


def _tensors(name: str, parts: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The plain tensors within tensors, tuples and dicts, each with the names on the way to it."""
    if isinstance(parts, torch.Tensor):
        if hasattr(parts, "__tensor_flatten__"):
            for inner in parts.__tensor_flatten__()[0]:
                yield from _tensors(f"{name}.{inner}", getattr(parts, inner))
        elif parts.numel():
            yield name, parts
    elif isinstance(parts, dict):
        for key, part in parts.items():
            yield from _tensors(f"{name}.{key}", part)
    elif isinstance(parts, (list, tuple)):
        for part in parts:
            yield from _tensors(name, part)


def _zeros(layer: Any) -> int:
    """Bytes of keys that are 0."""
    keys = getattr(layer, "keys", None)
    if not isinstance(keys, torch.Tensor) or not keys.numel():
        return 0
    return int((keys == 0).sum()) * keys.element_size()


def _hidden(model: PreTrainedModel | None) -> Iterator[tuple[int, torch.Tensor]]:
    """The layers in which keys are hidden, with a list `[sequence, KV head, slot][keys]` of them."""
    for module in model.modules() if model is not None else ():
        indices = getattr(module, "masked_key_indices", None)
        if indices is not None and len(indices[0]):
            yield module.layer_idx, torch.stack([part.long() for part in indices])


def _shape(layer: Any) -> tuple[int, int, int]:
    """Sequences, KV heads and tokens of a layer that holds some."""
    parts = [getattr(layer, "keys", None), getattr(layer, "_quantized_keys", None)]
    # HQQ has a tuple of codes and what they stand for.
    shapes = [part[1]["shape"] if isinstance(part, tuple) else part.shape for part in parts if part is not None]
    shapes = [shape for shape in shapes if len(shape) == 4]
    if not shapes:
        raise ValueError(f"hidden keys of a {type(layer).__name__} cannot be told: it shows no tensor of four dimensions")
    return shapes[0][0], shapes[0][1], sum(shape[2] for shape in shapes)
