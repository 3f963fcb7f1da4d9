"""Names in a workflow as GitHub resolves them: jobs, steps, inputs, the matrix, variables.

When a document is generated, names are legal once they are defined. A document that is checked is complete: a job may
need a later one, names differ in case, and a name may be used before what defines it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nanochat_tct.tokenizer.errors import Problem
from nanochat_tct.tokenizer.explain_text import Path, did_you_mean, expressions_in, facts, listed

_CONTEXTS = ("steps", "needs", "jobs", "inputs", "matrix", "env", "github", "job", "runner", "strategy")
_CHAIN = re.compile(
    r"'(?:[^']|'')*+'|(?<![\w.-])(?:(" + "|".join(_CONTEXTS) + r")\b(?![-\w])"
    r"((?:\s*\.\s*[A-Za-z_*][\w-]*+|\s*\.\s*\*|\s*\[\s*'[^']*'\s*\])++))",
    re.IGNORECASE,
)
_LINK = re.compile(r"\.\s*([\w*-]+)|\[\s*'([^']*)'\s*\]")
_STEP = ("outputs", "outcome", "conclusion")
_JOB = ("outputs", "result")


def is_condition(path: Path) -> bool:
    return path[-1:] == ("if",) and path[:1] == ("jobs",)


def texts_of(value: Any, path: Path = ()) -> Iterator[tuple[Path, str, bool]]:
    """All texts of a document with an expression, with their paths, and whether they are keys."""
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
    """A document with something else, of the same length, for all names that `name_problems` looks at."""
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
    """What is wrong with the names of a workflow: errors of jobs and steps, then warnings about references."""
    names = _Names(workflow)
    yield from names.errors()
    for path, text, is_key in texts_of(workflow):
        for begin, stop in expressions_in(text, is_condition(path)):
            for found in _CHAIN.finditer(text, begin, stop):
                if found[1]:
                    links = [
                        (m.start(m.lastindex or 1), m[1] or m[2])
                        for m in _LINK.finditer(text, *found.span(2))
                    ]
                    if problem := names.problem(found[1].lower(), links, path):
                        yield Problem(path, problem[1], is_key, problem[0], is_warning=True)


def _mapping(value: Any, *keys: str) -> dict[str, Any]:
    """What stands below some keys, if it is a mapping."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


class _Names:
    """The names that a workflow defines."""

    def __init__(self, workflow: Any) -> None:
        self.workflow = workflow
        self.jobs = _mapping(workflow, "jobs")
        on = workflow.get("on") if isinstance(workflow, dict) else None
        self.events = [on] if isinstance(on, str) else list(on) if isinstance(on, dict | list) else []

    # ---- errors ----

    def errors(self) -> Iterator[Problem]:
        graph: dict[str, list[str]] = {}
        for name, job in self.jobs.items():
            if isinstance(job, dict):
                graph[name] = [need for _, need in self.needs(job)]
                for path, need in self.needs(job):
                    if need not in self.jobs:
                        what = f"there is no job {need!r}{did_you_mean(need, self.jobs)}"
                        yield Problem(("jobs", name, *path), what)
            yield from self._repeated_ids(("jobs", name, "steps"), job)
        if graph and all(graph.values()):
            yield Problem(("jobs",), "every job needs another one, so that none can begin")
        for circle in _circles(graph):
            where = (
                "jobs",
                circle[0],
                *next(p for p, n in self.needs(self.jobs[circle[0]]) if n == circle[1]),
            )
            yield Problem(where, "jobs need one another in a circle: " + " -> ".join(circle))

    @staticmethod
    def needs(job: Any) -> list[tuple[Path, str]]:
        needs = job.get("needs") if isinstance(job, dict) else None
        if isinstance(needs, str):
            return [(("needs",), needs)]
        items = enumerate(needs) if isinstance(needs, list) else ()
        return [(("needs", index), need) for index, need in items if isinstance(need, str)]

    @staticmethod
    def _repeated_ids(path: Path, job: Any) -> Iterator[Problem]:
        seen: dict[str, Path] = {}
        for where, name in _step_ids(job, path):
            if name in seen:
                what = f"the id {name!r} stands twice in this job: step {seen[name]} has it too"
                yield Problem(where, what)
            else:
                seen[name] = where[len(path)] + 1  # type: ignore[operator, assignment]

    # ---- references ----

    def problem(self, context: str, links: list[tuple[int, str]], path: Path) -> tuple[int, str] | None:
        """What is wrong with a reference: where in its text, and what."""
        job_name = path[1] if path[:1] == ("jobs",) and len(path) > 1 else None
        job = self.jobs.get(job_name) if isinstance(job_name, str) else None
        at, name = links[0]
        if name == "*":
            return None
        if context in facts().keys:
            names = facts().keys[context] + [
                each for each in ("services", "container") if each in _mapping(job)
            ]
            message = "" if _has(names, name) else _unknown(f"{context} has no", name, names)
        else:
            check: Callable[[str, Any, Path], str] = getattr(self, "_" + context)
            message = check(name, job, path)
        if message:
            return at, message
        if context in ("steps", "needs", "jobs") and len(links) > 1:
            at, what = links[1]
            known = _STEP if context == "steps" else _JOB
            if what != "*" and what.lower() not in known:
                return at, f"{context}.{name} has no {what!r}: it has {listed(known)}"
            if context != "steps" and what.lower() == "outputs" and len(links) > 2:
                outputs = self._outputs(name)
                if outputs is not None and not _has(outputs, links[2][1]):
                    return links[2][0], _unknown(f"the job {name!r} has no output", links[2][1], outputs)
        if context == "github" and name.lower() == "event" and len(links) > 1:
            return self._payload_problem(*links[1])
        return None

    def _steps(self, name: str, job: Any, path: Path) -> str:
        ids = [(where[3], each) for where, each in _step_ids(job, ("jobs", "", "steps"))]
        here = path[3] if path[2:3] == ("steps",) and len(path) > 3 else None
        before = [each for number, each in ids if here is None or number < here]  # type: ignore[operator]
        if _has(before, name):
            return ""
        if _has([each for _, each in ids], name):
            return f"the step {name!r} has not run yet, so that its results are empty here"
        earlier = "no step of this job" if here is None else "no earlier step of this job"
        return _unknown(f"{earlier} has the id", name, before)

    def _needs(self, name: str, job: Any, path: Path) -> str:
        needs = [need for _, need in self.needs(job)]
        if _has(needs, name):
            return ""
        if _has(self.jobs, name):
            return f"this job does not need {name!r}: add it to 'needs'"
        return _unknown("there is no job", name, needs)

    def _jobs(self, name: str, job: Any, path: Path) -> str:
        return "" if _has(self.jobs, name) else _unknown("there is no job", name, self.jobs)

    def _inputs(self, name: str, job: Any, path: Path) -> str:
        names = [*_mapping(self.workflow, "on", "workflow_dispatch", "inputs")]
        names += _mapping(self.workflow, "on", "workflow_call", "inputs")
        return "" if _has(names, name) else _unknown("the workflow has no input", name, names)

    def _matrix(self, name: str, job: Any, path: Path) -> str:
        matrix = job.get("strategy") if isinstance(job, dict) else None
        matrix = matrix.get("matrix") if isinstance(matrix, dict) else None
        if not isinstance(matrix, dict):  # an expression, or nothing: GitHub says no more
            return ""
        names = [key for key in _mapping(matrix) if key not in ("include", "exclude")]
        include = _mapping(matrix).get("include", [])
        if isinstance(include, str) or any(isinstance(each, str) for each in include or ()):
            return ""
        names += [key for each in include or () for key in _mapping(each)]
        return (
            "" if _has(names, name) else _unknown("the matrix of this job has no", name, dict.fromkeys(names))
        )

    def _env(self, name: str, job: Any, path: Path) -> str:
        holders = [self.workflow, job]
        if path[2:3] == ("steps",) and len(path) > 3 and isinstance(job, dict):
            steps = job.get("steps")
            holders.append(steps[path[3]] if isinstance(steps, list) else None)
        found = [holder.get("env") for holder in holders if isinstance(holder, dict)]
        if any(isinstance(env, str) for env in found):
            return ""
        names = [key for env in found for key in _mapping(env)]
        return "" if _has(names, name) else _unknown("no 'env' of this workflow sets", name, names)

    def _payload_problem(self, at: int, name: str) -> tuple[int, str] | None:
        if name.lower() == "inputs" and "workflow_dispatch" in self.events:
            return None
        payloads = [facts().payloads.get(event, []) for event in self.events if isinstance(event, str)]
        if any(each is None for each in payloads) or name == "*":
            return None
        names = sorted({key for each in payloads for key in each or ()})
        if _has(names, name):
            return None
        events = listed(str(event) for event in self.events)
        return at, _unknown(f"the events of this workflow ({events}) have no", name, names)

    def _outputs(self, name: str) -> Iterable[str] | None:
        """The outputs of a job; None: they are not known here."""
        job = next((job for key, job in self.jobs.items() if key.lower() == name.lower()), None)
        if not isinstance(job, dict) or "uses" in job:
            return None
        outputs = job.get("outputs")
        return None if isinstance(outputs, str) else _mapping(outputs)


def _has(names: Iterable[str], name: str) -> bool:
    return name.lower() in (each.lower() for each in names)


def _unknown(what: str, name: str, names: Iterable[str]) -> str:
    names = list(names)
    there = f", there are: {listed(names)}" if names else ", there are none"
    return f"{what} {name!r}{did_you_mean(name, names) or there}"


def _step_ids(job: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """The ids of a job's steps, those of steps that run beside others included, and where they stand."""
    steps = job.get("steps" if len(path) == 3 else "parallel") if isinstance(job, dict) else None
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        if isinstance(step, dict):
            if isinstance(step.get("id"), str):
                yield (*path, index, "id"), step["id"]
            if "parallel" in step:
                yield from _step_ids(step, (*path, index, "parallel"))


def _circles(graph: dict[str, list[str]]) -> Iterator[list[str]]:
    """Jobs that need themselves by way of others, the first one repeated at the end; each job in one circle only."""
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
