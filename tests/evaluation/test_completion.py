"""`evaluate --completion`: where workflows are cut, and what is compared with what."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct.cli import main
from nanochat_tct.data.store_writer import write_store
from nanochat_tct.documents import read_workflow, to_yaml
from nanochat_tct.evaluation.completion import (
    Block,
    Cut,
    ModelSuggester,
    begins_workflow,
    choose_cuts,
    evaluate_completion,
    is_accepted,
)
from nanochat_tct.generation import Completer, Completion
from nanochat_tct.generation.prompt import encode_prompt
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from tests.support.models import model_that_knows, save, untrained_model, workflow

TOKENIZER = Tokenizer()
TEXT = """\
name: CI
on:
  push:
    branches:
      - main
jobs:
  build:
    runs-on: ubuntu-latest
    if: github.ref == 'refs/heads/main'
    steps:
      - uses: actions/checkout@v4
        with:
          fetch-depth: 0
      - name: Test
        run: |
          make

          # not a comment of the workflow
          - test: x
        env:
          A: 1
  call:
    needs: build
    uses: ./.github/workflows/call.yml
    with:
      a: b
"""
VALUE = read_workflow(TEXT)


@pytest.fixture(scope="module")
def cuts() -> dict[str, Cut]:
    """All cuts of TEXT by the line that follows."""
    found = choose_cuts(["o/r"], lambda index: VALUE, 1000, seed=0)
    return {cut.after[0].strip(): cut for cut in found}


def test_a_workflow_is_cut_before_every_line_save_the_first_blank_ones_and_comments(
    cuts: dict[str, Cut],
) -> None:
    assert to_yaml(VALUE) == TEXT
    lines = [line.strip() for line in TEXT.splitlines()[1:]]
    assert set(cuts) == {line for line in lines if line and not line.startswith("#")}
    for cut in cuts.values():
        assert cut.before + "\n".join(cut.after) + "\n" == TEXT


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("triggers", ["on:", "push:", "branches:", "- main"]),
        ("uses", ["- uses: actions/checkout@v4", "uses: ./.github/workflows/call.yml"]),
        ("with", ["with:", "fetch-depth: 0", "a: b"]),
        ("run", ["run: |", "make", "- test: x"]),
        ("if", ["if: github.ref == 'refs/heads/main'"]),
        (
            "the rest",
            ["jobs:", "build:", "runs-on: ubuntu-latest", "steps:", "- name: Test", "env:", "A: 1", "call:"],
        ),
    ],
)
def test_kinds_of_lines(cuts: dict[str, Cut], kind: str, lines: list[str]) -> None:
    assert {cuts[line].kind for line in lines} == {kind}


@pytest.mark.parametrize(
    ("line", "step", "job"),
    [
        ("on:", None, None),
        ("jobs:", None, None),
        ("build:", None, Block(2, True)),
        ("steps:", None, Block(2, False)),
        ("- uses: actions/checkout@v4", Block(6, True), Block(2, False)),
        ("fetch-depth: 0", Block(6, False), Block(2, False)),
        ("- test: x", Block(6, False), Block(2, False)),
        ("uses: ./.github/workflows/call.yml", None, Block(2, False)),
    ],
)
def test_the_step_and_job_of_a_line(
    cuts: dict[str, Cut], line: str, step: Block | None, job: Block | None
) -> None:
    assert (cuts[line].step, cuts[line].job) == (step, job)


def test_the_rest_of_a_step_and_of_a_job(cuts: dict[str, Cut]) -> None:
    cut = cuts["- uses: actions/checkout@v4"]
    assert cut.step is not None and cut.job is not None
    assert cut.step.of(cut.after) == TEXT.splitlines()[10:13]
    assert cut.job.of(cut.after) == TEXT.splitlines()[10:21]
    cut = cuts["run: |"]
    assert cut.step is not None
    assert cut.step.of(cut.after) == TEXT.splitlines()[14:21]  # with a blank line, and what looks like a step
    assert not cut.step.is_over(cut.after[:7]) and cut.step.is_over(cut.after[:8])
    cut = cuts["build:"]
    assert cut.job is not None
    assert cut.job.of(cut.after) == TEXT.splitlines()[6:21]
    assert not cut.job.is_over(cut.after[:15]) and cut.job.is_over(cut.after[:16])


def test_a_suggestion_that_ends_the_block_suggests_nothing_in_it() -> None:
    assert Block(6, False).of(["      - uses: x"]) == []
    assert Block(6, True).of(["  next:"]) == []
    assert Block(6, True).of(["      - uses: x", "", ""]) == ["      - uses: x"]
    assert Block(6, True).of([]) == []


def test_each_repository_gets_a_cut_before_one_gets_a_second() -> None:
    repositories = ["big/one"] * 30 + ["a/b", "c/d", "c/d"]
    values = {index: workflow(index) for index in range(33)}
    for count, least in ((3, 1), (6, 2), (30, 10)):
        found = Counter(cut.repository for cut in choose_cuts(repositories, values.__getitem__, count, 1))
        assert found.total() == count and set(found) == set(repositories) and min(found.values()) == least
    first = choose_cuts(repositories, values.__getitem__, 10, 1)
    assert first == choose_cuts(repositories, values.__getitem__, 10, 1)
    assert first != choose_cuts(repositories, values.__getitem__, 10, 2)
    assert choose_cuts([], values.__getitem__, 10, 1) == []


class Knows:
    """Knows what the authors wrote, or goes on with one line always. Remembers what it was given."""

    def __init__(self, cuts: Sequence[Cut], always: str | None = None) -> None:
        self.after = {cut.before: cut.after if always is None else [always] for cut in cuts}
        self.given: set[str] = set()

    def next_lines(self, before: str) -> list[Completion]:
        self.given.add(before)
        return [Completion(line, 0.9) for line in self.after[before][:1]]

    def continuations(self, befores: Sequence[str], blocks: Sequence[Block]) -> Iterator[str]:
        for before in befores:
            yield "".join(f"{line}\n" for line in self.after[before])


def test_who_knows_everything_is_always_right(cuts: dict[str, Cut]) -> None:
    every = list(cuts.values())
    result = evaluate_completion(Knows(every), every, TOKENIZER)
    assert result["cuts"] == len(every) == result["next_line"]["cuts"] and result["repositories"] == 1
    assert sum(row["cuts"] for row in result["by_kind"].values()) == len(every)
    for row in (
        result["next_line"],
        result["rest_of_step"],
        result["rest_of_job"],
        *result["by_kind"].values(),
    ):
        for name in ("right", "first_token", "similarity", "accepted"):
            assert row[name] == [1, 1, 1], name
    assert result["next_line"]["bleu"] == [1, 1, 1]
    assert 0.9 < result["next_line"]["keystrokes_saved"][0] < 1
    (row,) = result["reliability"]
    assert row["suggestions"] == len(every) and row["expected"] == pytest.approx(0.9)
    assert row["right"] == [1, 1, 1]


def test_who_always_says_the_same(cuts: dict[str, Cut]) -> None:
    every = list(cuts.values())
    result = evaluate_completion(Knows(every, "      - uses: actions/checkout@v4"), every, TOKENIZER)
    assert result["next_line"]["right"][0] == pytest.approx(1 / len(every))
    assert result["by_kind"]["uses"]["right"][0] == pytest.approx(1 / 2)
    assert 0 < result["next_line"]["accepted"][0] < 0.5


class Stops(Knows):
    """Knows what the authors wrote, and stops after two lines, or says that the workflow ends there."""

    end = ""

    def continuations(self, befores: Sequence[str], blocks: Sequence[Block]) -> Iterator[str]:
        for before in befores:
            yield "\n".join(self.after[before][:2]) + self.end


def test_lines_after_which_a_block_would_go_on_begin_an_accepted_workflow(cuts: dict[str, Cut]) -> None:
    cut = cuts["- name: Test"]
    stops = Stops([replace(cut, after=["      - name: Test", "        env:", "          A: 1"])])
    result = evaluate_completion(stops, [cut], TOKENIZER)
    assert result["rest_of_step"]["accepted"][0] == result["rest_of_job"]["accepted"][0] == 1
    stops.end = "\n"
    result = evaluate_completion(stops, [cut], TOKENIZER)
    assert result["rest_of_step"]["accepted"][0] == result["rest_of_job"]["accepted"][0] == 0


def test_the_lines_that_a_documents_tokens_have_written(cuts: dict[str, Cut]) -> None:
    """At each token they are the first ones of the author's."""
    completer = Completer.from_model(untrained_model(), TOKENIZER)
    tokens = TOKENIZER.encode_value(VALUE)
    for cut in cuts.values():
        prompt = encode_prompt(cut.before, TOKENIZER)
        assert completer.text_after(prompt, tokens) == "".join(f"{line}\n" for line in cut.after)
        written = [
            completer.text_after(prompt, tokens[:end]) for end in range(len(prompt.tokens), len(tokens), 3)
        ]
        assert len(written[0]) < 40 and (len(cut.after) < 9 or written[-1].count("\n") > len(cut.after) - 8)
        for text in written:
            assert not text.endswith("\n")
            lines = text.split("\n") if text else []
            assert lines == cut.after[: len(lines)]


def test_what_is_accepted() -> None:
    assert begins_workflow("on: push\njobs:\n  a:\n    runs-on: x\n", TOKENIZER)
    assert not begins_workflow("on: push\njobs:\n  a:\n    runs_on: x\n", TOKENIZER)
    assert not is_accepted("on: push\njobs:\n  a:\n    runs-on: x\n    needs: b\n    steps: []\n", TOKENIZER)
    assert is_accepted(TEXT, TOKENIZER)


def test_a_model_that_knows_workflows_by_heart_completes_them() -> None:
    values = [workflow(index) for index in range(3)]
    suggester = ModelSuggester(Completer.from_model(model_that_knows(values, TOKENIZER), TOKENIZER))
    cuts = choose_cuts([f"o/{index}" for index in range(3)], values.__getitem__, 40, seed=0)
    result = evaluate_completion(suggester, cuts, TOKENIZER)
    for name in ("next_line", "rest_of_step", "rest_of_job"):
        assert result[name]["right"][0] > 0.8, name
        assert result[name]["accepted"][0] == 1
    untrained = ModelSuggester(Completer.from_model(untrained_model(), TOKENIZER))
    result = evaluate_completion(untrained, cuts, TOKENIZER)
    assert result["next_line"]["right"][0] < 0.4 and result["rest_of_job"]["accepted"][0] == 1


def test_continuations_do_not_depend_on_what_else_is_continued() -> None:
    values = [workflow(index) for index in range(3)]
    suggester = ModelSuggester(Completer.from_model(model_that_knows(values, TOKENIZER, iters=20), TOKENIZER))
    cuts = [
        cut for cut in choose_cuts(["a", "b", "c"], values.__getitem__, 24, seed=0) if cut.job is not None
    ]
    befores, blocks = [cut.before for cut in cuts], [cut.job for cut in cuts if cut.job is not None]
    together = list(suggester.continuations(befores, blocks))
    for before, block, text in zip(befores, blocks, together, strict=True):
        assert list(suggester.continuations([before], [block])) == [text]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint that knows its validation documents by heart, and the store."""
    folder = tmp_path_factory.mktemp("held-out")
    write_store(folder / "store", [workflow(index) for index in range(12)], TOKENIZER)
    return save(
        model_that_knows([workflow(index) for index in range(12)], TOKENIZER), folder / "run"
    ), folder / "store"


def evaluate(run: tuple[Path, Path], *arguments: str) -> int:
    checkpoint, store = run
    return main(
        ["evaluate", "--checkpoint", str(checkpoint), "--data-dir", str(store), "--num-samples=0", *arguments]
    )


def test_the_command(run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    results: list[Any] = []
    for _ in range(2):
        assert evaluate(run, "--completion", "12", "--json") == 0
        results.append(json.loads(capsys.readouterr().out)["completion"])
    assert results[0] == results[1]
    assert results[0]["cuts"] == 12 and results[0]["next_line"]["right"][0] > 0.5
    assert evaluate(run, "--completion", "12", "--seed", "1") == 0
    printed = capsys.readouterr().out
    assert "completion     12 lines of " in printed
    rows = [line.split()[:2] for line in printed.splitlines()]
    assert ["next", "line"] in rows and ["rest", "of"] in rows and ["probability", "lines"] in rows
    assert evaluate(run) == 0
    assert "completion" not in capsys.readouterr().out
    assert evaluate(run, "--completion", "-1") == 2
