"""The validator that samples are judged by."""

import pytest

from nanochat_tct.generation.validity import is_valid_workflow, schema_problem

STEPS = [{"run": "make"}]


@pytest.mark.parametrize(
    "value",
    [
        {"on": "push", "jobs": {"a": {"runs-on": "x", "steps": STEPS}}},
        {"on": {"schedule": [{"cron": "0 4 * * *"}]}, "jobs": {"a": {"uses": "./.github/workflows/b.yml"}}},
    ],
)
def test_valid(value: object) -> None:
    assert is_valid_workflow(value)
    assert schema_problem(value) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"jobs": {"a": {"runs-on": "x", "steps": STEPS}}}, "/: 'on' is a required property"),
        ({"on": "push", "jobs": {}}, "/jobs: "),
        ({"on": "push", "jobs": {"1a": {"runs-on": "x", "steps": STEPS}}}, "/jobs: "),
        ({"on": "psuh", "jobs": {"a": {"runs-on": "x", "steps": STEPS}}}, "/on: "),
        ({"on": "push", "jobs": {"\ud800": {"runs-on": "x", "steps": STEPS}}}, "surrogate"),
        (["on"], "/: "),
    ],
)
def test_invalid(value: object, says: str) -> None:
    problem = schema_problem(value)
    assert problem is not None and says in problem


def test_checking_changes_nothing() -> None:
    value = {"on": "push", "jobs": {"a": {"runs-on": "x", "steps": STEPS}}}
    is_valid_workflow(value)
    assert value == {"on": "push", "jobs": {"a": {"runs-on": "x", "steps": [{"run": "make"}]}}}
