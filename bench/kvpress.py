#!/usr/bin/env python3
"""Caches of sketchkv and presses of kvpress side by side at equal bytes: the figures of docs/results.md, "Beside kvpress".

    sketchkv pull smollm2-135m
    python3 bench/kvpress.py --install                     # once: kvpress with its transformers, and the wheel
    python3 bench/kvpress.py --model smollm2-135m --json kvpress.jsonl

kvpress's protocol: a context is read in one pass and then cut, and what follows is run over what is left, in one pass. Both get the
same keys, values and queries of one and the same pass: presses by `compress`, as their hook calls it, caches of sketchkv by the
attention of each layer. So a document is read once for all of them; KVzip reads it again, since it must.

A cap is a share of the bytes that a cache in f16 takes of the context. sketchkv's caches get it in bytes and are asked what they hold.
Presses get it as a ratio; what they leave is rounded to f16 and counted at 2 bytes a number, though torch runs it in f32. Head-wise
presses hold everything and hide what they count as gone: *held* is with it, *claimed* without.

KL, in nats, and perplexity are of the tokens that follow, against the uncompressed f32 cache. A needle is a number in the midst of
the novel that is asked for afterwards, found when each of its tokens is the most probable one. Rows come as they are done; with --json
they are kept, a line each, and a run that was interrupted goes on.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import checkpoint

HERE = Path(__file__).resolve().parent
# This file has the name of the package that it imports.
sys.path = [place for place in sys.path if Path(place or ".").resolve() != HERE]

REPOSITORY = HERE.parent
MODELS = ["smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
KV = ["auto", "expected+kivi4", "expected+kivi2", "snapkv+kivi4", "expected", "snapkv", "snapkv+ada", "h2o", "window"]
PRESSES = ["ExpectedAttention", "SnapKV", "AdaKV(SnapKV)", "Knorm", "TOVA", "KeyDiff", "StreamingLLM", "KVzip"]
PLACES = ["Bath", "Lyme", "Kellynch", "Uppercross", "Taunton", "Crewkerne", "Winthrop", "Plymouth"]
FULL = "DynamicCache, f32"


# ---------------------------------------------------------------------------------------------------------------------
# One pass over a context, from which every cache is made.


class Reading:
    """A context that was read once."""

    def __init__(self, bench, ids, presses):
        """`presses` maps names to presses; each gets what its hook would get. One that fails fails in `pressed`."""
        self.bench, self.ids = bench, ids
        self.attended, self.parts, self.hidden = [], {name: [] for name in presses}, {name: [] for name in presses}
        decoder = bench.model.model
        hooks = []

        def compress(module, _, options, output):
            layer = self.whole.layers[module.layer_idx]
            for name, press in presses.items():
                if isinstance(self.parts[name], Exception):
                    continue
                given = layer.keys.clone(), layer.values.clone()
                try:
                    self.parts[name].append(press.compress(module, options["hidden_states"], *given, output[1], options))
                except Exception as error:
                    # Raised again where its cache is asked for: the others are read with it.
                    self.parts[name] = error
                    continue
                self.hidden[name].append(getattr(module, "masked_key_indices", None))
                module.masked_key_indices = None

        for press in presses.values():
            press.post_init_from_model(bench.model)
        for layer in decoder.layers:
            layer.self_attn.rotary_emb = decoder.rotary_emb
            hooks.append(layer.self_attn.register_forward_hook(compress, with_kwargs=True))
        self.whole = bench.new()
        bench.record(self.attended)
        try:
            decoder(ids, past_key_values=self.whole)
        finally:
            bench.record(None)
            for hook in hooks:
                hook.remove()

    def full(self):
        """The uncompressed cache, and bytes held and claimed: those of one in f16."""
        size = sum(2 * (layer.keys.numel() + layer.values.numel()) for layer in self.whole.layers)
        return self.whole, size, size

    def pressed(self, name):
        if isinstance(self.parts[name], Exception):
            raise self.parts[name]
        cache = self.bench.new()
        for number, (keys, values) in enumerate(self.parts[name]):
            cache.update(keys.half().float(), values.half().float(), number)
        self.bench.hide(self.hidden[name])
        return cache, *self.bench.in_f16(cache)

    def sketched(self, spec, cap):
        from sketchkv.transformers import SketchCache

        cache = SketchCache(self.bench.model.config, spec, cap, profile=self.bench.profile)
        for number, (query, key, value, scaling, options) in enumerate(self.attended):
            cache.update(key, value, number)
            cache.attend(query, key, value, None, scaling, options)
        held = cache.ledger()["total"]
        return cache, held, held


class Bench:
    """A model and its text."""

    def __init__(self, name, options):
        import torch
        from sketchkv.kvpress import ledger
        from transformers import DynamicCache

        self.torch, self.DynamicCache, self.ledger = torch, DynamicCache, ledger
        torch.set_num_threads(options.threads)
        self.model, self.tokenizer = checkpoint.load(name)
        self.profile = None if options.no_profile else name
        # KVzip loads the tokenizer by the name of the model. The text is plain, and so is what KVzip asks.
        self.tokenizer.chat_template = None
        self.folder = tempfile.TemporaryDirectory()
        self.tokenizer.save_pretrained(self.folder.name)
        self.model.config.name_or_path = self.folder.name
        # Gemma is not itself without a first token, which its tokenizer leaves to others.
        begin = [self.tokenizer.bos_token_id] if self.model.config.model_type.startswith("gemma") else []
        self.begin = torch.tensor([begin], dtype=torch.long)
        text = self.tokenizer(checkpoint.TEXT.read_text(encoding="utf-8"), return_tensors="pt").input_ids
        self.ids = torch.cat([self.begin, text], dim=1)
        self.attended = None
        checkpoint.record(lambda *attended: self.attended.append(attended))

    def new(self):
        return self.DynamicCache()

    def record(self, attended):
        self.attended = attended
        self.model.config._attn_implementation = "sketchkv" if attended is None else "recording"

    def hide(self, hidden):
        """Hides these keys of each layer, or none, as head-wise presses do."""
        for number, layer in enumerate(self.model.model.layers):
            layer.self_attn.masked_key_indices = hidden[number] if hidden else None

    def in_f16(self, cache):
        """Bytes that a DynamicCache would hold in f16, without the lists of what is hidden, and what its press claims."""
        found = self.ledger(cache, self.model)
        share = 2 / self.model.dtype.itemsize
        held = found["keys"] + found["values"]
        return round(held * share), round((held - found["masked"] - found["zeroed"]) * share)

    def zipped(self, ids, ratio):
        """KVzip, by its own passes."""
        from kvpress import KVzipPress

        cache = self.new()
        with KVzipPress(compression_ratio=ratio)(self.model):
            self.model.model(input_ids=ids, past_key_values=cache)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys.half().float(), layer.values.half().float()
        return cache, *self.in_f16(cache)

    def after(self, cache, ids, position):
        """Log-probabilities after each of `ids`, which follow the context; the cache is not to be used again."""
        positions = self.torch.arange(position, position + ids.shape[1]).unsqueeze(0)
        logits = self.model(ids, past_key_values=cache, position_ids=positions).logits[0]
        self.hide(None)
        return logits.log_softmax(-1)

    def needle(self, number, length):
        """A context with a number in it, a question that ends before the number, and the number, each `[1][tokens]`."""
        place, secret = PLACES[number % len(PLACES)], 10000 + (number * 48271 + 30103) % 90000
        encode = lambda text: self.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids  # noqa: E731
        hidden = encode(f" The secret number of {place} is {secret}. Remember it.")
        asked = encode(f"\n\nQuestion: What is the secret number of {place}?\nAnswer: The secret number of {place} is")
        # As the model would write it behind the question.
        whole = encode(f"The secret number of {place} is {secret}")[0]
        answer = whole[len(encode(f"The secret number of {place} is")[0]) :].unsqueeze(0)
        start = 4096 + number * length
        room = length - hidden.shape[1] - self.begin.shape[1]
        before = room * (2 * number + 1) // (2 * len(PLACES))
        hay = self.ids[:, start : start + room]
        return self.torch.cat([self.begin, hay[:, :before], hidden, hay[:, before:]], dim=1), asked, answer


# ---------------------------------------------------------------------------------------------------------------------
# What is measured.


def press_of(name, ratio):
    import kvpress

    if name.endswith(")"):
        outer, inner = name[:-1].split("(", 1)
        return getattr(kvpress, f"{outer}Press")(press_of(inner, ratio))
    return getattr(kvpress, f"{name}Press")(compression_ratio=ratio)


def caches_of(bench, options, reading, share, wanted):
    """Of each cache that is wanted: its engine, its name, and what makes it."""
    cap = int(reading.full()[1] * share / 100)
    for spec in options.kv:
        if ("sketchkv", spec) in wanted:
            yield "sketchkv", spec, cap, lambda spec=spec: reading.sketched(spec, cap)
    for name in options.presses:
        if ("kvpress", name) in wanted:
            if name == "KVzip":
                yield "kvpress", name, cap, lambda: bench.zipped(reading.ids, 1 - share / 100)
            else:
                yield "kvpress", name, cap, lambda name=name: reading.pressed((name, share))


def measure(bench, name, options, context, keep, done):
    """Every row of a context that is not done, made known by `keep` as it is."""
    wanted = {
        share: {
            (engine, cache)
            for engine, caches in (("sketchkv", options.kv), ("kvpress", options.presses))
            for cache in caches
            if (name, context, share, cache) not in done
        }
        for share in options.shares
    }
    if not any(wanted.values()):
        return
    presses = {
        (press, share): press_of(press, 1 - share / 100)
        for share, caches in wanted.items()
        for engine, press in caches
        if engine == "kvpress" and press != "KVzip"
    }
    tasks = [("text", bench.ids[:, :context], bench.ids[:, context : context + options.scored], None)]
    for number in spread(options.needles):
        hay, asked, answer = bench.needle(number, context)
        tasks.append(("needle", hay, bench.torch.cat([asked, answer[:, :-1]], dim=1), answer[0]))
    targets = bench.ids[0, context + 1 : context + options.scored + 1]
    rows = {}
    for kind, ids, after, answer in tasks:
        reading = Reading(bench, ids, presses)
        full = reading.full()
        reference = bench.after(full[0], after, context)
        full[0].crop(context)
        note(f"{name}: {kind} of {ids.shape[1]} tokens read")

        def see(key, share, engine, cap, cache, held, claimed, began):
            found = bench.after(cache, after, context) if cache is not None else reference
            row = rows.setdefault(key, {"model": name, "context": context, "share": share, "engine": engine, "cache": key[-1]})
            if kind == "text":
                loss = -found.gather(1, targets.unsqueeze(1)).mean().item()
                own = -reference.gather(1, targets.unsqueeze(1)).mean().item()
                row |= {"scored": options.scored, "asked": cap, "held": held, "claimed": claimed, "f16": full[1]}
                row |= {"kl": (reference.exp() * (reference - found)).sum(-1).mean().item(), "ppl": math.exp(loss)}
                row |= {"ppl_change": math.exp(loss - own) - 1, "same_top": same(found, reference)}
                row |= {"needles": 0, "needles_of": 0}
            else:
                row["needles"] += int(bool((found[-len(answer) :].argmax(-1) == answer).all()))
                row["needles_of"] += 1
            row["seconds"] = round(row.get("seconds", 0) + time.monotonic() - began, 2)
            if row["needles_of"] == options.needles:
                keep(row)
            elif kind == "text":
                note(f"{name} {context} {share} {key[-1]}: KL {row['kl']:.4f}, {row['seconds']:.0f} s; needles to come")

        if (name, context, None, FULL) not in done:
            see((name, context, None, FULL), None, "transformers", None, None, *full[1:], time.monotonic())
        for share in options.shares:
            for engine, cache_name, cap, make in caches_of(bench, options, reading, share, wanted[share]):
                began = time.monotonic()
                try:
                    see((name, context, share, cache_name), share, engine, cap, *make(), began)
                except Exception as error:
                    # One that does not run says so in its row; the others go on.
                    bench.hide(None)
                    wanted[share].discard((engine, cache_name))
                    keep({"model": name, "context": context, "share": share, "engine": engine, "cache": cache_name, "error": str(error)})


def same(found, reference):
    return (found.argmax(-1) == reference.argmax(-1)).float().mean().item()


def spread(count):
    """`count` of the needles, at depths as far from each other as can be."""
    return [(2 * number + 1) * len(PLACES) // (2 * count) for number in range(count)]


# ---------------------------------------------------------------------------------------------------------------------
# Rows and tables.


def note(text):
    print(text, file=sys.stderr, flush=True)


def key(row):
    return row["model"], row["context"], row["share"], row["cache"]


def line(row):
    if "error" in row:
        return f"| {row['engine']} | `{row['cache']}` | {row['error']} | | | | | |"
    share = lambda size: f"{100 * size / row['f16']:.1f} %"  # noqa: E731
    needles = f"{row['needles']} of {row['needles_of']}" if row["needles_of"] else ""
    cells = [row["engine"], f"`{row['cache']}`", share(row["held"]), share(row["claimed"]), f"{row['kl']:.4f}"]
    return "| " + " | ".join([*cells, f"{100 * row['ppl_change']:+.1f} %", f"{100 * row['same_top']:.1f} %", needles]) + " |"


def table(rows):
    groups = {}
    for row in rows:
        groups.setdefault((row["model"], row["context"], row["share"]), []).append(row)
    parts = []
    for (model, context, share), group in groups.items():
        if share is None:
            row = group[0]
            needles = f", needles {row['needles']} of {row['needles_of']}" if row["needles_of"] else ""
            parts.append(f"{model}, {context} tokens, uncompressed: perplexity {row['ppl']:.2f}{needles}")
            continue
        group.sort(key=lambda row: row.get("kl", math.inf))
        head = ["engine", "cache", "held", "claimed", "mean KL", "ppl change", "same top", "needles"]
        lines = ["| " + " | ".join(head) + " |", "|---|---|--:|--:|--:|--:|--:|--:|", *map(line, group)]
        parts.append(f"{model}, {context} tokens, {share:g} % of f16:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def install(options):
    if not (options.venv / "pyvenv.cfg").exists():
        venv.create(options.venv, with_pip=True)
    python = options.venv / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    # kvpress says which transformers and torch it works with.
    subprocess.run([*pip, "torch", "gguf", "accelerate", "kvpress==0.5.5"], check=True)
    subprocess.run([*pip, REPOSITORY], check=True)


def parse():
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    words = lambda text: [word for word in text.split(" ") if word]  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="install kvpress and the wheel into the virtual environment")
    parser.add_argument("--venv", type=Path, default=home / "sketchkv" / "peers", help="the virtual environment")
    parser.add_argument("--model", action="append", choices=MODELS, help="a pulled model; several times; else all four")
    parser.add_argument("--contexts", type=lambda text: [int(word) for word in text.split(",")], default=[1280], help="tokens")
    parser.add_argument("--scored", type=int, default=256, help="tokens behind the context that are scored")
    parser.add_argument("--shares", type=lambda text: [float(word) for word in text.split(",")], default=[25.0, 12.5], help="%% of f16")
    parser.add_argument("--kv", type=words, default=KV, metavar="SPECS", help="caches of sketchkv without a cap, by spaces")
    parser.add_argument("--no-profile", action="store_true", help="leave what the package knows of the model beforehand out")
    parser.add_argument("--presses", type=words, default=PRESSES, help="presses without their ending, by spaces")
    parser.add_argument("--needles", type=int, default=4, choices=range(len(PLACES) + 1), help="numbers asked for; 0 for none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="lines of JSON; a row that is there is not measured again")
    parser.add_argument("--table", action="store_true", help="measure nothing: only the table of --json")
    parser.add_argument("-t", "--threads", type=int, default=2)
    return parser.parse_args()


def main():
    options = parse()
    if options.install:
        return install(options)
    if options.table and not options.json:
        sys.exit("--table is of rows in a file: name it with --json")
    rows = [json.loads(text) for text in options.json.read_text().splitlines()] if options.json and options.json.exists() else []
    if not options.table:
        checkpoint.within(options.venv, "kvpress", "run this with --install once")
        done = {key(row) for row in rows if "error" not in row}

        def keep(row):
            rows.append(row)
            note(f"{row['model']} {row['context']} {row['share']} {line(row)}")
            if options.json:
                with options.json.open("a") as file:
                    file.write(json.dumps(row) + "\n")

        for name in options.model or MODELS:
            bench = Bench(name, options)
            for context in options.contexts:
                measure(bench, name, options, context, keep, done)
    latest = {key(row): row for row in rows}
    print(table(latest.values()))


if __name__ == "__main__":
    main()
