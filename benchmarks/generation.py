"""What the constraint costs in generation: tokens a second with masks and without, same model, same batch.

    python benchmarks/generation.py --preset small --samples 64 --max-tokens 96

Both write from random weights. Without the constraint every token may follow and documents never end, so each sample
has max_tokens tokens; with it a few more or less. Pairs of runs alternate; the ratio is of their medians.
"""

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nanochat_tct.generation.engine import NUM_ROWS, SamplingConfig, generate_tokens
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.presets import PRESETS
from nanochat_tct.tokenizer.tokenizer import Tokenizer


class AnythingGoes:
    """A cursor of no grammar."""

    is_complete = False
    mask = np.ones(8192, dtype=bool)

    def expect(self, rest: str) -> None:
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

    def cursor(self) -> Any:
        return AnythingGoes()


def tokens_per_second(model: GPT, tokenizer: Tokenizer, samples: int, sampling: SamplingConfig) -> float:
    started = time.perf_counter()
    tokens = sum(
        len(generated.tokens) for _, generated in generate_tokens(model, tokenizer, [], samples, sampling)
    )
    return tokens / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--samples", type=int, default=64, help="documents a run")
    parser.add_argument("--max-tokens", type=int, default=96, help="of a document")
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    model = GPT(replace(PRESETS[arguments.preset], vocab_size=8192)).to(arguments.device)
    constrained, free = Tokenizer(), Unconstrained()
    sampling = SamplingConfig(max_tokens=arguments.max_tokens)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"{arguments.preset}, batch {NUM_ROWS}, {device}, {torch.get_num_threads()} threads")
    speeds: dict[str, list[float]] = {"with": [], "without": []}
    for run in range(arguments.runs):
        for name, tokenizer in (("with", constrained), ("without", free)):
            speeds[name].append(tokens_per_second(model, tokenizer, arguments.samples, sampling))
        print(
            f"run {run}: {speeds['with'][-1]:.1f} tokens/s with the constraint, {speeds['without'][-1]:.1f} without"
        )
    ratio = statistics.median(speeds["with"]) / statistics.median(speeds["without"])
    print(
        f"with / without: {ratio:.3f} (first run, with cold caches: {speeds['with'][0] / speeds['without'][0]:.3f})"
    )


if __name__ == "__main__":
    main()
