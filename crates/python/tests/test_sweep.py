"""Sweeps over local processes: what a dead worker has done counts, once."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from sketchkv import sweep

COMMAND = os.environ.get("SKETCHKV") or shutil.which("sketchkv")
pytestmark = pytest.mark.skipif(COMMAND is None, reason="the sketchkv command is neither in SKETCHKV nor on the path")

GRID = """
[[grid]]
spec = "{keep}@{slots}tok"
values = { keep = ["h2o", "window", "random"], slots = [32, 64] }
"""
EXPERIMENT = ["grid", "--grid", "grid.toml", "--context", "256", "--samples", "2"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "grid.toml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options, experiment=EXPERIMENT):
    return sweep.main([*options, "--command", COMMAND, *experiment])


def query(path, what, where="1"):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT {what} FROM cells WHERE {where}").fetchall()


def measured(path):
    """The divergence of every cell by its key."""
    rows = query(path, "key, json_extract(measured, '$.divergence.kl.mean')", "state = 'done'")
    assert len(rows) == 6
    return dict(rows)


def alone(folder):
    """The same experiment by one process."""
    results = folder / "alone.sqlite"
    words = [COMMAND, "experiment", *EXPERIMENT, "--threads", "1", "--results", results]
    subprocess.run(words, check=True, capture_output=True)
    return measured(results)


def test_a_killed_worker_costs_one_cell(folder):
    words = ["--shards", "2", "--results", "all.sqlite", "--command", COMMAND, *EXPERIMENT]
    running = subprocess.Popen([sys.executable, "-m", "sketchkv.sweep", *words])
    done = killed = None
    while running.poll() is None and not killed:
        time.sleep(0.01)
        for part in folder.glob("all.parts/*.sqlite"):
            try:
                owners = query(part, "owner", "state = 'running'")
                done = query(part, "key, started_at, duration_s", "state = 'done'")
            except sqlite3.OperationalError:
                continue  # It is just being made.
            if owners and done:
                killed = part
                # An owner is its machine, process and beginning.
                os.kill(int(owners[0][0].split(":")[-2]), signal.SIGKILL)
                break
    assert killed and running.wait() == 0
    assert set(done) <= set(query(folder / "all.sqlite", "key, started_at, duration_s"))
    assert measured(folder / "all.sqlite") == alone(folder)


def test_the_same_command_measures_nothing_again(folder):
    assert run("--shards", "3") == 0
    before = query("results.sqlite", "*")
    assert run("--shards", "3") == 0
    assert query("results.sqlite", "*") == before
    with pytest.raises(sweep.SweepError, match="as many --shards"):
        sweep.Sweep(tuple(EXPERIMENT), folder / "results.sqlite", 4, folder=folder).prepare()


def test_an_array_of_slurm(folder, capsys):
    assert run("--on", "slurm", "--shards", "2", "--results", "it's.sqlite") == 0
    script = capsys.readouterr().out
    assert "#SBATCH --array=1-2%2" in script
    for task in ("1", "2"):
        environment = {**os.environ, "SLURM_ARRAY_TASK_ID": task}
        subprocess.run(["bash", "-c", script], env=environment, check=True, capture_output=True)
    before = [row for part in folder.glob("it's.parts/*.sqlite") for row in query(part, "*")]
    assert run("--shards", "2", "--results", "it's.sqlite") == 0
    assert sorted(query("it's.sqlite", "*")) == sorted(before) and len(before) == 6


def test_failures_are_told(capsys):
    assert run("--shards", "2", "--results", "b.sqlite", experiment=["grid", "--grid", "none.toml"]) == 1
    assert "none.toml" in capsys.readouterr().err
    with open("grid.toml", "w") as file:
        file.write(GRID.replace("32", "2"))
    assert run("--shards", "2", "--results", "c.sqlite") == 1
    assert "below the minimum" in capsys.readouterr().err
    for wrong in (["--shards", "0", "grid"], ["--shards", "2"], ["--shards", "2", "grid", "--shard=1/2"]):
        with pytest.raises(SystemExit):
            sweep.main(wrong)
