"""Prompts: YAML and JSON cut off anywhere become tokens that begin a workflow."""

import json
from pathlib import Path

import pytest

from nanochat_tct.data.documents import to_yaml
from nanochat_tct.errors import UserError
from nanochat_tct.generation.prompt import Prompt, encode_prompt, read_prompt
from nanochat_tct.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer()

WORKFLOW = {
    "name": "CI of « tout »",
    "on": {"push": {"branches": ["main", "v*"]}, "workflow_dispatch": None},
    "jobs": {
        "build": {
            "runs-on": "${{ matrix.os }}",
            "strategy": {"matrix": {"os": ["ubuntu-latest", "macos-14"], "n": [1, 2.5]}},
            "steps": [
                {"uses": "actions/checkout@v4", "with": {"fetch-depth": 0}},
                {"run": 'echo "a: b"\nmake [all] {x}\n', "shell": "bash"},
            ],
        }
    },
}


def completed(text: str) -> dict:
    """The shortest workflow that the prompt begins."""
    return json.loads(TOKENIZER.decode_prefix(encode_prompt(text, TOKENIZER).tokens)[0])


def test_nothing_begins_any_workflow() -> None:
    for text in ("", "  \n", "# a licence", "# a licence\n\n  # and more\n", "---\n", "# a\n--- # b\n"):
        assert encode_prompt(text, TOKENIZER) == Prompt([], "", "")


def test_after_a_comment_it_begins_as_without() -> None:
    assert encode_prompt("# a licence\n---\nname: C", TOKENIZER) == encode_prompt("name: C", TOKENIZER)


def test_missing_keys_are_no_mistake() -> None:
    prompt = encode_prompt("name: CI\non: push\n", TOKENIZER)
    assert (prompt.dropped, prompt.reason) == ("", "")
    value = completed("name: CI\non: push\n")
    assert value["name"] == "CI" and value["on"] == "push"


def test_a_last_string_is_left_open_unless_its_line_ends() -> None:
    job = "on: push\njobs:\n  a:\n    runs-on: ubu"
    open_tokens = encode_prompt(job, TOKENIZER).tokens
    closed_tokens = encode_prompt(job + "\n", TOKENIZER).tokens
    assert completed(job)["jobs"]["a"]["runs-on"] == "ubu"
    cursor = TOKENIZER.cursor()
    for token in open_tokens:
        cursor.advance(token)
    whole = TOKENIZER.encode_prefix({"on": "push", "jobs": {"a": {"runs-on": "ubuntu"}}})
    assert TOKENIZER.decode_prefix(open_tokens)[0] == TOKENIZER.decode_prefix(closed_tokens)[0]
    assert open_tokens != closed_tokens and whole[: len(open_tokens) - 2] == open_tokens[:-2]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ('name: "CI and', "name", "CI and"),
        ("name: 'CI and", "name", "CI and"),
        ('{"name": "CI and', "name", "CI and"),
        ('{"name": "CI and \\', "name", "CI and "),
        ('{"name": "CI", "on"', "name", "CI"),
        ('{"name": "CI"', "name", "CI"),
        ("on: [push, pull_request", "on", ["push", "pull_request"]),
        ('on: [push, "pull_request', "on", ["push", "pull_request"]),
        ("on: {push: {branches: [a]}", "on", {"push": {"branches": ["a"]}}),
        ("env: {A: 'b", "env", {"A": "b"}),
    ],
)
def test_what_is_open_is_closed(text: str, key: str, value: object) -> None:
    assert encode_prompt(text, TOKENIZER).tokens
    assert completed(text)[key] == value


def test_what_cannot_stay_is_dropped_and_told() -> None:
    prompt = encode_prompt("name: CI\non: push\njobs:\n  build:\n    runs", TOKENIZER)
    assert prompt.dropped == "runs"
    assert "/jobs/build" in prompt.reason
    prompt = encode_prompt('{"name": "CI", "on": {"push": {"bran', TOKENIZER)
    assert prompt.dropped == '"bran'


@pytest.mark.parametrize("write", [to_yaml, json.dumps, lambda value: json.dumps(value, indent=2)])
def test_cut_anywhere(write: object) -> None:
    """Every beginning of a workflow's text is a prompt; what is kept is what the workflow begins with."""
    text = write(WORKFLOW)  # type: ignore[operator]
    for end in range(8, len(text) + 1, 3):
        prompt = encode_prompt(text[:end], TOKENIZER)
        assert len(prompt.dropped) < 100, text[:end]
        value = json.loads(TOKENIZER.decode_prefix(prompt.tokens)[0])
        if end > 40:
            assert value["name"] == WORKFLOW["name"], text[:end]
    assert completed(text) == WORKFLOW


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "on: 5\n", '{"on": 5', "\t: x", "just words: [", '"', "&a *a:"]
)
def test_what_begins_no_workflow_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="the prompt is not the beginning of a workflow"):
        encode_prompt(text, TOKENIZER)


def test_a_long_wrong_prompt_is_refused_soon() -> None:
    with pytest.raises(UserError, match="not the beginning"):
        encode_prompt("jobs: 5\n" + "env:\n  a: b\n" * 3000, TOKENIZER)


def test_files_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "partial.yml"
    file.write_text("name: é\n", encoding="utf-8")
    assert read_prompt(str(file)) == ("name: é\n", str(file))
    assert read_prompt("name: CI") == ("name: CI", "the prompt")
    assert read_prompt("") == ("", "the prompt")
    with pytest.raises(UserError, match=r"no file missing\.yml"):
        read_prompt("missing.yml")
    with pytest.raises(UserError, match="cannot read the prompt"):
        read_prompt(str(tmp_path))
    file.write_bytes(b"name: \xff")
    with pytest.raises(UserError, match="not UTF-8"):
        read_prompt(str(file))
