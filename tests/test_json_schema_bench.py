"""The benchmark on JSONSchemaBench: verdicts by source, limits, and going on where it was stopped."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import json_schema_bench
from benchmarks.json_schema_bench import Ours, as_text, limited
from benchmarks.peers import AnyOrder

FILES: dict[str, tuple[Any, list[tuple[Any, bool]]]] = {
    "A---numbers": ({"type": "integer"}, [(1, True), ("a", False), (2, False)]),  # the last label is wrong
    "A---elsewhere": ({"$ref": "https://example.org/other"}, [(1, True)]),
    "B---mail": ({"type": "string", "format": "email"}, [("x", False), ("a@example.org", True)]),
}


def test_verdicts_by_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, (schema, instances) in FILES.items():
        tests = [{"data": data, "valid": valid} for data, valid in instances]
        (tmp_path / f"{name}.json").write_text(json.dumps({"schema": schema, "tests": tests}))
    results = tmp_path / "results.jsonl"
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path), "--results", str(results)])
    json_schema_bench.main()
    first = capsys.readouterr().out
    assert "| A | 2 | 1 | 2 | 0 | 0 | 0 | 1 |" in first
    assert "| B | 1 | 1 | 1 | 1 | 0 | 0 | 0 |" in first
    assert "| all | 3 | 2 | 3 | 1 | 0 | 0 | 1 |" in first
    assert "1 schemas refused: /: only references inside the document" in first
    assert "label in doubt: A---numbers / 2: 2" in first
    written = results.read_text()
    json_schema_bench.main()
    assert capsys.readouterr().out == first and results.read_text() == written


def test_a_schema_that_takes_too_long(tmp_path: Path) -> None:
    class Slow(Ours):
        def compile_schema(self, schema: Any) -> Any:
            while True:
                pass

    (tmp_path / "slow.json").write_text(json.dumps({"schema": True, "tests": []}))
    assert limited(tmp_path / "slow.json", Slow([]), 1, 4)["outcome"] == "time"


def test_tokens_that_texts_have() -> None:
    assert [as_text(token) for token in ("Ġthe", "Ã©", 'a"', "\\n", "a", "ĊĊ", "<end>")] == [
        " the",
        "\xc3\xa9",
        None,
        None,
        None,
        None,
        "<end>",
    ]


def test_a_grammar_with_keys_in_any_order() -> None:
    schema = {
        "properties": {"a": {"type": "null"}, "b": True},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert AnyOrder(schema).text.splitlines()[-2:] == [
        ' | "\\"b\\":" r2 r0m::set_bit(1)',
        'r0: "{" r0f::0x0 "}"',
    ]
