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
    Kind.BF16: [], Kind.F16: [],
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
    save(f"{kind.name}.blocks", blocks)
    save(f"{kind.name}.f32", dequantize(blocks, kind).astype("<f4"))

weights = random.normal(size=(2, 32)).astype("<f4")
weights[1, :4] = [0.0, 127.0, 63.5, -127.0]
save("quantize.f32", weights)
save("quantize.Q8_0", quantize(weights, Kind.Q8_0))
