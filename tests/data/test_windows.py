"""Rows over a store: every token is a target once, rows say where they start, nothing crosses a split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_tct.data.encode import EncodedDocument
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.store_writer import StoreSettings, StoreWriter, write_store
from nanochat_tct.data.windows import Windows, _shifts, _stream_row_starts, targets_of
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import load_tokenizer

VOCAB_SIZE = load_tokenizer().vocab_size()
PAD = load_tokenizer().pad_token()


def store_of_lengths(folder: Path, lengths: list[int], train_split: float = 1.0) -> TokenStore:
    """A store whose tokens tell where they stand: document in the hundreds, place in it below."""
    with StoreWriter(folder, load_tokenizer(), StoreSettings(train_split=train_split)) as writer:
        for index, length in enumerate(lengths):
            tokens = (300 + 100 * (index % 70) + np.arange(length) % 100).astype("<u2")
            hash_ = index.to_bytes(32, "big")
            writer.add(EncodedDocument(f"#{index}", None, hash_, 10 * length, tokens.tobytes()))
        return writer.commit({})


def rows_by_hand(documents: list[list[int]], context_size: int) -> list[list[int]]:
    """Stream windowing, element by element."""
    elements: list[tuple[int, int]] = []  # (position in its document, token); -1 for a position token
    for tokens in documents:
        elements.append((0, -1))
        elements += [(place, token) for place, token in enumerate(tokens)]
    rows = []
    at = 0
    while at < len(elements):
        place, token = elements[at]
        row = [VOCAB_SIZE + place]
        if token == -1:
            at += 1
        for _, token in elements[at : at + context_size]:
            row.append(VOCAB_SIZE if token == -1 else token)
        at += context_size
        rows.append(row + [PAD] * (context_size + 1 - len(row)))
    return rows


@settings(max_examples=500, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 20))
def test_stream_row_starts(lengths: list[int], context_size: int) -> None:
    expected = rows_by_hand([[7] * length for length in lengths], context_size)
    bounds = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)])
    starts = _stream_row_starts(np.arange(len(expected)), _shifts(bounds, context_size), context_size)
    document_starts = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)[:-1]])
    for start, row in zip(starts, expected, strict=True):
        document = np.searchsorted(document_starts, start, side="right") - 1
        assert VOCAB_SIZE + start - document_starts[document] - 1 == row[0]


@pytest.mark.parametrize("context_size", [1, 2, 3, 7, 16, 512])
def test_stream_rows(tmp_path: Path, context_size: int) -> None:
    lengths = [5, 1, 1, 7, 30, 2, 16, 15, 14, 6, 13]
    store = store_of_lengths(tmp_path / "store", lengths)
    documents = [
        store.token_range(row["start"], row["length"]).tolist() for row in store.documents.to_pylist()
    ]
    windows = Windows(store, "train", context_size)
    rows = windows.get(np.arange(len(windows)))
    assert rows.dtype == np.int64
    assert rows.tolist() == rows_by_hand(documents, context_size)
    targets = targets_of(rows, VOCAB_SIZE, PAD)
    flat = [token for document in documents for token in document]
    assert targets[targets != -1].tolist() == flat
    assert windows.num_targets == len(flat) == sum(lengths)
    assert windows.num_bytes == 10 * sum(lengths)
    assert (rows[:-1] != PAD).all(), "only the last row is padded"


@pytest.mark.parametrize(
    ("context_size", "overlap"), [(2, 1), (7, 3), (8, 1), (8, 4), (8, 7), (16, 8), (512, 256)]
)
def test_overlapping_rows_count_every_token_once_and_with_context(
    tmp_path: Path, context_size: int, overlap: int
) -> None:
    lengths = [5, 1, 1, 7, 30, 2, 16, 15, 14, 6, 13]
    store = store_of_lengths(tmp_path / "store", lengths)
    windows = Windows(store, "train", context_size, overlap=overlap)
    rows, _, is_context = windows.get_masked(np.arange(len(windows)))
    assert is_context is not None and is_context.shape == rows[:, 1:].shape
    targets = targets_of(rows, VOCAB_SIZE, PAD)
    targets[is_context] = -1
    flat = store.tokens.tolist()
    assert targets[targets != -1].tolist() == flat
    assert windows.num_targets == sum(lengths)
    # A token's place in its document, and the tokens before it in its row.
    places = np.array(flat) % 100
    before = np.argwhere(targets != -1)[:, 1]
    assert (before >= np.minimum(places, overlap - 1)).all()
    # Rows begin as without an overlap: at a document, or with the position of their first token.
    assert (rows[:, 0] - VOCAB_SIZE == rows[:, 1] % 100).all()


def test_each_split_is_a_stream_of_its_own(tmp_path: Path) -> None:
    store = store_of_lengths(tmp_path / "store", list(range(1, 60)), train_split=0.5)
    seen = []
    for split in ("train", "val"):
        windows = Windows(store, split, 8)
        targets = targets_of(windows.get(np.arange(len(windows))), VOCAB_SIZE, PAD)
        table = store.split(split)
        assert 0 < len(table) < 59
        starts, lengths = table.column("start").to_pylist(), table.column("length").to_pylist()
        expected = [store.tokens[start : start + n] for start, n in zip(starts, lengths, strict=True)]
        assert targets[targets != -1].tolist() == np.concatenate(expected).tolist()
        seen += table.column("source").to_pylist()
    assert sorted(seen) == sorted(f"#{index}" for index in range(59))


@pytest.mark.parametrize(("stride", "counts"), [(None, [0, 1, 1, 2]), (4, [0, 1, 1, 3]), (1, [0, 1, 2, 9])])
def test_per_document_rows(tmp_path: Path, stride: int | None, counts: list[int]) -> None:
    store = store_of_lengths(tmp_path / "store", [7, 8, 9, 16])
    windows = Windows(store, "train", 8, "per-document", stride)
    assert len(windows) == sum(counts)
    tokenizer = load_tokenizer()
    expected = []
    for row, count in zip(store.documents.to_pylist(), counts, strict=True):
        tokens = store.token_range(row["start"], row["length"]).tolist()
        for window in range(count):
            start = window * (stride or 8)
            position, *content = tokenizer.extract_window(tokens, start, start + 8)
            expected.append([VOCAB_SIZE + position, *content])
    assert windows.get(np.arange(len(windows))).tolist() == expected
    assert windows.num_targets == 8 * len(windows)


def test_empty_split(tmp_path: Path) -> None:
    store = store_of_lengths(tmp_path / "store", [5, 6], train_split=1.0)
    for windowing in ("stream", "per-document"):
        windows = Windows(store, "val", 4, windowing)  # type: ignore[arg-type]
        assert len(windows) == windows.num_targets == windows.num_bytes == 0
        assert windows.get(np.arange(0)).shape == (0, 5)
    assert len(Windows(store, "val", 4, overlap=2)) == 0


@pytest.mark.parametrize(
    "arguments", [(0, "stream", None), (8, "stream", 4), (8, "per-document", 0), (8, "other", None)]
)
def test_impossible_windows(tmp_path: Path, arguments: Any) -> None:
    store = store_of_lengths(tmp_path / "store", [5])
    with pytest.raises(UserError):
        Windows(store, "train", *arguments)


@pytest.mark.parametrize("windowing", ["stream", "per-document"])
def test_masks_are_those_of_the_targets(tmp_path: Path, windowing: Any) -> None:
    """Every target is legal in its place, and the first of each document is chosen among the same."""
    step = {"run": "echo 1\n"}
    values = [
        {"on": "push", "jobs": {"a": {"runs-on": "x", "steps": [step] * count}}} for count in range(1, 30)
    ]
    store = write_store(tmp_path / "store", values, load_tokenizer(), StoreSettings(train_split=1.0))
    windows = Windows(store, "train", 11, windowing)
    rows, mask_ids, _ = windows.get_masked(np.arange(len(windows)))
    assert (rows == windows.get(np.arange(len(windows)))).all()
    assert mask_ids is not None and store.masks is not None and mask_ids.shape == rows[:, 1:].shape
    targets = targets_of(rows, store.vocab_size, store.pad_token)
    assert (mask_ids[targets < 0] == 0).all()
    legal = np.unpackbits(store.masks, axis=1)  # (num_masks, vocab_size)
    assert legal[mask_ids[targets >= 0], targets[targets >= 0]].all()
    assert not legal[mask_ids[targets >= 0]].all(axis=1).any()
    at_start = rows[:, :-1] == store.vocab_size
    assert len(np.unique(mask_ids[at_start & (targets >= 0)])) == 1
