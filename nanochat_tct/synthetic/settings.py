"""Settings that actions and reusable workflows are given (`with`), and environment variables: names with fitting values."""

from typing import Any

from nanochat_tct.synthetic.names import COMPONENTS
from nanochat_tct.synthetic.template import LEXICON, Generator, compile_value
from nanochat_tct.synthetic.writer import Writer

# A setting of an action, or an environment variable: its name, and a value that such a name has.
_SETTING: list[Generator] = [
    compile_value(template)
    for template in (
        {"‹token|github-token|github_token|repo-token|GITHUB_TOKEN›": "‹token›"},
        {"‹api-key|password|‹it›-token|secret|private-key|‹it›_key|credentials›": "${{ secrets.‹SECRET› }}"},
        {
            "‹password|‹it›-password|webhook-url|service-account-key|access-key›": "${{ secrets.‹IT›_‹TOKEN|KEY|PASSWORD|URL› }}"
        },
        {
            "‹username|owner|organization|actor›": (
                "${{ github.actor }}",
                "‹owner›",
                "${{ github.repository_owner }}",
                "‹bot›",
                "${{ vars.‹IT›_USER }}",
            )
        },
        {
            "‹version|‹it›-version|‹it›_version|tool-version›": (
                "‹version›",
                "v‹version›",
                "latest",
                "${{ env.‹IT›_VERSION }}",
                "${{ inputs.version }}",
                3,
                1.5,
            )
        },
        {
            "‹path|directory|working-directory|source|output-dir|‹it›-path|root›": (
                "‹folder›",
                "‹folder›/‹component›",
                "${{ github.workspace }}/‹folder›",
                "./‹component›",
            )
        },
        {
            "‹config|config-file|configuration-path|‹it›-file|file|report›": (
                "‹file›",
                ".github/‹component›.‹yml|json›",
                "‹folder›/‹component›.‹yaml|json|xml›",
            )
        },
        {
            "‹files|paths|include|exclude|patterns|artifacts|assets›": (
                "‹folder›/**/*.‹xml|json|yaml|zip›",
                "‹folder›/*.‹tar.gz|whl|jar›\n‹folder›/‹component›/*.‹zip|deb›\n",
                "**/‹component›-*.‹xml|json|log›",
                "‹file›,‹file›",
            )
        },
        {
            "‹args|options|extra-args|arguments|flags|command-args›": (
                "‹flag›",
                "‹flag› ‹flag›",
                "‹flag› ‹flag› ‹flag› ‹folder›",
                "--‹it› ${{ inputs.‹input_name› }} ‹flag›",
            )
        },
        {
            "‹command|run|script|cmd|entrypoint|test-command›": (
                "make ‹target›",
                "‹script_file›",
                "‹script_file› ‹argument› ‹argument›",
                "‹command›",
            )
        },
        {
            "‹format|output-format|reporter|mode|level|severity|type›": "‹json|junit|sarif|github|table|text|info|high|critical|strict|full|minimal|check›"
        },
        {
            "‹timeout|timeout-minutes|retries|max-attempts|count|interval|parallel|days›": (
                1,
                2,
                3,
                5,
                10,
                15,
                30,
                60,
                300,
                "30",
                "10m",
            )
        },
        {
            "‹fail-on-error|strict|verbose|dry-run|cache|debug|quiet|force|recursive|cleanup|enable-‹it›|skip-‹it›|‹it›-enabled|sign›": (
                True,
                True,
                False,
                True,
                False,
                "true",
                "false",
            )
        },
        {
            "‹environment|stage|target|profile|cluster|namespace›": (
                "‹cloud_environment›",
                "‹project›-‹cloud_environment›",
                "${{ inputs.environment }}",
                "${{ github.ref_name }}",
            )
        },
        {"‹region|aws-region|location›": ("‹region›", "${{ env.AWS_REGION }}", "${{ vars.REGION }}")},
        {
            "‹registry|image|image-name|repository|image_tag›": (
                "‹registry›",
                "‹image›",
                "‹image›:${{ github.sha }}",
                "${{ github.repository }}",
                "‹image›-‹component›:${{ github.ref_name }}",
            )
        },
        {
            "‹url|endpoint|base-url|server|host|‹it›-url›": (
                "https://‹component›.‹domain›",
                "https://‹component›.‹domain›/api/v‹1..3›/‹component›",
                "${{ vars.‹IT›_URL }}",
                "http://localhost:‹3000..9999›",
            )
        },
        {
            "‹message|title|description|comment|body|summary›": (
                "‹sentence›",
                "‹message›",
                "‹Project›: ${{ github.workflow }} finished with ${{ job.status }}",
                "‹sentence›\n\n- ‹sentence›\n- ‹sentence›\n",
            )
        },
        {
            "‹name|artifact-name|label|tag|key|group|id›": (
                "‹component›",
                "‹project›-‹component›",
                "‹component›-‹in_matrix›",
                "‹object›-${{ github.run_id }}-${{ github.run_attempt }}",
                "‹label›",
            )
        },
        {
            "‹branch|ref|base|sha|head-ref|target-branch›": (
                "‹main›",
                "${{ github.ref }}",
                "${{ github.event.pull_request.head.sha }}",
                "${{ github.head_ref ¦¦ github.ref_name }}",
                "${{ inputs.ref }}",
            )
        },
        {
            "‹it›": (
                "${{ steps.‹it›.outputs.‹lower› }}",
                "${{ needs.‹build|prepare|changes›.outputs.‹it› }}",
                "‹in_matrix›",
                "‹version›",
            )
        },
        {
            "‹modules|packages|projects|components|services|languages|labels›": (
                "‹component›",
                "‹component›,‹component›",
                "‹component› ‹component› ‹component›",
                "‹component›\n‹component›\n‹component›\n",
                '["‹component›", "‹component›"]',
            )
        },
    )
]
_VARIABLE: list[Generator] = [
    compile_value(template)
    for template in (
        {"‹GITHUB_TOKEN|GH_TOKEN|GH_TOKEN›": "‹token›"},
        {"‹IT›_TOKEN": "${{ secrets.‹IT›_TOKEN }}"},
        {"‹IT›_‹KEY|SECRET|PASSWORD|API_KEY›": "${{ secrets.‹IT›_‹KEY|SECRET|PASSWORD|API_KEY› }}"},
        {"‹PROJECT›_‹TOKEN|API_KEY|LICENSE|PASSWORD›": "${{ secrets.‹SECRET› }}"},
        {
            "‹SLACK_WEBHOOK_URL|WEBHOOK_URL|NPM_TOKEN|SONAR_TOKEN|CODECOV_TOKEN|DOCKER_PASSWORD›": "${{ secrets.‹SECRET› }}"
        },
        {
            "‹IT›_URL": (
                "https://‹it›.‹domain›",
                "https://‹it›.‹domain›/api/v‹1..3›/‹component›",
                "http://localhost:‹3000..9999›",
                "${{ vars.‹IT›_URL }}",
            )
        },
        {
            "‹IT›_VERSION": (
                "‹version›",
                "v‹version›",
                "‹in_matrix›",
                "${{ steps.‹it›.outputs.version }}",
                1.2,
                3,
            )
        },
        {
            "‹VERSION|TAG|RELEASE_VERSION|RELEASE_TAG›": (
                "${{ github.ref_name }}",
                "‹version›",
                "${{ needs.‹build|prepare›.outputs.version }}",
                "${{ github.event.release.tag_name }}",
                "${{ inputs.version ¦¦ github.ref_name }}",
            )
        },
        {
            "‹IT›_‹DIR|PATH|HOME|CACHE|CONFIG›": (
                "‹folder›",
                "${{ github.workspace }}/‹folder›",
                "${{ runner.temp }}/‹it›",
                "/tmp/‹it›",
                "~/.cache/‹it›",
                "${{ github.workspace }}/‹folder›/‹it›.‹yaml|json›",
            )
        },
        {
            "‹ENABLE_‹IT›|‹IT›_ENABLED|SKIP_‹IT›|USE_‹IT››": (
                True,
                False,
                "true",
                "false",
                1,
                0,
                "1",
                "${{ inputs.‹it› }}",
                "${{ github.event_name == 'push' }}",
            )
        },
        {"‹LOG_LEVEL|‹IT›_LOG|RUST_LOG›": ("info", "debug", "‹it›=debug", "warning")},
        {
            "‹CI|DEBUG|FORCE_COLOR|NO_COLOR|DRY_RUN|VERBOSE›": (
                True,
                1,
                "1",
                "true",
                False,
                "${{ inputs.debug }}",
            )
        },
        {
            "‹BRANCH|REF|HEAD_REF|BASE_REF|TARGET_BRANCH›": (
                "${{ github.head_ref }}",
                "${{ github.ref_name }}",
                "${{ github.event.pull_request.base.ref }}",
                "‹main›",
                "${{ github.head_ref ¦¦ github.ref_name }}",
            )
        },
        {
            "‹SHA|COMMIT|COMMIT_SHA|HEAD_SHA›": (
                "${{ github.sha }}",
                "${{ github.event.pull_request.head.sha }}",
                "${{ github.event.pull_request.head.sha ¦¦ github.sha }}",
            )
        },
        {
            "‹PR_NUMBER|NUMBER|ISSUE›": (
                "${{ github.event.pull_request.number }}",
                "${{ github.event.issue.number }}",
                "${{ inputs.pr_number }}",
            )
        },
        {
            "‹PR_TITLE|TITLE|COMMIT_MESSAGE|AUTHOR›": (
                "${{ github.event.pull_request.title }}",
                "${{ github.event.head_commit.message }}",
                "${{ github.event.pull_request.user.login }}",
            )
        },
        {
            "‹IMAGE|IMAGE_NAME|DOCKER_IMAGE|REGISTRY_IMAGE›": (
                "‹image›",
                "‹image›:${{ github.sha }}",
                "${{ env.REGISTRY }}/${{ github.repository }}",
                "‹image›-‹it›:${{ github.ref_name }}",
            )
        },
        {"‹REGISTRY|DOCKER_REGISTRY›": "‹registry›"},
        {
            "‹DATABASE_URL|‹IT›_DATABASE_URL|TEST_DATABASE_URL›": "‹postgres|postgresql|mysql›://‹root|postgres|‹package››:‹password|postgres|secret›@localhost:‹5432|3306›/‹package›_test"
        },
        {"‹AWS_REGION|AWS_DEFAULT_REGION|REGION›": "‹region›"},
        {"‹BUCKET|S3_BUCKET|ARTIFACT_BUCKET›": "‹bucket›"},
        {
            "‹TIMEOUT|RETRIES|WORKERS|JOBS|PARALLEL|MAX_ATTEMPTS|SHARDS›": (
                1,
                2,
                3,
                4,
                8,
                10,
                30,
                60,
                600,
                "4",
                "${{ matrix.shard }}",
            )
        },
        {
            "‹BUILD_TYPE|CONFIGURATION|PROFILE|MODE|ENVIRONMENT|NODE_ENV|APP_ENV›": "‹Release|Debug|production|test|staging|ci|${{ matrix.configuration }}|${{ inputs.environment }}›"
        },
        {
            "‹ARTIFACT_NAME|PACKAGE_NAME|CLUSTER_NAME|SERVICE_NAME›": (
                "‹project›-‹it›",
                "‹it›-‹in_matrix›-${{ github.run_id }}",
                "‹project›-‹cloud_environment›",
            )
        },
        {
            "‹RUN_URL|LOG_URL|DETAILS_URL›": "${{ github.server_url }}/${{ github.repository }}/actions/runs/${{ github.run_id }}"
        },
        {"‹COVERAGE|THRESHOLD|FAIL_UNDER|TOLERANCE›": (0.5, 0.95, 80, 90, 0.01, "85")},
        {"‹IT›_‹ARGS|FLAGS|OPTS|OPTIONS›": ("‹flag›", "‹flag› ‹flag›", "‹flag› ‹flag› ‹flag›")},
        {"‹VARIABLE›": "‹VALUE›"},
    )
]


def _several(library: list[Generator], mean: float, most: int) -> Generator:
    def write(writer: Writer) -> dict[str, Any]:
        written: dict[str, Any] = {}
        kept = {"it": LEXICON.word(writer, "it"), "IT": LEXICON.word(writer, "IT")}
        for _ in range(writer.several(mean, most)):
            writer.known["it"] = it = writer.pick(COMPONENTS)
            writer.known["IT"] = it.upper()
            written.update(writer.pick(library)(writer))
        writer.known.update(kept)
        return written

    return write


def settings(mean: float, most: int = 9) -> Generator:
    """Return a generator of what an action or a reusable workflow is given: about that many settings."""
    return _several(_SETTING, mean, most)


def variables(mean: float, most: int = 14) -> Generator:
    """Return a generator of environment variables: about that many."""
    return _several(_VARIABLE, mean, most)
