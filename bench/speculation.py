"""What speculation brings: the same text with and without, in turns.

    python3 bench/speculation.py --model qwen2.5-coder-0.5b
    python3 bench/speculation.py --model smollm2-135m --repetitions 5
    python3 bench/speculation.py --model qwen2.5-coder-0.5b --server

Three tasks: a source file returned with one change, a summary of a chapter, a story of the model's own. All are generated
with and without guesses in turn, by the command or by two servers; the texts must be the same. Prints a Markdown table of
medians.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent


def tasks():
    source = (ROOT / "crates/cache/src/cost.rs").read_text().splitlines()[:200]
    novel = (ROOT / "data/persuasion.txt").read_text()[30_000:36_000]
    edit = (
        "Return this file unchanged, but rename the function `of_slot` to `per_slot`. Answer with the whole file in one "
        "code block and nothing else.\n\n```rust\n" + "\n".join(source) + "\n```\n"
    )
    return [
        ("a file with one change", edit, 600, "0"),
        ("a summary", "Summarize this text in one paragraph:\n\n" + novel, 200, "0"),
        ("a story, greedy", "Write a long story about a lighthouse keeper who finds a map.", 300, "0"),
        ("a story, drawn", "Write a long story about a lighthouse keeper who finds a map.", 300, "0.9"),
    ]


class Command:
    """`sketchkv run`, a process for each text."""

    def __init__(self, arguments):
        self.arguments = arguments

    def run(self, text, tokens, temperature, how, seed):
        command = [self.arguments.sketchkv, "run", "--model", self.arguments.model, "--kv", self.arguments.kv, "--chat", text]
        command += ["-n", str(tokens), "--temperature", temperature, "--seed", str(seed), "--speculate", how, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command[:4])}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def close(self):
        pass


class Servers:
    """`sketchkv serve`, one with guesses and one without, of which one works at a time."""

    def __init__(self, arguments):
        self.arguments, self.servers = arguments, {}

    def url(self, how):
        if how not in self.servers:
            command = [self.arguments.sketchkv, "serve", "--model", self.arguments.model, "--kv", self.arguments.kv]
            command += ["--port", "0", "--speculate", how, "--log", "quiet", "--json"]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            ready = "".join(iter(server.stdout.readline, "}\n")) + "}"
            self.servers[how] = server, json.loads(ready)["url"]
        return self.servers[how][1]

    def run(self, text, tokens, temperature, how, seed):
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens}
        body |= {"temperature": float(temperature), "seed": seed}
        url = self.url(how) + "/v1/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
        begin = time.perf_counter()
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
        usage = answer["usage"]
        seconds = time.perf_counter() - begin - usage["first_token_ms"] / 1e3
        details = usage["completion_tokens_details"]
        right, wrong = details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]
        return {
            "text": answer["choices"][0]["message"]["content"],
            "decode_tps": (usage["completion_tokens"] - 1) / seconds,
            "right_guesses": right,
            "guessed_tokens": right + wrong,
            "generated_tokens": usage["completion_tokens"],
        }

    def close(self):
        for server, _ in self.servers.values():
            server.terminate()
            server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--kv", default="full+q8")
    parser.add_argument("--speculate", default="auto", help="what is set beside `off`")
    parser.add_argument("--server", action="store_true", help="ask `sketchkv serve` instead of running `sketchkv run`")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--sketchkv", default=str(ROOT / "target/release/sketchkv"))
    arguments = parser.parse_args()
    with contextlib.closing(Servers(arguments) if arguments.server else Command(arguments)) as engine:
        table(arguments, engine.run)


def table(arguments, run):
    print(f"{arguments.model}, `{arguments.kv}`, --speculate {arguments.speculate}, {arguments.repetitions} repetitions in turn\n")
    print("| task | tokens | tokens/s without | with | ratio | guesses right |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, text, tokens, temperature in tasks():
        ratios, rates, right, guessed, count = [], ([], []), 0, 0, 0
        for seed in range(arguments.repetitions):
            plain, with_guesses = (run(text, tokens, temperature, how, seed) for how in ("off", arguments.speculate))
            if plain["text"] != with_guesses["text"]:
                sys.exit(f"{name}: guesses changed the text")
            ratios.append(with_guesses["decode_tps"] / plain["decode_tps"])
            rates[0].append(plain["decode_tps"])
            rates[1].append(with_guesses["decode_tps"])
            right += with_guesses["right_guesses"]
            guessed += with_guesses["guessed_tokens"]
            count += plain["generated_tokens"]
        medians = [statistics.median(values) for values in (*rates, ratios)]
        print(
            f"| {name} | {count // arguments.repetitions} | {medians[0]:.1f} | {medians[1]:.1f} | {medians[2]:.2f} "
            f"| {right} of {guessed} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
