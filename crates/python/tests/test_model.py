"""Text in, text out."""

import threading

import numpy
import pytest

import sketchkv
from sketchkv import Cache, Error, Model, SpecError

GREEDY = {"max_tokens": 16, "temperature": 0}


def test_pieces_are_the_text(model):
    stream = model.stream("The sea was", **GREEDY)
    assert stream.finish is None
    pieces = list(stream)
    assert "".join(pieces) == stream.text == model.generate("The sea was", **GREEDY)
    assert len(stream.tokens) == 16 and stream.finish == "length"
    assert stream.timing()["decode_tokens"] == 15
    assert list(stream) == []


def test_a_seed_repeats_a_text(model):
    texts = [model.generate("The sea was", max_tokens=16, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_stop_texts_end_it(model):
    text = model.generate("The sea was", **GREEDY)
    stop = text[5:8]
    assert model.generate("The sea was", stop=stop, **GREEDY) == text[: text.index(stop)]


def test_tokens_are_a_prompt(model):
    tokens = model.tokenize("The sea was", begin=True)
    assert model.generate(tokens, **GREEDY) == model.generate("The sea was", **GREEDY)


def test_logits_and_scores_are_of_one_distribution(model):
    tokens = model.tokenize("The sea was calm, and the wind was fair.", begin=True)
    logits = model.logits(tokens)
    assert logits.shape == (len(tokens), model.vocabulary) and logits.dtype == numpy.float32
    exact = logits[:-1].astype(float)
    expected = exact[range(len(tokens) - 1), tokens[1:]] - numpy.log(numpy.exp(exact).sum(axis=1))
    numpy.testing.assert_allclose(model.score(tokens), expected, atol=1e-4)
    numpy.testing.assert_allclose(model.logits(tokens, chunk=1), logits, atol=1e-2)


def test_a_cache_goes_on_where_it_was(model):
    whole = model.generate("The sea was", max_tokens=12, temperature=0)
    cache = Cache("full+f32")
    first = model.generate("The sea was", cache=cache, max_tokens=5, temperature=0)
    assert first + model.generate("", cache=cache, max_tokens=7, temperature=0) == whole
    before = len(cache)
    more = model.logits(" and then", cache=cache)
    assert len(more) == len(model.tokenize(" and then")) == len(cache) - before


def test_generation_follows_logits(model):
    cache = Cache()
    best = model.logits("The sea was", cache=cache)[-1].argmax()
    stream = model.stream([], cache=cache, max_tokens=1, temperature=0)
    stream.complete()
    assert stream.tokens == [best]


def test_a_stream_ends_when_another_begins(model):
    cache = Cache()
    stream = model.stream("The sea was", cache=cache, **GREEDY)
    next(stream)
    model.generate(" blue", cache=cache, max_tokens=1)
    with pytest.raises(Error, match="another text was begun"):
        next(stream)


def test_errors_say_the_way_out(model):
    with pytest.raises(Error, match="no model of that name"):
        Model.load("no-such-model")
    with pytest.raises(Error, match="no model to pull"):
        Model.pull("no-such-model")
    with pytest.raises(SpecError, match="near names"):
        model.generate("x", kv="h20@25%")
    with pytest.raises(SpecError, match="below the minimum"):
        model.generate("x", kv="h2o@100B")
    with pytest.raises(Error, match="the prompt is empty"):
        model.generate([], max_tokens=1)
    with pytest.raises(Error, match="none of the model's"):
        model.generate([1 << 30], max_tokens=1)
    with pytest.raises(Error, match="temperature must be"):
        model.generate("x", temperature=-1)
    with pytest.raises(TypeError, match="there is no option `heat`"):
        model.generate("x", heat=1)
    with pytest.raises(ValueError, match="give kv or cache"):
        model.generate("x", kv="full", cache=Cache())
    with pytest.raises(Error, match="tokens are more than the model's context"):
        model.logits([1] * (model.context + 1))
    with pytest.raises(Error, match="no chat template"):
        model.chat()
    with pytest.raises(Error, match="has no token"):
        Model.load("tiny-gpt2", chat_template="ChatML")


def test_special_tokens_in_a_message_are_plain_text():
    talker = Model.load("tiny-gpt2", chat_template="{% for m in messages %}{{ m.content }}{% endfor %}")
    said = "Once.<|endoftext|>Twice."
    prompt = lambda **options: talker.tokenize(talker.chat_prompt([{"role": "user", "content": said}], **options))
    assert prompt() == talker.tokenize(said, special=False)
    assert prompt(special=True) == talker.tokenize(said)
    assert prompt() != prompt(special=True)


def test_a_model_without_a_template_is_given_one():
    form = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    model = Model.load("tiny-gpt2", chat_template=form)
    answer = model.chat().ask("Hello", max_tokens=8, temperature=0)
    assert answer == model.generate("user: Hello\nassistant:", max_tokens=8, temperature=0)


def test_several_threads_run_one_model(model):
    texts = {}

    def run(seed):
        texts[seed] = model.generate("The sea was", max_tokens=24, seed=seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {seed: model.generate("The sea was", max_tokens=24, seed=seed) for seed in range(4)}
