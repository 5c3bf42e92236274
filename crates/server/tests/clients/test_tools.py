"""Tools, by OpenAI's own Python client, with a model whose template knows them."""

import json

import openai
import pytest
from conftest import TOOLS

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
PARIS = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]
BOTH = [{"role": "user", "content": "What is the weather and the time in Paris, in celsius? Call both tools."}]


@pytest.fixture(scope="module")
def client(tool_server):
    return tool_server.client()


def ask(client, messages=PARIS, tools=(WEATHER, TIME), **options):
    options = {"model": TOOLS, "temperature": 0, "max_completion_tokens": 80, **options}
    return client.chat.completions.create(messages=messages, tools=list(tools), **options)


def calls(message):
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]


SAY = {"role": "user", "content": "So, what is it? Answer in plain words."}
"""For a model of half a billion weights, which otherwise calls the tool again."""

PARIS_CALL = ("get_weather", {"city": "Paris", "unit": "celsius"})


@pytest.mark.quick
def test_a_tool_is_called_and_its_answer_is_read(client):
    (choice,) = ask(client, tool_choice="required", parallel_tool_calls=False).choices
    assert calls(choice.message) == [PARIS_CALL]
    assert choice.finish_reason == "tool_calls" and not choice.message.content
    # What the tool says is read: another answer makes another text.
    call = choice.message.model_dump(exclude_none=True)
    texts = []
    for weather in ("22 degrees, sunny", "3 degrees, snow"):
        told = {"role": "tool", "tool_call_id": choice.message.tool_calls[0].id, "content": weather}
        (after,) = ask(client, [*PARIS, call, told, SAY], max_completion_tokens=24).choices
        assert not after.message.tool_calls
        texts.append(after.message.content)
    assert "22" in texts[0] and "3 degrees" in texts[1], texts


@pytest.mark.quick
def test_a_call_streams(client):
    chunks = list(ask(client, tool_choice="required", parallel_tool_calls=False, stream=True))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].id and (deltas[0].type, deltas[0].function.name) == ("function", "get_weather")
    assert all(delta.index == 0 and delta.id is None and delta.function.name is None for delta in deltas[1:])
    # The arguments come in pieces.
    pieces = [delta.function.arguments for delta in deltas if delta.function.arguments]
    assert json.loads("".join(pieces)) == PARIS_CALL[1] and len(pieces) > 3
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_model_decides(client):
    (choice,) = ask(client).choices
    assert (calls(choice.message), choice.finish_reason) == ([PARIS_CALL], "tool_calls"), choice
    chunks = list(ask(client, stream=True))
    names = [call.function.name for chunk in chunks for call in chunk.choices[0].delta.tool_calls or [] if call.id]
    assert names == ["get_weather"] and not any(chunk.choices[0].delta.content for chunk in chunks)
    (choice,) = ask(client, [{"role": "user", "content": "Say hello. Call no tool."}]).choices
    assert calls(choice.message) == [] and choice.message.content and choice.finish_reason == "stop"


def test_several_tools_at_once(client):
    (choice,) = ask(client, BOTH, tool_choice="required").choices
    assert calls(choice.message) == [PARIS_CALL, ("get_time", {"city": "Paris"})]
    assert len({call.id for call in choice.message.tool_calls}) == 2
    with client.chat.completions.stream(
        model=TOOLS, messages=BOTH, tools=[WEATHER, TIME], tool_choice="required", temperature=0, max_completion_tokens=80
    ) as stream:
        assert calls(stream.get_final_completion().choices[0].message) == calls(choice.message)
    told = [
        {"role": "tool", "tool_call_id": call.id, "content": said}
        for call, said in zip(choice.message.tool_calls, ("22 degrees, sunny", "five past nine"))
    ]
    talk = [*BOTH, choice.message.model_dump(exclude_none=True), *told, SAY]
    (after,) = ask(client, talk, max_completion_tokens=40).choices
    assert "22" in after.message.content and "nine" in after.message.content, after


def test_one_at_a_time(client):
    (choice,) = ask(client, BOTH, tool_choice="required", parallel_tool_calls=False).choices
    assert len(calls(choice.message)) == 1


def test_a_named_tool(client):
    named = {"type": "function", "function": {"name": "get_time"}}
    (choice,) = ask(client, tool_choice=named).choices
    assert calls(choice.message) == [("get_time", {"city": "Paris"})]
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, tool_choice={"type": "function", "function": {"name": "get_money"}})
    assert refused.value.param == "tool_choice"


def test_arguments_keep_to_their_schema(client):
    """Whatever the temperature makes of the model."""
    for seed in range(3):
        (choice,) = ask(client, tool_choice="required", temperature=2, seed=seed, extra_body={"top_k": 0, "min_p": 0}).choices
        if choice.finish_reason == "tool_calls":
            for name, arguments in calls(choice.message):
                assert set(arguments) == ({"city", "unit"} if name == "get_weather" else {"city"})
                assert arguments.get("unit", "celsius") in ("celsius", "fahrenheit")
        else:
            assert choice.finish_reason == "length"


def test_none_is_none(client):
    (choice,) = ask(client, tool_choice="none", max_completion_tokens=24).choices
    assert calls(choice.message) == [] and choice.message.content


def test_typed_tools(client):
    """By pydantic models, as the client's `parse` has them."""
    from typing import Literal

    from pydantic import BaseModel

    class GetWeather(BaseModel):
        """The weather in a city."""

        city: str
        unit: Literal["celsius", "fahrenheit"]

    answer = client.chat.completions.parse(
        model=TOOLS, messages=PARIS, tools=[openai.pydantic_function_tool(GetWeather)], tool_choice="required",
        parallel_tool_calls=False, temperature=0, max_completion_tokens=80,
    )  # fmt: skip
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.parsed_arguments == GetWeather(city="Paris", unit="celsius")


# The newer shape.


def flat(tool):
    return {"type": "function", **tool["function"], "strict": False}


def respond(client, input=PARIS, tools=(WEATHER, TIME), **options):
    options = {"model": TOOLS, "temperature": 0, "max_output_tokens": 80, **options}
    return client.responses.create(input=input, tools=[flat(tool) for tool in tools], **options)


def called(response):
    return [(item.name, json.loads(item.arguments)) for item in response.output if item.type == "function_call"]


@pytest.mark.quick
def test_a_response_calls_a_tool_and_reads_its_answer(client):
    answer = respond(client, tool_choice="required", parallel_tool_calls=False)
    (call,) = answer.output
    assert called(answer) == [PARIS_CALL] and (answer.status, call.status) == ("completed", "completed")
    assert (answer.tools[0].name, answer.tool_choice) == ("get_weather", "required")
    texts = []
    for weather in ("22 degrees, sunny", "3 degrees, snow"):
        told = {"type": "function_call_output", "call_id": call.call_id, "output": weather}
        after = respond(client, [*PARIS, call.model_dump(), told, SAY], max_output_tokens=24)
        assert called(after) == []
        texts.append(after.output_text)
    assert "22" in texts[0] and "3 degrees" in texts[1], texts


@pytest.mark.quick
def test_a_response_streams_its_calls(client):
    options = {"tool_choice": "required", "parallel_tool_calls": True}
    events = list(respond(client, BOTH, stream=True, **options))
    answer = events[-1].response
    assert called(answer) == called(respond(client, BOTH, **options)) == [PARIS_CALL, ("get_time", {"city": "Paris"})]
    assert len({item.call_id for item in answer.output}) == len({item.id for item in answer.output}) == 2
    for index, item in enumerate(answer.output):
        own = [event for event in events if getattr(event, "output_index", None) == index]
        deltas = [event.delta for event in own if event.type == "response.function_call_arguments.delta"]
        assert [event.type for event in own] == [
            "response.output_item.added",
            *["response.function_call_arguments.delta"] * len(deltas),
            "response.function_call_arguments.done",
            "response.output_item.done",
        ]
        assert "".join(deltas) == own[-2].arguments == own[-1].item.arguments == item.arguments and len(deltas) > 3
    # The client's own reader comes to the same.
    flats = [flat(tool) for tool in (WEATHER, TIME)]
    with client.responses.stream(
        model=TOOLS, input=BOTH, tools=flats, temperature=0, max_output_tokens=80, **options
    ) as stream:
        assert called(stream.get_final_response()) == called(answer)


def test_a_response_names_its_tool_or_decides(client):
    assert called(respond(client)) == [PARIS_CALL]
    named = respond(client, tool_choice={"type": "function", "name": "get_time"})
    assert called(named) == [("get_time", {"city": "Paris"})]
    none = respond(client, tool_choice="none", max_output_tokens=24)
    assert called(none) == [] and none.output_text
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=TOOLS, input=PARIS, tools=[{"type": "web_search"}])
    assert refused.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as refused:
        respond(client, [*PARIS, {"type": "function_call_output", "call_id": "call_1", "output": "22"}])
    assert refused.value.param == "input"
