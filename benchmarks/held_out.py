"""Hold out all documents of some owners from a corpus, without near-copies of training documents."""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow.parquet

from nanochat_tct.data.encode import encode_document
from nanochat_tct.data.mask_table import MaskSender
from nanochat_tct.data.repository import owner_of
from nanochat_tct.data.split import group_digest, normal_hash
from nanochat_tct.data.store_writer import StoreSettings, StoreWriter
from nanochat_tct.documents import DocumentError, read_workflow, to_json
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import Tokenizer, TokenizerError, load_tokenizer

SETTINGS = StoreSettings(train_split=0.8)
T = TypeVar("T")


class Document(NamedTuple):
    """A valid workflow of a corpus."""

    repo: str
    path: str
    text: str  # the YAML as it stands in the repository
    compact: str  # compact JSON


def read_documents(
    corpus: str | Path | None, tokenizer: Tokenizer, shuffle_seed: int | None = None
) -> Iterator[Document]:
    """Reads the valid workflows of a corpus, each once.

    Args:
        corpus: a folder with workflows.parquet (columns repo, path, text).
        tokenizer: decides what is valid.
        shuffle_seed: of a random order; None: the order of the file.

    Raises: UserError if no corpus is given.
    """
    if not corpus:
        raise UserError("--corpus: name a folder with workflows.parquet, or set NANOCHAT_TCT_CORPUS")
    seen = set()
    columns = ["repo", "path", "text"]
    rows = pyarrow.parquet.read_table(Path(corpus) / "workflows.parquet", columns=columns).to_pylist()
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(rows)
    for row in rows:
        try:
            value = read_workflow(row["text"])
            tokenizer.encode_value(value)
        except (DocumentError, TokenizerError):
            continue
        document = Document(compact=to_json(value), **row)
        if document.compact not in seen:
            seen.add(document.compact)
            yield document


def some_workflows(corpus: str | Path | None, number: int, seed: int = 0) -> list[Any]:
    """Values of valid workflows of a corpus, drawn at random."""
    documents = islice(read_documents(corpus, load_tokenizer(), shuffle_seed=seed), number)
    return [json.loads(document.compact) for document in documents]


def is_held_out(repo: str) -> bool:
    """Whether a repository is held out, together with all others of its owner."""
    return group_digest(repo, b"", SETTINGS.split_seed) >= SETTINGS.train_split * 2**64


def fold_of(repo: str, folds: int) -> int:
    """A repository's fold, by a hash of its owner, so that it is independent of the rest of the corpus."""
    return int.from_bytes(hashlib.sha256(owner_of(repo).encode()).digest()[:8], "big") % folds


def without_copies(held_out: Iterable[T], training: Iterable[T], text_of: Callable[[T], str]) -> list[T]:
    """Leaves out near-duplicates of documents to train on, by their compact JSON; the order stays."""
    trained = {normal_hash(text_of(document).encode()) for document in training}
    return [document for document in held_out if normal_hash(text_of(document).encode()) not in trained]


def by_hash(documents: Iterable[Document]) -> list[Document]:
    """The documents in an order that is independent of their sources."""
    return sorted(documents, key=lambda document: hashlib.sha256(document.compact.encode()).digest())


def split_documents(corpus: str | Path | None, tokenizer: Tokenizer) -> tuple[list[Document], list[Document]]:
    """Splits a corpus by owner.

    Returns:
        The documents to train on, and those to measure on, in an order by hash and without near-copies of the former.
    """
    documents = list(read_documents(corpus, tokenizer))
    training = [document for document in documents if not is_held_out(document.repo)]
    others = [document for document in documents if is_held_out(document.repo)]
    measured = without_copies(by_hash(others), training, lambda document: document.compact)
    owners = [len({owner_of(document.repo) for document in part}) for part in (training, others)]
    print(
        f"{len(training)} documents of {owners[0]} owners to train on, {len(measured)} of {owners[1]} others "
        f"to measure on; {len(others) - len(measured)} near-copies left out",
        flush=True,
    )
    return training, measured


def store_of(corpus: str | None, cache: Path, num_validation: int, with_masks: bool) -> str:
    """Makes a token store of all documents to train on and of some held-out ones, unless the cache has it.

    Args:
        corpus: as of `read_documents`.
        cache: the folder of stores.
        num_validation: how many held-out documents, chosen by hash.
        with_masks: whether the store holds the legal tokens of each position.

    Returns:
        The store's folder.
    """
    store = cache / f"data-{num_validation}{'' if with_masks else '-no-masks'}"
    if (store / "manifest.json").exists():
        return str(store)
    tokenizer, sender = load_tokenizer(), MaskSender() if with_masks else None
    training, measured = split_documents(corpus, tokenizer)
    with StoreWriter(store, tokenizer, SETTINGS, with_masks=with_masks) as writer:
        writer.add(
            *(
                encode_document(document.path, document.repo, json.loads(document.compact), tokenizer, sender)
                for document in training + measured[:num_validation]
            )
        )
        writer.commit({})
    return str(store)
