"""Stores from somebody who means harm, with a right manifest: refused with one line."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from nanochat_tct.data.store import DOCUMENTS, MANIFEST, TOKENS, TokenStore
from nanochat_tct.errors import UserError
from tests.support.workers import sign, small_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return small_store(tmp_path / "store", count=20)


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


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        *((TOKENS, content, "cannot be read|does not hold") for content in (b"", b"x", b"\xff\xff" * 10)),
        (TOKENS, None, "beyond the vocabulary"),
        (DOCUMENTS, b"PAR1" + b"\xff" * 40 + b"PAR1", "cannot be read"),
    ],
)
def test_files_that_lie(store: Path, name: str, content: bytes | None, told: str) -> None:
    (store / name).write_bytes(content if content is not None else b"\xff" * (store / name).stat().st_size)
    sign(store)
    with pytest.raises(UserError, match=told):
        TokenStore.open(store)


@pytest.mark.parametrize("name", ["../escaped", "/etc/passwd", "a/../../b", ".", "..", "link"])
def test_names_of_other_places(store: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "escaped").write_text("secret")
    (store / "link").symlink_to(tmp_path / "escaped")
    sign(store, files={name: {"size": 6, "sha256": ""}})
    with pytest.raises(UserError, match="names a file outside its folder"):
        TokenStore.open(store)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "null", '{"files": 3}', '{"format": "nanochat-tct token store"}']
)
def test_a_manifest_of_other_types(store: Path, text: str) -> None:
    (store / MANIFEST).write_text(text)
    with pytest.raises(UserError, match="damaged or not of a token store"):
        TokenStore.open(store)
