"""`generate`: workflows written by a checkpoint, from scratch or continuing a prompt."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat_tct.errors import UserError
from nanochat_tct.generation.config import GenerateConfig
from nanochat_tct.generation.prompt import encode_prompt, read_prompt
from nanochat_tct.limits import refuse_folder
from nanochat_tct.model.checkpoint import Checkpoint, check_tokenizer, find_checkpoint
from nanochat_tct.model.config import PRESETS
from nanochat_tct.model.remote_run import pull
from nanochat_tct.storage.files import write_atomic, writing_to
from nanochat_tct.tokenizer import Tokenizer, load_tokenizer
from nanochat_tct.tracking.terminal import print_document

# PyTorch is imported where a model is needed, so that --help and wrong flags answer at once.
if TYPE_CHECKING:
    from nanochat_tct.generation.completer import Sample
    from nanochat_tct.model.gpt import GPT


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
    if prompt.text.lstrip().startswith("{"):
        # JSON: only its content counts, and --format says how the workflow is written.
        prompt = replace(prompt, text="", readings=())
    from nanochat_tct.generation.completer import Completer

    device = _device(config.device)
    model = untrained(tokenizer, config.seed).to(device) if checkpoint is None else checkpoint.model(device)
    all_valid = True
    completer = Completer.from_model(model, tokenizer)
    for index, sample in enumerate(completer.generate([prompt] * config.num_samples, config.sampling())):
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


def show(index: int, sample: Sample, config: GenerateConfig, folder: Path | None) -> None:
    """Print one sample, or write it to the folder."""
    is_yaml = config.format == "yaml"
    text = sample.text if is_yaml else sample.json + "\n"
    closed = "" if sample.completed_by == "model" else f", ended by the limit of {config.limit}"
    about = f"workflow {index + 1} of {config.num_samples}: {len(sample.tokens)} tokens{closed}"
    if sample.problem is not None:
        print(f"workflow {index + 1} is not valid: {sample.problem}", file=sys.stderr)
    if is_yaml and sample.prompt.text and sample.rest is None:
        print(
            f"workflow {index + 1} cannot go on from the prompt's text to the letter: all of it is written anew",
            file=sys.stderr,
        )
    if folder is not None:
        path = folder / f"workflow_{index + 1:04d}.{'yml' if is_yaml else 'json'}"
        with writing_to(path):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text, sync=False)
        print(f"{path}: {about}")
    elif is_yaml:
        if config.num_samples > 1:
            print(f"--- # {about}")
        print_document(text)
    else:
        print_document(text)
