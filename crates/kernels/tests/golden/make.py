"""Makes the golden files of the block formats with the gguf package's own arithmetic.

    pip install numpy gguf && python make.py

For each format: four blocks of arbitrary bytes, with scales of moderate size, and their weights as little-endian f32.
For Q8_0 also 64 weights and the blocks that gguf quantizes them to.
"""

import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize

BLOCKS = 4
# Where the f16 scales of a block are.
SCALES = {
    Kind.Q4_0: [0], Kind.Q4_1: [0, 2], Kind.Q5_0: [0], Kind.Q5_1: [0, 2], Kind.Q8_0: [0],
    Kind.Q2_K: [80, 82], Kind.Q3_K: [108], Kind.Q4_K: [0, 2], Kind.Q5_K: [0, 2], Kind.Q6_K: [208],
    Kind.BF16: [], Kind.F16: [], Kind.F64: [],
    Kind.IQ1_S: [0], Kind.IQ1_M: [], Kind.IQ2_XXS: [0], Kind.IQ2_XS: [0], Kind.IQ2_S: [0], Kind.IQ3_XXS: [0],
    Kind.IQ3_S: [0], Kind.IQ4_NL: [0], Kind.IQ4_XS: [0], Kind.TQ1_0: [52], Kind.TQ2_0: [64], Kind.MXFP4: [],
}

here = pathlib.Path(__file__).parent
random = np.random.default_rng(7)


def save(name, array):
    (here / name).write_bytes(np.ascontiguousarray(array).tobytes())


for kind, places in SCALES.items():
    length, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (BLOCKS if length > 1 else 64, size), dtype=np.uint8)
    for place in places:
        scales = random.uniform(-0.5, 0.5, BLOCKS).astype("<f2")
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    if kind in (Kind.F16, Kind.BF16):
        # No infinities and NaNs: the tests compare numbers.
        blocks[:, 1] &= 0xBF
    if kind == Kind.F64:
        blocks = random.normal(size=(64, 1)).astype("<f8").view(np.uint8)
    if kind == Kind.IQ1_M:
        # The scale's nibbles, lowest first, are the high ones of four bytes: 0.25 to 0.5, of either sign.
        blocks[:, 53] = blocks[:, 53] & 0x3F | 0x40
        blocks[:, 55] = blocks[:, 55] & 0x8F | 0x30
    if kind == Kind.MXFP4:
        blocks[:, 0] = random.integers(118, 128, BLOCKS)
    save(f"{kind.name}.blocks", blocks)
    weights = blocks.view("<f8") if kind == Kind.F64 else dequantize(blocks, kind)
    save(f"{kind.name}.f32", weights.astype("<f4"))

weights = random.normal(size=(2, 32)).astype("<f4")
weights[1, :4] = [0.0, 127.0, 63.5, -127.0]
save("quantize.f32", weights)
save("quantize.Q8_0", quantize(weights, Kind.Q8_0))
