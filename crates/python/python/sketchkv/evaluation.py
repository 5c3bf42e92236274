"""Caches side by side, and advice: measured in Rust, shown as data frames."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

from . import _sketchkv
from ._sketchkv import Model


class Advice(NamedTuple):
    """What to use, and why."""

    spec: str
    """The cache to use, with the budget that was asked for."""
    reasons: list[str]
    """Why, one sentence each."""
    candidates: Any
    """What was measured and fits, the best first: a data frame as that of `compare`, with the `bytes` at the full context."""
    rejected: list[dict[str, str]]
    """What cannot be used within the budget, and why: each a `spec` and an `error`."""


def compare(
    model: Model,
    kv: Sequence[str] | None = None,
    *,
    text: str | None = None,
    files: Sequence[str | PathLike[str]] = (),
    context: int | None = None,
    documents: int = 4,
    prefill: int | None = None,
    stream: int = 1,
    seed: int = 0,
    frame: str | None = None,
) -> Any:
    """Runs caches on the same text: bytes, speed, and what is lost against the uncompressed cache.

    `kv` are the specs, by default the controls and the best of each kind; the text is `text`, that of `files` (.txt, .jsonl,
    .parquet), or what the program carries. Each of `documents` has `context` tokens (1024, if the model has as many), of which
    `prefill` (half) are taken in at once and the others `stream` at a time, scored.

    Gives a row for each cache, in order: `spec`, `kv_bytes`, `kv_percent` of an f16 cache, `decode_tps`, `ppl`, `kl_mean` (nats),
    `same_top` and others; `error` where a cache failed. It is a pandas or polars data frame if one of them is installed (`frame`
    chooses: "pandas", "polars" or "dicts"), else a list of dicts.

    >>> rows = compare(Model.load("tiny-gpt2"), ["full", "window@25%"], context=128, documents=1, frame="dicts")
    >>> [row["spec"] for row in rows]
    ['full', 'window@25%']
    >>> rows[1]["kv_bytes"] < rows[0]["kv_bytes"]
    True
    """
    kv = None if kv is None else list(kv)
    result = json.loads(
        _sketchkv.compare(model, kv, text, list(files), context, documents, prefill, stream, seed)
    )
    _warn(result["warnings"])
    return _frame([_flat(row) for row in result["rows"]], frame)


def advise(
    model: Model,
    budget: int | str,
    *,
    context: int | None = None,
    text: str | None = None,
    files: Sequence[str | PathLike[str]] = (),
    samples: int = 2,
    seed: int = 0,
    frame: str | None = None,
) -> Advice:
    """Recommends a cache of at most `budget` (bytes, "64MiB", "25%") for `context` tokens, by measuring a few.

    `text`, `files` and `frame` are as for `compare`; `samples` documents are measured.
    """
    result = json.loads(_sketchkv.advise(model, budget, context, text, list(files), samples, seed))
    _warn(result["warnings"])
    candidates = [
        {"spec": one["spec"], "bytes": one["bytes"], **{k: v for k, v in _flat(one["row"]).items() if k != "spec"}}
        for one in result["candidates"]
    ]
    return Advice(result["spec"], result["reasons"], _frame(candidates, frame), result["rejected"])


def _warn(messages: list[str]) -> None:
    for message in messages:
        warnings.warn(message, stacklevel=3)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The numbers and texts of a row, those of the ledger and the latency by longer names."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name in ("ledger", "latency"):
            flat.update({f"{name}_{part}": number for part, number in (value or {}).items()})
        elif not isinstance(value, (dict, list)):
            flat[name] = value
    if row.get("kl_interval"):
        flat["kl_low"], flat["kl_high"] = row["kl_interval"]
    return flat


def _frame(rows: list[dict[str, Any]], kind: str | None) -> Any:
    if kind not in (None, "pandas", "polars", "dicts"):
        raise ValueError(f'a frame is "pandas", "polars" or "dicts", not {kind!r}')
    for name in (kind,) if kind else ("pandas", "polars"):
        if name == "dicts":
            break
        try:
            library = importlib.import_module(name)
        except ImportError:
            if kind:
                raise
            continue
        # Rows of failed caches have other columns than the rest.
        columns = list(dict.fromkeys(column for row in rows for column in row))
        return library.DataFrame({column: [row.get(column) for row in rows] for column in columns})
    return rows
