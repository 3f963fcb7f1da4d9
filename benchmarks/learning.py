"""Which tokenizer lets a model learn most from the same computation: validation bits per byte.

    python benchmarks/learning.py --corpus FOLDER --tokens 131072 --megabytes 1.5 --batch-size 4 \\
        --n-embd 64 --n-layer 2 --n-head 2 --validation-documents 60 [--variants line --masks]

Trains the same small model (vocabulary of 8,192, Muon and token parts) on the same number of tokens of the same
documents, which several tokenizers cut into tokens:

- line: ours, as shipped: tokens may span whole lines and the structure before them;
- bpe: byte-level BPE on compact JSON, of Hugging Face `tokenizers` (pip install tokenizers==0.23.3);
- bpe-yaml: the same on YAML, as `to_yaml` writes it;
- superword: BPE with the second half of its merges across words (SuperBPE).

Vocabularies are learned from the training documents only. Bits per byte are measured on documents of other owners,
without near-copies of training documents: nats of all their tokens / ln 2 / bytes of their compact JSON. A BPE
document ends with a token that counts; ours end where their grammar ends. With --masks, tokens that the grammar forbids
are left out of the softmax, in training and evaluation (`line` only).

The same number of tokens is the same computation but not the same text: a tokenizer with fewer tokens a document reads
more documents. With --megabytes all train on the same documents, repeatedly where the tokens suffice. FOLDER holds
workflows.parquet with the columns `repo`, `path` and `text`; the cache belongs to it. Finished runs are not repeated.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.byte_pairs import END, BytePairs
from benchmarks.held_out import Document, split_documents
from benchmarks.small_runs import Documents, FinishedRuns, add_arguments, train
from nanochat_tct.data.repository import owner_of
from nanochat_tct.documents import to_yaml
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from nanochat_tct.tokenizer.train import train_vocabulary
from nanochat_tct.training.config import TrainConfig, resolve
from nanochat_tct.training.token_parts import TokenParts, parts_of

VOCAB_SIZE = 8192
PEERS = {
    "bpe": 1.0,
    "bpe-yaml": 1.0,
    "superword": 0.5,
}  # and the share of their merges that stays inside words
VARIANTS = (*PEERS, "line")
SHAPE = ("context_size", "n_layer", "n_head", "n_embd")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser, cache="runs/learning")
    parser.add_argument("--variants", default=",".join(VARIANTS), help=f"of: {', '.join(VARIANTS)}")
    parser.add_argument("--masks", action="store_true", help="leave out tokens that the grammar forbids")
    add_model_arguments(parser, tokens=131_072)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return exit_code(lambda: compare(arguments))


def add_model_arguments(parser: argparse.ArgumentParser, tokens: int) -> None:
    """Add the flags of what is trained on what."""
    parser.add_argument("--tokens", type=int, default=tokens, help="to train on")
    parser.add_argument("--megabytes", type=float, help="of compact JSON to train on; none: all there are")
    parser.add_argument("--preset", default="demo")
    for name in SHAPE:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="none: the preset's")
    parser.add_argument("--batch-size", type=int, default=16, help="windows of an iter")


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What decides the result of a run besides its variant and seed."""
    names = ("tokens", "megabytes", "preset", *SHAPE, "batch_size", "validation_documents")
    return {name: getattr(arguments, name) for name in names}


def compare(arguments: argparse.Namespace) -> None:
    """Make the runs that are not in the output file yet, and print the table of all that are."""
    variants = arguments.variants.split(",")
    if not set(variants) <= set(VARIANTS):
        raise UserError(f"--variants {arguments.variants}: each is one of {', '.join(VARIANTS)}")
    if arguments.masks and variants != ["line"]:
        raise UserError("--masks is for --variants line only: the peers have no grammar")
    settings = settings_of(arguments)
    finished = FinishedRuns(arguments.output)
    corpus = Corpus(arguments.corpus, arguments.cache)
    for variant in variants:
        name = variant + "+masks" * arguments.masks
        seeds = [
            seed for seed in map(int, arguments.seeds.split(",")) if not finished.has(name, seed, settings)
        ]
        if not seeds:
            continue
        documents, parts = corpus.encoded(
            variant, arguments.megabytes, arguments.validation_documents, arguments.masks
        )
        for seed in seeds:
            finished.add(name, seed, settings, train(documents, config_of(arguments, seed), parts))
    print(finished.table(settings))


def config_of(arguments: argparse.Namespace, seed: int) -> TrainConfig:
    given = {name: getattr(arguments, name) for name in ("preset", "batch_size", *SHAPE)}
    context_size = resolve(TrainConfig(**given), VOCAB_SIZE).model().context_size
    iters = arguments.tokens // (arguments.batch_size * context_size)
    return TrainConfig(num_workers=1, seed=seed, max_iters=iters, **given)


class Corpus:
    """The documents of a folder and the vocabularies learned from them, both kept in the cache."""

    def __init__(self, folder: str | None, cache: Path) -> None:
        self.cache = cache
        cache.mkdir(parents=True, exist_ok=True)
        path = cache / "documents.json"
        if not path.exists():
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(split_documents(folder, Tokenizer())))
            partial.replace(path)
        self.training, self.measured = (
            [Document(*fields) for fields in part] for part in json.loads(path.read_text())
        )

    def tokenizer(self) -> Tokenizer:
        """Ours, learned from the training documents."""
        path = self.cache / "line.json"
        if not path.exists():
            values = ((owner_of(document.repo), json.loads(document.compact)) for document in self.training)
            train_vocabulary(values, None, VOCAB_SIZE, path)
        return Tokenizer(path)

    def byte_pairs(self, variant: str) -> BytePairs:
        """A peer's vocabulary, learned from the training documents."""
        folder = self.cache / variant
        if not (folder / "words.json").exists():
            texts = [text_of(variant, document) for document in self.training]
            BytePairs.learn(lambda: texts, VOCAB_SIZE, PEERS[variant]).save(folder)
        return BytePairs.load(folder)

    def encoded(
        self, variant: str, megabytes: float | None, num_validation: int, with_masks: bool
    ) -> tuple[Documents, TokenParts]:
        """The chosen documents as tokens of a variant, and what these tokens are made of."""
        training = some_of(self.training, megabytes)
        chosen = [*training, *self.measured[:num_validation]]
        sequences: list[Sequence[int]]
        mask_ids = masks = None
        if variant in PEERS:
            byte_pairs = self.byte_pairs(variant)
            pad_token, parts = 0, parts_of(byte_pairs.expansions())
            sequences = [[*byte_pairs.encode(text_of(variant, document)), END] for document in chosen]
        else:
            tokenizer = self.tokenizer()
            pad_token, parts = tokenizer.pad_token(), parts_of(tokenizer.segmenter.expansions)
            sequences = [tokenizer.encode(document.compact) for document in chosen]
            if with_masks:
                mask_ids, masks = masks_of(tokenizer, sequences)
        lengths = np.array([len(sequence) for sequence in sequences])
        rows = pa.table(
            {
                "start": np.cumsum(lengths) - lengths,
                "length": lengths,
                "json_bytes": [len(document.compact.encode()) for document in chosen],
            }
        )
        splits = {"train": rows[: len(training)], "val": rows[len(training) :]}
        tokens = np.concatenate([np.array(sequence, dtype=np.uint16) for sequence in sequences])
        return Documents(tokens, splits, VOCAB_SIZE, pad_token, mask_ids, masks), parts


def text_of(variant: str, document: Document) -> str:
    """The text that a peer's tokens are of."""
    return to_yaml(json.loads(document.compact)) if variant == "bpe-yaml" else document.compact


def some_of(training: list[Document], megabytes: float | None) -> list[Document]:
    """So many megabytes of compact JSON from all over the documents; None: all."""
    sizes = np.array([len(document.compact.encode()) for document in training])
    order = np.random.default_rng(0).permutation(len(training))
    kept = order[np.cumsum(sizes[order]) <= (megabytes or math.inf) * 1e6]
    return [training[index] for index in sorted(kept)]


def masks_of(tokenizer: Tokenizer, sequences: list[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """For each token the row of its mask, and the masks (num_masks, VOCAB_SIZE / 8); row 0 allows everything."""
    numbers = {b"\xff" * (VOCAB_SIZE // 8): 0}
    ids = [
        numbers.setdefault(mask, len(numbers))
        for sequence in sequences
        for mask in tokenizer.masks_of(list(sequence))
    ]
    table: Any = np.frombuffer(b"".join(numbers), dtype=np.uint8)
    return np.array(ids, dtype=np.int32), table.reshape(len(numbers), -1)


if __name__ == "__main__":
    sys.exit(main())
