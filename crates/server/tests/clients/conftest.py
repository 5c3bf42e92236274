"""Real servers for clients that other people wrote: `sketchkv serve`, as the program $SKETCHKV, each on a port of its own."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx2
import openai
import pytest

REPOSITORY = Path(__file__).resolve().parents[4]

CHAT, TOOLS, TINY = "smollm2-135m", "qwen2.5-coder-0.5b", "tiny-gpt2"
"""The model that talks, the one whose template knows tools, and the one that is in the program."""


def program():
    path = os.environ.get("SKETCHKV")
    if not path:
        pytest.exit("$SKETCHKV names no program: run `cargo xtask server-tests`", returncode=2)
    return path


class Server:
    """A server until `stop`; further arguments are those of `sketchkv serve`."""

    def __init__(self, model, *arguments, key="none"):
        words = [program(), "serve", "--model", model, "--port", 0, "--log", "quiet", "--json", *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "SKETCHKV_API_KEY"}
        self.model, self.arguments, self.key = model, arguments, key
        self.process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True, env=environment)
        said = ""
        # One JSON document, over several lines.
        while not said.rstrip().endswith("}"):
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"the server ended with {self.process.wait()}")
            said += line
        self.url = json.loads(said)["url"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends it in good order, which the server has to be able to."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.process.stdout.close()
        assert code == 0, f"the server ended with {code}"

    def again(self):
        """Another one of the same settings."""
        return Server(self.model, *self.arguments, key=self.key)

    def client(self, kind=openai.OpenAI, **options):
        """A client of OpenAI's that asks once."""
        return kind(**{"base_url": f"{self.url}/v1", "api_key": self.key, "max_retries": 0, "timeout": 300, **options})

    def ask(self, path, body=None):
        """What a path answers that OpenAI's client has no method for."""
        return self.reply(path, body).json()

    def text(self, path):
        """As `ask`, where the answer is no JSON."""
        return self.reply(path).text

    def reply(self, path, body=None):
        headers = {"Authorization": f"Bearer {self.key}"}
        if body is None:
            reply = httpx2.get(self.url + path, headers=headers, timeout=300)
        else:
            reply = httpx2.post(self.url + path, json=body, headers=headers, timeout=300)
        reply.raise_for_status()
        return reply

    def idle(self, within=20):
        """Waits until no answer is in the works."""
        until = time.monotonic() + within
        while busy := [slot for slot in self.ask("/slots")["slots"] if slot["state"] != "idle"]:
            assert time.monotonic() < until, f"still in the works: {busy}"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def server():
    """The model that talks."""
    with Server(CHAT, "--kv", "full") as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture(scope="session")
def tool_server():
    """The model whose template knows tools; without guesses, so that what it streams comes token by token."""
    with Server(TOOLS, "--kv", "full", "--speculate", "off") as server:
        yield server


@pytest.fixture(scope="session")
def narrow_server():
    """One that wants a key, and has little room."""
    options = ["--api-key", "open sesame", "--parallel", 1, "--queue", 1, "--body-limit", "4KiB"]
    with Server(TINY, *options, key="open sesame") as server:
        yield server
