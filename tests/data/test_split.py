"""The split by owner, documents that are nearly the same, and what `prepare` says when a side is empty or small."""

import math
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nanochat_tct.data.encode import encode_document
from nanochat_tct.data.prepare import split_warnings
from nanochat_tct.data.repository import owner_of
from nanochat_tct.data.split import assign, group_digest, normal_hash, split_documents
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.store_writer import StoreSettings, StoreWriter
from nanochat_tct.data.windows import Windows
from nanochat_tct.documents import json_bytes
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.plan import make_plan
from tests.support.workers import sign


def workflow(index: int, action: str = "actions/checkout@v4", **step: Any) -> dict[str, Any]:
    steps = [{"uses": action, **step}, {"run": f"echo {index}\n"}]
    return {"on": "push", "jobs": {"build": {"runs-on": "ubuntu-latest", "steps": steps}}}


def write(folder: Path, documents: list[tuple[str | None, Any]], **settings: Any) -> TokenStore:
    tokenizer = load_tokenizer()
    with StoreWriter(folder, tokenizer, StoreSettings(context_size=16, **settings)) as writer:
        for index, (repo, value) in enumerate(documents):
            writer.add(encode_document(f"{index}.yml", repo, value, tokenizer))
        return writer.commit({})


def splits_by_repo(store: TokenStore) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in store.documents.to_pylist():
        found.setdefault(row["repo"], set()).add(row["split"])
    return found


@pytest.mark.parametrize(
    ("repo", "owner"),
    [
        ("owner/name", "owner"),
        ("Owner/other", "owner"),
        ("name", "name"),
        ("https://github.com/Owner/name.git", "owner"),
        ("git@github.com:owner/name", "owner"),
        ("github.com/owner/name", "owner"),
        ("my.org/name", "my.org"),
        ("group/sub/name", "group"),
        ("/owner/name/", "owner"),
    ],
)
def test_owner(repo: str, owner: str) -> None:
    assert owner_of(repo) == owner


def test_all_of_an_owner_is_on_one_side(tmp_path: Path) -> None:
    repos = [f"{'owner' if index % 2 else 'Owner'}{index % 20}/r{index % 7}" for index in range(200)]
    store = write(tmp_path / "a", [(repo, workflow(index)) for index, repo in enumerate(repos)])
    found: dict[str, set[str]] = {}
    for row in store.documents.to_pylist():
        found.setdefault(row["repo"].split("/")[0].lower(), set()).add(row["split"])
    assert len(found) == 20 and all(len(splits) == 1 for splits in found.values())
    # More documents, of those owners and of others, move none.
    more = write(tmp_path / "b", [(f"{repo[:-1]}9", workflow(index)) for index, repo in enumerate(repos * 2)])
    again = {row["repo"].split("/")[0].lower(): row["split"] for row in more.documents.to_pylist()}
    assert {owner: {split} for owner, split in again.items()} == found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("owners", [2, 3])
def test_of_few_owners_each_side_has_one(tmp_path: Path, owners: int, seed: int) -> None:
    documents = [(f"owner{index % owners}/x", workflow(index)) for index in range(12)]
    store = write(tmp_path / "store", documents, split_seed=seed)
    splits = splits_by_repo(store)
    assert all(len(split) == 1 for split in splits.values())
    assert set.union(*splits.values()) == {"train", "val"}
    backwards = write(tmp_path / "again", documents[::-1], split_seed=seed)
    assert splits_by_repo(backwards) == splits


def test_documents_of_one_owner_are_split_one_by_one(tmp_path: Path) -> None:
    store = write(tmp_path / "store", [(f"me/r{index % 5}", workflow(index)) for index in range(40)])
    assert 4 < len(store.split("val")) < 14
    assert store.manifest["split_by"] == "document"
    (warning,) = split_warnings(store)
    assert "all documents are of one owner (me), so they are split one by one" in warning
    two = write(tmp_path / "two", [("me/a", workflow(0)), ("me/b", workflow(1))])
    assert len(two.split("train")) == len(two.split("val")) == 1


def test_a_larger_fraction_moves_documents_one_way_only() -> None:
    digests = [group_digest(None, index.to_bytes(32, "big"), 0) for index in range(5000)]
    assert 0.77 < assign(digests, 0.8).mean() < 0.83
    assert not (assign(digests, 0.5) & ~assign(digests, 0.8)).any()


def test_assign_takes_0_and_1_at_their_word() -> None:
    assert assign([], 0.5).tolist() == []
    assert assign([5, 6], 0).tolist() == [False, False]
    assert assign([5, 6], 1).tolist() == [True, True]
    assert assign([5], 0.8).tolist() == [True]
    top = 2**64 - 1
    assert assign([5, top, 6, 6], 0.5).tolist() == [True, False, True, True]
    assert assign([5, 7, 6, 7], 0.5).tolist() == [True, False, True, False], (
        "the nearest to the border goes over"
    )
    assert assign([top, top - 1, top], 0.5).tolist() == [False, True, False]
    assert assign([5, top], math.nextafter(1, 0)).tolist() == [True, False]


SAME = [
    workflow(1, "actions/checkout@v3"),
    workflow(1, "actions/checkout@8f4b7f84864484a7bf31766abe9204da3cbe65b3"),
    workflow(1, "Actions/Checkout@v4.1.2"),
    {**workflow(1), "on": "PUSH"},
]


def test_normal_form() -> None:
    expected = normal_hash(json_bytes(workflow(1)))
    assert {normal_hash(json_bytes(value)) for value in SAME} == {expected}
    spaced = json_bytes(workflow(1)).replace(b"echo 1\\n", b"  echo\\t'1' \\n\\n")
    assert normal_hash(spaced) == expected
    for other in (
        workflow(2),
        workflow(1, "actions/setup-go@v4"),
        workflow(1, "@actions/core"),
        workflow(1, name="Check out"),
    ):
        assert normal_hash(json_bytes(other)) != expected
    images = [b'"node:18.2@sha256:%s"' % (digit * 64) for digit in (b"1", b"a")]
    assert normal_hash(images[0]) == normal_hash(images[1]) != normal_hash(b'"python:18.2"')


@pytest.mark.parametrize("text", [b"1", b"1.", b".1", b"@v1", b"@", b"sha256:", b"sha256:a", b"a@8"])
def test_normal_form_takes_linear_time(text: bytes) -> None:
    begin = time.process_time()
    normal_hash(text * (1 << 20))
    assert time.process_time() - begin < 5


def test_what_nobody_worked_out_equals_nothing() -> None:
    repos = [f"owner{index}/x" for index in range(50)]
    hashes = [index.to_bytes(32, "big") for index in range(50)]

    def splits(normal: bytes) -> list[str]:
        table = pa.table({"repo": repos, "content_hash": hashes, "normal_hash": [normal] * 50})
        return split_documents(table, 0.5, seed=0)[0].tolist()

    assert set(splits(b"")) == {"train", "val"}
    assert [split.replace("near-duplicate", "val") for split in splits(b"x")] == splits(b"")
    assert set(splits(b"x")) == {"train", "near-duplicate"}


def test_near_duplicates_of_training_do_not_validate(tmp_path: Path) -> None:
    plain = [(f"owner{index}/x", workflow(index)) for index in range(60)]
    splits = splits_by_repo(write(tmp_path / "plain", plain))
    trained = [repo for repo, split in splits.items() if split == {"train"}]
    measured = [repo for repo, split in splits.items() if split == {"val"}]
    of_training = int(trained[0].removeprefix("owner").removesuffix("/x"))
    of_validation = int(measured[0].removeprefix("owner").removesuffix("/x"))
    newer = "actions/checkout@v3"
    more = [
        (measured[1], workflow(of_training, newer)),  # left out
        (trained[1], workflow(of_training, "actions/checkout@v2")),  # both are trained on
        (measured[1], workflow(of_validation, newer)),  # both are validated on
    ]
    for name, documents, left_out in (("after", plain + more, 60), ("before", more + plain, 0)):
        store = write(tmp_path / name, documents)  # type: ignore[arg-type]
        rows = store.documents.to_pylist()
        marked = [index for index, row in enumerate(rows) if row["split"] == "near-duplicate"]
        assert marked == [left_out], name
        counts = store.manifest["counts"]
        assert counts["near_duplicates"] == 1
        assert (
            counts["train_documents"] + counts["val_documents"] + 1 == counts["documents"] == len(rows) == 63
        )
        targets = sum(Windows(store, split, 16).num_targets for split in ("train", "val"))  # type: ignore[arg-type]
        assert targets == len(store.tokens) - rows[left_out]["length"]
        assert TokenStore.open(tmp_path / name).fingerprint == store.fingerprint


@pytest.mark.parametrize(
    ("documents", "settings", "message"),
    [
        (
            [(None, workflow(n)) for n in range(9)],
            {"train_split": 0},
            "--train-split 0 leaves nothing to train on",
        ),
        (
            [(None, workflow(n)) for n in range(9)],
            {"train_split": 1},
            "--train-split 1 leaves nothing to validate on",
        ),
        ([("a/b", workflow(1))], {}, "there is one document, and so none to validate on"),
        (
            [("a/b", workflow(1)), ("c/d", workflow(1, "actions/checkout@v3"))],
            {},
            "the validation split is empty: each of its 1 documents is a near-duplicate",
        ),
        (
            [("a/b", workflow(n)) for n in range(9)] + [("c/d", workflow(10))],
            {"train_split": 0.5},
            "by owner, and",
        ),
        (
            [(None, workflow(n)) for n in range(30)],
            {"windowing": "per-document", "train_split": 0.5},
            "no document of the validation split is as long as a window of 16 tokens",
        ),
        ([(None, workflow(n)) for n in range(60)], {}, ""),
        ([(f"o{n}/r", workflow(n)) for n in range(60)], {}, ""),
    ],
)
def test_what_prepare_says(tmp_path: Path, documents: Any, settings: Any, message: str) -> None:
    warnings = split_warnings(write(tmp_path / "store", documents, **settings))
    assert any(message in warning for warning in warnings) if message else warnings == [], warnings
    assert all("\n" not in warning for warning in warnings)


def test_a_store_of_before_stays_readable(tmp_path: Path) -> None:
    """Version 1 as it was written when the split was by repository: without the keys that came later."""
    store = write(tmp_path / "store", [(f"o{n}/r", workflow(n)) for n in range(20)])
    sign(tmp_path / "store", split_by=None, counts={"near_duplicates": None})
    old = TokenStore.open(tmp_path / "store")
    assert old.fingerprint == store.fingerprint
    assert len(old.split("train")) + len(old.split("val")) == 20


def test_train_gives_the_reason_for_an_empty_split(tmp_path: Path) -> None:
    """Not a smaller context size, which would not help."""
    write(tmp_path / "store", [(None, workflow(n)) for n in range(9)], train_split=1)
    config = TrainConfig(data_dir=str(tmp_path / "store"), checkpoint_dir=str(tmp_path / "runs"))
    with pytest.raises(
        UserError, match=r"has no document in its val split \(train_split 1\): prepare it again"
    ):
        make_plan(config)
