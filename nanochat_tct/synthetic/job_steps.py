"""The steps of a job: those of its kind and language, and others until the job is as large as planned."""

from typing import Any

from nanochat_tct.synthetic import steps as common
from nanochat_tct.synthetic.ecosystems import Ecosystem
from nanochat_tct.synthetic.job_templates import (
    CHANGES,
    CONDITION,
    EXTRA_WEIGHT,
    EXTRAS,
    NOTIFY,
    SCRIPT_WEIGHT,
    STEP_ENV,
)
from nanochat_tct.synthetic.plan import Plan, measure
from nanochat_tct.synthetic.scripts import scripted_step
from nanochat_tct.synthetic.template import LEXICON, Generator
from nanochat_tct.synthetic.writer import Writer


def steps_of_kind(
    writer: Writer, plan: Plan, ecosystem: Ecosystem, kind: str, size: int
) -> list[dict[str, Any]]:
    """Return the steps of a job: checkout, set-up, those of its kind, and others until the size is reached."""
    first: list[dict[str, Any]] = []
    setup: list[dict[str, Any]] = []
    middle: list[dict[str, Any]] = []
    last: list[dict[str, Any]] = []
    places = (first, setup, middle, last)
    left = size

    def add(place: list[dict[str, Any]], step: dict[str, Any]) -> None:
        nonlocal left
        if place is not first:
            _decorate(writer, step)
        styled = plan.style.step(writer, step)
        left -= measure(styled) + 1
        place.append(styled)

    scripted = kind in ("script", "prepare", "notify")
    if left > 150 and writer.chance(0.1):
        add(first, common.HARDEN(writer))
    if kind == "notify":
        add(last, NOTIFY(writer))
    elif left > 90 and writer.chance(0.95 if not scripted else 0.75):
        add(first, common.CHECKOUT(writer))
    if kind == "prepare" and writer.chance(0.35):
        add(middle, CHANGES(writer))
    if not scripted:
        share = 0.35 if left < 300 else 0.72
        for generator in ecosystem.setup:
            if left > 60 and writer.chance(share):
                step = generator(writer)
                if step:
                    add(setup, step)
        own = ecosystem.kinds.get(kind) or ecosystem.kinds.get("test") or ecosystem.kinds["build"]
        own_steps, left = _own_steps(writer, plan, own, left)
        middle.extend(own_steps)
    while left > 70 or not (first or setup or middle or last):
        if left < 230 and not (middle or last):
            add(middle, common.COMMAND(writer))
        elif scripted or writer.random() * (EXTRA_WEIGHT + SCRIPT_WEIGHT) < SCRIPT_WEIGHT:
            add(middle, scripted_step(writer, _script_size(writer, left)))
        else:
            place, generator = writer.weighted(EXTRAS)
            if len(places[place]) < 8 or place == 2:
                add(places[place], generator(writer))
    return first + setup + middle + last


def _own_steps(
    writer: Writer, plan: Plan, own: list[Generator], left: int
) -> tuple[list[dict[str, Any]], int]:
    """Return steps of the job's kind, in their order, that take up to about what is left, and what is left then."""
    chosen: dict[int, dict[str, Any]] = {}
    for position in writer.shuffled(range(len(own))):
        if chosen and (left < 100 or writer.chance(0.12)):
            break
        step = own[position](writer)
        _decorate(writer, step)
        chosen[position] = plan.style.step(writer, step)
        left -= measure(chosen[position]) + 1
    return [chosen[position] for position in sorted(chosen)], left


def _script_size(writer: Writer, left: int) -> int:
    """Return the length of a script that leaves no more than a little of what is left."""
    spread = writer.random()
    wanted = int(70 * 2 ** (6.6 * spread * (0.55 + 0.45 * writer.random())))
    return max(20, min(wanted, left - 60))


def _decorate(writer: Writer, step: dict[str, Any]) -> None:
    """Now and then, add to a step what any step may have."""
    if not writer.chance(0.32):
        return
    if "if" not in step and writer.chance(0.55):
        step["if"] = CONDITION(writer)
    if "run" not in step:
        return
    if "env" not in step and writer.chance(0.33):
        step["env"] = STEP_ENV(writer)
    if writer.chance(0.22):
        step["timeout-minutes"] = writer.pick((1, 2, 5, 10, 15, 20, 30, 45))
    if writer.chance(0.1):
        step["continue-on-error"] = True
    if "working-directory" not in step and writer.chance(0.3):
        step["working-directory"] = str(LEXICON.word(writer, "workdir"))
    if "shell" not in step and writer.chance(0.2):
        step["shell"] = writer.pick(("bash",) * 12 + ("sh", "pwsh", "bash -euxo pipefail {0}", "cmd"))
