"""The model class of lm-eval; only where that is installed."""

from pathlib import Path

import pytest

import sketchkv

pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from sketchkv.lm_eval import SketchLM

PREFIX = "."


def requests(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]


@pytest.fixture(scope="module", params=["full", "h2o+q8@32tok"])
def lm(request, model):
    return SketchLM(model, request.param, chunk=1, prefix_token=PREFIX)


def test_it_is_registered():
    assert get_model("sketchkv") is SketchLM


def test_answers_are_scored_as_the_engine_scores(lm, model):
    context = "It was a truth universally acknowledged, that a single man in possession of a good fortune must be"
    answers = [" in want of a wife", " calm", " in want of a wife"]
    found = lm.loglikelihood(requests("loglikelihood", *((context, answer) for answer in answers)), disable_tqdm=True)
    assert found[0] == found[2]
    *before, last = model.tokenize(context)
    for answer, (likelihood, _) in zip(answers, found):
        cache = sketchkv.Cache(lm.kv)
        model.score(before, cache=cache, chunk=1)
        assert likelihood == pytest.approx(model.score([last, *model.tokenize(answer)], cache=cache, chunk=1).sum(), rel=1e-5)


def test_greedy_is_what_is_generated(lm, model):
    best = model.generate("The sea was", max_tokens=1, temperature=0, kv=lm.kv)
    (_, greedy), (_, other) = lm.loglikelihood(
        requests("loglikelihood", ("The sea was", best), ("The sea was", "%")), disable_tqdm=True
    )
    assert greedy and not other


def test_a_text_without_context_follows_the_prefix(lm, model):
    ((likelihood, _),) = lm.loglikelihood(requests("loglikelihood", ("", "The sea")), disable_tqdm=True)
    assert likelihood == pytest.approx(model.score(PREFIX + "The sea", kv=lm.kv, chunk=1).sum(), rel=1e-5)
    with pytest.raises(ValueError, match="prefix_token"):
        SketchLM(model).loglikelihood(requests("loglikelihood", ("", "The sea")), disable_tqdm=True)


def test_rolling_counts_every_token_once(model):
    text = "The sea was calm and the wind was fair. " * 4
    tokens = model.tokenize(PREFIX + text)
    whole, parts = (SketchLM(model, max_length=length, prefix_token=PREFIX) for length in (None, 16))
    asked = requests("loglikelihood_rolling", (text,))
    assert whole.loglikelihood_rolling(asked, disable_tqdm=True)[0] == pytest.approx(model.score(tokens).sum(), rel=1e-5)
    # Windows of 16 tokens, each after the last one of the window before; the last window has all the context there is.
    windows = [tokens[start : start + 17] for start in range(0, len(tokens) - 1, 16)]
    expected = sum(model.score(window).sum() for window in windows[:-1])
    expected += model.score(tokens[-17:])[-(len(windows[-1]) - 1) :].sum()
    assert parts.loglikelihood_rolling(asked, disable_tqdm=True)[0] == pytest.approx(expected, rel=1e-5)


def test_long_contexts_lose_their_beginning(model):
    context, answer = "The sea was calm and the wind was fair." * 150, " And so it was."
    asked = requests("loglikelihood", (context, answer))
    tokens, answered = model.tokenize(context + answer), len(model.tokenize(answer))
    ((short, _),) = SketchLM(model, "full+f32", max_length=16).loglikelihood(asked, disable_tqdm=True)
    assert short == pytest.approx(model.score(tokens[-17:], kv="full+f32")[-answered:].sum(), rel=1e-5)
    # As long as the model can see, and not a token more.
    ((long, _),) = SketchLM(model).loglikelihood(asked, disable_tqdm=True)
    assert len(tokens) > model.context and long < 0


def test_generation_stops(lm, model):
    asked = {"until": [","], "max_gen_toks": 24}
    (text,) = lm.generate_until(requests("generate_until", ("It was a truth", asked)), disable_tqdm=True)
    assert text == model.generate("It was a truth", kv=lm.kv, stop=",", max_tokens=24, temperature=0)
    assert "," not in text
    assert 0 < lm.get_model_info()["kv_bytes"]


def test_what_cannot_be_is_said(model):
    with pytest.raises(sketchkv.SpecError, match="no method"):
        SketchLM(model, "h20@25%")
    with pytest.raises(ValueError, match="one token"):
        SketchLM(model, prefix_token="The sea was")
    with pytest.raises(ValueError, match="leave no context"):
        SketchLM(model, max_length=16).generate_until(requests("generate_until", ("The", {})), disable_tqdm=True)


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content | trim }}</{{ m.role }}>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the sea?"},
    {"role": "assistant", "content": "Water."},
    {"role": "user", "content": "And the sky?"},
]


@pytest.fixture(scope="module")
def talker():
    return SketchLM("tiny-gpt2", "h2o+q8@48tok", chunk=1, prefix_token=PREFIX, chat_template=TEMPLATE)


def test_messages_become_the_text_of_the_template(talker):
    said = "<|endoftext|><system> Be brief.</system>\n<user> What is the sea?</user>\n<assistant> Water.</assistant>\n"
    assert talker.apply_chat_template(TALK) == f"{said}<user> And the sky?</user>\n<assistant>"
    # The model goes on with a message that is not over.
    unfinished = [*TALK[:2], {"role": "assistant", "content": " It is "}]
    assert talker.apply_chat_template(unfinished, add_generation_prompt=False).endswith("<assistant> It is")
    assert talker.chat_template(True) == TEMPLATE
    with pytest.raises(ValueError, match="none called 'rag'"):
        talker.chat_template("rag")


def test_a_template_without_a_system_gets_its_words_in_the_first_message():
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    lm = SketchLM("tiny-gpt2", prefix_token=PREFIX, chat_template=refuses)
    assert "<user> Be brief.\n\nWhat is the sea?</user>" in lm.apply_chat_template(TALK)
    with pytest.raises(sketchkv.Error, match="no system"):
        lm.apply_chat_template(TALK[:1])


def test_models_without_a_template_say_so(model):
    assert SketchLM(model).chat_template(True) is None
    with pytest.raises(sketchkv.Error, match="no chat template"):
        SketchLM(model).apply_chat_template(TALK)
    with pytest.raises(ValueError, match="give it to Model.load"):
        SketchLM(model, chat_template=TEMPLATE)


def test_requests_of_other_templates_are_others(talker, model):
    assert talker.tokenizer_name != SketchLM(model).tokenizer_name


def test_answers_in_a_conversation_are_scored_as_the_engine_scores(talker):
    context = talker.apply_chat_template(TALK)
    asked = requests("loglikelihood", *((context, answer) for answer in (" Blue.", " Calm.", " Blue.")))
    found = talker.loglikelihood(asked, disable_tqdm=True)
    assert found[0] == found[2] != found[1]
    *before, last = talker.model.tokenize(context)
    cache = sketchkv.Cache(talker.kv)
    talker.model.score(before, cache=cache, chunk=1)
    expected = talker.model.score([last, *talker.model.tokenize(" Blue.")], cache=cache, chunk=1).sum()
    assert found[0][0] == pytest.approx(expected, rel=1e-5)
    (text,) = talker.generate_until(requests("generate_until", (context, {"until": ["</"], "max_gen_toks": 8})), disable_tqdm=True)
    assert text == talker.model.generate(context, kv=talker.kv, stop="</", max_tokens=8, temperature=0)


def test_a_begin_that_the_template_writes_is_not_written_twice():
    # A model of the engine's tests, whose tokenizer begins every text with a token.
    folder = Path(__file__).parents[2] / "model" / "tests" / "golden" / "llama"
    lm = SketchLM(str(folder), chat_template=TEMPLATE)
    context = lm.apply_chat_template(TALK)
    assert context.startswith("<s><system>")
    begin = lm.prefix_token_id
    assert lm.tok_encode(context)[:2].count(begin) == 1 == lm.tok_encode("The sea")[:2].count(begin)
    assert begin not in lm.tok_encode("The sea", add_special_tokens=False)
