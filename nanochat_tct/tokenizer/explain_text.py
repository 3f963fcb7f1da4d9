"""What is wrong with a text that GitHub refuses: an expression, a schedule, a reference, an identifier.

The engine decides how much of a text is right; this file finds the words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

from nanochat_tct.tokenizer.engine import END, Matcher
from nanochat_tct.tokenizer.explain_expression import (
    Expression,
    base_tokens,
    expressions_in,
    without_expression,
)
from nanochat_tct.tokenizer.facts import MIN_INTERVAL, facts
from nanochat_tct.tokenizer.wording import Path, listed

MAX_PROBLEMS = 10  # of one text
_ID = "has letters, digits, '-' and '_' only, begins with a letter or '_', and has at most 100 characters"
_CRON_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")

# Offset in the text, and message; "" where strict mode is only simpler than what GitHub takes.
Found = tuple[int, str]


@dataclass(frozen=True)
class TextChecker:
    """Finds the problems of the texts at one position of a document.

    Attributes:
        path: of the text in the document.
        start: makes a matcher at the beginning of the text.
        is_key: the text is a key, not a value.
        is_strict: GitHub's language service complains, not its parser.
    """

    path: Path
    start: Callable[[], Matcher]
    is_key: bool = False
    is_strict: bool = False

    @property
    def is_condition(self) -> bool:
        return not self.is_key and self.path[-1:] == ("if",)

    def problems(self, text: str) -> list[Found]:
        """The problems of a text that the engine refuses."""
        if self.is_condition and "${{" not in text:
            # In ${{ }} it can only be an expression, so the engine finds exactly where it goes wrong.
            found = self._problems(f"${{{{{text}}}}}")
            if found:
                return [(max(offset - len("${{"), 0), message) for offset, message in found]
        return self._problems(text)

    def _problems(self, text: str) -> list[Found]:
        """The same, one after another: what was wrong is replaced before the search continues."""
        problems: list[Found] = []
        repaired: str | None = text
        last = -1
        while repaired is not None and len(problems) < MAX_PROBLEMS:
            at = self._legal_length(repaired)
            if at is None or at <= last:
                break
            last = at
            offset, message, repaired = self._problem(repaired, at)
            problems.append((offset, message))
        return [(offset, message) for offset, message in problems if message]

    def _legal_length(self, text: str) -> int | None:
        """How many characters of a text are right; None: all, and it may end there."""
        matcher, base = self.start(), base_tokens(text)
        if matcher.allows(base + END):
            return None
        right, wrong = 0, len(base) + 1
        while wrong - right > 1:
            middle = (right + wrong) // 2
            if matcher.allows(base[:middle]):
                right = middle
            else:
                wrong = middle
        return len(base[:right].encode("latin-1").decode("utf-8", "ignore"))

    def _problem(self, text: str, at: int) -> tuple[int, str, str | None]:
        """The problem at an offset, and the text with a right value in its place; None where the search ends."""
        for begin, end in expressions_in(text, self.is_condition):
            opening = begin - len("${{")
            if at > end:
                continue
            if at < opening:
                break
            if begin and not self.start().allows(base_tokens(text[:opening] + "${{ 0")):
                if self.is_condition:
                    break
                message = "" if self.is_strict else "no expression is allowed here: write the text itself"
                return opening, message, None
            expression = Expression(text, begin, end, self.start, self.is_condition, self.is_strict)
            offset, message, span = expression.problem(max(at, begin))
            if span is not None:
                return offset, message, _replaced(text, *span, "(0)")
            is_open = begin == 0 or end == len(text)
            return offset, message, None if is_open else _replaced(text, begin, end, " 0")
        return (*self._plain_problem(text, at), None)

    def _plain_problem(self, text: str, at: int) -> Found:
        """The problem of a text outside its expressions."""
        path = self.path
        shape = "/".join("#" if isinstance(part, int) else part for part in path)
        if self.is_key and path[:-1] == ("jobs",):
            return 0, f"{text!r} cannot be the id of a job, which {_ID}"
        if self.is_key:
            return 0, f"a key may not be {text!r}"
        if shape.endswith("steps/#/id"):
            return 0, f"{text!r} cannot be the id of a step, which {_ID}"
        if shape.endswith("schedule/#/cron"):
            return _cron_problem(text)
        if path[-1:] == ("uses",):
            return _uses_problem(text, is_step="steps" in path)
        if path[-1:] == ("if",):
            if without_expression(text).isspace():
                return 0, ""  # it is a single expression after all
            return 0, "text around ${{ }} makes a condition that is always true: put all of it inside ${{ }}"
        if not text:
            return 0, "the text must not be empty"
        if "${{" in text:
            return at, "this must be a single ${{ }} with nothing around it, or a text without one"
        return at, f"{_short(text)} does not have the form that is required here"


def _replaced(text: str, begin: int, end: int, value: str) -> str | None:
    """A text of the same length with another value in a part of it; None if the part is too short."""
    return text[:begin] + value.ljust(end - begin) + text[end:] if end - begin >= len(value) else None


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def _cron_problem(text: str) -> Found:
    fields = [(found.start(), found[0]) for found in re.finditer(r"[^ ]+", text)]
    if len(fields) != 5:
        return 0, f"a schedule has 5 fields, {', '.join(_CRON_FIELDS)}: here are {len(fields)}"
    for (where, shown), what, (low, high, names) in zip(fields, _CRON_FIELDS, facts().cron, strict=True):
        if not all(_is_cron_item(item, low, high, names) for item in shown.split(",")):
            words = f" or {listed(names, 3)}" if names else ""
            form = f"{low} to {high}{words}, with , - * and /"
            return where, f"{shown!r} is not right for the {what}: {form}"
    where, shown = fields[0]
    minutes = [int(item) for item in shown.split(",") if item.isdecimal()]
    if 1 < len(minutes) == shown.count(",") + 1:
        gaps = [(after - before) % 60 for before, after in itertools.pairwise([*minutes, minutes[0]])]
        if min(gaps) >= MIN_INTERVAL:
            return where, ""
    return where, f"GitHub starts a schedule every {MIN_INTERVAL} minutes at most"


def _is_cron_item(item: str, low: int, high: int, names: dict[str, int]) -> bool:
    """Whether an item of a field is a value, a range or `*`, perhaps with a step."""
    span, slash, step = item.partition("/")
    bounds = [names.get(bound.lower(), int(bound) if bound.isdecimal() else -1) for bound in span.split("-")]
    is_range = len(bounds) <= 2 and all(low <= bound <= high for bound in bounds) and bounds == sorted(bounds)
    has_step = not slash or (step.isdecimal() and max(low, 1) <= int(step) <= high)
    return (span == "*" or is_range) and has_step


def _uses_problem(text: str, is_step: bool) -> Found:
    if not text.strip():
        return 0, "the name of what is used is missing"
    what = "an action, 'owner/repository@version', './folder' or 'docker://image'"
    if not is_step:
        what = "a workflow, './.github/workflows/file.yml' or 'owner/repository/.github/workflows/file.yml@version'"
    name, at, version = text.partition("@")
    is_action = re.fullmatch(r"[^/@]+/[^@]+@(?![0-9a-fA-F]{7,8}$)[^@]+", text)
    if is_step and is_action and "/.github/workflows" not in text:
        return 0, ""
    if "${{" in text:
        return 0, "no expression is allowed here: GitHub reads it before anything runs"
    if is_step and re.match(r"[^/]*/[^/]*/\.github/workflows", text):
        return 0, "a workflow is used by a job, not by a step: move 'uses' to the job"
    if at and re.fullmatch("[0-9a-fA-F]{7,8}", version):
        return len(name) + 1, "GitHub takes whole hashes only, of 40 digits"
    if not at and "/" in name and not name.startswith((".", "docker:")):
        return len(name), f"a version must follow, such as {name}@v1"
    return 0, f"{_short(text)} does not name {what}"
