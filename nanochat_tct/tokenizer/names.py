"""Names in a whole workflow as GitHub resolves them: jobs, steps, inputs, keys of the matrix, variables.

The engine reads from left to right, so it takes any name that a later part of the document may define. Here the
document is complete, and every name is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from typing import Any

from nanochat_tct.tokenizer.errors import Problem
from nanochat_tct.tokenizer.explain_expression import expressions_in
from nanochat_tct.tokenizer.facts import facts
from nanochat_tct.tokenizer.wording import MAX_LISTED, Path, did_you_mean, listed

_CONTEXTS = ("steps", "needs", "jobs", "inputs", "matrix", "env", "github", "job", "runner", "strategy")
# A context with the names behind it; a text in quotes matches too, so that nothing inside it does.
_CHAIN = re.compile(
    r"'(?:[^']|'')*+'|(?<![\w.-])(?:(" + "|".join(_CONTEXTS) + r")\b(?![-\w])"
    r"((?:\s*\.\s*[A-Za-z_*][\w-]*+|\s*\.\s*\*|\s*\[\s*'[^']*'\s*\])++))",
    re.IGNORECASE,
)
_LINK = re.compile(r"\.\s*([\w*-]+)|\[\s*'([^']*)'\s*\]")
_STEP = ("outputs", "outcome", "conclusion")
_JOB = ("outputs", "result")


def is_condition(path: Path) -> bool:
    """Whether the value at a path is the condition of a job or a step."""
    return path[-1:] == ("if",) and path[:1] == ("jobs",)


def texts_of(value: Any, path: Path = ()) -> Iterator[tuple[Path, str, bool]]:
    """The texts of a document that have expressions: path, text, and whether it is a key."""
    if isinstance(value, str):
        if "${{" in value or is_condition(path):
            yield path, value, False
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts_of(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            if "${{" in key:
                yield (*path, key), key, True
            yield from texts_of(item, (*path, key))


def without_names(value: Any, path: Path = ()) -> Any:
    """A document in which `(0)`, padded to the same length, replaces each reference that `name_problems` checks."""
    if isinstance(value, str) and ("${{" in value or is_condition(path)):
        parts, end = [], 0
        for begin, stop in expressions_in(value, is_condition(path)):
            parts += [value[end:begin], _CHAIN.sub(_nothing, value[begin:stop])]
            end = stop
        return "".join([*parts, value[end:]])
    if isinstance(value, list):
        return [without_names(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, dict):
        is_job = len(path) == 2 and path[0] == "jobs"
        return {
            without_names(key): without_names(item, (*path, key))
            for key, item in value.items()
            if not (is_job and key == "needs")
        }
    return value


def _nothing(found: re.Match[str]) -> str:
    return "(0)".ljust(len(found[0])) if found[1] else found[0]


def name_problems(workflow: Any) -> Iterator[Problem]:
    """The problems of names in a workflow: errors in jobs and steps, then warnings about references."""
    names = WorkflowNames(workflow)
    yield from names.errors()
    for path, text, is_key in texts_of(workflow):
        for begin, stop in expressions_in(text, is_condition(path)):
            for found in _CHAIN.finditer(text, begin, stop):
                if found[1]:
                    links = [
                        (m.start(m.lastindex or 1), m[1] or m[2] or "")
                        for m in _LINK.finditer(text, *found.span(2))
                    ]
                    if problem := names.problem(found[1].lower(), links, path):
                        yield Problem(path, problem[1], is_key, problem[0], is_warning=True)


def _mapping(value: Any, *keys: str) -> dict[str, Any]:
    """The mapping below some keys; empty if something else is there, or nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


class _NameSet:
    """The names of one kind that are defined, which GitHub compares without case.

    Attributes:
        is_any: an expression defines them, so that any name may be among them.
    """

    def __init__(self, names: Iterable[str], is_any: bool = False) -> None:
        self.names = list(names)
        self.is_any = is_any
        self._meant: dict[str, str] = {}  # the same wrong name often stands in many steps

    @cached_property
    def _folded(self) -> set[str]:
        return {name.lower() for name in self.names}

    def __contains__(self, name: str) -> bool:
        return self.is_any or name.lower() in self._folded

    def lacks(self, what: str, name: str) -> str:
        """The message for a name that is not in the set."""
        there = f", there are: {listed(self.names)}" if self.names else ", there are none"
        if name not in self._meant:
            self._meant[name] = did_you_mean(name, self.names) or there
        return f"{what} {name!r}{self._meant[name]}"


class _Job:
    """The names that references inside a job may use."""

    def __init__(self, job: Any, env: _NameSet) -> None:
        job = _mapping(job)
        self.needs = _NameSet(need for _, need in needs_of(job))
        self.step_names = [name for _, name in _step_ids(job, ())]
        self.steps: dict[str, int] = {}  # the index of the first step with each id
        for path, name in _step_ids(job, ()):
            self.steps.setdefault(name.lower(), path[0])  # type: ignore[arg-type]
        matrix = _mapping(job.get("strategy")).get("matrix")
        include = _mapping(matrix).get("include") or []
        # GitHub does not check the keys of a matrix that is, or includes, an expression.
        is_static = isinstance(matrix, dict) and isinstance(include, list)
        keys = [key for key in _mapping(matrix) if key not in ("include", "exclude")]
        keys += [key for each in include if isinstance(each, dict) for key in each] if is_static else []
        is_any = not is_static or any(isinstance(each, str) for each in include)
        self.matrix = _NameSet(dict.fromkeys(keys), is_any)
        self.env = _with_env(env, job)
        self.step_env = [_with_env(self.env, step) for step in _list(job.get("steps"))]
        outputs = job.get("outputs")
        self.outputs = _NameSet(_mapping(outputs), is_any="uses" in job or isinstance(outputs, str))
        dynamic = [each for each in ("services", "container") if each in job]
        self.context = _NameSet([*facts().keys["job"], *dynamic])

    def steps_before(self, index: int) -> list[str]:
        """The ids of the steps before one of the job's."""
        return [name for name in self.step_names if self.steps[name.lower()] < index]


@cache
def _context(name: str) -> _NameSet:
    """The keys of a context that every workflow has."""
    return _NameSet(facts().keys[name])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _with_env(around: _NameSet, holder: Any) -> _NameSet:
    env = holder.get("env") if isinstance(holder, dict) else None
    if not env:
        return around
    return _NameSet([*around.names, *_mapping(env)], around.is_any or isinstance(env, str))


class WorkflowNames:
    """The names that a workflow defines."""

    def __init__(self, workflow: Any) -> None:
        self.jobs = _mapping(workflow, "jobs")
        self.job_names = _NameSet(self.jobs)
        on = workflow.get("on") if isinstance(workflow, dict) else None
        self.events = [on] if isinstance(on, str) else list(on) if isinstance(on, dict | list) else []
        dispatched = _mapping(on, "workflow_dispatch", "inputs")
        self.dispatched = _NameSet(dispatched)
        self.inputs = _NameSet([*dispatched, *_mapping(on, "workflow_call", "inputs")])
        self.env = _with_env(_NameSet(()), workflow)
        self.job = cache(lambda name: _Job(self.jobs.get(name), self.env))
        self.by_folded = {name.lower(): name for name in self.jobs}
        payloads = [facts().payloads.get(event, []) for event in self.events if isinstance(event, str)]
        keys = sorted({key for each in payloads for key in each or ()})
        self.payload = _NameSet(keys, is_any=any(each is None for each in payloads))

    # ---- errors ----

    def errors(self) -> Iterator[Problem]:
        graph: dict[str, list[str]] = {}
        for name, job in self.jobs.items():
            if isinstance(job, dict):
                graph[name] = [need for _, need in needs_of(job)]
                for path, need in needs_of(job):
                    if need not in self.jobs:
                        what = f"there is no job {need!r}{did_you_mean(need, self.jobs)}"
                        yield Problem(("jobs", name, *path), what)
            yield from _repeated_ids(("jobs", name), job)
        if graph and all(graph.values()):
            yield Problem(("jobs",), "every job needs another one, so that none can begin")
        for circle in _circles(graph):
            path = next(path for path, need in needs_of(self.jobs[circle[0]]) if need == circle[1])
            what = f"jobs need one another in a circle: {' -> '.join(circle[:MAX_LISTED])}"
            yield Problem(("jobs", circle[0], *path), what + " -> ..." * (len(circle) > MAX_LISTED))

    # ---- references ----

    def problem(self, context: str, links: list[tuple[int, str]], path: Path) -> tuple[int, str] | None:
        """What is wrong with a reference to a context: an offset in the text, and a message.

        Args:
            links: the names behind the context, with their offsets in the text.
            path: of the text.
        """
        job = self.job(path[1] if path[:1] == ("jobs",) and len(path) > 1 else None)
        at, name = links[0]
        if name == "*":
            return None
        if context in facts().keys:
            keys = job.context if context == "job" else _context(context)
            message = "" if name in keys else keys.lacks(f"{context} has no", name)
        elif context == "steps":
            message = self._step_problem(name, job, path)
        elif context == "needs" and name not in job.needs and name in self.job_names:
            message = f"this job does not need {name!r}: add it to 'needs'"
        else:
            known, what = self.names_in(context, job, path)
            message = "" if name in known else known.lacks(what, name)
        if message:
            return at, message
        if context == "github" and name.lower() == "event" and len(links) > 1:
            return self._payload_problem(links[1:])
        if context in ("steps", "needs", "jobs") and len(links) > 1:
            return self._result_problem(context, name, links[1:])
        return None

    def names_in(self, context: str, job: _Job, path: Path) -> tuple[_NameSet, str]:
        """The names of a context, and how the message about a missing one begins."""
        if context == "needs":
            return job.needs, "there is no job"
        if context == "jobs":
            return self.job_names, "there is no job"
        if context == "inputs":
            return self.inputs, "the workflow has no input"
        if context == "matrix":
            return job.matrix, "the matrix of this job has no"
        step = _step_index(path)
        return job.env if step is None else job.step_env[step], "no 'env' around this sets"

    def _step_problem(self, name: str, job: _Job, path: Path) -> str:
        step, here = job.steps.get(name.lower()), _step_index(path)
        if step is not None:
            has_run = here is None or step < here
            return "" if has_run else f"the step {name!r} has not run yet, so that its results are empty here"
        ids = job.step_names if here is None else job.steps_before(here)
        return _NameSet(ids).lacks(f"no {'earlier ' * (here is not None)}step of this job has the id", name)

    def _result_problem(
        self, context: str, name: str, links: list[tuple[int, str]]
    ) -> tuple[int, str] | None:
        """What is wrong with the names behind those of a step or a job: result, outputs, an output."""
        at, what = links[0]
        known = _STEP if context == "steps" else _JOB
        if what != "*" and what.lower() not in known:
            return at, f"{context}.{name} has no {what!r}: it has {listed(known)}"
        if context == "steps" or what.lower() != "outputs" or len(links) == 1 or links[1][1] == "*":
            return None
        if name.lower() not in self.by_folded:
            return None  # the job needs one that does not exist, which is an error already
        outputs, (at, output) = self.job(self.by_folded[name.lower()]).outputs, links[1]
        return None if output in outputs else (at, outputs.lacks(f"{name!r} has no output", output))

    def _payload_problem(self, links: list[tuple[int, str]]) -> tuple[int, str] | None:
        """What is wrong with the names behind `github.event`."""
        at, name = links[0]
        if self.payload.is_any or name == "*":
            return None
        if name.lower() == "inputs" and "workflow_dispatch" in self.events:
            at, name = links[1] if len(links) > 1 else (at, "*")
            if name == "*" or not self.dispatched.names or name in self.dispatched:
                return None
            return at, self.dispatched.lacks("the workflow has no input", name)
        if name in self.payload:
            return None
        events = listed(str(event) for event in self.events)
        return at, self.payload.lacks(f"its events ({events}) have no", name)


def _step_index(path: Path) -> int | None:
    """The index of the step that a path leads into."""
    match path:
        case ("jobs", str(), "steps", int(index), *_):
            return index
        case _:  # outside of steps, or jobs or steps are in the wrong place
            return None


def needs_of(job: Any) -> list[tuple[Path, str]]:
    """The jobs that a job needs, with the paths of their names in the job."""
    needs = job.get("needs") if isinstance(job, dict) else None
    if isinstance(needs, str):
        return [(("needs",), needs)]
    return [(("needs", index), need) for index, need in enumerate(_list(needs)) if isinstance(need, str)]


def _step_ids(job: Any, path: Path, key: str = "steps") -> Iterator[tuple[Path, str]]:
    """The ids of a job's steps, including steps that run in parallel, with the paths of the steps below `steps`."""
    for index, step in enumerate(_list(job.get(key)) if isinstance(job, dict) else ()):
        if isinstance(step, dict):
            if isinstance(step.get("id"), str):
                yield (*path, index), step["id"]
            if "parallel" in step:
                yield from _step_ids(step, (*path, index, "parallel"), "parallel")


def _repeated_ids(path: Path, job: Any) -> Iterator[Problem]:
    seen: dict[str, int | str] = {}
    for where, name in _step_ids(job, ()):
        if name in seen:
            what = f"the id {name!r} stands twice in this job: its step {seen[name]} has it too"
            yield Problem((*path, "steps", *where, "id"), what)
        else:
            seen[name] = where[0] + 1  # type: ignore[operator]


def _circles(graph: dict[str, list[str]]) -> Iterator[list[str]]:
    """Circles of jobs that need one another, each with its first job repeated at the end; no job is in two circles."""
    done: set[str] = set()
    for start in graph:
        position: dict[str, int] = {}
        chain: list[tuple[str, Iterator[str]]] = []
        following: str | None = start
        while True:
            if following is not None and following in position:
                yield [name for name, _ in chain[position[following] :]] + [following]
                done |= set(position)
                break
            if following is not None and following in graph and following not in done:
                position[following] = len(chain)
                chain.append((following, iter(graph[following])))
            elif following is None:
                done.add(chain[-1][0])
                del position[chain.pop()[0]]
            if not chain:
                break
            following = next(chain[-1][1], None)
