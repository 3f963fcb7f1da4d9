"""Prompts that are cut off anywhere: what is written stays, what is closed stays closed, what is open goes on."""

import itertools
import json
import random
import re
from typing import Any

import pytest

from nanochat_tct.documents import read_workflow, to_json, to_yaml
from nanochat_tct.errors import UserError
from nanochat_tct.generation.prompt import encode_prompt
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.cutting import WrittenParts, flattened, leads_to, shortest

TOKENIZER = load_tokenizer()

BLOCK = """\
# what is built
---
name: CI of « tout » 🚀
on:
  push:
    branches:
    - main
    - 'release/**'   # and the old ones
    - "v*"
  workflow_dispatch:
permissions:
  contents: read
  id-token: write
env:
  NUMBER: 12
  VERSION: 1.20.3
  FLOAT: -2.5
  YES: true
  TRUNK: trunk
  EMPTY: ''
  QUOTED: 'it''s'
  ESCAPED: "a\\tb \\u00e9\\U0001F680 \\\\ c"
jobs:
  build:
    name: build
      on ${{ matrix.os }}
    runs-on: ${{ matrix.os }}
    strategy:
      fail-fast: false
      matrix:
        os: [ubuntu-latest, macos-14, 'windows-2022']
        n: [1, 2.5]
    steps:
      - uses: actions/checkout@v4
        with: { fetch-depth: 0, ref: "main" }

      # the tests
      - name: run it
        run: |
          echo "a: b" # no comment

            make [all] {x}
        shell: bash
      - run: >-
          one
          two

          three
      - run: |-
          make
      - run: |+
          make

  after:
    needs: build
    uses: ./.github/workflows/after.yml
"""
FLOW = """\
on: {push: {branches: [main, "v*", 'x']}, pull_request: {types: [opened,
  reopened]}}   # flow
jobs: {
  build: {runs-on: [self-hosted, linux], timeout-minutes: 30,
    steps: [{uses: actions/checkout@v4, with: {fetch-depth: 0}}, {run: make all, continue-on-error: true}]}
  }
"""
ANCHORED = """\
on: push
env: &common
  A: b
  C: d
jobs:
  a: &job
    runs-on: &os ubuntu-latest
    env: *common
    steps: &steps
      - run: make
  b:
    runs-on: *os
    steps: *steps
"""
VALUE: Any = {
    "name": 'CI of « tout » 🚀 "a\\b"\n\t',
    "on": {"push": {"branches": ["main", "v*"]}, "workflow_dispatch": None},
    "env": {"A": 1, "B": -2.5, "C": True, "D": "", "E": "12"},
    "jobs": {
        "build": {
            "runs-on": "${{ matrix.os }}",
            "strategy": {"matrix": {"os": ["ubuntu-latest", "macos-14"], "n": [1, 2.5]}},
            "steps": [
                {"uses": "actions/checkout@v4", "with": {"fetch-depth": 0}},
                {"run": "make\nmake test\n"},
            ],
        }
    },
}
SAMPLES = {
    "block": BLOCK,
    "flow": FLOW,
    "anchors": ANCHORED,
    "clean": to_yaml(VALUE),
    "compact": to_json(VALUE),
    "escaped": json.dumps(VALUE),
    "indented": json.dumps(VALUE, indent=2, ensure_ascii=False),
    "json as yaml": '# a comment\n{"on":\n"push", "jobs": {"a": {"uses": "./a.yml", "with":{"a":1}} } }\n',
    "zero-indented": "jobs:\n  a:\n    runs-on:\n    - x\n    - y\n    steps:\n    - run: a\n    -   run: b\non: push",
}
# how a JSON document is written again, to compare it letter by letter
JSON = {
    "compact": {"separators": (",", ":"), "ensure_ascii": False},
    "escaped": {},
    "indented": {"indent": 2, "ensure_ascii": False},
}
# Beginnings that mean something else by themselves than in the whole: a number, a closed quote, a line that ends.
AMBIGUOUS = ("VERSION: 1", "VERSION: 1.", "VERSION: 1.2", "VERSION: 1.20", "QUOTED: 'it'", "name: build\n")


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sample", SAMPLES)
def test_what_is_written_stays_and_what_is_open_goes_on(sample: str, step: int) -> None:
    """Cut at every character (in `make test` at every seventh): nothing is dropped, the whole text's document is among
    those that the prompt leads to, and any other one, here the shortest, begins with all that stands in the prompt, in
    order, and closed where the prompt has closed it."""
    text = SAMPLES[sample]
    value: Any = read_workflow(text)
    parts = WrittenParts(text, value) if sample not in ("anchors", "escaped") else None
    lengths = []
    for cut in range(len(text), 0, -step):
        beginning = text[:cut]
        prompt = encode_prompt(beginning, TOKENIZER)
        assert (prompt.dropped, prompt.reason) == ("", ""), beginning[-60:]
        completed = shortest(prompt, TOKENIZER)
        if not beginning.rstrip(" ").endswith(AMBIGUOUS):
            assert leads_to(prompt, value, TOKENIZER), (beginning[-60:], completed)
        if parts is not None:
            certain = parts.certain(cut)
            assert list(itertools.islice(flattened(completed), len(certain))) == certain, beginning[-60:]
            lengths.append(len(certain))
        if sample in JSON:
            written = json.dumps(completed, **JSON[sample])  # type: ignore[arg-type]
            half_escape = re.search(r"(?<!\\)(\\\\)*(\\ud83d)?(\\(u[0-9a-f]{0,3})?)?$", beginning)
            assert half_escape is not None
            kept = beginning[: half_escape.start() + len(half_escape[1] or "")].rstrip(" \n")
            kept = kept.removesuffix("-")  # -0 is 0
            assert written.startswith(kept), (kept[-60:], written[cut - 60 :])
    assert lengths == sorted(lengths, reverse=True)
    if parts is not None:
        assert lengths[0] > 0.8 * len(parts.parts)


@pytest.mark.parametrize("sample", ["block", "compact"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_cut_at_every_byte(sample: str, encoding: str) -> None:
    text = SAMPLES[sample][:120]
    content = ("\ufeff" + text if encoding == "utf-16-be" else text).encode(encoding)
    for cut in range(4, len(content) + 1):
        whole = content[:cut].decode(encoding, "ignore").removeprefix("\ufeff")
        assert encode_prompt(content[:cut], TOKENIZER) == encode_prompt(whole, TOKENIZER)


def test_line_breaks_of_windows() -> None:
    for text in (BLOCK, SAMPLES["indented"]):
        windows = text.replace("\n", "\r\n")
        for cut in range(1, len(windows) + 1, 29):
            before = windows[:cut].replace("\r\n", "\n").replace("\r", "\n")
            for end in (cut, cut + (windows[cut : cut + 1] == "\n")):  # after CR, and after LF
                assert encode_prompt(windows[:end], TOKENIZER) == encode_prompt(before, TOKENIZER)


STEPS = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # (the prompt, what the shortest workflow begins with)
        (
            '{"on":{"push":{"branches":["main"],',
            {"on": {"push": {"branches": ["main"], "branches-ignore": True}}},
        ),
        (
            '{"on":{"push":{"branches":["main"]},',
            {"on": {"push": {"branches": ["main"]}, "branch_protection_rule": None}},
        ),
        ('{"name":"x\\ud83d', {"name": "x"}),
        ('{"name":"x\\ud83d\\', {"name": "x"}),
        ('{"name":"x\\ud83d\\ude8', {"name": "x"}),
        ('{"name":"x\\ud83d\\ude80', {"name": "x🚀"}),
        ('{"name":"x\\\\ud83d', {"name": "x\\ud83d"}),
        ('{"name":"x\\u12', {"name": "x"}),
        ('{"name":"x\\', {"name": "x"}),
        ('\ufeff{"name":"x', {"name": "x"}),
        ("name: Rel \udcf0\udc9f", {"name": "Rel"}),
        ("name: x\ud83d", {"name": "x"}),
        ("permissions:\n  contents: re", {"permissions": {"contents": "read"}}),
        ("on: push\njobs:\n  a:\n    runs-o", {"on": "push", "jobs": {"a": {"runs-on": True}}}),
        ("on: workflow_c", {"on": "workflow_call"}),
        ("on: workflow_c\n", {"on": "workflow_call"}),
        ("on:\n  workflow_c", {"on": "workflow_call"}),
        ("on:\n- workflow_c", {"on": ["workflow_call"]}),
        ("on: [push, workflow_c", {"on": ["push", "workflow_call"]}),
        ('on: [push, "workflow_c', {"on": ["push", "workflow_call"]}),
        (
            "on: {push: {branches: [a]}, workflow_c",
            {"on": {"push": {"branches": ["a"]}, "workflow_call": None}},
        ),
        ("on: [push]", {"on": ["push"]}),
        ("name: a\n  b", {"name": "a b"}),
        ("name: 'it''", {"name": "it'"}),
        ('name: "CI and', {"name": "CI and"}),
        ("name: 'CI and", {"name": "CI and"}),
        ('{"name": "CI and \\', {"name": "CI and "}),
        ('{"name": "CI", "on"', {"name": "CI"}),
        ('on: [push, "pull_request', {"on": ["push", "pull_request"]}),
        ("on: {push: {branches: [a]}", {"on": {"push": {"branches": ["a"]}}}),
        ("env: {A: 'b", {"env": {"A": "b"}}),
        ("name: CI # comm", {"name": "CI"}),
        ("name: CI#", {"name": "CI#"}),
        ("--- # a\nname: x", {"name": "x"}),
        ("? name\n: x", {"name": "x"}),
        ("? nam", {"name": None}),
        ("env:\n  A: tru", {"env": {"A": True}}),
        ('{"env":{"A":tru', {"env": {"A": True}}),
        ('{"env":{"A":1.', {"env": {"A": 1.0}}),
        ('{"env":{"A":1e5', {"env": {"A": 100000.0}}),
        ("env:\n  A: 0x1F", {"env": {"A": 31}}),
    ],
)
def test_what_is_open_goes_on(text: str, value: dict[str, Any]) -> None:
    prompt = encode_prompt(text, TOKENIZER)
    assert prompt.dropped == ""
    completed = shortest(prompt, TOKENIZER)
    assert {name: completed[name] for name in value} == value
    assert list(completed)[: len(value)] == list(value)


@pytest.mark.parametrize("header", ["|", "|-", "|+", ">", ">-", "|2", "|  # comment", "|\n", "|\n    "])
def test_a_block_scalar_has_some_text(header: str) -> None:
    completed = shortest(encode_prompt(f"{STEPS}      - run: {header}", TOKENIZER), TOKENIZER)
    (step,) = completed["jobs"]["a"]["steps"]
    assert isinstance(step["run"], str) and step["run"] != ""


@pytest.mark.parametrize("value", ["> text", "|text", "|#text", "|2 -", "> a: b"])
def test_text_behind_the_header_of_a_block_scalar_is_dropped_with_its_reason(value: str) -> None:
    prompt = encode_prompt(f"on: push\nname: {value}", TOKENIZER)
    assert prompt.dropped == f"name: {value}" and "line 2" in prompt.reason


@pytest.mark.parametrize("end", ["      -", "      - ", "      -\n", "      - run: a\n      -", "    - "])
def test_a_dash_begins_a_step(end: str) -> None:
    steps = shortest(encode_prompt(STEPS + end, TOKENIZER), TOKENIZER)["jobs"]["a"]["steps"]
    assert len(steps) == end.count("-")


@pytest.mark.parametrize("text", ["name: : x", "name: : ", "on: {: : }", "- : : x", "name: # :\n: : "])
def test_stray_colons_come_to_an_end(text: str) -> None:
    """Once the scan of the text stood still at a colon after a key."""
    try:
        assert isinstance(shortest(encode_prompt(text, TOKENIZER), TOKENIZER), dict)
    except UserError as error:
        assert "not the beginning of a workflow" in str(error)


@pytest.mark.parametrize("value", ["a: b", "a: ", "a:\tb", 'echo "a: b', "a: - b"])
def test_a_second_key_on_a_line_is_refused_or_dropped(value: str) -> None:
    """Once the text before the second colon got lost, and ": b" was the value."""
    with pytest.raises(UserError, match=r"a key with ':' is not allowed here"):
        encode_prompt(f"name: {value}", TOKENIZER)
    prompt = encode_prompt(f"{STEPS}    - uses: x\n      name: {value}", TOKENIZER)
    assert f"name: {value}".strip().endswith(prompt.dropped) and "is not allowed here" in prompt.reason
    assert prompt.dropped != ""
    prompt = encode_prompt(f"name: a\n  {value}", TOKENIZER)
    assert prompt.dropped == value.strip() and "':' is not allowed" in prompt.reason


def test_what_follows_a_blank_is_another_word() -> None:
    prompt = encode_prompt("name: Set up ", TOKENIZER)
    assert leads_to(prompt, {"name": "Set up", "on": "push", "jobs": {"a": {"runs-on": "x"}}}, TOKENIZER)
    assert leads_to(prompt, {"name": "Set up Go", "on": "push", "jobs": {"a": {"runs-on": "x"}}}, TOKENIZER)
    assert not leads_to(prompt, {"name": "Set ups", "on": "push", "jobs": {"a": {"runs-on": "x"}}}, TOKENIZER)


def test_a_number_without_quotes_becomes_no_string_of_digits() -> None:
    prompt = encode_prompt("env:\n  A: 2", TOKENIZER)
    rest = {"on": "push", "jobs": {"a": {"runs-on": "x"}}}
    for value in (2, 20, 2.5, "2.x", "2 things", "2a"):
        assert leads_to(prompt, {"env": {"A": value}, **rest}, TOKENIZER), value
    for value in ("2", "20", "2.5", 3, "x"):
        assert not leads_to(prompt, {"env": {"A": value}, **rest}, TOKENIZER), value
    quoted = encode_prompt("env:\n  A: '2", TOKENIZER)
    assert leads_to(quoted, {"env": {"A": "20"}, **rest}, TOKENIZER)
    assert not leads_to(quoted, {"env": {"A": 20}, **rest}, TOKENIZER)


def test_real_workflows_cut_anywhere(corpus: Any) -> None:
    choose = random.Random(5)
    for text in choose.sample(corpus.column("text").to_pylist(), 60):
        text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        try:
            value = read_workflow(text, "yaml")
            TOKENIZER.encode_value(value)
        except UserError:
            continue
        parts = WrittenParts(text, value) if "*" not in text and "<<" not in text else None
        for cut in sorted(choose.sample(range(1, len(text) + 1), 3)):
            prompt = encode_prompt(text[:cut], TOKENIZER)
            assert prompt.dropped == "" and leads_to(prompt, value, TOKENIZER), text[:cut][-100:]
            if parts is not None:
                certain = parts.certain(cut)
                completed = flattened(shortest(prompt, TOKENIZER))
                assert list(itertools.islice(completed, len(certain))) == certain, text[:cut][-100:]
