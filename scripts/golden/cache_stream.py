#!/usr/bin/env python3
"""Queries, keys and values of a real model, by transformers in f32: layer 12 of SmolLM2-135M on a novel.

Two KV heads and their six query heads, rotated, as the cache meets them; f16, [token][head][64], first the queries, then
the keys, then the values.

    pip install torch transformers gguf
    python scripts/golden/cache_stream.py SmolLM2-135M-Instruct.Q4_1.gguf
"""

import pathlib
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.llama import modeling_llama

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "crates/cache/tests/golden/smollm2-layer12.f16"
LAYER, TOKENS, GROUP, KV_HEADS = 12, 330, 3, 2


def main():
    torch.set_num_threads(2)
    path = pathlib.Path(sys.argv[1])
    load = {"gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **load)
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, attn_implementation="eager", **load)
    seen = {}
    eager = modeling_llama.eager_attention_forward

    def watch(module, query, key, value, *rest, **options):
        if module.layer_idx == LAYER:
            seen.update(query=query, key=key, value=value)
        return eager(module, query, key, value, *rest, **options)

    modeling_llama.eager_attention_forward = watch
    text = (ROOT / "data/persuasion.txt").read_text(encoding="utf-8")[2000 : 2000 + 12 * TOKENS]
    tokens = tokenizer(text, return_tensors="pt").input_ids[:, :TOKENS]
    with torch.inference_mode():
        model.eval()(tokens)
    heads = {"query": KV_HEADS * GROUP, "key": KV_HEADS, "value": KV_HEADS}
    parts = [seen[name][0, :count].transpose(0, 1).numpy().astype("<f2").ravel() for name, count in heads.items()]
    OUT.parent.mkdir(exist_ok=True)
    np.concatenate(parts).tofile(OUT)
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size} bytes, {tokens.shape[1]} tokens")


if __name__ == "__main__":
    main()
