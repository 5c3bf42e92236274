"""What clients do to a server without meaning it: it has to be the same afterwards."""

import json
import socket
import struct
import threading
from pathlib import Path

import pytest
from conftest import TINY, Server

LEAVERS, AT_ONCE = 1000, 50
PROMPTS = ["The sea was", "She walked to", "It was a truth", "In the morning"]


@pytest.fixture(scope="module")
def tiny_server():
    options = ["--kv", "full", "--kv-memory", "64MiB", "--parallel", 16, "--queue", 256]
    with Server(TINY, *options) as server:
        yield server


def complete(server, prompt):
    return server.ask("/v1/completions", {"prompt": prompt, "max_tokens": 12, "temperature": 0})["choices"][0]["text"]


def resident(server):
    """Bytes of memory; None where the system does not say."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        return None
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return 1024 * int(line.split()[1])


def metric(server, name):
    (line,) = [line for line in server.text("/metrics").splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def leave(server, number):
    """Asks for a long answer, and is gone when it has begun: in good order, or, every other time, by a reset."""
    host, port = server.url.removeprefix("http://").split(":")
    body = {"prompt": f"{number} {PROMPTS[number % len(PROMPTS)]}", "max_tokens": 900, "ignore_eos": True, "stream": True}
    body = json.dumps(body).encode()
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        heard = b""
        while heard.count(b"data: ") <= number % 5:
            piece = connection.recv(4096)
            assert piece, heard
            heard += piece
        assert heard.startswith(b"HTTP/1.1 200") and b"[DONE]" not in heard
        if number % 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def leave_all(server, numbers):
    """So many at a time; gives what went wrong."""
    left, wrong = list(numbers), []

    def one():
        while left:
            try:
                leave(server, left.pop())
            except IndexError:
                return
            except (OSError, AssertionError) as error:
                wrong.append(error)

    threads = [threading.Thread(target=one) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    return threads, wrong


def test_a_thousand_clients_leave_in_mid_stream(tiny_server):
    server = tiny_server
    alone = {prompt: complete(server, prompt) for prompt in PROMPTS}
    residents = []
    # The first hundred warm it up.
    for numbers in (range(100), range(100, 100 + LEAVERS)):
        threads, wrong = leave_all(server, numbers)
        while any(thread.is_alive() for thread in threads):
            # Whoever stays is served, and served right.
            for prompt, answer in alone.items():
                assert complete(server, prompt) == answer
        assert wrong == []
        server.idle()
        slots = server.ask("/slots")
        assert slots["slots"] == [] and slots["memory"]["used"] == metric(server, "sketchkv_kv_prefix_bytes")
        residents.append(resident(server))
    assert metric(server, "sketchkv_kv_overruns_total") == 0
    if all(residents):
        assert residents[1] < residents[0] + (16 << 20), residents
