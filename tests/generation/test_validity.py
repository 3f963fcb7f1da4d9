"""What samples are judged by."""

from pathlib import Path

import pytest

from nanochat_tct.generation.validity import document_problem
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tokenizer.train import train_vocabulary

STEPS = [{"run": "make"}]
SCHEMA = {"type": "object", "properties": {"run": {"type": "string"}}, "additionalProperties": False}


@pytest.mark.parametrize(
    "value",
    [
        {"on": "push", "jobs": {"a": {"runs-on": "x", "steps": STEPS}}},
        {"on": {"schedule": [{"cron": "0 4 * * *"}]}, "jobs": {"a": {"uses": "./.github/workflows/b.yml"}}},
        {"on": {"push": {"branches": "main"}}, "env": {"A": None}, "jobs": {"a": {"runs-on": "x"}}},
    ],
)
@pytest.mark.parametrize("name", ["builtin", "builtin-1"])
def test_valid(value: object, name: str) -> None:
    assert document_problem(value, load_tokenizer(name)) is None


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"on": "push", "jobs": {}}, "/jobs: "),
        ({"on": "push", "jobs": {"1a": {"runs-on": "x", "steps": STEPS}}}, "/jobs/1a: "),
        ({"on": "psuh", "jobs": {"a": {"runs-on": "x", "steps": STEPS}}}, "/on: "),
        ({"on": "push", "jobs": {"a": {"runs-on": "x", "steps": [{"run": "${{ foo.bar }}"}]}}}, "/run: "),
        ({"on": "push", "jobs": {"\ud800": {"runs-on": "x", "steps": STEPS}}}, "/jobs: "),
    ],
)
def test_invalid(value: object, place: str) -> None:
    problem = document_problem(value, load_tokenizer())
    assert problem is not None and place in problem


def test_documents_of_another_schema(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    train_vocabulary([("a", {"run": f"echo {i % 3}"}) for i in range(20)], SCHEMA, 272, path)
    tokenizer = load_tokenizer(str(path))
    assert document_problem({"run": "make"}, tokenizer) is None
    assert document_problem({"on": "push"}, tokenizer) is not None
