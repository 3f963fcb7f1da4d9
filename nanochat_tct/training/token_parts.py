"""A sparse matrix of tokens and their parts, through which tokens with common parts learn from each other."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat_tct.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class SparseMatrix:
    """A matrix in compressed sparse rows, with deterministic products."""

    columns: Tensor  # (nonzeros,) int64
    starts: Tensor  # (rows,) int64: where each row begins in `columns`
    values: Tensor  # (nonzeros,) float32
    num_columns: int

    def __matmul__(self, other: Tensor) -> Tensor:
        """(rows, columns) @ (columns, width)."""
        if other.device.type == "cuda":  # where the dense product is faster
            return self.padded.to(other.dtype) @ F.pad(other, (0, 0, 0, -self.num_columns % 8))
        return F.embedding_bag(
            self.columns, other, self.starts, mode="sum", per_sample_weights=self.values.to(other.dtype)
        )

    @cached_property
    def padded(self) -> Tensor:
        """`dense` with columns of zeros up to a multiple of 8, as a GPU's matrix units need it."""
        return F.pad(self.dense, (0, -self.num_columns % 8))

    @property
    def dense(self) -> Tensor:
        """The dense matrix (rows, columns)."""
        nonzeros = torch.arange(len(self.columns), device=self.columns.device)
        rows = torch.searchsorted(self.starts, nonzeros, right=True) - 1
        matrix = self.values.new_zeros(len(self.starts), self.num_columns)
        matrix[rows, self.columns] = self.values
        return matrix

    def to(self, device: torch.device) -> "SparseMatrix":
        return SparseMatrix(
            self.columns.to(device), self.starts.to(device), self.values.to(device), self.num_columns
        )


@dataclass(frozen=True)
class TokenParts:
    """The matrix S of tokens and their parts, both ways."""

    of_tokens: SparseMatrix  # S: (vocab_size, num_parts)
    of_parts: SparseMatrix  # its transpose
    num_parts: int

    def to(self, device: torch.device) -> "TokenParts":
        return TokenParts(self.of_tokens.to(device), self.of_parts.to(device), self.num_parts)


def token_parts(tokenizer: object) -> TokenParts | None:
    """The parts of a tokenizer's tokens; None for the wheel, whose tokens are opaque."""
    return parts_of(tokenizer.segmenter.expansions) if isinstance(tokenizer, Tokenizer) else None


def parts_of(expansions: list[str]) -> TokenParts:
    """The parts of tokens: their base tokens, and also, as parts of two other kinds, the first and the last base token.

    A token of n base tokens has 1 / sqrt(n) of each, and 1 of its first and of its last part: the first must fit the
    tokens before, and the last decides what can follow.

    Args:
        expansions: each token's base tokens, a character each.
    """
    lengths = np.array([len(expansion) for expansion in expansions])
    names, base = np.unique([ord(name) for name in "".join(expansions)], return_inverse=True)
    ends = np.cumsum(lengths)
    tokens = np.arange(len(expansions))
    rows = np.concatenate([np.repeat(tokens, lengths), tokens, tokens])
    first, last = len(names) + base[ends - lengths], 2 * len(names) + base[ends - 1]
    columns = np.concatenate([base, first, last])
    values = np.concatenate([np.repeat(lengths**-0.5, lengths), np.ones(2 * len(tokens))])
    num_parts = 3 * len(names)
    matrix = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([rows, columns])),
        torch.from_numpy(values).float(),
        (len(expansions), num_parts),
        check_invariants=True,
    )
    return TokenParts(_by_rows(matrix), _by_rows(matrix.T), num_parts)


def _by_rows(matrix: Tensor) -> SparseMatrix:
    """Convert a sparse matrix of torch; duplicate entries are added up."""
    matrix = matrix.coalesce()  # sorts by row, then column
    rows, columns = matrix.indices()
    starts = torch.searchsorted(rows, torch.arange(matrix.size(0)))
    return SparseMatrix(columns, starts, matrix.values(), matrix.size(1))
