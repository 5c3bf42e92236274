"""Caches of sketchkv in models of transformers, beside transformers' own: the figures of docs/python.md.

    sketchkv pull smollm2-135m
    pip install 'sketchkv[transformers]' gguf accelerate
    python bench/transformers_cache.py smollm2-135m qwen2.5-coder-0.5b gemma3-270m

For each model: whether 200 greedy tokens are the same, the KL divergence of a coarser store, the memory that 8,000 tokens take at
their peak, and the time of a decode step at depth 4,096, both caches by turns. Weights are GGUF, run in f32.
"""

import argparse
import ctypes
import gc
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import checkpoint
import torch
from transformers import DynamicCache

from sketchkv.transformers import SketchCache

CHUNK = 512
OWN = "DynamicCache"


def load(name):
    """A model, and the tokens of the novel."""
    model, tokenizer = checkpoint.load(name)
    return model, tokenizer(checkpoint.TEXT.read_text(encoding="utf-8"), return_tensors="pt").input_ids


def new(model, spec):
    return DynamicCache(config=model.config) if spec == OWN else SketchCache(model.config, spec)


def prefill(model, cache, ids):
    for chunk in ids.split(CHUNK, dim=1):
        model(chunk, past_key_values=cache, logits_to_keep=1)


def step(model, cache, token):
    """Runs a token; the next one, greedily, and the seconds it took."""
    start = time.perf_counter()
    logits = model(token, past_key_values=cache).logits
    return logits[:, -1:].argmax(-1), time.perf_counter() - start


def same_text(model, ids, count):
    """How many greedy tokens after a prompt of 64 are the same until the first that is not."""
    prompt = ids[:, :64]
    texts = [
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            past_key_values=new(model, spec),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
        )[0, 64:]
        for spec in (OWN, "full+f32")
    ]
    differs = (texts[0] != texts[1]).nonzero()
    return int(differs[0]) if len(differs) else count


def divergence(model, ids, spec, count):
    """Mean KL divergence (nats) of the next-token distribution, over `count` tokens run 64 at a time."""
    caches, sums = (new(model, OWN), new(model, spec)), 0.0
    for chunk in ids[:, :count].split(64, dim=1):
        own, other = (model(chunk, past_key_values=cache).logits.log_softmax(-1) for cache in caches)
        sums += float((own.exp() * (own - other)).sum())
    return sums / count


def memory(name, spec, tokens):
    """Runs `tokens` tokens in a process of its own; MiB beyond the model's own at their peak, and what stays at the end."""
    outcome = subprocess.run([sys.executable, __file__, name, "--memory", spec, str(tokens)], capture_output=True, text=True)
    if outcome.returncode:
        sys.exit(outcome.stderr)
    return [float(number) / 2**20 for number in outcome.stdout.split()]


def resident():
    """Bytes of memory the process holds, without what was freed and not given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_memory(name, spec, tokens):
    """The child of `memory`: prints bytes."""
    model, ids = load(name)
    # What a first chunk takes beside its cache is not counted.
    prefill(model, new(model, spec), ids[:, : 2 * CHUNK])
    before = resident()
    # From here on the peak is that of running: loading takes more.
    Path("/proc/self/clear_refs").write_text("5")
    cache = new(model, spec)
    prefill(model, cache, ids[:, : tokens - 8])
    for token in ids[0, tokens - 8 : tokens]:
        step(model, cache, token.view(1, 1))
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(peak - before, resident() - before)


def decode(model, ids, specs, depth, count):
    """Milliseconds of a step at `depth` with each cache, medians of `count` by turns."""
    caches = [new(model, spec) for spec in specs]
    for cache in caches:
        prefill(model, cache, ids[:, :depth])
    times = [[] for _ in specs]
    for token in ids[0, depth : depth + count]:
        for cache, of_cache in zip(caches, times):
            of_cache.append(step(model, cache, token.view(1, 1))[1])
    return [1e3 * statistics.median(of_cache) for of_cache in times]


def report(name, arguments):
    """Prints the figures of a model as they come."""

    def say(text):
        print(f"{name}: {text}", flush=True)

    if set(arguments.figures) - {"memory"}:
        model, ids = load(name)
    if "text" in arguments.figures:
        count = same_text(model, ids, arguments.tokens)
        say(f"{count} of {arguments.tokens} greedy tokens the same with full+f32")
    if "divergence" in arguments.figures:
        say(f"mean KL of full+q8 {divergence(model, ids, 'full+q8', arguments.scored):.6f}")
    if "step" in arguments.figures:
        specs = (OWN, "full+f16", "full+q8", "auto@25%")
        times = decode(model, ids, specs, arguments.depth, arguments.steps)
        for spec, ours in zip(specs, times):
            how = f"{ours:.1f} ms, {times[0] / ours:.2f} times as fast as {OWN}"
            say(f"a step at {arguments.depth} with {spec}: {how}")
    if "memory" in arguments.figures:
        model = ids = None
        for spec in (OWN, "full+q8", "auto@25%"):
            peak, stays = memory(name, spec, arguments.length)
            say(f"{arguments.length} tokens with {spec}: {peak:.0f} MiB at the peak, {stays:.0f} stay")


FIGURES = ("text", "divergence", "step", "memory")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="pulled models")
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=FIGURES, help="only these")
    parser.add_argument("--tokens", type=int, default=200, help="greedy tokens compared")
    parser.add_argument("--scored", type=int, default=1024, help="tokens of the divergence")
    parser.add_argument("--length", type=int, default=8000, help="tokens whose memory is measured")
    parser.add_argument("--depth", type=int, default=4096, help="tokens before the steps that are timed")
    parser.add_argument("--steps", type=int, default=32, help="steps timed")
    parser.add_argument("--memory", nargs=2, metavar=("SPEC", "TOKENS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        return measure_memory(arguments.models[0], arguments.memory[0], int(arguments.memory[1]))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, f32")
    for name in arguments.models:
        report(name, arguments)


if __name__ == "__main__":
    main()
