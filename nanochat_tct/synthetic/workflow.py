"""One whole workflow: its size, its kind, its head, and its jobs."""

from typing import Any

from nanochat_tct.synthetic.jobs import JobWriter, write_part
from nanochat_tct.synthetic.library import ECOSYSTEMS, FOLDER, Part, compile_part, read
from nanochat_tct.synthetic.style import measure, styled
from nanochat_tct.synthetic.template import LEFT_OUT, LEXICON
from nanochat_tct.synthetic.writer import Writer


def write_workflow(writer: Writer) -> dict[str, Any]:
    """Return a workflow with all choices made by the writer."""
    size = int(LEXICON.word(writer, "size"))
    # As in real workflows: authors of long ones also name more steps and set more optional keys.
    writer.detail = min(1.15, (size / 2000) ** 0.35)
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


def _triggers(writer: Writer) -> Any:
    """Return the value of `on` for this kind of workflow, as short as it can be in some cases."""
    size = writer.size
    writer.size = min(size // 4, 260 + size // 7)
    on = LEXICON.word(writer, f"on {writer.facts['kind']}")
    writer.size = size
    if on is LEFT_OUT or not on:
        on = {"push": None, "pull_request": None}
    on = {event: value or None for event, value in on.items()}
    if not any(on.values()) and writer.chance(0.42 if len(on) == 1 else 0.68):
        return next(iter(on)) if len(on) == 1 else list(on)
    return on


def _write_jobs(writer: Writer, jobs: JobWriter, kind: str, size: int) -> None:
    """Write jobs with about the given size in total."""
    count = writer.several(1.13 + (max(size, 0) / 2900) ** 0.9, min(1 + size // 200, 61))
    shares = [0.2 + writer.random() ** 2.5 for _ in range(count)]
    calls = 0.8 if writer.chance(0.6 if size < 700 < 350 * count else 0.33 if count > 1 else 0.26) else 0.05
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
        jobs.write(LEXICON.word(writer, f"{kind} job"), min(left, writer.number(600, 5000)))
        left = size - jobs.size


def _publish_outputs(writer: Writer, on: Any) -> None:
    """Let a reusable workflow pass on outputs of its jobs."""
    outputs = [(job, name) for job, names in writer.scope.outputs.items() for name in names]
    if outputs and "workflow_call" in on and isinstance(on, dict) and writer.chance(0.56):
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
