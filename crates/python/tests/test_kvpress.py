"""kvpress over caches in Rust, and its presses under the same account of bytes; only where kvpress is installed."""

from pathlib import Path

import pytest

# Before sketchkv.transformers: what kvpress does to attention when it is imported must reach an implementation that comes later.
kvpress = pytest.importorskip("kvpress")
import torch
from transformers import AutoTokenizer, DynamicCache, LlamaConfig, LlamaForCausalLM, QuantizedCache, StaticCache, pipeline

from sketchkv import Error, SpecError
from sketchkv.kvpress import ITEMS, SketchPress, ledger
from sketchkv.transformers import CompressedCache, SketchCache

TOKENIZER = Path(__file__).parents[3] / "models" / "tiny-gpt2"
CONTEXT = "It was a truth universally acknowledged, that a single man in possession of a good fortune must be in want of a wife. " * 8
QUESTIONS = ["Who was in want of a wife?", "What is a truth?", "Who was in want of a wife?"]
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
}
# Bytes of a cache in f32, a token.
TOKEN = 3 * 2 * 2 * 16 * 4


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def model():
    """Anew each time: presses leave things on it."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(AutoTokenizer.from_pretrained(TOKENIZER)), **SMALL)).eval()


@pytest.fixture
def pipe(model):
    return pipeline("kv-press-text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained(TOKENIZER), device="cpu")


def tokens(length, seed=0):
    return torch.randint(1, 500, (1, length), generator=torch.Generator().manual_seed(seed))


def pressed(model, press, ids):
    cache = DynamicCache()
    with press(model):
        model.model(ids, past_key_values=cache)
    return cache


def goes_on(model, cache, ids, position):
    """The logits of tokens after the context, at the positions that kvpress gives them."""
    positions = torch.arange(position, position + ids.shape[1]).unsqueeze(0)
    return model(ids, past_key_values=cache, position_ids=positions).logits


def ask(pipe, questions, press=None, **options):
    return pipe(CONTEXT, questions=questions, press=press, max_new_tokens=12, **options)["answers"]


def test_the_pipeline_answers_as_without_a_press_where_nothing_is_lost(pipe):
    expected = ask(pipe, QUESTIONS)
    assert len(set(expected)) == 2
    assert ask(pipe, QUESTIONS, SketchPress("full+f32")) == expected


@pytest.mark.parametrize("spec", ["auto@30KiB", "snapkv+q8@30KiB", "h2o+buckets(n=16)@60KiB", "expected+kivi4@128tok"])
def test_every_question_begins_where_the_context_ends(pipe, spec):
    press = SketchPress(spec)
    first, second, again = ask(pipe, QUESTIONS, press)
    assert first == again != second
    assert [second] == ask(pipe, QUESTIONS[1:2], press)
    context = pipe.preprocess(CONTEXT, [""], "", 10**6)["context_ids"].shape[1]
    assert press.cache.get_seq_length() == context
    assert press.cache.spec == spec or spec.startswith("auto")
    # Compressed bytes, no copy of what the model made.
    assert press.ledger()["total"] < 0.6 * context * TOKEN
    if "30KiB" in spec:
        assert press.ledger()["total"] <= 30 * 1024


def test_an_evicting_press_changes_what_the_model_sees(model):
    ids, more = tokens(300), tokens(20, seed=1)
    whole = goes_on(model, pressed(model, SketchPress("full+f32"), ids), more, 300)
    torch.testing.assert_close(whole, goes_on(model, pressed(model, kvpress.KnormPress(0.0), ids), more, 300), atol=1e-4, rtol=1e-4)
    less = goes_on(model, pressed(model, SketchPress("window+f32@64tok"), ids), more, 300)
    assert (whole - less).abs().max() > 0.1


def test_generate_within_a_press(model):
    ids = tokens(60)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 10, "do_sample": False}
    expected = model.generate(ids, **options)
    press = SketchPress("full+f32")
    with press(model):
        assert torch.equal(model.generate(ids, **options), expected)
    assert press.cache.get_seq_length() == 69


def test_the_ratio_of_an_evaluation_is_a_cap(model):
    press = SketchPress("window+f16")
    with pytest.raises(ValueError, match="has not run"):
        press.ledger()
    totals = []
    for ratio in (0.0, 0.5, 0.75):
        press.compression_ratio = ratio
        pressed(model, press, tokens(1600))
        totals.append(press.ledger()["total"] / (1600 * TOKEN / 2))
    assert totals[0] >= 1
    assert 0.4 < totals[1] <= 0.5 and 0.2 < totals[2] <= 0.25


def test_what_a_press_does_not_do_is_said(model):
    ids = tokens(40)
    with pytest.raises(SpecError, match="near names"):
        pressed(model, SketchPress("h20@25%"), ids)
    with pytest.raises(ValueError, match="leave one out"):
        SketchPress("h2o@25%", compression_ratio=0.5)
    with pytest.raises(ValueError, match="from 0 to below 1"):
        SketchPress("h2o", compression_ratio=1.0)
    press = SketchPress("h2o@50%")
    with press(model), pytest.raises(ValueError, match="use_cache is off"):
        model.model(ids, use_cache=False)
    with press(model), pytest.raises(ValueError, match="cannot of a StaticCache"):
        model.model(ids, past_key_values=StaticCache(config=model.config, max_cache_len=64))
    used = DynamicCache()
    model.model(ids, past_key_values=used)
    with press(model), pytest.raises(ValueError, match="this one has 40 tokens"):
        model.model(ids, past_key_values=used)
    cache = pressed(model, press, ids)
    with pytest.raises(AttributeError, match="not looked at"):
        cache.layers[0].keys.sum()
    with pytest.raises(TypeError, match="no other press"):
        cache.layers[0].keys = torch.zeros(1, 2, 3, 16)
    # What is cut between the end of the context and now was not kept aside.
    cache = pressed(model, SketchPress("window+f32@32tok"), tokens(200))
    with pytest.raises(Error, match="cannot be cut back"):
        cache.crop(100)


@pytest.mark.parametrize(
    "press, spec, strays",
    [
        # Its statistics leave the first queries out, ours are of all: at the margin a few tokens are others.
        (kvpress.ExpectedAttentionPress, "expected(cov=full,recent=1,interval=1)", 3),
        (kvpress.SnapKVPress, "snapkv(window=64,recent=64,sinks=0,interval=1)", 0),
        (kvpress.KnormPress, "knorm(recent=1,sinks=0)", 0),
        (kvpress.KeyDiffPress, "keydiff(recent=1,sinks=0)", 0),
        (kvpress.TOVAPress, "tova(recent=1,sinks=0)", 0),
        (kvpress.StreamingLLMPress, "window", 0),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_same_tokens_as_in_kvpress(model, press, spec, strays):
    """Both see the same keys, values and queries, to rounding: a context of 400 tokens, run at once, of which 100 stay in a head."""
    ids = tokens(400)
    everything, theirs = (pressed(model, one, ids) for one in (kvpress.KnormPress(0.0), press(compression_ratio=0.75)))
    ours = SketchPress(f"{spec}+f32@100tok")
    pressed(model, ours, ids)
    others = 0
    for layer in range(3):
        for head in range(2):
            # Which tokens they are is seen from their keys, no two of which are equal.
            whole = everything.layers[layer].keys[0, head]
            chosen = set(torch.cdist(theirs.layers[layer].keys[0, head], whole).argmin(dim=1).tolist())
            positions, keys, _ = ours.cache.slots(layer, head)
            assert len(chosen) == len(positions) == 100
            torch.testing.assert_close(torch.from_numpy(keys), whole[positions], atol=1e-4, rtol=1e-4)
            # The newest token always stays here, whatever its score: it is yet to be attended from.
            others += len(set(positions.tolist()) - chosen - {399})
    assert others <= strays


def test_bytes_of_a_press_that_lets_go(model):
    found = ledger(pressed(model, kvpress.SnapKVPress(0.75), tokens(400)), model)
    assert found["keys"] == found["values"] == 100 * TOKEN // 2
    assert found["total"] == found["claimed"] == 100 * TOKEN
    assert [item for item in ITEMS if found[item]] == ["keys", "values"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_bytes_that_head_wise_presses_only_hide(model, wrapped):
    press = kvpress.AdaKVPress(kvpress.SnapKVPress(0.75))
    press = kvpress.CriticalAdaKVPress(kvpress.SnapKVPress(0.75)) if wrapped else press
    cache = pressed(model, press, tokens(400))
    found = ledger(cache, model)
    assert found["keys"] + found["values"] == 400 * TOKEN
    assert found["masked"] == 300 * TOKEN
    # Three numbers of 8 bytes for each of 300 tokens in 3 layers of 2 heads.
    assert found["tables"] == 3 * 8 * 300 * 3 * 2
    assert found["claimed"] == 100 * TOKEN
    assert ledger(cache)["masked"] == 0
    # They are of the press that ran last.
    assert ledger(pressed(model, kvpress.KnormPress(0.75), tokens(400)), model)["masked"] == 0


def test_bytes_of_channels_that_are_only_zero(model):
    found = ledger(pressed(model, kvpress.ThinKPress(0.5), tokens(400)), model)
    assert found["total"] == 400 * TOKEN
    assert found["zeroed"] == 400 * TOKEN // 4 and found["claimed"] == 300 * TOKEN


def test_slices_hold_what_they_are_cut_from(model):
    cache = pressed(model, kvpress.KnormPress(0.0), tokens(400))
    cache.crop(100)
    found = ledger(cache)
    assert found["keys"] + found["values"] == 100 * TOKEN
    assert found["slack"] == 300 * TOKEN


def test_bytes_of_a_quantized_cache(model):
    """Codes of 4 bits and, for every 64 numbers, a scale and a zero point."""
    pytest.importorskip("hqq")
    numbers = 400 * TOKEN // 4
    for press, kept, hidden in (
        (kvpress.KnormPress(0.0), 400, 0),
        (kvpress.KnormPress(0.75), 100, 0),
        (kvpress.AdaKVPress(kvpress.KnormPress(0.75)), 400, 300),
    ):
        cache = QuantizedCache("hqq", model.config, nbits=4, axis_key=1, axis_value=1, q_group_size=64)
        with press(model):
            model.model(tokens(400), past_key_values=cache)
        found = ledger(cache, model)
        assert found["keys"] == found["values"] == numbers * kept // 400 // 4
        assert 0 < found["scales"] <= 0.6 * found["keys"]
        held = found["keys"] + found["values"] + found["scales"]
        assert found["total"] == held + found["tables"]
        assert found["masked"] == held * hidden // 400 and found["claimed"] == held * (400 - hidden) // 400


def test_sketchkv_has_its_own_ledger(model):
    cache = pressed(model, SketchPress("h2o+q8@30KiB"), tokens(400))
    found = ledger(cache, model)
    assert 0 < found["scales"] and 0 < found["scores"] and found["total"] <= 30 * 1024
    assert found["claimed"] == found["total"] == sum(found[item] for item in ITEMS)
    assert ledger(CompressedCache(model.config))["total"] == 0
    own = SketchCache(model.config, "full")
    model(tokens(400), past_key_values=own)
    assert {**own.ledger(), "masked": 0, "zeroed": 0, "claimed": own.ledger()["total"]} == ledger(own)
    with pytest.raises(ValueError, match="no layers"):
        ledger(())


def test_head_wise_presses_still_hide_on_a_model_that_had_a_sketch_press(model):
    ids, more = tokens(400), tokens(1, seed=1)
    press = kvpress.AdaKVPress(kvpress.SnapKVPress(0.9))
    expected = goes_on(model, pressed(model, press, ids), more, 400)
    whole = goes_on(model, pressed(model, kvpress.KnormPress(0.0), ids), more, 400)
    assert (whole - expected).abs().max() > 0.1
    pressed(model, SketchPress("h2o@25%"), ids)
    assert model.config._attn_implementation == "sketchkv"
    torch.testing.assert_close(goes_on(model, pressed(model, press, ids), more, 400), expected, atol=1e-4, rtol=1e-4)
    # What it hid is not hidden from a cache in Rust.
    torch.testing.assert_close(goes_on(model, pressed(model, SketchPress("full+f32"), ids), more, 400), whole, atol=1e-4, rtol=1e-4)
