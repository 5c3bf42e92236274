import pytest

import sketchkv


@pytest.fixture(scope="session")
def model():
    return sketchkv.Model.load("tiny-gpt2", threads=2)
