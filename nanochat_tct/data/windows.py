"""Training rows over a token store: arithmetic, not copies.

A row has context_size + 1 elements and begins with a position token: `vocab_size + p`, where p is the number of
tokens of the document that come before the row. Model input is `row[:-1]`, targets are `row[1:]`.

`stream` concatenates the documents of a split, each as [position 0] + its tokens, and cuts the stream into rows. A row
that begins inside a document begins with the position token of its first token. So every token of the split is a
target exactly once, and only the last row is padded.

`per-document` makes a row of every context_size tokens at the given stride inside one document, and drops shorter
documents.
"""

from typing import Literal, NamedTuple

import numpy as np

from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import UserError

Windowing = Literal["stream", "per-document"]
WINDOWINGS = ("stream", "per-document")


class MaskedRows(NamedTuple):
    """Some rows.

    Attributes:
        rows: int64 (n, context_size + 1).
        mask_ids: int64 (n, context_size): for each target rows[:, 1:] the index in the store's `masks` of the tokens
            that are legal there; 0 (all tokens) where there is no target. None if the store has no masks.
    """

    rows: np.ndarray
    mask_ids: np.ndarray | None = None


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
    ) -> None:
        """Find where each row starts.

        Args:
            stride: of per-document windows, in tokens; None for context_size.

        Raises:
            UserError: no rows can have this context size or stride.
        """
        check_windowing(context_size, windowing, stride)
        documents = store.split(split)
        self.context_size = context_size
        self.windowing = windowing
        self.vocab_size = store.vocab_size
        self.pad_token = store.pad_token
        self.num_bytes = int(np.sum(documents.column("json_bytes").to_numpy()))
        self._tokens = store.tokens
        self._mask_ids = store.mask_ids
        self._starts = documents.column("start").to_numpy()  # of each document in the store
        self._lengths = documents.column("length").to_numpy()
        if windowing == "stream":
            self._rows = _stream_row_starts(self._lengths, context_size)
            self.num_targets = int(self._lengths.sum())
        else:
            # (n, 2): the row's document, and the token in it where the row starts
            self._rows = _per_document_row_starts(self._lengths, context_size, stride or context_size)
            self.num_targets = len(self._rows) * context_size
        # The position token of each document in the stream of a split.
        self._stream_starts = _stream_document_starts(self._lengths)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """The rows `indices`: int64 (n, context_size + 1)."""
        return self._rows_from(*self._locate(indices))

    def get_masked(self, indices: np.ndarray) -> MaskedRows:
        """The rows `indices` and, if the store has masks, the legal tokens of each target."""
        sources, positions = self._locate(indices)
        rows = self._rows_from(sources, positions)
        if self._mask_ids is None:
            return MaskedRows(rows)
        mask_ids = self._mask_ids[np.maximum(sources[:, 1:], 0)].astype(np.int64)
        mask_ids[(sources[:, 1:] < 0) | (rows[:, 1:] == self.pad_token)] = 0
        return MaskedRows(rows, mask_ids)

    def _rows_from(self, sources: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The rows that `_locate` describes."""
        rows = self._tokens[np.maximum(sources, 0)].astype(np.int64)
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
            document, offset = self._rows[indices].T[:, :, None]  # each (n, 1)
            element = np.arange(self.context_size + 1)
            source = np.where(element > 0, self._starts[document] + offset + element - 1, -1)
            return source, np.where(element > 0, -1, offset)
        starts = self._rows[indices]  # (n,)
        # The document in which each row begins, and how many more documents begin inside the row.
        first = np.searchsorted(self._stream_starts, starts, side="right") - 1
        count = np.searchsorted(self._stream_starts, starts + self.context_size, side="left") - 1 - first
        # Mark these few beginnings: the running sum of the marks is the document of each element.
        row = np.repeat(np.arange(len(starts)), count)
        begun = first[row] + 1 + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        document = np.zeros((len(starts), self.context_size + 1), dtype=np.int64)
        document[row, self._stream_starts[begun] - starts[row] + 1] = 1
        document[:, 0] = first
        np.cumsum(document, axis=1, out=document)
        offset = (starts - 2)[:, None] + np.arange(self.context_size + 1) - self._stream_starts[document]
        is_token = (offset >= 0) & (offset < self._lengths[document])  # else a position token (-1) or padding
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


def _stream_document_starts(lengths: np.ndarray) -> np.ndarray:
    """The index of each document's position token in the stream [position, tokens..., position, ...]."""
    ends = np.cumsum(lengths.astype(np.int64) + 1)
    return np.concatenate([np.zeros(1, dtype=np.int64), ends])[:-1]


def _stream_row_starts(lengths: np.ndarray, context_size: int) -> np.ndarray:
    """The index in the stream of each row's first token, behind its position token: int64 (n,).

    A row holds a position token and `context_size` elements of the stream, so the next row starts `context_size`
    later. If a document begins exactly there, its position token is that of the row, which then starts one element
    later. Such shifts are rare, one in context_size documents, so the loop visits only them.
    """
    if len(lengths) == 0:
        return np.zeros(0, dtype=np.int64)
    assert lengths.min() >= 1, "a document has at least one token"
    document_starts = _stream_document_starts(lengths)
    total = int(document_starts[-1] + 1 + lengths[-1])

    # With b shifts so far, rows start at 1 + b + k * context_size: the next shift is at the first document
    # further on that starts at such an index.
    residues = (document_starts[1:] - 1) % context_size
    by_residue = np.argsort(residues, kind="stable")
    sorted_residues = residues[by_residue]
    shift_rows: list[int] = []  # rows that start one later
    last = -1
    while True:
        shifts = len(shift_rows)
        left, right = np.searchsorted(sorted_residues, [shifts % context_size, shifts % context_size + 1])
        candidates = by_residue[left:right]
        next_one = int(np.searchsorted(candidates, last, side="right"))
        if next_one == len(candidates):
            break
        last = int(candidates[next_one])
        shift_rows.append((int(document_starts[1 + last]) - 1 - shifts) // context_size)
    num_rows = -(-(total - 1 - len(shift_rows)) // context_size)
    rows = np.arange(num_rows, dtype=np.int64)
    return 1 + rows * context_size + np.searchsorted(np.array(shift_rows, dtype=np.int64), rows, side="right")


def _per_document_row_starts(lengths: np.ndarray, context_size: int, stride: int) -> np.ndarray:
    """Document and offset of each row: int64 (n, 2)."""
    counts = np.where(lengths >= context_size, (lengths - context_size) // stride + 1, 0)
    documents = np.repeat(np.arange(len(lengths), dtype=np.int64), counts)
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    offsets = (np.arange(len(documents), dtype=np.int64) - firsts) * stride
    return np.stack([documents, offsets], axis=1)
