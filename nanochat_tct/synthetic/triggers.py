"""What starts a workflow: the value of `on`."""

from typing import Any

from nanochat_tct.synthetic.ecosystems import Ecosystem
from nanochat_tct.synthetic.template import LEXICON, compile_value, maybe
from nanochat_tct.synthetic.writer import Writer

LEXICON.phrases(
    branch_glob="‹‹main›|‹main›|release/**|release-*|releases/*|v[0-9]+.x|feature/**|hotfix/*|stable|next|staging|"
    "gh-readonly-queue/**|renovate/**|‹component›/*|'*.x'|!skip/**|[0-9]+.[0-9]+|dev›",
    tag_glob="‹v*|v*|v*.*.*|v[0-9]+.[0-9]+.[0-9]+*|'*'|**|release-*|‹component›-v*|‹component›/v*|v‹0..9›.*|*.*.*›",
    more_glob="‹‹folder›/**|.github/workflows/‹component›.yml|.github/workflows/**|.github/actions/**|Makefile|LICENSE|"
    "‹component›/**|services/‹component›/**|packages/‹component›/**|!**/*.md|‹script_folder›/**|config/**|"
    "**/‹component›.‹json|yaml|toml›|‹docs›/**|.editorconfig|!‹component›/‹docs›/**›",
    ignored_glob="‹**.md|**/*.md|docs/**|LICENSE|.gitignore|*.md|README.md|.github/**|**/*.‹txt|svg|png|rst›|"
    "CODEOWNERS|.vscode/**|examples/**|CHANGELOG.md|.editorconfig›",
)
_BRANCHES = compile_value(
    (
        ["‹main›"],
        ["‹main›"],
        ["‹main›"],
        ["‹main›", "‹branch_glob›"],
        ["‹branch_glob›", "‹main›", "‹branch_glob›"],
        ["**"],
        ["main", "master"],
    )
)
_TAGS = compile_value((["‹tag_glob›"], ["‹tag_glob›"], ["v*.*.*"], ["‹tag_glob›", "!v*-‹rc|beta|alpha›*"]))
_TYPES = {
    name: compile_value(template)
    for name, template in {
        "pull_request": (
            ["opened", "synchronize", "reopened"],
            ["opened", "synchronize", "reopened", "ready_for_review"],
            ["closed"],
            ["opened", "edited", "synchronize"],
            ["labeled"],
            ["labeled", "unlabeled", "opened", "synchronize"],
        ),
        "issues": (
            ["opened"],
            ["opened", "reopened"],
            ["labeled"],
            ["opened", "edited", "labeled"],
            ["closed"],
        ),
        "issue_comment": (["created"], ["created"], ["created", "edited"]),
        "release": (["published"], ["published"], ["created"], ["released"], ["published", "prereleased"]),
    }.items()
}
_PLAIN_EVENT = compile_value({"types": (["checks_requested"], ["checks_requested"])})
_DISPATCH = compile_value({"types": (["‹verb›-‹component›"], ["‹component›-updated", "‹verb›-‹object›"])})
_RUN_OF = compile_value(
    {
        "workflows": ["‹CI|Build|Tests|Release|‹Project› CI|‹component››"],
        "types": ["completed"],
        "branches": maybe(["‹main›"], 0.4),
    }
)
_CRON = compile_value(
    {
        "cron": ("‹cron›", "‹cron›", "‹cron›", "‹cron_often›"),
        "timezone": maybe("‹Europe/Berlin|America/New_York|Asia/Tokyo›", 0.01),
    }
)

LEXICON.phrases(
    input_name="‹version|tag|ref|environment|dry_run|dry-run|debug|target|‹component›|log_level|force|image_tag|branch|"
    "skip_tests|release_type|python-version|node-version|runner|‹component›_‹version|ref|tag|path›|"
    "run-‹component›|enable_‹component›|skip-‹component›|publish|prerelease|notify›",
    to_do="‹to ‹verb›|to ‹release|build|test|deploy|publish››",
)
_REQUIRED = maybe((True, True, False), 0.55)
# Inputs of a `workflow_call` or a `workflow_dispatch`: a name, and what such an input is.
_INPUTS = [
    compile_value({name: template})
    for name, template in [
        (
            "‹version|tag|release_version|‹it›_version|‹it›-version›",
            {
                "description": maybe(
                    "‹Version|Tag› ‹of ‹it› |›‹to_do›‹| (e.g. v‹version›)|, without the leading v|›", 0.85
                ),
                "required": _REQUIRED,
                "type": "string",
                "default": maybe(("", "latest", "‹version›"), 0.4),
            },
        ),
        (
            "‹ref|branch|sha|‹it›_ref|base-branch›",
            {
                "description": maybe(
                    "‹Branch, tag or SHA ‹to_do›|Git ref of ‹it›|Branch to ‹verb› ‹object› from›", 0.85
                ),
                "required": _REQUIRED,
                "type": "string",
                "default": maybe(("‹main›", "", "${{ github.ref }}")),
            },
        ),
        (
            "‹dry_run|dry-run|dryrun›",
            {
                "description": maybe("‹Dry run|Do not publish anything|Only show what would be done›", 0.85),
                "required": _REQUIRED,
                "type": "boolean",
                "default": maybe((True, False), 0.85),
            },
        ),
        (
            "‹debug|debug_enabled|verbose|force|publish|prerelease|notify|draft›",
            {
                "description": maybe(
                    "‹‹Verb› with ‹debug output|more logs›|‹Verb› even if ‹object› exist|Send a message when done|Mark as pre-release›"
                ),
                "type": "boolean",
                "required": maybe(False),
                "default": maybe(False, 0.8),
            },
        ),
        (
            "‹run|skip|enable|build|test›‹-|_›‹it›",
            {
                "description": maybe("‹Run|Skip|Enable› ‹it›‹| tests| ‹object››", 0.7),
                "required": maybe(False),
                "type": "boolean",
                "default": (True, False),
            },
        ),
        (
            "‹it›",
            {
                "description": maybe("‹Name|Path|URL|List› of ‹it› ‹to_do›", 0.7),
                "required": _REQUIRED,
                "type": "string",
                "default": maybe(("", "‹component›", "‹folder›", "all"), 0.4),
            },
        ),
        (
            "‹it›‹-|_›‹path|dir|file|args|name|url|image›",
            {
                "required": _REQUIRED,
                "description": maybe(
                    "‹Where ‹it› is|Arguments for ‹it›|‹object› of ‹it›|Additional ‹object› ‹to_do››", 0.7
                ),
                "default": maybe(("", "‹folder›", "‹flag›", "‹file›"), 0.5),
                "type": "string",
            },
        ),
        (
            "‹python|node|go|java|rust›‹-|_›version",
            {
                "description": maybe("Version of ‹the language|the toolchain|‹it›› to use"),
                "type": "string",
                "required": maybe(False),
                "default": "‹3.12|20|1.23|17|stable|lts/*›",
            },
        ),
        (
            "‹runner|runs-on|os|runner_label›",
            {
                "description": maybe("‹Runner to use|Label of the runner›"),
                "required": maybe(False),
                "type": "string",
                "default": "‹ubuntu-latest|ubuntu-24.04|self-hosted›",
            },
        ),
        (
            "‹timeout|timeout-minutes|retries|parallel|shards|count|pr_number|days›",
            {
                "description": maybe(
                    "‹Timeout in minutes|How often to retry|Number of ‹it› jobs|Number of the pull request›",
                    0.8,
                ),
                "required": _REQUIRED,
                "type": "number",
                "default": maybe((1, 3, 5, 10, 30, 60, 0.5, 0.95, 100)),
            },
        ),
        (
            "‹image|image_tag|docker-image|registry›",
            {
                "description": maybe("‹Image|Tag of the image› ‹to_do›", 0.8),
                "required": _REQUIRED,
                "type": "string",
                "default": maybe(("latest", "‹image›", "‹registry›")),
            },
        ),
        (
            "‹matrix|targets|packages|modules›",
            {
                "description": maybe("‹JSON list|Comma-separated list› of ‹object› ‹to_do›"),
                "type": "string",
                "required": maybe(True),
                "default": maybe(('["‹component›", "‹component›"]', "[]", "‹component›,‹component›")),
            },
        ),
        (
            "environment",
            {
                "description": maybe("Environment ‹to_do›"),
                "required": _REQUIRED,
                "type": "string",
                "default": maybe("‹cloud_environment›"),
            },
        ),
    ]
]
_CHOICES = [
    compile_value({name: template})
    for name, template in [
        (
            "‹environment|target|stage|env›",
            {
                "description": maybe("Environment ‹to_do›", 0.85),
                "required": maybe(True, 0.8),
                "type": "choice",
                "options": (["dev", "staging", "production"], ["staging", "production"], ["qa", "prod"]),
            },
        ),
        (
            "environment",
            {
                "description": maybe("Environment ‹to_do›", 0.85),
                "required": maybe(True),
                "type": "environment",
                "default": maybe("‹cloud_environment›", 0.4),
            },
        ),
        (
            "‹release_type|bump|release-type|version_bump›",
            {
                "description": maybe("‹Type of release|Which part of the version to bump›", 0.8),
                "required": maybe(True, 0.8),
                "type": "choice",
                "default": maybe("patch", 0.6),
                "options": (["patch", "minor", "major"], ["major", "minor", "patch", "prerelease"]),
            },
        ),
        (
            "‹log_level|logLevel|log-level›",
            {
                "description": maybe("Log level", 0.9),
                "required": maybe(True),
                "default": "‹info|warning|debug›",
                "type": "choice",
                "options": ["info", "warning", "debug"],
            },
        ),
        (
            "‹it›",
            {
                "description": maybe("Which ‹it› ‹to_do›", 0.8),
                "type": "choice",
                "options": ["all", "‹component›", "‹anywhere›"],
                "default": maybe("all"),
            },
        ),
        (
            "‹platform|os›",
            {
                "description": maybe("Platform ‹to_do›"),
                "type": "choice",
                "options": (["linux", "macos", "windows"], ["all", "linux", "windows"]),
                "required": maybe(True),
            },
        ),
    ]
]
_CALL_SECRET = compile_value(
    (
        {"required": True},
        {"required": True},
        {"required": False},
        {
            "description": "‹Token|Key|Password› for ‹the registry|‹component›|publishing›",
            "required": (True, False),
        },
    )
)
_CALL_OUTPUT = compile_value(
    {
        "description": maybe("‹Version|Path|URL|Digest› of the ‹component›"),
        "value": "${{ jobs.‹component|build|prepare›.outputs.‹lower› }}",
    }
)
_SECRETS = compile_value("‹SECRET›")
_LOWER = compile_value("‹lower›")
_GLOBS = compile_value("‹more_glob›")
_IGNORED = compile_value("‹ignored_glob›")


def triggers(writer: Writer, kind: str, ecosystem: Ecosystem, size: int) -> Any:
    """Return the value of `on` of a workflow of that kind, with up to `size` characters or so."""
    events = _EVENTS[kind](writer, ecosystem, size)
    names = list(events)
    if all(value is None for value in events.values()) and writer.chance(0.5):
        return names[0] if len(names) == 1 else names
    return events


def inputs(writer: Writer, size: int, choices: bool) -> dict[str, Any]:
    """Return inputs of a `workflow_dispatch` (with choices) or of a `workflow_call` (without)."""
    written: dict[str, Any] = {}
    for _ in range(max(1, min(int(size * writer.random() / 75), 20))):
        writer.forget("it", "IT")
        library = _CHOICES if choices and writer.chance(0.3) else _INPUTS
        written.update(writer.pick(library)(writer))
    return written


def _filters(writer: Writer, ecosystem: Ecosystem, size: int, event: str) -> dict[str, Any] | None:
    filters: dict[str, Any] = {}
    if writer.chance(0.85 if event == "push" else 0.65):
        filters["branches"] = list(dict.fromkeys(_BRANCHES(writer)))
    elif writer.chance(0.04):
        filters["branches-ignore"] = _BRANCHES(writer)
    if event == "push" and size > 100 and writer.chance(0.1):
        filters["tags"] = _TAGS(writer)
    if event == "pull_request" and size > 100 and writer.chance(0.18):
        filters["types"] = _TYPES["pull_request"](writer)
    if size > 160 and writer.chance(0.45):
        filters["paths"] = _paths(writer, ecosystem, size)
    elif size > 120 and writer.chance(0.1):
        filters["paths-ignore"] = list(dict.fromkeys(_IGNORED(writer) for _ in range(writer.number(1, 4))))
    return filters or None


def _paths(writer: Writer, ecosystem: Ecosystem, size: int) -> list[str]:
    count = min(writer.number(2, 6) + writer.several(1.0 + size / 150, 24), max(2, size // 35))
    known = writer.sample(ecosystem.paths, (count + 1) // 2)
    return list(dict.fromkeys(known + [_GLOBS(writer) for _ in range(count - len(known))]))


def _schedule(writer: Writer) -> list[dict[str, Any]]:
    return [_CRON(writer) for _ in range(2 if writer.chance(0.08) else 1)]


def _dispatch(writer: Writer, size: int, share: float = 0.3) -> dict[str, Any] | None:
    if size > 120 and writer.chance(share):
        return {"inputs": inputs(writer, size, choices=True)}
    return None


def _ci(writer: Writer, ecosystem: Ecosystem, size: int) -> dict[str, Any]:
    events: dict[str, Any] = {}
    if writer.chance(0.8):
        events["push"] = _filters(writer, ecosystem, size // 2, "push")
    if not events or writer.chance(0.85):
        target = writer.chance(0.04)
        events["pull_request_target" if target else "pull_request"] = _filters(
            writer, ecosystem, size // 2, "pull_request"
        )
        same = events.get("push") and events.get("pull_request") and "paths" in events["push"]
        if same and "paths-ignore" not in events["pull_request"] and writer.chance(0.7):
            events["pull_request"]["paths"] = list(events["push"]["paths"])
    if writer.chance(0.08):
        events["merge_group"] = None if writer.chance(0.4) else _PLAIN_EVENT(writer)
    if writer.chance(0.15) and size > 80:
        events["schedule"] = _schedule(writer)
    if writer.chance(0.35):
        events["workflow_dispatch"] = _dispatch(writer, size, 0.2)
    if writer.chance(0.05):
        events["workflow_call"] = {"inputs": inputs(writer, size, choices=False)} if size > 200 else None
    return dict(writer.shuffled(list(events.items()))) if writer.chance(0.15) else events


def _release(writer: Writer, ecosystem: Ecosystem, size: int) -> dict[str, Any]:
    kind = writer.random()
    events: dict[str, Any] = {}
    if kind < 0.5:
        events["push"] = {"tags": _TAGS(writer)}
    elif kind < 0.7:
        events["release"] = {"types": _TYPES["release"](writer)}
    elif kind < 0.85:
        events["push"] = {"branches": _BRANCHES(writer)}
    if not events or writer.chance(0.45):
        events["workflow_dispatch"] = _dispatch(writer, size, 0.65)
    return events


def _deploy(writer: Writer, ecosystem: Ecosystem, size: int) -> dict[str, Any]:
    events: dict[str, Any] = {}
    kind = writer.random()
    if kind < 0.55:
        events["push"] = _filters(writer, ecosystem, size, "push")
    elif kind < 0.68:
        events["workflow_run"] = _RUN_OF(writer)
    elif kind < 0.78:
        events["repository_dispatch"] = _DISPATCH(writer) if writer.chance(0.6) else None
    if not events or writer.chance(0.6):
        events["workflow_dispatch"] = _dispatch(writer, size, 0.6)
    return events


def _nightly(writer: Writer, ecosystem: Ecosystem, size: int) -> dict[str, Any]:
    events: dict[str, Any] = {"schedule": _schedule(writer)}
    if writer.chance(0.8):
        events["workflow_dispatch"] = _dispatch(writer, size, 0.3)
    if writer.chance(0.2):
        events["pull_request"] = {"paths": _paths(writer, ecosystem, size)}
    return events


def _call(writer: Writer, ecosystem: Ecosystem, size: int) -> dict[str, Any]:
    call: dict[str, Any] = {}
    if size > 80 and writer.chance(0.8):
        call["inputs"] = inputs(writer, size, choices=False)
    if writer.chance(0.4):
        call["secrets"] = {_SECRETS(writer): _CALL_SECRET(writer) for _ in range(writer.number(1, 3))}
    if writer.chance(0.15):
        call["outputs"] = {_LOWER(writer): _CALL_OUTPUT(writer) for _ in range(writer.number(1, 2))}
    events: dict[str, Any] = {"workflow_call": call or None}
    if writer.chance(0.2):
        events["workflow_dispatch"] = _dispatch(writer, size, 0.5)
    return events


def _comment(writer: Writer, ecosystem: Ecosystem, size: int) -> dict[str, Any]:
    name = writer.pick(("issue_comment", "issue_comment", "issues", "pull_request_target"))
    return {name: {"types": _TYPES["pull_request" if name == "pull_request_target" else name](writer)}}


_EVENTS: dict[str, Any] = {
    "ci": _ci,
    "release": _release,
    "deploy": _deploy,
    "nightly": _nightly,
    "call": _call,
    "comment": _comment,
}
