"""Jobs: ordinary ones, and calls of reusable workflows; how they wait for each other and hand on outputs."""

from typing import Any

from nanochat_tct.synthetic.ecosystems import ECOSYSTEMS, Ecosystem
from nanochat_tct.synthetic.job_steps import steps_of_kind
from nanochat_tct.synthetic.job_templates import (
    CALL_ID,
    CALL_SECRETS,
    CALLED,
    CONDITION,
    CONTAINER,
    ENVIRONMENT,
    GATE,
    IDS,
    IMAGES,
    JOB_ENV,
    MATRIX_TITLES,
    OUTPUT_NAME,
    OUTPUT_VALUE,
    PERMISSIONS,
    RUNNERS,
    SERVICES,
    TITLES,
)
from nanochat_tct.synthetic.matrices import strategy_of, use_matrix
from nanochat_tct.synthetic.plan import Plan, measure
from nanochat_tct.synthetic.settings import settings
from nanochat_tct.synthetic.template import LEXICON
from nanochat_tct.synthetic.writer import Writer


def call_job(writer: Writer, plan: Plan, size: int) -> tuple[str, dict[str, Any]]:
    """Return the name and the value of a job that calls a reusable workflow."""
    writer.forget("focus", "FOCUS", "it", "IT")
    job: dict[str, Any] = {"uses": CALLED(writer)}
    if writer.chance(plan.style.named_jobs * 0.6):
        job["name"] = plan.style.title(writer, TITLES["script"](writer))
    _relate(writer, plan, job, 0.5)
    if writer.chance(0.3):
        job["permissions"] = PERMISSIONS(writer)
    if size > 250 and writer.chance(0.1):
        job["strategy"] = strategy_of(writer, plan.outputs, plan.main, size // 3)
    if writer.chance(0.45):
        job["secrets"] = CALL_SECRETS(writer)
    if writer.chance(0.82):
        job["with"] = settings(1.0 + max(0, size - measure(job)) / 60, 40)(writer)
    return _settle(plan, CALL_ID(writer)), plan.style.job(job)


def job(writer: Writer, plan: Plan, kind: str, size: int) -> tuple[str, dict[str, Any]]:
    """Return the name and the value of a job of that kind, with about `size` characters as compact JSON."""
    writer.forget("focus", "FOCUS", "it", "IT")
    ecosystem = plan.main
    if writer.chance(0.12):
        ecosystem = writer.weighted(ECOSYSTEMS)
    style = plan.style
    name = _settle(plan, IDS[kind](writer))
    work: dict[str, Any] = {"runs-on": RUNNERS(writer)}
    overridden: list[str] = []
    if (
        size > 500
        and kind in ("test", "build", "integration", "lint", "benchmark", "release")
        and writer.chance(0.36)
    ):
        work["strategy"] = strategy_of(writer, plan.outputs, ecosystem, size // 4)
        overridden = use_matrix(writer, ecosystem, work)
    elif size > 900 and kind == "deploy" and writer.chance(0.1):
        work["strategy"] = {"max-parallel": 1, "matrix": {"environment": ["staging", "production"]}}
    if writer.chance(style.named_jobs):
        title = str(TITLES[kind](writer))
        if overridden:
            writer.known["axes"] = " }}, ${{ ".join([writer.known[word][4:-3] for word in overridden])
            title += MATRIX_TITLES(writer)
            writer.forget("axes")
        work["name"] = style.title(writer, title)
    _relate(writer, plan, work, 0.25)
    _describe(writer, ecosystem, work, kind, size)
    if kind == "gate":
        work["needs"] = list(plan.names[:-1]) or work.get("needs") or [name]
        if work["needs"] == [name]:
            del work["needs"]
        work["if"] = style.condition(writer, "always()")
        work["steps"] = [style.step(writer, GATE(writer))]
    else:
        work["steps"] = steps_of_kind(writer, plan, ecosystem, kind, size - measure(work) - len(name) - 15)
    if kind == "prepare" or (kind in ("build", "script", "test") and writer.chance(0.06)):
        _publish_outputs(writer, plan, name, work)
    writer.forget("in_matrix", *overridden)
    return name, style.job(work)


def _settle(plan: Plan, name: str) -> str:
    """Return a job name that no other job of the workflow has, and note it."""
    known, number = name, 2
    while name in plan.names:
        name, number = f"{known}-{number}", number + 1
    plan.names.append(name)
    return name


def _relate(writer: Writer, plan: Plan, work: dict[str, Any], condition_share: float) -> None:
    """Let the job wait for earlier ones, and depend on conditions and on their outputs."""
    earlier = plan.names[:-1] if "runs-on" in work else plan.names
    conditions = []
    if earlier and writer.chance(0.62):
        recent = earlier[-4:]
        needed = writer.sample(recent, writer.pick((1, 1, 1, 2, 3)))
        work["needs"] = needed[0] if len(needed) == 1 and writer.chance(0.62) else needed
        for name in needed:
            if name in plan.outputs and writer.chance(0.7):
                holds = writer.pick(("== 'true'", "== 'true'", "!= ''"))
                conditions.append(f"needs.{name}.outputs.{writer.pick(plan.outputs[name])} {holds}")
    if writer.chance(condition_share) or (conditions and writer.chance(0.2)):
        conditions.extend({CONDITION(writer): None for _ in range(writer.pick((1, 1, 1, 2, 2, 3)))})
    if conditions:
        work["if"] = plan.style.condition(writer, " && ".join(conditions))


def _describe(writer: Writer, ecosystem: Ecosystem, work: dict[str, Any], kind: str, size: int) -> None:
    """Add what jobs have besides steps."""
    if writer.chance(0.55 if kind in ("release", "deploy") else 0.24):
        work["permissions"] = PERMISSIONS(writer)
    if writer.chance(0.13):
        work["timeout-minutes"] = writer.pick((5, 10, 10, 10, 15, 20, 30, 30, 30, 45, 60, 60, 90, 120, 360))
    if size < 600:
        return
    if writer.chance(0.11):
        work["env"] = JOB_ENV(writer)
    if writer.chance(0.04):
        folder = str(LEXICON.word(writer, "workdir"))
        work["defaults"] = {
            "run": writer.pick(
                (
                    {"working-directory": folder},
                    {"working-directory": folder},
                    {"shell": "bash"},
                    {"shell": "bash -el {0}"},
                )
            )
        }
    if kind in ("test", "integration", "build", "lint") and writer.chance(0.06):
        if ecosystem.images and writer.chance(0.6):
            writer.known["container_image"] = IMAGES[ecosystem.name](writer)
        work["container"] = CONTAINER(writer)
        writer.forget("container_image")
    if kind in ("test", "integration") and writer.chance(0.05 if kind == "test" else 0.25):
        work["services"] = SERVICES(writer)
    if kind in ("deploy", "release") and writer.chance(0.35 if kind == "deploy" else 0.2):
        work["environment"] = ENVIRONMENT(writer)
    if writer.chance(0.012):
        work["continue-on-error"] = writer.pick((True, True, "${{ matrix.experimental }}"))
    if kind == "deploy" and writer.chance(0.12):
        work["concurrency"] = writer.pick(
            ("deploy-${{ github.ref }}", {"group": "deploy", "cancel-in-progress": False}, "production")
        )


def _publish_outputs(writer: Writer, plan: Plan, name: str, work: dict[str, Any]) -> None:
    """Give the job outputs of its last step with an id, and note them for the jobs to come."""
    outputs = list(dict.fromkeys(OUTPUT_NAME(writer) for _ in range(writer.several(2.2, 12))))
    source = ""
    for step in work["steps"]:
        source = step.get("id", source)
    if not source:
        source = writer.pick(("vars", "meta", "set", "filter"))
        last = work["steps"][-1]
        work["steps"][-1] = (
            {"name": last["name"], "id": source, **last} if "name" in last else {"id": source, **last}
        )
    for step in work["steps"]:
        if step.get("id") == source and "run" in step:
            setting = [f'echo "{output}={OUTPUT_VALUE(writer)}" >> "$GITHUB_OUTPUT"\n' for output in outputs]
            step["run"] = step["run"].rstrip("\n") + "\n" + "".join(setting)
    work["outputs"] = {output: f"${{{{ steps.{source}.outputs.{output} }}}}" for output in outputs}
    plan.outputs[name] = outputs
