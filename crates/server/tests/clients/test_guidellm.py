"""guidellm drives the server with eight clients at a time: every request is answered whole, and what it counts is what the server did."""

import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY, TINY, Server

pytest.importorskip("guidellm", reason="only `cargo xtask server-tests` installs it")

STREAMS, REQUESTS, TOKENS = 8, 24, 32


def test_every_request_of_a_load_is_answered(tmp_path):
    words = (REPOSITORY / "data" / "persuasion.txt").read_text(encoding="utf-8").split()
    prompts = tmp_path / "prompts.jsonl"
    # Every fourth is a long one.
    texts = (" ".join(words[400 * number :][: 24 if number % 4 else 240]) for number in range(REQUESTS))
    lines = (json.dumps({"prompt": text, "output_tokens_count": TOKENS}) for text in texts)
    prompts.write_text("\n".join(lines) + "\n")
    report = tmp_path / "report.json"
    with Server(TINY, "--kv-memory", "64MiB") as server:
        words = ["--backend", f"kind=openai_http,target={server.url},request_format=/v1/completions,model={TINY}"]
        words += ["--profile", f"kind=concurrent,streams={STREAMS}", "--constraint", f"kind=max_requests,count={REQUESTS}"]
        words += ["--data", f"kind=json_file,path={prompts}", "--output", f"kind=json,path={report}", "--disable-console"]
        subprocess.run([sys.executable, "-m", "guidellm", "run", *words], check=True, timeout=300)
        answered = [line for line in server.text("/metrics").splitlines() if line.startswith("sketchkv_answer_tokens_total ")]
    metrics = json.loads(report.read_text())["benchmarks"][0]["metrics"]
    assert metrics["request_totals"] == {"successful": REQUESTS, "errored": 0, "incomplete": 0, "total": REQUESTS}
    # It asks once beforehand whether the server is there.
    assert float(answered[0].split()[1]) >= REQUESTS * TOKENS == metrics["output_token_count"]["successful"]["total_sum"]
    assert metrics["request_concurrency"]["successful"]["max"] == STREAMS
