"""What the constraint costs in generation: tokens a second with and without masks, for the same model and batch.

    python benchmarks/generation.py --preset small --samples 64 --max-tokens 96
    python benchmarks/generation.py --preset demo --against OTHER-CHECKOUT

The second form compares this checkout with another one, both in processes of their own that take turns: CPU seconds per
token of a batch of 16 and of a single sample behind a prompt of 300 tokens, with newly loaded grammars.

The model has random weights. Without the constraint every token may follow and documents never end, so each sample has
max_tokens tokens; with it about as many. A round is a run without the constraint, one with a newly loaded grammar
(cold caches), and one with the same grammar again (warm). The ratios are medians over rounds. An untimed run before
them warms up PyTorch.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.engine import continue_prompts
from nanochat_tct.generation.prompt import Prompt
from nanochat_tct.model.config import PRESETS
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer.tokenizer import Tokenizer


class AnythingGoes:
    """A matcher that allows every token."""

    is_complete = False
    mask = np.ones(8192, dtype=bool)

    def expect(self, *beginnings: str) -> None:
        pass

    def legal(self) -> np.ndarray:
        return self.mask

    def closing(self) -> None:
        return None

    def allows(self, token: int) -> bool:
        return True

    def advance(self, token: int) -> None:
        pass

    def after(self, token: int) -> "AnythingGoes":
        return self


class Unconstrained(Tokenizer):
    """The same vocabulary, without its grammar."""

    def matcher(self) -> Any:
        return AnythingGoes()


def tokens_per_second(model: GPT, tokenizer: Tokenizer, samples: int, sampling: SamplingConfig) -> float:
    started = time.perf_counter()
    tokens = sum(
        len(generated.tokens)
        for _, generated in continue_prompts(model, tokenizer, [Prompt()] * samples, sampling)
    )
    return tokens / (time.perf_counter() - started)


def measure(preset: str, device: str, samples: int, max_tokens: int) -> None:
    """Print milliseconds of CPUs and of the clock per generated token: of a batch, then of one sample with a prompt."""
    tokenizer = Tokenizer()
    model = GPT(replace(PRESETS[preset], vocab_size=8192)).to(device)
    steps = [{"name": f"step {index}", "run": f"make part-{index}"} for index in range(100)]
    prompt = tokenizer.encode_prefix({"on": "push", "jobs": {"a": {"runs-on": "x", "steps": steps}}})[:300]
    results = []
    for start, count in (([], samples), (prompt, 1)):
        sampling = SamplingConfig(max_tokens=len(start) + max_tokens)
        for _ in range(2):  # the first run is a warm-up
            cpu, clock = time.process_time(), time.perf_counter()
            generated = [
                each for _, each in continue_prompts(model, tokenizer, [Prompt(start)] * count, sampling)
            ]
            seconds = (time.process_time() - cpu, time.perf_counter() - clock)
        tokens = sum(len(each.tokens) - len(start) for each in generated)
        results += [1000 * each / tokens for each in seconds]
    print(*results)


def compare(other: Path, arguments: argparse.Namespace) -> None:
    """Run `measure` in this checkout and in another one by turns; print the ratios."""
    names = ("batch of 16, CPU", "batch of 16, clock", "one sample, CPU", "one sample, clock")
    here = Path(__file__).resolve().parents[1]
    ratios: list[list[float]] = []
    for index in range(arguments.runs):
        found: dict[Path, list[float]] = {}
        for tree in (here, other) if index % 2 else (other, here):
            settings = [arguments.preset, arguments.device, str(arguments.samples), str(arguments.max_tokens)]
            script = tree / "benchmarks" / Path(__file__).name  # each checkout knows its own engine
            command = [sys.executable, str(script), "--measure", *settings]
            environment = {**os.environ, "PYTHONPATH": str(tree)}
            output = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            ).stdout
            found[tree] = [float(each) for each in output.split()]
        ratios.append([a / b for a, b in zip(found[here], found[other], strict=True)])
        for name, mine, theirs in zip(names, found[here], found[other], strict=True):
            print(f"round {index}: {name}: {mine:.2f} ms a token here, {theirs:.2f} there")
    for name, values in zip(names, zip(*ratios, strict=True), strict=True):
        print(f"{name}: here / there {statistics.median(values):.3f}")


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        preset, device, samples, max_tokens = sys.argv[2:]
        measure(preset, device, int(samples), int(max_tokens))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--samples", type=int, default=64, help="documents a run")
    parser.add_argument("--max-tokens", type=int, default=96, help="of a document")
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout to compare with")
    arguments = parser.parse_args()
    if arguments.against:
        compare(arguments.against.resolve(), arguments)
        return
    model = GPT(replace(PRESETS[arguments.preset], vocab_size=8192)).to(arguments.device)
    free = Unconstrained()
    sampling = SamplingConfig(max_tokens=arguments.max_tokens)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"{arguments.preset}, batch 16, {device}, {torch.get_num_threads()} threads")

    def speed(tokenizer: Tokenizer) -> float:
        return tokens_per_second(model, tokenizer, arguments.samples, sampling)

    speed(free)
    ratios: dict[str, list[float]] = {"cold": [], "warm": []}
    for index in range(arguments.runs):
        started = time.perf_counter()
        constrained = Tokenizer()
        _ = constrained.masks, constrained.codec  # made on first use
        load_seconds = time.perf_counter() - started
        without = speed(free)
        speeds = {"cold": speed(constrained), "warm": speed(constrained)}
        for name, with_constraint in speeds.items():
            ratios[name].append(with_constraint / without)
        print(
            f"round {index}: tokens/s with the constraint {speeds['cold']:.1f} cold, {speeds['warm']:.1f} warm; "
            f"without {without:.1f}; grammar loaded in {load_seconds:.2f} s"
        )
    cold, warm = (statistics.median(ratios[name]) for name in ("cold", "warm"))
    print(f"with / without: {cold:.3f} cold, {warm:.3f} warm")


if __name__ == "__main__":
    main()
