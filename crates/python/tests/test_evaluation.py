"""Comparisons and advice as frames."""

import sys

import pandas
import pytest

import sketchkv

SPECS = ["full", "full+q8", "window@50%"]


def test_rows_are_in_order(model):
    rows = sketchkv.compare(model, SPECS, context=192, documents=1, frame="dicts")
    assert [row["spec"] for row in rows] == SPECS
    assert rows[0]["kl_mean"] < rows[1]["kl_mean"] < rows[2]["kl_mean"]
    assert rows[1]["ledger_keys"] < rows[0]["ledger_keys"]


def test_one_that_fails_is_a_row(model):
    rows = sketchkv.compare(model, ["full", "h2o@100B"], context=128, documents=1, frame="dicts")
    assert "below the minimum" in rows[1]["error"] and "kl_mean" in rows[0]


def test_a_frame_of_pandas(model):
    frame = sketchkv.compare(model, SPECS[:2], context=128, documents=1)
    assert isinstance(frame, pandas.DataFrame) and list(frame["spec"]) == SPECS[:2]


def test_dicts_where_there_is_no_library(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    rows = sketchkv.compare(model, ["full"], context=128, documents=1)
    assert isinstance(rows, list)
    with pytest.raises(ImportError):
        sketchkv.compare(model, ["full"], context=128, documents=1, frame="polars")


def test_own_text(model, tmp_path):
    text = "The sea was calm and the wind was fair. " * 100
    (tmp_path / "own.txt").write_text(text)
    options = {"context": 128, "documents": 1, "frame": "dicts"}
    told = sketchkv.compare(model, ["full+q8"], text=text, **options)[0]["ppl"]
    assert sketchkv.compare(model, ["full+q8"], files=[tmp_path / "own.txt"], **options)[0]["ppl"] == told
    with pytest.raises(ValueError, match="text or files"):
        sketchkv.compare(model, text=text, files=[tmp_path / "own.txt"])


def test_advice_fits_the_budget(model):
    advice = sketchkv.advise(model, "50%", context=256, samples=1, frame="dicts")
    full = 256 * 2 * 2 * 128 * 12
    assert advice.spec in [row["spec"] for row in advice.candidates]
    assert advice.reasons and all(row["bytes"] <= full for row in advice.candidates)
    with pytest.raises(sketchkv.Error, match="raise the budget"):
        sketchkv.advise(model, 1000, context=256)
