"""The engine. Arrays are NumPy's; shapes are given as `[rows][columns]`.

>>> from sketchkv import *
>>> import numpy
>>> model = Model.load("tiny-gpt2")
"""

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Literal, TypedDict, final

import numpy
from numpy.typing import NDArray
from typing_extensions import Unpack

__version__: str

class Error(Exception):
    """What the engine refuses or fails at; the message says the way out."""

class SpecError(Error):
    """A cache that does not parse, contradicts itself or does not fit the model.

    >>> Cache("h20@25%")
    Traceback (most recent call last):
    ...
    sketchkv.SpecError: no method is called `h20`; near names: `h2o`, ...
    """

class Options(TypedDict, total=False):
    """How tokens are chosen, and when a text ends."""

    max_tokens: int | None
    """Most tokens to generate; to the end of the context without."""
    stop: str | Sequence[str]
    """Texts that end the generation; they are not part of it."""
    temperature: float
    """Divides the logits; 0 always takes the most probable token. 0.8"""
    top_k: int
    """Of the most probable tokens only this many; 0 takes all. 40"""
    top_p: float
    """Of the most probable tokens those that together reach this probability. 0.95"""
    min_p: float
    """No token less probable than this share of the most probable. 0.05"""
    repetition_penalty: float
    """Makes tokens less likely that came lately; 1, which it is, does not."""
    repetition_window: int
    """How many of the last tokens the penalty looks at. 64"""
    seed: int | None
    """Begins the random numbers anew; they go on without."""
    ignore_end: bool
    """Goes on past tokens that end a text."""
    show_special: bool
    """Spells special tokens out instead of hiding them."""
    speculate: Literal["auto", "lookup", "off"]
    """What guesses the tokens that come next, for the model to check several at once: "lookup" in the text so far, which "auto" is.
    The text is the same, token for token, and guesses are made only while they pay; "auto", unless given."""

@final
class Model:
    """A model ready to run. Several threads may use it at once; each text has a cache of its own."""

    name: str
    context: int
    """The longest sequence it was made for, in tokens."""
    vocabulary: int
    """The width of its logits."""
    weight_bytes: int
    notes: list[str]
    """Remarks on its files."""
    chat_template: str | None
    """The source of its chat template, in Jinja."""

    @staticmethod
    def load(
        name: str,
        *,
        weights: Literal["native", "fast", "f32", "q8"] = "native",
        threads: int = 0,
        beyond_context: bool = False,
        chat_template: str | None = None,
    ) -> Model:
        """Loads "tiny-gpt2" (which is part of the package), a pulled model by its name, a GGUF file or a Hugging Face folder.

        `weights` are held as in the file (`"fast"`: with activations of 8 bits), in f32 (the reference) or in 8 bits; 0 `threads` are
        one per core; `beyond_context` lets positions go past the model's context, where they are rotary. `chat_template` stands in place of the model's own: "chatml",
        "gemma", "llama3", or Jinja.

        >>> Model.load("no-such-model")
        Traceback (most recent call last):
        ...
        sketchkv.Error: there is no file or folder "no-such-model" and no model of that name; names are tiny-gpt2, ...
        """
    @staticmethod
    def pull(
        name: str,
        *,
        refresh: bool = False,
        weights: Literal["native", "fast", "f32", "q8"] = "native",
        threads: int = 0,
        beyond_context: bool = False,
        chat_template: str | None = None,
    ) -> Model:
        """Fetches a model if it is not here yet, every byte checked, and loads it. `refresh` asks its source even then."""
    def tokenize(self, text: str, *, begin: bool = False, special: bool = True) -> list[int]:
        """The tokens of a text, with the one that begins a text if `begin`; special tokens in it count unless `special` is off.

        >>> model.detokenize(model.tokenize("The sea was calm."))
        'The sea was calm.'
        """
    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones spelled out."""
    def chat_prompt(self, messages: Sequence[dict[str, str]], *, answer: bool = True, special: bool = False) -> str:
        """The text of a conversation by the chat template; `answer` opens the model's turn at its end.

        Messages have a "role" and a "content". Special tokens that they spell are plain text, unless `special` is on: they are
        broken by U+FDD0, which `tokenize` and `generate` take out. The text has the token that begins a text where the template
        writes it: tokenize it without `begin`.

        >>> talker = Model.load("tiny-gpt2", chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\\n{% endfor %}")
        >>> talker.chat_prompt([{"role": "user", "content": "Who are you?"}])
        'user: Who are you?\\n'
        """
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        kv: str | None = None,
        cache: Cache | None = None,
        **options: Unpack[Options],
    ) -> str:
        """The text that follows a prompt, over a new cache `kv` ("full") or over one that goes on.

        >>> text = model.generate("The sea was", max_tokens=8, temperature=0)
        >>> text == model.generate("The sea was", max_tokens=8, temperature=0, kv="full+f32")
        True
        """
    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        kv: str | None = None,
        cache: Cache | None = None,
        **options: Unpack[Options],
    ) -> Stream:
        """As `generate`, piece by piece.

        >>> stream = model.stream("The sea was", max_tokens=8, seed=1)
        >>> "".join(stream) == stream.text
        True
        >>> stream.finish, len(stream.tokens)
        ('length', 8)
        """
    def chat(self, *, kv: str = "full", system: str | None = None, seed: int = 0) -> Chat:
        """A conversation by the model's chat template; `system` is what the model is told first."""
    def logits(
        self, text: str | Sequence[int], *, kv: str | None = None, cache: Cache | None = None, chunk: int = 512
    ) -> NDArray[numpy.float32]:
        """The logits after every token of a text, `[tokens][vocabulary]`.

        `chunk` tokens are run at a time; within a chunk every token sees the whole chunk before it, so that a cap binds token by
        token with `chunk=1` alone.

        >>> model.logits("The sea was").shape == (len(model.tokenize("The sea was", begin=True)), model.vocabulary)
        True
        """
    def score(
        self, text: str | Sequence[int], *, kv: str | None = None, cache: Cache | None = None, chunk: int = 512
    ) -> NDArray[numpy.float64]:
        """The log-probabilities (natural) of the tokens of a text but the first, each after all before it, `[tokens - 1]`.

        >>> scores = model.score("The sea was calm and the wind was fair.")
        >>> bool(numpy.exp(-scores.mean()) > 1)
        True
        """

@final
class Cache:
    """The KV cache of one text, and where the text stands.

    `spec` is a composition of methods as listed in the README, `bytes` a cap beside it: a number of bytes, or "64MiB", "25%",
    "512tok". The cache runs with the first model that it is used with. At rest it has seen every token of its text but the newest
    one that the model chose, which is run when the text goes on.

    >>> cache = Cache("full+q8")
    >>> first = model.generate("Once upon a time", cache=cache, max_tokens=4, temperature=0)
    >>> other = cache.fork()
    >>> more = model.generate("", cache=cache, max_tokens=4, temperature=0)
    >>> more == model.generate("", cache=other, max_tokens=4, temperature=0)
    True
    >>> cache.ledger()["total"] > 0
    True
    """

    def __init__(self, spec: str = "full", bytes: int | str | None = None, *, seed: int = 0) -> None: ...
    spec: str
    """The composition, cap included."""
    position: int
    """Tokens that the cache has seen."""
    has_evicted: bool
    def __len__(self) -> int:
        """Tokens of the text, with those that the cache has yet to see."""
    def ledger(self) -> dict[str, int]:
        """Bytes by what takes them: keys, values, scales, positions, scores, codes, sketches, tail, tables, slack; and their total."""
    def slots(
        self, layer: int, kv_head: int
    ) -> tuple[NDArray[numpy.int64], NDArray[numpy.float32], NDArray[numpy.float32]]:
        """Of one KV head, as its store gives them back: positions `[slots]`, keys `[slots][key_dim]`, values `[slots][value_dim]`.

        >>> positions, keys, values = cache.slots(0, 0)
        >>> len(positions) == cache.position == len(keys) == len(values)
        True
        """
    def fork(self) -> Cache:
        """A second text that goes on from here; pages are shared until one of the two writes to them."""
    def truncate(self, tokens: int) -> None:
        """Forgets all tokens but the first ones, so that another text can follow them.

        >>> cache.truncate(3)
        >>> len(cache)
        3
        """
    def set_cap(self, cap: int | str | None) -> None:
        """Another cap from now on; down, what is too much goes at once."""
    def save(self, path: str | PathLike[str]) -> None:
        """Writes the text and its cache to a file, which `sketchkv run --session` goes on with as well."""
    @staticmethod
    def load(path: str | PathLike[str], model: Model) -> Cache:
        """Goes on with what was saved, as if it had never stopped."""

@final
class Stream:
    """A text as it comes: an iterator over pieces that are certain, each of whole characters."""

    text: str
    """The text so far."""
    tokens: list[int]
    """The tokens chosen so far."""
    finish: Literal["end", "stop", "length", "context", "interrupted"] | None
    """Why it ended, once it has."""
    cache: Cache
    """The cache it runs over."""
    def __iter__(self) -> Iterator[str]: ...
    def __next__(self) -> str: ...
    def complete(self) -> str:
        """Runs to the end; the whole text."""
    def timing(self) -> dict[str, float]:
        """`prefill_tokens`, `prefill_tps`, `decode_tokens`, `decode_tps` (tokens per second) so far."""

@final
class Chat:
    """A conversation over one cache; each turn feeds only what is new.

    >>> model.chat()
    Traceback (most recent call last):
    ...
    sketchkv.Error: tiny-gpt2 brings no chat template: continue text with `generate`, ...
    """

    cache: Cache
    """Its cache: ledger, cap. It cannot be forked or cut back."""
    def ask(self, text: str, **options: Unpack[Options]) -> str:
        """Says something; the answer."""
    def stream(self, text: str, **options: Unpack[Options]) -> Stream:
        """Says something; the answer as it comes. What was shown of it counts, if it is left."""
    def reset(self) -> None:
        """Begins anew with the same instruction."""
    def save(self, path: str | PathLike[str]) -> None:
        """Writes the conversation and its cache to a file, which `sketchkv chat --session` goes on with as well."""
    @staticmethod
    def load(path: str | PathLike[str], model: Model) -> Chat:
        """Goes on with a conversation."""

@final
class CountMin:
    """Counts per key in `depth` rows of `width` counters, never too few (Cormode and Muthukrishnan, 2005).

    >>> sketch = CountMin(1024, 4, seed=7)
    >>> sketch.update(numpy.array([1, 2, 1], dtype=numpy.uint64))
    >>> sketch.query(numpy.array([1, 2, 3], dtype=numpy.uint64))
    array([2, 1, 0], dtype=uint64)
    """

    def __init__(self, width: int, depth: int, *, seed: int = 0) -> None: ...
    width: int
    depth: int
    nbytes: int
    @staticmethod
    def for_error(epsilon: float, delta: float, *, seed: int = 0) -> CountMin:
        """One whose estimates are too large by at most `epsilon` of all that was added, but for probability `delta`."""
    def update(self, keys: NDArray[numpy.uint64], amounts: NDArray[numpy.uint64] | None = None) -> None:
        """Adds `amounts[i]`, or 1, to `keys[i]`."""
    def query(self, keys: NDArray[numpy.uint64]) -> NDArray[numpy.uint64]:
        """An upper bound for each key, `[keys]`."""
    def merge(self, other: CountMin) -> None:
        """Takes in what a sketch of the same size and seed has counted."""
    def clear(self) -> None: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(bytes: bytes) -> CountMin: ...

@final
class CountSketch:
    """Counts per key in `depth` rows of `width` signed counters; errors go either way (Charikar, Chen and Farach-Colton, 2002).

    >>> sketch = CountSketch(1024, 5)
    >>> sketch.update(numpy.array([9, 8], dtype=numpy.uint64), numpy.array([3, -2]))
    >>> sketch.query(numpy.array([9, 8], dtype=numpy.uint64))
    array([ 3, -2])
    """

    def __init__(self, width: int, depth: int, *, seed: int = 0) -> None: ...
    width: int
    depth: int
    nbytes: int
    @staticmethod
    def for_error(epsilon: float, delta: float, *, seed: int = 0) -> CountSketch:
        """One whose estimates are off by at most `epsilon` times the 2-norm of all counts, but for probability `delta`."""
    def update(self, keys: NDArray[numpy.uint64], amounts: NDArray[numpy.int64] | None = None) -> None:
        """Adds `amounts[i]`, or 1, to `keys[i]`."""
    def query(self, keys: NDArray[numpy.uint64]) -> NDArray[numpy.int64]:
        """An estimate for each key, `[keys]`."""
    def merge(self, other: CountSketch) -> None:
        """Takes in what a sketch of the same size and seed has counted."""
    def clear(self) -> None: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(bytes: bytes) -> CountSketch: ...

@final
class SimHash:
    """Codes of signs: two vectors at angle θ differ in a share θ/π of the bits (Charikar, 2002).

    >>> hash = SimHash(64, 256)
    >>> codes = hash.encode(numpy.eye(3, 64, dtype=numpy.float32))
    >>> codes.shape
    (3, 4)
    >>> bool(1.3 < hash.angle(int(hamming(codes[0], codes)[1])) < 1.8)
    True
    """

    def __init__(
        self,
        dim: int,
        bits: int,
        *,
        projection: Literal["gaussian", "orthogonal", "hadamard"] = "gaussian",
        seed: int = 0,
    ) -> None: ...
    dim: int
    bits: int
    def encode(self, vectors: NDArray[numpy.float32]) -> NDArray[numpy.uint64]:
        """The codes of `vectors` `[vectors][dim]`, `[vectors][bits / 64 rounded up]`."""
    def angle(self, distance: int) -> float:
        """The angle, in radians, that a Hamming distance stands for."""

def hamming(query: NDArray[numpy.uint64], codes: NDArray[numpy.uint64]) -> NDArray[numpy.uint32]:
    """The Hamming distances of one code `[words]` to many `[codes][words]`, `[codes]`."""

@final
class Race:
    """Densities of a set of vectors, counted in `rows` of buckets of `bits` signs (RACE, arXiv 1912.02283).

    >>> race = Race(16, 4, 8)
    >>> race.add(numpy.ones((10, 8), dtype=numpy.float32))
    >>> race.query(numpy.stack([numpy.ones(8), -numpy.ones(8)]).astype(numpy.float32))
    array([10.,  0.], dtype=float32)
    """

    def __init__(self, rows: int, bits: int, dim: int, *, seed: int = 0) -> None: ...
    rows: int
    bits: int
    dim: int
    nbytes: int
    def add(self, vectors: NDArray[numpy.float32], weights: NDArray[numpy.float32] | None = None) -> None:
        """Adds `vectors` `[vectors][dim]`, each with a weight, or 1."""
    def query(self, vectors: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
        """The density at each of `vectors` `[vectors][dim]`, `[vectors]`: the sum over those added of (1 - θ/π)^bits."""
    def merge(self, other: Race) -> None:
        """Takes in what a sketch of the same size and seed has counted."""
    def decay(self, factor: float) -> None:
        """Multiplies everything added so far by a factor from 0 to 1."""
    def clear(self) -> None: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(bytes: bytes) -> Race: ...

@final
class AttentionCaches:
    """The caches of a batch whose model runs elsewhere; what `sketchkv.transformers` is built on.

    `layers` are dicts of `heads`, `kv_heads`, `key_dim`, `value_dim`, `scale`, `softcap`, `window`,
    `inverse_frequencies` and `biased_keys`.
    `profile` is a file or the name of one in the package.
    """

    def __init__(
        self,
        layers: Sequence[dict[str, object]],
        context: int,
        spec: str,
        bytes: int | str | None,
        seed: int,
        threads: int,
        profile: str | PathLike[str] | None,
    ) -> None: ...
    spec: str
    positions: list[int]
    """Tokens that each sequence has seen."""
    has_evicted: bool
    def __len__(self) -> int:
        """Sequences of the batch; 0 before the first pass."""
    def ledger(self) -> dict[str, int]:
        """As that of `Cache`, summed over the sequences."""
    def begin(self, tokens: int, spans: Sequence[tuple[int, int]]) -> None:
        """Begins a pass over `tokens` of every sequence, of which those from `spans[i][0]` to before `spans[i][1]` are no padding."""
    def abandon(self) -> None:
        """Drops a pass: it has never been."""
    def attend(
        self, layer: int, q: NDArray[numpy.float32], k: NDArray[numpy.float32], v: NDArray[numpy.float32]
    ) -> NDArray[numpy.float32]:
        """Causal attention of one layer: `q` `[sequences][tokens][heads][key_dim]`, `k` and `v` `[sequences][tokens][kv_heads][…]`.

        Gives `[sequences][tokens][heads][value_dim]`, 0 where there is padding. Layers come in order.
        """
    def store(self, layer: int, k: NDArray[numpy.float32], v: NDArray[numpy.float32]) -> None:
        """Takes keys and values in without attention; only for caches that do not evict."""
    def finish(self) -> None:
        """Commits the pass."""
    def decoded(self, layer: int) -> tuple[NDArray[numpy.float32], NDArray[numpy.float32]]:
        """What a layer holds: keys `[sequences][kv_heads][tokens][key_dim]` and values `[sequences][kv_heads][tokens][value_dim]`."""
    def slots(
        self, row: int, layer: int, kv_head: int
    ) -> tuple[NDArray[numpy.int64], NDArray[numpy.float32], NDArray[numpy.float32]]:
        """As those of `Cache`, of one sequence; positions do not count padding."""
    def fork(self) -> AttentionCaches:
        """A second batch that goes on from here."""
    def select(self, indices: Sequence[int]) -> None:
        """Makes a batch of these sequences, any of them several times."""
    def forget(self, tokens: int) -> None:
        """Forgets the newest tokens of every sequence; refused where one cannot."""
    def set_cap(self, cap: int | str | None) -> None: ...
    def reset(self) -> None: ...

def compare(
    model: Model,
    kv: list[str] | None,
    text: str | None,
    files: list[str | PathLike[str]],
    context: int | None,
    documents: int,
    prefill: int | None,
    stream: int,
    seed: int,
) -> str: ...
def advise(
    model: Model,
    budget: int | str,
    context: int | None,
    text: str | None,
    files: list[str | PathLike[str]],
    samples: int,
    seed: int,
) -> str: ...
