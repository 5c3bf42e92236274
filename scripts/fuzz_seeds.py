"""Writes the model seeds of the fuzz targets: the smallest GPT-2 that loads, and copies of small golden files.

Needs nothing but Python: `python3 scripts/fuzz_seeds.py`.
"""

import json
import pathlib
import random
import shutil
import struct

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "crates/model/tests/golden"
SEEDS = ROOT / "fuzz/seeds"

HIDDEN, POSITIONS, VOCABULARY = 32, 8, 512
CONFIG = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "n_embd": HIDDEN,
    "n_head": 1,
    "n_inner": HIDDEN,
    "n_layer": 1,
    "n_positions": POSITIONS,
    "vocab_size": VOCABULARY,
    "layer_norm_epsilon": 1e-5,
    "eos_token_id": 0,
    "tie_word_embeddings": True,
}
SHAPES = {
    "wte.weight": [VOCABULARY, HIDDEN],
    "wpe.weight": [POSITIONS, HIDDEN],
    "ln_f.weight": [HIDDEN],
    "ln_f.bias": [HIDDEN],
}
for part in ["ln_1", "ln_2"]:
    SHAPES[f"h.0.{part}.weight"] = SHAPES[f"h.0.{part}.bias"] = [HIDDEN]
for part, width in [("attn.c_attn", 3 * HIDDEN), ("attn.c_proj", HIDDEN), ("mlp.c_fc", HIDDEN), ("mlp.c_proj", HIDDEN)]:
    SHAPES[f"h.0.{part}.weight"], SHAPES[f"h.0.{part}.bias"] = [HIDDEN, width], [width]


def safetensors():
    numbers = random.Random(1)
    header, data = {}, b""
    for name, shape in sorted(SHAPES.items()):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = struct.pack(f"<{count}e", *(numbers.uniform(-0.1, 0.1) for _ in range(count)))
        header[f"transformer.{name}"] = {
            "dtype": "F16",
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def main():
    for target in ["config", "gguf", "safetensors"]:
        (SEEDS / target).mkdir(parents=True, exist_ok=True)
    (SEEDS / "safetensors/gpt2").write_bytes(safetensors())
    (SEEDS / "config/smallest").write_text(json.dumps(CONFIG))
    for name in ["gpt2", "llama", "llama3", "mistral", "qwen2"]:
        shutil.copy(GOLDEN / name / "config.json", SEEDS / "config" / name)
    shutil.copy(GOLDEN / "mistral.gguf", SEEDS / "gguf/mistral")
    shutil.copy(GOLDEN / "gpt2/tokenizer.json", ROOT / "fuzz/src/tokenizer.json")


if __name__ == "__main__":
    main()
