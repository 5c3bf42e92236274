"""Caches of sketchkv for models of transformers, on the CPU.

`SketchCache` holds keys and values compressed in Rust, and attention runs there. `CompressedCache` holds them in the same way and
gives tensors back for any attention implementation.

    from sketchkv.transformers import SketchCache
    model.generate(**inputs, past_key_values=SketchCache(model.config, "auto@64MiB"))
"""

from .attention import NAME
from .caches import CompressedCache, SketchCache

__all__ = ["NAME", "CompressedCache", "SketchCache"]
