"""A small model of the built-in vocabulary, and a checkpoint of it."""

from pathlib import Path
from typing import Any

import torch

from nanochat_tct.model.checkpoint import save_checkpoint
from nanochat_tct.model.config import GPTConfig
from nanochat_tct.model.decoder import TILE, Decoder, _Tiles
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import Tokenizer, load_tokenizer

CONFIG = GPTConfig(vocab_size=8192, context_size=48, n_layer=2, n_head=2, n_embd=32)


def workflow(index: int) -> dict[str, Any]:
    """A short workflow, each index another."""
    return {
        "name": f"build {index}",
        "on": {"push": {"branches": ["main"]}},
        "jobs": {
            "build": {"runs-on": "ubuntu-latest", "steps": [{"run": f"make {index}\n"}] * (1 + index % 3)}
        },
    }


def untrained_model(config: GPTConfig = CONFIG, std: float = 0.3, **options: bool) -> GPT:
    """Weights such that every layer counts, and the logits differ from token to token and position to position."""
    torch.set_num_threads(1)
    model = GPT(config, **options)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std, generator=generator)
    return model


def tiled(model: GPT, num_rows: int) -> Decoder:
    """A decoder that has CPUs run what other devices do."""
    found = Decoder(model, num_rows)
    found._backend, found.tile = _Tiles(model, found.keys, found.values), TILE
    return found


def model_that_knows(values: list[dict[str, Any]], tokenizer: Tokenizer, iters: int = 60) -> GPT:
    """A small model trained on a few documents until it writes them by heart."""
    torch.set_num_threads(1)
    model = GPT(CONFIG)
    documents = [torch.tensor([CONFIG.vocab_size, *tokenizer.encode_value(value)]) for value in values]
    tokens = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True, padding_value=tokenizer.pad_token())
    targets = torch.nn.utils.rnn.pad_sequence(
        [document[1:] for document in documents], batch_first=True, padding_value=-1
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(iters):
        optimizer.zero_grad()
        (model(tokens[:, :-1], targets) / int((targets >= 0).sum())).backward()
        optimizer.step()
    return model


def save(model: GPT, run_dir: Path, fingerprint: str | None = None) -> Path:
    """A checkpoint as training writes it; by another tokenizer if a fingerprint is given."""
    state = {
        "step": 5,
        "config": {"mask_illegal": True},
        "model_config": vars(model.config),
        "tokenizer": {"name": "builtin", "fingerprint": fingerprint or load_tokenizer().fingerprint},
        "data": {"fingerprint": "0" * 64},
        "best": None,
    }
    return save_checkpoint(run_dir, model.state_dict(), {}, state, keep=1)
