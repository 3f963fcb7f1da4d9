"""What expressions may refer to, depending on their place in a workflow."""

import re
from collections.abc import Callable
from typing import Any


def _sets(table: dict[str, str]) -> dict[str, frozenset[str]]:
    """The words of each text as a set."""
    return {name: frozenset(words.split()) for name, words in table.items()}


_STEP = "github needs strategy matrix job runner env vars secrets steps inputs hashFiles"
_JOB_SECRETS = "github needs strategy matrix vars inputs secrets"
# The contexts that GitHub offers in each place, and the functions that it offers only in some. What stands under a key
# is in the place of what surrounds it, unless that place and the key make a place of their own.
PLACES = _sets(
    {
        "workflow": "github inputs vars",
        "workflow.on": "",
        "workflow.env": "github inputs vars secrets",
        "job": "github needs strategy matrix vars inputs",
        "job.strategy": "github needs vars inputs",
        "job.if": "github needs vars inputs status",
        "job.env": _JOB_SECRETS,
        "job.secrets": _JOB_SECRETS,
        "job.credentials": _JOB_SECRETS,
        "step": _STEP,
        "step.if": _STEP.replace("secrets ", "") + " status",
    }
)
INNER = {place.partition(".")[2] for place in PLACES}  # keys that may lead to a place of their own
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.S)
_QUOTED = re.compile(r"'[^']*'")
_REFERENCE = re.compile(
    r"(?<![\w.-])(github|needs|strategy|matrix|job|runner|env|vars|secrets|steps|inputs|jobs)\b"
    r"(?:\.([\w*-]+))?(?:\.([\w*-]+))?(?:\.([\w*-]+))?"
)
_FUNCTION = re.compile(r"\b(hashFiles|always|failure|success|cancelled)\(")
# The triggers that have a property of github.event, where not all have it; `labeled` is a type of some triggers.
_EVENTS = _sets(
    {
        "pull_request": "pull_request pull_request_target pull_request_review pull_request_review_comment",
        "number": "pull_request pull_request_target",
        "issue": "issues issue_comment",
        "comment": "issue_comment pull_request_review_comment",
        "label": "labeled",
        "release": "release",
        "workflow_run": "workflow_run",
        "head_commit": "push",
        "before": "push",
        "action": "pull_request pull_request_target issues issue_comment release",
        "client_payload": "repository_dispatch",
        "schedule": "schedule",
        "merge_group": "merge_group",
        "repository": "push pull_request pull_request_target issues issue_comment release workflow_run "
        "workflow_dispatch repository_dispatch merge_group",
    }
)


class Scope:
    """What exists in a workflow while it is written.

    Attributes:
        place: a key of `PLACES`.
        events: the triggers, and `labeled` if one of them is for labels.
        inputs: the names of the workflow's inputs.
        outputs: for each job so far, the names of its outputs.
        env: the variables of the workflow and of the current job.
        needs: the jobs that the current job waits for.
        matrix: the keys of the current job's matrix.
        services: the names of the current job's service containers.
        steps: for each id in the current job so far, the names of that step's outputs.
    """

    __slots__ = ("env", "events", "inputs", "matrix", "needs", "outputs", "place", "services", "steps")

    def __init__(self) -> None:
        self.place = "workflow"
        self.events: set[str] = set()
        self.inputs: list[str] = []
        self.outputs: dict[str, list[str]] = {}
        self.env: dict[str, list[str]] = {"workflow": []}
        self.enter_job()

    def enter_job(self) -> None:
        """Forget everything of the job before."""
        self.needs: list[str] = []
        self.matrix: list[str] = []
        self.services: list[str] = []
        self.steps: dict[str, list[str]] = {}
        self.env["job"] = []

    def enter(self, place: str, key: str) -> None:
        """Go from a place to that of one of its keys."""
        inner = f"{place}.{key}"
        self.place = inner if inner in PLACES else place

    def define(self, part: str, key: str, value: Any) -> None:
        """Note what the value of a key of the workflow or job gives to later expressions."""
        if key == "on":
            self._set_triggers(value)
        elif key == "env":
            self.env[part] = list(value)
        elif key == "needs":
            self.needs = [value] if isinstance(value, str) else value
        elif key == "strategy":
            self.matrix = _matrix_keys(value["matrix"])
        elif key == "services":
            self.services = list(value)

    def _set_triggers(self, on: Any) -> None:
        self.events = {on} if isinstance(on, str) else set(on)
        for event in on.values() if isinstance(on, dict) else ():
            if isinstance(event, dict):
                self.inputs += [name for name in event.get("inputs", {}) if name not in self.inputs]
                self.events.update({"labeled"} & set(event.get("types", ())))

    def holds(self, text: str) -> bool:
        """Return whether all that the text's expressions refer to exists here; a condition is one expression."""
        is_bare = self.place.endswith(".if") and "${{" not in text
        expressions = [text] if is_bare else _EXPRESSION.findall(text)
        contexts = PLACES[self.place]
        for expression in expressions:
            expression = _QUOTED.sub("''", expression)
            for function in _FUNCTION.findall(expression):
                if ("hashFiles" if function == "hashFiles" else "status") not in contexts:
                    return False
            for context, *names in _REFERENCE.findall(expression):
                if context not in contexts or not self._exists(context, *names):
                    return False
        return True

    def _exists(self, context: str, first: str, second: str, third: str) -> bool:
        if context == "github":
            if first != "event":
                return True
            if second == "inputs":
                return "workflow_dispatch" in self.events and third in self.inputs
            return second in _EVENTS and not self.events.isdisjoint(_EVENTS[second])
        if context == "inputs":
            return first in self.inputs
        if context == "needs":
            if first in ("", "*"):
                return bool(self.needs)
            return first in self.needs and (second != "outputs" or third in self.outputs.get(first, ()))
        if context == "steps":
            return first in self.steps and (second != "outputs" or third in self.steps[first])
        if context == "matrix":
            return first in self.matrix
        if context == "env":
            return first in self.env["workflow"] or first in self.env["job"]
        if context == "job" and first == "services":
            return second in self.services
        return True


# Words that stand for references to something that exists, and all that they may stand for.
REFERENCES: dict[str, Callable[[Scope], list[str]]] = {
    "input": lambda scope: [f"inputs.{name}" for name in scope.inputs],
    "step reference": lambda scope: [f"steps.{step}" for step in scope.steps],
    "step output": lambda scope: [
        f"steps.{step}.outputs.{name}" for step, names in scope.steps.items() for name in names
    ],
    "job reference": lambda scope: [f"needs.{job}" for job in scope.needs],
    "job output": lambda scope: [
        f"needs.{job}.outputs.{name}" for job in scope.needs for name in scope.outputs.get(job, ())
    ],
    "matrix key": lambda scope: [f"matrix.{key}" for key in scope.matrix],
    "env name": lambda scope: [f"env.{name}" for names in scope.env.values() for name in names],
}


def _matrix_keys(matrix: Any) -> list[str]:
    """Return the keys that every combination has; none if the matrix is an expression."""
    if not isinstance(matrix, dict):
        return []
    include = matrix.get("include", [])
    keys = [key for key in matrix if key not in ("include", "exclude")]
    return keys + [key for item in include if isinstance(item, dict) for key in item if key not in keys]
