"""What jobs are called and what they have: names, runners, services, containers, permissions, extra steps."""

from nanochat_tct.synthetic import steps as common
from nanochat_tct.synthetic.ecosystems import ECOSYSTEMS
from nanochat_tct.synthetic.settings import variables
from nanochat_tct.synthetic.template import LEXICON, Generator, compile_text, compile_value, maybe

# The names of jobs by kind: what they are called in `jobs`, and in the interface.
IDS = {
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
TITLES = {
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
MATRIX_TITLES = compile_text("‹ (${{ ‹axes› }})| ${{ ‹axes› }}| / ${{ ‹axes› }}| on ${{ ‹axes› }}|›")

SERVICES = compile_value(
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
RUNNERS = compile_value(
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
CONDITION = compile_text("‹condition›")
PERMISSIONS = compile_value(
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
JOB_ENV = variables(3.0)
STEP_ENV = variables(3.0)
ENVIRONMENT = compile_value(
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
IMAGES = {ecosystem.name: compile_text(ecosystem.images) for _, ecosystem in ECOSYSTEMS}
CONTAINER = compile_value(
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
OUTPUT_NAME = compile_text(
    "‹version|matrix|changed|tag|sha|should_run|‹component›|‹component›|‹component›_‹version|changed|tag|tests›|run-‹component›|has-‹object›|is-‹release|fork|main››"
)
OUTPUT_VALUE = compile_text("‹true|false|$‹UPPER›|‹source›|${‹UPPER›}|$(cat ‹file›)›")
CHANGES = common.use(
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
CALLED = compile_text(
    "‹./.github/workflows/‹|_›‹‹verb›-‹focus›|‹focus›|build|test|lint|deploy|release|reusable-‹focus›|publish-‹object›|‹verb›-‹object›|template-‹focus››.‹yml|yml|yaml›|./.github/workflows/‹‹focus›|test-‹focus›|ci-‹focus›|build|deploy›.yml|‹owner›/‹.github|workflows|actions|‹component›-workflows|shared-workflows›/.github/workflows/‹‹verb›-‹object›|‹focus›|‹verb›-‹focus›|ci|release›.‹yml|yaml›@‹main|v‹1..5›|v‹1..4›.‹0..20›.‹0..9›|‹hex 40›››"
)
CALL_SECRETS = compile_value(
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
CALL_ID = compile_text(
    "‹build|test|lint|deploy|release|publish|call|‹focus›|‹verb›-‹focus›|test-‹focus›|build-‹focus›|‹verb›-‹object›|ci|run›"
)
INCLUDES = compile_value(
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
GATE = common.run(
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

NOTIFY = compile_value(common.NOTIFY)
# Extra steps that fill a job, with their weight and place: first of all, after the checkout, in the middle, at the end.
EXTRAS: list[tuple[float, tuple[int, Generator]]] = [
    (1.0, (2, common.COMMAND)),
    (1.5, (2, common.LOCAL_ACTION)),
    (2.2, (2, common.THIRD_PARTY)),
    (0.35, (1, common.CACHE)),
    (1.0, (3, common.UPLOAD)),
    (0.6, (1, common.DOWNLOAD)),
    (0.12, (0, compile_value(common.FREE_SPACE))),
    (0.35, (3, NOTIFY)),
    (0.25, (3, common.COMMENT)),
    (0.25, (2, common.GIT_IDENTITY)),
    (0.15, (3, common.PULL_REQUEST)),
    (0.25, (0, common.APP_TOKEN)),
]
SCRIPT_WEIGHT = 3.2
EXTRA_WEIGHT = sum(weight for weight, _ in EXTRAS)
