"""The shape of a model, and the presets. Does not import PyTorch."""

import math
from dataclasses import dataclass

from nanochat_tct.errors import UserError

BEFORE = {"shifted_keys": False}  # what models of earlier versions are, whose checkpoints do not say it


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model.

    Attributes:
        context_size: tokens of a row, including position tokens.
        shifted_keys: whether half of the heads look for the token before the one that they read (`gpt.Attention`).
    """

    vocab_size: int = 8192
    context_size: int = 512
    n_layer: int = 6
    n_head: int = 6
    n_embd: int = 384
    dropout: float = 0.0
    shifted_keys: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_size", "n_layer", "n_head", "n_embd"):
            value = getattr(self, name)
            if value < 1:
                raise UserError(f"{name} is {value}: it must be at least 1")
        if self.context_size < 2:
            raise UserError(
                "context_size is 1: a row needs a position token and at least one more, so at least 2"
            )
        if self.n_embd % (2 * self.n_head):
            raise UserError(
                f"n_embd {self.n_embd} does not divide into n_head {self.n_head} heads of even width: "
                f"take a multiple of {2 * self.n_head}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout is {self.dropout}: it must be in [0, 1)")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def num_shifted(self) -> int:
        """The heads whose keys are shifted, which are the last ones (`gpt.Attention`)."""
        return self.n_head // 2 if self.shifted_keys else 0


PRESETS: dict[str, GPTConfig] = {
    # 2 million parameters, most of which are in embedding and head; learns something in minutes on two CPU cores.
    "demo": GPTConfig(context_size=256, n_layer=4, n_head=3, n_embd=96),
    "baseline": GPTConfig(context_size=512, n_layer=6, n_head=6, n_embd=384),
    "small": GPTConfig(context_size=512, n_layer=6, n_head=8, n_embd=512),
    "medium": GPTConfig(context_size=1024, n_layer=8, n_head=12, n_embd=768),
    "large": GPTConfig(context_size=1024, n_layer=12, n_head=16, n_embd=1024),
}


def position_bucket_starts() -> list[int]:
    """Return the smallest position of each bucket: four buckets per doubling, up to 2^17.

    0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ... 2^17: each position below 8 has a bucket of its own, and
    all positions from 2^17 share the last one.
    """
    octaves = (2**octave * quarter for octave in range(18) for quarter in (1.0, 1.25, 1.5, 1.75))
    return [0, *sorted({math.ceil(start) for start in octaves if start <= 2**17})]


NUM_POSITION_BUCKETS = len(position_bucket_starts())
