"""What the constraint costs in generation: tokens a second with and without masks, for the same model and batch.

    python benchmarks/generation.py --preset small --samples 64 --max-tokens 96

The model has random weights. Without the constraint every token may follow and documents never end, so each sample has
max_tokens tokens; with it about as many. A round is a run without the constraint, one with a newly loaded grammar
(cold caches), and one with the same grammar again (warm). The ratios are medians over rounds. An untimed run before
them warms up PyTorch.
"""

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.engine import NUM_ROWS, generate_tokens
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
        len(generated.tokens) for _, generated in generate_tokens(model, tokenizer, [], samples, sampling)
    )
    return tokens / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--samples", type=int, default=64, help="documents a run")
    parser.add_argument("--max-tokens", type=int, default=96, help="of a document")
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    model = GPT(replace(PRESETS[arguments.preset], vocab_size=8192)).to(arguments.device)
    free = Unconstrained()
    sampling = SamplingConfig(max_tokens=arguments.max_tokens)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"{arguments.preset}, batch {NUM_ROWS}, {device}, {torch.get_num_threads()} threads")

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
