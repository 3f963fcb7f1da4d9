"""Jobs and calls of reusable workflows, which wait for each other and pass on outputs."""

from functools import partial
from typing import Any

from nanochat_tct.synthetic.library import ECOSYSTEMS, Axis, Part, compile_part, read
from nanochat_tct.synthetic.steps import StepList
from nanochat_tct.synthetic.style import measure, styled
from nanochat_tct.synthetic.template import LEFT_OUT, LEXICON
from nanochat_tct.synthetic.writer import Writer

Job = dict[str, Any]


def write_part(writer: Writer, name: str, part: Part) -> dict[str, Any]:
    """Write the keys of a workflow or job, whose expressions may refer to keys before them."""
    writer.scope.place = name
    keys: dict[str, Any] = part.keys(writer)
    return keys


class JobWriter:
    """Writes the jobs of one workflow, one after the other.

    Attributes:
        jobs: the jobs so far.
        size: the number of their characters as compact JSON.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.jobs: dict[str, Job] = {}
        self.size = 0

    def from_template(self, name: str, template: Part) -> None:
        """Add the job of a template, with all of its steps and no others."""
        self.writer.scope.enter_job()
        self.writer.forget("focus", "it")
        job = write_part(self.writer, "job", template)
        self._add(self._unused(name), job, self._first_steps(template, 0))

    def write(self, kind: str, size: int) -> None:
        """Add a job of that kind, with about `size` characters as compact JSON."""
        writer, facts = self.writer, self.writer.facts
        writer.scope.enter_job()
        writer.forget("focus", "it")
        other = "other language" if writer.chance(0.12) else "language"
        ecosystem = ECOSYSTEMS[LEXICON.word(writer, other)]
        facts.update({"job ecosystem": ecosystem, "job kind": kind})
        writer.size = size
        name = facts["job id"] = self._unused(str(LEXICON.word(writer, f"{kind} job id")))
        job = write_part(writer, "job", JOBS[kind])
        steps = None
        if kind == "call":
            if writer.chance(0.15):
                own = {key: value for key, value in job.items() if key not in ("uses", "with", "secrets")}
                writer.scope.place = "job"
                job = {**own, **LEXICON.word(writer, "published workflow")}
        else:
            steps = self._first_steps(JOBS[kind], size - measure(job) - len(name) - 15)
            if kind not in ("gate", "notify"):
                steps.fill(ecosystem, kind)
                outputs = steps.outputs() if writer.chance(1.0 if kind == "prepare" else 0.09) else []
                if outputs:
                    job["outputs"] = {output.split(".")[-1]: f"${{{{ {output} }}}}" for output in outputs}
        self.size += size - steps.left if steps else measure(job)
        writer.forget("in_matrix", *[axis.word for axis in _matrix_axes(writer)])
        self._add(name, job, steps)

    def _first_steps(self, part: Part, size: int) -> StepList:
        steps = StepList(self.writer, size)
        for step in part.steps:
            steps.add("start", step, plain=True)
        return steps

    def _unused(self, name: str) -> str:
        """Return the name, or one like it, that no other job has."""
        like_it = (f"{name}-{number}" for number in range(2, len(self.jobs) + 2))
        return name if name not in self.jobs else next(other for other in like_it if other not in self.jobs)

    def _add(self, name: str, job: Job, steps: StepList | None) -> None:
        """Add the job under its name."""
        if steps:
            job["steps"] = steps.all()
        self.jobs[name] = styled(self.writer, "job" if steps else "call", job)
        self.writer.scope.outputs[name] = list(job.get("outputs", ()))


def _needs(writer: Writer) -> Any:
    """Return some of the last jobs, as a text or list."""
    jobs = list(writer.scope.outputs)[-4:]
    needed = writer.sample(jobs, writer.pick((1, 1, 1, 2, 3)))
    if not needed:
        return LEFT_OUT
    return needed[0] if len(needed) == 1 and writer.chance(0.62) else needed


def _matrix_axes(writer: Writer) -> list[Axis]:
    """Return the dimensions that the matrix of this job has."""
    axes: list[Axis] = writer.facts["job ecosystem"].axes
    return [axis for axis in axes if writer.scope.exists(f"matrix.{axis.key}")]


def _job_name(writer: Writer) -> str:
    """Return a name for a job of this kind, which may name what the job takes from its matrix."""
    name = str(LEXICON.word(writer, f"{writer.facts['job kind']} job name"))
    values = ", ".join(f"${{{{ matrix.{axis.key} }}}}" for axis in _matrix_axes(writer))
    if values:
        name += writer.pick(("", f" ({values})", f" {values}", f" / {values}"))
    return name


def _job_runner(writer: Writer) -> Any:
    is_linux = writer.scope.exists("matrix.os") or writer.scope.names["service"]
    return LEXICON.word(writer, "ubuntu" if is_linux else "runner")


def _on_linux(writer: Writer, word: str) -> Any:
    """Return what only jobs on Linux may have: nothing if the matrix chooses the system."""
    return LEFT_OUT if writer.scope.exists("matrix.os") else LEXICON.word(writer, word)


def _matrix(writer: Writer) -> Any:
    """Return a matrix of one to three dimensions, whose values then stand for words of the job."""
    size, outputs = writer.size // 4, writer.scope.names["job output"]
    if outputs and writer.chance(0.5):
        expression = f"${{{{ fromJSON({writer.pick(outputs)}) }}}}"
        return expression if writer.chance(0.5) else {"include": expression}
    matrix: dict[str, Any] = {}
    axes = writer.facts["job ecosystem"].axes
    for axis in writer.sample(axes, 1 if size < 150 else writer.pick((1, 1, 2, 2, 3))):
        values = LEXICON.word(writer, "components") if axis.word == "component" else axis.values
        matrix[axis.key] = writer.sample(values, writer.pick((1, 2, 2, 3, 3, 4, 5, 7)))
    keys = list(matrix)
    if size > 150 and writer.chance(min(0.5, 0.06 + size / 3000)):
        include = [
            {**{key: writer.pick(matrix[key]) for key in keys}, **LEXICON.word(writer, "matrix include")}
            for _ in range(writer.several(2 + size / 200, 24))
        ]
        matrix = {"include": include} if writer.chance(0.7) else {**matrix, "include": include}
    elif len(keys) > 1 and writer.chance(0.2):
        matrix["exclude"] = [{key: writer.pick(matrix[key]) for key in keys}]
    for axis in reversed(axes):  # of two dimensions for a word the first one counts
        if axis.key in keys and axis.word not in ("", "component"):
            writer.facts[axis.word] = f"${{{{ matrix.{axis.key} }}}}"
    writer.facts["in_matrix"] = f"${{{{ matrix.{keys[0]} }}}}"
    return matrix


def _all_keys(kind: str) -> dict[str, Any]:
    """Return the template of a kind of job, with the keys of the kind that it is like."""
    job = _JOBS[kind]
    return {**_all_keys(job["like"]), **job} if "like" in job else job


LEXICON.add(
    {
        "needs": _needs,
        "all jobs": lambda writer: list(writer.scope.outputs) or LEFT_OUT,
        "job id": lambda writer: writer.facts["job id"],
        "job name": _job_name,
        "job runner": _job_runner,
        "job container": partial(_on_linux, word="container"),
        "job services": partial(_on_linux, word="services"),
        "matrix": _matrix,
    }
)
_JOBS = read("jobs.yaml")
JOBS = {kind: compile_part(_all_keys(kind)) for kind in _JOBS}
