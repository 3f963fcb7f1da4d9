"""A task of the preparation gives back documents, or the one reason for which the job must end."""

import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from nanochat_tct.data.encode import ENCODED_SCHEMA, ENDS_JOB, encode_parts, encode_raw
from nanochat_tct.data.parts import RawDocument, plan_parts
from nanochat_tct.data.sources import find_sources
from nanochat_tct.documents import DEFAULT_LIMITS
from nanochat_tct.tokenizer import load_tokenizer


def encode(folder: Path, fingerprint: str, unplugged: bool = False) -> pa.Table:
    parts = plan_parts(find_sources([str(folder)]))
    if unplugged:
        folder.rename(folder.with_name("elsewhere"))
    batch = pa.table({"part": pa.array([pickle.dumps(part) for part in parts], pa.binary())})
    return encode_parts(batch, "builtin", fingerprint, DEFAULT_LIMITS, True)


def test_documents_or_why_there_are_none(tmp_path: Path) -> None:
    folder, fingerprint = tmp_path / "in", load_tokenizer().fingerprint
    folder.mkdir()
    (folder / "a.json").write_text('{"on": "push", "jobs": {"a": {"runs-on": "x", "steps": [{"run": "y"}]}}}')
    (folder / "b.json").write_text('{"on": "push"}')
    table = encode(folder, fingerprint)
    assert table.schema == ENCODED_SCHEMA
    assert table.column("reason").to_pylist() == [None, "schema"]
    for other, message in (
        ("another", "has another tokenizer builtin"),
        (fingerprint, "a.json is not there"),
    ):
        table = encode(folder, other, unplugged=other == fingerprint)
        assert table.schema == ENCODED_SCHEMA
        assert table.column("reason").to_pylist() == [ENDS_JOB]
        assert message in table.column("message")[0].as_py()


def test_deeper_than_can_be_read_is_one_rejected_document() -> None:
    raw = RawDocument("a.yml", None, "{a: " * 5000 + "1" + "}" * 5000, "yaml")
    document = encode_raw(raw, load_tokenizer(), replace(DEFAULT_LIMITS, max_depth=9000))
    assert (document.reason, document.message) == ("too-deep", "nested too deep to be read")
