"""Tokenizers without a model: every split and every kind that the engine builds from GGUF metadata, beside model.py's.

Each is a folder and a GGUF file of a model without layers; `tokens.json` holds what transformers
makes of the torture texts.

    pip install -r scripts/golden/requirements.txt
    python scripts/golden/vocabularies.py
"""

import itertools
import json
import shutil

import model_gguf
import model_tokenizers
import numpy as np
from gguf import GGUFWriter
from safetensors.numpy import save_file

OUT = model_tokenizers.REPOSITORY / "crates/model/tests/golden/tokenizers"
# Enough of a model to be opened.
SHAPE = {
    "block_count": 1, "context_length": 64, "embedding_length": 2, "feed_forward_length": 2,
    "attention.head_count": 1, "attention.head_count_kv": 1,
}
MORE = [
    "camelCase HTTPServer ÉCOLE ǅungla XMLHttpRequest's I'LL O'Neill L'été ЁЛКА'S",
    "a/b//c/\n/d ./x\n\n/ -/\r\n",
    "हिन्दी का परीक्षण क्‍ष বাংলা தமிழ் ภาษาไทย နေကောင်းလား ខ្មែរ",
    "x\u0301y \u0301 \u0301\u0302 1\u20e3 .\u0301. e\u0301e\u0301",
    "1234567890 12345 ١٢٣٤٥ 𝟘𝟙𝟚 ⅣⅤ ²³",
]
# What the splits tell apart.
UNITS = [
    "a", "bc", "A", "BC", "é", "語", "क", "1", "23", "'s", "'LL", "'", " ", "  ", "\t", "\n", "\r\n", ".", "-", "/", "$", "\u0301", "🙂", "\u00a0",
]
ACROSS = ["".join(units) for units in itertools.product(UNITS, UNITS)] + ["".join(units) for units in itertools.product(UNITS[::2], UNITS, UNITS[1::2])]


def make(name, kind, inner, **metadata):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama", "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "vocab_size": inner.get_vocab_size(),
    }
    embedding = np.zeros((inner.get_vocab_size(), 2), np.float16)
    save_file({"model.embed_tokens.weight": embedding}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    model_tokenizers.save(inner, kind, folder)
    cases = model_tokenizers.expectations(folder, model_tokenizers.TORTURE + MORE)
    (folder / "tokens.json").write_text(json.dumps(cases, ensure_ascii=True, indent=0) + "\n")
    writer = GGUFWriter(OUT / f"{name}.gguf", "llama")
    for key, value in SHAPE.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    model_gguf.add_tokenizer(writer, {"kind": kind, "tokenizer": inner, **metadata})
    if kind.startswith("deepseek"):
        writer.add_add_bos_token(True)
    writer.add_tensor("token_embd.weight", embedding)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    for kind in ["gpt-2", "llama-bpe", "qwen2", "smollm", "qwen35", "tekken", "gpt-4o", "deepseek-llm", "deepseek-coder"]:
        make(kind, kind, model_tokenizers.byte_level(kind, 900, ACROSS))
    inner, metadata = model_tokenizers.sentence_piece_unigram(500, collapse=True)
    make("t5", "t5", inner, **metadata)
    inner, metadata = model_tokenizers.sentence_piece_unigram(700, collapse=False)
    make("unigram", "unigram", inner, **metadata)
