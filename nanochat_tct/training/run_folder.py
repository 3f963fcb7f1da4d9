"""The end of a run: its printed result, and the files beside its checkpoints, for people and their tools.

<checkpoint_dir>/<run_name>/
    config.yaml       all settings, which `train --config` reads
    metrics.parquet   a row for each log line (kind "train") and evaluation (kind "validation")
    loss.png          both as curves
    samples/01.yml    workflows that the model wrote
"""

import dataclasses
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from nanochat_tct.config import write_yaml
from nanochat_tct.documents import to_yaml
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.engine import generate_tokens
from nanochat_tct.generation.generate import Sample, in_order
from nanochat_tct.model import checkpoint, remote_run
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tracking.plot import plot
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training.config import ResolvedConfig

CONFIG, METRICS_TABLE, CURVE, SAMPLES = "config.yaml", "metrics.parquet", "loss.png", "samples"
MAX_TOKENS = 512
CANDIDATES = 8  # generated at the same time, which is as fast as a single one


def finish(run_dir: Path, config: ResolvedConfig) -> None:
    """Print the result of a finished run and a few samples, and write the files of its folder."""
    print_result(run_dir, config)
    write_run_folder(run_dir, config, print_samples(run_dir, config))
    remote_run.push_notes(run_dir, config.run_place)


def print_result(run_dir: Path, config: ResolvedConfig) -> None:
    """Print validation before and after, and the path of the checkpoint."""
    latest = checkpoint.latest_checkpoint(remote_run.pull(config.run_place))
    assert latest is not None
    progress = checkpoint.load_checkpoint(latest, verify=False).state["progress"]
    before, after = progress["first_evaluation"], progress["last_evaluation"]
    print(
        f"validation bits per byte: {before['bits_per_byte']:.4f} before, {after['bits_per_byte']:.4f} after"
    )
    if progress["skipped_iters"]:
        print(f"iters skipped for a loss or gradient that was not finite: {progress['skipped_iters']}")
    best = checkpoint.find_checkpoint(run_dir).path
    print(
        f"checkpoint: {_shown(latest)}" + ("" if best == latest else f" (best: {_shown(best)})"), flush=True
    )


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def print_samples(run_dir: Path, config: ResolvedConfig) -> list[Sample]:
    """Print and return `num_samples` workflows of the best checkpoint, preferably ones that the model itself ended."""
    if not config.num_samples:
        return []
    model, state = checkpoint.load_model(run_dir)
    sampling = SamplingConfig(temperature=0.8, top_p=0.95, seed=config.seed, max_tokens=MAX_TOKENS)
    num_candidates = max(config.num_samples, CANDIDATES)
    ended: list[Sample] = []
    cut_off: list[Sample] = []
    tokenizer = load_tokenizer(config.tokenizer, state["tokenizer"]["fingerprint"])
    generated = generate_tokens(model, tokenizer, [], num_candidates, sampling)
    for _, sample in in_order(tokenizer, generated):
        (ended if sample.completed_by == "model" else cut_off).append(sample)
        if len(ended) == config.num_samples:
            break
    samples = [*ended, *cut_off][: config.num_samples]
    for sample in samples:
        verdict = "valid" if sample.valid else f"not valid: {sample.problem}"
        closed = "" if sample.completed_by == "model" else f", ended by the limit of {MAX_TOKENS}"
        print(f"a generated workflow ({verdict}; {len(sample.tokens)} tokens{closed}):\n")
        print(to_yaml(sample.value), flush=True)
    return samples


def write_run_folder(run_dir: Path, config: ResolvedConfig, samples: list[Sample]) -> None:
    """Write the files beside the checkpoints. The run has at least one log line. Without samples, earlier ones stay."""
    write_yaml(dataclasses.replace(config, resume=False), run_dir / CONFIG)
    entries = read_metrics(run_dir)
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    columns = {name: pa.array([entry.get(name) for entry in entries]) for name in names}
    pyarrow.parquet.write_table(pa.table(columns), run_dir / METRICS_TABLE)
    plot(run_dir.name, entries, run_dir / CURVE)
    if samples:
        shutil.rmtree(run_dir / SAMPLES, ignore_errors=True)
        (run_dir / SAMPLES).mkdir()
        for number, sample in enumerate(samples, 1):
            path = run_dir / SAMPLES / f"{number:02d}.yml"
            path.write_text(to_yaml(sample.value), encoding="utf-8")
