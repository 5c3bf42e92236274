"""What the description of the server cannot say, said in the well-formed requests of schemathesis: else hardly one is taken."""

import schemathesis
from schemathesis import GenerationMode

TEXTS = {"/v1/completions": "prompt", "/v1/responses": "input", "/tokenize": "content"}
"""What a request goes on from, by path."""

ROLES = ("system", "user", "assistant")

DROPPED = ("model", "grammar", "regex", "session", "logit_bias", "kv", "kv_bytes", "modalities", "tools", "tool_choice")
"""Texts of a language of their own, which random ones are not of."""


@schemathesis.hook
def map_case(context, case):
    if case.meta.generation.mode != GenerationMode.POSITIVE or not isinstance(case.body, dict):
        return case
    body = {name: value for name, value in case.body.items() if name not in DROPPED}
    if isinstance(body.get("n"), int):
        body["n"] = min(body["n"], 2)
    if isinstance(body.get("messages"), list):
        messages = body["messages"][:3] or [{}]
        body["messages"] = [
            {**message, "role": ROLES[number % 3], "content": "The sea", "tool_calls": None}
            for number, message in enumerate(messages)
        ]
    if case.operation.path in TEXTS:
        body[TEXTS[case.operation.path]] = "The sea"
    case.body = body
    return case
