"""Complete keys, values and names at the cursor, from the rules and the document alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from nanochat_tct.editor.cursor import Cursor, find_cursor
from nanochat_tct.editor.descriptions import CONTEXTS, FUNCTIONS, KEYS, VALUES, longest_match
from nanochat_tct.editor.expressions import expression_at, names_after
from nanochat_tct.editor.language import Language
from nanochat_tct.tokenizer.facts import facts
from nanochat_tct.tokenizer.names import WorkflowNames, needs_of

_WORD = re.compile(r"[^\s,\[\]{}\"'#]*\Z")
_USES = re.compile(r"\buses:[ \t]*[\"']?([^\s\"'#]+)")


class Suggestion(NamedTuple):
    """A suggestion that replaces the word at the cursor.

    Attributes:
        kind: "key", "value", "context", "function" or "name".
        text: what is written; ``label`` is what is shown.
    """

    label: str
    kind: str
    text: str
    description: str | None = None


class Completions(NamedTuple):
    """Suggestions, the most useful one first. They replace the text from `start` to the cursor."""

    start: int
    suggestions: list[Suggestion]


def complete(language: Language, text: str, offset: int) -> Completions:
    r"""Suggest what to write at an offset of a text whose lines end in ``\n``."""
    cursor = find_cursor(text, offset)
    if cursor is None:
        return Completions(offset, [])
    begin = text.rfind("\n", 0, offset) + 1
    line = text[begin:offset]
    rest, _, following = text[offset:].partition("\n")
    elsewhere = f"{text[:begin]}\n{following}"
    expression = expression_at(cursor)
    if expression is not None:
        found = list(_in_expression(language, cursor, expression.before, expression.chain, elsewhere))
        return Completions(offset - len(expression.word), found)
    word = _WORD.search(cursor.before)
    assert word is not None
    if not line.endswith(word[0]) or "${{" in cursor.before:  # a text is being written, not a word
        return Completions(offset, [])
    if cursor.is_key:
        found = list(_keys(language, cursor, rest))
        if not cursor.siblings:  # which may become a value as well
            found += _in_place_of_keys(language, cursor, line[: len(line) - len(word[0])])
    else:
        found = list(_values(language, cursor, elsewhere))
    return Completions(offset - len(word[0]), found)


def _in_expression(
    language: Language, cursor: Cursor, before: str, chain: tuple[str, ...], text: str
) -> Iterator[Suggestion]:
    if chain:
        for name in names_after(chain, cursor.path, cursor.document, text):
            yield Suggestion(name, "name", name)
        return
    node, _ = language.find(cursor.path)
    if node is None:
        return
    contexts, functions = language.words(node, before)
    for name in contexts:
        yield Suggestion(name, "context", name, CONTEXTS.get(name))
    for name in functions:
        least, most = facts().functions[name]
        yield Suggestion(
            f"{name}()", "function", f"{name}{'(' if least or most else '()'}", FUNCTIONS.get(name)
        )


def _keys(language: Language, cursor: Cursor, rest: str) -> Iterator[Suggestion]:
    parent = cursor.path[:-1]
    node, pattern = language.find(parent)
    if node is None:
        return
    has_colon = rest.lstrip("\"' \t").startswith(":")
    for name, below, _ in language.keys(node, cursor.siblings):
        text = name if has_colon else f"{name}: " if language.takes_scalar(below) else f"{name}:"
        yield Suggestion(name, "key", text, longest_match(KEYS, (*pattern, name)))
    if pattern[-3:] == ("strategy", "matrix", "include") and isinstance(parent[1], str):
        known = WorkflowNames(cursor.document).job(parent[1]).matrix.names
        for name in known:
            if name not in cursor.siblings and name != cursor.path[-1]:
                yield Suggestion(name, "name", name if has_colon else f"{name}: ")


def _in_place_of_keys(language: Language, cursor: Cursor, before: str) -> Iterator[Suggestion]:
    """Suggest values where a mapping could also begin: a scalar, or the items of a list on lines of their own."""
    value = Cursor(cursor.path[:-1], False, cursor.before, cursor.after, (), cursor.document)
    node, _ = language.find(value.path)
    if node is not None and node.item is not None and not before.strip():
        item = Cursor((*value.path, 0), False, cursor.before, cursor.after, (), cursor.document)
        for each in _values(language, item):
            yield each._replace(label=f"- {each.label}", text=f"- {each.text}")
        below, pattern = language.find(item.path)
        for name, _, _ in language.keys(below, ()) if below and below.objects else ():
            description = longest_match(KEYS, (*pattern, name))
            yield Suggestion(f"- {name}", "key", f"- {name}: ", description)
    else:
        yield from _values(language, value)


def _values(language: Language, cursor: Cursor, text: str = "") -> Iterator[Suggestion]:
    """Suggest values that the rules list, names of the document, and usual values.

    Args:
        text: of the document beside the cursor's line.
    """
    node, pattern = language.find(cursor.path)
    if node is None:
        return
    if pattern[-1:] == ("needs",) and pattern[:1] == ("jobs",):
        jobs = WorkflowNames(cursor.document).jobs
        name = cursor.path[1]
        taken = {need for _, need in needs_of(jobs.get(str(name)))} - {cursor.before + cursor.after}
        for job in jobs:
            if job != name and job not in taken:
                yield Suggestion(job, "name", job)
        return
    parent = pattern if pattern[-1:] == ("on",) else pattern[:-1]
    for value in language.values(node):
        yield Suggestion(value, "value", value, longest_match(KEYS, (*parent, value)) if parent else None)
    usual = longest_match(VALUES, pattern) or ()
    if pattern[-1:] == ("uses",):
        usual = sorted(set(_USES.findall(text)))
    yield from (Suggestion(value, "value", value) for value in usual)
