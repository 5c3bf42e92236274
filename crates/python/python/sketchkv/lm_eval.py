"""A model class for EleutherAI's lm-eval: its tasks over any cache.

``python -m sketchkv.lm_eval run --model sketchkv --model_args model=smollm2-135m kv=auto@25% --tasks ...`` is its command with
the class registered; a program imports this module first. It needs lm-eval.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

from ._sketchkv import Cache, Error, Model

Tokens = list[int]

SAMPLING = ("top_k", "top_p", "min_p", "repetition_penalty", "seed")
"""Arguments of generation that mean the same to `Model.generate`."""


@register_model("sketchkv")
class SketchLM(TemplateLM):
    """A model whose every request has a new cache `kv`.

    `model` is a name, GGUF file or folder, as for `Model.load`, or a `Model`. `chunk` tokens are run at a time: within a chunk every
    token sees the whole chunk before it, so that a cap binds token by token with 1 alone. `prefix_token` is the token, as text, that
    a text without context follows; by default the one that begins a text, where the model has one. `chat_template` stands in place of
    the model's own, as for `Model.load`. `max_length`, in tokens, is at most the model's context. Requests run one after the other on
    the processor: `batch_size`, `max_batch_size` and `device`, which lm-eval gives every model, change nothing.
    """

    def __init__(
        self,
        model: str | Model,
        kv: str = "full",
        *,
        chunk: int = 512,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        prefix_token: str | None = None,
        chat_template: str | None = None,
        weights: Literal["native", "fast", "f32", "q8"] = "native",
        threads: int = 0,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(model, str):
            model = Model.load(model, weights=weights, threads=threads, chat_template=chat_template)
        elif chat_template is not None:
            raise ValueError("a model that is loaded has its chat_template: give it to Model.load")
        self.model = model
        # Kept as it was given: a preset becomes what is best for the model when a cache is used.
        self.kv = kv
        Cache(kv)
        self.chunk = chunk
        self.max_length = min(max_length or self.model.context, self.model.context)
        self.max_gen_toks = max_gen_toks
        self._prefix = self.model.tokenize(prefix_token or "", begin=prefix_token is None)
        if len(self._prefix) > 1:
            raise ValueError(f"prefix_token is to be one token of the model, and {prefix_token!r} is {len(self._prefix)}")
        # What a chat template may have written already.
        self._begin = self.model.detokenize(self.model.tokenize("", begin=True))
        self._most_bytes = 0

    @property
    def eot_token_id(self) -> int:
        return self.prefix_token_id

    @property
    def prefix_token_id(self) -> int:
        if not self._prefix:
            raise ValueError(f"{self.model.name} begins no text with a token: give a prefix_token, for example <|endoftext|>")
        return self._prefix[0]

    def get_model_info(self) -> dict[str, Any]:
        """What results say of the model: the cache, and the most `kv_bytes` that a request took."""
        return {"sketchkv_model": self.model.name, "kv": self.kv, "chunk": self.chunk, "kv_bytes": self._most_bytes}

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval keeps prepared requests under: the model, and its chat template."""
        template = hashlib.sha256((self.model.chat_template or "").encode()).hexdigest()
        return f"{self.model.name.replace('/', '__')}__{template[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of the model's chat template, which results are told apart by; there is one, so that a name chooses none."""
        if not chat_template:
            return None
        if isinstance(chat_template, str):
            raise ValueError(
                f"a model of sketchkv has one chat template, and none called {chat_template!r}: give "
                "--apply_chat_template without a name, or chat_template in --model_args"
            )
        return self.model.chat_template

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of messages `{"role": ..., "content": ...}` by the model's chat template.

        It opens the model's turn or, without `add_generation_prompt`, ends within the last message, which the model is to go on with.
        Where the template knows no system message, what it says begins the first message. A `sketchkv.Error` where the model has no
        template, or it refuses the messages.
        """
        history = list(chat_history)
        try:
            text = self.model.chat_prompt(history, answer=add_generation_prompt)
        except Error:
            if len(history) < 2 or history[0]["role"] != "system":
                raise
            (system, first, *rest) = history
            history = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
            text = self.model.chat_prompt(history, answer=add_generation_prompt)
        return text if add_generation_prompt else _within(text, history[-1]["content"])

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> Tokens:
        if add_special_tokens is None:
            add_special_tokens = not (self._begin and string.startswith(self._begin))
        return self.model.tokenize(string, begin=add_special_tokens)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        sums = []
        for request in tqdm(requests, disable=disable_tqdm):
            (text,) = request.args
            windows = utils.get_rolling_token_windows(
                self.tok_encode(text, add_special_tokens=False), self.prefix_token_id, self.max_length, 1
            )
            pairs = (utils.make_disjoint_window(window) for window in windows)
            sums.append(sum(self._score(self._taken_in(context), context[-1], rest)[0] for context, rest in pairs))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), sums[-1])
        return sums

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], Tokens, Tokens]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        results = []
        context, cache = None, None
        for texts, before, after in tqdm(requests, disable=disable_tqdm):
            # The last token is scored, but not run.
            room = self.max_length + 1 - len(after)
            if room < 1:
                raise ValueError(f"a continuation of {len(after)} tokens leaves no context within max_length {self.max_length}")
            before = before[-room:]
            # The answers to a question come one after the other: the question is taken in once.
            if cache is None or before != context:
                context, cache = before, self._taken_in(before)
            results.append(self._score(cache.fork(), before[-1], after))
            self.cache_hook.add_partial("loglikelihood", texts, results[-1])
        return results

    def _taken_in(self, context: Tokens) -> Cache:
        """A cache that has seen the context but for its last token, whose logits are those of what follows."""
        cache = Cache(self.kv)
        if len(context) > 1:
            self.model.score(context[:-1], cache=cache, chunk=self.chunk)
        return cache

    def _score(self, cache: Cache, last: int, tokens: Tokens) -> tuple[float, bool]:
        """The log-probability of the tokens after the context that ends in `last`, and whether each is the most probable."""
        logits = self.model.logits([last, *tokens[:-1]], cache=cache, chunk=self.chunk).astype(numpy.float64)
        self._account(cache)
        most = logits.max(axis=1)
        chosen = logits[numpy.arange(len(tokens)), tokens]
        totals = most + numpy.log(numpy.exp(logits - most[:, None]).sum(axis=1))
        return float((chosen - totals).sum()), bool((chosen == most).all())

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        texts = []
        for request in tqdm(requests, disable=disable_tqdm):
            context, asked = request.args
            options = normalize_gen_kwargs(asked, self.max_gen_toks)
            room = self.max_length - options["max_gen_toks"]
            if room < 1:
                raise ValueError(f"{options['max_gen_toks']} tokens to generate leave no context within max_length {self.max_length}")
            cache = Cache(self.kv)
            texts.append(
                self.model.generate(
                    self.tok_encode(context)[-room:],
                    cache=cache,
                    max_tokens=options["max_gen_toks"],
                    stop=options["until"],
                    temperature=options.get("temperature", 0.0),
                    **{name: options[name] for name in SAMPLING if name in options},
                )
            )
            self._account(cache)
            self.cache_hook.add_partial("generate_until", (context, asked), texts[-1])
        return texts

    def _account(self, cache: Cache) -> None:
        self._most_bytes = max(self._most_bytes, cache.ledger()["total"])


def _within(text: str, last: str) -> str:
    """A conversation up to the end of its last message, without what the template writes behind it."""
    # Templates may trim what is said.
    said = last.strip()
    found = text.rfind(said)
    if not said or found < 0:
        raise ValueError(f"the chat template does not write the message that is to be gone on with: {last!r}")
    end = found + len(said)
    space = last[len(last.rstrip()) :]
    return text[: end + len(space)] if text.startswith(space, end) else text[:end]


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
