"""What is said of a workflow that GitHub refuses, or complains of: where, and what would be right."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nanochat_tct.documents import read_workflow
from nanochat_tct.tokenizer import TokenizerError, load_tokenizer
from tests.tokenizer.test_github import BAD, COMPLAINTS, GOOD, condition, job, step


def problems(value: Any) -> list[tuple[str, str, int | None, str]]:
    tokenizer: Any = load_tokenizer()
    found = tokenizer.problems(value)
    return [("warning" if p.is_warning else "error", p.pointer, p.offset, p.message) for p in found]


def of(text: str) -> list[tuple[str, str, int | None, str]]:
    return problems(read_workflow(text, "yaml"))


STEP = "/jobs/a/steps/0"
ERRORS = [  # a workflow; the pointer and the offset of its only error, and what the message says
    (job("runs_on: x"), "/jobs/a/runs_on", None, "unknown key 'runs_on'; did you mean 'runs-on'?"),
    ("on: push\njobs: {a: {runs_on: x}}", "/jobs/a/runs_on", None, "did you mean 'runs-on'?"),
    ("on: push\njobs: {a: {steps: []}}", "/jobs/a", None, "missing"),
    ("jobs: {a: {runs-on: x}}", "", None, "missing 'on'"),
    ("on: push", "", None, "missing 'jobs'"),
    ("on: pusj\njobs: {a: {runs-on: x}}", "/on", None, "did you mean 'push'?"),
    (job("steps: {}"), "/jobs/a/steps", None, "a mapping where a list is expected"),
    (job("permissions: {content: read}"), "/jobs/a/permissions/content", None, "did you mean 'contents'?"),
    (job("permissions: {contents: reed}"), "/jobs/a/permissions/contents", None, "did you mean 'read'?"),
    (step("run: x\nuses: a/b@v1"), f"{STEP}/uses", None, "'uses' cannot stand beside 'run'"),
    (
        step("run: x\ntimeout-minutes: [1]"),
        f"{STEP}/timeout-minutes",
        None,
        "a list where an expression or a number",
    ),
    (step("run: ${{ secret.X }}"), f"{STEP}/run", 4, "there is no context 'secret'; did you mean 'secrets'?"),
    (job("env: {A: '${{ steps.x }}'}"), "/jobs/a/env/A", 4, "'steps' is not offered here: github, inputs"),
    (step("run: ${{ foo() }}"), f"{STEP}/run", 4, "there is no function 'foo'"),
    (step("run: ${{ always() }}"), f"{STEP}/run", 4, "always() is not offered here"),
    (step("run: ${{ hashFiles() }}"), f"{STEP}/run", 14, "hashFiles() takes at least 1 argument"),
    (step("run: ${{ contains('a') }}"), f"{STEP}/run", 16, "contains() takes 2 arguments"),
    (step("run: ${{ startsWith('a', 'b', 'c') }}"), f"{STEP}/run", 25, "startsWith() takes 2 arguments"),
    (step('run: ${{ "a" }}'), f"{STEP}/run", 4, "single quotes"),
    (step("run: ${{ github.ref = 'x' }}"), f"{STEP}/run", 15, "did you mean '=='?"),
    (step("run: ${{ github.ref & true }}"), f"{STEP}/run", 15, "did you mean '&&'?"),
    (step("run: ${{ (1 }}"), f"{STEP}/run", 7, "')' is missing"),
    (step("run: ${{ 1 || }}"), f"{STEP}/run", 9, "something must follow '||'"),
    (step("run: ${{ 1 + 2 }}"), f"{STEP}/run", 6, "expressions cannot calculate"),
    (step("run: ${{ github.ref 'x' }}"), f"{STEP}/run", 15, "an operator is missing"),
    (step("run: ${{ }}"), f"{STEP}/run", 3, "the expression is empty"),
    (step("run: a ${{ github.ref"), f"{STEP}/run", 2, "'}}' is missing"),
    (step("run: ${{ 'a }}"), f"{STEP}/run", 4, "not closed"),
    (condition("github.ref == 'a' &&"), f"{STEP}/if", 20, "something must follow '&&'"),
    (condition("github.ref = 'a'"), f"{STEP}/if", 11, "did you mean '=='?"),
    (condition("github.ref == 'a' && foo.b"), f"{STEP}/if", 21, "there is no context 'foo'"),
    (step("id: 1a\nrun: x"), f"{STEP}/id", 0, "cannot be the id of a step"),
    ("on: push\njobs: {1a: {runs-on: x}}", "/jobs/1a", 0, "cannot be the id of a job"),
    ("on: push\njobs: {a: {runs-on: x, needs: b}}", "/jobs/a/needs", None, "there is no job 'b'"),
    (
        "on: {schedule: [{cron: '0 25 * * *'}]}\njobs: {a: {runs-on: x}}",
        "/on/schedule/0/cron",
        2,
        "'25' is not right for the hour: 0 to 23",
    ),
    (
        "on: {schedule: [{cron: '0 2 * *'}]}\njobs: {a: {runs-on: x}}",
        "/on/schedule/0/cron",
        0,
        "5 fields",
    ),
    (
        job("steps: [{id: s, run: x}, {id: s, run: y}]"),
        "/jobs/a/steps/1/id",
        None,
        "stands twice in this job",
    ),
    ("on: push\njobs: {a: {runs-on: x, name: A, NAME: B}}", "/jobs/a/NAME", None, "as 'name' already"),
    ("on: push\non-failure: x\njobs: {a: {runs-on: x}}", "/on-failure", None, "unknown key 'on-failure'"),
    (
        "on: {workflow_dispatch: {inputs: {i: {type: text}}}}\njobs: {a: {runs-on: x}}",
        "/on/workflow_dispatch/inputs/i/type",
        None,
        "'text' where one of",
    ),
    (
        "on: {workflow_dispatch: {inputs: {i: {type: choice}}}}\njobs: {a: {runs-on: x}}",
        "/on/workflow_dispatch/inputs/i",
        None,
        "missing 'options', which goes with 'type: choice'",
    ),
    (
        "on: {workflow_dispatch: {inputs: {i: {type: boolean, default: x}}}}\njobs: {a: {runs-on: x}}",
        "/on/workflow_dispatch/inputs/i/default",
        None,
        "'x' does not go with 'type' beside it",
    ),
    ("on: push\njobs: {}", "/jobs", None, "the mapping is empty"),
]
WARNINGS = [
    (step("run: ${{ steps.s.outcome }}"), f"{STEP}/run", 10, "no earlier step of this job has the id 's'"),
    (step("id: s\nrun: ${{ steps.s.outcome }}"), f"{STEP}/run", 10, "has not run yet"),
    (job("name: ${{ needs.b.result }}"), "/jobs/a/name", 10, "there is no job 'b'"),
    (job("name: ${{ needs.a.result }}"), "/jobs/a/name", 10, "this job does not need 'a'"),
    (job("name: ${{ inputs.i }}"), "/jobs/a/name", 11, "the workflow has no input 'i'"),
    (
        job("strategy: {matrix: {os: [x]}}\nname: ${{ matrix.oss }}"),
        "/jobs/a/name",
        11,
        "the matrix of this job has no 'oss'; did you mean 'os'?",
    ),
    (step("env: {A: 1}\nrun: ${{ env.B }}"), f"{STEP}/run", 8, "sets 'B'"),
    (step("run: ${{ github.evnt }}"), f"{STEP}/run", 11, "did you mean 'event'?"),
    (step("run: ${{ github.event.pull_request }}"), f"{STEP}/run", 17, "its events (push) have no"),
    (step("run: ${{ job.services.a }}"), f"{STEP}/run", 8, "job has no 'services'"),
    (step("run: ${{ runner.nope }}"), f"{STEP}/run", 11, "runner has no 'nope'"),
    (step("run: ${{ format('{1}', 1) }}"), f"{STEP}/run", 11, "{1}, and 1 arguments"),
    (condition("a ${{ github.ref }}"), f"{STEP}/if", 0, "always true"),
    (step("uses: actions/checkout"), f"{STEP}/uses", 16, "a version must follow"),
    (step("uses: actions/checkout@1234567"), f"{STEP}/uses", 17, "whole hashes only"),
    (
        "on: {schedule: [{cron: '* * * * *'}]}\njobs: {a: {runs-on: x}}",
        "/on/schedule/0/cron",
        0,
        "every 5 minutes",
    ),
]


@pytest.mark.parametrize(("text", "pointer", "offset", "message"), ERRORS)
def test_an_error_says_where_and_what_would_be_right(
    text: str, pointer: str, offset: int | None, message: str
) -> None:
    found = [each for each in of(text) if each[0] == "error"]
    assert [each[1] for each in found if "every job needs" not in each[3]] == [pointer], found
    assert found[0][2] == offset and message in found[0][3], found


@pytest.mark.parametrize(("text", "pointer", "offset", "message"), WARNINGS)
def test_a_warning_says_where_and_what_would_be_right(
    text: str, pointer: str, offset: int | None, message: str
) -> None:
    ((severity, where, place, said),) = of(text)
    assert (severity, where, place) == ("warning", pointer, offset) and message in said


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_said_of_what_is_right(name: str) -> None:
    assert of(GOOD[name]) == []


@pytest.mark.parametrize("name", COMPLAINTS)
def test_complaints_are_warnings(name: str) -> None:
    assert {severity for severity, *_ in of(COMPLAINTS[name])} <= {"warning"}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_has_an_error(name: str) -> None:
    assert "error" in {severity for severity, *_ in of(BAD[name])}


def test_names_are_those_of_the_whole_document() -> None:
    """A job may need a later one, and names differ in case."""
    text = """
on: {workflow_dispatch: {inputs: {Version: {type: string}}}}
jobs:
  a:
    needs: b
    runs-on: x
    if: needs.B.outputs.O == inputs.version
    strategy: {matrix: {Os: [1], include: [{more: 1}]}}
    steps:
    - {id: One, run: "${{ matrix.os }} ${{ matrix.more }} ${{ github.event.inputs.version }}"}
    - {run: "${{ steps.one.outputs.x }} ${{ steps['one'].outcome }} ${{ steps.*.outcome }}"}
  b:
    runs-on: x
    outputs: {o: y}
"""
    assert of(text) == []
    assert [p[1:3] for p in of(text.replace("outputs.O", "outputs.P"))] == [("/jobs/a/if", 16)]


def test_names_in_a_document_of_another_shape() -> None:
    """References are looked up though what they are in, or refer to, is not as it should be."""
    missing = "on: push\njobs: {a: {needs: b, runs-on: x, steps: [{run: '${{ needs.b.outputs.o }}'}]}}"
    assert [p[1] for p in of(missing)] == ["/jobs/a/needs", "/jobs"]
    mapping = "on: push\njobs: {a: {runs-on: x, steps: {b: {run: '${{ env.C }} ${{ steps.d.outcome }}'}}}}"
    assert [p[1] for p in of(mapping)] == ["/jobs/a/steps", *["/jobs/a/steps/b/run"] * 2]


EVERYTHING = """
on: {workflow_call: {inputs: {f: {type: string}}}, push: {branches: [main]}}
env: {A: x}
jobs:
  a:
    runs-on: x
    outputs: {b: "${{ steps.s.outputs.b }}"}
    steps: [{id: s, run: "${{ env.A }} ${{ inputs.f }}"}, {parallel: [{run: "${{ steps.s.outcome }}"}]}]
  b:
    needs: [a]
    runs-on: "${{ matrix.c }}"
    strategy: {matrix: {c: [x], include: [{d: 1}]}}
    services: {e: {image: "${{ inputs.f }}"}}
    steps: [{uses: g/h@v1, if: env.B, env: {B: "${{ needs.a.outputs.b }}"}, with: {i: "${{ job.services.e.id }}"}}]
  c: {needs: a, uses: ./.github/workflows/d.yml, with: {f: "${{ needs.a.result }}"}}
"""


def misplaced(value: Any) -> Iterator[Any]:
    """The value with one part at a time under another key, wrapped, or of another kind."""
    yield from ([value], {"a": value}, None, "a", 1)
    if isinstance(value, dict):
        for key, inner in value.items():
            others = {name: each for name, each in value.items() if name != key}
            yield {**others, f"{key}s": inner}
            yield from ({**others, key: other} for other in misplaced(inner))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in misplaced(inner))


def test_a_document_with_a_part_in_the_wrong_place_has_an_error_exactly_if_it_is_refused() -> None:
    tokenizer = load_tokenizer()
    verdicts = set()
    for value in misplaced(read_workflow(EVERYTHING, "yaml")):
        try:
            tokenizer.encode_value(value)
            is_refused = False
        except TokenizerError:
            is_refused = True
        assert is_refused == any(kind == "error" for kind, *_ in problems(value)), value
        verdicts.add(is_refused)
    assert verdicts == {True, False}


def test_all_problems_of_a_document_are_found() -> None:
    text = """
on: {push: {branch: main}}
env: {A: "${{ secret.X }}"}
jobs:
  a:
    runs_on: x
    steps:
    - uses: actions/checkout@v4
      wiht: {}
    - run: ${{ foo.a }} ${{ github.ref }} ${{ bar.b || baz.c }} ${{ hashFiles() }}
    - {}
  b: {needs: [c, d], runs-on: x}
  c: {needs: b, runs-on: x}
"""
    found = of(text)
    assert [(pointer, offset) for severity, pointer, offset, _ in found] == [
        ("/on/push/branch", None),
        ("/env/A", 4),
        ("/jobs/a/runs_on", None),
        ("/jobs/a/steps/0/wiht", None),
        ("/jobs/a/steps/1/run", 4),
        ("/jobs/a/steps/1/run", 35),
        ("/jobs/a/steps/1/run", 44),
        ("/jobs/a/steps/1/run", 67),
        ("/jobs/a/steps/2", None),
        ("/jobs/b/needs/1", None),
        ("/jobs/b/needs/0", None),
    ]
    assert found[-1][3] == "jobs need one another in a circle: b -> c -> b"


def one_job(**keys: Any) -> Any:
    return {"on": "push", "jobs": {"a": {"runs-on": "x", **keys}}}


@pytest.mark.parametrize(
    ("size", "make"),
    [
        (125, lambda n: {"on": "push", "jobs": {f"a{i}": {"needs": f"a{i + 1}"} for i in range(n)}}),
        (
            125,
            lambda n: {"on": "push", "env": {f"a{i}": f"${{{{ env.b{i} }}}}" for i in range(n)}, "jobs": {}},
        ),
        (500, lambda n: one_job(steps=[{"id": "s"}] * n)),
        (500, lambda n: one_job(steps=[{"run": "${{ steps.s.x }}" * n}])),
        (500, lambda n: one_job(name="${{ a ${{ '" * n)),
        (500, lambda n: one_job(name="${{ " + "(" * n)),
    ],
)
def test_time_is_linear(size: int, make: Any) -> None:
    """Twice as much takes at most about twice as long; four times would be quadratic."""
    seconds = []
    for times in (1, 4):
        value, tries = make(size * times), []
        for _ in range(3):  # the least of three: a search for garbage may fall into one
            begin = time.process_time()
            assert problems(value)
            tries.append(time.process_time() - begin)
        seconds.append(min(tries))
    assert seconds[1] < 10 * seconds[0] + 0.2


def test_an_unknown_key_is_compared_with_others_once_in_each_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing names takes nearly all of the time; one search is for errors, one for warnings."""
    compared: list[str] = []
    compare = difflib.get_close_matches

    def counted(word: str, *others: Any, **options: Any) -> list[str]:
        compared.append(word)
        return compare(word, *others, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    unknown = {f"key{i}": 1 for i in range(50)}
    assert len(problems({**one_job(), **unknown})) == 50
    assert len(compared) <= 2 * 50
