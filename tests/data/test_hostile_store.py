"""Stores from somebody who means harm, with a right manifest: refused with one line."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from nanochat_tct.data.store import DOCUMENTS, MANIFEST, TOKENS, TokenStore, manifest_sha256
from nanochat_tct.errors import UserError
from nanochat_tct.storage.files import file_sha256
from tests.support.workers import small_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "store", count=20)


def sign(folder: Path, **changes: Any) -> None:
    """Makes the manifest right again."""
    manifest = {**json.loads((folder / MANIFEST).read_text()), **changes}
    for name, expected in manifest["files"].items():
        if (folder / name).is_file():
            expected.update(size=(folder / name).stat().st_size, sha256=file_sha256(folder / name))
    manifest["sha256"] = manifest_sha256(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def rewrite(folder: Path, **columns: Any) -> None:
    table = pa.parquet.read_table(folder / DOCUMENTS)
    for name, values in columns.items():
        table = table.set_column(
            table.column_names.index(name), name, pa.array(values(table[name].to_pylist()))
        )
    pa.parquet.write_table(table, folder / DOCUMENTS)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"start": lambda old: [-1, *old[1:]]}, "does not hold"),
        ({"start": lambda old: [1 << 60] * len(old)}, "does not hold"),
        ({"length": lambda old: [old[0] + old[1] + 5, -5, *old[2:]]}, "does not hold"),
        ({"length": lambda old: [None, *old[1:]]}, "does not hold"),
        ({"length": lambda old: [str(value) for value in old]}, "has other columns"),
        ({"split": lambda old: [1 for _ in old]}, "has other columns"),
    ],
)
def test_documents_that_lie(store: Path, columns: dict[str, Any], told: str) -> None:
    rewrite(store, **columns)
    sign(store)
    with pytest.raises(UserError, match=told):
        TokenStore.open(store)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xff" * 10])
def test_tokens_that_lie(store: Path, content: bytes) -> None:
    (store / TOKENS).write_bytes(content)
    sign(store)
    with pytest.raises(UserError, match=r"cannot be read|does not hold"):
        TokenStore.open(store)


def test_tokens_beyond_the_vocabulary(store: Path) -> None:
    size = (store / TOKENS).stat().st_size
    (store / TOKENS).write_bytes(b"\xff" * size)
    sign(store)
    with pytest.raises(UserError, match="beyond the vocabulary"):
        TokenStore.open(store)


def test_a_table_that_is_none(store: Path) -> None:
    (store / DOCUMENTS).write_bytes(b"PAR1" + b"\xff" * 40 + b"PAR1")
    sign(store)
    with pytest.raises(UserError, match="cannot be read"):
        TokenStore.open(store)


@pytest.mark.parametrize("name", ["../escaped", "/etc/passwd", "a/../../b", "."])
def test_names_of_other_places(store: Path, name: str) -> None:
    files = json.loads((store / MANIFEST).read_text())["files"]
    sign(store, files={**files, name: {"size": 0, "sha256": ""}})
    with pytest.raises(UserError, match="names a file outside its folder"):
        TokenStore.open(store)


def test_a_link_to_another_place(store: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (store / "train.pt").symlink_to(tmp_path / "secret")
    files = json.loads((store / MANIFEST).read_text())["files"]
    sign(store, files={**files, "train.pt": {"size": 0, "sha256": ""}})
    with pytest.raises(UserError, match="names a file outside its folder"):
        TokenStore.open(store)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "null", '{"files": 3}', '{"format": "nanochat-tct token store"}']
)
def test_a_manifest_of_other_types(store: Path, text: str) -> None:
    (store / MANIFEST).write_text(text)
    with pytest.raises(UserError, match="damaged or not of a token store"):
        TokenStore.open(store)
