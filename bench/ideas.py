#!/usr/bin/env python3
"""Ideas of others that the engine does not have, tried in torch on real keys and values: the figures of docs/methods.md, "Tried outside the engine".

    sketchkv pull smollm2-135m
    python3 bench/peers.py --install                       # once: torch and transformers
    python3 bench/ideas.py --model smollm2-135m

A context of the novel is read in one pass, its keys or values are replaced by what a code gives back (never those of the first 4 and the
newest 64 tokens), and what follows is run over them: the mean KL, in nats, of 256 next tokens from those of the exact cache. Bits are of
the codes; scales and offsets are f16 everywhere and are not counted, since each idea has as many.
"""

import argparse
import os
from pathlib import Path

import checkpoint

SINKS, RECENT, PAGE = 4, 64, 64


# ---------------------------------------------------------------------------------------------------------------------
# Codes of values: each takes `[vectors][dimensions]` of about unit variance, Gaussian after a rotation, and gives what comes back.


def hadamard(torch, size):
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / size**0.5


def scalar(torch, bits):
    """The best levels for a Gaussian (Lloyd and Max), what `tq` stores use."""
    sample = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    levels = torch.linspace(-2, 2, 1 << bits)
    for _ in range(100):
        near = torch.bucketize(sample, (levels[1:] + levels[:-1]) / 2)
        levels = torch.zeros_like(levels).index_add(0, near, sample) / torch.bincount(near, minlength=len(levels))
    return lambda x: levels[torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)]


def lattice(torch, bits):
    """E8, eight numbers at a time, 2 bits a number: the 65,536 points of least norm (as QuIP#, 2402.04396, has them)."""
    assert bits == 2
    points = []
    for shift in (0.0, 0.5):
        steps = torch.arange(-3, 4) + shift
        found = torch.zeros(1, 0)
        for _ in range(8):
            found = torch.cat([found.repeat_interleave(len(steps), 0), steps.repeat(len(found)).unsqueeze(1)], 1)
            found = found[found.square().sum(1) <= 12]
        points.append(found[found.sum(1) % 2 == 0])
    points = torch.cat(points)
    points = points[points.square().sum(1).argsort(stable=True)][: 1 << 16]
    half = points.square().sum(1) / 2

    def anywhere(x):
        """The nearest point of all of E8: of both cosets of D8, with the worst rounding undone where the sum is odd."""
        found = []
        for shift in (0.0, 0.5):
            near = (x - shift).round() + shift
            odd = (near.sum(1) % 2 != 0).nonzero().squeeze(1)
            worst = (x - near)[odd].abs().argmax(1)
            near[odd, worst] += torch.where((x - near)[odd, worst] < 0, -1.0, 1.0)
            found.append(near)
        first = (x - found[0]).square().sum(1) <= (x - found[1]).square().sum(1)
        return torch.where(first.unsqueeze(1), *found)

    def nearest(x):
        out = anywhere(x)
        # All points of a norm below the last one's are there; what is further out has to be looked for.
        far = (out.square().sum(1) > 10).nonzero().squeeze(1)
        for part in far.split(1024):
            out[part] = points[(x[part] @ points.T - half).argmax(1)]
        return out

    sample = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0))
    error = {scale: (nearest(sample * scale) / scale - sample).square().mean() for scale in (0.8, 0.9, 1.0, 1.1, 1.2)}
    scale = min(error, key=error.get)
    return lambda x: (nearest(x.reshape(-1, 8) * scale) / scale).reshape(x.shape)


def trellis(torch, bits, states=8):
    """A trellis of 2^states states whose next state shifts `bits` in (as QTIP, 2406.11235), from state 0, searched by Viterbi, a vector a walk;
    the level of each state is learned from a Gaussian."""
    branches = 1 << bits

    def walk(x, levels):
        cost = torch.full((len(x), 1 << states), float("inf"))
        cost[:, 0] = 0
        back = []
        for column in x.T:
            least, by = cost.view(len(x), branches, -1).min(1)
            back.append(by.to(torch.uint8))
            cost = least.repeat_interleave(branches, 1) + (column.unsqueeze(1) - levels).square()
        state, visited = cost.argmin(1), []
        for by in reversed(back):
            visited.append(state)
            high = state >> bits
            state = high | by.gather(1, high.unsqueeze(1)).squeeze(1).long() << (states - bits)
        return torch.stack(visited[::-1], 1)

    generator = torch.Generator().manual_seed(1)
    sample, levels = torch.randn(2048, 64, generator=generator), torch.randn(1 << states, generator=generator)
    for _ in range(25):
        visited = walk(sample, levels).flatten()
        count = torch.bincount(visited, minlength=len(levels))
        sums = torch.zeros_like(levels).index_add(0, visited, sample.flatten())
        levels = torch.where(count > 0, sums / count.clamp(min=1), levels)
    return lambda x: torch.cat([levels[walk(part, levels)] for part in x.split(512)])


CODES = {"scalar": scalar, "lattice": lattice, "trellis": trellis}


def coded_values(torch, values, code, biased=False):
    """Values `[tokens][dimensions]` through a code after a rotation, each by its own scale, at which its product with what comes back is
    its square; `biased`: the root of its mean square, which is nearer, but shrinks what attention adds up."""
    rotation = hadamard(torch, values.shape[-1])
    turned = values @ rotation.T
    scale = turned.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-8)
    coded = code(turned / scale)
    if not biased:
        scale = turned.square().sum(-1, keepdim=True) / (turned * coded).sum(-1, keepdim=True)
    return (coded * scale.half().float()) @ rotation


# ---------------------------------------------------------------------------------------------------------------------
# Rotations of keys, before channels get bits by what their errors cost.


def graded(torch, keys, weights, bits):
    """Keys `[tokens][channels]`, page by page: bits by reverse water-filling of variance times weight, uniform steps, the best of 4 clips."""
    out = torch.empty_like(keys)
    for start in range(0, len(keys), PAGE):
        page = keys[start : start + PAGE]
        importance = page.var(0, unbiased=False) * weights
        given = torch.zeros(page.shape[1], dtype=torch.long)
        for _ in range(bits * page.shape[1]):
            given[(importance * 4.0 ** -given).masked_fill(given >= 8, -1).argmax()] += 1
        low, high = page.min(0).values, page.max(0).values
        best, least = None, torch.full((page.shape[1],), float("inf"))
        for clip in (1.0, 0.9, 0.8, 0.7):
            middle, half = (low + high) / 2, (high - low) / 2 * clip
            levels = (1 << given).float()
            step = (2 * half / levels.clamp(min=2).sub(1)).clamp(min=1e-12)
            code = ((page - middle + half) / step).round().clamp(min=torch.zeros(()), max=levels - 1)
            back = torch.where(given > 0, middle - half + code * step, page.mean(0))
            error = (back - page).square().sum(0)
            best = back if best is None else torch.where(error < least, back, best)
            least = torch.minimum(error, least)
        # Their covariance with what comes back is their variance.
        far, back = page - page.mean(0), best - best.mean(0)
        scale = far.square().sum(0) / (far * back).sum(0).clamp(min=1e-12)
        out[start : start + PAGE] = torch.where(given > 0, page.mean(0) + back * scale.clamp(max=2), best)
    return out


def turned_keys(torch, keys, queries, bits, rotation):
    """Keys `[tokens][channels]` coded after a rotation learned from the queries `[queries][channels]` that look at them."""
    moment = queries.T @ queries / len(queries)
    if rotation == "none":
        return graded(torch, keys, moment.diagonal(), bits)
    worth, axes = torch.linalg.eigh(moment)
    if rotation == "queries":
        # OSCAR: the axes of the queries' second moment; each is worth its eigenvalue.
        return graded(torch, keys @ axes, worth.clamp(min=0), bits) @ axes.T
    # Both: where errors of any direction cost the same, the axes of the keys.
    worth = worth.clamp(min=worth.max() * 1e-6).sqrt()
    whitened = (keys @ axes) * worth
    _, own = torch.linalg.eigh((whitened - whitened.mean(0)).T @ (whitened - whitened.mean(0)))
    return (graded(torch, whitened @ own, torch.ones(len(own)), bits) @ own.T / worth) @ axes.T


# ---------------------------------------------------------------------------------------------------------------------
# Which tokens stay.


def trigonometric(torch, keys, queries, frequencies):
    """TriAttention (2604.04921) of one KV head: `[tokens]` scores, from keys `[tokens][channels]` and queries
    `[heads][tokens][channels]`, both rotated. Distances are to queries 1, 2, 4, ... tokens ahead; heads are standardized, the greatest counts."""
    tokens = len(keys)
    turn = torch.polar(torch.ones(tokens, len(frequencies)), torch.arange(tokens).unsqueeze(1) * frequencies)
    pairs = lambda x: torch.complex(*x.float().chunk(2, -1)) * turn.conj()  # noqa: E731
    key, query = pairs(keys), pairs(queries)
    scores = []
    for head in query:
        center, size = head.mean(0), head.abs().mean(0)
        series = torch.zeros(tokens)
        ahead = [1 << power for power in range(10)]
        for offset in ahead:
            distance = tokens - torch.arange(tokens) + offset
            series += (center * key.conj() * torch.polar(torch.ones(()), distance.unsqueeze(1) * frequencies)).real.sum(-1) / len(ahead)
        score = series + ((size - center.abs()) * key.abs()).sum(-1)
        scores.append((score - score.mean()) / score.std())
    return torch.stack(scores).max(0).values


# ---------------------------------------------------------------------------------------------------------------------


class Reading:
    """A model that has read a context, and what it says of the tokens behind it."""

    def __init__(self, name, options):
        import torch
        from transformers import DynamicCache

        self.torch, self.DynamicCache, self.context = torch, DynamicCache, options.context
        torch.set_num_threads(options.threads)
        self.model, tokenizer = checkpoint.load(name)
        ids = tokenizer(checkpoint.TEXT.read_text(encoding="utf-8"), return_tensors="pt").input_ids
        self.after = ids[:, options.context : options.context + options.scored]
        self.queries = []

        checkpoint.record(lambda query, *_: self.queries.append(query[0]))
        self.model.config._attn_implementation = "recording"
        whole = DynamicCache()
        self.model.model(ids[:, : options.context], past_key_values=whole)
        self.model.config._attn_implementation = "sdpa"
        self.layers = [(layer.keys[0], layer.values[0]) for layer in whole.layers]
        self.reference = self.follow(self.layers)

    def follow(self, layers):
        cache = self.DynamicCache()
        for number, (keys, values) in enumerate(layers):
            cache.update(keys.unsqueeze(0).contiguous(), values.unsqueeze(0).contiguous(), number)
        at = self.torch.arange(self.context, self.context + self.after.shape[1]).unsqueeze(0)
        return self.model(self.after, past_key_values=cache, position_ids=at).logits[0].log_softmax(-1)

    def loss(self, change):
        """The KL after `change` of each head's keys and values, given its layer and number, but for sinks and the newest."""
        layers = []
        for number, (keys, values) in enumerate(self.layers):
            heads = [change(number, head, keys[head], values[head]) for head in range(len(keys))]
            layers.append(tuple(self.torch.stack(part) for part in zip(*heads)))
        found = self.follow(layers)
        return (self.reference.exp() * (self.reference - found)).sum(-1).mean().item()

    def group(self, number, head):
        """Queries of the context that look at a KV head, `[heads][tokens][channels]`."""
        queries = self.queries[number]
        size = len(queries) // len(self.layers[number][0])
        return queries[head * size : (head + 1) * size]


def between(torch, exact, coded):
    return torch.cat([exact[:SINKS], coded, exact[-RECENT:]])


def measure(reading, options):
    torch = reading.torch
    for bits in options.bits:
        for name, make in CODES.items():
            if name == "lattice" and bits != 2:
                continue
            code = make(torch, bits)
            sample = torch.randn(2048, 64, generator=torch.Generator().manual_seed(2))
            error = (code(sample) - sample).square().mean().item()
            for biased in (True, False):
                coded = lambda v: coded_values(torch, v[SINKS:-RECENT], code, biased)  # noqa: E731
                loss = reading.loss(lambda _, __, k, v: (k, between(torch, v, coded(v))))
                what = f"values, {bits} bits, {name}, {'of least error' if biased else 'unbiased'}"
                yield what, f"{loss:.4f}", f"squared error of a Gaussian {error:.4f}"
    for bits in options.bits:
        for rotation in ("none", "queries", "both"):
            keys = lambda n, h, k, v: (  # noqa: E731
                between(torch, k, turned_keys(torch, k[SINKS:-RECENT], reading.group(n, h).flatten(0, 1), bits, rotation)),
                v,
            )
            yield f"keys, {bits} bits by channel, rotated by: {rotation}", f"{reading.loss(keys):.4f}", ""
    rotary = getattr(reading.model.model, "rotary_emb", None)
    if not hasattr(rotary, "inv_freq"):
        return
    for share in options.shares:
        count = int(reading.context * share / 100)

        def choose(number, head, keys, values):
            scores = trigonometric(torch, keys, reading.group(number, head), rotary.inv_freq)
            scores[:SINKS] = scores[-RECENT:] = float("inf")
            kept = scores.topk(count).indices.sort().values
            return keys[kept].half().float(), values[kept].half().float()

        yield f"tokens by TriAttention, {share:g} %", f"{reading.loss(choose):.4f}", ""


def main():
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    numbers = lambda kind: lambda text: [kind(word) for word in text.split(",")]  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=home / "sketchkv" / "peers", help="the virtual environment of bench/peers.py")
    parser.add_argument("--model", action="append", help="a pulled model; several times")
    parser.add_argument("--context", type=int, default=1280, help="tokens")
    parser.add_argument("--scored", type=int, default=256, help="tokens behind the context that are scored")
    parser.add_argument("--bits", type=numbers(int), default=[2, 3], help="a number")
    parser.add_argument("--shares", type=numbers(float), default=[25.0, 12.5], help="%% of the tokens that stay")
    parser.add_argument("-t", "--threads", type=int, default=2)
    options = parser.parse_args()
    checkpoint.within(options.venv, "transformers", "run bench/peers.py with --install once")
    for name in options.model or ["smollm2-135m"]:
        print(f"\n{name}, {options.context} tokens\n\n| idea | mean KL | |\n|---|--:|---|")
        for row in measure(Reading(name, options), options):
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
