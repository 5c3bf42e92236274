#!/usr/bin/env python3
"""Runs sketchkv, llama.cpp, mistral.rs, transformers and kvpress on the same work in the same run, and writes docs/performance.md.

    cargo build --release -p sketchkv
    python3 bench/peers.py --install              # once: llama.cpp compiles for many minutes
    python3 bench/peers.py --model smollm2-135m   # then: about six minutes on two cores
    python3 bench/peers.py --start                # how long loading takes, and how much memory a run does

Every engine is a process that waits for a line, measures one thing, and answers with a line of JSON
(`sketchkv bench --paced` speaks the same way). The engines take turns within each repetition, so that a noisy moment
of the machine hits all of them, and the ratios are medians of the ratios within a repetition.

llama.cpp is driven through its C interface by llama-cpp-python, with flash attention and each of its cache types; it is
built with the instruction sets that this CPU has, but for AMX, which faults on some virtual machines. transformers runs
the weights of the same GGUF file, dequantized, on torch with a DynamicCache; kvpress prunes that cache. mistral.rs runs the
GGUF file with an f16 cache, as its wheel on PyPI is built.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
REPORT = REPOSITORY / "docs" / "performance.md"
TEXT = REPOSITORY / "data" / "persuasion.txt"

# What a flag of /proc/cpuinfo allows llama.cpp to be built with.
GGML_FLAGS = {
    "sse4_2": "GGML_SSE42",
    "avx": "GGML_AVX",
    "avx2": "GGML_AVX2",
    "fma": "GGML_FMA",
    "f16c": "GGML_F16C",
    "bmi2": "GGML_BMI2",
    "avx_vnni": "GGML_AVX_VNNI",
    "avx512f": "GGML_AVX512",
    "avx512_vbmi": "GGML_AVX512_VBMI",
    "avx512_vnni": "GGML_AVX512_VNNI",
    "avx512_bf16": "GGML_AVX512_BF16",
}
LLAMA = ["llama-cpp-python"]
MISTRAL = ["mistralrs"]
# kvpress says which transformers and torch it works with.
TORCH = ["torch", "gguf", "kvpress"]


# ---------------------------------------------------------------------------------------------------------------------
# What is measured, in which order: every engine goes through the same list.


class Test:
    """`tokens` tokens, taken in at once ("pp") or one by one ("tg"), over a cache that has seen `depth`."""

    def __init__(self, kind, tokens, depth):
        self.kind, self.tokens, self.depth = kind, tokens, depth

    def __str__(self):
        return f"{self.kind}{self.tokens}" + (f" @ d{self.depth}" if self.depth else "")


def tests_of(options, deepest=None):
    """The prompt at depth 0, and generation at every depth."""
    depths = [depth for depth in options.depth if deepest is None or depth <= deepest]
    prompts = [Test("pp", options.prompt, 0)] if options.prompt else []
    return prompts + [Test("tg", options.generate, depth) for depth in depths]


# ---------------------------------------------------------------------------------------------------------------------
# Workers: an engine and its caches in a process of their own.


def serve(lanes, options, deepest=None):
    """Measures one thing for every line on standard input, and answers with a line of JSON."""
    for test in tests_of(options, deepest):
        for name, lane in lanes.items():
            if test.depth > lane.seen:
                wait()
                before, seconds = lane.seen, lane.fill(test.depth)
                answer(Test("pp", test.depth - before, before), name, seconds, lane)
        for _ in range(options.repetitions):
            for name, lane in lanes.items():
                wait()
                answer(test, name, lane.measure(test), lane)


def wait():
    if not sys.stdin.readline():
        sys.exit(0)


def answer(test, name, seconds, lane):
    sample = {"test": str(test), "spec": name, "tokens": test.tokens, "seconds": seconds, "kv_bytes": lane.kv_bytes}
    print(json.dumps(sample), flush=True)


class Lane:
    """One cache of an engine. `run(tokens)` takes tokens in; `rewind()` forgets what came after the last fill."""

    def __init__(self, tokens):
        self.tokens, self.seen = tokens, 0

    def fill(self, depth):
        begin = time.perf_counter()
        self.run(self.tokens[self.seen : depth])
        seconds = time.perf_counter() - begin
        self.seen = depth
        return seconds

    def measure(self, test):
        after = self.tokens[self.seen :]
        if test.kind == "pp":
            begin = time.perf_counter()
            self.run(after[: test.tokens])
        else:
            # One token to warm up, as in `sketchkv bench`.
            self.run(after[:1])
            begin = time.perf_counter()
            for token in after[1 : test.tokens + 1]:
                self.run([token])
        seconds = time.perf_counter() - begin
        self.rewind()
        return seconds


def llama_worker(options, tokens):
    import ctypes

    from llama_cpp import llama_cpp as api

    # GGML_TYPE_* and bytes of a value: blocks of 32 with an f16 scale.
    types = {"f16": (1, 2), "q8_0": (8, 34 / 32), "q4_0": (2, 18 / 32)}
    quiet = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(quiet, ctypes.c_void_p(0))
    api.llama_backend_init()
    before, begin = peak_memory(), time.perf_counter()
    model = api.llama_model_load_from_file(options.gguf.encode(), api.llama_model_default_params())
    if not model:
        sys.exit(f"llama.cpp cannot load {options.gguf}")
    load_seconds = time.perf_counter() - begin
    head_dim = api.llama_model_n_embd(model) // api.llama_model_n_head(model)
    values = 2 * api.llama_model_n_layer(model) * api.llama_model_n_head_kv(model) * head_dim

    class LlamaLane(Lane):
        def __init__(self, kind):
            super().__init__(tokens)
            code, self.bytes = types[kind]
            params = api.llama_context_default_params()
            params.n_ctx, params.n_batch, params.n_ubatch = len(tokens), 2048, 512
            params.n_threads = params.n_threads_batch = options.threads
            params.type_k = params.type_v = code
            params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED
            params.no_perf = True
            self.context = api.llama_init_from_model(model, params)
            if not self.context:
                sys.exit(f"llama.cpp makes no context with a cache of {kind}")
            self.memory = api.llama_get_memory(self.context)

        @property
        def kv_bytes(self):
            return int(values * self.bytes * max(self.seen, 1))

        def run(self, ids):
            for first in range(0, len(ids), 2048):
                piece = ids[first : first + 2048]
                # The batch points into this array, which must outlive it.
                array = (api.llama_token * len(piece))(*piece)
                status = api.llama_decode(self.context, api.llama_batch_get_one(array, len(piece)))
                if status:
                    sys.exit(f"llama_decode failed with {status}")
            api.llama_synchronize(self.context)

        def rewind(self):
            api.llama_memory_seq_rm(self.memory, 0, self.seen, -1)

    if options.start:
        lane = LlamaLane(options.llama[0])
        lane.run(tokens[: options.prompt])
        for token in tokens[options.prompt :]:
            lane.run([token])
        # Less what Python and its modules held before.
        return print(json.dumps({"load_seconds": load_seconds, "peak_rss_bytes": peak_memory() - before}))
    serve({kind: LlamaLane(kind) for kind in options.llama}, options)


def peak_memory():
    """The most that this process held so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mistral_worker(options, tokens):
    # What it logs goes to standard output, where answers are read.
    answers = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(answers, "w")
    from mistralrs import CompletionRequest, Runner, Which

    folder, file = os.path.split(options.gguf)
    which = Which.GGUF(quantized_model_id=folder, quantized_filename=file)
    runner = Runner(which=which, prefix_cache_n=0, token_source="none")

    class MistralLane(Lane):
        """Takes texts, each from its beginning, and says how long prompt and answer took."""

        kv_bytes = None

        def usage(self, count, answer):
            greedy = {"temperature": 0.0, "top_k": 1, "ignore_eos": True}
            prompt = "".join(options.pieces[:count])
            request = CompletionRequest(prompt=prompt, model="default", max_tokens=answer, **greedy)
            return runner.send_completion_request(request).usage

        def fill(self, depth):
            seconds = self.usage(depth, 1).total_prompt_time_sec
            self.seen = depth
            return seconds

        def measure(self, test):
            if test.kind == "pp":
                usage = self.usage(test.tokens, 1)
                return usage.total_prompt_time_sec * test.tokens / usage.prompt_tokens
            # A prompt has to have a token.
            usage = self.usage(max(self.seen, 1), test.tokens)
            return usage.total_completion_time_sec * test.tokens / usage.completion_tokens

    serve({"f16": MistralLane(tokens)}, options, options.mistral_deepest)


def torch_worker(options, tokens):
    import contextlib

    import torch
    import transformers
    from transformers import AutoModelForCausalLM, DynamicCache

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    folder, file = os.path.split(options.gguf)
    dtype = getattr(torch, options.torch_dtype)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=dtype, attn_implementation="sdpa")
    model.eval()

    class TorchLane(Lane):
        def __init__(self, press=None):
            super().__init__(tokens)
            self.press, self.cache = press, DynamicCache()

        @property
        def kv_bytes(self):
            heads = model.config.num_key_value_heads
            head_dim = model.config.hidden_size // model.config.num_attention_heads
            values = 2 * model.config.num_hidden_layers * heads * head_dim
            return values * dtype.itemsize * max(self.cache.get_seq_length(), 1)

        def run(self, ids):
            pressed = self.press(model) if self.press and len(ids) > 1 else contextlib.nullcontext()
            with torch.inference_mode(), pressed:
                model(torch.tensor([ids]), past_key_values=self.cache, logits_to_keep=1)

        def fill(self, depth):
            if self.press:
                # A press prunes a whole prompt at once.
                self.cache, self.seen = DynamicCache(), 0
            seconds = super().fill(depth)
            self.filled = self.cache.get_seq_length()
            return seconds

        def rewind(self):
            if self.seen:
                self.cache.crop(self.filled)
            else:
                self.cache = DynamicCache()

    lanes = {"DynamicCache": TorchLane()}
    if options.press:
        import kvpress

        press = getattr(kvpress, options.press)(compression_ratio=options.compression)
        lanes[f"{options.press} {options.compression:.0%}"] = TorchLane(press)
    serve(lanes, options, options.torch_deepest)


# ---------------------------------------------------------------------------------------------------------------------
# The run: every engine in turn.


class Engine:
    """A worker process."""

    def __init__(self, name, command, lanes, environment=None, deepest=None):
        self.name, self.lanes, self.deepest = name, lanes, deepest
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def step(self):
        """Lets it measure one thing."""
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended before its time, with {self.process.wait()}")
        return json.loads(line)


def measure(engines, options):
    """Samples of every engine and cache: {test: {(engine, cache): [seconds]}}, tokens of each test, bytes of caches."""
    seconds, tokens, kv_bytes = {}, {}, {}
    seen = {engine.name: 0 for engine in engines}
    filled = {}

    def take(engine, test, into):
        sample = engine.step()
        if sample["test"] != test:
            sys.exit(f"{engine.name} measured {sample['test']} where {test} was due")
        key = (engine.name, sample["spec"])
        into.setdefault(key, []).append(sample["seconds"])
        return key, sample

    for test in tests_of(options):
        here = [e for e in engines if e.deepest is None or test.depth <= e.deepest]
        for engine in here:
            before = seen[engine.name]
            if test.depth > before:
                note(f"filling {engine.name} to {test.depth:,}")
                for _ in engine.lanes:
                    sample = engine.step()
                    key = (engine.name, sample["spec"])
                    # A press takes the whole prompt anew, the others go on from where they were.
                    whole = sample["tokens"] if sample["tokens"] == test.depth else None
                    so_far = 0 if whole else filled.get(key, 0.0)
                    filled[key] = so_far + sample["seconds"]
                    name = f"pp{test.depth}"
                    seconds.setdefault(name, {}).setdefault(key, []).append(filled[key])
                    tokens[name] = test.depth
                seen[engine.name] = test.depth
        name = str(test)
        tokens[name] = test.tokens
        for repetition in range(options.repetitions):
            note(f"{name}, repetition {repetition + 1} of {options.repetitions}")
            for engine in here:
                for _ in engine.lanes:
                    key, sample = take(engine, name, seconds.setdefault(name, {}))
                    kv_bytes.setdefault(name, {})[key] = sample["kv_bytes"]
    return seconds, tokens, kv_bytes


def note(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def first_tokens(options, count):
    """The first tokens of the text, and the text of each, as sketchkv tells them."""
    text = TEXT.read_text(encoding="utf-8")[: 12 * count]
    command = [options.sketchkv, "tokenize", "--model", options.gguf, "--literal", "--json"]
    done = subprocess.run(command, input=text, text=True, stdout=subprocess.PIPE, check=True)
    tokens = json.loads(done.stdout)["tokens"][:count]
    return [token["id"] for token in tokens], [token["text"] for token in tokens]


def work_of(options, tokens, pieces):
    """The file that tells workers what to do."""
    settings = {**vars(options), "venv": str(options.venv), "sketchkv": str(options.sketchkv), "before": None}
    settings["pieces"] = pieces
    options.venv.mkdir(parents=True, exist_ok=True)
    work = options.venv / "work.json"
    work.write_text(json.dumps({"options": settings, "tokens": tokens}))
    return work


def python_of(options):
    return options.venv / ("Scripts" if os.name == "nt" else "bin") / "python"


def engines_of(options, tokens, pieces):
    python, work = python_of(options), work_of(options, tokens, pieces)
    threads = {"OMP_NUM_THREADS": str(options.threads), "RAYON_NUM_THREADS": str(options.threads)}
    words = ["bench", "--paced", "--model", options.gguf, "-t", options.threads]
    words += [word for spec in options.kv for word in ("--kv", spec)]
    words += ["-r", options.repetitions]
    engines = [PairedSketchkv("sketchkv", [options.sketchkv, *words], options)]
    if options.fast:
        engines.append(PairedSketchkv(FAST, [options.sketchkv, *words, "--weights", "fast"], options))
    if options.before:
        engines.append(PairedSketchkv(BEFORE, [options.before, *words], options))
    for name, lanes, deepest in (
        ("llama.cpp", options.llama, None),
        ("mistral.rs", ["f16"], options.mistral_deepest),
        ("transformers", ["DynamicCache"] + ([options.press] if options.press else []), options.torch_deepest),
    ):
        if name in options.without or name == "mistral.rs" and deepest is None:
            continue
        worker = [python, __file__, "--worker", name, "--work", work]
        engines.append(Engine(name, worker, lanes, threads, deepest))
    return engines


# This build, with activations of 8 bits.
FAST = "sketchkv --weights fast"
# Another build of sketchkv, which this one is measured against.
BEFORE = "sketchkv before"


class PairedSketchkv(Engine):
    """sketchkv runs prompts at every depth, as llama-bench does; prompts at depth 0 are a process of their own."""

    def __init__(self, name, command, options):
        self.prompts = None
        if options.prompt:
            prompts = [*command, "-p", options.prompt, "-n", 0, "-d", 0]
            self.prompts = Engine(name, prompts, options.kv)
            self.left = options.repetitions * len(options.kv)
        depths = ",".join(str(depth) for depth in options.depth)
        super().__init__(name, [*command, "-p", 0, "-n", options.generate, "-d", depths], options.kv)

    def step(self):
        if self.prompts and self.left:
            self.left -= 1
            return self.prompts.step()
        return super().step()


def start(options):
    """Loads, takes a prompt in and generates, each engine in a process that is new each time: seconds and bytes."""
    tokens, pieces = first_tokens(options, options.prompt + options.generate)
    work = work_of(options, tokens, pieces)
    text = options.venv / "prompt.txt"
    text.write_text("".join(pieces[: options.prompt]), encoding="utf-8")
    words = [options.sketchkv, "run", "--model", options.gguf, "--text", text, "-n", options.generate]
    words += ["--temperature", 0, "-t", options.threads, "--json"]
    commands = {("sketchkv", spec): [*words, "--kv", spec] for spec in options.kv}
    if "llama.cpp" not in options.without:
        command = [python_of(options), __file__, "--worker", "llama.cpp", "--work", work]
        commands["llama.cpp", options.llama[0]] = command
    found = {key: [] for key in commands}
    for repetition in range(options.repetitions):
        note(f"repetition {repetition + 1} of {options.repetitions}")
        for key, command in commands.items():
            done = subprocess.run([str(word) for word in command], text=True, capture_output=True)
            if done.returncode:
                sys.exit(f"{key[0]} ended with {done.returncode}: {done.stderr}")
            found[key].append(json.loads(done.stdout))
    size = os.path.getsize(options.gguf)
    lines = ["| engine | cache | load, s | GB/s | peak memory, MiB | beyond the file |", "|---|---|--:|--:|--:|--:|"]
    for (engine, cache), runs in found.items():
        seconds = statistics.median(run["load_seconds"] for run in runs)
        peak = statistics.median(run["peak_rss_bytes"] for run in runs)
        rate, mib = size / seconds / 1e9, 2**20
        lines.append(
            f"| {engine} | {cache} | {seconds:.2f} | {rate:.2f} | {peak / mib:.0f} | {(peak - size) / mib:.0f} |"
        )
    print("\n".join(lines))


# ---------------------------------------------------------------------------------------------------------------------
# The report.


def table(seconds, tokens, kv_bytes):
    """Median speeds, and medians of the ratios to llama.cpp's fastest cache of each test, and to the other build."""
    lines = ["| work | engine | cache | KV | tokens/s | ÷ llama.cpp's best |", "|---|---|---|--:|--:|--:|"]
    compared = any(name == BEFORE for lanes in seconds.values() for name, _ in lanes)
    if compared:
        lines = [lines[0] + " ÷ before |", lines[1] + "--:|"]
    for test, lanes in seconds.items():
        peers = {key: statistics.median(times) for key, times in lanes.items() if key[0] == "llama.cpp"}
        best = min(peers, key=peers.get) if peers else None
        for key, times in lanes.items():
            rate = tokens[test] / statistics.median(times)
            ratio = ""
            if best:
                ratio = f"{statistics.median(b / t for b, t in zip(lanes[best], times)):.2f}"
            kv = kv_bytes.get(test, {}).get(key)
            kv = f"{kv / 2**20:.1f} MiB" if kv and "@" in test else ""
            mark = "**" if key == best else ""
            line = f"| {test} | {key[0]} | {mark}{key[1]}{mark} | {kv} | {rate:.1f} | {ratio} |"
            if compared:
                other = lanes.get((BEFORE, key[1]), []) if key[0] == "sketchkv" else []
                gains = [before / now for before, now in zip(other, times)]
                line += f" {statistics.median(gains):.2f} |" if gains else " |"
            lines.append(line)
    return "\n".join(lines)


def versions(options):
    python = python_of(options)
    script = (
        "from importlib.metadata import version\n"
        "for name in ('llama-cpp-python', 'mistralrs', 'torch', 'transformers', 'kvpress'):\n"
        "    try: print(name, version(name))\n"
        "    except Exception: pass"
    )
    found = []
    if python.exists():
        found = subprocess.run([python, "-c", script], text=True, stdout=subprocess.PIPE).stdout.split("\n")
    own = subprocess.run([options.sketchkv, "--version"], text=True, stdout=subprocess.PIPE).stdout.strip()
    return ", ".join([own] + [line for line in found if line])


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def replace_part(text, name, body):
    """`text` with what stands between the markers of `name` replaced."""
    opening, closing = f"<!-- {name}:", f"<!-- /{name} -->"
    start = text.index("-->\n", text.index(opening)) + len("-->\n")
    return f"{text[:start]}\n{body}\n\n{text[text.index(closing, start):]}"


def report(options, body):
    command = "python3 bench/peers.py " + " ".join(shlex.quote(word) for word in options.shown)
    facts = (
        f"{Path(options.gguf).name}, {options.threads} threads, {cpu_name()}; {options.repetitions} repetitions in turn; "
        f"llama.cpp with flash attention; torch in {options.torch_dtype}. {versions(options)}."
    )
    show(options, "peers", f"{facts}\n\n```sh\n{command.strip()}\n```\n\n{body}")


def profile(options):
    """Where the time of a generated token goes, by `sketchkv bench --profile`."""
    words = ["-t", options.threads, "-p", 0, "-n", options.generate, "-d", ",".join(map(str, options.depth))]
    words += ["-r", options.repetitions, *(word for spec in options.kv for word in ("--kv", spec)), "--profile"]
    words = [str(word) for word in words]
    command = [options.sketchkv, "bench", "--model", options.gguf, *words]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.stderr)
    shown = " ".join(shlex.quote(word) for word in ["sketchkv", "bench", "--model", options.model, *words])
    show(options, "profile", f"{done.stderr.strip()}\n\n```sh\n{shown}\n```\n\n{done.stdout.strip()}")


def show(options, name, part):
    print(part)
    if options.write:
        REPORT.write_text(replace_part(REPORT.read_text(encoding="utf-8"), name, part), encoding="utf-8")
        note(f"wrote {REPORT.relative_to(REPOSITORY)}")


# ---------------------------------------------------------------------------------------------------------------------
# Installing the peers.


def install(options):
    if not (options.venv / "pyvenv.cfg").exists():
        venv.create(options.venv, with_pip=True)
    python = python_of(options)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    if "llama.cpp" not in options.without:
        cmake = " ".join(["-DGGML_NATIVE=OFF", "-DLLAVA_BUILD=OFF", *ggml_flags()])
        note(f"llama.cpp with {cmake}; this compiles for many minutes")
        environment = {**os.environ, "CMAKE_ARGS": cmake}
        environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(options.threads))
        subprocess.run([*pip, "--no-binary", "llama-cpp-python", *LLAMA], env=environment, check=True)
    subprocess.run([*pip, *MISTRAL], check=True)
    if "transformers" not in options.without:
        subprocess.run([*pip, *TORCH], check=True)


def ggml_flags():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return [f"-D{name}={'ON' if flag in flags else 'OFF'}" for flag, name in GGML_FLAGS.items()]


# ---------------------------------------------------------------------------------------------------------------------


def gguf_of(options):
    """The GGUF file behind a name, as sketchkv finds it."""
    if Path(options.model).is_file():
        return str(Path(options.model).resolve())
    done = subprocess.run([options.sketchkv, "pull", options.model, "--json"], text=True, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"cannot find a GGUF file for {options.model!r}: name a file, or a model that `sketchkv pull` knows")
    return json.loads(done.stdout)["path"]


def parse():
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    numbers = lambda text: sorted({int(word) for word in text.split(",")})  # noqa: E731
    words = lambda text: [word for word in text.split(",") if word]  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="install the peers into the virtual environment")
    parser.add_argument("--venv", type=Path, default=cache / "sketchkv" / "peers", help="the virtual environment")
    parser.add_argument("--sketchkv", type=Path, default=REPOSITORY / "target" / "release" / "sketchkv")
    parser.add_argument("--before", type=Path, help="another build of sketchkv, to be measured beside this one")
    parser.add_argument("--fast", action="store_true", help="sketchkv with --weights fast, too")
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that sketchkv knows")
    parser.add_argument("--kv", action="append", metavar="SPEC", help="a cache of sketchkv; several times")
    parser.add_argument("--llama", type=words, default=["f16", "q8_0", "q4_0"], help="caches of llama.cpp")
    parser.add_argument("--press", default="KnormPress", help="a press of kvpress; empty for none")
    parser.add_argument("--compression", type=float, default=0.5, help="what the press drops")
    parser.add_argument("--torch-dtype", default="float32")
    parser.add_argument("--torch-deepest", type=int, default=4096, help="the deepest that transformers is taken")
    parser.add_argument("--mistral-deepest", type=int, metavar="DEPTH", help="take mistral.rs along, so deep")
    parser.add_argument("--without", type=words, default=[], help="peers to leave out: llama.cpp, transformers")
    parser.add_argument("-p", "--prompt", type=int, default=512, help="tokens of a prompt")
    parser.add_argument("-n", "--generate", type=int, default=32, help="tokens to generate")
    parser.add_argument("-d", "--depth", type=numbers, default=[0, 1024, 4096, 8000], help="tokens before")
    parser.add_argument("-r", "--repetitions", type=int, default=3)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--start", action="store_true", help="only how long loading takes, and the memory of a run")
    parser.add_argument("--profile", action="store_true", help="only where sketchkv's own time goes")
    parser.add_argument("--write", action="store_true", help=f"write {REPORT.relative_to(REPOSITORY)}")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.kv = options.kv or ["full", "full+q8", "full+q4h"]
    return options


def main():
    options = parse()
    if options.worker:
        work = json.loads(options.work.read_text())
        workers = {"llama.cpp": llama_worker, "mistral.rs": mistral_worker, "transformers": torch_worker}
        worker = workers[options.worker]
        return worker(argparse.Namespace(**work["options"]), work["tokens"])
    if options.install:
        return install(options)
    options.gguf = gguf_of(options)
    if options.profile:
        return profile(options)
    if options.start:
        return start(options)
    # Of the command line, what does not name a place on this machine.
    places = ("--venv", "--sketchkv", "--before")
    words = zip([None, *sys.argv[1:]], sys.argv[1:])
    words = [word for before, word in words if word not in places and before not in places]
    options.shown = [Path(word).name if os.path.isabs(word) else word for word in words]
    options.work = options.worker = None
    longest = max(max(options.depth) + options.generate + 1, options.prompt)
    engines = engines_of(options, *first_tokens(options, longest))
    begin = time.monotonic()
    body = table(*measure(engines, options))
    note(f"{time.monotonic() - begin:.0f} s")
    report(options, body)


if __name__ == "__main__":
    main()
