"""What expressions may refer to, depending on their place in a workflow."""

import re
from typing import Any

_STEP = "github needs strategy matrix job runner env vars secrets steps inputs hashFiles"
# The contexts that GitHub offers in each place, and the functions that it offers only in some.
PLACES = {
    place: frozenset(contexts.split())
    for place, contexts in {
        "on": "",
        "workflow": "github inputs vars",
        "workflow.env": "github inputs vars secrets",
        "job": "github needs strategy matrix vars inputs",
        "job.strategy": "github needs vars inputs",
        "job.if": "github needs vars inputs status",
        "job.env": "github needs strategy matrix vars inputs secrets",
        "step": _STEP,
        "step.if": _STEP.replace("secrets ", "") + " status",
    }.items()
}
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.S)
_QUOTED = re.compile(r"'[^']*'")
_REFERENCE = re.compile(
    r"(?<![\w.-])(github|needs|strategy|matrix|job|runner|env|vars|secrets|steps|inputs|jobs)\b"
    r"(?:\.([\w*-]+))?(?:\.([\w*-]+))?(?:\.([\w*-]+))?"
)
_FUNCTION = re.compile(r"\b(hashFiles|always|failure|success|cancelled)\(")
_PULL_REQUEST = frozenset("pull_request pull_request_target".split())
# Properties of github.event that only some triggers have.
_EVENTS = {
    "pull_request": _PULL_REQUEST | {"pull_request_review", "pull_request_review_comment"},
    "number": _PULL_REQUEST,
    "issue": frozenset({"issues", "issue_comment"}),
    "comment": frozenset({"issue_comment", "pull_request_review_comment"}),
    "label": frozenset({"labeled"}),  # a type of issues and pull requests
    "release": frozenset({"release"}),
    "workflow_run": frozenset({"workflow_run"}),
    "head_commit": frozenset({"push"}),
    "before": frozenset({"push"}),
    "action": _PULL_REQUEST | {"issues", "issue_comment", "release"},
    "client_payload": frozenset({"repository_dispatch"}),
    "schedule": frozenset({"schedule"}),
    "merge_group": frozenset({"merge_group"}),
    "repository": frozenset(
        "push pull_request pull_request_target issues issue_comment release workflow_run workflow_dispatch "
        "repository_dispatch merge_group".split()
    ),
}


class Scope:
    """What exists in a workflow while it is written.

    Attributes:
        place: a key of `PLACES`.
        events: the triggers, and `labeled` if one of them is for labels.
        inputs: the names of the workflow's inputs.
        outputs: for each job so far, the names of its outputs.
        needs: the jobs that the current job waits for.
        matrix: the keys of the current job's matrix.
        services: the names of the current job's service containers.
        env: the variables of the workflow and of the current job.
        steps: for each id in the current job so far, the names of that step's outputs.
    """

    __slots__ = ("env", "events", "inputs", "matrix", "needs", "outputs", "place", "services", "steps")

    def __init__(self) -> None:
        self.place = "workflow"
        self.events: set[str] = set()
        self.inputs: list[str] = []
        self.outputs: dict[str, list[str]] = {}
        self.env: list[str] = []
        self.enter_job()

    def enter_job(self) -> None:
        """Forget everything of the job before."""
        self.needs: list[str] = []
        self.matrix: list[str] = []
        self.services: list[str] = []
        self.steps: dict[str, list[str]] = {}

    def set_triggers(self, on: Any) -> None:
        """Set the events and inputs from the value of `on`."""
        self.events = {on} if isinstance(on, str) else set(on)
        if isinstance(on, dict):
            for event in on.values():
                if isinstance(event, dict):
                    self.inputs += [name for name in event.get("inputs", {}) if name not in self.inputs]
                    self.events.update({"labeled"} & set(event.get("types", ())))

    def input_references(self) -> list[str]:
        """Return references to the inputs."""
        return [f"inputs.{name}" for name in self.inputs]

    def env_references(self) -> list[str]:
        """Return references to the variables, if the place allows them."""
        return [f"env.{name}" for name in self.env] if "env" in PLACES[self.place] else []

    def matrix_references(self) -> list[str]:
        """Return references to the values of the matrix, if the place allows them."""
        return [f"matrix.{key}" for key in self.matrix] if "matrix" in PLACES[self.place] else []

    def step_references(self) -> list[str]:
        """Return references to the steps so far."""
        return [f"steps.{step}" for step in self.steps]

    def job_references(self) -> list[str]:
        """Return references to the jobs that the current one waits for."""
        return [f"needs.{job}" for job in self.needs]

    def step_outputs(self) -> list[str]:
        """Return references to the outputs of the steps so far."""
        return [f"steps.{step}.outputs.{name}" for step, names in self.steps.items() for name in names]

    def job_outputs(self) -> list[str]:
        """Return references to the outputs of the jobs that the current one waits for."""
        return [f"needs.{job}.outputs.{name}" for job in self.needs for name in self.outputs.get(job, ())]

    def holds(self, text: str, is_condition: bool) -> bool:
        """Return whether all that the text's expressions refer to exists here; a condition is one expression."""
        place = PLACES[self.place + ".if" if is_condition else self.place]
        expressions = [text] if is_condition and "${{" not in text else _EXPRESSION.findall(text)
        for expression in expressions:
            expression = _QUOTED.sub("''", expression)
            for function in _FUNCTION.findall(expression):
                if ("hashFiles" if function == "hashFiles" else "status") not in place:
                    return False
            for context, *names in _REFERENCE.findall(expression):
                if context not in place or not self._exists(context, *names):
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
            return first in self.env
        if context == "job" and first == "services":
            return second in self.services
        return True
