"""Nats and bits per byte, by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.store_writer import StoreSettings, write_store
from nanochat_tct.data.windows import MaskedRows, Windows
from nanochat_tct.documents import json_bytes
from nanochat_tct.evaluation.evaluate import evaluate_loss
from nanochat_tct.evaluation.loss import batch_sums, bits_per_byte, evaluation_batches
from nanochat_tct.model.config import GPTConfig
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.loss import TokenMask
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.models import CONFIG, untrained_model, workflow


class OneNatATarget(nn.Module):
    """A model that finds every target equally hard."""

    def forward(self, tokens: Tensor, targets: Tensor, legal: TokenMask | None = None) -> Tensor:
        assert tokens.shape == targets.shape and tokens.dtype == targets.dtype == torch.int64
        return (targets >= 0).sum().float()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("data") / "store"
    write_store(folder, [workflow(index) for index in range(40)], load_tokenizer())
    return TokenStore.open(folder)


def test_bits_per_byte() -> None:
    assert bits_per_byte(nats=8 * math.log(2), num_bytes=4) == 2.0


def test_sum_counts_only_targets() -> None:
    vocab_size, pad = 10, 0
    rows = np.array([[10, 1, 2, 10, 3], [14, 5, 0, 0, 0]])  # a second document in one, padding in the other
    sums = batch_sums(OneNatATarget(), [MaskedRows(rows), MaskedRows(rows[:1])], vocab_size, pad)
    assert sums[:2].tolist() == [7.0, 7]
    assert batch_sums(OneNatATarget(), [], vocab_size, pad)[:2].tolist() == [0.0, 0]


def test_sum_is_that_of_the_model_row_by_row() -> None:
    model = GPT(GPTConfig(vocab_size=64, context_size=8, n_layer=1, n_head=2, n_embd=16)).eval()
    rows = np.random.default_rng(0).integers(1, 64, (6, 9))
    rows[:, 0] = 64
    together, count = batch_sums(model, [MaskedRows(rows[:4]), MaskedRows(rows[4:])], 64, 0)[:2].tolist()
    apart = [batch_sums(model, [MaskedRows(rows[index : index + 1])], 64, 0)[0].item() for index in range(6)]
    assert count == 48
    assert together == pytest.approx(sum(apart), rel=1e-5)


def test_every_token_counts_once(store: TokenStore) -> None:
    """One nat a token: the loss is 1, and bits per byte follow from tokens and bytes counted here."""
    documents = store.split("val").to_pylist()
    tokenizer = load_tokenizer()
    values = [
        tokenizer.decode_value(store.tokens[row["start"] : row["start"] + row["length"]].tolist())
        for row in documents
    ]
    num_tokens = sum(len(tokenizer.encode_value(value)) for value in values)
    num_bytes = sum(len(json_bytes(value)) for value in values)
    for context_size in (5, 16, 512):
        result = evaluate_loss(OneNatATarget(), Windows(store, "val", context_size), batch_size=3)  # type: ignore[arg-type]
        assert (result["targets"], result["bytes"]) == (num_tokens, num_bytes)
        assert result["loss"] == 1.0
        assert result["perplexity"] == pytest.approx(math.e)
        assert result["bits_per_byte"] == pytest.approx(num_tokens / math.log(2) / num_bytes)


def test_figures_do_not_depend_on_the_batch_size(store: TokenStore) -> None:
    model = untrained_model()
    windows = Windows(store, "val", CONFIG.context_size)
    one, many = (evaluate_loss(model, windows, batch_size)["nats"] for batch_size in (1, 64))
    assert one == pytest.approx(many, rel=1e-5)
    assert model.training, "the mode is put back"


def test_illegal_tokens_have_no_probability(store: TokenStore) -> None:
    """A model that knows nothing, told what is legal, finds each target as hard as its place has legal tokens."""
    model = GPT(CONFIG)
    with torch.no_grad():
        model.head.weight.zero_()
    windows = Windows(store, "val", CONFIG.context_size)
    assert store.masks is not None and store.mask_ids is not None
    expected = 0.0
    for row in store.split("val").to_pylist():
        ids = store.mask_ids[row["start"] : row["start"] + row["length"]]
        expected += float(np.log(np.unpackbits(store.masks, axis=1).sum(axis=1)[ids]).sum())
    nats = evaluate_loss(model, windows, masks=store.masks)["nats"]
    assert nats == pytest.approx(expected, rel=1e-5)
    assert evaluate_loss(model, windows)["loss"] == pytest.approx(math.log(8192), rel=1e-5)
    assert expected < 0.95 * evaluate_loss(model, windows)["nats"]


@pytest.mark.parametrize("total", [1, 5, 64, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_an_evaluation_takes_windows_evenly(total: int, batch_size: int) -> None:
    whole = evaluation_batches(total, total, batch_size)
    assert np.concatenate(whole).tolist() == list(range(total))
    for taken in {1, 3, total // 2, total - 1} & set(range(1, total)):
        batches = evaluation_batches(total, taken, batch_size)
        assert (
            len(batches) >= min(16, max(2, taken // 4), taken)
            and max(len(batch) for batch in batches) <= batch_size
        )
        windows = np.sort(np.concatenate(batches))
        assert len(set(windows.tolist())) == taken and windows[0] >= 0 and windows[-1] < total
        steps = np.diff(np.concatenate([[windows[0] - total / taken], windows]))
        assert np.abs(steps - total / taken).max() <= 1.5


def test_the_standard_error_of_a_part_tells_how_far_the_whole_is(tmp_path: Path) -> None:
    values = [workflow(index) for index in range(400)]
    write_store(tmp_path / "store", values, load_tokenizer(), StoreSettings(train_split=0.1))
    windows = Windows(TokenStore.open(tmp_path / "store"), "val", CONFIG.context_size)
    model = untrained_model()
    whole = evaluate_loss(model, windows)
    assert whole["standard_error"] == 0.0
    deviations, errors = [], []
    for taken in range(24, 72, 3):
        part = evaluate_loss(model, windows, taken=taken)
        deviations.append((part["bits_per_byte"] - whole["bits_per_byte"]) / part["standard_error"])
        errors.append(part["standard_error"])
    assert 0.3 < np.sqrt(np.mean(np.square(deviations))) < 1.6
    assert errors[-1] < errors[0]
