"""Keys and values of the earlier tokens of each row in a batch, for decoding one token at a time."""

import torch
from torch import Tensor


class KVCache:
    """A cache for up to `capacity` tokens in each of `batch_size` rows; rows may hold different numbers of tokens.

    Attention always runs over the full capacity, with the unused part masked. Shapes therefore never change, and
    a row's results do not depend on the other rows.
    """

    def __init__(
        self,
        n_layer: int,
        batch_size: int,
        n_head: int,
        capacity: int,
        head_dim: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (n_layer, batch_size, n_head, capacity, head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch_size, device=device, dtype=torch.int64)
        self.capacity = capacity

    def positions(self, num_tokens: int) -> Tensor:
        """Return the positions (B, T) of the next num_tokens tokens in their rows."""
        return self.lengths[:, None] + torch.arange(num_tokens, device=self.lengths.device)

    def mask(self, num_tokens: int) -> Tensor:
        """Return the causal mask (B, 1, T, capacity) of the next num_tokens tokens; True allows attention."""
        keys = torch.arange(self.capacity, device=self.lengths.device)
        return (keys <= self.positions(num_tokens)[:, :, None])[:, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store the next keys and values (B, n_head, T, head_dim) of one layer.

        Returns:
            All keys and values of that layer, each (B, n_head, capacity, head_dim).
        """
        rows = torch.arange(keys.size(0), device=keys.device)[:, None]  # (B, 1), beside positions (B, T)
        positions = self.positions(keys.size(2))
        self.keys[layer][rows, :, positions] = keys.transpose(1, 2).to(self.keys.dtype)
        self.values[layer][rows, :, positions] = values.transpose(1, 2).to(self.values.dtype)
        return self.keys[layer].to(keys.dtype), self.values[layer].to(values.dtype)

    def advance(self, num_tokens: int) -> None:
        """Advance every row by num_tokens, after all layers have appended theirs."""
        self.lengths += num_tokens

    def copy_row(self, row: int, source: "KVCache", source_row: int = 0) -> None:
        """Copy a row of another cache of the same model into a row of this one."""
        self.keys[:, row] = source.keys[:, source_row]
        self.values[:, row] = source.values[:, source_row]
        self.lengths[row] = source.lengths[source_row]
