"""Small workflows that keep a repository tidy: a bot each, with one job and a step or two."""

from typing import Any

from nanochat_tct.synthetic.steps import (
    APP_TOKEN,
    CHECKOUT,
    COMMENT,
    GIT_IDENTITY,
    HARDEN,
    NOTIFY,
    PULL_REQUEST,
    run,
    use,
)
from nanochat_tct.synthetic.template import Generator, compile_value, maybe

_WRITE = "write"
_PULLS = {"contents": maybe("read", 0.6), "pull-requests": _WRITE}
_ISSUES = {"issues": _WRITE, "pull-requests": maybe(_WRITE)}
_DAILY = {"schedule": [{"cron": "‹cron›"}], "workflow_dispatch": maybe((None,), 0.6)}
_TOKEN = {"repo-token": "‹token›"}


def _chore(name: str, job: str, on: Any, steps: list[Any], permissions: Any = None, **more: Any) -> Generator:
    """A workflow of one job. Permissions are those of the workflow or of the job; more: other keys of the job."""
    access = (
        [maybe(permissions, 0.5), maybe(permissions, 0.4)]
        if permissions
        else [maybe("read-all", 0.1), maybe("read-all", 0.0)]
    )
    return compile_value(
        {
            "name": maybe(name, 0.95),
            "on": on,
            "permissions": access[0],
            "jobs": {
                job: {
                    "name": maybe(name, 0.2),
                    "if": maybe("github.repository‹_owner == '‹owner›'| == '‹repository›'›", 0.2),
                    "runs-on": "‹ubuntu›",
                    "permissions": access[1],
                    "timeout-minutes": maybe((5, 10, 15), 0.1),
                    **{key.rstrip("_").replace("_", "-"): value for key, value in more.items()},
                    "steps": steps,
                }
            },
        }
    )


_PR_TARGET = (
    {"pull_request_target": None},
    {"pull_request_target": {"types": ["opened", "synchronize"]}},
    ["pull_request_target"],
    "pull_request_target",
    {"pull_request": {"types": ["opened", "edited", "synchronize", "reopened"]}},
)

CHORES: list[Generator] = [
    _chore(
        "‹Close stale issues|Stale|Mark stale issues and pull requests|Close inactive issues›",
        "‹stale|stale|close-issues|close-stale›",
        _DAILY,
        [
            use(
                "‹Stale|Close stale issues›",
                "actions/stale",
                {
                    "repo-token": maybe("${{ secrets.GITHUB_TOKEN }}"),
                    "stale-issue-message": maybe(
                        "This issue ‹has been inactive|is stale because it has been open› for ‹14..120› days‹|. Remove the stale label or comment to keep it open|, and will be closed if nothing happens›.",
                        0.8,
                    ),
                    "stale-pr-message": maybe(
                        "This pull request has had no activity for ‹14..90› days.", 0.6
                    ),
                    "close-issue-message": maybe("Closed after ‹7..30› more days without activity.", 0.4),
                    "days-before-stale": maybe((14, 30, 60, 60, 90, 180, 365), 0.8),
                    "days-before-close": maybe((5, 7, 14, 30, -1), 0.8),
                    "stale-issue-label": maybe("‹stale|no-activity|inactive›"),
                    "exempt-issue-labels": maybe("‹label›‹|,‹label››"),
                    "operations-per-run": maybe((30, 100, 250, 500), 0.35),
                    "days-before-pr-close": maybe((-1, 14, 30), 0.2),
                },
            )
        ],
        _ISSUES,
    ),
    _chore(
        "‹Pull Request Labeler|Labeler|Label PRs|Label pull requests›",
        "‹label|labeler|triage›",
        _PR_TARGET,
        [
            maybe(CHECKOUT, 0.2),
            use(
                "Label",
                "actions/labeler",
                {
                    "repo-token": maybe("${{ secrets.GITHUB_TOKEN }}", 0.6),
                    "sync-labels": maybe((True, "")),
                    "configuration-path": maybe(".github/‹labeler|labels›.yml", 0.3),
                },
            ),
        ],
        _PULLS,
    ),
    _chore(
        "‹Lint PR title|PR title|Semantic PR|Validate PR title›",
        "‹main|lint|title|validate›",
        {"pull_request_target": {"types": ["opened", "edited", "synchronize"]}},
        [
            use(
                "‹Validate title|Check title›",
                "amannn/action-semantic-pull-request",
                {
                    "types": maybe("feat\nfix\nchore\ndocs\nci\n"),
                    "scopes": maybe("‹component›\n‹component›\ndeps\n"),
                    "requireScope": maybe((True, False)),
                    "subjectPattern": maybe("^(?![A-Z]).+$", 0.4),
                },
                env={"GITHUB_TOKEN": "${{ secrets.GITHUB_TOKEN }}"},
            )
        ],
        _PULLS,
    ),
    _chore(
        "‹Dependabot auto-merge|Auto-merge Dependabot PRs|Dependabot›",
        "‹dependabot|auto-merge|automerge›",
        ("pull_request", {"pull_request": None}, "pull_request_target"),
        [
            use(
                "Dependabot metadata",
                "dependabot/fetch-metadata",
                {"github-token": "${{ secrets.GITHUB_TOKEN }}"},
                id_="metadata",
            ),
            maybe(
                run(
                    "Approve",
                    'gh pr review --approve "$PR_URL"',
                    env={
                        "PR_URL": "${{ github.event.pull_request.html_url }}",
                        "GH_TOKEN": "${{ secrets.GITHUB_TOKEN }}",
                    },
                )
            ),
            run(
                "‹Enable auto-merge|Merge›‹| for Dependabot PRs›",
                'gh pr merge --auto --‹merge|squash|rebase› "$PR_URL"',
                if_=maybe(
                    "steps.metadata.outputs.update-type ‹== 'version-update:semver-patch'|!= 'version-update:semver-major'›",
                    0.7,
                ),
                env={
                    "PR_URL": "${{ github.event.pull_request.html_url }}",
                    "GH_TOKEN": "${{ secrets.‹GITHUB_TOKEN|BOT_TOKEN› }}",
                },
            ),
        ],
        {"contents": _WRITE, "pull-requests": _WRITE},
    ),
    _chore(
        "‹Release Drafter|Draft release|Update release draft›",
        "‹update_release_draft|draft|release-drafter›",
        {
            "push": {"branches": ["‹main›"]},
            "pull_request": maybe({"types": ["opened", "reopened", "synchronize"]}),
        },
        [
            use(
                "‹Draft|Update› release",
                "release-drafter/release-drafter",
                {
                    "config-name": maybe("‹release-drafter|‹component››.yml"),
                    "disable-autolabeler": maybe(True, 0.3),
                    "publish": maybe((True, False), 0.3),
                },
                env={"GITHUB_TOKEN": "‹token›"},
            )
        ],
        {"contents": _WRITE, "pull-requests": maybe(_WRITE)},
    ),
    _chore(
        "‹Release Please|release-please›",
        "release-please",
        {"push": {"branches": ["‹main›"]}},
        [
            use(
                "Release",
                "googleapis/release-please-action",
                {
                    "token": maybe("‹token›"),
                    "release-type": maybe("‹node|python|go|simple|rust|java|helm›", 0.8),
                    "target-branch": maybe("${{ github.ref_name }}", 0.2),
                    "config-file": maybe("release-please-config.json", 0.3),
                    "manifest-file": maybe(".release-please-manifest.json", 0.25),
                },
                id_=maybe("release"),
            )
        ],
        {"contents": _WRITE, "pull-requests": _WRITE, "issues": maybe(_WRITE, 0.3)},
    ),
    _chore(
        "Lock threads",
        "‹lock|action›",
        _DAILY,
        [
            use(
                "Lock",
                "dessant/lock-threads",
                {
                    "github-token": maybe("‹token›", 0.6),
                    "issue-inactive-days": ("30", "60", "90", "365", 30),
                    "pr-inactive-days": maybe(("14", "30", "90")),
                    "issue-lock-reason": maybe("resolved"),
                    "issue-comment": maybe(
                        "This thread is closed. Please open a new issue with a link to this one.", 0.4
                    ),
                    "process-only": maybe("issues"),
                    "log-output": maybe(True, 0.3),
                },
            )
        ],
        {"issues": _WRITE, "pull-requests": maybe(_WRITE), "discussions": maybe(_WRITE, 0.3)},
    ),
    _chore(
        "‹Greetings|Welcome|First interaction›",
        "‹greeting|welcome›",
        ("pull_request_target", ["pull_request_target", "issues"], {"issues": {"types": ["opened"]}}),
        [
            use(
                "Greet",
                "actions/first-interaction",
                {
                    "repo-token": "${{ secrets.GITHUB_TOKEN }}",
                    "issue-message": "Thanks for ‹opening your first issue|the report›! ‹Someone will look at it soon.|Please check the ‹docs› first.|›",
                    "pr-message": maybe(
                        "Thanks for your first pull request to ‹Project›!‹| Please read CONTRIBUTING.md.›",
                        0.8,
                    ),
                },
            )
        ],
        _ISSUES,
    ),
    _chore(
        "‹Add issues to project|Add to project|Project board›",
        "‹add-to-project|add_to_project›",
        {"issues": {"types": ["opened"]}, "pull_request": maybe({"types": ["opened"]}, 0.4)},
        [
            use(
                "Add to project",
                "actions/add-to-project",
                {
                    "project-url": "https://github.com/orgs/‹owner›/projects/‹1..60›",
                    "github-token": "${{ secrets.‹ADD_TO_PROJECT_PAT|PROJECT_TOKEN|GH_PAT› }}",
                    "labeled": maybe("‹label›‹|, ‹label››", 0.4),
                    "label-operator": maybe("‹OR|NOT|AND›", 0.2),
                },
            )
        ],
    ),
    _chore(
        "‹Dependency Review|Dependency review›",
        "dependency-review",
        ("pull_request", ["pull_request"], {"pull_request": {"branches": ["‹main›"]}}),
        [
            maybe(HARDEN, 0.4),
            CHECKOUT,
            use(
                "Dependency ‹Review|review›",
                "actions/dependency-review-action",
                {
                    "fail-on-severity": maybe("‹low|moderate|high|critical›"),
                    "comment-summary-in-pr": maybe(("always", True), 0.4),
                    "deny-licenses": maybe("‹GPL-3.0, AGPL-3.0|AGPL-1.0-only›", 0.3),
                    "allow-licenses": maybe("MIT, Apache-2.0, BSD-3-Clause, ISC", 0.1),
                },
            ),
        ],
        {"contents": "read", "pull-requests": maybe(_WRITE, 0.3)},
    ),
    _chore(
        "‹Scorecard supply-chain security|OpenSSF Scorecard|Scorecard›",
        "analysis",
        {"branch_protection_rule": None, "schedule": [{"cron": "‹cron›"}], "push": {"branches": ["‹main›"]}},
        [
            CHECKOUT,
            use(
                "Run analysis",
                "ossf/scorecard-action",
                {
                    "results_file": "results.sarif",
                    "results_format": "sarif",
                    "publish_results": (True, True, False),
                },
            ),
            maybe(
                use(
                    "Upload artifact",
                    "actions/upload-artifact",
                    {"name": "SARIF file", "path": "results.sarif", "retention-days": 5},
                ),
                0.8,
            ),
            use(
                "Upload to code-scanning",
                "github/codeql-action/upload-sarif",
                {"sarif_file": "results.sarif"},
            ),
        ],
        {"security-events": _WRITE, "id-token": _WRITE, "contents": maybe("read"), "actions": maybe("read")},
    ),
    _chore(
        "‹CodeQL|CodeQL Analysis|Code scanning›",
        "analyze",
        {
            "push": {"branches": ["‹main›"]},
            "pull_request": maybe({"branches": ["‹main›"]}, 0.8),
            "schedule": maybe([{"cron": "‹cron›"}], 0.9),
        },
        [
            CHECKOUT,
            use(
                "Initialize CodeQL",
                "github/codeql-action/init",
                {
                    "languages": "${{ matrix.language }}",
                    "build-mode": maybe("${{ matrix.build-mode }}", 0.2),
                    "queries": maybe("‹security-extended|security-and-quality|+security-and-quality›", 0.4),
                    "config-file": maybe("./.github/codeql/codeql-config.yml", 0.2),
                },
            ),
            maybe(use("Autobuild", "github/codeql-action/autobuild"), 0.7),
            use(
                "Perform CodeQL Analysis",
                "github/codeql-action/analyze",
                {"category": maybe("/language:${{ matrix.language }}", 0.7), "upload": maybe(False, 0.05)},
            ),
        ],
        {"actions": maybe("read", 0.8), "contents": "read", "security-events": _WRITE},
        strategy={
            "fail-fast": maybe(False, 0.9),
            "matrix": {
                "language": (
                    ["python"],
                    ["javascript-typescript"],
                    ["go"],
                    ["java-kotlin"],
                    ["cpp"],
                    ["ruby"],
                    ["csharp"],
                    ["javascript", "python"],
                    ["go", "javascript"],
                    ["actions", "python"],
                    ["swift"],
                    ["rust"],
                ),
                "include": maybe(
                    [{"language": "‹python|go|c-cpp|rust›", "build-mode": "‹none|manual|autobuild›"}], 0.2
                ),
            },
        },
    ),
    _chore(
        "‹Typos|Spell check|Spelling›",
        "‹typos|spellcheck|run›",
        (["pull_request"], {"pull_request": None, "push": {"branches": ["‹main›"]}}),
        [
            CHECKOUT,
            use(
                "Check spelling",
                "‹crate-ci/typos|codespell-project/actions-codespell|streetsidesoftware/cspell-action›",
                {
                    "‹files|skip|path›": maybe("‹‹folder›|./‹docs›|.›"),
                    "config": maybe("‹typos.toml|.typos.toml|cspell.json›", 0.3),
                },
            ),
        ],
        {"contents": "read"},
    ),
    _chore(
        "‹Secret scan|TruffleHog|Gitleaks›",
        "‹scan|gitleaks|secrets›",
        (["push", "pull_request"], {"pull_request": None}),
        [
            use("Checkout", "actions/checkout", {"fetch-depth": 0}),
            use(
                "Scan",
                "‹trufflesecurity/trufflehog|gitleaks/gitleaks-action›",
                {
                    "extra_args": maybe("--only-verified‹| --results=verified,unknown›"),
                    "base": maybe("${{ github.event.repository.default_branch }}", 0.4),
                    "head": maybe("HEAD", 0.4),
                },
                env=maybe({"GITHUB_TOKEN": "${{ secrets.GITHUB_TOKEN }}"}, 0.4),
            ),
        ],
        {"contents": "read"},
    ),
    _chore(
        "‹Backport|Backport PR›",
        "backport",
        {"pull_request_target": {"types": ["closed", "labeled"]}},
        [
            CHECKOUT,
            use(
                "Create backport PRs",
                "‹korthout/backport-action|sorenlouv/backport-github-action|tibdex/backport›",
                {
                    "github_token": maybe("‹token›"),
                    "label_pattern": maybe("^backport ([^ ]+)$", 0.3),
                    "pull_title": maybe("[${target_branch}] ${pull_title}", 0.3),
                    "merge_commits": maybe("skip", 0.2),
                },
            ),
        ],
        {"contents": _WRITE, "pull-requests": _WRITE},
        if_="github.event.pull_request.merged‹| == true›",
    ),
    _chore(
        "‹Update ‹object›|Sync ‹object›|Refresh ‹object›|Bump ‹component››",
        "‹update|sync|refresh|bump›",
        _DAILY,
        [
            maybe(APP_TOKEN, 0.2),
            CHECKOUT,
            run(
                "‹Update|Refresh|Sync› ‹it›",
                (
                    "‹script_file›",
                    "‹script_file› ‹flag›",
                    "make ‹target›",
                    ["‹script_file›", "git status --short"],
                ),
            ),
            PULL_REQUEST,
        ],
        {"contents": _WRITE, "pull-requests": _WRITE},
    ),
    _chore(
        "‹Sync fork|Mirror|Mirror repository›",
        "‹sync|mirror›",
        _DAILY,
        [
            CHECKOUT,
            maybe(GIT_IDENTITY),
            run(
                "‹Push|Mirror|Sync›",
                (
                    [
                        "git remote add upstream https://github.com/‹owner›/‹component›.git",
                        "git fetch upstream‹| --tags›",
                        "git merge --ff-only upstream/‹main›",
                        "git push origin ‹main›",
                    ],
                    "git push --mirror https://${{ secrets.MIRROR_TOKEN }}@gitlab.com/‹repository›.git",
                ),
            ),
        ],
    ),
    _chore(
        "‹Check labels|Require label|PR labels›",
        "‹check|label-check|labels›",
        {"pull_request": {"types": ["opened", "labeled", "unlabeled", "synchronize"]}},
        [
            use(
                "Check labels",
                "mheap/github-action-required-labels",
                {
                    "mode": "‹exactly|minimum|maximum›",
                    "count": (0, 1, 1),
                    "labels": "‹label›, ‹label›‹|, ‹label››",
                    "message": maybe("Please add one of: {{ provided }}", 0.3),
                },
            )
        ],
        _PULLS,
    ),
    _chore(
        "‹Slash commands|PR comments|Comment commands|ChatOps›",
        "‹dispatch|command|react›",
        {"issue_comment": {"types": ["created"]}},
        [
            run(
                "‹Run command|Handle comment|React›",
                (
                    [
                        "gh api repos/${{ github.repository }}/issues/comments/${{ github.event.comment.id }}/reactions -f content=‹rocket|eyes|+1›"
                    ],
                    [
                        'gh pr comment "$NUMBER" --body "‹Rebasing|Running tests|On it›: ${{ github.server_url }}/${{ github.repository }}/actions/runs/${{ github.run_id }}"',
                        'gh workflow run ‹component›.yml -f pr="$NUMBER"',
                    ],
                ),
                env={"GH_TOKEN": "‹token›", "NUMBER": "${{ github.event.issue.number }}"},
            )
        ],
        _ISSUES,
        if_=(
            "github.event.issue.pull_request && contains(github.event.comment.body, '/‹verb›')",
            "startsWith(github.event.comment.body, '/‹rebase|retest|deploy|format|lgtm›')",
        ),
    ),
    _chore(
        "‹Delete old workflow runs|Cleanup caches|Clean up packages|Cleanup›",
        "‹cleanup|delete|prune›",
        ({"pull_request": {"types": ["closed"]}}, _DAILY),
        [
            run(
                "‹Cleanup|Delete caches›",
                [
                    "gh extension install actions/gh-actions-cache",
                    'for key in $(gh actions-cache list -R "$REPO" -B "$BRANCH" ¦ cut -f 1); do',
                    '  gh actions-cache delete "$key" -R "$REPO" -B "$BRANCH" --confirm',
                    "done",
                ],
                env={
                    "GH_TOKEN": "${{ secrets.GITHUB_TOKEN }}",
                    "REPO": "${{ github.repository }}",
                    "BRANCH": "refs/pull/${{ github.event.pull_request.number }}/merge",
                },
            ),
            maybe(
                use(
                    "Delete runs",
                    "Mattraks/delete-workflow-runs",
                    {"retain_days": (7, 30, 60), "keep_minimum_runs": (3, 6, 10)},
                ),
                0.3,
            ),
        ],
        {"actions": _WRITE},
    ),
    _chore(
        "‹Assign reviewers|Auto assign|Auto Author Assign›",
        "‹assign|assign-author|add-reviews›",
        {"pull_request": {"types": ["opened", "ready_for_review"]}},
        [
            use(
                "Assign",
                "‹toshimaru/auto-author-assign|kentaro-m/auto-assign-action›",
                {"configuration-path": maybe(".github/auto_assign.yml", 0.4)},
            )
        ],
        {"pull-requests": _WRITE},
    ),
    _chore(
        "‹Pre-commit|pre-commit›",
        "‹pre-commit|main|lint›",
        {"pull_request": None, "push": maybe({"branches": ["‹main›"]}, 0.8)},
        [
            CHECKOUT,
            use("Set up Python", "actions/setup-python", {"python-version": maybe("‹python›", 0.6)}),
            use(
                "Run pre-commit",
                "pre-commit/action",
                {"extra_args": maybe("--all-files‹| --show-diff-on-failure›", 0.3)},
            ),
        ],
        {"contents": "read"},
    ),
    _chore(
        "‹Check workflows|actionlint|zizmor|GitHub Actions security›",
        "‹actionlint|zizmor|check›",
        (
            {"push": {"branches": ["‹main›"]}, "pull_request": {"paths": [".github/workflows/**"]}},
            {"pull_request": None},
        ),
        [
            use("Checkout", "actions/checkout", {"persist-credentials": False}),
            use(
                "Run",
                "‹zizmorcore/zizmor-action|rhysd/actionlint|reviewdog/action-actionlint›",
                {"advanced-security": maybe(False, 0.3), "fail_level": maybe("error", 0.2)},
            ),
        ],
        ({}, {"contents": "read"}, {"security-events": _WRITE, "contents": "read"}),
    ),
    _chore(
        "‹Ping|Health check|Uptime check|Watch ‹component››",
        "‹ping|check|watch›",
        {"schedule": [{"cron": "‹cron_often›"}]},
        [
            run(
                "‹Ping|Check› ‹it›",
                (
                    "curl -fsS https://‹it|api|www›.‹domain›/‹health|status|ping›",
                    [
                        "status=$(curl -s -o /dev/null -w '%{http_code}' https://‹it›.‹domain›)",
                        'test "$status" -eq 200',
                    ],
                ),
            ),
            maybe(NOTIFY, 0.4),
        ],
    ),
    _chore(
        "‹Notify|Announce release|Post release›",
        "‹notify|announce›",
        {"release": {"types": ["published"]}},
        [
            run(
                "‹Announce|Post›",
                [
                    "curl -X POST -H 'Content-Type: application/json' \\",
                    '  -d \'{"content": "‹:tada:|New release:› ‹Project› ${{ github.event.release.tag_name }}"}\' \\',
                    '  "${{ secrets.‹DISCORD_WEBHOOK|SLACK_WEBHOOK_URL› }}"',
                ],
            )
        ],
    ),
    _chore(
        "‹Issue triage|Needs info|Triage›",
        "‹triage|needs-info|comment›",
        {"issues": {"types": ["opened", "labeled"]}},
        [COMMENT],
        _ISSUES,
        if_=maybe("github.event.label.name == '‹label›'", 0.7),
    ),
    _chore(
        "‹CLA Assistant|CLA›",
        "‹cla|CLAAssistant›",
        {
            "issue_comment": {"types": ["created"]},
            "pull_request_target": {"types": ["opened", "closed", "synchronize"]},
        },
        [
            use(
                "CLA Assistant",
                "contributor-assistant/github-action",
                {
                    "path-to-signatures": "signatures/‹version1|v1›/cla.json",
                    "path-to-document": "https://github.com/‹repository›/blob/‹main›/CLA.md",
                    "branch": "‹‹main›|cla-signatures›",
                    "allowlist": maybe("‹person›,‹person›,bot*"),
                },
                if_="(github.event.comment.body == 'recheck' ¦¦ github.event.comment.body == 'I have read the CLA') ¦¦ github.event_name == 'pull_request_target'",
                env={
                    "GITHUB_TOKEN": "${{ secrets.GITHUB_TOKEN }}",
                    "PERSONAL_ACCESS_TOKEN": maybe("${{ secrets.PERSONAL_ACCESS_TOKEN }}"),
                },
            )
        ],
        {"actions": _WRITE, "contents": _WRITE, "pull-requests": _WRITE, "statuses": _WRITE},
    ),
]
