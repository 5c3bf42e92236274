"""lm-eval over HTTP (`local-completions`) scores as it does with the library in its own process (`sketchkv`).

The task is one of our own, over the novel in data/: which of four passages goes on after a passage, and how probable passages are.
"""

import json
import os

import pytest
from conftest import REPOSITORY, TINY, Server

# Nothing is fetched.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

lm_eval = pytest.importorskip("lm_eval", reason="only `cargo xtask server-tests` installs it")
from lm_eval.tasks import TaskManager  # noqa: E402

from sketchkv.lm_eval import SketchLM  # noqa: E402

QUESTIONS, WORDS = 24, 12
PREFIX = "."
"""What a text without context follows: the model has no token that begins one."""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Configurations for lm-eval, and their documents, as a file."""
    words = (REPOSITORY / "data" / "persuasion.txt").read_text(encoding="utf-8").split()
    passages = [" ".join(words[start : start + WORDS]) for start in range(0, 400 * WORDS, WORDS)]
    documents = []
    for number in range(QUESTIONS):
        right = 2 * number + 1
        # Its own continuation, and three from elsewhere; which is which depends on the number.
        choices = [" " + passages[right + distance] for distance in (0, 101, 202, 303)]
        place = number % 4
        choices = choices[-place:] + choices[:-place]
        documents.append({"context": passages[right - 1], "choices": choices, "right": place})
    folder = tmp_path_factory.mktemp("lm-eval")
    file = folder / "passages.json"
    file.write_text("\n".join(map(json.dumps, documents)))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "metadata": {"version": 1},
    }
    choose = {
        **common,
        "task": "choose_passage",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{right}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    perplexity = {
        **common,
        "task": "passages",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{context}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    }
    return [choose, perplexity]


def evaluate(model, tasks):
    """The scores, and the log-likelihood of every request."""
    found = lm_eval.simple_evaluate(
        model=model, tasks=tasks, bootstrap_iters=0, log_samples=True, task_manager=TaskManager(include_defaults=False)
    )
    scores = {
        (task, name): value
        for task, results in found["results"].items()
        for name, value in results.items()
        if isinstance(value, float) and "stderr" not in name
    }
    return scores, {
        task: [sample["filtered_resps"] for sample in samples] for task, samples in found["samples"].items()
    }


@pytest.mark.parametrize("kv", ["full+f32", "full+q4"])
def test_scores_are_those_of_the_library(tasks, kv):
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    with Server(TINY, "--kv", kv) as server:
        remote = LocalCompletionsAPI(
            model=TINY,
            base_url=f"{server.url}/v1/completions",
            tokenizer=str(REPOSITORY / "models" / TINY),
            tokenizer_backend="huggingface",
            num_concurrent=4,
            max_length=512,
            custom_prefix_token_id=server.ask("/tokenize", {"content": PREFIX})["tokens"][0],
        )
        scores, responses = evaluate(remote, tasks)
    own, expected = evaluate(SketchLM(TINY, kv, chunk=128, max_length=511, prefix_token=PREFIX), tasks)
    assert set(scores) == set(own) and len(scores) == 4
    # Requests are run in other portions over HTTP, which is all that may tell them apart.
    for task, samples in expected.items():
        for found, wanted in zip(responses[task], samples, strict=True):
            assert likelihoods(found) == pytest.approx(likelihoods(wanted), rel=2e-4), task
            assert greedy(found) == greedy(wanted), task
    accuracy = ("choose_passage", "acc,none")
    assert scores[accuracy] == own[accuracy] > 0
    assert scores == pytest.approx(own, rel=2e-4)


def likelihoods(responses):
    return [response[0] if isinstance(response, tuple) else response for response in responses]


def greedy(responses):
    return [response[1] for response in responses if isinstance(response, tuple)]
