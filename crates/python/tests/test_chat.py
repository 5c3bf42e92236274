"""Conversations, on a folder that brings a template."""

import json
import shutil
from pathlib import Path

import pytest

from sketchkv import Chat, Error, Model

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
GREEDY = {"max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talker")
    for file in (Path(__file__).parents[3] / "models" / "tiny-gpt2").iterdir():
        shutil.copy(file, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}))
    return Model.load(str(folder))


def test_turns_follow_each_other(talker):
    chat = talker.chat(system="Be brief.", kv="full+q8")
    first = chat.ask("Who are you?", **GREEDY)
    seen = len(chat.cache)
    stream = chat.stream("And where?", **GREEDY)
    assert "".join(stream) == stream.text
    assert len(chat.cache) > seen and first
    chat.reset()
    assert len(chat.cache) == 0
    assert chat.ask("Who are you?", **GREEDY) == first


def test_a_chat_in_a_file_goes_on(talker, tmp_path):
    chat = talker.chat()
    chat.ask("Who are you?", **GREEDY)
    chat.save(tmp_path / "chat.kv")
    loaded = Chat.load(tmp_path / "chat.kv", talker)
    assert loaded.ask("And where?", **GREEDY) == chat.ask("And where?", **GREEDY)


def test_its_cache_is_not_cut_from_outside(talker):
    chat = talker.chat()
    chat.ask("Who are you?", **GREEDY)
    assert chat.cache.ledger()["total"] > 0
    with pytest.raises(Error, match="belongs to a chat"):
        chat.cache.truncate(1)
    with pytest.raises(Error, match="belongs to a chat"):
        talker.generate("x", cache=chat.cache)
