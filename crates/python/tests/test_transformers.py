"""Models of transformers over caches in Rust; transformers with its own cache is the oracle."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import DynamicCache

from sketchkv import Error, Model, SpecError
from sketchkv.transformers import CompressedCache, SketchCache

REPOSITORY = Path(__file__).resolve().parents[3]
RECENT = Version(transformers.__version__) >= Version("4.53")
SMALL = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.2,
}
GPT2 = {
    "vocab_size": 96,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
GEMMA = {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 24}
FAMILIES = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", SMALL),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", SMALL),
    "qwen2 sliding": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**SMALL, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0},
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**SMALL, "head_dim": 32}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**SMALL, **GEMMA, "attn_logit_softcapping": 8.0}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**SMALL, **GEMMA, "sliding_window_pattern": 3}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**SMALL, "sliding_window": 16}),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**SMALL, "sliding_window": None}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
}


def make(family, **changes):
    if family == "gpt2" and not RECENT:
        pytest.skip("GPT-2 takes caches since transformers 4.53")
    model, config, settings = FAMILIES[family]
    torch.manual_seed(1)
    settings = {**settings, **changes}
    implementation = "eager" if family == "gemma2" else "sdpa"
    config = getattr(transformers, config)(**settings, attn_implementation=implementation)
    model = getattr(transformers, model)(config).eval()
    if hybrid(model):
        model.generation_config.cache_implementation = None
    return model


def hybrid(model):
    """Whether this model works with no cache of transformers but one of its own."""
    return not RECENT and model.config.model_type.startswith("gemma")


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def tokens(length, batch=1, seed=0):
    return torch.randint(1, 96, (batch, length), generator=torch.Generator().manual_seed(seed))


def own(model):
    """The cache of transformers that is to be equalled; none where all tokens are run at once."""
    if hybrid(model):
        return None
    by_config = Version(transformers.__version__) >= Version("4.56")
    return DynamicCache(config=model.config) if by_config else DynamicCache()


def logits(model, cache, ids, cuts, mask=None):
    """Those of all tokens, run in parts that end at `cuts`."""
    parts, begin = [], 0
    with torch.no_grad():
        for end in [*(cuts if cache is not None else []), ids.shape[1]]:
            given = {} if mask is None else {"attention_mask": mask[:, :end]}
            if mask is not None:
                given["position_ids"] = (mask[:, :end].cumsum(1) - 1).clamp(min=0)[:, begin:end]
            parts.append(model(ids[:, begin:end], past_key_values=cache, use_cache=cache is not None, **given).logits)
            begin = end
    return torch.cat(parts, dim=1)


def generate(model, ids, cache=None, **options):
    with warnings.catch_warnings():
        # Of what generate is given here on purpose.
        warnings.simplefilter("ignore")
        options = {"max_new_tokens": 20, "do_sample": False, **options}
        options.setdefault("attention_mask", torch.ones_like(ids))
        if cache is None and hybrid(model):
            options["use_cache"] = False
        return model.generate(ids, past_key_values=cache, **options)


def divergence(found, expected):
    """Mean KL divergence of the next-token distribution, in nats."""
    found, expected = (x.float().log_softmax(-1) for x in (found, expected))
    return (expected.exp() * (expected - found)).sum(-1).mean()


CUTS = [5, 30, 31, 32, 33]


def test_logits_are_those_of_its_own_cache(family):
    model, ids = make(family), tokens(48)
    expected = logits(model, own(model), ids, CUTS)
    torch.testing.assert_close(logits(model, SketchCache(model.config, "full+f32"), ids, CUTS), expected, atol=1e-4, rtol=1e-4)


def test_greedy_texts_are_those_of_its_own_cache(family):
    model, ids = make(family), tokens(24, batch=2)
    expected = generate(model, ids)
    assert torch.equal(generate(model, ids, SketchCache(model.config, "full+f32")), expected)


def test_padding_on_the_left(family):
    model, ids = make(family), tokens(40, batch=3)
    mask = torch.ones_like(ids)
    mask[0, :11] = mask[1, :3] = 0
    expected = logits(model, own(model), ids, [24, 25, 26], mask)
    found = logits(model, SketchCache(model.config, "full+f32"), ids, [24, 25, 26], mask)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-4, rtol=1e-4)


def test_generation_from_padded_prompts():
    model, ids = make("llama"), tokens(24, batch=2)
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    expected = generate(model, ids, attention_mask=mask)
    assert torch.equal(generate(model, ids, SketchCache(model.config, "full+f32"), attention_mask=mask), expected)


def test_more_padding_changes_nothing(family):
    model, ids = make(family), tokens(12)
    expected = generate(model, ids, SketchCache(model.config, "full+f32"))[:, 12:]
    padded = torch.cat([torch.zeros(1, 20, dtype=ids.dtype), ids], dim=1)
    found = generate(model, padded, SketchCache(model.config, "full+f32"), attention_mask=(padded > 0).long())
    assert torch.equal(found[:, 32:], expected)


def test_padding_on_the_right_and_within():
    model, ids = make("llama"), tokens(20, batch=2)
    mask = torch.ones_like(ids)
    mask[0, 15:] = 0
    expected = logits(model, own(model), ids, [], mask)
    found = logits(model, SketchCache(model.config, "full+f32"), ids, [], mask)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-4, rtol=1e-4)
    mask[0] = 1
    mask[0, 7] = 0
    with pytest.raises(NotImplementedError, match="between the tokens"):
        logits(model, SketchCache(model.config, "full+f32"), ids, [], mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model, ids = make("llama").to(dtype), tokens(40)
    expected = logits(model, own(model), ids, CUTS[:2])
    found = logits(model, SketchCache(model.config, "full+f32"), ids, CUTS[:2])
    assert found.dtype == dtype
    assert divergence(found, expected) < 1e-2


def test_a_scale_of_the_model():
    model, ids = make("gpt2", scale_attn_by_inverse_layer_idx=True), tokens(20)
    expected = logits(model, own(model), ids, [9])
    torch.testing.assert_close(logits(model, SketchCache(model.config, "full+f32"), ids, [9]), expected, atol=1e-4, rtol=1e-4)


def test_a_cap_holds_for_every_sequence():
    model, ids = make("llama"), tokens(400, batch=2)
    cache = SketchCache(model.config, "h2o+q8", 50_000)
    logits(model, cache, ids, list(range(50, 400, 50)))
    assert cache.get_seq_length() == 400
    assert 2 * 20_000 < cache.ledger()["total"] <= 2 * 50_000
    cache.set_cap(40_000)
    assert cache.ledger()["total"] <= 2 * 40_000


@pytest.mark.parametrize("spec", ["auto@96KiB", "expected+q8@50%", "full+q4h", "h2o+buckets@96KiB", "full+topk(k=64)"])
def test_specs_of_every_kind_generate(spec):
    model, ids = make("qwen3"), tokens(200)
    cache = SketchCache(model.config, spec)
    assert generate(model, ids, cache).shape == (1, 220)
    assert cache.get_seq_length() == 219


@pytest.mark.skipif(not RECENT, reason="GPT-2 takes caches since transformers 4.53")
def test_a_profile_makes_auto_better(tmp_path):
    """On the model that is in the package: what its profile knows of heads is worth most of the loss."""
    folder = REPOSITORY / "models" / "tiny-gpt2"
    model = transformers.GPT2LMHeadModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    text = (REPOSITORY / "data" / "persuasion.txt").read_text()
    ids = torch.tensor([Model.load("tiny-gpt2").tokenize(text[:4000])[:512]])

    @torch.no_grad()
    def run(cache):
        rows = [model(ids[:, at : at + 64], past_key_values=cache).logits for at in range(0, 512, 64)]
        return torch.cat(rows, dim=1)[0, 256:].log_softmax(-1)

    whole = run(DynamicCache())
    f16 = 2 * 2 * model.config.n_layer * model.config.n_embd * 512

    def divergence(**options):
        held = run(SketchCache(model.config, "auto", f16 // 6, **options))
        return (whole.exp() * (whole - held)).sum(-1).mean().item()

    without, known = divergence(), divergence(profile="tiny-gpt2")
    assert known < 0.3 * without, (known, without)
    with pytest.raises(Error, match="tiny-gpt2, smollm2-135m"):
        SketchCache(model.config, "auto@25%", profile=tmp_path / "none.profile")
    with pytest.raises(Error, match="does not fit"):
        SketchCache(model.config, "auto@25%", profile="smollm2-135m")


def test_beams_share_what_they_have_in_common(family):
    model, ids = make(family), tokens(24)
    expected = generate(model, ids, num_beams=3)
    assert torch.equal(generate(model, ids, SketchCache(model.config, "full+f32"), num_beams=3), expected)


@pytest.mark.skipif(not RECENT, reason="assisted generation takes other caches since transformers 4.53")
def test_assisted_generation():
    model, assistant, ids = make("llama"), make("llama", num_hidden_layers=1), tokens(24)
    expected = generate(model, ids)
    for options in ({"assistant_model": assistant}, {"prompt_lookup_num_tokens": 3}):
        found = generate(model, ids, SketchCache(model.config, "full+f32"), **options)
        assert torch.equal(found, expected)


def test_what_is_gone_cannot_be_cut_back():
    model = make("llama")
    cache = SketchCache(model.config, "window@96tok")
    logits(model, cache, tokens(200), [100])
    with pytest.raises(Error, match="cannot be cut back"):
        cache.crop(-1)
    assert cache.get_seq_length() == 200 and not cache.is_croppable


def test_a_cut_and_a_copy():
    model, ids = make("llama"), tokens(30)
    cache = SketchCache(model.config, "full+f32")
    expected = logits(model, cache, ids, [20])
    cache.crop(-10)
    assert cache.get_seq_length() == 20
    other = copy.deepcopy(cache)
    torch.testing.assert_close(logits(model, cache, ids[:, 20:], []), expected[:, 20:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(model, other, ids[:, 20:], []), expected[:, 20:], atol=1e-5, rtol=1e-5)


def test_the_batch_is_selected_and_repeated():
    model, ids = make("llama"), tokens(20, batch=3)
    cache = SketchCache(model.config, "full+f32")
    logits(model, cache, ids, [])
    expected = logits(model, copy.deepcopy(cache), ids[:, :4], [])
    cache.batch_select_indices(torch.tensor([2, 0]))
    cache.batch_repeat_interleave(2)
    rows = [2, 2, 0, 0]
    torch.testing.assert_close(logits(model, cache, ids[rows, :4], []), expected[rows], atol=1e-5, rtol=1e-5)


def test_prefill_in_chunks():
    model, ids = make("llama"), tokens(100)
    expected = generate(model, ids)
    found = generate(model, ids, SketchCache(model.config, "full+f32"), prefill_chunk_size=32) if RECENT else expected
    assert torch.equal(found, expected)


def test_other_caches_attend_as_before(family):
    if family == "gemma2":
        pytest.skip("SDPA has no softcap")
    model, ids = make(family), tokens(24, batch=2)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    expected = generate(model, ids, attention_mask=mask)
    SketchCache(model.config, "full+f32")
    assert torch.equal(generate(model, ids, attention_mask=mask), expected)


def test_a_reset_begins_anew():
    model, ids = make("llama"), tokens(20)
    cache = SketchCache(model.config, "full+f32")
    expected = logits(model, cache, ids, [])
    cache.reset()
    assert torch.equal(logits(model, cache, ids, []), expected)


def test_what_does_not_work_is_refused():
    model, ids = make("llama"), tokens(12)
    with pytest.raises(SpecError, match="near names"):
        SketchCache(model.config, "h20")
    with pytest.raises(SpecError, match="below the minimum"):
        SketchCache(model.config, "h2o", 100)
    with pytest.raises(ValueError, match="is an encoder-decoder"):
        SketchCache(transformers.T5Config(is_encoder_decoder=True))
    cache = SketchCache(model.config, "full")
    model.config._attn_implementation = "sdpa"
    with pytest.raises(RuntimeError, match="has not attended"):
        logits(model, cache, ids, [])
    cache = SketchCache(model.config, "full")
    logits(model, cache, ids, [])
    with pytest.raises(Error, match="a batch of 2 over a cache of 1"):
        logits(model, cache, ids.expand(2, -1), [])
    with pytest.raises(NotImplementedError, match="no gradients"):
        model(ids, past_key_values=SketchCache(model.config, "full")).logits.sum().backward()


def test_compressed_tensors_for_any_attention(family):
    model, ids = make(family), tokens(48)
    if hybrid(model):
        pytest.skip("Gemma takes other caches since transformers 4.53")
    expected = logits(model, own(model), ids, CUTS)
    exact = CompressedCache(model.config, "full+f32")
    torch.testing.assert_close(logits(model, exact, ids, CUTS), expected, atol=1e-4, rtol=1e-4)
    coarse = CompressedCache(model.config)
    found = logits(model, coarse, ids, CUTS)
    assert divergence(found, expected) < 0.01
    assert coarse.ledger()["total"] < 0.5 * exact.ledger()["total"]
    with pytest.raises(ValueError, match="evicts"):
        CompressedCache(model.config, "h2o@25%")
