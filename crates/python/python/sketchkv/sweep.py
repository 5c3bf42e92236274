"""An experiment dealt out to many workers: local processes, Ray, or the tasks of a Slurm array.

``python -m sketchkv.sweep --shards 8 --results all.sqlite grid --grid my-grid.toml`` drives the ``sketchkv`` command. Every shard
has a results file of its own, in the folder ``all.parts``; a worker that dies is started again and goes on with it. In the end the
files are merged, and the same command measures nothing twice, however it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

Failures = list[str]
"""What cells failed at, `spec: reason` each."""


class SweepError(Exception):
    """Why a sweep cannot go on."""


@dataclass(frozen=True)
class Sweep:
    """An experiment in `shards` parts; paths are taken from `folder`, which all workers have to see."""

    experiment: tuple[str, ...]
    """The arguments of `sketchkv experiment`."""
    results: Path
    shards: int
    threads: int = 1
    """Those of each worker."""
    attempts: int = 3
    """How often a shard may lose its worker."""
    command: str = "sketchkv"
    folder: Path = Path(".")

    def part(self, shard: int) -> Path:
        """The results file of a shard, from 1 on."""
        return self.parts / f"{shard}-of-{self.shards}.sqlite"

    @property
    def parts(self) -> Path:
        return self.folder / self.results.with_suffix(".parts")

    def prepare(self) -> None:
        """Makes the folder of the parts; other parts than these would be measured a second time."""
        self.parts.mkdir(parents=True, exist_ok=True)
        mine = {self.part(shard).name for shard in range(1, self.shards + 1)}
        other = next((path.stem for path in self.parts.glob("*.sqlite") if path.name not in mine), None)
        if other:
            raise SweepError(f"{self.parts} has the part {other}: give as many --shards again, or other --results")

    def measure(self, shard: int) -> Failures:
        """Measures what a shard lacks, in as many processes as it takes."""
        attempts = 0
        while attempts < self.attempts:
            part = ["--shard", f"{shard}/{self.shards}", "--results", str(self.part(shard))]
            done = self._run([*self._experiment(), *part, "--json"])
            try:
                cells = json.loads(done.stdout)["cells"]
            except ValueError:
                if 0 <= done.returncode <= 130:
                    # It said what is wrong, and would say so again, or was interrupted.
                    raise SweepError(done.stderr.strip() or f"shard {shard} was interrupted") from None
                attempts += 1
                continue
            if not self._is_running(shard):
                return [f"{cell['spec']}: {cell['error']}" for cell in cells if cell["error"]]
            # The worker before this one is still at a cell, though the backend has lost it.
            time.sleep(1)
        raise SweepError(f"shard {shard} lost its worker {attempts} times; the last said: {done.stderr.strip()[-500:]}")

    def merge(self) -> str:
        """Merges the parts into the results; what the command says of it."""
        parts = [str(self.part(shard)) for shard in range(1, self.shards + 1)]
        done = self._run([self.command, "results", "merge", str(self.folder / self.results), *parts])
        if done.returncode:
            raise SweepError(done.stderr.strip())
        return done.stdout.strip()

    def array(self, at_once: int) -> str:
        """A script for Slurm's `sbatch`, `at_once` tasks of which run at a time."""
        task = '"$SLURM_ARRAY_TASK_ID"'
        part = f"--shard {task}/{self.shards} --results {shlex.quote(str(self.parts))}/{task}-of-{self.shards}.sqlite"
        return "\n".join(
            [
                "#!/bin/bash",
                "#SBATCH --job-name=sketchkv",
                f"#SBATCH --array=1-{self.shards}%{at_once}",
                f"#SBATCH --cpus-per-task={self.threads}",
                "#SBATCH --requeue",
                f"cd {shlex.quote(str(self.folder))} || exit",
                f"exec {shlex.join(self._experiment())} {part}",
            ]
        )

    def _experiment(self) -> list[str]:
        return [self.command, "experiment", *self.experiment, "--threads", str(self.threads)]

    def _is_running(self, shard: int) -> bool:
        done = self._run([self.command, "results", "show", str(self.part(shard)), "--json"])
        return json.loads(done.stdout)["running"] > 0

    def _run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=self.folder, capture_output=True, text=True)


def run_locally(sweep: Sweep, workers: int) -> list[Failures]:
    """Runs all shards in local processes, `workers` at a time."""
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(sweep.measure, shard) for shard in range(1, sweep.shards + 1)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            # Ctrl-C reaches the processes by itself; what has not begun does not begin.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_on_ray(sweep: Sweep, workers: int) -> list[Failures]:
    """Runs all shards as tasks of the Ray cluster at RAY_ADDRESS, or of a local one with `workers` workers."""
    import ray

    local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": workers * sweep.threads, "include_dashboard": False}
    ray.init(**local)
    try:
        measure = ray.remote(num_cpus=sweep.threads, max_retries=sweep.attempts)(Sweep.measure)
        return ray.get([measure.remote(sweep, shard) for shard in range(1, sweep.shards + 1)])
    finally:
        ray.shutdown()


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sketchkv.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--on", choices=["local", "ray", "slurm"], default="local", help="who runs it; slurm prints a script")
    parser.add_argument("--shards", type=int, required=True, help="parts that the cells are dealt out to")
    parser.add_argument("--workers", type=int, default=2, help="how many run at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each worker")
    parser.add_argument("--attempts", type=int, default=3, help="how often a shard may lose its worker")
    parser.add_argument("--results", type=Path, default=Path("results.sqlite"), help="where the merged results are kept")
    parser.add_argument("--command", default=os.environ.get("SKETCHKV", "sketchkv"), help="the sketchkv command")
    parser.add_argument("experiment", nargs=argparse.REMAINDER, help="the experiment, with its own arguments")
    arguments = parser.parse_args(given)
    if not arguments.experiment:
        parser.error("name an experiment, as for `sketchkv experiment`")
    for name in ("shards", "workers", "threads", "attempts"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is at least 1")
    for own in ("--shard", "--results", "--threads", "--json"):
        if any(word.partition("=")[0] == own for word in arguments.experiment):
            parser.error(f"{own} is the sweep's own: it is no argument of the experiment")
    command = shutil.which(arguments.command)
    if command is None:
        parser.error(f"there is no command {arguments.command}: build it, and name it by --command or in SKETCHKV")
    arguments.command = str(Path(command).absolute())
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """The command; its exit code is 1 where a cell failed, as that of `sketchkv experiment`."""
    arguments = _arguments(given)
    sweep = Sweep(
        tuple(arguments.experiment),
        arguments.results,
        arguments.shards,
        arguments.threads,
        arguments.attempts,
        arguments.command,
        Path.cwd(),
    )
    try:
        sweep.prepare()
        if arguments.on == "slurm":
            print(sweep.array(arguments.workers))
            return 0
        run = run_on_ray if arguments.on == "ray" else run_locally
        failures = [failure for part in run(sweep, arguments.workers) for failure in part]
        print(sweep.merge())
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
