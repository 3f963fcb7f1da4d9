"""One whole workflow: its size, its kind, its head, and its jobs."""

import math
from typing import Any

from nanochat_tct.synthetic.jobs import JobWriter, write_part
from nanochat_tct.synthetic.library import ECOSYSTEMS, FOLDER, Part, compile_part, read
from nanochat_tct.synthetic.style import measure, styled
from nanochat_tct.synthetic.template import LEFT_OUT, LEXICON
from nanochat_tct.synthetic.writer import Writer

# Quantiles of the planned size of a workflow, in characters of compact JSON. The result only roughly follows the plan;
# with these plans, the sizes of the results are distributed like those of real workflows.
_SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
_SIZES = (110, 125, 260, 440, 1040, 1880, 3560, 6950, 10000, 22500, 70000, 150000)


def write_workflow(writer: Writer) -> dict[str, Any]:
    """Return a workflow with all choices made by the writer."""
    size = _planned_size(writer.random())
    settle(writer, LEXICON.word(writer, "language"))
    if writer.chance(0.0 if size < 250 else 0.36 if size < 900 else 0.2 if size < 1400 else 0.0):
        return write_template(writer, writer.pick(list(WORKFLOWS.values())))
    kind = writer.facts["kind"] = LEXICON.word(writer, "kind")
    writer.size = size
    workflow = write_part(writer, "workflow", HEAD)
    jobs = JobWriter(writer)
    _write_jobs(writer, jobs, kind, size - measure(workflow) - 10)
    _publish_outputs(writer, workflow["on"])
    return styled(writer, "workflow", {**workflow, "jobs": jobs.jobs})


def settle(writer: Writer, language: str) -> None:
    """Let the workflow be about a language."""
    ecosystem = ECOSYSTEMS[language]
    writer.facts.update(ecosystem.words(writer), language=language, ecosystem=ecosystem)


def write_template(writer: Writer, template: Part) -> dict[str, Any]:
    """Return a workflow from a template of a whole one."""
    workflow = write_part(writer, "workflow", template)
    jobs = JobWriter(writer)
    for name, job in template.jobs:
        jobs.from_template(name(writer), job)
    return styled(writer, "workflow", {**workflow, "jobs": jobs.jobs})


def _planned_size(share: float) -> int:
    """Return the quantile of sizes for a share, by linear interpolation of the logarithm."""
    upper = next(index for index, least in enumerate(_SHARES) if least > share)
    low, high = _SIZES[upper - 1], _SIZES[upper]
    part = (share - _SHARES[upper - 1]) / (_SHARES[upper] - _SHARES[upper - 1])
    return int(low * math.exp(part * math.log(high / low)))


def _triggers(writer: Writer) -> Any:
    """Return the value of `on` for this kind of workflow, as short as it can be in some cases."""
    size = writer.size
    writer.size = min(size // 4, 260 + size // 7)
    on = LEXICON.word(writer, f"on {writer.facts['kind']}")
    writer.size = size
    if on is LEFT_OUT or not on:
        on = {"push": None, "pull_request": None}
    on = {event: value or None for event, value in on.items()}
    if not any(on.values()) and writer.chance(0.32 if len(on) == 1 else 0.75):
        return next(iter(on)) if len(on) == 1 else list(on)
    return on


def _write_jobs(writer: Writer, jobs: JobWriter, kind: str, size: int) -> None:
    """Write jobs with about the given size in total."""
    count = _job_count(writer, size)
    shares = [0.2 + writer.random() ** 2.5 for _ in range(count)]
    calls = 0.8 if writer.chance(0.32 if count > 1 else 0.25) else 0.05
    if count == 1 and size > 900:
        calls = 0.0
    left, total = size, sum(shares)
    for position, share in enumerate(shares):
        budget = int(left * share / total)
        total -= share
        if count > 1 and position == 0 and writer.chance(0.12 + 0.02 * count):
            jobs.write("prepare", min(budget, 1600))
        elif count > 3 and position == count - 1 and writer.chance(0.25):
            jobs.write(writer.pick(("gate", "gate", "notify")), min(budget, 700))
        elif writer.chance(calls):
            jobs.write("call", min(budget, 900))
        else:
            jobs.write(LEXICON.word(writer, f"{kind} job"), budget)
        left = size - jobs.size
        if left < 80:
            break
    while left > 600:
        jobs.write(LEXICON.word(writer, f"{kind} job"), min(left, 3500))
        left = size - jobs.size


def _job_count(writer: Writer, size: int) -> int:
    """Return the number of jobs: one plus a geometric number, whose mean grows with the size."""
    mean = (max(size, 0) / 2450) ** 0.9
    more = int(math.log(1.0 - writer.random()) / math.log(mean / (1.0 + mean))) if mean > 0 else 0
    return 1 + max(0, min(more, size // 290, 60))


def _publish_outputs(writer: Writer, on: Any) -> None:
    """Let a reusable workflow pass on outputs of its jobs."""
    outputs = [(job, name) for job, names in writer.scope.outputs.items() for name in names]
    if outputs and "workflow_call" in on and isinstance(on, dict) and writer.chance(0.48):
        call = on["workflow_call"] = on["workflow_call"] or {}
        call["outputs"] = {
            name: {**LEXICON.word(writer, "output keys"), "value": f"${{{{ jobs.{job}.outputs.{name} }}}}"}
            for job, name in writer.sample(outputs, writer.number(1, 3))
        }


LEXICON.add(
    {
        "triggers": _triggers,
        "workflow title": lambda writer: LEXICON.word(writer, f"{writer.facts['kind']} title"),
    }
)
HEAD = compile_part(read("head.yaml"))
WORKFLOWS = {
    file.stem: compile_part(read(f"workflows/{file.name}"))
    for file in sorted(FOLDER.glob("workflows/*.yaml"))
}
