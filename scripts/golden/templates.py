"""Chat templates of current models and small expressions, as transformers renders them.

    pip install transformers==5.24.0 jinja2==3.1.6
    pip download --no-deps --no-binary llama-cpp-python llama-cpp-python
    python scripts/golden/templates.py llama_cpp_python-*.tar.gz

The templates are copied out of the source distribution; conversations.json and expressions.json say what transformers
makes of them. A case is an expected text, or {"refused": ...} where the template refuses and {"error": ...} where Jinja does.
"""

import json
import sys
import tarfile
from datetime import datetime
from pathlib import Path

from jinja2 import TemplateError
from transformers.utils import chat_template_utils

from template_conversations import CONVERSATIONS, TOKENS
from template_expressions import CONTEXT, EXPRESSIONS

GOLDEN = Path(__file__).resolve().parents[2] / "crates/model/tests/golden/templates"
NOW = "2025-03-07T09:05:03"
# Templates of models under Apache-2.0 or MIT; the golden folder's README.md says which under which.
TEMPLATES = [
    "Apertus-8B-Instruct",
    "ByteDance-Seed-OSS",
    "GLM-4.6",
    "HuggingFaceTB-SmolLM3-3B",
    "Mistral-Small-3.2-24B-Instruct-2506",
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "Qwen3-Coder",
    "Qwen3.5-4B",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "deepseek-ai-DeepSeek-V3.1",
    "ibm-granite-granite-3.3-2B-Instruct",
    "ibm-granite-granite-4.0",
    "microsoft-Phi-3.5-mini-instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "openai-gpt-oss-120b",
]


class Clock(datetime):
    """`datetime.now()` that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(NOW)


def render(source, request, tokens):
    """The text transformers makes of `request`, or the error it ends with."""
    try:
        messages = chat_template_utils._normalize_chat_messages(request["messages"])
        texts, _ = chat_template_utils.render_jinja_template(
            [messages],
            tools=request.get("tools"),
            documents=request.get("documents"),
            chat_template=source,
            add_generation_prompt=request.get("add_generation_prompt", False),
            **tokens,
            **request.get("chat_template_kwargs", {}),
        )
        return texts[0]
    except Exception as error:
        return failure(error)


def failure(error):
    """What `raise_exception` said, or else how Jinja or Python failed."""
    return {"refused" if type(error) is TemplateError else "error": str(error)}


def copy_templates(archive):
    """The sources of TEMPLATES, copied into the golden folder."""
    with tarfile.open(archive) as files:
        for member in files.getmembers():
            path = Path(member.name)
            if path.parent.name == "templates" and path.suffix == ".jinja" and path.stem in TEMPLATES:
                (GOLDEN / path.name).write_bytes(files.extractfile(member).read())


def expression(source):
    try:
        return chat_template_utils._compile_jinja_template(source).render(**CONTEXT)
    except Exception as error:
        return failure(error)


def write(name, golden):
    (GOLDEN / name).write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main():
    copy_templates(sys.argv[1])
    chat_template_utils.datetime = Clock
    sources = {path.stem: path.read_bytes().decode() for path in sorted(GOLDEN.glob("*.jinja"))}
    expected = {
        name: [render(source, request, TOKENS) for request in CONVERSATIONS.values()]
        for name, source in sources.items()
    }
    requests = list(CONVERSATIONS.items())
    write("conversations.json", {"now": NOW, "tokens": TOKENS, "requests": requests, "expected": expected})
    cases = [[source, expression(source)] for source in EXPRESSIONS]
    write("expressions.json", {"now": NOW, "request": {"chat_template_kwargs": CONTEXT}, "cases": cases})


if __name__ == "__main__":
    main()
