"""One whole workflow: how large, of which kind, its head, and its jobs."""

import math
from bisect import bisect_right
from typing import Any

from nanochat_tct.synthetic import names, vocabulary
from nanochat_tct.synthetic.chores import CHORES
from nanochat_tct.synthetic.ecosystems import ECOSYSTEMS, Ecosystem
from nanochat_tct.synthetic.jobs import call_job, job
from nanochat_tct.synthetic.plan import Plan, measure
from nanochat_tct.synthetic.settings import variables
from nanochat_tct.synthetic.style import Style
from nanochat_tct.synthetic.template import LEXICON, Generator, compile_text, compile_value, maybe
from nanochat_tct.synthetic.triggers import triggers
from nanochat_tct.synthetic.writer import Writer

assert names and vocabulary  # imported for the words that they define

# The size that workflows are planned for, in characters of compact JSON, at these shares of all workflows. What is
# written keeps only about to the plan: these make the outcome spread as the sizes of real workflows do.
_SIZES = [
    (0.0, 110),
    (0.01, 125),
    (0.05, 215),
    (0.1, 390),
    (0.25, 945),
    (0.5, 1880),
    (0.75, 3560),
    (0.9, 6950),
    (0.95, 11300),
    (0.99, 26900),
    (0.999, 80000),
    (1.0, 150000),
]
_SHARES = [share for share, _ in _SIZES]

_KINDS = [
    (48.0, "ci"),
    (12.0, "release"),
    (10.0, "deploy"),
    (12.0, "nightly"),
    (14.0, "call"),
    (2.5, "comment"),
]
_JOB_KINDS = {
    "ci": [
        (6.0, "test"),
        (3.0, "lint"),
        (3.0, "build"),
        (1.0, "docs"),
        (2.0, "integration"),
        (0.5, "benchmark"),
        (1.2, "script"),
        (0.5, "release"),
    ],
    "release": [(4.0, "release"), (3.5, "build"), (1.0, "docs"), (1.0, "test"), (1.2, "script")],
    "deploy": [(5.0, "deploy"), (2.5, "build"), (1.0, "test"), (1.0, "integration"), (1.5, "script")],
    "nightly": [(3.0, "test"), (2.0, "integration"), (1.5, "benchmark"), (1.5, "build"), (3.5, "script")],
    "call": [
        (3.0, "test"),
        (3.0, "build"),
        (1.0, "lint"),
        (1.5, "deploy"),
        (1.5, "release"),
        (2.5, "script"),
        (1.0, "integration"),
    ],
    "comment": [(5.0, "script"), (1.0, "test"), (1.0, "prepare"), (1.0, "deploy")],
}
_TITLES = {
    kind: compile_text(template)
    for kind, template in {
        "ci": "‹CI|CI|CI|Tests|Test|Build|Build and test|‹Project› CI|Lint|CI / ‹focus›|Check|Continuous integration|Pull request|‹focus› tests|Test ‹focus›|Build ‹focus›|‹Language› CI|‹Language› tests|ci|test|PR checks|‹focus›|Verify›",
        "release": "‹Release|Release|Publish|Publish ‹focus›|Publish to ‹PyPI|npm|registry›|Release ‹focus›|Create release|Build and release|Publish package|Upload release|Prepare release|release›",
        "deploy": "‹Deploy|Deploy to ‹cloud_environment›|CD|Deploy ‹focus›|Build and deploy|Deploy docs|Docker|Publish image|Deploy preview|deploy-‹focus››",
        "nightly": "‹Nightly|Nightly build|Scheduled tests|Weekly ‹focus›|Cron|Nightly ‹focus›|Daily checks|‹Verb› ‹object›|Update ‹object›|Periodic ‹focus› tests|Performance|Security scan›",
        "call": "‹Reusable ‹focus›|‹Verb› ‹object›|‹focus› (reusable)|_‹focus›|Build ‹focus›|Test ‹focus›|Deploy ‹focus›|Run ‹focus› tests|Shared ‹focus›|‹Verb› ‹focus›|reusable-‹focus››",
        "comment": "‹Slash commands|Comment triggers|Triage|Respond to comments|PR commands|‹Verb› on comment|Label ‹object›|Preview ‹focus››",
    }.items()
}
_SUBTITLE = compile_text(
    "‹|||||| ‹focus›| ‹focus› (‹Language›)| (‹focus›)| / ‹focus›| - ‹Project›| for ‹Language› ‹object›| on ‹main›| and ‹verb› ‹object›| :: ‹focus› tests|, ‹object› and ‹object››"
)
LEXICON.facts(Language="Python")  # set when the ecosystem is known
_PERMISSIONS = compile_value(
    ({"contents": "read"},) * 16
    + (
        {},
        {},
        {},
        {},
        {},
        "read-all",
        "read-all",
        "write-all",
        {"id-token": "write", "contents": "read"},
        {"contents": "write"},
        {"contents": "read", "pull-requests": "write"},
        {"contents": "write", "pull-requests": "write"},
        {
            "contents": "read",
            "packages": maybe("write"),
            "id-token": maybe("write"),
            "checks": maybe("write"),
        },
        {"contents": "read", "pages": "write", "id-token": "write"},
        {"actions": "read", "contents": "read", "security-events": "write"},
        {"issues": "write", "pull-requests": maybe("write")},
        {"contents": "read", "packages": "none", "deployments": "write"},
    )
)
_CONCURRENCY = compile_value(
    (
        {"group": "${{ github.workflow }}-${{ github.ref }}", "cancel-in-progress": True},
        {"group": "${{ github.workflow }}-${{ github.ref }}", "cancel-in-progress": True},
        {
            "group": "${{ github.workflow }}-${{ github.event.pull_request.number ¦¦ github.ref }}",
            "cancel-in-progress": True,
        },
        {
            "group": "${{ github.workflow }}-${{ github.head_ref ¦¦ github.run_id }}",
            "cancel-in-progress": True,
        },
        {
            "group": "${{ github.workflow }}-${{ github.ref }}",
            "cancel-in-progress": "${{ github.event_name == 'pull_request' }}",
        },
        {
            "group": "${{ github.workflow }}-${{ github.ref }}",
            "cancel-in-progress": "${{ github.ref != 'refs/heads/‹main›' }}",
        },
        {
            "group": "‹focus|ci|release|pages|deploy›-${{ github.‹ref|head_ref|ref_name› }}",
            "cancel-in-progress": (True, True, False),
        },
        {"group": "‹pages|release|deploy|‹focus››", "cancel-in-progress": False},
        {"group": "${{ github.workflow }}"},
        "${{ github.workflow }}-${{ github.ref }}",
        "‹ci|deploy|release|‹focus››‹|-${{ github.ref }}›",
    )
)
_ENV = variables(1.0)
_DEFAULTS = compile_value(
    {
        "run": (
            {"shell": "bash"},
            {"shell": "bash"},
            {"working-directory": "‹workdir›"},
            {"shell": "bash -euxo pipefail {0}"},
            {"shell": "bash -l {0}"},
            {"shell": "bash", "working-directory": "‹workdir›"},
            {"shell": "pwsh"},
        )
    }
)
_RUN_NAME = compile_text(
    "‹‹Verb› ‹component› by @${{ github.actor }}|${{ github.workflow }} (${{ github.ref_name }})|‹Deploy|Release› ${{ inputs.‹input_name› }}|${{ github.event.pull_request.title ¦¦ github.ref_name }}|‹focus› to ${{ inputs.environment }}›"
)
_ECOSYSTEM_ENV: dict[str, Generator] = {
    ecosystem.name: compile_value(ecosystem.env) for _, ecosystem in ECOSYSTEMS
}


def write_workflow(writer: Writer) -> dict[str, Any]:
    """Return a workflow with all choices made by the writer."""
    size = _planned_size(writer.random())
    style = Style(writer)
    if writer.chance(_chore_share(size)):
        chore = writer.pick(CHORES)(writer)
        for work in chore["jobs"].values():
            work["steps"] = [style.step(writer, step) for step in work["steps"]]
        return style.workflow(chore)
    plan = Plan(writer.weighted(ECOSYSTEMS), style)
    kind = writer.weighted(_KINDS)
    plan.reusable = kind == "call"
    workflow = _head(writer, plan, kind, size)
    workflow["jobs"] = _jobs(writer, plan, kind, size - measure(workflow) - 10)
    return style.workflow(workflow)


def _planned_size(share: float) -> int:
    """Return the size that this share of all workflows stays below; straight lines in the logarithm."""
    upper = bisect_right(_SHARES, share)
    (low_share, low), (high_share, high) = _SIZES[upper - 1], _SIZES[upper]
    part = (share - low_share) / (high_share - low_share)
    return int(low * math.exp(part * math.log(high / low)))


def _chore_share(size: int) -> float:
    if size < 250:
        return 0.0
    return 0.36 if size < 900 else 0.2 if size < 1400 else 0.0


def _head(writer: Writer, plan: Plan, kind: str, size: int) -> dict[str, Any]:
    """Return all of a workflow but its jobs."""
    ecosystem = plan.main
    writer.known["Language"] = ecosystem.name.capitalize()
    head: dict[str, Any] = {}
    if (size > 200 or writer.chance(0.6)) and writer.chance(0.96):
        head["name"] = plan.style.title(writer, _TITLES[kind](writer) + _SUBTITLE(writer))
    head["on"] = triggers(writer, kind, ecosystem, min(size // 4, 260 + size // 7))
    small = 0.35 if size < 500 else 1.0
    if writer.chance(0.56 * small):
        head["permissions"] = _PERMISSIONS(writer)
    if writer.chance((0.52 if kind == "ci" else 0.3) * small):
        head["concurrency"] = _CONCURRENCY(writer)
    if size > 500 and writer.chance(0.38):
        env = _env(writer, ecosystem, size)
        if env:
            head["env"] = env
    if size > 500 and writer.chance(0.07):
        head["defaults"] = _DEFAULTS(writer)
    if size > 400 and writer.chance(0.028):
        head["run-name"] = _RUN_NAME(writer)
    return head


def _env(writer: Writer, ecosystem: Ecosystem, size: int) -> dict[str, Any]:
    env: dict[str, Any] = _ECOSYSTEM_ENV[ecosystem.name](writer)
    for _ in range(writer.several(2.0 + size / 4000, 20) - 1):
        writer.forget("it", "IT")
        env.update(_ENV(writer))
    return env


def _jobs(writer: Writer, plan: Plan, kind: str, size: int) -> dict[str, Any]:
    """Return jobs that together take about the size."""
    count = _job_count(writer, size)
    shares = [0.25 + writer.random() ** 2 for _ in range(count)]
    calls = 0.8 if writer.chance(0.3 if count > 1 else 0.2) else 0.04
    if count == 1 and size > 900:
        calls = 0.0
    jobs: dict[str, Any] = {}
    left, total = size, sum(shares)
    for position, share in enumerate(shares):
        budget = int(left * share / total)
        total -= share
        if count > 1 and position == 0 and writer.chance(0.12 + 0.02 * count):
            name, value = job(writer, plan, "prepare", min(budget, 1600))
        elif count > 3 and position == count - 1 and writer.chance(0.25):
            name, value = job(writer, plan, writer.pick(("gate", "gate", "notify")), min(budget, 700))
        elif writer.chance(calls):
            name, value = call_job(writer, plan, min(budget, 900))
        else:
            name, value = job(writer, plan, writer.weighted(_JOB_KINDS[kind]), budget)
        jobs[name] = value
        left -= len(name) + 4 + measure(value)
        if left < 80:
            break
    while left > 600:
        name, value = job(writer, plan, writer.weighted(_JOB_KINDS[kind]), min(left, 3500))
        jobs[name] = value
        left -= len(name) + 4 + measure(value)
    return jobs


def _job_count(writer: Writer, size: int) -> int:
    """Return the number of jobs: one and a geometric number more, which grows with the size."""
    mean = (max(size, 0) / 2600) ** 0.9
    more = int(math.log(1.0 - writer.random()) / math.log(mean / (1.0 + mean))) if mean > 0 else 0
    return 1 + max(0, min(more, size // 350, 60))
