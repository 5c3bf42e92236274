"""Conversations that a chat template is asked for; see templates.py."""

TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a \"place\" – now & later <soon>.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Città, e.g. 'Zürich'"},
                "days": {"type": "integer", "description": "How many days", "default": 1},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "scales": {"type": "array", "items": {"type": "number"}, "description": "Scales"},
                "exact": {"type": ["boolean", "null"], "default": None},
            },
            "required": ["place"],
        },
        "return": {"type": "string", "description": "A report"},
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time of day.\nIn UTC.",
        "parameters": {"type": "object", "properties": {}},
    },
}
CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": 2, "scale": 0.5, "exact": True}},
}
SECOND_CALL = {"id": "call00002", "type": "function", "function": {"name": "get_time", "arguments": {}}}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


USER = [said("user", "Hello, who are you?")]
SYSTEM = said("system", "You are terse.")
TURNS = [
    SYSTEM,
    said("user", "2+2?"),
    said("assistant", "4"),
    said("user", "And 3+3?"),
    said("assistant", "<think>\nsix\n</think>\n\n6"),
    said("user", "Thanks."),
]
CALLED = [
    said("user", "Weather in Zürich?"),
    said("assistant", "", tool_calls=[CALL]),
    said("tool", "{\"sky\": \"clear\"}", name="get_weather", tool_call_id="call00001"),
]

CONVERSATIONS = {
    "one turn": {"messages": USER, "add_generation_prompt": True},
    "one turn, not opened": {"messages": USER},
    "turns": {"messages": TURNS, "add_generation_prompt": True},
    "turns, answered": {"messages": TURNS[:5]},
    "tools": {"messages": [SYSTEM, *USER], "tools": [WEATHER, TIME], "add_generation_prompt": True},
    "tools without system": {"messages": USER, "tools": [WEATHER], "add_generation_prompt": True},
    "a call": {"messages": CALLED[:2], "tools": [WEATHER]},
    "a result": {"messages": CALLED, "tools": [WEATHER], "add_generation_prompt": True},
    "a result and an answer": {
        "messages": [SYSTEM, *CALLED, said("assistant", "Clear."), said("user", "And the time?")],
        "tools": [WEATHER, TIME],
        "add_generation_prompt": True,
    },
    "two calls": {
        "messages": [
            CALLED[0],
            {"role": "assistant", "content": None, "tool_calls": [CALL, SECOND_CALL]},
            CALLED[2],
            said("tool", "12:00", name="get_time", tool_call_id="call00002"),
        ],
        "tools": [WEATHER, TIME],
        "add_generation_prompt": True,
    },
    "a result without tools": {"messages": CALLED, "add_generation_prompt": True},
    "empty content": {
        "messages": [said("system", ""), said("user", ""), said("assistant", ""), said("user", "")],
        "add_generation_prompt": True,
    },
    "odd content": {
        "messages": [
            said("system", "  blanks \n"),
            said("user", "\r\n \"quoted\" 'too'\r\nline {{ braces }} {% raw %} <|im_end|> \t"),
            said("assistant", " ÄÖ 你好 🙂 \u00a0\u2028 \\n "),
            said("user", "\\ <b>&amp;</b>"),
        ],
        "add_generation_prompt": True,
    },
    "parts": {
        "messages": [said("user", [{"type": "text", "text": "Look: "}, {"type": "text", "text": "a cat"}])],
        "add_generation_prompt": True,
    },
    "reasoning": {
        "messages": [
            said("user", "Why?"),
            said("assistant", "Because.", reasoning_content="Let me\nthink."),
            said("user", "How?"),
            said("assistant", "So.", thinking="Hm."),
        ],
    },
    "thinking on": {
        "messages": [SYSTEM, *USER],
        "add_generation_prompt": True,
        "chat_template_kwargs": {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"},
    },
    "thinking off": {
        "messages": [SYSTEM, *USER],
        "add_generation_prompt": True,
        "chat_template_kwargs": {
            "enable_thinking": False, "thinking": False, "reasoning_effort": "low", "thinking_budget": 0,
            "model_identity": "You are a test.", "builtin_tools": ["browser", "python"],
        },
    },
    "a budget": {
        "messages": USER,
        "tools": [WEATHER],
        "add_generation_prompt": True,
        "chat_template_kwargs": {"thinking_budget": 512, "date_string": "1 Jan 2020", "xml_tools": [TIME]},
    },
    "documents": {
        "messages": USER,
        "documents": [{"doc_id": 1, "title": "Cats", "text": "Cats purr."}, {"title": "Dogs", "text": "Dogs \"bark\"."}],
        "add_generation_prompt": True,
    },
    "the assistant first": {"messages": [said("assistant", "Hi."), *USER], "add_generation_prompt": True},
    "two users": {"messages": [*USER, *USER], "add_generation_prompt": True},
    "an unknown role": {"messages": [said("wizard", "Abracadabra.")], "add_generation_prompt": True},
    "no messages": {"messages": [], "add_generation_prompt": True},
}
