"""The flags of `generate`."""

from dataclasses import dataclass

from nanochat_tct.config import option
from nanochat_tct.errors import UserError
from nanochat_tct.limits import refuse_absurd


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn."""

    temperature: float = 1.0  # 0: always the most probable token
    top_p: float = 1.0  # sample from the smallest set of most probable tokens with this total probability
    seed: int = 0
    max_tokens: int | None = 2048  # per document, including the prompt; None: no limit

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}: it must be 0 or more")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UserError(f"max_tokens is {self.max_tokens}: it must be at least 1")
        if not 0 <= self.seed < 1 << 64:
            raise UserError(f"seed is {self.seed}: it must be 0 or more, and less than 2^64")


@dataclass(frozen=True)
class GenerateConfig:
    """The flags of `generate`."""

    checkpoint: str = option("", "checkpoint, or the directory of a run: its best", is_path=True)
    untrained: bool = option(
        False, "instead of a checkpoint a model with random weights, of the demo's shape"
    )
    prompt: str = option(
        "", "file ('-': stdin) or text to go on from: a partial workflow, YAML or JSON", is_path=True
    )
    num_samples: int = option(1, "workflows to write", unit="workflows", least=1)
    temperature: float = option(0.8, "0: always the most probable token; 1: as the model has learned")
    top_p: float = option(0.95, "draw among the most probable tokens that together have this share")
    seed: int = option(0, "the same seed writes the same workflows")
    max_tokens: int | None = option(
        None,
        "longest workflow, prompt included; all end within it; none: 2048, or 32 with --untrained",
        unit="tokens",
    )
    format: str = option("yaml", "how workflows are printed", choices=("yaml", "json"))
    output: str | None = option(None, "folder to write a file a workflow to; none: printed", is_path=True)
    tokenizer: str | None = option(
        None, "builtin, wheel, or a vocabulary file; none: the checkpoint's", is_path=True
    )
    device: str = option("auto", "auto: the GPU if there is one", choices=("auto", "cpu", "cuda"))

    def __post_init__(self) -> None:
        refuse_absurd(self, any_bytes=("prompt",))
        if bool(self.checkpoint) == self.untrained:
            problem = "is missing" if not self.checkpoint else "and --untrained exclude each other"
            raise UserError(f"--checkpoint {problem}: name a checkpoint, or give --untrained")
        self.sampling()

    def sampling(self) -> SamplingConfig:
        return SamplingConfig(self.temperature, self.top_p, self.seed, self.limit)

    @property
    def limit(self) -> int:
        if self.max_tokens is not None:
            return self.max_tokens
        return 32 if self.untrained else 2048
