"""`evaluate`: bits per byte of held-out workflows, the validity of workflows that the model generates, and how well it
completes those that it has not seen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windows
from nanochat_tct.errors import UserError
from nanochat_tct.evaluation.config import EvaluateConfig
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.generate import load
from nanochat_tct.generation.prompt import Prompt
from nanochat_tct.tokenizer import Tokenizer, load_tokenizer
from nanochat_tct.tokenizer.errors import Problem
from nanochat_tct.tracking.terminal import with_progress

# PyTorch is imported only when a model is needed, so that a wrong path is reported at once.
if TYPE_CHECKING:
    import numpy as np
    import torch

    from nanochat_tct.model.gpt import GPT


def evaluate_loss(
    model: GPT,
    windows: Windows,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    show_progress: bool = False,
    masks: np.ndarray | None = None,
    taken: int | None = None,
) -> dict[str, Any]:
    """The loss over a split, each token once, or over a part of it.

    Args:
        model: on the device.
        windows: of the split, in stream windowing.
        batch_size: rows at a time.
        precision: "fp32", or "bf16" by autocast.
        masks: the store's, to leave illegal tokens out of the softmax.
        taken: evaluate so many windows, evenly spaced over the split; None: all.

    Returns:
        targets, nats: of what was evaluated; bytes: of the split; and `loss_figures`.

    Raises:
        UserError: the split is empty.
    """
    import torch

    from nanochat_tct.evaluation.loss import batch_sums, evaluation_batches, loss_figures
    from nanochat_tct.model.loss import masks_on

    if len(windows) == 0:
        raise UserError(
            "the validation split is empty: prepare with a smaller --train-split or more documents"
        )
    taken = taken or len(windows)
    batches = evaluation_batches(len(windows), taken, batch_size)
    shown = with_progress(batches, len(batches), "evaluating {} of {}") if show_progress else batches
    was_training = model.training
    model.eval()
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
        rows = (windows.get_masked(batch) for batch in shown)
        sums = batch_sums(
            model, rows, windows.vocab_size, windows.pad_token, device, masks_on(device, masks)
        ).tolist()
    model.train(was_training)
    nats, targets = sums[0], int(sums[1])
    assert taken < len(windows) or targets == windows.num_targets
    figures = loss_figures(sums, windows, taken)
    return {"targets": targets, "bytes": windows.num_bytes, "nats": nats, **figures}


def evaluate_samples(
    model: GPT, tokenizer: Tokenizer, num_samples: int, sampling: SamplingConfig, show_progress: bool = False
) -> dict[str, Any]:
    """Statistics of workflows that a model generates without a prompt.

    Returns:
        num_samples; the shares that are valid (GitHub, or the schema of another vocabulary, accepts them),
        without_warning (nor does GitHub's language service complain), completed_by_itself (the model ended them before
        max_tokens) and distinct; mean_tokens; problems: a message for each sample that is not valid.
    """
    from nanochat_tct.generation.completer import Completer

    samples = Completer.from_model(model, tokenizer).generate([Prompt()] * num_samples, sampling)
    done = list(with_progress(samples, num_samples, "generating {} of {}") if show_progress else samples)
    return {
        "num_samples": num_samples,
        "valid": sum(sample.valid for sample in done) / num_samples,
        "without_warning": sum(not problems_of(sample.value, tokenizer) for sample in done) / num_samples,
        "completed_by_itself": sum(sample.completed_by == "model" for sample in done) / num_samples,
        "distinct": len({sample.json for sample in done}) / num_samples,
        "mean_tokens": sum(len(sample.tokens) for sample in done) / num_samples,
        "problems": [sample.problem for sample in done if sample.problem is not None],
    }


def problems_of(value: Any, tokenizer: Tokenizer) -> list[Problem]:
    """The problems that `check` finds in a document of this tokenizer's model."""
    is_workflow = tokenizer.name == "wheel" or tokenizer.name.startswith("builtin")
    judge: Any = load_tokenizer() if is_workflow else tokenizer
    problems: list[Problem] = judge.problems(value)
    return problems


def evaluate(config: EvaluateConfig) -> None:
    """Measure a checkpoint, and print the result."""
    store = TokenStore.open(config.data_dir)
    model, tokenizer, state = load(config.checkpoint, config.tokenizer, config.device)
    store.check_tokenizer(tokenizer)
    if config.completion:
        from nanochat_tct.evaluation.completion import ModelSuggester, evaluate_completion, held_out_cuts
        from nanochat_tct.generation.completer import Completer

        completer = Completer.from_model(model, tokenizer)
        cuts = held_out_cuts(store, completer.tokenizer, config.completion, config.seed)
        if not cuts:
            raise UserError("there is no held-out workflow to complete: prepare with a smaller --train-split")
    device = model.head.weight.device
    context_size = model.config.context_size
    stride = config.stride or context_size
    if stride > context_size:
        raise UserError(
            f"--stride {stride} is more than the model's context of {context_size} tokens: it would skip tokens"
        )
    windows = Windows(store, "val", context_size, overlap=context_size - stride)
    # As in training: a model trained without illegal tokens has learned nothing about them.
    masks = store.masks if state["config"].get("mask_illegal") else None
    result: dict[str, Any] = {
        "checkpoint": state["path"],
        "step": state["step"],
        "data_dir": config.data_dir,
        "documents": store.split("val", ["split"]).num_rows,
        "mask_illegal": masks is not None,
        "stride": stride,
        "context_size": context_size,
        **evaluate_loss(model, windows, config.batch_size, device, config.precision, True, masks),
    }
    if config.num_samples:
        result["samples"] = evaluate_samples(
            model, tokenizer, config.num_samples, config.sampling(), show_progress=True
        )
    if config.completion:
        result["completion"] = evaluate_completion(ModelSuggester(completer), cuts, completer.tokenizer)
    print(json.dumps(result) if config.json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """Format the result of `evaluate` for people."""
    lines = [
        f"checkpoint     {result['checkpoint']} (iter {result['step']})",
        f"validation     {result['documents']:,} workflows of {result['data_dir']}:"
        f" {result['targets']:,} tokens, {result['bytes']:,} bytes",
        f"bits per byte  {result['bits_per_byte']:.4f}"
        + (", illegal tokens left out" if result["mask_illegal"] else "")
        + (
            f", windows of {result['context_size']} tokens every {result['stride']}"
            if result["stride"] < result["context_size"]
            else ""
        ),
        f"loss           {result['loss']:.4f} nats a token, perplexity {result['perplexity']:.2f}",
    ]
    samples = result.get("samples")
    if samples:
        lines.append(
            f"samples        {samples['num_samples']}: {samples['valid']:.0%} valid,"
            f" {samples['without_warning']:.0%} without a warning,"
            f" {samples['completed_by_itself']:.0%} completed by the model itself,"
            f" {samples['distinct']:.0%} distinct, {samples['mean_tokens']:.0f} tokens on average"
        )
        lines += [f"not valid      {problem}" for problem in samples["problems"][:5]]
    if "completion" in result:
        lines += completion_table(result["completion"])
    return "\n".join(lines)


COLUMNS = {
    "right": "right",
    "among_five": "among five",
    "first_token": "first token",
    "bleu": "BLEU",
    "similarity": "similarity",
    "accepted": "accepted",
    "keystrokes_saved": "keys saved",
}


def completion_table(result: dict[str, Any]) -> list[str]:
    """Format the result of `evaluate_completion` for people."""
    rows = {"next line": result["next_line"], **{f"  {kind}": row for kind, row in result["by_kind"].items()}}
    for name in ("rest_of_step", "rest_of_job"):
        if name in result:
            rows[name.replace("_", " ")] = result[name]
    lines = [
        f"completion     {result['cuts']:,} lines of {result['repositories']:,} repositories, in percent, with 95% "
        "intervals over repositories",
        f"{'':<14} {'cuts':>5} " + " ".join(f"{title:>15}" for title in COLUMNS.values()),
    ]
    for name, row in rows.items():
        cells = []
        for column in COLUMNS:
            value, low, high = (100 * each for each in row.get(column, [0, 0, 0]))
            cells.append(f"{value:.1f} ({low:.0f} to {high:.0f})" if column in row else "")
        lines.append(f"{name:<14} {row['cuts']:>5,} " + " ".join(f"{cell:>15}" for cell in cells))
    return lines + reliability_table(result["reliability"])


def reliability_table(rows: list[dict[str, Any]]) -> list[str]:
    """Format the result of `reliability` for people."""
    lines = [f"{'probability':<14} {'lines':>5} {'expected':>15} {'right':>15}"]
    for row in rows:
        low, high = row["probabilities"]
        value, least, most = (100 * each for each in row["right"])
        lines.append(
            f"{f'{low:.0%} to {high:.0%}':<14} {row['suggestions']:>5,} {100 * row['expected']:>15.1f}"
            f" {f'{value:.1f} ({least:.0f} to {most:.0f})':>15}"
        )
    return lines
