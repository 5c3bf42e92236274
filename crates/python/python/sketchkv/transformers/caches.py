"""Caches of transformers whose keys and values live in Rust."""

from __future__ import annotations

import inspect
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy
import torch
from transformers import Cache, DynamicCache, PretrainedConfig

from .._sketchkv import AttentionCaches
from . import layers
from .attention import NAME, Seen, spans

if TYPE_CHECKING:
    from typing_extensions import Self

_NO_LIMIT = DynamicCache().get_max_cache_shape() if hasattr(DynamicCache, "get_max_cache_shape") else -1


class _RustCache(Cache):
    """What both caches have in common: a batch of sequences in Rust, and how many tokens each has seen."""

    is_compileable = False

    def __init__(self, shapes: list[dict[str, Any]], caches: AttentionCaches):
        if "layers" in inspect.signature(Cache.__init__).parameters:
            super().__init__(layers=[])
        else:
            super().__init__()
        self._shapes = shapes
        self._caches = caches
        # Tokens of a sequence, padding included.
        self._seen = 0

    @staticmethod
    def _open(
        config: PretrainedConfig,
        shapes: list[dict[str, Any]],
        spec: str,
        *,
        bytes: int | str | None = None,
        seed: int = 0,
        threads: int = 0,
        profile: str | PathLike[str] | None = None,
    ) -> AttentionCaches:
        context = getattr(layers.text_config(config), "max_position_embeddings", 0)
        return AttentionCaches(shapes, context, spec, bytes, seed, threads or torch.get_num_threads(), profile)

    @property
    def spec(self) -> str:
        """The composition of methods, cap included."""
        return self._caches.spec

    def ledger(self) -> dict[str, int]:
        """Bytes by what takes them, and their `total`, over the sequences of the batch."""
        return self._caches.ledger()

    def set_cap(self, cap: int | str | None) -> None:
        """Another cap for each sequence from now on."""
        self._caches.set_cap(cap)

    def slots(self, layer: int, kv_head: int, row: int = 0) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """What one KV head of a sequence holds, as its store gives it back.

        Positions `[slots]`, which do not count padding, keys `[slots][key_dim]` and values `[slots][value_dim]`. A
        `sketchkv.Error` where there is no such layer, head or sequence.
        """
        return self._caches.slots(row, layer, kv_head)

    def fork(self) -> Self:
        """A second cache that goes on from here; the two share memory until one of them writes to it."""
        copy = type(self).__new__(type(self))
        _RustCache.__init__(copy, self._shapes, self._caches.fork())
        copy._seen = self._seen
        return copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.fork()

    def get_seq_length(self, layer_idx: int | None = 0) -> int:
        """Tokens that have been seen, padding included; not how many are kept."""
        return self._seen

    def get_max_cache_shape(self, *layer: int) -> int | None:
        return _NO_LIMIT

    def get_max_length(self, layer_idx: int | None = None) -> int | None:
        return _NO_LIMIT

    def get_mask_sizes(self, query: Any, layer_idx: int | None = None) -> tuple[int, int]:
        """Length and offset of the keys that a mask is for; `query` is the number of queries, or their positions."""
        queries = query.shape[0] if isinstance(query, torch.Tensor) else query
        return self._seen + queries, 0

    def reset(self) -> None:
        """Forgets every sequence."""
        self._caches.reset()
        self._seen = 0

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Goes on with these sequences; those that come several times share memory until they write to it."""
        if len(self._caches):
            self._caches.select(beam_idx.tolist())

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._caches.select([row for row in range(len(self._caches)) for _ in range(repeats)])

    def crop(self, max_length: int) -> None:
        """Keeps `max_length` tokens or, where it is negative, lets go of so many.

        Refused where tokens were evicted or have left a sliding window.
        """
        gone = self._seen - max_length if max_length > 0 else -max_length
        if gone > 0:
            self._caches.forget(gone)
            self._seen = max(self._seen - gone, 0)

    @property
    def is_croppable(self) -> bool:
        return "@" not in self.spec and not any(self.is_sliding)

    @property
    def is_initialized(self) -> bool:
        return self._seen > 0

    @property
    def is_sliding(self) -> list[bool]:
        return [shape["window"] is not None for shape in self._shapes]

    @property
    def is_linear(self) -> list[bool]:
        return [False] * len(self)

    @property
    def is_dummy(self) -> list[bool]:
        return [False] * len(self)

    @property
    def batch_size(self) -> int:
        return len(self._caches) or -1

    def __len__(self) -> int:
        """The number of layers."""
        return len(self._shapes)

    def __getitem__(self, layer_idx: int) -> Any:
        raise TypeError(
            f"a {type(self).__name__} has no tensors to take out; if this comes from assisted generation, "
            "that needs transformers 4.53 or later"
        )

    def __iter__(self) -> Any:
        return self[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec!r}, {self._seen} tokens, {self.ledger()['total']} bytes)"


class SketchCache(_RustCache):
    """Keys and values compressed in Rust, and attention over them there: no uncompressed copy stays.

    `spec` is a composition of methods and a cap as everywhere in sketchkv, `bytes` a cap beside it, each for one sequence of the
    batch; `seed` is for methods that draw at random, `threads` are torch's unless given. `profile` is what was measured of the model
    beforehand and makes "auto" better: a file that `sketchkv profile` wrote, or the name of one in the package, as "smollm2-135m".
    Only its shape can be compared with the model's.

    It sets the attention implementation of `config`, which must be the model's own, to "sketchkv"; with other caches that is
    SDPA. Tensors of any float type are taken; what comes out has the type of the queries.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        spec: str = "auto",
        bytes: int | str | None = None,
        *,
        seed: int = 0,
        threads: int = 0,
        profile: str | PathLike[str] | None = None,
    ):
        shapes = layers.read(config)
        super().__init__(
            shapes, self._open(config, shapes, spec, bytes=bytes, seed=seed, threads=threads, profile=profile)
        )
        for part in (config, layers.text_config(config)):
            if part._attn_implementation != NAME:
                part._attn_implementation = NAME
        # The layer whose keys and values wait for its attention.
        self._waiting: int | None = None

    def fork(self) -> Self:
        copy = super().fork()
        copy._waiting = None
        return copy

    def get_mask_sizes(self, query: Any, layer_idx: int | None = None) -> tuple[int, int]:
        length, offset = super().get_mask_sizes(query, layer_idx)
        return Seen(length), offset

    def get_seq_length(self, layer_idx: int | None = 0) -> int:
        self._check_attended()
        return self._seen

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes the keys and values of a layer, `[batch][kv_head][token][dim]`, for the attention that comes next."""
        if layer_idx > 0:
            self._check_attended()
        if key_states.device.type != "cpu":
            raise ValueError(f"a SketchCache runs on the CPU, and this model on {key_states.device}: move it there")
        self._waiting = layer_idx
        key_states.sketchkv_cache = self
        return key_states, value_states

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float | None,
        options: dict[str, Any],
    ) -> torch.Tensor:
        """Attention of the layer that was updated last; gives `[batch][token][head][dim]`."""
        layer, self._waiting = self._waiting, None
        if layer is None:
            raise RuntimeError("attention without keys and values: a SketchCache attends once to what it was updated with")
        key.sketchkv_cache = None
        shape = self._shapes[layer]
        for option, name in (("sliding_window", "window"), ("softcap", "softcap")):
            if options.get(option) is not None and options[option] != shape[name]:
                raise ValueError(
                    f"layer {layer} attends with a {option} of {options[option]} where its config has {shape[name]}: "
                    "make the SketchCache from the config of this model"
                )
        batch, _, tokens, _ = key.shape
        if layer == 0:
            self._caches.begin(tokens, spans(mask, batch, tokens, self._seen))
        if scaling is not None and abs(scaling / shape["scale"] - 1) > 1e-6:
            query = query.float() * (scaling / shape["scale"])
        out = torch.from_numpy(self._caches.attend(layer, *map(_numbers, (query, key, value))))
        if layer + 1 == len(self):
            self._caches.finish()
            self._seen += tokens
        return out.to(value.dtype)

    def _check_attended(self) -> None:
        layer, self._waiting = self._waiting, None
        if layer is not None:
            raise RuntimeError(
                f"layer {layer} has not attended through its SketchCache: the cache must be made from the config of the "
                f'model that it is used with, or the model loaded with attn_implementation="{NAME}"'
            )


class CompressedCache(_RustCache):
    """Keys and values compressed in Rust, given back as tensors: for any attention implementation, where only memory matters.

    `spec` is a keep that evicts nothing and a store, as "full+q8" or "full+q4h". Every step decodes what a layer holds. Sliding
    layers hold everything.
    """

    def __init__(self, config: PretrainedConfig, spec: str = "full+q8", *, threads: int = 0):
        shapes = [{**shape, "window": None} for shape in layers.read(config)]
        caches = self._open(config, shapes, spec, threads=threads)
        if "@" in caches.spec:
            raise ValueError(f"`{caches.spec}` evicts, and masks are for all tokens: leave the cap out, or use a SketchCache")
        super().__init__(shapes, caches)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes the keys and values of a layer, `[batch][kv_head][token][dim]`, and gives all it has seen."""
        batch, _, tokens, _ = key_states.shape
        if layer_idx == 0:
            self._caches.begin(tokens, [(0, tokens)] * batch)
        self._caches.store(layer_idx, _numbers(key_states), _numbers(value_states))
        keys, values = (torch.from_numpy(held).to(key_states) for held in self._caches.decoded(layer_idx))
        if layer_idx + 1 == len(self):
            self._caches.finish()
            self._seen += tokens
        return torch.cat((keys, key_states), dim=2), torch.cat((values, value_states), dim=2)


def _numbers(x: torch.Tensor) -> numpy.ndarray:
    """`[batch][head][token][dim]` as `[batch][token][head][dim]` in f32, without a copy where the memory lies so."""
    return x.detach().transpose(1, 2).to(torch.float32).contiguous().numpy()
