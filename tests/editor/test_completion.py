"""What is offered at the cursor, in documents that are half-written."""

import itertools
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from nanochat_tct.check import check_text
from nanochat_tct.documents import to_yaml
from nanochat_tct.editor.completion import complete
from nanochat_tct.editor.cursor import find_cursor
from nanochat_tct.editor.descriptions import CONTEXTS, FUNCTIONS, KEYS, VALUES
from nanochat_tct.editor.language import Language
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tokenizer.facts import facts

CURSOR = "‸"
JOB = "jobs:\n  build:\n    runs-on: x\n"
NAMES = """\
on:
  workflow_dispatch:
    inputs: {level: {type: string}}
  workflow_call:
    secrets: {KEY: {required: true}}
env: {FROM_TOP: 1}
jobs:
  first:
    runs-on: x
    outputs: {version: "1"}
    steps: [{run: make}]
  second:
    runs-on: x
    needs: first
    env: {FROM_JOB: 1}
    strategy:
      matrix: {python: [3], include: [{python: 4, extra: 1}]}
    steps:
      - id: one
        run: |
          echo "a=1" >> "$GITHUB_OUTPUT"
          { echo "b=2"; echo "c<<X"; } >> $GITHUB_OUTPUT
      - {env: {FROM_STEP: 1}, run: "HERE"}
      - {id: late, run: make}
"""


@pytest.fixture(scope="module")
def language() -> Language:
    return Language(load_tokenizer())


def offered(language: Language, text: str) -> dict[str, str]:
    """Labels and texts that are offered at the cursor."""
    before, _, after = text.partition(CURSOR)
    return {each.label: each.text for each in complete(language, before + after, len(before)).suggestions}


@pytest.mark.parametrize(
    ("text", "expected", "missing"),
    [
        ("‸", ["on", "jobs", "name"], ["runs-on"]),
        ("on: ‸\n" + JOB, ["push", "pull_request"], ["jobs"]),
        ("on:\n  pu‸", ["push"], ["runs-on"]),
        ("on:\n  push:\n  ‸\n" + JOB, ["pull_request"], ["push"]),
        ("on: [push, ‸", ["pull_request"], []),
        ("on: [push, pu‸]\n" + JOB, ["pull_request"], []),
        ("on: push\njobs: {b: {runs-on: x, ‸}}", ["steps", "needs"], ["runs-on", "uses"]),
        ('{"on": "push", "jobs": {"b": {"ru‸', ["runs-on"], []),
        ("on: push\njobs:\n  b:\n    ‸\n    steps:\n      - run: x\n", ["runs-on"], ["steps", "uses"]),
        ("on: push\njobs:\n  b:\n    uses: ./a\n    ‸", ["with", "secrets"], ["steps", "runs-on"]),
        ("on: push\n" + JOB + "    steps:\n      - ‸", ["run", "uses"], []),
        ("on: push\n" + JOB + "    steps:\n      ‸", ["- run", "- uses"], []),
        ("on: push\n" + JOB + "    steps:\n      - ‸\n        uses: a/b@v1\n", ["with", "id"], ["run", "uses"]),
        ("on: push\n" + JOB + "    steps:\n      - run: x\n        ‸\n      - run: y\n", ["shell"], ["with"]),
        ("on: push\n" + JOB + "    steps:\n      - run: x\n        shell: ‸", ["bash", "pwsh"], []),
        ("on: push\njobs:\n  b:\n    runs-on: ‸\n", ["ubuntu-latest"], []),
        ("on: push\njobs:\n  b:\n    runs-on: [‸", ["ubuntu-latest"], []),
        ("on: push\njobs:\n  b:\n    runs-on:\n      - ‸", ["ubuntu-latest"], []),
        ("permissions: ‸", ["read-all", "write-all"], []),
        ("permissions:\n  ‸", ["contents", "id-token"], []),
        ("permissions:\n  id-token: ‸", ["write", "none"], ["read"]),
        ("on:\n  pull_request:\n    types: [opened, ‸", ["synchronize"], []),
        ("on:\n  pull_request:\n    types:\n      ‸", ["- synchronize"], []),
        ("on:\n  workflow_dispatch:\n    inputs:\n      a:\n        type: ‸", ["choice", "boolean"], []),
        ("on: push\njobs:\n  a:\n    continue-on-error: ‸", ["true", "false"], []),
        ("name: ‸", [], ["true", "false"]),
        ("on: push\njobs:\n  a: {runs-on: x}\n  b:\n    needs: ‸\n  c: {runs-on: x}\n", ["a", "c"], ["b"]),
        ("on: push\njobs:\n  a: {runs-on: x}\n  b:\n    needs: [a, ‸]\n  c: {runs-on: x}\n", ["c"], ["a", "b"]),
        ("on: push\njobs:\n  a: {runs-on: x}\n  b:\n    needs:\n      - ‸\n", ["a"], ["b"]),
        ("on: push\n" + JOB + "    steps:\n      - uses: a/b@v1\n      - uses: ‸", ["a/b@v1"], []),
        ("jobs:\n  a:\n    strategy:\n      matrix:\n        os: [1]\n        include:\n          - ‸", ["os"], []),
        ("# on: ‸", [], ["push"]),
        ("on: push # ‸", [], ["push"]),
        ("name: the pu‸", [], ["push"]),
        ("on: push\n" + JOB + "    steps:\n      - run: echo ‸", [], ["github", "run"]),
        ("on: push\n" + JOB + "    broken\n    ‸", ["steps"], ["runs-on"]),
        ("on: push\njobs:\n  b:\n    ‸\n  c:\n    broken\n  d: {needs: e}\n", ["runs-on"], []),
    ],
)  # fmt: skip
def test_keys_and_values(language: Language, text: str, expected: list[str], missing: list[str]) -> None:
    found = offered(language, text)
    assert set(expected) <= set(found)
    assert not set(missing) & set(found)


@pytest.mark.parametrize(
    ("expression", "expected", "missing"),
    [
        ("${{ ‸ }}", ["github", "steps", "matrix", "contains()", "hashFiles()"], ["jobs", "always()"]),
        ("${{ gi‸", ["github"], []),
        ("${{ github.‸ }}", ["ref", "event_name"], ["github"]),
        ("${{ github.event.‸ }}", ["inputs"], []),
        ("${{ inputs.‸", ["level"], []),
        ("${{ github.event.inputs.‸", ["level"], []),
        ("${{ needs.‸", ["first"], ["second"]),
        ("${{ needs.first.‸", ["outputs", "result"], []),
        ("${{ needs.first.outputs.‸", ["version"], []),
        ("${{ matrix.‸", ["python", "extra"], ["include"]),
        ("${{ steps.‸", ["one"], ["late"]),
        ("${{ steps.one.‸", ["outputs", "outcome", "conclusion"], []),
        ("${{ steps.one.outputs.‸", ["a", "b", "c"], []),
        ("${{ env.‸", ["FROM_TOP", "FROM_JOB", "FROM_STEP"], []),
        ("${{ secrets.‸", ["GITHUB_TOKEN", "KEY"], []),
        ("${{ runner.‸", ["os", "arch"], []),
        ("${{ contains(github.ref, mat‸", ["matrix"], []),
        ("${{ 'a.b' == inputs.l‸", ["level"], []),
        ("${{ 'git‸", [], ["github"]),
        ("${{ github.ref ‸", [], ["github"]),
        ("${{ github.ref }} ‸", [], ["github"]),
        ("echo ${{ github.ref }} ${{ ‸", ["github"], []),
    ],
)
def test_names_in_expressions(
    language: Language, expression: str, expected: list[str], missing: list[str]
) -> None:
    found = offered(language, NAMES.replace("HERE", expression))
    assert set(expected) <= set(found), found
    assert not set(missing) & set(found)


def test_a_condition_is_an_expression_without_braces_too(language: Language) -> None:
    text = "on: push\n" + JOB + "    if: ‸\n"
    assert {"github", "always()", "success()"} <= set(offered(language, text))
    assert "secrets" not in offered(language, text)
    assert "ref" in offered(language, "on: push\n" + JOB + "    if: github.‸\n")
    assert "ref" in offered(language, "on: push\n" + JOB + "    if: ${{ github.‸ }}\n")


def test_text_is_inserted_in_place_of_the_word(language: Language) -> None:
    for text, label, expected in (
        ("on: push\njobs:\n  b:\n    runs‸", "runs-on", "on: push\njobs:\n  b:\n    runs-on: "),
        ("on: push\njobs:\n  b:\n    st‸", "steps", "on: push\njobs:\n  b:\n    steps:"),
        ("on: push\njobs:\n  b:\n    ru‸: x", "runs-on", "on: push\njobs:\n  b:\n    runs-on: x"),
        ("on:\n  - pu‸", "push", "on:\n  - push"),
        ('on: ["pu‸"]', "push", 'on: ["push"]'),
        ("name: é😀 ${{ git‸ }}", "github", "name: é😀 ${{ git }}"),
        ("run-name: é😀 ${{ git‸ }}", "github", "run-name: é😀 ${{ github }}"),
        ("run-name: ${{ github.re‸ }}", "ref", "run-name: ${{ github.ref }}"),
    ):
        before, _, after = text.partition(CURSOR)
        found = complete(language, before + after, len(before))
        texts = {each.label: each.text for each in found.suggestions}
        written = before[: found.start] + texts[label] + after if label in texts else before + after
        assert written == expected


KEY = re.compile(r"^( *(?:- +)?)([A-Za-z_][\w-]*):(?: |$)")
# of contexts whose names the document or GitHub defines: not secrets, variables and outputs of actions
REFERENCE = re.compile(
    r"\$\{\{ (?:github|needs|matrix|inputs|env|runner|steps|strategy|job)\.([A-Za-z_][\w-]*)(?: |\.outputs)"
)


def known_keys(language: Language, text: str, rng: random.Random) -> Iterator[tuple[int, str, str]]:
    """Lines, in any order, that begin with a key that the rules name: number, what is before the key, and the key."""
    lines = text.split("\n")
    for number in rng.sample(range(len(lines)), len(lines)):
        if found := KEY.match(lines[number]):
            cursor = find_cursor(text, sum(len(each) + 1 for each in lines[:number]) + len(found[1]))
            if cursor is not None and cursor.is_key and cursor.path[-1] == found[2]:
                node, pattern = language.find(cursor.path)
                if node is not None and pattern[-1] != "*":
                    yield number, found[1], found[2]


def missed(language: Language, text: str, most: int, rng: random.Random) -> tuple[int, list[str]]:
    """How many keys of a workflow were asked for as if they were typed again, and those that were not offered."""
    lines = text.split("\n")
    keys = list(itertools.islice(known_keys(language, text, rng), most))
    wrong = []
    for number, head, key in keys:
        above, below = "".join(f"{line}\n" for line in lines[:number]), "\n".join(["", *lines[number + 1 :]])
        for written, rest in ((head, below), (head, ""), (head + key[:2], below)):
            found = complete(language, above + written + rest, len(above + written))
            if key not in [each.label for each in found.suggestions]:
                wrong.append(f"{above[-80:]}{written}{CURSOR}{rest[:80]}: {key}")
    return len(keys), wrong


def test_every_key_of_a_workflow_is_offered_where_it_stands(language: Language) -> None:
    rng = random.Random(0)
    for index in range(8):
        count, wrong = missed(language, to_yaml(synthesize(index, 5)), 1000, rng)
        assert count > 5 and not wrong


def test_every_key_and_name_of_real_workflows_is_offered(language: Language, real_workflows: Any) -> None:
    rng = random.Random(1)
    keys, missed_keys = 0, []
    names, missed_names = 0, []
    for source in real_workflows.column("text").to_pylist():
        text = re.sub("\r\n?", "\n", source)
        problems = check_text("", text.encode(), language.tokenizer)
        if all(each.severity != "error" for each in problems):
            count, wrong = missed(language, text, 2, rng)
            keys, missed_keys = keys + count, missed_keys + wrong
        if problems:
            continue
        for found in list(REFERENCE.finditer(text))[:3]:
            if "#" in text[text.rfind("\n", 0, found.start()) + 1 : found.start()]:
                continue  # a comment
            names += 1
            without = text[: found.start(1)] + text[found.end(1) :]
            offered_here = complete(language, without, found.start(1)).suggestions
            if found[1] not in [each.label for each in offered_here]:
                missed_names.append(found[0])
    assert keys > 500 and len(missed_keys) <= keys // 500, missed_keys[:3]
    assert names > 200 and len(missed_names) <= names // 500, missed_names[:20]


def test_no_text_and_no_position_is_too_much(language: Language) -> None:
    rng = random.Random(2)
    for index in range(3):
        text = to_yaml(synthesize(index, 6))
        for _ in range(60):
            offset = rng.randrange(len(text) + 1)
            mangled = text[:offset] + rng.choice(["", "{", "'", '"', "&a", "*", "|", "\t", "- ", ": ", "${{"])
            mangled += text[offset + rng.choice([0, 0, 1, 5]) :] if rng.random() < 0.5 else ""
            complete(language, mangled, min(offset + 1, len(mangled)))


# ---- the table of descriptions ----


def patterns(language: Language) -> set[str]:
    """Every path of the rules, up to a depth at which they repeat themselves."""
    found: set[str] = set()
    waiting: list[tuple[tuple[str | int, ...], int]] = [((), 0)]
    while waiting:
        path, depth = waiting.pop(0)
        node, pattern = language.find(path)
        assert node is not None
        if (name := ".".join(pattern)) in found and not isinstance(path[-1], int):
            continue
        found.add(name)
        if depth < 8:
            names = [*node.known, *(["x"] if node.free and node.key("x") else [])]
            waiting += [((*path, name), depth + 1) for name in names if node.key(name)]
            if node.item is not None:
                waiting.append(((*path, 0), depth + 1))
    return found


def test_descriptions_are_of_keys_that_exist(language: Language) -> None:
    known = patterns(language)
    unused = [key for key in [*KEYS, *VALUES] if not any(f".{each}".endswith(f".{key}") for each in known)]
    assert unused == []
    assert set(CONTEXTS) == set(facts().contexts)
    assert set(FUNCTIONS) == set(facts().functions)
    assert max(map(len, KEYS.values())) <= 120


def test_common_keys_have_a_description(language: Language) -> None:
    for text in ("‸", "on:\n  ‸", "permissions:\n  ‸", "on: push\njobs:\n  b:\n    ‸"):
        before, _, after = text.partition(CURSOR)
        found = [
            each for each in complete(language, before + after, len(before)).suggestions if each.kind == "key"
        ]
        assert sum(each.description is not None for each in found) > 0.6 * len(found)
