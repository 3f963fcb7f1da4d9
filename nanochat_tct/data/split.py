"""The split into training and validation: by owner, and without near-duplicates of training in validation.

Repositories of one owner share templates, so all documents of an owner go to one side. A document whose
repository is unknown is a group by itself.
"""

import functools
import hashlib
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from nanochat_tct.data.repository import owner_of

TRAIN, VAL, NEAR_DUPLICATE = "train", "val", "near-duplicate"
SplitBy = Literal["owner", "document"]
# What differs between copies of a workflow that are kept up to date: versions and commits behind an `@`, hashes of
# images, and version numbers behind their first dot. Three patterns are faster than one alternation. Each takes linear
# time, since strangers write the text.
VERSIONS = (
    re.compile(rb"@(?=v?\d|[0-9a-f]{40})[\w.-]+"),
    re.compile(rb"sha256:[0-9a-f]{64}"),
    re.compile(rb"\.\d[\d.]*"),
)
ESCAPES = (b"\\n", b"\\r", b"\\t")
WORDS = bytes(code if chr(code).isalnum() or code > 127 else 32 for code in range(256))


def split_documents(documents: pa.Table, train_split: float, seed: int) -> tuple[np.ndarray, SplitBy]:
    """Choose the split of each document.

    Args:
        documents: with the columns `repo`, `content_hash` and `normal_hash`, of which an empty one is unknown, and
            equals no other.
        train_split: the fraction to train on.

    Returns: the splits, and what was kept together: "owner", or "document" if all documents have the same owner.
    """
    split_by: SplitBy = "owner"
    digests = _group_digests(documents, seed, by_owner=True)
    if len(digests) > 1 and digests.min() == digests.max():
        split_by = "document"
        digests = _group_digests(documents, seed, by_owner=False)
    is_train = assign(digests, train_split)
    normal = documents.column("normal_hash")
    trained = pyarrow.compute.is_in(normal, value_set=normal.filter(pa.array(is_train)))
    is_near = trained.to_numpy() & (pyarrow.compute.binary_length(normal).to_numpy() > 0)
    codes = np.where(is_train, 0, np.where(is_near, 1, 2))
    return np.array([TRAIN, NEAR_DUPLICATE, VAL], dtype=object)[codes], split_by


def _group_digests(documents: pa.Table, seed: int, by_owner: bool) -> np.ndarray:
    """The `group_digest` of each document, uint64, as if it had no repository unless `by_owner`."""
    digest = functools.lru_cache(1 << 12)(group_digest)  # neighbours are often of one repository
    digests = (
        digest(repo, b"", seed) if repo and by_owner else group_digest(None, content, seed)
        for batch in documents.select(["repo", "content_hash"]).to_batches()
        for repo, content in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )
    return np.fromiter(digests, np.uint64, len(documents))


def normal_hash(compact_json: bytes) -> bytes:
    """A hash of 16 bytes that ignores case, punctuation, white space, versions and hashes."""
    text = compact_json.lower()
    for version in VERSIONS:
        text = version.sub(b" ", text)
    for escape in ESCAPES:
        text = text.replace(escape, b" ")
    return hashlib.blake2b(b" ".join(text.translate(WORDS).split()), digest_size=16).digest()


def group_digest(repo: str | None, content_hash: bytes, seed: int) -> int:
    """A hash below 2^64, equal for documents that stay together; `assign` compares it with the split."""
    group = f"owner {owner_of(repo)}".encode("utf-8", "surrogatepass") if repo else b"content " + content_hash
    return int.from_bytes(hashlib.sha256(f"{seed} ".encode() + group).digest()[:8], "big")


def assign(digests: Sequence[int] | np.ndarray, train_split: float) -> np.ndarray:
    """Which documents are for training: bool (documents,).

    A digest below train_split x 2^64 means training, so adding documents moves no other. If one side would be empty
    although there are at least two groups, the group nearest to the border goes there.

    Args:
        digests: of each document, see `group_digest`.
        train_split: the fraction to train on; 0 and 1 leave a side empty on purpose.
    """
    groups = np.array(digests, dtype=np.uint64)
    if train_split in (0, 1) or len(groups) == 0:
        return np.full(len(groups), train_split == 1)
    is_train = groups < np.uint64(int(train_split * 2**64))
    if groups.min() == groups.max():
        return np.full(len(groups), True)
    if is_train.all():
        is_train = groups < groups.max()
    elif not is_train.any():
        is_train = groups == groups.min()
    return is_train
