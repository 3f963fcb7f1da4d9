"""Find the key or value that the cursor is in, its path, and the document around it.

A file that somebody writes is hardly ever valid, so it is read with a mark at the cursor, in the ways in which the text
there can go on: the first one that the YAML parser takes is it. What follows the cursor is read too, as it defines
names. Where a line elsewhere is not valid, it is left out.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from nanochat_tct.documents import DocumentError, read_workflow
from nanochat_tct.generation.cut import CutText

Path = tuple[str | int, ...]
MAX_LINES_LEFT_OUT = 3
MAX_SECONDS = 0.5  # from which on no further way to read the document is tried
_LINE_START = re.compile(r"[ ]*(?:- +)*[\w-]*")


@dataclass(frozen=True)
class Cursor:
    """The key or value that the cursor is in.

    Attributes:
        path: of the value, or of the key that is written, whose own name is last; keys and numbers of items.
        is_key: a key, or what may become one: the value of the path's parent may also be of another kind.
        before, after: the text of the key or value on both sides of the cursor.
        siblings: the other keys of the mapping, if it is in a key.
        document: the whole document as far as it can be read, without a key that is not named yet.
    """

    path: Path
    is_key: bool
    before: str
    after: str
    siblings: tuple[str, ...]
    document: Any


def find_cursor(text: str, offset: int) -> Cursor | None:
    """Return the key or value at an offset of a YAML text; None for a comment or text that cannot be read."""
    mark = next(mark for i in range(len(text) + 1) if (mark := f"cursor{i}here") not in text)
    line = text.count("\n", 0, offset)
    deadline = time.thread_time() + MAX_SECONDS
    before = text[:offset]
    up_to_cursor = [f"{before}{mark}:"] * _begins_line(before) + _readings(before, mark)
    for candidates in (_in_the_whole(text, offset, mark), up_to_cursor):  # what follows may not fit
        for left_out in range(MAX_LINES_LEFT_OUT + 1):
            for candidate in candidates:
                if time.thread_time() > deadline:
                    return None
                value = _read(candidate, line, left_out)
                if value is not None:
                    return _located(value, mark)
    return None


def _in_the_whole(text: str, offset: int, mark: str) -> list[str]:
    """Yield the text with a mark at the cursor, in each way in which it can be understood."""
    before, after = text[:offset], text[offset:]
    found = [f"{before}{mark}{after}"]
    if _begins_line(before) and not after.partition("\n")[0].strip():
        found.insert(0, f"{before}{mark}:{after}")  # a key, and what is indented below it is its value
    following = after.partition("\n")[2]
    return found + [f"{reading}\n{following}" for reading in _readings(before, mark)]


def _begins_line(before: str) -> bool:
    return _LINE_START.fullmatch(before, before.rfind("\n") + 1) is not None


def _readings(before: str, mark: str) -> list[str]:
    """Return the text up to the cursor, with everything closed that is open there."""
    if re.search(r"(?:^|[ \t])#", before[before.rfind("\n") + 1 :]):
        return []  # a comment
    cut = CutText(before)
    return [reading.text.replace(cut.mark, mark) for each in cut.readings for reading in each if reading.cut]


def _read(text: str, line: int, left_out: int) -> Any:
    """Read a text, leaving out up to `left_out` lines if it must, but never the cursor's; None if it stays invalid."""
    lines = None
    while True:
        try:
            return read_workflow(text, "yaml", complaints=[])
        except DocumentError as error:
            wrong = error.line - 1
            lines = lines or text.split("\n")
            if not left_out or wrong == line or wrong >= len(lines) or not lines[wrong].strip():
                return None
            lines[wrong] = ""
            text, left_out = "\n".join(lines), left_out - 1


def _located(value: Any, mark: str) -> Cursor | None:
    found = _find(value, mark, ())
    if found is None:
        return None
    path, text, is_key, siblings = found
    before, _, after = text.partition(mark)
    if is_key:
        path = (*path[:-1], before + after)
    return Cursor(path, is_key, before, after, siblings, _without(value, mark))


def _find(value: Any, mark: str, path: Path) -> tuple[Path, str, bool, tuple[str, ...]] | None:
    """Return the first key or text with the mark: its path, itself, whether it is a key, and its sibling keys."""
    if isinstance(value, str) and mark in value:
        return path, value, False, ()
    if isinstance(value, dict):
        for key, child in value.items():
            if mark in key:
                return (*path, key), key, True, tuple(each for each in value if each != key)
            if found := _find(child, mark, (*path, key)):
                return found
    if isinstance(value, list):
        for index, child in enumerate(value):
            if found := _find(child, mark, (*path, index)):
                return found
    return None


def _without(value: Any, mark: str) -> Any:
    """Return a value without the mark, and without a key that is only the mark."""
    if isinstance(value, str):
        return value.replace(mark, "")
    if isinstance(value, list):
        return [_without(item, mark) for item in value]
    if isinstance(value, dict):
        return {key.replace(mark, ""): _without(child, mark) for key, child in value.items() if key != mark}
    return value
