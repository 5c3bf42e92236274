"""llama.cpp's tests of its server, as far as they do not need what is its own; llama_cpp.py lists which, and why not the others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import llama_cpp
import pytest
from conftest import REPOSITORY

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def tests():
    folder = REPOSITORY / "target" / "server-tests" / "llama.cpp"
    folder.mkdir(parents=True, exist_ok=True)
    return llama_cpp.fetch(folder)


def test_all_files_are_known(tests):
    assert {file.name for file in tests.glob("unit/test_*.py")} == {*llama_cpp.TESTS, *llama_cpp.FILES_LEFT_OUT}


@pytest.mark.parametrize("file", llama_cpp.TESTS)
def test_theirs(tests, file):
    command = [sys.executable, "-m", "pytest", "-p", "llama_cpp", "--noconftest", "-p", "no:cacheprovider", "--tb=short", "-rA"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [*command, "--rootdir", tests, tests / "unit" / file], env=environment, cwd=HERE, text=True, capture_output=True
    )
    print(done.stdout[-20000:], done.stderr)
    assert done.returncode == 0
    # Each ran: a test may have several cases.
    ran = set(re.findall(r"^PASSED .*::(\w+)", done.stdout, re.MULTILINE))
    assert ran == llama_cpp.TESTS[file]
