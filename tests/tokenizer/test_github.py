"""GitHub's language: what its parser accepts and refuses, and what its language service has no complaint about.

The verdicts were taken from ``@actions/workflow-parser`` and ``@actions/languageservice`` 0.3.61.
"""

from __future__ import annotations

from typing import Any

import pytest

from nanochat_tct.documents import read_workflow
from nanochat_tct.tokenizer import TokenizerError, load_tokenizer

TOKENIZER: Any = load_tokenizer()


def verdicts(text: str) -> tuple[bool, bool]:
    """Whether the engine accepts a workflow, and whether it does so in strict mode too."""
    try:
        base = TOKENIZER.write(read_workflow(text, "yaml"))
    except TokenizerError:
        return False, False
    return True, TOKENIZER.engine.matcher(is_strict=True).advance(base)


def job(lines: str) -> str:
    return "on: push\njobs:\n  a:\n    runs-on: x\n" + "".join(f"    {line}\n" for line in lines.splitlines())


def step(lines: str) -> str:
    return job("steps:\n- " + lines.replace("\n", "\n  "))


def condition(text: str) -> str:
    return step(f"run: x\nif: {text}")


NAMES = """outputs:
  o: ${{ steps.s.outputs.x }}
strategy: {matrix: {m: [1]}}
steps:
- {id: s, run: "${{ matrix.m }}"}
- run: ${{ steps.s.outcome }}"""

GOOD = {  # no complaint
    "one job": job(""),
    "filters as texts": "on: {push: {branches: main}}\njobs: {a: {runs-on: x}}",
    "nulls for texts": step("run:\nenv: {A: , B: 1.5, C: true}"),
    "no needs": job("needs: []"),
    "an expression for a mapping": job("strategy: ${{ fromJSON(github.event.head_commit) }}"),
    "an expression for a boolean": job("continue-on-error: ${{ github.ref == 'x' }}"),
    "an expression as a key": job('env: {"${{ github.ref }}": x}'),
    "groups and arguments": step(
        "run: ${{ (format('{0} {{', github.ref)) || join(github.event.commits.*.id, ',') }}"
    ),
    "a condition without braces": condition("success() && !cancelled() && github.ref != 'a'"),
    "names": job(NAMES),
    "needs": job("").replace("jobs:\n", "jobs:\n  b: {runs-on: x, outputs: {o: y}}\n") + "    needs: b\n",
    "a schedule": "on: {schedule: [{cron: '*/15 1-5,7 * jan-MAR mon'}]}\njobs: {a: {runs-on: x}}",
    "inputs": "on: {workflow_dispatch: {inputs: {i: {type: choice, options: [a], default: a}}}}\n"
    "jobs: {a: {runs-on: 'x ${{ inputs.i }}'}}",
    "a called workflow": "on: push\njobs: {a: {uses: ./.github/workflows/b.yml, secrets: inherit}}",
}
COMPLAINTS = {  # accepted, with a complaint of the language service
    "text around a condition": condition("a ${{ github.ref }}"),
    "what no event has": job("name: ${{ github.event.pull_request }}"),
    "an unknown step": step("run: ${{ steps.s.outcome }}"),
    "an unknown input": job("name: ${{ inputs.i }}"),
    "a job that is not needed": job("name: ${{ needs.b.result }}"),
    "an unknown key of a context": step("run: ${{ runner.nope }}"),
    "too few arguments of a format": step("run: ${{ format('{1}', 1) }}"),
    "every minute": "on: {schedule: [{cron: '* * * * *'}]}\njobs: {a: {runs-on: x}}",
    "an action without a version": step("uses: actions/checkout"),
    "a workflow without a version": "on: push\njobs: {a: {uses: a/b/.github/workflows/c.yml}}",
    "cancelling a queue": job("concurrency: {group: x, queue: max, cancel-in-progress: true}"),
    "a job that waits for its workflow": "concurrency: x\n" + job("concurrency: x"),
}
BAD = {  # refused
    "no jobs": "on: push\njobs: {}",
    "an unknown event": "on: pushed\njobs: {a: {runs-on: x}}",
    "keys that differ in case": job("env: {a: 1, A: 2}"),
    "a job's name": "on: push\njobs: {__a: {runs-on: x}}",
    "both kinds of step": step("run: x\nuses: a/b@v1"),
    "a step without either": step("name: x"),
    "steps with one id": job("steps: [{id: a, run: x}, {id: a, run: x}]"),
    "a text for a boolean": job("continue-on-error: 'true'"),
    "a string in braces for a boolean": job("continue-on-error: ${{ 'true' }}"),
    "an empty text": job("defaults: {run: {shell: ''}}"),
    "an expression for an environment": job("env: ${{ fromJSON('{}') }}"),
    "an expression where none is offered": step("run: x\nshell: ${{ github.ref }}"),
    "a context that is not offered": job("name: ${{ secrets.X }}"),
    "a function that is not offered": job("name: ${{ always() }}"),
    "braces that do not close": job("name: ${{ github.ref"),
    "no expression": job("name: ${{ }}"),
    "too many arguments": job("name: ${{ contains('a', 'b', 'c') }}"),
    "an even number of arguments": job("name: ${{ case(true, 1) }}"),
    "a number": job("name: ${{ 1a }}"),
    "too deep": job("name: ${{ " + "(" * 50 + "1" + ")" * 50 + " }}"),
    "a condition": condition("github.ref = 'x'"),
    "an unknown job": job("needs: b"),
    "a circle": "on: push\njobs: {a: {runs-on: x, needs: b}, b: {runs-on: x, needs: a}, c: {runs-on: x}}",
    "no first job": job("needs: a"),
    "a schedule": "on: {schedule: [{cron: '0 0 * * 7'}]}\njobs: {a: {runs-on: x}}",
    "the type of an input": "on: {workflow_dispatch: {inputs: {i: {type: boolean, default: 'true'}}}}\n"
    "jobs: {a: {runs-on: x}}",
    "a choice without options": "on: {workflow_dispatch: {inputs: {i: {type: choice}}}}\njobs: {a: {runs-on: x}}",
    "a group of runners": "on: push\njobs: {a: {runs-on: {group: a/b}}}",
    "a container without an image": job("container: {options: x}"),
    "steps that are not there yet": step("run: x\nbackground: true"),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_accepts_in_both_modes(text: str) -> None:
    assert verdicts(text) == (True, True)


@pytest.mark.parametrize("text", COMPLAINTS.values(), ids=COMPLAINTS)
def test_strict_mode_refuses_what_the_language_service_complains_of(text: str) -> None:
    assert verdicts(text) == (True, False)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_refuses_what_the_parser_refuses(text: str) -> None:
    assert verdicts(text) == (False, False)


@pytest.mark.parametrize(
    "opening, inner, closing",
    [("(", "1", ")"), ("!", "1", ""), ("", "github", ".a"), ("github[", "1", "]"), ("1 || (", "1", ")")],
)
def test_counts_depth_as_the_parser_does(opening: str, inner: str, closing: str) -> None:
    def accepted(times: int) -> bool:
        text = opening * times + inner + closing * times
        return verdicts(job(f"name: ${{{{ {text} }}}}"))[0]

    deepest = 24 if "||" in opening else 49
    assert accepted(deepest) and not accepted(deepest + 1)


def test_states_have_one_way_to_go_on_and_strict_mode_no_dead_end() -> None:
    for automaton in TOKENIZER.engine.grammar["automata"]:
        lenient = set(automaton.get("lenient", ()))
        strict = automaton.get("strict", automaton["accepting"])
        for state, edges in enumerate(automaton["edges"]):
            calls = automaton["calls"][state] if "calls" in automaton else []
            ranges = sorted([*zip(edges[::3], edges[1::3]), *zip(calls[::4], calls[1::4])])  # noqa: B905
            assert all(high < low for (_, high), (low, _) in zip(ranges, ranges[1:]))  # noqa: B905, RUF007
            onward = {*edges[2::3], *calls[3::4]} - lenient
            assert state in lenient or strict[state] or onward
