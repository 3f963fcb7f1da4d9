"""Builders of steps, and the steps that workflows of every language share."""

from typing import Any

from nanochat_tct.synthetic.settings import settings, variables
from nanochat_tct.synthetic.template import (
    Generator,
    compile_script,
    compile_text,
    compile_value,
    maybe,
)
from nanochat_tct.synthetic.writer import Writer


def run(name: str, script: Any, **more: Any) -> Generator:
    """A step that runs a script (see `compile_script`); more: other keys, with `_` for `-` and a final `_` dropped."""
    make_name, make_script, make_more = compile_text(name), compile_script(script), _more(more)

    def write(writer: Writer) -> dict[str, Any]:
        writer.forget("it", "IT")
        return {"name": make_name(writer), **make_more(writer), "run": make_script(writer)}

    return write


def use(name: str, action: str, with_: Any = None, **more: Any) -> Generator:
    """A step that uses an action, given by its name without a version (see `Pins`), or by its folder."""
    reference = action if action.startswith(("./", "docker://")) else f"‹@{action}›"
    make_name, make_reference, make_more = compile_text(name), compile_text(reference), _more(more)
    make_with = compile_value({"with": with_} if with_ else {})

    def write(writer: Writer) -> dict[str, Any]:
        writer.forget("it", "IT")
        step = {"name": make_name(writer), **make_more(writer), "uses": make_reference(writer)}
        settings = make_with(writer).get("with")
        if settings:
            step["with"] = settings
        return step

    return write


def _more(more: dict[str, Any]) -> Generator:
    return compile_value({key.rstrip("_").replace("_", "-"): value for key, value in more.items()})


CHECKOUT = use(
    "‹Checkout|Checkout|Check out code|Checkout repository|Checkout code|Check out the repository|Checkout sources|"
    "Clone repository|Checkout ‹project››",
    "actions/checkout",
    {
        "persist-credentials": maybe(False, 0.2),
        "fetch-depth": maybe((0, 0, 0, 1, 2, 10, "0"), 0.17),
        "submodules": maybe((True, "recursive", "recursive"), 0.05),
        "ref": maybe(
            (
                "${{ github.event.pull_request.head.sha }}",
                "${{ inputs.ref }}",
                "‹main›",
                "${{ github.head_ref }}",
                "${{ github.event.pull_request.head.ref }}",
                "${{ needs.prepare.outputs.sha }}",
                "${{ github.event.workflow_run.head_sha }}",
            ),
            0.06,
        ),
        "token": maybe("${{ secrets.‹SECRET› }}", 0.04),
        "repository": maybe("‹owner›/‹component›", 0.02),
        "path": maybe("‹component›", 0.02),
        "lfs": maybe(True, 0.01),
    },
)
HARDEN = use(
    "Harden ‹Runner|Runner|the runner (Audit all outbound calls)|runner›",
    "step-security/harden-runner",
    {
        "egress-policy": ("audit", "audit", "block"),
        "disable-sudo": maybe(True, 0.1),
        "allowed-endpoints": maybe("api.github.com:443\ngithub.com:443\n‹component›.‹domain›:443\n", 0.15),
    },
)
APP_TOKEN = use(
    "‹Generate|Create|Get› ‹a |›‹GitHub App |app |›token",
    "actions/create-github-app-token",
    {
        "app-id": ("${{ vars.APP_ID }}", "${{ secrets.‹PROJECT›_APP_ID }}", "${{ secrets.APP_ID }}"),
        "private-key": "${{ secrets.‹APP_PRIVATE_KEY|‹PROJECT›_APP_KEY|APP_PEM› }}",
        "owner": maybe("${{ github.repository_owner }}", 0.3),
        "repositories": maybe("‹project›‹|,‹component››", 0.2),
    },
    id_=("app-token", "app-token", "generate-token", "token"),
)
UPLOAD = use(
    "‹Upload|Upload|Store|Save|Archive› ‹‹object›|artifacts|artifact|test results|coverage report|build output|logs|"
    "‹project› binary|wheels|‹component› report›",
    "actions/upload-artifact",
    {
        "name": (
            "‹object›",
            "‹project›-‹object›",
            "‹component›-‹logs|report|results|dist›",
            "‹project›-${{ github.sha }}",
            "‹dist|build|coverage|wheels|sbom|site|binaries›",
            "‹object›-${{ github.run_id }}",
        ),
        "path": (
            "‹folder›",
            "‹folder›/**/*.‹xml|html|json|log|zip|whl|tar.gz›",
            "‹folder›/\n‹file›\n",
            "‹file›",
            "‹folder›/‹project›‹|-*.tar.gz|*›",
            "‹folder›/**\n!‹folder›/**/*.‹tmp|map|md›\n",
        ),
        "retention-days": maybe((1, 3, 5, 7, 14, 30, 90), 0.25),
        "if-no-files-found": maybe(("error", "error", "ignore", "warn"), 0.25),
        "overwrite": maybe(True, 0.04),
        "compression-level": maybe((0, 6, 9), 0.03),
    },
    if_=maybe(("‹status›", "‹status›", "‹check›"), 0.35),
)
DOWNLOAD = use(
    "Download ‹‹object›|artifacts|artifact|all artifacts|build output|‹project› binary|distribution›",
    "actions/download-artifact",
    {
        "name": maybe(("‹object›", "‹project›-‹object›", "‹dist|build|wheels|coverage|binaries›"), 0.7),
        "pattern": maybe("‹‹project›-*|dist-*|‹object›-*|coverage-*›", 0.25),
        "path": maybe("‹folder›", 0.7),
        "merge-multiple": maybe(True, 0.25),
        "run-id": maybe("${{ github.event.workflow_run.id }}", 0.05),
    },
)
CACHE = use(
    "‹Cache|Restore|Set up cache for› ‹‹object›|dependencies|build|‹component› cache›",
    "‹actions/cache|actions/cache|actions/cache|actions/cache/restore›",
    {
        "path": (
            "‹folder›",
            "~/.cache/‹project›",
            "~/.cache/‹component›\n‹folder›\n",
            "${{ env.CACHE_DIR }}",
            "~/.‹component›/‹object›\n~/.local/share/‹component›\n",
        ),
        "key": (
            "${{ runner.os }}-‹component›-${{ hashFiles('**/‹component›.lock') }}",
            "‹project›-${{ runner.os }}-${{ github.sha }}",
            "‹object›-v‹1..9›-${{ runner.os }}-${{ hashFiles('‹file›') }}",
            "${{ runner.os }}-${{ runner.arch }}-‹object›-${{ hashFiles('‹script_folder›/**') }}",
        ),
        "restore-keys": maybe(
            ("${{ runner.os }}-‹component›-\n", "‹object›-v‹1..9›-\n‹object›-\n", "‹object›-"), 0.45
        ),
    },
    id_=maybe(("cache", "‹component›-cache", "cache-‹object›"), 0.3),
)
FREE_SPACE = (
    use(
        "Free ‹disk|Disk› ‹space|Space (Ubuntu)›",
        "jlumbroso/free-disk-space",
        {"tool-cache": False, "android": maybe(True), "dotnet": maybe(True), "haskell": maybe(True)},
    ),
    run(
        "‹Free|Reclaim› disk space",
        [
            "df -h",
            "sudo rm -rf /usr/share/dotnet /usr/local/lib/android‹| /opt/ghc›",
            maybe("docker system prune -af"),
            "df -h",
        ],
    ),
)
CODECOV = use(
    "Upload coverage‹| reports| to Codecov| reports to Codecov›",
    "codecov/codecov-action",
    {
        "token": maybe("${{ secrets.CODECOV_TOKEN }}", 0.8),
        "files": maybe(
            ("./coverage.xml", "‹folder›/coverage.xml", "coverage/lcov.info", "./coverage.out"), 0.6
        ),
        "flags": maybe(("unittests", "‹component›", "‹in_matrix›", "integration"), 0.4),
        "name": maybe("‹project›-coverage", 0.15),
        "fail_ci_if_error": maybe((True, False, False)),
        "verbose": maybe(True, 0.2),
    },
    if_=maybe("‹check›", 0.3),
)
NOTIFY = (
    use(
        "‹Notify|Post to|Send message to› Slack‹| on failure›",
        "slackapi/slack-github-action",
        {
            "webhook": "${{ secrets.SLACK_WEBHOOK_URL }}",
            "webhook-type": "incoming-webhook",
            "payload": (
                '{\n  "text": "‹:x:|:warning:|:fire:› ‹Project›: ${{ github.workflow }} failed on ${{ github.ref_name }}",\n'
                '  "blocks": [\n    {\n      "type": "section",\n      "text": {\n        "type": "mrkdwn",\n'
                '        "text": "<${{ github.server_url }}/${{ github.repository }}/actions/runs/${{ github.run_id }}'
                '¦See the run>"\n      }\n    }\n  ]\n}\n',
                'text: "‹Project› ${{ job.status }}: ${{ github.ref_name }} by ${{ github.actor }}"\n',
            ),
        },
        if_=("failure()", "always()", "failure() && ‹check›"),
    ),
    run(
        "Notify ‹Slack|the team|Discord|‹person››‹| of failure›",
        [
            'curl -sSf -X POST -H "Content-Type: application/json" \\',
            '  -d \'{"text": "‹Project› ‹build|nightly|release|deploy› ${{ job.status }}: '
            "${{ github.server_url }}/${{ github.repository }}/actions/runs/${{ github.run_id }}\"}' \\",
            '  "${{ secrets.‹SLACK_WEBHOOK_URL|DISCORD_WEBHOOK|TEAMS_WEBHOOK› }}"',
        ],
        if_="‹failure()|always()|failure() && ‹check››",
    ),
)
COMMENT = use(
    "‹Comment on|Post result to|Update comment on› ‹PR|pull request|the pull request›",
    "‹peter-evans/create-or-update-comment|peter-evans/create-or-update-comment|artgrove/sticky-comment›",
    {
        "issue-number": "${{ github.event.pull_request.number }}",
        "body": (
            "‹:white_check_mark:|:package:|:tada:|› ‹Preview|Build|Image› for ${{ github.sha }}: https://pr-${{ github.event.number }}.‹domain›\n",
            "### ‹object› of ‹component›\n\n${{ steps.‹object›.outputs.summary }}\n\n"
            "<details>\n<summary>‹Details|Full log|Show ‹object››</summary>\n\n"
            "```\n${{ steps.‹object›.outputs.log }}\n```\n\n</details>\n",
            "Thanks @${{ github.actor }}! ‹The ‹object› look good.|Please update the ‹object› before merging.›",
        ),
        "edit-mode": maybe("replace", 0.6),
        "token": maybe("‹token›", 0.4),
    },
    if_=maybe("github.event_name == 'pull_request'", 0.6),
)
PULL_REQUEST = use(
    "‹Create|Open› ‹Pull Request|pull request|PR with ‹object››",
    "peter-evans/create-pull-request",
    {
        "token": "‹token›",
        "commit-message": "‹message›",
        "title": "‹message›",
        "branch": "‹bot|auto|chore|ci›/‹verb›-‹object›‹|-${{ github.run_id }}›",
        "base": maybe("‹main›", 0.3),
        "body": maybe(
            (
                "Automated changes by [‹project›](https://github.com/‹repository›).",
                "This pull request was made by the `${{ github.workflow }}` workflow.\n\n"
                "- ‹verb› ‹object›\n- ‹verb› ‹object› for ‹component›\n",
            ),
            0.8,
        ),
        "labels": maybe(("‹label›", "‹label›\n‹label›\n", "‹label›, ‹label›")),
        "delete-branch": maybe(True),
        "signoff": maybe(True, 0.15),
    },
)
THIRD_PARTY = use(
    "‹Set up|Run|Install|Check|Publish|Setup› ‹component›‹| ‹object›| for ‹it›| and ‹verb› ‹object››",
    "‹‹owner›|‹noun›-‹labs|actions|ci|tools›|‹coined›|‹adjective›-‹noun››/‹setup-‹component›|‹component›-action|"
    "action-‹component›|‹verb›-‹component›|gha-‹component››",
    settings(2.6),
    id_=maybe("‹component›", 0.2),
    env=maybe(variables(1.8), 0.25),
)
LOCAL_ACTION = use(
    "‹Set up|Run|Prepare|Install› ‹component|environment|‹object››‹| for ‹it›| on ‹in_matrix››",
    "./.github/actions/‹setup|setup-‹component›|‹verb›-‹object›|‹component›|install|prepare›",
    maybe(settings(2.2), 0.7),
)
COMMAND = run(
    "‹Run|Run|Check|Build|Test|Verify|Execute› ‹it›‹| ‹object›| tests| checks| tests for ‹adjective› ‹object›| on ‹in_matrix›| in ‹folder››",
    (
        "make ‹target›",
        "make ‹-C ‹it› |›‹target›‹| ‹VARIABLE›=‹VALUE››",
        "‹script_file›",
        "‹script_file› ‹flag›",
        "‹script_file› ‹flag› ‹flag›",
        "bash ‹script_file›‹| ‹it›› ${{ github.event.pull_request.number }}",
        "just ‹target›",
        "task ‹target›",
        "./‹binary› ‹it› ‹flag›",
        "‹folder›/‹binary› ‹it› ‹verb› ‹flag›",
        "earthly +‹target›",
        "pre-commit run --all-files‹| --show-diff-on-failure›",
        "bazel ‹test|build› //‹it›/...‹| --config=ci| --test_output=errors›",
        ["make ‹target›", "make ‹target›", maybe("git diff --exit-code")],
        ["cd ‹it›", "make ‹target›", maybe("‹script_file› ‹flag›"), maybe("‹script_file› ‹flag›")],
        ["‹script_file› \\", "  ‹flag› \\", "  ‹flag› \\", "  ‹flag›"],
    ),
    env=maybe(variables(1.8), 0.14),
)
GIT_IDENTITY = run(
    "‹Configure git|Set up git identity|Configure Git user|Setup Git›",
    [
        'git config ‹--global |›user.name "‹bot›"',
        'git config ‹--global |›user.email "‹bot›@users.noreply.github.com"',
    ],
)
