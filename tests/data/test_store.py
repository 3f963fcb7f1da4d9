"""The store: opening, and noticing whatever is wrong with it. Writing: all or nothing."""

import hashlib
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from nanochat_tct.data.encode import EncodedDocument, encode_document, table_of
from nanochat_tct.data.mask_table import MaskSender
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.store_writer import StoreSettings, StoreWriter, write_store
from nanochat_tct.documents import json_bytes
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.models import workflow
from tests.support.workers import sign


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "store"
    write_store(folder, [workflow(index) for index in range(50)], load_tokenizer())
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


def test_holds_every_document(made: Path) -> None:
    store = TokenStore.open(made)
    tokenizer = load_tokenizer()
    assert store.tokens.dtype == np.uint16
    assert store.tokenizer_fingerprint == tokenizer.fingerprint
    assert (store.vocab_size, store.pad_token) == (tokenizer.vocab_size(), tokenizer.pad_token())
    for index, row in enumerate(store.documents.to_pylist()):
        tokens = store.token_range(row["start"], row["length"])
        assert tokenizer.decode_value(tokens.tolist()) == workflow(index)
        assert row["length"] == len(tokens)
        assert row["json_bytes"] == len(json_bytes(workflow(index)))
        assert store.masks is not None and store.mask_ids is not None
        for position, mask in enumerate(tokenizer.masks_of(tokens.tolist()), row["start"]):
            assert store.masks[store.mask_ids[position]].tobytes() == mask
    splits = [len(store.split(split)) for split in ("train", "val")]
    assert sum(splits) == 50
    assert min(splits) > 0
    metadata = json.loads((made / "metadata.json").read_text())
    known = "context_size stride train_split num_workflows num_windows num_train num_val window_shape"
    assert set(known.split()) <= set(metadata)
    assert metadata["num_workflows"] == 50
    assert metadata["num_windows"] == metadata["num_train"] + metadata["num_val"]


def test_same_content_has_the_same_fingerprint(made: Path, tmp_path: Path) -> None:
    again = write_store(tmp_path / "a", [workflow(index) for index in range(50)], load_tokenizer())
    other = write_store(tmp_path / "b", [workflow(index) for index in range(49)], load_tokenizer())
    assert again.fingerprint == TokenStore.open(made).fingerprint != other.fingerprint


@pytest.mark.parametrize(
    "name",
    [
        *("tokens.bin", "documents.parquet", "rejected.parquet", "metadata.json", "manifest.json"),
        *("mask_ids.bin", "masks.bin"),
    ],
)
def test_one_flipped_byte_is_noticed(copy: Path, name: str) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    for place in (0, len(content) // 2, len(content) - 2):
        flipped = content.copy()
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=name) as caught:
            TokenStore.open(copy)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tokens.bin", "documents.parquet", "manifest.json"])
def test_a_missing_or_cut_file_is_noticed_without_hashing(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-2])
    with pytest.raises(UserError, match=name):
        TokenStore.open(copy, verify=False)
    (copy / name).unlink()
    with pytest.raises(UserError, match=name):
        TokenStore.open(copy, verify=False)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        TokenStore.open(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file: give the folder"):
        TokenStore.open(tmp_path / "file")
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        TokenStore.open(tmp_path)


def test_other_versions_and_tokenizers_are_refused_by_name(copy: Path) -> None:
    TokenStore.open(copy).check_tokenizer(load_tokenizer())
    sign(copy, tokenizer={"name": "wheel", "fingerprint": "ab" * 32})
    with pytest.raises(UserError, match=r"'wheel' \(abababababab\)"):
        TokenStore.open(copy).check_tokenizer(load_tokenizer())
    sign(copy, format_version=99)
    with pytest.raises(UserError, match="version 99"):
        TokenStore.open(copy)


def test_duplicates_and_rejections(tmp_path: Path) -> None:
    tokenizer = load_tokenizer()
    with StoreWriter(tmp_path / "store", tokenizer, StoreSettings()) as writer:
        writer.add(encode_document("a", "x/y", workflow(0), tokenizer))
        writer.add(encode_document("b", "z", workflow(0), tokenizer))
        writer.add(EncodedDocument("c", None, reason="yaml-syntax", message="line 1: no"))
        store = writer.commit({})
    assert store.documents.column("source").to_pylist() == ["a"]
    assert store.manifest["counts"]["duplicates"] == 1
    assert store.manifest["counts"]["rejected_by_reason"] == {"yaml-syntax": 1}
    rejected = pyarrow.parquet.read_table(tmp_path / "store" / "rejected.parquet").to_pylist()
    assert rejected == [{"source": "c", "repo": None, "reason": "yaml-syntax", "message": "line 1: no"}]


@pytest.mark.parametrize("part_size", [1, 7])
def test_the_parts_do_not_show(made: Path, tmp_path: Path, part_size: int) -> None:
    """Each part numbers its masks for itself, and duplicates of other parts come with theirs."""
    tokenizer, values = load_tokenizer(), [workflow(index) for index in range(50)]
    values = [value for index, value in enumerate(values) for value in values[max(0, index - 3) : index + 1]]
    names = [f"#{next(n for n in range(50) if workflow(n) == value)}" for value in values]
    with StoreWriter(tmp_path / "store", tokenizer, StoreSettings(), with_masks=True) as writer:
        for first in range(0, len(values), part_size):
            part, sender = slice(first, first + part_size), MaskSender()
            writer.add(
                *(
                    encode_document(name, None, value, tokenizer, sender)
                    for name, value in zip(names[part], values[part], strict=True)
                )
            )
        writer.commit({})
    for name in ("tokens.bin", "documents.parquet", "mask_ids.bin", "masks.bin"):
        assert (tmp_path / "store" / name).read_bytes() == (made / name).read_bytes()


def test_a_document_costs_the_writer_little_memory(tmp_path: Path) -> None:
    def part(index: int) -> pyarrow.Table:
        hashes = [hashlib.sha256(f"{index} {n}".encode()).digest() for n in range(5000)]
        return table_of(
            EncodedDocument("a.yml", "o/r", each, 900, bytes(600), normal_hash=each) for each in hashes
        )

    with StoreWriter(tmp_path / "store", load_tokenizer(), StoreSettings()) as writer:
        writer.add_table(part(0))
        tracemalloc.start()
        for index in range(1, 5):
            writer.add_table(part(index))
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 200 * 20_000, "bytes a document"
        assert len(writer.commit({}).documents) == 25_000


class Interrupted(Exception):
    pass


def test_a_failed_run_leaves_nothing_or_the_old_store(copy: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    for output in (copy, tmp_path / "new"):
        with pytest.raises(Interrupted), StoreWriter(output, load_tokenizer(), StoreSettings()) as writer:
            writer.add(EncodedDocument("x", None, b"x" * 32, 1, b"\1\0"))
            raise Interrupted
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_what_a_killed_run_left_is_no_store_and_is_cleared(tmp_path: Path) -> None:
    output = tmp_path / "store"
    (output / ".partial").mkdir(parents=True)
    (output / ".partial" / "tokens.bin").write_bytes(b"half")
    (output / ".partial" / "train.pt").write_bytes(b"half")
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        TokenStore.open(output)
    write_store(output, [workflow(0)], load_tokenizer())
    assert TokenStore.open(output)
    assert not (output / ".partial").exists()


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(UserError, match="holds other files"):
        write_store(tmp_path, [workflow(0)], load_tokenizer())
    with pytest.raises(UserError, match="cannot write to"):
        write_store(tmp_path / "thesis.tex", [workflow(0)], load_tokenizer())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    with (
        StoreWriter(tmp_path / "store", load_tokenizer(), StoreSettings()),
        pytest.raises(UserError, match="another prepare"),
        StoreWriter(tmp_path / "store", load_tokenizer(), StoreSettings()),
    ):
        pass
