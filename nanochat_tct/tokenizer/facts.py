"""The facts about GitHub's workflow language that its types and the messages about it share."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

FACTS = Path(__file__).with_name("github_facts.json")
MIN_INTERVAL = 5  # minutes between runs of a schedule


class Facts(NamedTuple):
    """The vocabulary of GitHub's expressions and schedules, spelled as GitHub's documentation spells it."""

    contexts: list[str]
    functions: dict[str, tuple[int, int | None]]  # least and most arguments
    keys: dict[str, list[str]]  # of contexts
    payloads: dict[str, list[str] | None]  # keys of `github.event`, by event; None: any
    cron: list[tuple[int, int, dict[str, int]]]  # lowest and highest value of each field, and names of values


@cache
def facts() -> Facts:
    content = json.loads(FACTS.read_text(encoding="utf-8"))
    offered = {word for definition in content["definitions"].values() for word in definition[2]}
    functions = {name: (least, most) for name, (least, most) in content["functions"].items()}
    for word in sorted(offered):
        if found := re.fullmatch(r"(\w+)\((\d+),(\d+|MAX)\)", word):
            functions[found[1]] = (int(found[2]), None if found[3] == "MAX" else int(found[3]))
    contexts = sorted(word for word in offered if "(" not in word)
    return Facts(contexts, functions, content["contexts"], content["payloads"], content["cron"])


@cache
def function_names() -> dict[str, str]:
    """The names of all functions by their names in lower case: GitHub ignores case."""
    return {name.lower(): name for name in facts().functions}
