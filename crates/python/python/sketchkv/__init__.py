"""Language models inside a KV cache of bounded size, every byte counted.

``Model`` loads and runs a model, ``Cache`` is what a text takes in memory, ``compare`` and ``advise`` measure caches,
``CountMin``, ``CountSketch``, ``Race`` and ``SimHash`` are the sketches behind them. ``sketchkv.transformers`` lets models of
transformers use the same caches; it is imported by itself, since it needs torch.
"""

from ._sketchkv import (
    Cache,
    Chat,
    CountMin,
    CountSketch,
    Error,
    Model,
    Race,
    SimHash,
    SpecError,
    Stream,
    __version__,
    hamming,
)
from .evaluation import Advice, advise, compare

__all__ = [
    "Advice",
    "Cache",
    "Chat",
    "CountMin",
    "CountSketch",
    "Error",
    "Model",
    "Race",
    "SimHash",
    "SpecError",
    "Stream",
    "__version__",
    "advise",
    "compare",
    "hamming",
]
