#!/usr/bin/env python3
"""Runs `sketchkv serve` and llama.cpp's llama-server under the same load in the same run, and prints the figures side by side.

    cargo build --release -p sketchkv
    python3 bench/server.py --install     # once: llama-server compiles for a quarter of an hour
    python3 bench/server.py               # then: about ten minutes on two cores; --quick takes two
    python3 bench/server.py --connections 1000 --queued 200
    MALLOC_ARENA_MAX=2 python3 bench/server.py --soak 20000 --clients 16

Both serve the same GGUF file with the same threads, slots and cache (f16), and are asked for the same greedy answers to the same
prompts, short and long ones mixed, by /v1/completions with a stream. They take turns within each round, so that a noisy moment of
the machine hits both; each round has prompts of its own, so that neither knows them. Afterwards each prompt is asked once more
alone: an answer under load that differs is counted.

--connections holds so many connections open while --queued requests wait for their turn at sketchkv alone: none may be lost, none
may differ from the answer alone, and the memory of the server is watched.

--soak sends so many requests of every kind to the model that is in the program, from plain ones to bodies of a megabyte that are no
JSON and clients that leave in mid-stream: none may fail otherwise than it should, no greedy answer may differ from the one alone,
all bytes of caches have to come free, and memory beside the caches may not grow.

Its client is its own, for no other compares answers; guidellm's load is a part of `cargo xtask server-tests`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import peers

SHORT, LONG = 24, 360
"""Words of the two kinds of prompts."""


# ---------------------------------------------------------------------------------------------------------------------
# The servers.


class Server:
    """A process that serves at `port` until it is stopped."""

    def __init__(self, name, command, port):
        self.name, self.port = name, port
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while not self.lives():
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{name} does not begin: {' '.join(map(str, command))}")
            time.sleep(0.1)

    def lives(self):
        with contextlib.suppress(OSError, urllib.error.URLError):
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).status == 200

    def resident(self):
        """Bytes of memory, now and at the most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = dict(line.split(":", 1) for line in status.splitlines())
        return tuple(1024 * int(found[name].split()[0]) for name in ("VmRSS", "VmHWM"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def sketchkv(options, **changed):
    port = free_port()
    words = {
        "model": options.gguf,
        "threads": options.threads,
        "port": port,
        "parallel": options.parallel,
        "queue": 1024,
        "context": options.context,
        "kv": options.kv,
        "log": "quiet",
        **changed,
    }
    command = [options.sketchkv, "serve", *(word for name, value in words.items() for word in (f"--{name}", value))]
    return Server("sketchkv", command, port)


def llama_server(options):
    port = free_port()
    # Its context is shared out among the slots.
    command = [options.llama_server, "--model", options.gguf, "--threads", options.threads, "--port", port]
    command += ["--parallel", options.parallel, "--ctx-size", options.context * options.parallel, "--flash-attn", "on", "--no-ui"]
    return Server("llama-server", command, port)


# ---------------------------------------------------------------------------------------------------------------------
# A client: HTTP/1.1 over one connection that is kept.


class Client:
    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def request(self, method, path, body=b""):
        """The status, and the pieces of the body as they come."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        await self.writer.drain()
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split()[1]), self.pieces(headers)

    async def pieces(self, headers):
        if "content-length" in headers:
            yield await self.reader.readexactly(int(headers["content-length"]))
            return
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)

    async def complete(self, prompt, tokens, **more):
        """An answer: its text, and the seconds to its first token and to its end."""
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True, **more}
        begin = time.perf_counter()
        status, pieces = await self.request("POST", "/v1/completions", json.dumps(body).encode())
        text, first, rest = "", None, b""
        async for piece in pieces:
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                data = event.removeprefix(b"data: ")
                if status == 200 and data.startswith(b"{"):
                    chunk = json.loads(data)
                    if "error" in chunk:
                        raise RuntimeError(chunk["error"]["message"])
                    said = chunk["choices"][0]["text"] if chunk["choices"] else ""
                    first = first or (time.perf_counter() if said else None)
                    text += said
        if status != 200:
            raise RuntimeError(f"{status}: {rest.decode()}")
        end = time.perf_counter()
        return text, (first or end) - begin, end - begin

    async def health(self):
        status, pieces = await self.request("GET", "/health")
        async for _ in pieces:
            pass
        assert status == 200

    def close(self):
        self.writer.close()


# ---------------------------------------------------------------------------------------------------------------------
# The load.


def prompts_of(number, count):
    """Prompts of a round: of the novel, short and long by turns, none twice."""
    words = peers.TEXT.read_text(encoding="utf-8").split()
    prompts = []
    for index in range(count):
        start = (number * 7919 + index * (LONG + 13)) % (len(words) - LONG)
        length = LONG if index % 4 == 3 else SHORT
        prompts.append(" ".join(words[start : start + length]))
    return prompts


async def load(port, prompts, clients, tokens):
    """The answers to all prompts by so many clients at once, and the seconds that all of it took."""
    left = list(enumerate(prompts))[::-1]
    answers = [None] * len(prompts)

    async def client():
        while left:
            index, prompt = left.pop()
            # A connection of its own: llama-server keeps none open behind a stream.
            own = await Client(port).open()
            answers[index] = await own.complete(prompt, tokens)
            own.close()

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return answers, time.perf_counter() - begin


def measure(options):
    """Figures by clients and server, a list of rounds each."""
    figures, wrong = {}, {}
    for clients in options.clients:
        count = max(options.requests, clients * 2)
        for number in range(options.rounds):
            prompts = prompts_of(clients * 100 + number, count)
            # The first of a round is another every time.
            names = ["sketchkv", "llama-server"] if options.llama_server else ["sketchkv"]
            for name in names if number % 2 == 0 else names[::-1]:
                server = sketchkv(options) if name == "sketchkv" else llama_server(options)
                try:
                    asyncio.run(load(server.port, ["Once upon a time"], 1, 2))
                    answers, seconds = asyncio.run(load(server.port, prompts, clients, options.tokens))
                    alone, _ = asyncio.run(load(server.port, prompts[: options.check], 1, options.tokens))
                finally:
                    server.stop()
                firsts = sorted(first for _, first, _ in answers)
                figures.setdefault((clients, name), []).append({
                    "requests/s": count / seconds,
                    "tokens/s": count * options.tokens / seconds,
                    "first token, median": statistics.median(firsts),
                    "first token, p95": firsts[int(0.95 * (len(firsts) - 1))],
                })
                differ = sum(answer[0] != other[0] for answer, other in zip(answers, alone))
                before, of = wrong.get((clients, name), (0, 0))
                wrong[clients, name] = before + differ, of + len(alone)
                note(f"{clients} clients, round {number + 1}, {name}: {count / seconds:.2f} requests/s, {differ} of {len(alone)} differ")
    return figures, wrong


def table(figures, wrong):
    lines = [
        "| clients | server | requests/s | tokens/s | first token, median | p95 | other than alone |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for (clients, name), rounds in figures.items():
        median = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        cells = [f"{median['requests/s']:.2f}", f"{median['tokens/s']:.1f}"]
        cells += [f"{median[f'first token, {kind}']:.2f} s" for kind in ("median", "p95")]
        differ, of = wrong[clients, name]
        lines.append(f"| {clients} | {name} | {' | '.join(cells)} | {differ} of {of} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# Many connections.


async def crowd(options, server):
    """Holds connections open while requests wait; the answers, and how many connections were lost."""
    prompts = [prompt[:60] for prompt in prompts_of(1, options.queued)]
    clients = [await Client(server.port).open() for _ in range(options.connections)]
    for client in clients:
        await client.health()
    note(f"{len(clients)} connections: {server.resident()[0] / 2**20:.0f} MiB")
    done, lost = asyncio.Event(), 0

    async def idle(client):
        nonlocal lost
        while not done.is_set():
            try:
                await client.health()
            except (OSError, asyncio.IncompleteReadError):
                lost += 1
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), 10)

    others = [asyncio.create_task(idle(client)) for client in clients[options.queued :]]
    asked = (client.complete(prompt, options.tokens) for client, prompt in zip(clients, prompts))
    begin = time.perf_counter()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    seconds = time.perf_counter() - begin
    done.set()
    await asyncio.gather(*others)
    for client in clients:
        client.close()
    alone, _ = await load(server.port, prompts, 1, options.tokens)
    return answers, alone, lost, seconds


def connections(options):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * options.connections + 100)), hard))
    server = sketchkv(options, queue=options.queued, connections=options.connections + 16)
    try:
        empty = server.resident()[0]
        answers, alone, lost, seconds = asyncio.run(crowd(options, server))
        now, most = server.resident()
    finally:
        server.stop()
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    wrong = sum(answer[0] != other[0] for answer, other in zip(answers, alone) if not isinstance(answer, BaseException))
    print(
        f"{options.connections} connections, {options.queued} requests at once, {seconds:.1f} s: {len(failed)} failed, {wrong} differ "
        f"from the answer alone, {lost} connections lost; memory {empty / 2**20:.0f} MiB at the start, {most / 2**20:.0f} at the most, "
        f"{now / 2**20:.0f} in the end"
    )
    for error in {str(error) for error in failed}:
        print(error)
    return bool(failed or wrong or lost)


# ---------------------------------------------------------------------------------------------------------------------
# A day's requests.

HOSTILE = [
    b"", b"{", b"\0", b"[]", b"null", b"[" * 100_000, b'{"a":' * 10_000, b'{"prompt": "\xff\xfe"}', b'{"prompt": 1}',
    b'{"prompt": [4294967295]}', b'{"prompt": ""}', b'{"prompt": "a", "n": 1e99}', b'{"prompt": "a", "max_tokens": -1}',
    b'{"prompt": "a", "kv": "nonsense"}', b'{"prompt": "a", "kv": "h2o", "kv_bytes": 1}', b'{"prompt": "a", "regex": "(("}',
    b'{"prompt": "a", "grammar": "start: nothing"}', b'{"prompt": "a", "session": "../../a"}', b'{"prompt": "a", "x": 1}',
    b'{"prompt": "a", "logit_bias": {"x": 1}}', b'{"prompt": "a", "stop": ["' + b"a" * 2000 + b'"]}',
    b'{"prompt": "a", "n": 17}', b'{"prompt": "a", "temperature": 1e30}', b'{"prompt": "a"} {"prompt": "a"}',
]  # fmt: skip
"""Bodies that are all refused with 400."""

TURNS, SESSIONS = 4, 3
"""Turns of a session until it begins anew, and sessions of each client."""


class Soak:
    """Requests of every kind, and what came of them."""

    def __init__(self, port):
        self.port, self.random = port, random.Random(1)
        self.words = peers.TEXT.read_text(encoding="utf-8").split()
        self.done, self.errors, self.talks, self.sessions = Counter(), Counter(), [], {}
        kinds = {self.plain: 27, self.streamed: 27, self.session: 20, self.several: 3, self.bound: 4, self.capped: 3}
        kinds |= {self.hostile: 6, self.large: 1, self.leaves: 9}
        self.kinds, self.weights = list(kinds), list(kinds.values())

    def prompt(self, start, length):
        return " ".join(self.words[start % (len(self.words) - length) :][:length])

    def fresh(self):
        return self.prompt(self.random.randrange(len(self.words)), self.random.choice([3, 5, 8, 8, 24]))

    async def ask(self, client, body, status=200):
        """What is answered, where it has this status."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        found, pieces = await client.request("POST", "/v1/completions", data)
        answer = b"".join([piece async for piece in pieces])
        if found != status:
            raise RuntimeError(f"{found} instead of {status}: {answer[:200]!r}")
        return json.loads(answer)

    async def text(self, client, prompt, **more):
        body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True, "kv": "full", **more}
        return (await self.ask(client, body))["choices"][0]["text"]

    async def learn(self, client):
        """The greedy answers, alone: of each prompt, and of each text that it becomes."""
        for number in range(32):
            text, answers = self.prompt(number * 997, 40 if number % 8 == 0 else 6 + number % 5), []
            for _ in range(TURNS):
                answers.append((text, await self.text(client, text)))
                text += answers[-1][1]
            self.talks.append(answers)

    def known(self):
        return self.random.choice(self.random.choice(self.talks))

    async def plain(self, client, _):
        prompt, answer = self.known()
        assert await self.text(client, prompt) == answer, "wrong"

    async def streamed(self, client, _):
        prompt, answer = self.known()
        text, _, _ = await client.complete(prompt, 8, kv="full")
        assert text == answer, "wrong"

    async def session(self, client, number):
        """The next turn of one of the client's sessions, which begins anew at times."""
        name = f"talk-{number}-{self.random.randrange(SESSIONS)}"
        talk, turn = self.sessions.pop(name, (None, TURNS))
        if turn == TURNS:
            talk, turn = self.random.choice(self.talks), 0
        prompt, answer = talk[turn]
        assert await self.text(client, prompt, session=name) == answer, "wrong"
        self.sessions[name] = talk, turn + 1

    async def several(self, client, _):
        body = {"prompt": [self.fresh(), self.fresh()], "n": 2, "max_tokens": 6, "temperature": 1.2, "logprobs": 2, "kv": "full"}
        assert len((await self.ask(client, body))["choices"]) == 4

    async def bound(self, client, _):
        regex = f"[a-z]{{{self.random.randrange(1, 9)}}}"
        await self.ask(client, {"prompt": self.fresh(), "max_tokens": 8, "kv": "full", "regex": regex})

    async def capped(self, client, _):
        """Under a cap, or as the server has it."""
        more = {"kv_bytes": self.random.randrange(200, 2000) << 10} if self.random.random() < 0.5 else {}
        await self.ask(client, {"prompt": self.fresh(), "max_tokens": 24, "ignore_eos": True, **more})

    async def hostile(self, client, _):
        await self.ask(client, self.random.choice(HOSTILE), 400)

    async def large(self, client, _):
        """A megabyte: too long a text, or no JSON."""
        body = b'{"prompt": "' + self.random.choice([b"word ", b"ab\\n", b"9"]) * (1 << 18)
        await self.ask(client, body[: 1 << 20] + self.random.choice([b'"}', b""]), 400)

    async def leaves(self, client, _):
        body = {"prompt": self.fresh(), "max_tokens": 700, "ignore_eos": True, "stream": True, "kv": "full"}
        status, pieces = await client.request("POST", "/v1/completions", json.dumps(body).encode())
        for _ in range(self.random.randrange(4)):
            await anext(pieces)
        assert status == 200
        client.close()
        await client.open()

    async def client(self, number, left):
        own = await Client(self.port).open()
        while left:
            left.pop()
            (kind,) = self.random.choices(self.kinds, self.weights)
            try:
                await kind(own, number)
            except Exception as error:  # noqa: BLE001: whatever it is, it is counted
                self.errors[f"{kind.__name__}: {type(error).__name__}: {error}"] += 1
                own.close()
                await own.open()
            self.done[kind.__name__] += 1
        own.close()

    async def run(self, count, clients):
        if not self.talks:
            await self.learn(await Client(self.port).open())
        left = [None] * count
        await asyncio.gather(*(self.client(number, left) for number in range(clients)))
        while any(slot["state"] != "idle" for slot in read(self.port, "/slots")["slots"]):
            await asyncio.sleep(0.1)


def read(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as reply:
        text = reply.read().decode()
    return json.loads(text) if path == "/slots" else {
        name: float(value) for name, _, value in (line.partition(" ") for line in text.splitlines() if not line.startswith("#"))
    }  # fmt: skip


def soak(options):
    """Prints what came of it; true if it is not as it should be."""
    clients, mib = max(options.clients), 2**20
    with tempfile.TemporaryDirectory() as folder:
        options.gguf, options.kv = "tiny-gpt2", "auto"
        limits = {"kv-memory": "48MiB", "sessions": folder, "sessions-limit": "16MiB", "body-limit": "2MiB"}
        server = sketchkv(options, **limits)
        try:
            work, begin, part = Soak(server.port), time.perf_counter(), options.soak // 10
            residents, caches = [], []
            for number in range(10):
                asyncio.run(work.run(options.soak - 9 * part if number == 0 else part, clients))
                residents.append(server.resident()[0])
                caches.append(read(server.port, "/slots")["memory"]["used"])
                sizes = f"{residents[-1] / mib:.1f} MiB, {caches[-1] / mib:.1f} of them caches"
                note(f"{work.done.total()} requests: {sizes}, {work.errors.total()} errors")
            seconds, most = time.perf_counter() - begin, server.resident()[1]
            metrics, slots = read(server.port, "/metrics"), read(server.port, "/slots")
        finally:
            server.stop()
    for error, count in work.errors.most_common(20):
        print(f"{count} times {error}")
    at_rest = sum(slot["granted_bytes"] for slot in slots["slots"])
    held = slots["memory"]["used"] - metrics["sketchkv_kv_prefix_bytes"] - at_rest
    kinds = ", ".join(f"{count} {kind}" for kind, count in work.done.most_common())
    wrong = sum(count for error, count in work.errors.items() if error.endswith("wrong"))
    print(
        f"{work.done.total()} requests by {clients} clients in {seconds:.0f} s ({kinds}): {work.errors.total() - wrong} errors, "
        f"{wrong} answers other than alone; memory {residents[0] / mib:.1f} MiB after the first tenth, {residents[-1] / mib:.1f} in the "
        f"end, {most / mib:.1f} at the most, of it caches {caches[0] / mib:.1f} and {caches[-1] / mib:.1f}; {held:.0f} bytes of caches not free, {metrics['sketchkv_kv_overruns_total']:.0f} KV overruns"
    )
    # Caches at rest fill the memory that they are given, little by little; what is beside them may not grow.
    beside = [resident - used for resident, used in zip(residents, caches)]
    grown = beside[-1] - beside[0] > max(16 * mib, beside[0] // 10)
    return bool(work.errors or grown or held or metrics["sketchkv_kv_overruns_total"])


# ---------------------------------------------------------------------------------------------------------------------


def install(options):
    """Builds llama-server from the source package of llama-cpp-python, as bench/peers.py builds llama.cpp."""
    scripts = options.venv / "bin"
    if not (options.venv / "pyvenv.cfg").exists():
        peers.venv.create(options.venv, with_pip=True)
    pip = [scripts / "python", "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "cmake", "ninja"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        package = ["--quiet", "--no-deps", "--no-binary", "llama-cpp-python", "llama-cpp-python"]
        subprocess.run([*pip, "download", *package, "--dest", folder], check=True)
        (file,) = folder.glob("*.tar.gz")
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
        (source,) = folder.glob("*/vendor/llama.cpp")
        off = ["BUILD_SHARED_LIBS", "GGML_NATIVE", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP", "LLAMA_OPENSSL"]
        off += ["LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI"]
        flags = ["-DCMAKE_BUILD_TYPE=Release", *(f"-D{name}=OFF" for name in off), *peers.ggml_flags()]
        environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
        build = folder / "build"
        subprocess.run([scripts / "cmake", "-G", "Ninja", *flags, "-S", source, "-B", build], env=environment, check=True)
        jobs = ["--parallel", str(options.threads), "--target", "llama-server"]
        subprocess.run([scripts / "cmake", "--build", build, *jobs], env=environment, check=True)
        shutil.copy(build / "bin" / "llama-server", scripts)


def note(text):
    print(text, file=sys.stderr, flush=True)


def parse():
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    numbers = lambda text: [int(word) for word in text.split(",")]  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="build llama-server into the virtual environment of bench/peers.py")
    parser.add_argument("--venv", type=Path, default=cache / "sketchkv" / "peers", help="the virtual environment")
    parser.add_argument("--sketchkv", type=Path, default=peers.REPOSITORY / "target" / "release" / "sketchkv")
    parser.add_argument("--llama-server", type=Path, help="another llama-server than the one that --install built")
    parser.add_argument("--alone", action="store_true", help="without llama-server")
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that sketchkv knows")
    parser.add_argument("--kv", default="full", help="the cache of sketchkv")
    parser.add_argument("--clients", type=numbers, default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=24, help="requests of a round; two of each client at least")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", type=int, help="prompts of a round that are asked alone, too [default: all]")
    parser.add_argument("--parallel", type=int, default=32, help="slots of the servers")
    parser.add_argument("--context", type=int, default=1024, help="tokens of a slot")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one round of 1 and 8 clients, eight prompts checked")
    parser.add_argument("--connections", type=int, help="hold so many connections open instead")
    parser.add_argument("--queued", type=int, default=200, help="and ask so many at once")
    parser.add_argument("--soak", type=int, help="send so many requests of every kind instead, to the model that is in the program")
    options = parser.parse_args()
    if options.quick:
        options.clients, options.rounds, options.requests, options.check = [1, 8], 1, 8, options.check or 8
    options.llama_server = None if options.alone else options.llama_server or options.venv / "bin" / "llama-server"
    return options


def main():
    options = parse()
    if options.install:
        return install(options)
    if options.soak:
        return soak(options)
    options.gguf = peers.gguf_of(options)
    if options.connections:
        return connections(options)
    if options.llama_server and not options.llama_server.exists():
        sys.exit(f"there is no {options.llama_server}: build it with --install, or leave it out with --alone")
    figures, wrong = measure(options)
    print(
        f"{Path(options.gguf).name}, {options.threads} threads, {peers.cpu_name()}; {options.parallel} slots, {options.tokens} tokens of "
        f"answer, a prompt in four of {LONG} words, the others of {SHORT}; medians of {options.rounds} rounds in turn; caches "
        f"{options.kv} and f16.\n"
    )
    print(table(figures, wrong))
    return any(differ for (_, name), (differ, _) in wrong.items() if name == "sketchkv")


if __name__ == "__main__":
    sys.exit(main())
