"""What transformers' own tests of caches ask of one, asked of `SketchCache` on `full+f32` beside a `DynamicCache`.

Those tests are not in a package of transformers that a registry has; these are written anew, one for each thing that they try and
that applies. Left out is what belongs to other caches or other machines: static and compiled caches and `torch.export` (a SketchCache
is no tensor that could be traced), offloading, quanto and HQQ, accelerators and `nn.DataParallel`, and looking at keys and values by
layer, as legacy tuples do, which a SketchCache refuses and says why.
"""

import copy

import pytest
import torch
import transformers
from test_transformers import generate, logits, make, own, tokens
from transformers import Cache, DynamicCache, set_seed

from sketchkv.transformers import CompressedCache, SketchCache

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture
def model():
    return make("llama")


def both(model):
    return own(model), SketchCache(model.config, "full+f32")


def read(model, cache, ids):
    with torch.no_grad():
        return model(ids, past_key_values=cache).logits


def shorten(cache, gone):
    cache.crop(-gone)


def test_a_batch_with_padding_is_generated_over_the_cache_that_is_given(model):
    ids = tokens(12, batch=2)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    options = {"attention_mask": mask, "return_dict_in_generate": True}
    theirs, ours = both(model)
    expected, found = generate(model, ids, theirs, **options), generate(model, ids, ours, **options)
    assert torch.equal(found.sequences, expected.sequences)
    assert isinstance(found.past_key_values, Cache) and found.past_key_values is ours
    assert ours.get_seq_length() == theirs.get_seq_length() == 31


def test_several_beams_are_returned(model):
    ids = tokens(24)
    options = {"num_beams": 4, "num_return_sequences": 2, "return_dict_in_generate": True, "output_scores": True}
    expected, found = (generate(model, ids, cache, **options) for cache in both(model))
    # Sequences came from other beams on the way: the cache was put into another order.
    assert any(len(set(beams)) > 1 for beams in found.beam_indices.tolist())
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, **CLOSE)


def test_samples_and_their_scores(model):
    results = []
    for cache in both(model):
        set_seed(0)
        results.append(
            generate(
                model, tokens(24), cache, do_sample=True, max_new_tokens=60, return_dict_in_generate=True, output_scores=True
            )
        )
    expected, found = results
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(found.scores), torch.stack(expected.scores), **CLOSE)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_heads_of_their_own_in_groups_and_one_for_all(kv_heads):
    model = make("llama", num_key_value_heads=kv_heads)
    expected, found = (generate(model, tokens(24), cache) for cache in both(model))
    assert torch.equal(found, expected)


def test_a_prompt_is_read_once_and_copied(model):
    prompt, questions = tokens(20), [tokens(6, seed=1), tokens(9, seed=2)]
    cache = SketchCache(model.config, "full+f32")
    read(model, cache, prompt)
    for question in questions:
        ids = torch.cat([prompt, question], dim=1)
        assert torch.equal(generate(model, ids, copy.deepcopy(cache)), generate(model, ids))
    assert cache.get_seq_length() == 20


def test_a_talk_goes_on_over_the_cache_of_its_last_turn(model):
    ids, cache = tokens(12), SketchCache(model.config, "full+f32")
    for turn in range(3):
        found = generate(model, ids, cache)
        assert torch.equal(found, generate(model, ids))
        ids = torch.cat([found, tokens(5, seed=turn + 1)], dim=1)


def test_tokens_seen_are_told_at_every_step(model):
    theirs, ours = both(model)
    assert not ours.is_initialized and ours.get_seq_length() == 0
    for part in tokens(40).split([20, 1, 1, 18], dim=1):
        for cache in (theirs, ours):
            read(model, cache, part)
        assert ours.get_seq_length() == ours.get_seq_length(2) == theirs.get_seq_length()
        assert len(ours) == len(theirs) == 3
    assert ours.is_initialized
    query = torch.arange(40, 47) if transformers.__version__.startswith("4.") else 7
    if hasattr(theirs, "get_mask_sizes"):
        assert ours.get_mask_sizes(query, 0) == theirs.get_mask_sizes(query, 0) == (47, 0)
    for limit in ("get_max_cache_shape", "get_max_length"):
        if hasattr(theirs, limit):
            assert getattr(ours, limit)() == getattr(theirs, limit)()
    assert not ours.is_compileable
    for cache in (theirs, ours):
        shorten(cache, 7)
    assert ours.get_seq_length() == theirs.get_seq_length() == 33
    ours.reset()
    assert ours.get_seq_length() == 0 and ours.ledger()["total"] == 0


@pytest.mark.parametrize(
    "change, rows",
    [
        (lambda cache: cache.reorder_cache(torch.tensor([3, 0, 0, 2])), 4),
        (lambda cache: cache.batch_select_indices(torch.tensor([2, 1])), 2),
        (lambda cache: cache.batch_repeat_interleave(2), 8),
        (lambda cache: shorten(cache, 1), 4),
        (lambda cache: shorten(cache, 13), 4),
    ],
    ids=["reorder", "select", "repeat", "cut by one", "cut by many"],
)
def test_what_is_done_to_a_batch(model, change, rows):
    results = []
    for cache in both(model):
        read(model, cache, tokens(20, batch=4))
        change(cache)
        # Every sequence there is now goes on with the same tokens.
        results.append(read(model, cache, tokens(5, seed=1).expand(rows, -1)))
    expected, found = results
    torch.testing.assert_close(found, expected, **CLOSE)
    # They are not all the same sequence, so that an order can be wrong.
    assert (expected - expected[:1]).abs().max() > 1e-2


def test_a_cut_beyond_the_beginning_leaves_nothing(model):
    cache = SketchCache(model.config, "full+f32")
    read(model, cache, tokens(20))
    shorten(cache, 30)
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(read(model, cache, tokens(9)), read(model, None, tokens(9)), **CLOSE)


def test_tensors_of_a_layer_are_refused(model):
    cache = SketchCache(model.config, "full+f32")
    read(model, cache, tokens(20))
    with pytest.raises(TypeError, match="no tensors to take out"):
        cache[0]
    with pytest.raises(TypeError, match="no tensors to take out"):
        tuple(cache)


def test_an_update_gives_back_all_that_was_seen(model):
    """What a DynamicCache gives for keys and values, a CompressedCache gives on f32, bit by bit."""
    theirs, ours = DynamicCache(), CompressedCache(model.config, "full+f32")
    random = torch.Generator().manual_seed(0)
    for count in (8, 1, 1, 5):
        for layer in range(3):
            keys, values = (torch.rand(2, 2, count, 16, generator=random) for _ in range(2))
            for found, expected in zip(ours.update(keys, values, layer), theirs.update(keys, values, layer)):
                assert torch.equal(found, expected)
    assert ours.get_seq_length() == theirs.get_seq_length() == 15


def test_a_sliding_layer_across_its_window():
    model, ids = make("mistral"), tokens(60)
    theirs, ours = both(model)
    cuts = [10, 15, 16, 17, 40, 41]
    torch.testing.assert_close(logits(model, ours, ids, cuts), logits(model, theirs, ids, cuts), **CLOSE)
    assert all(ours.is_sliding)
