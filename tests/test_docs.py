"""Commands and links in README.md and docs/ exist."""

import re
from pathlib import Path

import pytest

from nanochat_tct.cli import COMMANDS, main
from tests.support.commands import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:nanochat-tct|python jobs/)\s*([a-z_-]+)(?:\.py)?((?:[^`\n\\]|\\\n)*)")


def commands_of(text: str) -> set[tuple[str, str]]:
    """(command, flag) of each flag of each command line in the text; ("train", "") for one without flags."""
    found = set()
    text = re.sub(r"^\$ .*\nerror: .*$", "", text, flags=re.MULTILINE)  # mistakes that are shown as such
    for match in COMMAND.finditer(text):
        name = match[1].replace("_", "-")
        flags = re.findall(r"(--[a-z][a-z0-9-]*)", re.split(r"[|;#]", match[2])[0])
        found |= {(name, flag) for flag in flags} or {(name, "")}
    return found


def flags_of(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out)) | {""}


def test_commands_and_flags_exist(capsys: pytest.CaptureFixture[str]) -> None:
    told = {page.name: commands_of(page.read_text()) for page in PAGES}
    told |= {path.name: commands_of(path.read_text()) for path in (REPOSITORY / "configs").glob("*.yaml")}
    known = {command: flags_of(command, capsys) for command in COMMANDS}
    unknown = [
        f"{page}: {command} {flag}"
        for page, uses in told.items()
        for command, flag in sorted(uses)
        if flag not in known.get(command, set())
    ]
    assert unknown == []


def titles_of(page: Path) -> set[str]:
    """The titles of a page, as links name them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_file_or_title(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", page.read_text())
    targets = [(page.parent / path if path else page, title) for path, title in links if "://" not in path]
    missing = [
        f"{path}#{title}"
        for path, title in targets
        if not path.exists() or (title and title not in titles_of(path))
    ]
    assert missing == []


def test_how_long_workers_wait_for_each_other() -> None:
    """Ray Train's limit, which the page on clusters tells."""
    from nanochat_tct.training.ray_worker import StoppableTorchConfig

    minutes = StoppableTorchConfig().timeout_s // 60
    page = (REPOSITORY / "docs/clusters.md").read_text()
    assert f"the others waited {minutes} minutes (Ray Train's limit" in page
