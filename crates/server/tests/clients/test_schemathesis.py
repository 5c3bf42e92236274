"""Requests that schemathesis makes of /openapi.json, well-formed and not: answers are as described, and none is a crash.

The same ones every time: first all that it derives from the description (coverage), then random ones (fuzzing).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from conftest import CHAT, Server

# Which tokens, grammars and combinations of fields there are, a description cannot say.
EXCLUDED = "positive_data_acceptance"

KEY = "open-sesame"

TAKEN = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/tokenize", "/detokenize", "/apply-template")


@pytest.mark.parametrize(
    ("phases", "examples"), [pytest.param("coverage", 1, marks=pytest.mark.quick), ("fuzzing", 100)]
)
def test_answers_are_as_described(phases, examples, tmp_path):
    # Short texts: answers are looked at for their form.
    options = ["--kv", "full", "--context", 96, "--max-tokens", 1, "--sessions", tmp_path / "sessions", "--api-key", KEY]
    with Server(CHAT, *options, key=KEY) as server:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
        command += ["--phases", phases, "--max-examples", examples, "--generation-deterministic"]
        command += ["--continue-on-failure", "--no-shrink", "--request-timeout", 60, "--exclude-checks", EXCLUDED]
        command += ["--header", f"Authorization: Bearer {KEY}"]
        # It is refused, always, by a status that says so.
        command += ["--exclude-path", "/v1/embeddings", "--no-color"]
        hooks = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(
            list(map(str, command)), env={**os.environ, **hooks}, cwd=tmp_path, text=True, capture_output=True
        )
        print(done.stdout, done.stderr)
        assert done.returncode == 0
        # It lives, and nothing is left behind.
        server.idle()
        assert server.client().completions.create(model=CHAT, prompt="The sea").choices
        metrics = httpx2.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    # Nothing was tested if all that was asked was refused.
    counted = re.findall(r'^sketchkv_http_requests_total\{path="(.*)",status="(\d+)"\} (\d+)', metrics, re.MULTILINE)
    counts = {(path, int(status)): int(count) for path, status, count in counted}
    assert sum(counts.values()) > 300
    for path in TAKEN:
        assert counts[path, 200] > 5 and counts[path, 400] > 5, (path, counts)
    assert not [status for _, status in counts if status >= 500], counts
