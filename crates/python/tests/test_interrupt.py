"""Ctrl-C ends whatever takes long, soon and without harm."""

import os
import signal
import threading
import time

import pytest

import sketchkv

SOON = 15
"""Seconds; each of these would take minutes, on a busy machine more."""


def interrupted(work):
    """Runs `work` and interrupts it after a moment; the seconds from there to its end."""
    sent = []

    def send():
        time.sleep(0.5)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        return time.monotonic() - sent[0]
    finally:
        thread.join()


@pytest.fixture(autouse=True)
def handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_generation(model):
    cache = sketchkv.Cache("window@128tok")

    def forever():
        while True:
            model.generate("The sea", cache=sketchkv.Cache(), max_tokens=900, ignore_end=True)

    assert interrupted(forever) < SOON
    model.generate("The sea", cache=cache, max_tokens=2)
    assert len(cache) > 2


def test_compare(model):
    assert interrupted(lambda: sketchkv.compare(model, documents=8, context=1024)) < SOON


def test_others_run_meanwhile(model):
    counted = []
    thread = threading.Thread(target=lambda: model.generate("The sea", max_tokens=300, ignore_end=True))
    thread.start()
    while thread.is_alive():
        counted.append(1)
        time.sleep(0.001)
    assert len(counted) > 10
