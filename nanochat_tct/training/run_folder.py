"""The end of a run: its printed result, and the files beside its checkpoints, for people and their tools.

<checkpoint_dir>/<run_name>/
    config.yaml       all settings, which `train --config` reads
    metrics.parquet   a row for each log line (kind "train") and evaluation (kind "validation")
    loss.png          both as curves
    samples/01.yml    held-out workflows that the model completed
"""

import dataclasses
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from nanochat_tct.config import write_yaml
from nanochat_tct.data.store import TokenStore
from nanochat_tct.evaluation.completion import Cut, ModelSuggester, evaluate_completion, held_out_cuts
from nanochat_tct.generation.completer import Completer, Sample
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.prompt import encode_prompt
from nanochat_tct.model import checkpoint, remote_run
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from nanochat_tct.tracking.plot import plot
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training.config import ResolvedConfig

CONFIG, METRICS_TABLE, CURVE, SAMPLES = "config.yaml", "metrics.parquet", "loss.png", "samples"
NUM_LINES = 60  # of held-out workflows, which the model guesses before and after training
SHOWN_LINES = 15  # of a workflow that is shown completed, or as near to that as there is a cut
NEW_TOKENS = 128  # of its completion


def finish(run_dir: Path, config: ResolvedConfig) -> None:
    """Print the result of a finished run and completed workflows, and write the files of its folder."""
    print_result(run_dir, config)
    write_run_folder(run_dir, config, print_completions(run_dir, config))
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


def print_completions(run_dir: Path, config: ResolvedConfig) -> list[Sample]:
    """Print how many lines of held-out workflows the best checkpoint guesses, and `num_samples` that it completed.

    Returns:
        The completed workflows.
    """
    if not config.num_samples:
        return []
    model, state = checkpoint.load_model(run_dir)
    tokenizer = load_tokenizer(config.tokenizer, state["tokenizer"]["fingerprint"])
    if not isinstance(tokenizer, Tokenizer):
        print("no workflow is completed: the wheel's tokenizer cannot continue half-written ones")
        return []
    store = TokenStore.open(config.data_dir, verify=False, is_whole=False)  # a few of its documents are read
    cuts = held_out_cuts(store, tokenizer, NUM_LINES, config.seed)
    if not cuts:
        return []
    before, after = (_guessed(each, tokenizer, cuts) for each in (GPT(model.config, config.seed), model))
    print(
        f"next lines of {len(cuts)} half-written workflows: first guess right {before[0]:.0%} before, "
        f"{after[0]:.0%} after; one of five guesses right {before[1]:.0%} before, {after[1]:.0%} after"
    )
    shown = sorted(cuts, key=lambda cut: abs(len(cut.before.splitlines()) - SHOWN_LINES))[
        : config.num_samples
    ]
    prompts = [encode_prompt(cut.before, tokenizer) for cut in shown]
    longest = max(len(prompt.tokens) for prompt in prompts)
    # At 0.5 the demo model repeated lines that it had just written.
    sampling = SamplingConfig(temperature=0.8, seed=config.seed, max_tokens=longest + NEW_TOKENS)
    samples = list(Completer.from_model(model, tokenizer).generate(prompts, sampling))
    for prompt, sample in zip(prompts, samples, strict=True):
        verdict = "valid" if sample.valid else f"not valid: {sample.problem}"
        length = len(sample.tokens) - len(prompt.tokens)
        closed = "" if sample.completed_by == "model" else ", ended by the limit"
        print(f"a half-written workflow:\n\n{prompt.text}")
        print(f"the model's completion ({verdict}; {length} tokens{closed}):\n")
        print(sample.text.removeprefix(prompt.text), flush=True)
    return samples


def _guessed(model: GPT, tokenizer: Tokenizer, cuts: list[Cut]) -> list[float]:
    """The shares of next lines that a model's best suggestion, and one of its five best, has right."""
    suggester = ModelSuggester(Completer.from_model(model, tokenizer))
    result = evaluate_completion(suggester, cuts, tokenizer, with_blocks=False)["next_line"]
    return [result[name][0] for name in ("right", "among_five")]


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
            path.write_text(sample.text, encoding="utf-8")
