"""One whole workflow: its size, its kind, its head, and its jobs."""

import math
from bisect import bisect_right
from typing import Any

from nanochat_tct.synthetic.author import Author, measure
from nanochat_tct.synthetic.jobs import JobWriter
from nanochat_tct.synthetic.library import (
    ECOSYSTEMS,
    HEAD,
    JOB_KINDS,
    KINDS,
    TRIGGERS,
    WORKFLOW_TITLES,
    WORKFLOWS,
    WorkflowTemplate,
)
from nanochat_tct.synthetic.template import LEFT_OUT, LEXICON
from nanochat_tct.synthetic.writer import Writer

# Quantiles of the planned size of a workflow, in characters of compact JSON. The result only roughly follows the plan;
# with these plans, the sizes of the results are distributed like those of real workflows.
_SIZES = [
    (0.0, 110),
    (0.01, 125),
    (0.05, 260),
    (0.1, 440),
    (0.25, 1040),
    (0.5, 1880),
    (0.75, 3560),
    (0.9, 6950),
    (0.95, 10700),
    (0.99, 23500),
    (0.999, 70000),
    (1.0, 150000),
]
_SHARES = [share for share, _ in _SIZES]
_PLACES = {"on": "on", "env": "workflow.env"}


def write_workflow(writer: Writer) -> dict[str, Any]:
    """Return a workflow with all choices made by the writer."""
    size = _planned_size(writer.random())
    author = Author(writer)
    ecosystem = writer.weighted(ECOSYSTEMS)
    writer.facts.update(ecosystem.words(writer), ecosystem=ecosystem, language=ecosystem.name)
    jobs = JobWriter(writer, author, ecosystem)
    if writer.chance(_template_share(size)):
        workflow = write_template(writer, jobs, writer.pick(list(WORKFLOWS.values())))
    else:
        kind = writer.weighted(KINDS)
        workflow = _head(writer, author, kind, size)
        _write_jobs(writer, jobs, kind, size - measure(workflow) - 10)
        _publish_outputs(writer, workflow, jobs)
    workflow["jobs"] = jobs.jobs
    return author.ordered(writer, "workflow", workflow)


def write_template(writer: Writer, jobs: JobWriter, template: WorkflowTemplate) -> dict[str, Any]:
    """Write the jobs of the template, and return the rest of its workflow."""
    workflow: dict[str, Any] = {}
    for key in sorted(template.keys, key=lambda key: key != "on"):  # first, as expressions refer to it
        writer.scope.place = _PLACES.get(key, "workflow")
        value = template.keys[key](writer)
        if value is not LEFT_OUT:
            workflow[key] = value
        if key == "on":
            writer.scope.set_triggers(workflow["on"])
    writer.scope.env = list(workflow.get("env", ()))
    jobs.env_count = len(writer.scope.env)
    for name, job in template.jobs:
        jobs.from_template(name(writer), job)
    return workflow


def _planned_size(share: float) -> int:
    """Return the quantile of sizes for a share, by linear interpolation of the logarithm."""
    upper = bisect_right(_SHARES, share)
    (low_share, low), (high_share, high) = _SIZES[upper - 1], _SIZES[upper]
    part = (share - low_share) / (high_share - low_share)
    return int(low * math.exp(part * math.log(high / low)))


def _template_share(size: int) -> float:
    """Return the share of workflows of a size that come from a template of a whole workflow."""
    if size < 250:
        return 0.0
    return 0.36 if size < 900 else 0.2 if size < 1400 else 0.0


def _head(writer: Writer, author: Author, kind: str, size: int) -> dict[str, Any]:
    """Return a workflow without its jobs."""
    scope = writer.scope
    workflow: dict[str, Any] = {}
    if (size > 200 or writer.chance(0.85)) and writer.chance(0.98):
        workflow["name"] = author.title(
            writer, WORKFLOW_TITLES[kind](writer) + LEXICON.word(writer, "subtitle")
        )
    scope.place = "on"
    writer.size = min(size // 4, 260 + size // 7)
    on = TRIGGERS[kind](writer)
    if on is LEFT_OUT or not on:
        on = {"push": None, "pull_request": None}
    on = {event: value if value != {} else None for event, value in on.items()}
    scope.set_triggers(on)
    if all(value is None for value in on.values()) and writer.chance(0.25 if len(on) == 1 else 0.85):
        on = next(iter(on)) if len(on) == 1 else list(on)
    workflow["on"] = on
    writer.size = size
    for key, generator in HEAD.items():
        scope.place = _PLACES.get(key, "workflow")
        value = generator(writer)
        if value is not LEFT_OUT:
            workflow[key] = value
    scope.env = list(workflow.get("env", ()))
    return workflow


def _write_jobs(writer: Writer, jobs: JobWriter, kind: str, size: int) -> None:
    """Write jobs with about the given size in total."""
    jobs.env_count = len(writer.scope.env)
    count = _job_count(writer, size)
    shares = [0.25 + writer.random() ** 2 for _ in range(count)]
    calls = 0.8 if writer.chance(0.36 if count > 1 else 0.25) else 0.06
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
            jobs.call(min(budget, 900))
        else:
            jobs.write(writer.weighted(JOB_KINDS[kind]), budget)
        left = size - jobs.size
        if left < 80:
            break
    while left > 600:
        jobs.write(writer.weighted(JOB_KINDS[kind]), min(left, 3500))
        left = size - jobs.size


def _job_count(writer: Writer, size: int) -> int:
    """Return the number of jobs: one plus a geometric number, whose mean grows with the size."""
    mean = (max(size, 0) / 2600) ** 0.9
    more = int(math.log(1.0 - writer.random()) / math.log(mean / (1.0 + mean))) if mean > 0 else 0
    return 1 + max(0, min(more, size // 350, 60))


def _publish_outputs(writer: Writer, workflow: dict[str, Any], jobs: JobWriter) -> None:
    """Let a reusable workflow pass on outputs of its jobs."""
    outputs = [(job, name) for job, names in writer.scope.outputs.items() for name in names]
    on = workflow["on"]
    if outputs and isinstance(on, dict) and "workflow_call" in on and writer.chance(0.5):
        call = on["workflow_call"] = on["workflow_call"] or {}
        call["outputs"] = {
            name: {
                **({"description": LEXICON.word(writer, "output description")} if writer.chance(0.5) else {}),
                "value": f"${{{{ jobs.{job}.outputs.{name} }}}}",
            }
            for job, name in writer.sample(outputs, writer.number(1, 3))
        }
