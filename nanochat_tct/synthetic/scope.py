"""What expressions may refer to, depending on their place in a workflow."""

import re
from collections.abc import Iterable
from functools import lru_cache
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
# The words of templates that stand for a reference to something that exists.
REFERENCES = (
    "input",
    "boolean input",
    "env name",
    "job reference",
    "job output",
    "matrix key",
    "step reference",
    "step output",
)
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.S)
_QUOTED = re.compile(r"'[^']*'")
_CONTEXT = re.compile(
    r"(?<![\w.-])(github|needs|strategy|matrix|job|runner|env|vars|secrets|steps|inputs)\b|"
    r"\b(?:(hashFiles)|always|failure|success|cancelled)\("
)
# The parts of an expression that only some workflows, jobs or steps have.
_REFERENCE = re.compile(
    r"(?<![\w.-])(?:github\.event\.inputs\.[\w-]+|github\.event\.\w+|job\.services\.[\w-]+|"
    r"(?:needs|steps)\.[\w-]+\.outputs\.[\w-]+|(?:needs|steps|inputs|matrix|env)\b(?:\.[\w-]+)?)"
)
_EVENT_NAME = re.compile(r"github\.event_name [!=]= '(\w+)'")
# The triggers of workflows that may call another one.
_CALLERS = frozenset("push pull_request schedule workflow_dispatch release merge_group".split())
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
        outputs: for each job so far, the names of its outputs.
        names: what expressions may refer to, by the word for it (`inputs.version` is an `input`, and
            `steps.meta.outputs.tags` a `step output`), and without a word `event`, `service` and `context`.
    """

    __slots__ = ("_of_workflow", "names", "outputs", "place")

    def __init__(self) -> None:
        self.place = "workflow"
        self.outputs: dict[str, list[str]] = {}
        self.names: dict[str, list[str]] = {word: [] for word in (*REFERENCES, "event", "service", "context")}
        self._of_workflow = self.names

    def enter_job(self) -> None:
        """Forget everything of the job before."""
        self.names = dict(self._of_workflow)

    def enter(self, place: str, key: str) -> None:
        """Go from a place to that of one of its keys."""
        inner = f"{place}.{key}"
        self.place = inner if inner in PLACES else place

    def define(self, key: str, value: Any) -> None:
        """Note what the value of a key of the workflow or job gives to later expressions."""
        if key == "on":
            self._set_triggers(value)
        elif key == "env":
            self._add("env name", "env", value)
        elif key == "needs":
            needs = [value] if isinstance(value, str) else value
            self._add("job reference", "needs", needs)
            for job in needs:
                self._add("job output", f"needs.{job}.outputs", self.outputs.get(job, ()))
            self.names["context"] = ["needs"]
        elif key == "strategy":
            self._add("matrix key", "matrix", _matrix_keys(value["matrix"]))
        elif key == "services":
            self._add("service", "job.services", value)
        elif key == "container":
            self.names["service"] = ["job.container"]

    def set_steps(self, outputs: dict[str, list[str]]) -> None:
        """Let there be steps of these ids, with these names of outputs."""
        self.names["step reference"] = [f"steps.{step}" for step in outputs]
        self.names["step output"] = [
            f"steps.{step}.outputs.{name}" for step, names in outputs.items() for name in names
        ]

    def exists(self, reference: str) -> bool:
        """Return whether the workflow has what the reference names."""
        return any(reference in names for names in self.names.values())

    def holds(self, text: str) -> bool:
        """Return whether all that the text's expressions refer to exists here; a condition is one expression."""
        is_bare = self.place.endswith(".if") and "${{" not in text
        for expression in [text] if is_bare else _EXPRESSION.findall(text):
            contexts, references = _parts(expression)
            if not (contexts <= PLACES[self.place] and all(map(self.exists, references))):
                return False
        return True

    def _add(self, word: str, prefix: str, names: Iterable[str]) -> None:
        self.names[word] = [*self.names[word], *[f"{prefix}.{name}" for name in names]]

    def _set_triggers(self, on: Any) -> None:
        events = {on} if isinstance(on, str) else set(on)
        inputs: dict[str, Any] = {}
        for event in on.values() if isinstance(on, dict) else ():
            if isinstance(event, dict):
                inputs.update(event.get("inputs", {}))
                events.update({"labeled"} & set(event.get("types", ())))
        self._add("input", "inputs", inputs)
        booleans = [name for name, each in inputs.items() if each.get("type") == "boolean"]
        self._add("boolean input", "inputs", booleans)
        self._add("event", "github.event", [name for name, those in _EVENTS.items() if events & those])
        self._add("event", "github.event_name", events | _CALLERS if "workflow_call" in events else events)
        if "workflow_dispatch" in events:
            self._add("event", "github.event.inputs", inputs)


@lru_cache(maxsize=4096)
def _parts(expression: str) -> tuple[frozenset[str], list[str]]:
    """Return the contexts and special functions that an expression uses, and the references that have to exist."""
    events = [f"github.event_name.{name}" for name in _EVENT_NAME.findall(expression)]
    expression = _QUOTED.sub("''", expression)
    contexts = frozenset(
        context or function or "status" for context, function in _CONTEXT.findall(expression)
    )
    return contexts, _REFERENCE.findall(expression) + events


def _matrix_keys(matrix: Any) -> list[str]:
    """Return the keys that every combination has; none if the matrix is an expression."""
    if not isinstance(matrix, dict):
        return []
    include = matrix.get("include", [])
    keys = [key for key in matrix if key not in ("include", "exclude")]
    return keys + [key for item in include if isinstance(item, dict) for key in item if key not in keys]
