"""Keys and values of the tokens that each row of a batch has seen, so that one more token costs one step."""

import torch
from torch import Tensor


class KVCache:
    """Room for `room` tokens in each of `batch_size` rows; the rows may hold different numbers of tokens.

    Attention always runs over the whole room, with the unused part masked: every step has the same shapes,
    whatever is in the other rows, and so a row's numbers do not depend on its neighbours.
    """

    def __init__(
        self,
        n_layer: int,
        batch_size: int,
        n_head: int,
        room: int,
        head_dim: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (n_layer, batch_size, n_head, room, head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch_size, device=device, dtype=torch.int64)
        self.room = room

    def positions(self, num_tokens: int) -> Tensor:
        """(B, T): the places in their rows of the next num_tokens tokens."""
        return self.lengths[:, None] + torch.arange(num_tokens, device=self.lengths.device)

    def mask(self, num_tokens: int) -> Tensor:
        """(B, 1, T, room) bool: the next tokens attend to themselves and all before them."""
        places = torch.arange(self.room, device=self.lengths.device)
        return (places <= self.positions(num_tokens)[:, :, None])[:, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the next (B, n_head, T, head_dim) of one layer.

        Returns:
            Keys and values of that layer's whole room, (B, n_head, room, head_dim).
        """
        rows = torch.arange(keys.size(0), device=keys.device)[:, None]  # (B, 1), beside positions (B, T)
        positions = self.positions(keys.size(2))
        self.keys[layer][rows, :, positions] = keys.transpose(1, 2).to(self.keys.dtype)
        self.values[layer][rows, :, positions] = values.transpose(1, 2).to(self.values.dtype)
        return self.keys[layer].to(keys.dtype), self.values[layer].to(values.dtype)

    def advance(self, num_tokens: int) -> None:
        """Count num_tokens tokens as seen in every row: called once all layers have appended theirs."""
        self.lengths += num_tokens

    def copy_row(self, row: int, source: "KVCache", source_row: int = 0) -> None:
        """Make a row hold what a row of another cache of the same shape of model holds."""
        self.keys[:, row] = source.keys[:, source_row]
        self.values[:, row] = source.values[:, source_row]
        self.lengths[row] = source.lengths[source_row]
