"""Tokens guessed ahead: they come no sooner than they would, and are the same."""

import pytest

from sketchkv import Cache, Error, Model

# A text that says the same again and again, as a greedy model goes on with it: guesses in it are right.
PROMPT = "The sea was calm and the wind was fair. The sea was calm and the wind was fair. The sea was calm and"
SPECS = ["full", "h2o+q8@64tok", "auto@128KiB", "full+topk(k=32)"]


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.9, "seed": 3}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("spec", SPECS)
def test_the_text_and_its_cache_are_the_same(model, spec, options):
    caches, texts = [], []
    for how in ("off", "lookup", "auto"):
        caches.append(Cache(spec, seed=1))
        # The second text goes on over the cache of the first, guesses and all.
        texts.append([model.generate(text, cache=caches[-1], max_tokens=60, speculate=how, **options) for text in (PROMPT, " The wind")])
    assert texts[0] == texts[1] == texts[2]
    assert len({cache.position for cache in caches}) == 1
    assert caches[0].ledger() == caches[1].ledger() == caches[2].ledger()


def ahead(model, how):
    """The most tokens by which the cache was ahead of what had come of the text, and the text."""
    stream = model.stream(PROMPT, max_tokens=200, temperature=0, ignore_end=True, speculate=how)
    prompt = len(model.tokenize(PROMPT, begin=True))
    most = max(stream.cache.position - prompt - len(stream.tokens) for _ in stream)
    return most, stream.text


def test_several_tokens_come_of_one_pass(model):
    (alone, text), (several, same) = ahead(model, "off"), ahead(model, "lookup")
    assert text == same
    assert alone <= 0 < several


def test_other_ways_are_refused(model):
    with pytest.raises(ValueError, match="not \"self\""):
        model.generate("The sea", max_tokens=1, speculate="self")
