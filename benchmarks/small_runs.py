"""Small training runs that learning.py and recipe.py compare by validation bits per byte."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from nanochat_tct.data.sampler import WindowSampler
from nanochat_tct.data.windows import Windows, targets_of
from nanochat_tct.evaluation import loss
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.loss import TokenMask
from nanochat_tct.training.config import TrainConfig, for_epochs, own_rate, resolve
from nanochat_tct.training.optim import WeightAverage, make_optimizers, set_learning_rate
from nanochat_tct.training.parallel import averaged
from nanochat_tct.training.token_parts import TokenParts

EVAL_BATCH_SIZE = 16  # windows
LOG_SECONDS = 60


class Documents:
    """A token store in memory, with as much as `Windows` needs.

    Args:
        tokens: integers (num_tokens,) of all documents, one after the other.
        splits: for `train` and `val` a row a document: start, length, json_bytes.
        mask_ids, masks: the allowed tokens at each position, as in a store.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        splits: dict[str, pa.Table],
        vocab_size: int,
        pad_token: int,
        mask_ids: np.ndarray | None = None,
        masks: np.ndarray | None = None,
    ) -> None:
        self.tokens, self.splits = tokens, splits
        self.vocab_size, self.pad_token = vocab_size, pad_token
        self.mask_ids, self.masks = mask_ids, masks

    def need(self, indices: np.ndarray) -> None:
        pass

    def split(self, name: str, columns: Sequence[str]) -> pa.Table:
        return self.splits[name].select(columns)


def add_arguments(parser: argparse.ArgumentParser, cache: str) -> None:
    """Add the flags that all comparisons of small runs have."""
    parser.add_argument("--corpus", default=os.environ.get("NANOCHAT_TCT_CORPUS"), help="folder")
    parser.add_argument("--cache", type=Path, default=cache, help="folder of what is made of the corpus")
    parser.add_argument("--output", type=Path, default=f"{cache}/runs.jsonl", help="file of finished runs")
    parser.add_argument("--seeds", default="0,1,2", help="of weights and order of windows")
    parser.add_argument("--validation-documents", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)


def train(
    documents: Documents,
    given: TrainConfig,
    parts: TokenParts | None,
    evaluations: int = 1,
    adamw_has_parts: bool = False,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Train a model and measure it on the validation documents.

    Args:
        given: for one worker on a CPU; what it leaves open is what `train` would take.
        evaluations: over the run, evenly spaced; the last one is at the end.
        adamw_has_parts: let tokens share what their parts learn under plain AdamW too.
        weights: the file to save the trained weights in; None: they are not kept.
    """
    config = resolve(given, documents.vocab_size)
    context_size = config.context_size
    training = Windows(documents, "train", context_size)  # type: ignore[arg-type]
    validation = Windows(documents, "val", context_size)  # type: ignore[arg-type]
    config = for_epochs(config, given, len(training), config.global_batch)
    torch.manual_seed(config.seed)  # for dropout
    model = GPT(config.model(), config.seed)
    own = own_rate(config, len(training), config.global_batch)
    optimizers = make_optimizers(model, config, parts, own)
    average = WeightAverage(optimizers, config.weight_average) if config.weight_average else None
    if adamw_has_parts:
        for group in optimizers[0].param_groups:
            group["has_parts"] = any(p is model.token_embedding.weight for p in group["params"])
    sampler = WindowSampler(len(training), config.seed)
    masks = None if documents.masks is None else torch.from_numpy(documents.masks)
    curve: list[tuple[int, float]] = []
    seconds, started, reported = 0.0, time.monotonic(), time.monotonic()
    model.train()
    for step in range(config.max_iters):
        set_learning_rate(optimizers, step, config)
        rows, mask_ids, _ = training.get_masked(sampler.indices(step, config.global_batch))
        targets = targets_of(rows, documents.vocab_size, documents.pad_token)
        num_targets = int((targets != -1).sum())
        legal = None if masks is None or mask_ids is None else TokenMask(torch.from_numpy(mask_ids), masks)
        nats = model(torch.from_numpy(rows[:, :-1]), torch.from_numpy(targets), legal=legal)
        (nats / num_targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        if average is not None:
            average.iters = step + 1
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if time.monotonic() - reported > LOG_SECONDS:
            print(f"  iter {done} of {config.max_iters} | loss {nats.item() / num_targets:.4f}", flush=True)
            reported = time.monotonic()
        if done % max(1, config.max_iters // evaluations) == 0 or done == config.max_iters:
            seconds += time.monotonic() - started
            with averaged(model, average):
                curve.append((done, bits_per_byte(model, validation, documents, masks)))
            started = time.monotonic()
    if weights is not None:
        weights.parent.mkdir(parents=True, exist_ok=True)
        with averaged(model, average):
            torch.save(model.state_dict(), weights)
    return {
        "bits_per_byte": curve[-1][1],
        "curve": curve,
        "tokens_per_document": validation.num_targets / len(documents.splits["val"]),
        "weight_decay": config.weight_decay,
        "epochs": config.max_iters * config.global_batch / len(training),
        "tokens_per_second": config.max_iters * config.global_batch * context_size / seconds,
    }


def bits_per_byte(model: GPT, validation: Windows, documents: Documents, masks: torch.Tensor | None) -> float:
    starts = range(0, len(validation), EVAL_BATCH_SIZE)
    batches = (
        validation.get_masked(np.arange(first, min(first + EVAL_BATCH_SIZE, len(validation))))
        for first in starts
    )
    model.eval()
    nats, num_targets, *_ = loss.batch_sums(
        model, batches, documents.vocab_size, documents.pad_token, masks=masks
    ).tolist()
    model.train()
    assert num_targets == validation.num_targets, "every token of the validation documents is a target once"
    return loss.bits_per_byte(nats, validation.num_bytes)


class FinishedRuns:
    """Runs in a file, one JSON object a line, so that a repeated command makes only what is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def has(self, name: str, seed: int, settings: dict[str, Any]) -> bool:
        key = {"name": name, "seed": seed, "settings": settings}
        return any(key.items() <= run.items() for run in self.runs)

    def add(self, name: str, seed: int, settings: dict[str, Any], result: dict[str, Any]) -> None:
        run = {"name": name, "seed": seed, "settings": settings, **result}
        self.runs.append(run)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as file:
            file.write(json.dumps(run) + "\n")
        quality = f": {run['bits_per_byte']:.4f} bits per byte" if "bits_per_byte" in run else ""
        print(f"{name}, seed {seed}{quality}", flush=True)

    def table(self, settings: dict[str, Any]) -> str:
        """The runs with these settings as a Markdown table: a row for each name, compared with the first."""
        by_name: dict[str, list[dict[str, Any]]] = {}
        for run in self.runs:
            if run["settings"] == settings:
                by_name.setdefault(run["name"], []).append(run)
        means = {
            name: statistics.mean(run["bits_per_byte"] for run in runs) for name, runs in by_name.items()
        }
        first = next(iter(means))
        lines = [
            "| run | seeds | tokens a document | epochs | bits per byte | lowest to highest | "
            f"against {first} | best on the way | tokens/s |",
            "| --- " * 9 + "|",
        ]
        for name, runs in by_name.items():
            quality = [run["bits_per_byte"] for run in runs]
            best = statistics.mean(min(value for _, value in run["curve"]) for run in runs)
            lines.append(
                f"| {name} | {len(runs)} | {runs[0]['tokens_per_document']:.0f} | {runs[0]['epochs']:.1f} | "
                f"{means[name]:.4f} | {min(quality):.4f} to {max(quality):.4f} | "
                f"{means[name] / means[first] - 1:+.1%} | {best:.4f} | "
                f"{statistics.mean(run['tokens_per_second'] for run in runs):.0f} |"
            )
        return "\n".join(lines)
