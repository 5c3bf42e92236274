"""What a text takes in memory, and where it stands."""

import numpy
import pytest

from sketchkv import Cache, Error, Model, SpecError

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 8
GREEDY = {"max_tokens": 8, "temperature": 0}


def test_a_cap_is_a_number_or_a_text():
    assert Cache("h2o", 65536).spec == Cache("h2o", "64KiB").spec == Cache("h2o@64KiB").spec
    assert Cache("full+q8").spec == "full+q8"
    with pytest.raises(ValueError, match="has a cap already"):
        Cache("h2o@25%", "64KiB")
    with pytest.raises(SpecError, match="is no cap"):
        Cache("h2o", "much")
    with pytest.raises(SpecError, match="contradicts itself"):
        Cache("full", "64KiB")
    with pytest.raises(TypeError, match="a cap is a number of bytes"):
        Cache("h2o", [1])


def test_the_ledger_keeps_to_the_cap(model):
    cache = Cache("h2o+q8", "300KiB")
    assert cache.ledger()["total"] == 0
    model.logits(TEXT, cache=cache, chunk=16)
    ledger = cache.ledger()
    assert 0 < ledger["total"] <= 300 * 1024 and cache.has_evicted
    assert ledger["total"] == sum(bytes for item, bytes in ledger.items() if item != "total")


def test_another_cap_in_mid_use(model):
    cache = Cache("auto", "600KiB")
    model.logits(TEXT, cache=cache)
    cache.set_cap("300KiB")
    assert cache.ledger()["total"] <= 300 * 1024
    assert cache.spec.endswith("@300KiB")
    with pytest.raises(SpecError, match="below the minimum"):
        cache.set_cap(1)


def test_a_fork_goes_its_own_way(model):
    cache = Cache("full+q8")
    model.generate("The sea was", cache=cache, **GREEDY)
    fork = cache.fork()
    more = model.generate("", cache=fork, **GREEDY)
    other = model.generate(" and blue", cache=cache, **GREEDY)
    assert len(fork) != len(cache) and more != other


def test_what_is_cut_off_has_never_been(model):
    cache = Cache("full+f32")
    prompt = model.tokenize("The sea was", begin=True)
    text = model.generate(prompt, cache=cache, **GREEDY)
    cache.truncate(len(prompt) - 1)
    assert len(cache) == cache.position == len(prompt) - 1
    assert model.generate(prompt[-1:], cache=cache, **GREEDY) == text
    evicted = Cache("window@96tok")
    model.logits(TEXT, cache=evicted)
    with pytest.raises(Error, match="cannot be cut back"):
        evicted.truncate(2)


def test_a_file_goes_on(model, tmp_path):
    cache = Cache("h2o+q8@50%")
    model.generate(TEXT, cache=cache, **GREEDY)
    cache.save(tmp_path / "text.kv")
    loaded = Cache.load(tmp_path / "text.kv", model)
    assert loaded.spec == cache.spec and len(loaded) == len(cache)
    assert model.generate("", cache=loaded, **GREEDY) == model.generate("", cache=cache, **GREEDY)
    with pytest.raises(Error, match="there is no session"):
        Cache.load(tmp_path / "other.kv", model)
    with pytest.raises(Error, match="nothing to save"):
        Cache().save(tmp_path / "empty.kv")


def test_slots_are_what_the_store_gives_back(model):
    cache = Cache("full+f32")
    model.logits("The sea was calm", cache=cache)
    positions, keys, values = cache.slots(1, 0)
    assert positions.tolist() == list(range(cache.position))
    assert keys.shape[0] == values.shape[0] == len(positions)
    coarse = Cache("full+q8")
    model.logits("The sea was calm", cache=coarse)
    numpy.testing.assert_allclose(coarse.slots(1, 0)[1], keys, atol=0.2)
    with pytest.raises(Error, match="there is no KV head 99"):
        cache.slots(0, 99)


def test_a_cache_belongs_to_one_model(model):
    cache = Cache()
    model.generate("The sea", cache=cache, **GREEDY)
    with pytest.raises(Error, match="in use with the model"):
        Model.load("tiny-gpt2").generate(" was", cache=cache, **GREEDY)
