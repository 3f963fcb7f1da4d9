"""What messages about workflows share: GitHub's own words, names that may be meant, and lists of names."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from nanochat_tct.tokenizer.github import FACTS

Path = tuple[str | int, ...]  # keys and indices, from the document inwards
MAX_COMPARED = 200  # names that are compared with a wrong one
MAX_LISTED = 12  # names that a message lists


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


def near(names: Iterable[str], name: str) -> list[str]:
    """The name most similar to `name`, in a list, or an empty list if none is similar."""
    by_folded = {each.lower(): each for each in itertools.islice(names, MAX_COMPARED)}
    found = difflib.get_close_matches(name.lower().replace("_", "-"), by_folded, n=1, cutoff=0.7)
    found = found or difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=0.7)
    return [by_folded[each] for each in found]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message that suggests a similar name, if there is one."""
    return "".join(f"; did you mean {meant!r}?" for meant in near(names, name))


def listed(names: Iterable[str], most: int = MAX_LISTED) -> str:
    """The first names, separated by commas."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
