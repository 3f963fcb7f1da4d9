"""What messages about workflows share: names that may be meant, and lists of names."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable

Path = tuple[str | int, ...]  # keys and indices, from the document inwards
MAX_COMPARED = 200  # names that are compared with a wrong one
MAX_LISTED = 12  # names that a message lists


def near(names: Iterable[str], name: str) -> list[str]:
    """The name most similar to `name`, in a list, or an empty list if none is similar."""
    by_folded = {each.lower(): each for each in itertools.islice(names, MAX_COMPARED)}
    for spelling in dict.fromkeys((name.lower().replace("_", "-"), name.lower())):
        if found := difflib.get_close_matches(spelling, by_folded, n=1, cutoff=0.7):
            return [by_folded[found[0]]]
    return []


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message that suggests a similar name, if there is one."""
    return suggestion(near(names, name))


def suggestion(meant: list[str]) -> str:
    """The end of a message that suggests what `near` found."""
    return "".join(f"; did you mean {each!r}?" for each in meant)


def listed(names: Iterable[str], most: int = MAX_LISTED) -> str:
    """The first names, separated by commas."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
