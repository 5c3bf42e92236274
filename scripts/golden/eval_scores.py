#!/usr/bin/env python3
"""Golden perplexity and KL divergence of tiny-gpt2, by transformers in f32.

The second distribution is that of a sliding window with 4 sinks. The prefill is one chunk, which sees all of itself;
after it, under a cache of S slots, the token at position t sees the positions 0..3, the last S - 4 before it, and itself.
That is an attention mask, so transformers can run it.

    pip install torch transformers
    python scripts/golden/eval_scores.py > crates/eval/tests/golden/scores.json
"""

import json
import math
import pathlib

import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONTEXT, PREFILL, SINKS = 384, 192, 4


def scores(base, logits, tokens):
    p, q = torch.log_softmax(base, -1), torch.log_softmax(logits, -1)
    target = tokens[:, None]
    nll = -q.gather(1, target)[:, 0]
    nll_base = -p.gather(1, target)[:, 0]
    kl = (p.exp() * (p - q)).sum(-1)
    delta = (-nll).exp() - (-nll_base).exp()
    n = len(tokens)
    return {
        "ppl": nll.mean().exp().item(),
        "kl_mean": kl.mean().item(),
        "kl_error": kl.std().item() / math.sqrt(n),
        "kl_median": kl.quantile(0.5).item(),
        "kl_p99": kl.quantile(0.99).item(),
        "kl_max": kl.max().item(),
        "delta_p_mean": delta.mean().item(),
        "delta_p_rms": delta.square().mean().sqrt().item(),
        "same_top": (p.argmax(-1) == q.argmax(-1)).double().mean().item(),
        "ln_ppl_ratio": (nll - nll_base).mean().item(),
        "ln_ppl_ratio_error": (nll - nll_base).std().item() / math.sqrt(n),
    }


def main():
    torch.set_num_threads(2)
    folder = ROOT / "models/tiny-gpt2"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    text = (ROOT / "data/persuasion.txt").read_text()[:4000]
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"][:CONTEXT])
    query, key = torch.arange(CONTEXT)[:, None], torch.arange(CONTEXT)[None, :]
    golden = {"tokens": tokens.tolist(), "prefill": PREFILL, "sinks": SINKS, "windows": {}}
    scored = slice(PREFILL - 1, CONTEXT - 1)
    with torch.no_grad():
        base = model(tokens[None]).logits[0, scored].double()
        golden["full"] = scores(base, base, tokens[PREFILL:])
        for slots in (32, 64, 128):
            seen = (key <= query) & ((query < PREFILL) | (key < SINKS) | (key >= query - (slots - SINKS)))
            mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
            logits = model(tokens[None], attention_mask=mask).logits[0, scored].double()
            golden["windows"][str(slots)] = scores(base, logits, tokens[PREFILL:])
    print(json.dumps(golden))


if __name__ == "__main__":
    main()
