"""OpenAI's own Python client: what it sends is understood, and what it reads is what was meant."""

import asyncio
import json
import math
from enum import Enum

import httpx2
import openai
import pytest
from conftest import CHAT, TINY, Server
from pydantic import BaseModel, Field

pytestmark = pytest.mark.quick

SEA = [{"role": "user", "content": "Write a sentence about the sea."}]
PROMPT = "It was a truth universally acknowledged, that"


def chat(client, messages=SEA, **options):
    return client.chat.completions.create(
        **{"model": CHAT, "messages": messages, "temperature": 0, "max_completion_tokens": 12, **options}
    )


def complete(client, prompt=PROMPT, **options):
    return client.completions.create(**{"model": CHAT, "prompt": prompt, "temperature": 0, "max_tokens": 12, **options})


def text(answer, index=0):
    choice = answer.choices[index]
    return choice.message.content if hasattr(choice, "message") else choice.text


# What there is.


def test_models(client):
    (model,) = client.models.list()
    assert (model.id, model.object) == (CHAT, "model")
    assert client.models.retrieve(CHAT) == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


# Conversations.


def test_a_conversation_is_what_the_template_makes_of_it(server, client):
    talk = [{"role": "system", "content": "Be brief."}, *SEA]
    answer = chat(client, talk)
    prompt = server.ask("/apply-template", {"messages": talk})["prompt"]
    tokens = server.ask("/tokenize", {"content": prompt})["tokens"]
    assert server.ask("/detokenize", {"tokens": tokens})["content"] == prompt
    assert answer.usage.prompt_tokens == len(tokens)
    assert answer.usage.total_tokens == len(tokens) + answer.usage.completion_tokens
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 12
    assert text(answer) == text(complete(client, prompt))
    parts = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in talk]
    assert text(chat(client, parts)) == text(answer)
    with pytest.raises(openai.BadRequestError, match="reads text only"):
        chat(client, [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}])


def test_a_stream_is_the_answer_in_pieces():
    # Without guesses, so that tokens come one by one.
    with Server(CHAT, "--kv", "full", "--speculate", "off") as server:
        check_stream(server.client())


def check_stream(client):
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    *pieces, last, usage = chunks
    assert {chunk.id for chunk in chunks} == {usage.id} and usage.id != whole.id
    assert pieces[0].choices[0].delta.role == "assistant"
    deltas = [piece.choices[0].delta.content for piece in pieces if piece.choices[0].delta.content]
    assert "".join(deltas) == text(whole) and len(deltas) > 8
    assert [piece.choices[0].finish_reason for piece in pieces] == [None] * len(pieces)
    assert last.choices[0].finish_reason == "length" and not last.choices[0].delta.content
    assert usage.choices == [] and usage.usage.completion_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_answers_at_once_are_the_answers_alone(server, client):
    subjects = ["the sea", "a mountain", "an old dog", "rain"]
    talks = [[{"role": "user", "content": f"Write a sentence about {subject}."}] for subject in subjects]
    alone = [text(chat(client, talk)) for talk in talks]

    async def all_at_once():
        async with server.client(openai.AsyncOpenAI) as client:
            return await asyncio.gather(*(chat(client, talk) for talk in talks * 2))

    assert [text(answer) for answer in asyncio.run(all_at_once())] == alone * 2
    assert len(set(alone)) == len(alone)


def test_a_client_that_leaves_leaves_nothing_behind(server, client):
    stream = chat(client, stream=True, max_completion_tokens=2000, extra_body={"ignore_eos": True})
    next(iter(stream))
    assert any(slot["state"] == "answer" for slot in server.ask("/slots")["slots"])
    stream.close()
    server.idle()


# How tokens are chosen.


def test_a_seed_reproduces(client):
    long = {"ignore_eos": True}
    first, again, other = (chat(client, temperature=1.5, seed=seed, n=2, extra_body=long) for seed in (1, 1, 2))
    texts = [[text(answer, index) for index in range(2)] for answer in (first, again, other)]
    assert texts[0] == texts[1]
    # Four answers that were drawn apart.
    assert len({*texts[0], *texts[2]}) == 4, texts
    assert [choice.index for choice in first.choices] == [0, 1]
    assert first.usage.completion_tokens == 24


def test_stop(client):
    whole = text(complete(client, max_tokens=16))
    stop = whole[len(whole) // 2 :][:6]
    cut = whole[: whole.index(stop)]
    answer = complete(client, max_tokens=16, stop=["never said", stop])
    assert (text(answer), answer.choices[0].finish_reason) == (cut, "stop")
    # Of a stop that arrives in pieces none is said.
    chunks = list(complete(client, max_tokens=16, stop=stop, stream=True))
    assert "".join(text(chunk) for chunk in chunks) == cut and chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty"])
def test_penalties(server, client, name):
    tokens = [
        server.ask("/tokenize", {"content": text(complete(client, "one two one two one two one", **options))})["tokens"]
        for options in ({}, {name: 2}, {name: -2})
    ]
    most = [max(map(said.count, said)) for said in tokens]
    assert most[1] < most[0] <= most[2] and most[2] > most[1] + 2, tokens


def test_logit_bias(server, client):
    said = complete(client, max_tokens=1)
    (first,) = server.ask("/tokenize", {"content": text(said)})["tokens"]
    assert text(complete(client, max_tokens=1, logit_bias={first: -100})) != text(said)
    (other,) = server.ask("/tokenize", {"content": " whale"})["tokens"]
    assert text(complete(client, max_tokens=3, logit_bias={other: 100})) == " whale" * 3


# Log-probabilities.


def check_logprobs(content, said):
    assert "".join(token.token for token in content) == said
    assert bytes(byte for token in content for byte in token.bytes) == said.encode()
    for token in content:
        top = [other.logprob for other in token.top_logprobs]
        assert top == sorted(top, reverse=True) and len(top) == 3
        # It was greedy.
        assert (token.top_logprobs[0].token, top[0]) == (token.token, token.logprob)
        assert sum(map(math.exp, top)) <= 1 + 1e-5


def test_logprobs(server, client):
    answer = chat(client, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    check_logprobs(content, text(answer))
    assert len(content) == answer.usage.completion_tokens
    streamed = [
        token
        for chunk in chat(client, logprobs=True, top_logprobs=3, stream=True)
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert streamed == content
    # The same text, read as a prompt, which is run in other portions.
    prompt = server.ask("/apply-template", {"messages": SEA})["prompt"]
    echo = complete(client, prompt + text(answer), echo=True, logprobs=3, max_tokens=0).choices[0]
    assert echo.text == prompt + text(answer) and echo.logprobs.token_logprobs[0] is None
    assert echo.logprobs.token_logprobs[-len(content) :] == pytest.approx([token.logprob for token in content], abs=0.05)
    spelled = [echo.text[start:end] for start, end in zip(echo.logprobs.text_offset, echo.logprobs.text_offset[1:])]
    assert spelled == echo.logprobs.tokens[:-1]


# Texts of a form.


class Weather(str, Enum):
    calm, rough = "calm", "rough"


class Island(BaseModel):
    model_config = {"extra": "forbid"}
    name: str = Field(max_length=16)
    inhabitants: int
    weather: Weather


def test_a_schema_binds(client):
    talk = [{"role": "user", "content": "Describe an island as JSON."}]
    answer = client.chat.completions.parse(
        model=CHAT, messages=talk, response_format=Island, temperature=1.2, seed=3, max_completion_tokens=100
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, Island), answer
    streamed = client.chat.completions.stream(
        model=CHAT, messages=talk, response_format=Island, temperature=1.2, seed=3, max_completion_tokens=100
    )
    with streamed as stream:
        assert stream.get_final_completion().choices[0].message.parsed == answer.choices[0].message.parsed
    # Without it the model says something else.
    with pytest.raises(json.JSONDecodeError):
        json.loads(text(chat(client, talk)))


def test_json_and_what_is_no_schema(client):
    few = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    answer = chat(client, response_format={"type": "json_schema", "json_schema": {"name": "few", "schema": few, "strict": True}})
    assert json.loads(text(answer)) in ({"a": 1}, {"a": 2})
    answer = chat(client, response_format={"type": "json_object"}, max_completion_tokens=60, logit_bias={})
    assert text(answer).lstrip().startswith("{")
    answer = complete(client, extra_body={"regex": "[0-9]{4}-[0-9]{2}"})
    assert len(text(answer)) == 7 and answer.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="island") as refused:
        chat(client, response_format={"type": "json_schema", "json_schema": {"name": "no", "schema": {"type": "island"}}})
    assert refused.value.param == "response_format"


# Caches.


def test_a_cache_may_be_asked_for(client):
    long = PROMPT * 40
    whole = complete(client, long, max_tokens=4).usage.kv
    capped = complete(client, long, max_tokens=4, extra_body={"kv": "h2o+q8", "kv_bytes": 1 << 20}).usage.kv
    assert capped["bytes"] <= 1 << 20 < whole["bytes"] and capped["spec"].startswith("h2o")
    with pytest.raises(openai.BadRequestError) as refused:
        complete(client, extra_body={"kv": "h20@25%"})
    assert refused.value.param == "kv"


# Errors.


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "ghost", "content": "boo"}]}, "messages"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
    ],
)
def test_what_is_wrong_is_said(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **options)
    assert (refused.value.type, refused.value.param) == ("invalid_request_error", param)


def test_a_text_that_is_too_long_is_refused(client):
    with pytest.raises(openai.BadRequestError, match="tokens") as refused:
        complete(client, PROMPT * 1200)
    assert refused.value.code == "context_length_exceeded"


def test_another_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match=CHAT) as refused:
        chat(client, model="gpt-4o")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


def test_embeddings_are_not_made_here(client):
    with pytest.raises(openai.APIStatusError, match=CHAT) as refused:
        client.embeddings.create(model=CHAT, input="The sea")
    assert refused.value.status_code == 501


def test_a_key_is_wanted(narrow_server):
    for key in ("wrong", "open sesame!"):
        with pytest.raises(openai.AuthenticationError):
            complete(narrow_server.client(api_key=key), model=TINY)
    assert complete(narrow_server.client(), model=TINY).usage.completion_tokens == 12
    assert httpx2.post(narrow_server.url + "/v1/completions", json={"prompt": "x"}).status_code == 401
    # Whether it lives may be asked by anyone.
    assert httpx2.get(narrow_server.url + "/health").status_code == 200


def test_what_is_too_much_is_refused(narrow_server):
    with pytest.raises(openai.APIStatusError) as refused:
        complete(narrow_server.client(), "x" * 5000, model=TINY)
    assert refused.value.status_code == 413

    async def crowd():
        async with narrow_server.client(openai.AsyncOpenAI) as client:
            asked = (complete(client, model=TINY, max_tokens=100, extra_body={"ignore_eos": True}) for _ in range(8))
            return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(crowd())
    refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert len(refused) == 6 and all(int(error.response.headers["retry-after"]) > 0 for error in refused)
    done = [answer for answer in answers if not isinstance(answer, openai.RateLimitError)]
    assert [answer.usage.completion_tokens for answer in done] == [100, 100]
    # The client waits as it is told to, and is served.
    assert text(complete(narrow_server.client(max_retries=2), model=TINY)) == text(complete(narrow_server.client(), model=TINY))


# Responses.


def respond(client, input=SEA[0]["content"], **options):
    return client.responses.create(**{"model": CHAT, "input": input, "temperature": 0, "max_output_tokens": 12, **options})


def test_responses(client):
    answer = respond(client, instructions="Be brief.")
    assert answer.id.startswith("resp_") and answer.output[0].id.startswith("msg_")
    assert answer.output_text == text(chat(client, [{"role": "system", "content": "Be brief."}, *SEA]))
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (answer.usage.output_tokens, answer.instructions) == (12, "Be brief.")
    # What was answered is what one goes on from.
    talk = [*SEA, answer.output[0].model_dump(), {"role": "user", "content": "Again."}]
    said = [*SEA, {"role": "assistant", "content": answer.output_text}, {"role": "user", "content": "Again."}]
    assert respond(client, talk).output_text == text(chat(client, said))
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        respond(client, previous_response_id=answer.id)


def test_a_response_streams(client):
    events = list(respond(client, stream=True))
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(deltas) == events[-1].response.output_text == respond(client).output_text
    assert {event.response.id for event in (events[0], events[-1])} == {events[0].response.id}


def test_a_response_says_what_its_cache_takes(client):
    options = {"ignore_eos": True, "stream_options": {"include_kv": True}}
    events = list(respond(client, stream=True, max_output_tokens=100, extra_body=options))
    took = [event.kv["bytes"] for event in events if event.type == "sketchkv.kv"]
    assert took == sorted(took) and 0 < took[-1] <= events[-1].response.usage.kv["bytes"]
    with pytest.raises(openai.BadRequestError) as refused:
        respond(client, extra_body=options)
    assert refused.value.param == "stream_options"


def test_a_response_of_a_schema(client):
    options = {"model": CHAT, "input": "Describe an island as JSON.", "text_format": Island, "max_output_tokens": 100}
    answer = client.responses.parse(**options, temperature=1.2, extra_body={"seed": 3})
    assert isinstance(answer.output_parsed, Island) and answer.status == "completed"
    with client.responses.stream(**options, temperature=1.2, extra_body={"seed": 3}) as stream:
        assert stream.get_final_response().output_parsed == answer.output_parsed


# Texts that go on.


def test_several_prompts(server, client):
    prompts = [PROMPT, "The sea was"]
    alone = [text(complete(client, prompt)) for prompt in prompts]
    answer = complete(client, prompts, n=2, temperature=0, echo=True)
    assert [text(answer, index) for index in range(4)] == [
        prompt + said for prompt, said in zip(prompts, alone) for _ in range(2)
    ]
    tokens = [server.ask("/tokenize", {"content": prompt, "add_special": True})["tokens"] for prompt in prompts]
    answer = complete(client, tokens)
    assert [text(answer, index) for index in range(2)] == alone
    streamed = ["", ""]
    for chunk in complete(client, prompts, stream=True):
        streamed[chunk.choices[0].index] += text(chunk)
    assert streamed == alone


# Sessions.


def test_a_session_goes_on_after_a_restart(server, client, tmp_path):
    """What was said before is not computed again, by a server that was started anew; and the answers are the same."""
    talk, answers = [], []
    one = Server(CHAT, "--kv", "full", "--sessions", tmp_path)
    try:
        for turn in ("Tell me of the sea.", "And of the wind.", "And of the rain."):
            talk.append({"role": "user", "content": turn})
            answer = chat(one.client(), talk, extra_body={"session": "talk"})
            assert text(answer) == text(chat(client, talk))
            talk.append({"role": "assistant", "content": text(answer)})
            answers.append(answer.usage)
            one.stop()
            one = one.again()
        assert one.ask("/slots")["sessions"] == ["talk"]
    finally:
        one.stop()
    assert answers[0].prompt_tokens_details.cached_tokens == 0
    for before, now in zip(answers, answers[1:]):
        # All but the last token of what was there; the template may end the answer in another way.
        assert now.prompt_tokens_details.cached_tokens >= before.total_tokens - 1
        assert now.session["name"] == "talk" and now.session["file_bytes"] > 1000
