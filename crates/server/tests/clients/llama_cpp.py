"""llama.cpp's tests of its own server, with `sketchkv serve` in its place.

They come in the source package of llama-cpp-python. A plugin of pytest: `pytest -p llama_cpp FILES` gives them this module's
`ServerProcess`, which is theirs but for what it starts and what they need not know, and runs those of TESTS. What else is in their
files is in LEFT_OUT, each with the reason; a test that is in neither is an error, so that a new version hides nothing.
"""

import importlib.util
import subprocess
import sys
import tarfile
import types
from pathlib import Path

import openai
import pytest
from conftest import CHAT, TOOLS, Server

PACKAGE = Path(__file__).parent / "requirements-llama-cpp.txt"
FOLDER = "vendor/llama.cpp/tools/server/tests/"

PRIVATE = "asks for or reads what is llama.cpp's own: /completion, timings, slots by number, and other fields"
TEXTS = "wants the very words, token counts or fingerprint of llama.cpp and the model that it tests with"
ABSENT = "wants what this server does not have"
LARGE = "fetches models of many gigabytes"

TESTS = {
    "test_basic.py": {"test_server_start_simple", "test_server_models"},
    "test_chat_completion.py": {
        "test_completion_with_response_format",
        "test_completion_with_invalid_grammar",
        "test_invalid_chat_completion_req",
        "test_logprobs",
        "test_logprobs_stream",
        "test_logit_bias",
        "test_chat_completions_multiple_choices",
    },
    "test_completion.py": {
        "test_completion_stream_vs_non_stream",
        "test_completion_stream_with_openai_library",
        "test_consistent_result_same_seed",
        "test_different_result_different_seed",
        "test_consistent_result_different_batch_size",
        "test_json_prompt_mtm_error_when_not_supported",
    },
    "test_compat_oai_responses.py": {"test_responses_with_openai_library", "test_responses_stream_with_openai_library"},
    "test_ctx_shift.py": {"test_ctx_shift_disabled_stream"},
    "test_security.py": {
        "test_access_public_endpoint",
        "test_incorrect_api_key",
        "test_correct_api_key",
        "test_openai_library_correct_api_key",
    },
    "test_tokenize.py": {"test_tokenize_detokenize", "test_tokenize_with_pieces"},
    "test_tool_call.py": {
        "test_completion_with_required_tool_real_model",
        "test_weather",
        "test_hello_world",
    },
}
"""What runs, by file. Of tests that fetch a model for each of their cases the first case runs, with the model that is here."""

LEFT_OUT = {
    "test_basic.py": {
        "test_server_multiple_addresses": ABSENT,
        "test_server_props": PRIVATE,
        "test_server_slots": PRIVATE,
        "test_load_split_model": ABSENT,
        "test_no_ui": ABSENT,
        "test_server_model_aliases_and_tags": ABSENT,
    },
    "test_chat_completion.py": {
        "test_chat_completion": TEXTS,
        "test_chat_completion_cached_tokens": TEXTS,
        "test_chat_completion_stream": TEXTS,
        "test_chat_completion_with_openai_library": TEXTS,
        "test_chat_template": PRIVATE,
        "test_chat_template_assistant_prefill": PRIVATE,
        "test_chat_template_continue_final_message_vllm_compat": PRIVATE,
        "test_chat_template_continue_final_message_mutual_exclusion": PRIVATE,
        "test_apply_chat_template": "names a template that llama.cpp has built in; here it comes with the model",
        "test_completion_with_json_schema": PRIVATE,
        "test_completion_with_grammar": "a grammar in GBNF; here it is Lark",
        "test_chat_completion_with_timings_per_token": PRIVATE,
        "test_context_size_exceeded": PRIVATE,
        "test_context_size_exceeded_stream": PRIVATE,
        "test_return_progress": PRIVATE,
        "test_chat_completions_token_count": PRIVATE,
        "test_verbose_debug": PRIVATE,
    },
    "test_completion.py": {
        "test_completion": TEXTS,
        "test_completion_stream": TEXTS,
        "test_completion_with_openai_library": TEXTS,
        "test_completion_stream_with_openai_library_stops": LARGE,
        "test_cache_vs_nocache_prompt": "llama.cpp skips it itself",
        "test_json_prompt_no_mtmd": PRIVATE,
        "test_nocache_long_input_prompt": TEXTS,
        "test_completion_with_tokens_input": PRIVATE,
        "test_completion_parallel_slots": PRIVATE,
        "test_completion_unified": PRIVATE,
        "test_completion_response_fields": PRIVATE,
        "test_n_probs": PRIVATE,
        "test_n_probs_stream": PRIVATE,
        "test_n_probs_post_sampling": PRIVATE,
        "test_n_probs_post_backend_sampling": PRIVATE,
        "test_logit_bias": PRIVATE,
        "test_cancel_request": PRIVATE,
        "test_completion_prompt_cache": PRIVATE,
    },
    "test_compat_oai_responses.py": {"test_responses_stream_with_llama_telemetry": PRIVATE},
    "test_ctx_shift.py": {
        "test_ctx_shift_enabled": ABSENT,
        "test_ctx_shift_disabled_short_prompt": PRIVATE,
        "test_ctx_shift_disabled_long_prompt": TEXTS,
    },
    "test_security.py": {
        "test_access_static_assets_without_api_key": "files of llama.cpp's page",
        "test_correct_api_key_anthropic_header": ABSENT,
        "test_cors_options": ABSENT,
        "test_cors_origins_localhost_reflects": ABSENT,
        "test_cors_origins_localhost_rejects": ABSENT,
        "test_cors_origins_defaults_to_localhost_with_tools_enabled": ABSENT,
        "test_cors_proxy_only_forwards_explicit_proxy_headers": ABSENT,
        "test_local_media_file": ABSENT,
    },
    "test_tokenize.py": {"test_tokenize_with_bos": TEXTS},
    "test_tool_call.py": {
        "test_completion_without_tool_call_fast": "lays a template of another model over its own; here it comes with the model",
        "test_completion_without_tool_call_slow": "the same",
        "test_calc_result": "what a larger model makes of a tool's answer",
        "test_thoughts": ABSENT,
    },
}

FILES_LEFT_OUT = {
    "test_compat_anthropic.py": ABSENT,
    "test_compat_gcp.py": ABSENT,
    "test_embedding.py": ABSENT,
    "test_ignore_eos.py": PRIVATE,
    "test_infill.py": ABSENT,
    "test_kv_keep_only_active.py": PRIVATE,
    "test_lora.py": ABSENT,
    "test_mcp_servers.py": ABSENT,
    "test_metrics.py": PRIVATE,
    "test_proxy.py": ABSENT,
    "test_rerank.py": ABSENT,
    "test_router.py": ABSENT,
    "test_sleep.py": ABSENT,
    "test_slot_save.py": PRIVATE,
    "test_speculative.py": ABSENT,
    "test_stream.py": ABSENT,
    "test_template.py": "lays templates of other models over the model's own",
    "test_tools_builtin.py": ABSENT,
    "test_vision_api.py": ABSENT,
}

CASES_LEFT_OUT = {
    # Of the template: two answers in a row are a conversation as well as any.
    "test_invalid_chat_completion_req[messages7]",
}


def fetch(folder):
    """The folder of llama.cpp's tests, from the source package that the requirements name."""
    tests = folder / PACKAGE.read_text().splitlines()[-1]
    if not (tests / "utils.py").exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        subprocess.run([*pip, "--requirement", PACKAGE, "--dest", folder], check=True)
        (package,) = folder.glob("llama_cpp_python-*.tar.gz")
        with tarfile.open(package) as archive:
            for member in archive:
                _, _, path = member.name.partition(FOLDER)
                if path and member.isfile():
                    member.name = path
                    archive.extract(member, tests, filter="data")
        package.unlink()
    return tests


# What stands in for their `utils`.


def utils(tests):
    """Their `utils`, with another server."""
    # It fetches models, of which none is needed.
    sys.modules["wget"] = types.ModuleType("wget")
    place = importlib.util.spec_from_file_location("utils", tests / "utils.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)

    class SketchServer(module.ServerProcess):
        """`sketchkv serve` of a model that is here, whatever model is asked for."""

        model = CHAT
        server = None

        def start(self, timeout_seconds=None):
            context = self.n_ctx // (self.n_slots or 1) if self.n_ctx else 2048
            options = ["--kv", "full", "--context", context]
            if self.n_predict and self.n_predict > 0:
                options += ["--max-tokens", self.n_predict]
            if self.n_slots:
                options += ["--parallel", self.n_slots]
            if self.n_batch:
                options += ["--chunk", self.n_batch]
            if self.api_key:
                options += ["--api-key", self.api_key]
            self.server = Server(self.model, *options)
            self.model_alias = self.model
            self.server_port = int(self.server.url.rpartition(":")[2])
            module.server_instances.add(self)

        def stop(self):
            module.server_instances.discard(self)
            if self.server:
                self.server.stop()
                self.server = None

        def make_request(self, method, path, data=None, *others, **options):
            answer = super().make_request(method, public(path), self.asked(path, data), *others, **options)
            if path in OWN and answer.status_code == 200:
                answer.body["content"] = answer.body["choices"][0]["text"]
            return answer

        def make_stream_request(self, method, path, data=None, *others, **options):
            for event in super().make_stream_request(method, public(path), self.asked(path, data), *others, **options):
                yield {**event, "content": event["choices"][0]["text"]} if path in OWN else event

        def asked(self, path, data):
            """What they ask for, under the names that OpenAI has, and with what the start of their server sets."""
            if not data or "messages" not in data and "prompt" not in data:
                return data
            data = {name: value for name, value in data.items() if name not in ("id_slot", "model")}
            if "n_predict" in data:
                data["max_tokens"] = data.pop("n_predict")
            if path in OWN:
                data.setdefault("max_tokens", self.n_predict)
            return {"seed": self.seed, "temperature": self.temperature, **data}

    module.ServerProcess = SketchServer
    for name, preset in list(vars(module.ServerPreset).items()):
        if isinstance(preset, staticmethod):
            # They name the class that they know.
            preset.__func__.__globals__["ServerProcess"] = SketchServer
    return module


OWN = ("/completion", "/completions")
"""Their own path, beside /v1/completions."""


def public(path):
    if path in OWN:
        return "/v1/completions"
    return f"/v1{path}" if path in ("/chat/completions", "/models", "/responses") else path


class OpenAI(openai.OpenAI):
    """Their client, which asks for models of OpenAI's."""

    def __init__(self, base_url, **options):
        super().__init__(base_url=base_url.removesuffix("/v1") + "/v1", **options)

    def _prepare_options(self, options):
        if isinstance(options.json_data, dict) and "model" in options.json_data:
            options.json_data["model"] = CHAT
        return super()._prepare_options(options)


# The plugin.


def pytest_configure(config):
    tests = Path(config.args[0]).resolve().parent
    while not (tests / "utils.py").exists():
        tests = tests.parent
    sys.path.insert(0, str(tests))
    sys.modules["utils"] = utils(tests)
    config.addinivalue_line("markers", "slow: theirs")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leaves what is listed, and stops at what is not known."""
    chosen, unknown, first = [], [], set()
    for item in items:
        file, name = item.path.name, item.originalname
        if name in LEFT_OUT.get(file, {}) or item.name in CASES_LEFT_OUT:
            continue
        if name not in TESTS.get(file, ()):
            unknown.append(item.nodeid)
        elif file != "test_tool_call.py" or (name, item.callspec.params["stream"]) not in first:
            if file == "test_tool_call.py":
                first.add((name, item.callspec.params["stream"]))
            chosen.append(item)
    if unknown:
        raise pytest.UsageError("neither chosen nor left out: " + ", ".join(unknown))
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.fixture(autouse=True)
def servers_end():
    """As theirs does after each test."""
    yield
    for server in list(sys.modules["utils"].server_instances):
        server.stop()


@pytest.fixture(autouse=True)
def what_they_know(request, monkeypatch):
    """Their tests, with what differs here."""
    module = request.module
    if hasattr(module, "OpenAI"):
        monkeypatch.setattr(module, "OpenAI", OpenAI)
    # Words of a model that is not here say nothing, unless it is made to say them.
    if request.node.originalname != "test_completion_with_response_format":
        monkeypatch.setattr(module, "match_regex", lambda regex, text: bool(text), raising=False)
    if module.__name__.endswith("test_tool_call"):
        monkeypatch.setattr(sys.modules["utils"].ServerProcess, "model", TOOLS)
        # So small a model may well forget a bracket, if it is left to chance.
        monkeypatch.setattr(sys.modules["utils"].ServerProcess, "temperature", 0.0)
