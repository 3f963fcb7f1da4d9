"""The flags of `prepare` and `train-tokenizer`."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nanochat_tct.config import REQUIRED, option
from nanochat_tct.documents import DEFAULT_LIMITS, Limits
from nanochat_tct.errors import UserError
from nanochat_tct.limits import refuse_absurd

if TYPE_CHECKING:
    from nanochat_tct.data.store_writer import StoreSettings


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """The flags of `prepare`."""

    input: list[str] = option(
        REQUIRED,
        "folders, globs, files (.json .yml .yaml .jsonl .parquet) or s3:// and gs:// URIs of them",
        is_path=True,
    )
    output: str = option(
        REQUIRED, "the folder of the token store to write, or its s3:// or gs:// URI", is_path=True
    )
    context_size: int = option(512, "content of a window; the store serves every other size too", "tokens")
    windowing: str = option(
        "stream",
        "stream: pack documents, drop nothing; per-document: windows inside one",
        choices=("stream", "per-document"),
    )
    stride: int | None = option(None, "between per-document windows; none: context_size", "tokens")
    train_split: float = option(0.8, "part of the owners (or else documents) to train on", "fraction")
    split_seed: int = option(0, "another seed, another split")
    tokenizer: str = option("builtin", "builtin, wheel, or the path of a vocabulary file", is_path=True)
    max_rejected: float = option(0.5, "fail if more of the documents than this are bad", "fraction")
    masks: bool = option(True, "also store which tokens are legal at each position, for train --mask-illegal")
    concurrency: int | None = option(None, "tasks at a time; none: one a CPU", least=1)
    export_pt: bool = option(False, "also write train.pt and val.pt: int64 (num_windows, context_size + 1)")
    max_file_bytes: int = option(DEFAULT_LIMITS.max_bytes, "larger documents are rejected", "bytes", least=1)
    max_depth: int = option(DEFAULT_LIMITS.max_depth, "deeper documents are rejected", "levels", least=1)
    max_nodes: int = option(
        DEFAULT_LIMITS.max_nodes, "documents of more values are rejected", "values", least=1
    )

    def __post_init__(self) -> None:
        refuse_absurd(self, any_bytes=("input",))
        self.settings()  # checks context_size, windowing, stride, train_split
        if not 0 <= self.max_rejected <= 1:
            raise UserError(f"max_rejected is {self.max_rejected}: it is a fraction from 0 to 1")

    def settings(self) -> "StoreSettings":
        """The settings that decide the content of the store."""
        from nanochat_tct.data.store_writer import StoreSettings

        return StoreSettings(
            self.context_size,
            self.windowing,  # type: ignore[arg-type]
            self.stride,
            self.train_split,
            self.split_seed,
        )

    def limits(self) -> Limits:
        """What a single document may cost."""
        return dataclasses.replace(
            DEFAULT_LIMITS, max_bytes=self.max_file_bytes, max_depth=self.max_depth, max_nodes=self.max_nodes
        )


@dataclass(frozen=True)
class TrainTokenizerConfig:
    """The flags of `train-tokenizer`."""

    input: list[str] = option(
        (), "documents to learn from: folders, globs, .json, .yml, .jsonl, .parquet files", is_path=True
    )
    output: str = option("vocabulary.json", "the vocabulary file to write", is_path=True)
    vocab_size: int = option(8192, "number of token ids, special ones included")
    schema: str = option(
        "", "a JSON Schema file; the default is the language of GitHub's workflows", is_path=True
    )
