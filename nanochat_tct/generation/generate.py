"""`generate`: workflows written by a checkpoint, from scratch or continuing a prompt."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nanochat_tct.documents import to_json, to_yaml
from nanochat_tct.errors import UserError
from nanochat_tct.generation.config import GenerateConfig, SamplingConfig
from nanochat_tct.generation.prompt import encode_prompt, read_prompt
from nanochat_tct.limits import refuse_folder
from nanochat_tct.model.checkpoint import Checkpoint, check_tokenizer, find_checkpoint
from nanochat_tct.model.config import PRESETS
from nanochat_tct.model.remote_run import pull
from nanochat_tct.tokenizer import Tokenizer, load_tokenizer
from nanochat_tct.tracking.terminal import print_document

# PyTorch is imported where a model is needed, so that --help and wrong flags answer at once.
if TYPE_CHECKING:
    from nanochat_tct.generation.engine import Generated
    from nanochat_tct.model.gpt import GPT


@dataclass(frozen=True)
class Sample:
    """One generated workflow."""

    value: Any
    json: str  # compact
    tokens: list[int]  # content tokens, including the prompt
    # "limit": max_tokens forced the ending; "decode_prefix": completed a document that a wheel's tokenizer cut off
    completed_by: Literal["model", "limit", "decode_prefix"]
    problem: str | None  # what GitHub refuses it for, None if it accepts the workflow
    log_probs: tuple[float, ...] = ()  # of the generated tokens, see Generated

    @property
    def valid(self) -> bool:
        return self.problem is None

    @property
    def log_prob(self) -> float:
        return sum(self.log_probs)


def generate_workflows(
    model: GPT,
    tokenizer: Tokenizer,
    prompt_tokens: list[int] | None = None,
    num_samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    max_tokens: int = 2048,
    endings: tuple[str, ...] = (),
) -> list[Sample]:
    """Sample workflows, in the order of their indices, on the model's device.

    Args:
        model: a model of the tokenizer's vocabulary.
        prompt_tokens: content tokens of an unfinished document to continue.
        temperature: 0 always takes the most probable legal token.
        top_p: sample from the smallest set of most probable tokens with this total probability.
        seed: sample i is a function of (weights, prompt, temperature, top_p, seed, i).
        max_tokens: limit per document, including the prompt. Only tokens are drawn after which the document can
            still end within it.
        endings: what may follow the prompt's tokens, as returned by ``encode_prompt``; empty: anything.
    """
    from nanochat_tct.generation.engine import generate_tokens

    sampling = SamplingConfig(temperature, top_p, seed, max_tokens)
    generated = generate_tokens(model, tokenizer, prompt_tokens or [], num_samples, sampling, endings)
    return [sample for _, sample in in_order(tokenizer, generated)]


def finish(tokenizer: Tokenizer, generated: Generated) -> Sample:
    """Decode the workflow of some tokens, completing it if it was cut off."""
    from nanochat_tct.generation.validity import document_problem

    if generated.is_complete:
        text, _, _ = tokenizer.decode(generated.tokens)
    else:
        text, _, _ = tokenizer.decode_prefix(generated.tokens)
    value = json.loads(text)
    completed_by: Literal["model", "limit", "decode_prefix"] = "decode_prefix"
    if generated.is_complete:
        completed_by = "limit" if generated.ended_by_limit else "model"
    return Sample(
        value=value,
        json=to_json(value),
        tokens=generated.tokens,
        completed_by=completed_by,
        problem=document_problem(value, tokenizer),
        log_probs=generated.log_probs,
    )


def generate(config: GenerateConfig) -> int:
    """Write the workflows; return 0 if all are valid, else 1."""
    folder = Path(config.output) if config.output else None
    if config.output is not None:
        refuse_folder(config.output, "--output")
    checkpoint = None
    if config.untrained:
        tokenizer = load_tokenizer(config.tokenizer or "builtin")
    else:
        checkpoint, tokenizer = open_checkpoint(config.checkpoint, config.tokenizer)
    text, name = read_prompt(config.prompt)
    prompt = encode_prompt(text, tokenizer, name)
    if prompt.dropped:
        lines = prompt.dropped.splitlines()
        more = f" and {len(lines) - 1} lines more" if len(lines) > 1 else ""
        print(f"left out of the prompt: {lines[0].strip()!r}{more} ({prompt.reason})", file=sys.stderr)
    elif prompt.reason:
        print(f"the last line of the prompt is taken as not yet complete ({prompt.reason})", file=sys.stderr)
    place = None if prompt.is_whole else tokenizer.complaint(prompt.tokens)
    if place is not None:
        print(
            f"{name} has something at {place or '/'} that GitHub accepts with a warning; it stays as it is",
            file=sys.stderr,
        )
    if prompt.is_whole:
        print(f"{name} is a whole workflow: there is nothing to add", file=sys.stderr)
    if len(prompt.tokens) >= config.limit and not prompt.is_whole:
        raise UserError(
            f"{name} has {len(prompt.tokens)} tokens, --max-tokens is {config.limit}: it must be more"
        )
    from nanochat_tct.generation.engine import generate_tokens

    device = _device(config.device)
    model = untrained(tokenizer, config.seed).to(device) if checkpoint is None else checkpoint.model(device)
    all_valid = True
    generated = generate_tokens(
        model, tokenizer, prompt.tokens, config.num_samples, config.sampling(), prompt.endings
    )
    for index, sample in in_order(tokenizer, generated):
        show(index, sample, config, folder)
        all_valid = all_valid and sample.valid
    return 0 if all_valid else 1


def untrained(tokenizer: Tokenizer, seed: int) -> GPT:
    """Return a model of the demo's shape with random weights, whose output shows the grammar alone."""
    from nanochat_tct.model.gpt import GPT

    return GPT(replace(PRESETS["demo"], vocab_size=tokenizer.vocab_size()), seed)


def open_checkpoint(path_or_uri: str, tokenizer_name: str | None) -> tuple[Checkpoint, Tokenizer]:
    """Find a checkpoint and the tokenizer it was trained with.

    Raises:
        UserError: the checkpoint is not usable, or the tokenizer is another one.
    """
    checkpoint = find_checkpoint(pull(path_or_uri))
    name, fingerprint = checkpoint.tokenizer()
    tokenizer = load_tokenizer(tokenizer_name or name, fingerprint)
    check_tokenizer(checkpoint.state, tokenizer.name, tokenizer.fingerprint)
    return checkpoint, tokenizer


def load(path_or_uri: str, tokenizer_name: str | None, device: str) -> tuple[GPT, Tokenizer, dict[str, Any]]:
    """Load a checkpoint's model onto a device, with the tokenizer it was trained with and its state.

    Raises:
        UserError: the checkpoint is not usable, the tokenizer does not match, or the device does not exist.
    """
    checkpoint, tokenizer = open_checkpoint(path_or_uri, tokenizer_name)
    state = {**checkpoint.state, "path": str(checkpoint.path)}
    return checkpoint.model(_device(device)), tokenizer, state


def _device(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device here; take --device cpu")
    return "cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu")


def in_order(tokenizer: Tokenizer, samples: Iterator[tuple[int, Generated]]) -> Iterator[tuple[int, Sample]]:
    """Yield the samples of ``generate_tokens`` in order of index, each as soon as it and all before it are done."""
    done: dict[int, Generated] = {}
    next_index = 0
    for index, generated in samples:
        done[index] = generated
        while next_index in done:
            yield next_index, finish(tokenizer, done.pop(next_index))
            next_index += 1


def show(index: int, sample: Sample, config: GenerateConfig, folder: Path | None) -> None:
    """Print one sample, or write it to the folder."""
    is_yaml = config.format == "yaml"
    text = to_yaml(sample.value) if is_yaml else sample.json + "\n"
    closed = "" if sample.completed_by == "model" else f", ended by the limit of {config.limit}"
    about = f"workflow {index + 1} of {config.num_samples}: {len(sample.tokens)} tokens{closed}"
    if sample.problem is not None:
        print(f"workflow {index + 1} is not valid: {sample.problem}", file=sys.stderr)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"workflow_{index + 1:04d}.{'yml' if is_yaml else 'json'}"
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {about}")
    elif is_yaml:
        if config.num_samples > 1:
            print(f"--- # {about}")
        print_document(text)
    else:
        print_document(text)
