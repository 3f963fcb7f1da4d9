"""The flags of `evaluate` and `tokenize`."""

from dataclasses import dataclass

from nanochat_tct.config import REQUIRED, option
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.limits import refuse_absurd


@dataclass(frozen=True)
class EvaluateConfig:
    """The flags of `evaluate`."""

    checkpoint: str = option(REQUIRED, "checkpoint, or the directory of a run: its best", is_path=True)
    data_dir: str = option(REQUIRED, "token store; its validation split is what is measured on", is_path=True)
    batch_size: int = option(16, "at a time", unit="windows", least=1)
    stride: int | None = option(
        None,
        "between windows; fewer than the context overlap, so that each token has more context; none: the context",
        unit="tokens",
        least=1,
    )
    precision: str = option("fp32", "of the loss", choices=("fp32", "bf16"))
    num_samples: int = option(10, "workflows to generate and check; 0: none", unit="workflows", least=0)
    completion: int = option(
        0,
        "places at which held-out workflows are cut, to compare what the model suggests; 0: none",
        unit="cuts",
        least=0,
    )
    temperature: float = option(1.0, "of sampling; 1: as the model has learned")
    top_p: float = option(1.0, "draw among the most probable tokens that together have this share")
    seed: int = option(0, "of sampling, and of where workflows are cut")
    max_tokens: int = option(512, "longest workflow; longer ones are closed", unit="tokens")
    json: bool = option(False, "print one JSON object instead of text")
    tokenizer: str | None = option(
        None, "builtin, wheel, or a vocabulary file; none: the checkpoint's", is_path=True
    )
    device: str = option("auto", "auto: the GPU if there is one", choices=("auto", "cpu", "cuda"))

    def __post_init__(self) -> None:
        refuse_absurd(self)
        self.sampling()

    def sampling(self) -> SamplingConfig:
        return SamplingConfig(self.temperature, self.top_p, self.seed, self.max_tokens)


@dataclass(frozen=True)
class TokenizeConfig:
    """The flags of `tokenize`."""

    file: str = option(
        "", "a workflow: .yml, .yaml or .json; - for standard input", positional=True, is_path=True
    )
    tokenizer: str = option("builtin", "builtin, wheel, or the path of a vocabulary file", is_path=True)
    ids: bool = option(False, "print the token ids too")
