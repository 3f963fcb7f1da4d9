"""Jobs and calls of reusable workflows, which wait for each other and pass on outputs."""

from typing import Any

from nanochat_tct.synthetic.author import Author, measure
from nanochat_tct.synthetic.library import (
    ECOSYSTEMS,
    JOB,
    JOB_IDS,
    JOB_MORE,
    JOB_TITLES,
    Ecosystem,
    JobTemplate,
)
from nanochat_tct.synthetic.steps import StepList, outputs_of, write_steps
from nanochat_tct.synthetic.template import LEFT_OUT, LEXICON, Generator, compile_value
from nanochat_tct.synthetic.writer import Writer

Job = dict[str, Any]
# The places of a job's keys (see `Scope`), which decide what their expressions may use; "job" for all others.
_PLACES = {"strategy": "job.strategy", "env": "job.env", "steps": "step", "secrets": "job.env"}
(
    _CALLED,
    _CALL_SECRETS,
    _CALL_SETTINGS,
    _JOB_PERMISSIONS,
    _MATRIX_INCLUDE,
    _OUTPUT_VALUE,
    _PUBLISHED,
    _RUNNER,
) = (
    compile_value(f"‹{word}›")
    for word in (
        "called",
        "call secrets",
        "call settings",
        "job permissions",
        "matrix include",
        "output value",
        "published workflow",
        "runner",
    )
)
_WITH_MATRIX = ("test", "build", "integration", "lint", "benchmark", "release")


class JobWriter:
    """Writes the jobs of one workflow, one after the other.

    Attributes:
        jobs: the jobs so far.
        size: the number of their characters as compact JSON.
        env_count: the number of variables that the workflow sets for all jobs.
    """

    def __init__(self, writer: Writer, author: Author, ecosystem: Ecosystem) -> None:
        self.writer, self.author, self.ecosystem = writer, author, ecosystem
        self.jobs: dict[str, Job] = {}
        self.env_count = self.size = 0

    def from_template(self, name: str, template: JobTemplate) -> None:
        """Add the job of a template, with all of its steps."""
        self._enter()
        job: Job = {}
        for key, generator in template.keys.items():
            self._set(job, key, generator)
            if key == "strategy":
                self.writer.scope.matrix = _matrix_keys(job[key]["matrix"])
        steps = StepList(self.writer, self.author, 0)
        self.writer.scope.env += job.get("env", ())
        for step in template.steps:
            steps.add("middle", step, plain=True)
        job["steps"] = steps.all()
        self._finish(name, "job", job)

    def call(self, size: int) -> None:
        """Add a job that calls a reusable workflow."""
        writer = self.writer
        self._enter()
        job: Job = {}
        self._relate(job, 0.5)
        writer.scope.place = "job.env"
        published: Any = _PUBLISHED(writer) if writer.chance(0.15) else LEFT_OUT
        if published is LEFT_OUT:
            self._set(job, "uses", _CALLED)
        else:
            job.update(published)
        if writer.chance(self.author.named_jobs * 0.75):
            job["name"] = self.author.title(writer, JOB_TITLES["script"](writer))
        if writer.chance(0.3):
            self._set(job, "permissions", _JOB_PERMISSIONS)
        if size > 250 and writer.chance(0.1):
            job["strategy"] = self._strategy(self.ecosystem, size // 3)
            writer.scope.matrix = _matrix_keys(job["strategy"]["matrix"])
        if published is LEFT_OUT and writer.chance(0.7):
            self._set(job, "secrets", _CALL_SECRETS)
        writer.size = max(60, size - measure(job))
        if published is LEFT_OUT and writer.chance(0.88):
            self._set(job, "with", _CALL_SETTINGS)
        self._finish(str(LEXICON.word(writer, "call id")), "call", job)

    def write(self, kind: str, size: int) -> None:
        """Add a job of that kind, with about `size` characters as compact JSON."""
        writer, scope = self.writer, self.writer.scope
        self._enter()
        writer.size = size
        ecosystem = writer.weighted(ECOSYSTEMS) if writer.chance(0.12) else self.ecosystem
        name = JOB_IDS[kind](writer)
        job: Job = {}
        if kind == "gate":
            if self.jobs:
                job["needs"] = scope.needs = list(self.jobs)
            job["if"] = "always()"
        else:
            self._relate(job, 0.25)
        if size > 500 and kind in _WITH_MATRIX and writer.chance(0.42):
            job["strategy"] = self._strategy(ecosystem, size // 4)
        elif size > 900 and kind == "deploy" and writer.chance(0.1):
            job["strategy"] = {"max-parallel": 1, "matrix": {"environment": ["staging", "production"]}}
        settled = self._use_matrix(ecosystem, job)
        self._set(job, "runs-on", _RUNNER)
        if "matrix.os" in str(writer.facts.get("ubuntu")):
            job["runs-on"] = writer.facts["ubuntu"]
        if writer.chance(self.author.named_jobs):
            title = str(JOB_TITLES[kind](writer))
            axes = " }}, ${{ ".join(value[4:-3] for word, value in settled.items() if word != "in_matrix")
            title += (
                writer.pick(("", f" (${{{{ {axes} }}}})", f" ${{{{ {axes} }}}}", f" / ${{{{ {axes} }}}}"))
                if axes
                else ""
            )
            job["name"] = self.author.title(writer, title)
        if ecosystem.image and writer.chance(0.6):
            writer.facts["container_image"] = ecosystem.image(writer)
        for key, generator in {**JOB, **JOB_MORE.get(kind, {})}.items():
            self._set(job, key, generator)
        writer.forget(("container_image",))
        scope.env += job.get("env", ())
        scope.services = list(job.get("services", ()))
        if kind == "gate":
            steps = StepList(writer, self.author, size)
            steps.add("middle", LEXICON.use("gate"), plain=True)
            job["steps"] = steps.all()
        else:
            job["steps"] = write_steps(
                writer, self.author, ecosystem, kind, size - measure(job) - len(name) - 15
            )
        outputs: list[str] = []
        if kind == "prepare" or (
            kind in ("build", "script", "test", "release", "deploy") and writer.chance(0.18)
        ):
            outputs = self._publish_outputs(job)
        writer.forget(settled)
        self._finish(name, "job", job, outputs)

    def _enter(self) -> None:
        self.writer.forget(("focus", "it"))
        self.writer.scope.enter_job()

    def _set(self, job: Job, key: str, generator: Generator) -> None:
        """Write a key of the job, unless its template leaves it out."""
        self.writer.scope.place = _PLACES.get(key, "job")
        value = generator(self.writer)
        if value is not LEFT_OUT:
            job[key] = value

    def _finish(self, name: str, part: str, job: Job, outputs: list[str] | None = None) -> None:
        """Add the job under its name, or one like it that no other job has."""
        plain, number = name, 2
        while name in self.jobs:
            name, number = f"{plain}-{number}", number + 1
        self.jobs[name] = self.author.ordered(self.writer, part, job)
        self.size += len(name) + 4 + measure(self.jobs[name])
        self.writer.scope.outputs[name] = outputs or []
        del self.writer.scope.env[self.env_count :]

    def _relate(self, job: Job, condition_share: float) -> None:
        """Let the job wait for earlier jobs, and depend on conditions and on outputs of those jobs."""
        writer, scope = self.writer, self.writer.scope
        conditions = []
        if self.jobs and writer.chance(0.62):
            needed = writer.sample(list(self.jobs)[-4:], writer.pick((1, 1, 1, 2, 3)))
            scope.needs = needed
            job["needs"] = needed[0] if len(needed) == 1 and writer.chance(0.62) else needed
            for name in needed:
                if scope.outputs[name] and writer.chance(0.7):
                    holds = writer.pick(("== 'true'", "== 'true'", "!= ''"))
                    conditions.append(f"needs.{name}.outputs.{writer.pick(scope.outputs[name])} {holds}")
        if writer.chance(condition_share) or (conditions and writer.chance(0.2)):
            scope.place = "job"
            for _ in range(writer.pick((1, 1, 1, 2, 2, 3))):
                condition = LEXICON.word(writer, "some condition").get("if")
                if condition and condition not in conditions:
                    conditions.append(condition)
        if conditions:
            joined = len(conditions) > 1
            job["if"] = " && ".join(f"({one})" if joined and "||" in one else one for one in conditions)

    def _strategy(self, ecosystem: Ecosystem, size: int) -> dict[str, Any]:
        """Return a strategy with a matrix of one to three dimensions."""
        writer, outputs = self.writer, self.writer.scope.job_outputs()
        matrix: Any = {}
        if outputs and writer.chance(0.5):
            expression = f"${{{{ fromJSON({writer.pick(outputs)}) }}}}"
            matrix = expression if writer.chance(0.5) else {"include": expression}
        else:
            for axis in writer.sample(ecosystem.axes, 1 if size < 150 else writer.pick((1, 1, 2, 2, 3))):
                values = axis.values
                count = min(len(values), writer.pick((1, 2, 2, 3, 3, 4, 5, 7)))
                if axis.word == "component":
                    matrix[axis.key] = writer.sample(LEXICON.word(writer, "components"), count)
                elif writer.chance(0.7):
                    start = writer.number(0, len(values) - count)
                    matrix[axis.key] = values[start : start + count]
                else:
                    matrix[axis.key] = writer.sample(values, count)
            if size > 150 and writer.chance(0.2):
                first = next(iter(matrix))
                writer.scope.place = "job.strategy"
                matrix["include"] = [
                    {first: value, **_MATRIX_INCLUDE(writer)}
                    for value in writer.sample(matrix[first] * 4, writer.several(2 + size / 200, 16))
                ]
            if len(matrix) > 1 and "include" not in matrix and writer.chance(0.2):
                matrix["exclude"] = [{key: writer.pick(values) for key, values in matrix.items()}]
        strategy = {"fail-fast": writer.chance(0.06), "matrix": matrix}
        if writer.chance(0.3):
            del strategy["fail-fast"]
        elif writer.chance(0.1):
            strategy = {"matrix": matrix, "fail-fast": False}
        if writer.chance(0.05):
            strategy["max-parallel"] = writer.pick((1, 2, 3, 4, 5))
        return strategy

    def _use_matrix(self, ecosystem: Ecosystem, job: Job) -> dict[str, str]:
        """Let words stand for the values of the job's matrix; return these words with their values."""
        keys = self.writer.scope.matrix = _matrix_keys(job["strategy"]["matrix"]) if "strategy" in job else []
        settled: dict[str, str] = {}
        for axis in ecosystem.axes:
            if axis.key in keys and axis.word not in ("", "component", *settled):
                settled[axis.word] = f"${{{{ matrix.{axis.key} }}}}"
        if keys:
            settled["in_matrix"] = f"${{{{ matrix.{keys[0]} }}}}"
        self.writer.facts.update(settled)
        return settled

    def _publish_outputs(self, job: Job) -> list[str]:
        """Give the job outputs of a step that has an id and outputs, and return their names."""
        writer, steps = self.writer, job["steps"]
        with_outputs = [step for step in steps if "id" in step and outputs_of(step)]
        if not with_outputs:
            scripts = [step for step in steps if "run" in step and step.get("shell", "bash") != "pwsh"]
            ids = [step.get("id") for step in steps]
            step_id = writer.pick(("vars", "meta", "set", "filter"))
            if not scripts or "id" in scripts[-1] or step_id in ids or scripts[-1].get("shell") == "python":
                return []
            step = scripts[-1]
            index = steps.index(step)
            names = list(
                dict.fromkeys(LEXICON.word(writer, "output name") for _ in range(writer.several(3.2, 12)))
            )
            writer.scope.place = "step"
            lines = [f'echo "{name}={_OUTPUT_VALUE(writer)}" >> "$GITHUB_OUTPUT"\n' for name in names]
            step = {**step, "id": step_id, "run": step["run"].rstrip("\n") + "\n" + "".join(lines)}
            steps[index] = self.author.ordered(writer, "step", step)
            with_outputs = [step]
        source = writer.pick(with_outputs)
        names = writer.sample(outputs_of(source), writer.number(2, 9))
        job["outputs"] = {name: f"${{{{ steps.{source['id']}.outputs.{name} }}}}" for name in names}
        return names


def _matrix_keys(matrix: Any) -> list[str]:
    """Return the keys that every combination has; none if the matrix is an expression."""
    if not isinstance(matrix, dict):
        return []
    include = matrix.get("include", [])
    keys = [key for key in matrix if key not in ("include", "exclude")]
    return keys + [key for item in include if isinstance(item, dict) for key in item if key not in keys]
