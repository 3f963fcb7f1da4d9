"""Training a vocabulary for a schema of one's own, from files as people have them."""

import json
from pathlib import Path

import pytest

from nanochat_tct.cli import main
from nanochat_tct.documents import to_json
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tokenizer.engine import FIRST_LITERAL
from nanochat_tct.tokenizer.vocabulary import BUILTIN, load_vocabulary

SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "weight": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["title"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def schema(tmp_path: Path) -> str:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return str(path)


def test_documents_of_any_schema_in_any_form(
    tmp_path: Path, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.json").write_text('[{"title":"first things","weight":3}]')
    (folder / "b.yaml").write_text("- title: first things\n  weight: 4\n- title: second things\n")
    (folder / "c.jsonl").write_text(
        '[{"title":"first things"}]\n{"text":"- title: second things","repo":"r"}\n[{"title":1}]\n'
    )
    (folder / "d.yml").write_text("- {title: [\n")
    output = tmp_path / "vocabulary.json"
    arguments = ["--input", str(folder), "--schema", schema, "--vocab-size", "270", "--output", str(output)]
    assert main(["train-tokenizer", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "learned from 4 documents" in printed and "1 refused by the schema" in printed
    assert "1 could not be read: yaml-syntax" in printed
    tokenizer = load_tokenizer(str(output))
    text = '[{"title":"second things","weight":9}]'
    assert tokenizer.decode(tokenizer.encode(text))[0] == text
    assert tokenizer.decode_prefix([])[0] == "[]"


def test_without_a_schema_the_grammar_is_that_of_the_built_in_vocabulary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when the facts about GitHub, or what is made of them, change: then decide on a new vocabulary."""
    folder, output = tmp_path / "in", tmp_path / "v.json"
    folder.mkdir()
    for index in range(20):
        (folder / f"{index}.json").write_text(to_json(synthesize(index, seed=0)))
    (folder / "list.yml").write_text("- a\n")
    builtin = load_vocabulary(BUILTIN)[0]["grammar"]
    size = FIRST_LITERAL + len(builtin["literals"]) + 4
    arguments = ["--input", folder, "--vocab-size", size, "--output", output]
    assert main(["train-tokenizer", *map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert "learned from 20 documents" in printed and "1 could not be read: not-a-mapping" in printed
    assert load_vocabulary(output)[0]["grammar"] == builtin


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 5000, "cannot be read as JSON"),
        ('{"type":"whatever"}', "type must be one or more of"),
        ('{"$ref":"other.json"}', "only references inside the document"),
        ("false", "no value is valid"),
    ],
)
def test_a_schema_that_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "s.json").write_text(content)
    (tmp_path / "a.json").write_text("[]")
    arguments = ["--input", str(tmp_path / "a.json"), "--schema", str(tmp_path / "s.json")]
    assert main(["train-tokenizer", *arguments, "--output", str(tmp_path / "v.json")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "v.json").exists()
