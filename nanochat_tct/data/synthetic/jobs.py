"""Jobs: their steps up to a size, matrices, services, containers, and calls of reusable workflows."""

import json
from dataclasses import dataclass, field
from typing import Any

from nanochat_tct.data.synthetic import steps as common
from nanochat_tct.data.synthetic.ecosystems import ECOSYSTEMS, Ecosystem
from nanochat_tct.data.synthetic.scripts import scripted_step
from nanochat_tct.data.synthetic.style import Style
from nanochat_tct.data.synthetic.template import LEXICON, Generator, compile_text, compile_value, maybe
from nanochat_tct.data.synthetic.writer import Writer

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def measure(value: Any) -> int:
    """Return the number of characters of the value as compact JSON."""
    return len(_encode(value))


@dataclass
class Plan:
    """What the jobs of one workflow know of each other.

    Attributes:
        main: the ecosystem that the workflow is about.
        names: job names so far, in order.
        outputs: the outputs of those jobs that have any.
        reusable: True if the workflow can be called, so that `inputs` exist.
    """

    main: Ecosystem
    style: Style
    names: list[str] = field(default_factory=list)
    outputs: dict[str, list[str]] = field(default_factory=dict)
    reusable: bool = False


# The names of jobs by kind: what they are called in `jobs`, and in the interface.
_IDS = {
    kind: compile_text(template)
    for kind, template in {
        "lint": "‹lint|lint|lint|format|style|check|checks|static-analysis|code-quality|pre-commit|lint-‹focus›|quality|validate›",
        "test": "‹test|test|test|tests|unit-tests|unit|test-‹focus›|build|build-and-test|ci|check|build_and_test|run-tests|‹focus›-tests|test_‹focus››",
        "build": "‹build|build|build|package|compile|build-‹focus›|dist|binaries|artifacts|build_‹focus›|images|build-image›",
        "release": "‹release|release|publish|deploy|publish-‹focus›|release-‹focus›|pypi|upload|create-release|github-release›",
        "docs": "‹docs|docs|build-docs|documentation|pages|doc|site›",
        "integration": "‹integration|e2e|integration-tests|e2e-tests|end-to-end|integration-‹focus›|e2e-‹focus›|acceptance|smoke|system-tests›",
        "deploy": "‹deploy|deploy|deploy-‹cloud_environment›|deploy-‹focus›|staging|production|rollout|promote|apply›",
        "benchmark": "‹bench|benchmark|benchmarks|perf|performance|fuzz|nightly-‹focus››",
        "prepare": "‹prepare|changes|setup|meta|matrix|version|detect-changes|pre-check|config|plan|context|get-version|info›",
        "gate": "‹all-green|ci-success|status|required|done|check-all|conclusion|ci-ok|summary|report|finish›",
        "notify": "‹notify|notification|alert|slack|report-failure|comment›",
        "script": "‹‹verb›-‹object›|‹verb›|‹focus›|run|main|job|‹verb›-‹focus›|‹object›|sync|update|generate›",
    }.items()
}
_TITLES = {
    "lint": compile_text(
        "‹Lint|Code quality|Static analysis|Check style|Lint ‹focus›|Formatting and linting|Linters›"
    ),
    "test": compile_text(
        "‹Test|Unit tests|Tests|Test ‹focus›|Run tests|Build and test|Test suite|‹Project› tests›"
    ),
    "build": compile_text(
        "‹Build|Build ‹focus›|Package|Build artifacts|Build ‹project›|Build and push image|Compile›"
    ),
    "release": compile_text(
        "‹Release|Publish|Publish ‹focus›|Create release|Publish to registry|Release ‹project›|Upload release assets›"
    ),
    "docs": compile_text("‹Docs|Build documentation|Documentation|Deploy docs|Build site›"),
    "integration": compile_text(
        "‹Integration tests|E2E|End-to-end tests|E2E ‹focus›|Acceptance tests|Smoke test ‹focus››"
    ),
    "deploy": compile_text(
        "‹Deploy|Deploy to ‹cloud_environment›|Deploy ‹focus›|Rollout|Promote to ‹cloud_environment››"
    ),
    "benchmark": compile_text("‹Benchmarks|Performance|Benchmark ‹focus›|Fuzzing|Nightly ‹focus››"),
    "prepare": compile_text(
        "‹Prepare|Detect changes|Compute matrix|Setup|Get version|Pre-flight checks|Plan|Metadata›"
    ),
    "gate": compile_text(
        "‹All green|CI status|Required checks|Check results|Summary|All checks passed|Report status›"
    ),
    "notify": compile_text("‹Notify|Notify on failure|Slack notification|Report›"),
    "script": compile_text("‹‹Verb› ‹object›|‹Verb› ‹focus›|Run ‹focus›|‹Verb› ‹focus› ‹object››"),
}
LEXICON.facts(axes="matrix.os")  # set for each job with a matrix
_MATRIX_TITLES = compile_text("‹ (${{ ‹axes› }})| ${{ ‹axes› }}| / ${{ ‹axes› }}| on ${{ ‹axes› }}|›")

_SERVICES = compile_value(
    (
        {
            "postgres": {
                "image": "postgres:‹postgres›",
                "env": {
                    "POSTGRES_USER": maybe("postgres", 0.8),
                    "POSTGRES_PASSWORD": "‹postgres|password|test|‹package››",
                    "POSTGRES_DB": maybe("‹‹package›_test|test|postgres›", 0.8),
                },
                "ports": (["5432:5432"], ["5432:5432"], [5432], ["5432/tcp"]),
                "options": maybe(
                    (
                        "--health-cmd pg_isready --health-interval 10s --health-timeout 5s --health-retries 5",
                        '--health-cmd="pg_isready" --health-interval=10s --health-timeout=‹3|5›s --health-retries=‹3..10›',
                    ),
                    0.85,
                ),
            }
        },
        {
            "redis": {
                "image": "redis:‹redis›",
                "ports": (["6379:6379"], [6379]),
                "options": maybe(
                    '--health-cmd "redis-cli ping" --health-interval 10s --health-timeout 5s --health-retries 5'
                ),
            }
        },
        {
            "postgres": {
                "image": "postgres:‹postgres›",
                "env": {"POSTGRES_PASSWORD": "postgres"},
                "ports": ["5432:5432"],
            },
            "redis": {"image": "redis:‹redis›", "ports": ["6379:6379"]},
        },
        {
            "mysql": {
                "image": "mysql:‹5.7|8.0|8.4|8›",
                "env": {
                    "MYSQL_ROOT_PASSWORD": "‹root|password|secret›",
                    "MYSQL_DATABASE": "‹‹package›_test|test|testing›",
                    "MYSQL_ALLOW_EMPTY_PASSWORD": maybe((True, False, "yes"), 0.3),
                },
                "ports": (["3306:3306"], ["3306"], [3306]),
                "options": maybe(
                    '--health-cmd="mysqladmin ping" --health-interval=10s --health-timeout=5s --health-retries=3',
                    0.8,
                ),
            }
        },
        {"mongodb": {"image": "mongo:‹5|6.0|7|8.0›", "ports": (["27017:27017"], [27017])}},
        {"registry": {"image": "registry:‹2|3›", "ports": (["5000:5000"], [5000])}},
        {
            "rabbitmq": {
                "image": "rabbitmq:‹3-management|3.13|4›",
                "ports": ["5672:5672", maybe("15672:15672")],
                "env": maybe({"RABBITMQ_DEFAULT_USER": "guest", "RABBITMQ_DEFAULT_PASS": "guest"}),
            }
        },
        {
            "elasticsearch": {
                "image": "‹docker.elastic.co/elasticsearch/elasticsearch:8.‹5..17›.‹0..3›|opensearchproject/opensearch:2›",
                "env": {"discovery.type": "single-node", "xpack.security.enabled": maybe(False)},
                "ports": ["9200:9200"],
            }
        },
        {
            "‹it›": {
                "image": "‹image›:latest",
                "credentials": maybe(
                    {"username": "${{ github.actor }}", "password": "${{ secrets.GITHUB_TOKEN }}"}
                ),
                "env": maybe({"‹VARIABLE›": "‹VALUE›"}),
                "ports": ["‹3000..9999›:‹3000..9999›"],
                "volumes": maybe(["/tmp/‹it›:/data"], 0.2),
            }
        },
        {
            "minio": {
                "image": "bitnami/minio:latest",
                "env": {"MINIO_ROOT_USER": "minio", "MINIO_ROOT_PASSWORD": "minio123"},
                "ports": ["9000:9000"],
            }
        },
    )
)
_RUNNERS = compile_value(
    (
        *["‹ubuntu›"] * 90,
        *["windows-latest", "macos-latest"] * 3,
        "macos-14",
        "macos-15",
        "windows-2022",
        "ubuntu-24.04-arm",
        ["self-hosted", "linux", "‹x64|arm64|gpu›"],
        ["self-hosted", "‹linux|Linux›"],
        {"group": "‹owner›-‹large|arm|gpu›", "labels": maybe(["linux", "‹x64|arm64›"])},
        "self-hosted",
        "${{ inputs.runner ¦¦ 'ubuntu-latest' }}",
        "${{ vars.RUNNER ¦¦ '‹ubuntu›' }}",
    )
)
_CONDITION = compile_text("‹condition›")
_PERMISSIONS = compile_value(
    (
        {"contents": "read"},
        {"contents": "read"},
        {"contents": "write"},
        {"contents": "read", "packages": "write"},
        {"id-token": "write", "contents": "read"},
        {"id-token": "write"},
        {"contents": "read", "pull-requests": "write"},
        {"contents": "write", "pull-requests": "write"},
        {"contents": "read", "security-events": "write"},
        {"issues": "write", "pull-requests": "write"},
        {"contents": "write", "packages": "write", "id-token": "write", "attestations": maybe("write")},
        {"pages": "write", "id-token": "write"},
        {"actions": "read", "contents": "read", "checks": maybe("write")},
        {"pull-requests": "read"},
        {},
        {"contents": "read", "statuses": "write"},
    )
)
_JOB_ENV = common.variables(3.0)
_STEP_ENV = common.variables(3.0)
_ENVIRONMENT = compile_value(
    (
        "‹cloud_environment›",
        "‹cloud_environment›",
        "${{ inputs.environment }}",
        {
            "name": "‹cloud_environment›",
            "url": maybe(
                (
                    "https://‹component›.‹domain›",
                    "${{ steps.deployment.outputs.page_url }}",
                    "https://‹domain›",
                ),
                0.85,
            ),
        },
        {"name": "github-pages", "url": "${{ steps.deployment.outputs.page_url }}"},
        "‹pypi|release|npm›",
    )
)
_IMAGES = {ecosystem.name: compile_text(ecosystem.images) for _, ecosystem in ECOSYSTEMS}
_CONTAINER = compile_value(
    (
        "‹container_image›",
        {
            "image": "‹container_image›",
            "options": maybe(
                "‹--user root|--privileged|--ipc=host|--cpus ‹1..8›|--user 1001|--shm-size=‹1..8›g›"
            ),
            "env": maybe({"‹VARIABLE›": "‹VALUE›"}, 0.2),
            "volumes": maybe(["/var/run/docker.sock:/var/run/docker.sock"], 0.15),
            "credentials": maybe(
                {"username": "${{ github.actor }}", "password": "${{ secrets.GITHUB_TOKEN }}"}, 0.2
            ),
        },
    )
)
LEXICON.facts(
    container_image="‹ghcr.io/‹owner›/‹‹component›|ci|build›:‹latest|v‹version›|‹main››|‹image›-‹ci|builder›:latest|ubuntu:‹22|24›.04|python:3.‹10..13›|node:‹20|22›|alpine:3.‹18..22›|debian:bookworm|mcr.microsoft.com/devcontainers/base:ubuntu›"
)
_OUTPUT_NAME = compile_text(
    "‹version|matrix|changed|tag|sha|should_run|‹component›|‹component›|‹component›_‹version|changed|tag|tests›|run-‹component›|has-‹object›|is-‹release|fork|main››"
)
_CHANGES = common.use(
    "‹Check for changes|Detect changes|Paths filter›",
    "dorny/paths-filter",
    {
        "filters": (
            "‹component›:\n  - '‹component›/**'\n‹src›:\n  - '‹more_glob›'\n  - '‹more_glob›'\n",
            "code:\n  - '‹more_glob›'\ndocs:\n  - 'docs/**'\n",
        ),
        "base": maybe("‹main›", 0.2),
    },
    id_="‹filter|changes›",
)
_CALLED = compile_text(
    "‹./.github/workflows/‹|_›‹‹verb›-‹focus›|‹focus›|build|test|lint|deploy|release|reusable-‹focus›|publish-‹object›|‹verb›-‹object›|template-‹focus››.‹yml|yml|yaml›|./.github/workflows/‹‹focus›|test-‹focus›|ci-‹focus›|build|deploy›.yml|‹owner›/‹.github|workflows|actions|‹component›-workflows|shared-workflows›/.github/workflows/‹‹verb›-‹object›|‹focus›|‹verb›-‹focus›|ci|release›.‹yml|yaml›@‹main|v‹1..5›|v‹1..4›.‹0..20›.‹0..9›|‹hex 40›››"
)
_CALL_SECRETS = compile_value(
    (
        "inherit",
        "inherit",
        "inherit",
        {"‹SECRET›": "${{ secrets.‹SECRET› }}"},
        {"‹SECRET›": "${{ secrets.‹SECRET› }}", "token": "‹token›"},
        {
            "‹SECRET›": "${{ secrets.‹SECRET› }}",
            "‹IT›_TOKEN": "${{ secrets.‹IT›_TOKEN }}",
            "‹FOCUS›_KEY": "${{ secrets.‹FOCUS›_KEY }}",
        },
    )
)
_CALL_ID = compile_text(
    "‹build|test|lint|deploy|release|publish|call|‹focus›|‹verb›-‹focus›|test-‹focus›|build-‹focus›|‹verb›-‹object›|ci|run›"
)
_INCLUDES = compile_value(
    {
        "name": maybe("‹component›-‹version›", 0.4),
        "‹artifact|suffix|flags|label|experimental|runner|args|image›": (
            "‹component›",
            "‹flag›",
            True,
            False,
            "‹VALUE›",
        ),
        "‹target|path|cmd|extra›": maybe(("‹folder›", "‹script_file›", "make ‹target›"), 0.3),
    }
)
_GATE = common.run(
    "‹Check status|Fail if any job failed|Decide whether the needed jobs succeeded›",
    (
        ['if [[ "${{ contains(needs.*.result, \'failure\') }}" == "true" ]]; then', "  exit 1", "fi"],
        "jq --exit-status 'all(.result == \"success\")' <<< '${{ toJson(needs) }}'",
        [
            "echo \"${{ join(needs.*.result, ' ') }}\"",
            "test \"${{ contains(needs.*.result, 'failure') ¦¦ contains(needs.*.result, 'cancelled') }}\" = \"false\"",
        ],
    ),
)

_NOTIFY = compile_value(common.NOTIFY)
# Extra steps that fill a job, with their weight and place: first of all, after the checkout, in the middle, at the end.
_EXTRAS: list[tuple[float, tuple[int, Generator]]] = [
    (1.0, (2, common.COMMAND)),
    (1.5, (2, common.LOCAL_ACTION)),
    (2.2, (2, common.THIRD_PARTY)),
    (0.35, (1, common.CACHE)),
    (1.0, (3, common.UPLOAD)),
    (0.6, (1, common.DOWNLOAD)),
    (0.12, (0, compile_value(common.FREE_SPACE))),
    (0.35, (3, _NOTIFY)),
    (0.25, (3, common.COMMENT)),
    (0.25, (2, common.GIT_IDENTITY)),
    (0.15, (3, common.PULL_REQUEST)),
    (0.25, (0, common.APP_TOKEN)),
]
_SCRIPT_WEIGHT = 3.2
_EXTRA_WEIGHT = sum(weight for weight, _ in _EXTRAS)


def call_job(writer: Writer, plan: Plan, size: int) -> tuple[str, dict[str, Any]]:
    """Return the name and the value of a job that calls a reusable workflow."""
    writer.forget("focus", "FOCUS", "it", "IT")
    job: dict[str, Any] = {"uses": _CALLED(writer)}
    if writer.chance(plan.style.named_jobs * 0.6):
        job["name"] = plan.style.title(writer, _TITLES["script"](writer))
    _relate(writer, plan, job, 0.5)
    if writer.chance(0.3):
        job["permissions"] = _PERMISSIONS(writer)
    if size > 250 and writer.chance(0.1):
        job["strategy"] = _strategy(writer, plan, plan.main, size // 3)
    if writer.chance(0.45):
        job["secrets"] = _CALL_SECRETS(writer)
    if writer.chance(0.82):
        job["with"] = common.settings(1.0 + max(0, size - measure(job)) / 60, 40)(writer)
    return _settle(plan, _CALL_ID(writer)), plan.style.job(job)


def job(writer: Writer, plan: Plan, kind: str, size: int) -> tuple[str, dict[str, Any]]:
    """Return the name and the value of a job of that kind, with about `size` characters as compact JSON."""
    writer.forget("focus", "FOCUS", "it", "IT")
    ecosystem = plan.main
    if writer.chance(0.12):
        ecosystem = writer.weighted(ECOSYSTEMS)
    style = plan.style
    name = _settle(plan, _IDS[kind](writer))
    work: dict[str, Any] = {"runs-on": _RUNNERS(writer)}
    overridden: list[str] = []
    if (
        size > 500
        and kind in ("test", "build", "integration", "lint", "benchmark", "release")
        and writer.chance(0.36)
    ):
        work["strategy"] = _strategy(writer, plan, ecosystem, size // 4)
        overridden = _use_matrix(writer, ecosystem, work)
    elif size > 900 and kind == "deploy" and writer.chance(0.1):
        work["strategy"] = {"max-parallel": 1, "matrix": {"environment": ["staging", "production"]}}
    if writer.chance(style.named_jobs):
        title = str(_TITLES[kind](writer))
        if overridden:
            writer.known["axes"] = " }}, ${{ ".join([writer.known[word][4:-3] for word in overridden])
            title += _MATRIX_TITLES(writer)
            writer.forget("axes")
        work["name"] = style.title(writer, title)
    _relate(writer, plan, work, 0.25)
    _describe(writer, ecosystem, work, kind, size)
    if kind == "gate":
        work["needs"] = list(plan.names[:-1]) or work.get("needs") or [name]
        if work["needs"] == [name]:
            del work["needs"]
        work["if"] = style.condition(writer, "always()")
        work["steps"] = [style.step(writer, _GATE(writer))]
    else:
        work["steps"] = _steps(writer, plan, ecosystem, kind, size - measure(work) - len(name) - 15)
    if kind == "prepare" or (kind in ("build", "script", "test") and writer.chance(0.06)):
        _publish_outputs(writer, plan, name, work)
    writer.forget(*overridden)
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
        conditions.extend(_CONDITION(writer) for _ in range(writer.pick((1, 1, 2, 2, 3))))
    if conditions:
        work["if"] = plan.style.condition(writer, " && ".join(conditions))


def _describe(writer: Writer, ecosystem: Ecosystem, work: dict[str, Any], kind: str, size: int) -> None:
    """Add what jobs have besides steps."""
    if writer.chance(0.55 if kind in ("release", "deploy") else 0.24):
        work["permissions"] = _PERMISSIONS(writer)
    if writer.chance(0.13):
        work["timeout-minutes"] = writer.pick((5, 10, 10, 10, 15, 20, 30, 30, 30, 45, 60, 60, 90, 120, 360))
    if size < 600:
        return
    if writer.chance(0.11):
        work["env"] = _JOB_ENV(writer)
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
            writer.known["container_image"] = _IMAGES[ecosystem.name](writer)
        work["container"] = _CONTAINER(writer)
        writer.forget("container_image")
    if kind in ("test", "integration") and writer.chance(0.05 if kind == "test" else 0.25):
        work["services"] = _SERVICES(writer)
    if kind in ("deploy", "release") and writer.chance(0.35 if kind == "deploy" else 0.2):
        work["environment"] = _ENVIRONMENT(writer)
    if writer.chance(0.012):
        work["continue-on-error"] = writer.pick((True, True, "${{ matrix.experimental }}"))
    if kind == "deploy" and writer.chance(0.12):
        work["concurrency"] = writer.pick(
            ("deploy-${{ github.ref }}", {"group": "deploy", "cancel-in-progress": False}, "production")
        )


def _strategy(writer: Writer, plan: Plan, ecosystem: Ecosystem, size: int) -> dict[str, Any]:
    """Return a strategy with a matrix of one to three dimensions."""
    matrix: Any = {}
    if plan.outputs and writer.chance(0.25):
        source = writer.pick(list(plan.outputs))
        expression = f"${{{{ fromJSON(needs.{source}.outputs.{writer.pick(plan.outputs[source])}) }}}}"
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
        if size > 150 and writer.chance(0.3):
            first = next(iter(matrix))
            matrix["include"] = [
                {first: value, **_INCLUDES(writer)}
                for value in writer.sample(matrix[first] * 4, writer.several(1.5 + size / 250, 14))
            ]
        if len(matrix) > 1 and "include" not in matrix and writer.chance(0.2):
            matrix["exclude"] = [{key: writer.pick(values) for key, values in matrix.items()}]
        elif "include" in matrix and size > 200 and writer.chance(0.3):
            matrix = {
                "include": [
                    {**item, "os": writer.pick(("ubuntu-latest", "macos-latest", "windows-latest"))}
                    for item in matrix["include"]
                ]
            }
    strategy = {"fail-fast": writer.chance(0.06), "matrix": matrix}
    if writer.chance(0.3):
        del strategy["fail-fast"]
    elif writer.chance(0.1):
        strategy = {"matrix": matrix, "fail-fast": False}
    if writer.chance(0.05):
        strategy["max-parallel"] = writer.pick((1, 2, 3, 4, 5))
    return strategy


def _use_matrix(writer: Writer, ecosystem: Ecosystem, work: dict[str, Any]) -> list[str]:
    """Let the words that the matrix sets stand for its values in this job; return them."""
    matrix = work["strategy"]["matrix"]
    keys = matrix if isinstance(matrix, dict) else {}
    used = []
    for axis in ecosystem.axes:
        word = axis.word if axis.word not in ("coined", "component") else ""
        if axis.key in keys and word and word not in used:
            writer.known[word] = "${{ matrix." + axis.key + " }}"
            used.append(word)
    if "ubuntu" in used:
        work["runs-on"] = writer.known["ubuntu"]
    return used


def _publish_outputs(writer: Writer, plan: Plan, name: str, work: dict[str, Any]) -> None:
    """Give the job outputs of its last step with an id, and note them for the jobs to come."""
    outputs = list(dict.fromkeys(_OUTPUT_NAME(writer) for _ in range(writer.several(2.2, 12))))
    source = ""
    for step in work["steps"]:
        source = step.get("id", source)
    if not source:
        source = writer.pick(("vars", "meta", "set", "filter"))
        last = work["steps"][-1]
        work["steps"][-1] = (
            {"name": last["name"], "id": source, **last} if "name" in last else {"id": source, **last}
        )
    work["outputs"] = {output: f"${{{{ steps.{source}.outputs.{output} }}}}" for output in outputs}
    plan.outputs[name] = outputs


def _steps(writer: Writer, plan: Plan, ecosystem: Ecosystem, kind: str, size: int) -> list[dict[str, Any]]:
    """Return the steps of a job: checkout, set-up, those of its kind, and others until the size is reached."""
    first: list[dict[str, Any]] = []
    setup: list[dict[str, Any]] = []
    middle: list[dict[str, Any]] = []
    last: list[dict[str, Any]] = []
    places = (first, setup, middle, last)
    left = size

    def add(place: list[dict[str, Any]], step: dict[str, Any]) -> None:
        nonlocal left
        _decorate(writer, step)
        styled = plan.style.step(writer, step)
        left -= measure(styled) + 1
        place.append(styled)

    scripted = kind in ("script", "prepare", "notify")
    if left > 150 and writer.chance(0.1):
        add(first, common.HARDEN(writer))
    if kind == "notify":
        add(last, _NOTIFY(writer))
    elif left > 90 and writer.chance(0.95 if not scripted else 0.75):
        add(first, common.CHECKOUT(writer))
    if kind == "prepare" and writer.chance(0.35):
        add(middle, _CHANGES(writer))
    if not scripted:
        share = 0.35 if left < 300 else 0.72
        for generator in ecosystem.setup:
            if left > 60 and writer.chance(share):
                add(setup, generator(writer))
        own = ecosystem.kinds.get(kind) or ecosystem.kinds.get("test") or ecosystem.kinds["build"]
        middle.extend(_own_steps(writer, plan, own, left))
        left -= sum(measure(step) + 1 for step in middle)
    while left > 70 or not (first or setup or middle or last):
        if left < 230 and not (middle or last):
            add(middle, common.COMMAND(writer))
        elif scripted or writer.random() * (_EXTRA_WEIGHT + _SCRIPT_WEIGHT) < _SCRIPT_WEIGHT:
            add(middle, scripted_step(writer, _script_size(writer, left)))
        else:
            place, generator = writer.weighted(_EXTRAS)
            if len(places[place]) < 8 or place == 2:
                add(places[place], generator(writer))
    return first + setup + middle + last


def _own_steps(writer: Writer, plan: Plan, own: list[Generator], size: int) -> list[dict[str, Any]]:
    """Return steps of the job's kind, in their order, until they take about the size."""
    chosen: dict[int, dict[str, Any]] = {}
    left = size
    for position in writer.shuffled(range(len(own))):
        if chosen and (left < 100 or writer.chance(0.12)):
            break
        step = own[position](writer)
        _decorate(writer, step)
        chosen[position] = plan.style.step(writer, step)
        left -= measure(chosen[position]) + 1
    return [chosen[position] for position in sorted(chosen)]


def _script_size(writer: Writer, left: int) -> int:
    """Return the length of a script that leaves no more than a little of what is left."""
    spread = writer.random()
    wanted = int(70 * 2 ** (6.6 * spread * (0.55 + 0.45 * writer.random())))
    return max(20, min(wanted, left - 60))


def _decorate(writer: Writer, step: dict[str, Any]) -> None:
    """Now and then, add to a step what any step may have."""
    if not writer.chance(0.26):
        return
    if "if" not in step and writer.chance(0.55):
        step["if"] = _CONDITION(writer)
    if "env" not in step and writer.chance(0.2):
        step["env"] = _STEP_ENV(writer)
    if writer.chance(0.17):
        step["timeout-minutes"] = writer.pick((1, 2, 5, 10, 15, 20, 30, 45))
    if writer.chance(0.08):
        step["continue-on-error"] = True
    if "run" in step:
        if "working-directory" not in step and writer.chance(0.35):
            step["working-directory"] = str(LEXICON.word(writer, "workdir"))
        if "shell" not in step and writer.chance(0.22):
            step["shell"] = writer.pick(("bash",) * 12 + ("sh", "pwsh", "bash -euxo pipefail {0}", "cmd"))
