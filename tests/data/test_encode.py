"""A task of the preparation gives back documents, or the one reason for which the job must end."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nanochat_tct.data import encoded_parts
from nanochat_tct.data.encode import ENCODED_SCHEMA, encode_part, encode_raw
from nanochat_tct.data.encoded_parts import EncodedParts, encode_task
from nanochat_tct.data.parts import RawDocument, plan_parts
from nanochat_tct.data.sources import find_sources
from nanochat_tct.documents import DEFAULT_LIMITS
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import load_tokenizer

WORKFLOW = '{"on": "push", "jobs": {"a": {"runs-on": "x", "steps": [{"run": "y"}]}}}'


def test_documents_or_why_there_are_none(tmp_path: Path) -> None:
    folder, fingerprint = tmp_path / "in", load_tokenizer().fingerprint
    folder.mkdir()
    (folder / "a.json").write_text(WORKFLOW)
    (folder / "b.json").write_text('{"on": "push"}')
    (part,) = plan_parts(find_sources([str(folder)]))
    table = encode_part(part, "builtin", fingerprint, DEFAULT_LIMITS, True)
    assert table.schema == ENCODED_SCHEMA
    assert table.column("reason").to_pylist() == [None, "schema"]
    with pytest.raises(UserError, match="has another tokenizer builtin"):
        encode_part(part, "builtin", "another", DEFAULT_LIMITS, True)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"a\.json is not there"):
        encode_part(part, "builtin", fingerprint, DEFAULT_LIMITS, True)


def test_deeper_than_can_be_read_is_one_rejected_document() -> None:
    raw = RawDocument("a.yml", None, "{a: " * 5000 + "1" + "}" * 5000, "yaml")
    document = encode_raw(raw, load_tokenizer(), replace(DEFAULT_LIMITS, max_depth=9000))
    assert (document.reason, document.message) == ("too-deep", "nested too deep to be read")


def test_a_task_writes_its_table_or_sends_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(WORKFLOW)
    (part,) = plan_parts(find_sources([str(tmp_path / "in")]))
    done = EncodedParts(tmp_path / "out", "identity")

    def task(index: int, run: str, fingerprint: str = load_tokenizer().fingerprint) -> dict[str, Any]:
        batch = pa.table({"part": [pickle.dumps(part)], "path": [str(done.path(index))]})
        table = encode_task(
            batch,
            run,
            tokenizer_name="builtin",
            fingerprint=fingerprint,
            limits=DEFAULT_LIMITS,
            with_masks=True,
        )
        (row,) = table.to_pylist()
        return dict(row)

    nothing = {"error": None, "content": None}
    assert task(0, done.run) == nothing
    assert done.read(0).column("source").to_pylist() == ["a.json"]
    written = done.path(0).read_bytes()
    # On another machine a folder of this name is another one, and the driver writes what comes.
    assert task(1, "another run") == {"error": None, "content": written}
    assert not done.path(1).exists()
    assert "has another tokenizer" in task(1, done.run, fingerprint="another")["error"]
    # What is whole stays: an earlier run wrote it, or an earlier try of this task.
    encoded_parts.write(done.path(2), encoded_parts.serialized(pa.table({"a": [1]})))
    assert task(2, done.run) == nothing
    assert done.read(2) == pa.table({"a": [1]})
    assert EncodedParts(tmp_path / "out", "identity").count == 1
    encoded_parts.clear(tmp_path / "out")
    assert task(0, done.run) == {"error": None, "content": written}, "the job has ended with an error"
    assert list((tmp_path / "out").iterdir()) == []
