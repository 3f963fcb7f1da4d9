"""Prompts: YAML and JSON cut off anywhere become tokens that begin a workflow."""

import re
from pathlib import Path

import pytest

from nanochat_tct.errors import UserError
from nanochat_tct.generation.prompt import Prompt, encode_prompt, read_prompt
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.cutting import shortest

TOKENIZER = load_tokenizer()


def completed(text: str) -> dict:
    """The shortest workflow that the prompt begins."""
    return shortest(encode_prompt(text, TOKENIZER), TOKENIZER)


def test_nothing_begins_any_workflow() -> None:
    for text in ("", "  \n", "# a licence", "# a licence\n\n  # and more\n", "---\n", "# a\n--- # b\n"):
        assert encode_prompt(text, TOKENIZER) == Prompt([], (), "", "")


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
    matcher = TOKENIZER.matcher()
    for token in open_tokens:
        matcher.advance(token)
    whole = TOKENIZER.encode_prefix({"on": "push", "jobs": {"a": {"runs-on": "ubuntu"}}})
    assert TOKENIZER.decode_prefix(open_tokens)[0] == TOKENIZER.decode_prefix(closed_tokens)[0]
    assert open_tokens != closed_tokens and whole[: len(open_tokens) - 2] == open_tokens[:-2]


def test_what_cannot_stay_is_dropped_and_told() -> None:
    prompt = encode_prompt("name: CI\non: push\njobs:\n  build:\n    runz", TOKENIZER)
    assert prompt.dropped == "runz"
    assert "/jobs/build" in prompt.reason
    prompt = encode_prompt('{"name": "CI", "on": {"push": {"brunches', TOKENIZER)
    assert prompt.dropped == '"brunches'
    prompt = encode_prompt(
        '{"name": "CI", "on": {"push": {"branches": ["a"], "tugs": ["b"], "paths', TOKENIZER
    )
    assert prompt.dropped == ', "tugs": ["b"], "paths'
    prompt = encode_prompt('{"name": "CI", "on": {"push": {}}}', TOKENIZER)
    assert (prompt.dropped, prompt.reason) == ("}", "/: missing 'jobs'")


@pytest.mark.parametrize(
    "text",
    ["- a\n- b\n", "on: 5\n", '{"on": 5', "\t: x", "just words: [", "just words\n", "just\n|words", "&a *a:"],
)
def test_what_begins_no_workflow_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="the prompt is not the beginning of a workflow"):
        encode_prompt(text, TOKENIZER)


def test_a_long_wrong_prompt_is_refused_soon() -> None:
    lines = "".join(f"  a{index}: b\n" for index in range(3000))
    values = ",".join(f'"a{index}":"b"' for index in range(3000))
    with pytest.raises(UserError, match="not the beginning"):
        encode_prompt(f"jobs: 5\nenv:\n{lines}", TOKENIZER)
    prompt = encode_prompt(f"name: CI\non: 5\nenv:\n{lines}", TOKENIZER)
    assert prompt.dropped.startswith("on: 5\nenv:\n  a0: b\n") and prompt.reason.startswith("/on: ")
    prompt = encode_prompt(f'{{"name": "CI", "on": 5, "env": {{{values}', TOKENIZER)
    assert prompt.dropped.startswith(', "on": 5, "env"') and prompt.reason.startswith("/on: ")
    with pytest.raises(UserError, match="more than the limit"):
        encode_prompt("name: CI\n" + "# comment\n" * 200_000, TOKENIZER)


def test_files_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("partial.yml", "a:b.yml", "{x}.json", "name: CI", "name", "- x", "two words.yml"):
        Path(name).write_bytes("name: é\n".encode())
        assert read_prompt(name) == ("name: é\n".encode(), name)
        Path(name).unlink()
    texts = (
        "name: CI",
        "",
        "{",
        "- x",
        "---",
        "name: CI\n",
        '{"uses":"./a.yml',
        "uses: ./a.yml",
        "x" * 5000 + ":",
    )
    for text in texts:
        assert read_prompt(text) == (text, "the prompt")
    for missing in "missing.yml a:b/missing.yaml C:\\x\\ci.yml {x}.json ./missing ~/ci folder/ci".split():
        with pytest.raises(UserError, match=f"^no file {re.escape(missing)}: --prompt takes a file, or "):
            read_prompt(missing)
    with pytest.raises(UserError, match="cannot read the prompt"):
        read_prompt(str(tmp_path))


def test_a_word_may_be_a_name_or_a_beginning() -> None:
    text, name = read_prompt("nam")
    assert encode_prompt(text, TOKENIZER, name) == encode_prompt("nam", TOKENIZER)
    text, name = read_prompt("prompt")
    with pytest.raises(
        UserError, match=r"^no file prompt, and the prompt is not the beginning of a workflow: "
    ):
        encode_prompt(text, TOKENIZER, name)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(UserError, match=r"^p is not UTF-8 text: byte 6 is not valid"):
        encode_prompt(b"name: \xff x\n", TOKENIZER, "p")
    with pytest.raises(UserError, match=r"^p is not UTF-16 text: byte "):
        encode_prompt(b"\xff\xfe\x00\xdc\x00\xdc", TOKENIZER, "p")
    with pytest.raises(UserError, match=r"^p is not UTF-8 text: byte 6"):
        encode_prompt("name: \udcff x", TOKENIZER, "p")
    with pytest.raises(UserError, match=r"^p is not Unicode text"):
        encode_prompt("name: \ud83d x", TOKENIZER, "p")
