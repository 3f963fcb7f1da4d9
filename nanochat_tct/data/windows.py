"""Training rows over a token store: arithmetic, with two integers in memory for each document and none for a row.

A row has context_size + 1 elements and begins with a position token: `vocab_size + p`, where p is the number of
tokens of the document that come before the row. Model input is `row[:-1]`, targets are `row[1:]`.

`stream` concatenates the documents of a split, each as [position 0] + its tokens, and cuts the stream into rows. A row
that begins inside a document begins with the position token of its first token. So every token of the split is a
target exactly once, and only the last row is padded.

The rows of a stream can overlap, for an evaluation: a row repeats the last `overlap` elements of the row before, as
context for those behind them. Still every token of the split is counted exactly once.

`per-document` makes a row of every context_size tokens at the given stride inside one document, and drops shorter
documents.
"""

from typing import Literal, NamedTuple

import numpy as np

from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import UserError

Windowing = Literal["stream", "per-document"]
WINDOWINGS = ("stream", "per-document")
SHIFT_STEP = 2  # documents looked at for the next shift, times the context size


class MaskedRows(NamedTuple):
    """Some rows.

    Attributes:
        rows: int64 (n, context_size + 1).
        mask_ids: int64 (n, context_size): for each target rows[:, 1:] the index in the store's `masks` of the tokens
            that are legal there; 0 (all tokens) where there is no target. None if the store has no masks.
        is_context: bool (n, context_size): where rows overlap, the elements of rows[:, 1:] that another row counts as
            targets. None where they do not.
    """

    rows: np.ndarray
    mask_ids: np.ndarray | None = None
    is_context: np.ndarray | None = None


class Windows:
    """The rows of one split.

    Attributes:
        num_targets: target tokens in all rows (stream: the tokens of the split).
        num_bytes: bytes of the compact JSON of all documents of the split, for bits per byte.
    """

    def __init__(
        self,
        store: TokenStore,
        split: Literal["train", "val"],
        context_size: int,
        windowing: Windowing = "stream",
        stride: int | None = None,
        overlap: int = 0,
    ) -> None:
        """Find where each row starts.

        Args:
            stride: of per-document windows, in tokens; None for context_size.
            overlap: of the rows of a stream, in elements, less than context_size. For evaluations only.

        Raises:
            UserError: no rows can have this context size or stride.
        """
        check_windowing(context_size, windowing, stride)
        assert 0 <= overlap < context_size and (overlap == 0 or windowing == "stream"), (overlap, windowing)
        documents = store.split(split, ["start", "length", "json_bytes"])
        self._starts, lengths, json_bytes = (column.to_numpy() for column in documents.columns)
        self.context_size = context_size
        self.windowing = windowing
        self.vocab_size = store.vocab_size
        self.pad_token = store.pad_token
        self.num_bytes = int(json_bytes.sum())
        self._store = store
        self._tokens = store.tokens
        self._mask_ids = store.mask_ids
        self._stride = stride or context_size - overlap
        self._overlap = overlap
        if windowing == "stream":
            # The index in the stream of each document's position token, and the end of the stream.
            self._bounds = _bounds(lengths + 1)
            self._shifts = _shifts(self._bounds, context_size)
            counted = int(self._bounds[-1]) - 1 - (len(self._shifts) if overlap == 0 else overlap)
            self._num_rows = max(min(1, len(lengths)), -(-counted // self._stride))
            self.num_targets = int(lengths.sum())
        else:
            # The number of each document's first row, and the number of rows.
            self._bounds = _bounds(np.maximum(lengths - context_size + self._stride, 0) // self._stride)
            self._num_rows = int(self._bounds[-1])
            self.num_targets = self._num_rows * context_size

    def __len__(self) -> int:
        return self._num_rows

    def get(self, indices: np.ndarray) -> np.ndarray:
        """The rows `indices`: int64 (n, context_size + 1)."""
        return self._rows_from(*self._locate(indices))

    def get_masked(self, indices: np.ndarray) -> MaskedRows:
        """The rows `indices` and, if the store has masks, the legal tokens of each target."""
        sources, positions = self._locate(indices)
        rows = self._rows_from(sources, positions)
        is_context = self._is_context(indices) if self._overlap else None
        if self._mask_ids is None:
            return MaskedRows(rows, None, is_context)
        mask_ids = self._mask_ids[np.maximum(sources[:, 1:], 0)].astype(np.int64)
        mask_ids[(sources[:, 1:] < 0) | (rows[:, 1:] == self.pad_token)] = 0
        return MaskedRows(rows, mask_ids, is_context)

    def _is_context(self, indices: np.ndarray) -> np.ndarray:
        """The elements of overlapping rows that other rows count: bool (n, context_size).

        Row k counts the stream's elements from 1 + k * stride + overlap up to 1 + k * stride + context_size, and the
        first row also those before.
        """
        # Elements behind the row's usual start; a row that begins with a document begins one later.
        late = self._row_starts(indices) - 1 - indices * self._stride
        element = late[:, None] + np.arange(self.context_size)
        return ((element < self._overlap) & (indices > 0)[:, None]) | (element >= self.context_size)

    def _row_starts(self, indices: np.ndarray) -> np.ndarray:
        """The index in the stream of each row's first token, behind its position token: int64 (n,)."""
        if self._overlap == 0:
            return _stream_row_starts(indices, self._shifts, self.context_size)
        # If a document begins exactly there, its position token is that of the row, which has one element of context
        # less. The rows behind it need not shift.
        starts = 1 + indices * self._stride
        return starts + (self._bounds[np.searchsorted(self._bounds, starts)] == starts)

    def _rows_from(self, sources: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The rows that `_locate` describes."""
        indices = np.maximum(sources, 0)
        self._store.need(indices)
        rows = self._tokens[indices].astype(np.int64)
        return np.where(
            sources >= 0, rows, np.where(positions >= 0, self.vocab_size + positions, self.pad_token)
        )

    def _locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find what each element of the rows is.

        It works on the whole batch at once, as a loop over rows would hold the GIL, which the training thread needs.

        Returns: two arrays, both int64 (n, context_size + 1): the index in the store's tokens, -1 for other elements;
            and of those the position of a position token, -1 for padding.
        """
        if self.windowing == "per-document":
            document = np.searchsorted(self._bounds, indices, side="right") - 1
            offset = ((indices - self._bounds[document]) * self._stride)[:, None]
            element = np.arange(self.context_size + 1)
            source = np.where(element > 0, self._starts[document][:, None] + offset + element - 1, -1)
            return source, np.where(element > 0, -1, offset)
        starts = self._row_starts(indices)  # (n,)
        # The document in which each row begins, and how many more documents begin inside the row.
        first = np.searchsorted(self._bounds, starts, side="right") - 1
        count = np.searchsorted(self._bounds[:-1], starts + self.context_size, side="left") - 1 - first
        # Mark these few beginnings: the running sum of the marks is the document of each element.
        row = np.repeat(np.arange(len(starts)), count)
        begun = first[row] + 1 + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        document = np.zeros((len(starts), self.context_size + 1), dtype=np.int64)
        document[row, self._bounds[begun] - starts[row] + 1] = 1
        document[:, 0] = first
        np.cumsum(document, axis=1, out=document)
        element = (starts - 1)[:, None] + np.arange(self.context_size + 1)  # of the stream
        offset = element - 1 - self._bounds[document]
        is_token = (offset >= 0) & (element < self._bounds[-1])  # else a position token (-1) or padding
        is_token[:, 0] = False
        source = np.where(is_token, self._starts[document] + offset, -1)
        position = np.where(offset < 0, 0, -1)
        position[:, 0] = offset[:, 1]
        return source, position


def targets_of(rows: np.ndarray, vocab_size: int, pad_token: int) -> np.ndarray:
    """The targets of rows: rows[:, 1:] with -1 for position tokens and padding.

    Args:
        rows: int64 (n, context_size + 1).

    Returns:
        int64 (n, context_size).
    """
    targets = rows[:, 1:].copy()
    targets[(targets >= vocab_size) | (targets == pad_token)] = -1
    return targets


def check_windowing(context_size: int, windowing: str, stride: int | None) -> None:
    """Raises: UserError for a context size, windowing or stride that no rows can have."""
    if context_size < 1:
        raise UserError(f"context_size is {context_size}: a window needs at least 1 token; 512 is usual")
    if windowing not in WINDOWINGS:
        raise UserError(f"windowing is {windowing!r}: it is one of {', '.join(WINDOWINGS)}")
    if stride is not None and windowing == "stream":
        raise UserError("stride is for per-document windowing: leave it out, or add windowing per-document")
    if stride is not None and stride < 1:
        raise UserError(f"stride is {stride}: it must be at least 1 token")


def _bounds(counts: np.ndarray) -> np.ndarray:
    """Where each of some consecutive ranges begins, and where the last one ends: int64 (len(counts) + 1,)."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def _stream_row_starts(rows: np.ndarray, shifts: np.ndarray, context_size: int) -> np.ndarray:
    """The index in the stream of each row's first token, behind its position token: int64 (n,).

    A row holds a position token and `context_size` elements of the stream, so the next row starts `context_size`
    later. If a document begins exactly there, its position token is that of the row, which then starts one element
    later, and so do all further rows.

    Args:
        shifts: see `_shifts`.
    """
    return 1 + rows * context_size + np.searchsorted(shifts, rows, side="right")


def _shifts(bounds: np.ndarray, context_size: int) -> np.ndarray:
    """The rows that a document begins exactly at: int64 (shifts,), about one in `context_size` documents.

    Args:
        bounds: the index in the stream of each document's position token, and the end of the stream.
    """
    found: list[int] = []
    first, step = 1, SHIFT_STEP * context_size
    while first < len(bounds) - 1:
        # With b shifts so far, rows start at 1 + b + k * context_size: the next shift is at the first document further
        # on that starts at such an index.
        rows, rest = np.divmod(
            bounds[first : min(first + step, len(bounds) - 1)] - 1 - len(found), context_size
        )
        fitting = np.flatnonzero(rest == 0)
        if len(fitting):
            found.append(int(rows[fitting[0]]))
            first += int(fitting[0]) + 1
        else:
            first += len(rows)
    return np.array(found, dtype=np.int64)
