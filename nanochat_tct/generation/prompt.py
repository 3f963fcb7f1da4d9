"""Prompts: the beginning of a workflow, YAML or JSON, cut off anywhere, as tokens to continue."""

import codecs
import itertools
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nanochat_tct.documents import DEFAULT_LIMITS, DocumentError, read_workflow, to_json
from nanochat_tct.errors import UserError
from nanochat_tct.generation.cut import CutText, Reading
from nanochat_tct.generation.insertion import Insertion, Unwritable
from nanochat_tct.tokenizer import Tokenizer

NEAR = 20  # lines (YAML) or values (JSON) at the end that are dropped one by one


@dataclass(frozen=True)
class Prompt:
    """The beginning of a document.

    Attributes:
        tokens: content tokens, without a position token; the document is open after the last one.
        endings: strings of base tokens, one of which must follow (``Tokenizer.encode_cut``); (): anything may.
        dropped: the end of the text that the tokens leave out; "" if nothing.
        reason: why it is left out; without `dropped`, why the end of the last line does not count.
        is_whole: the document is complete, and nothing can be added.
        readings: the ways to read the end of the text that are possible, with the values of their texts.
        text: what was given, to the letter, without what is dropped.
    """

    tokens: list[int] = field(default_factory=list)
    endings: tuple[str, ...] = ()
    dropped: str = ""
    reason: str = ""
    is_whole: bool = False
    readings: tuple[tuple[Reading, Any], ...] = field(default=(), compare=False)
    text: str = field(default="", compare=False)

    @cached_property
    def insertions(self) -> list[Insertion]:
        """The positions at the end of the text, by each way to read it; none where nothing can be inserted."""
        found = []
        for reading, value in self.readings or ((None, None),):
            try:
                found.append(Insertion(_with_newlines(self.text), reading, value))
            except Unwritable:
                continue
        return found

    def rest(self, json_text: str) -> str | None:
        """What follows the text for a document, or None if it cannot follow to the letter.

        Args:
            json_text: compact JSON of a document that begins with the prompt, which may be cut off.

        Returns:
            Of a whole document: with the text, it reads back as just that document, and ends with a line break. Of one
            that is cut off: its complete lines, without line breaks at their end.
        """
        if self.is_whole:
            return "" if self.text.endswith("\n") else "\n"
        newline = "\r\n" if "\r\n" in self.text else "\n"
        for insertion in self.insertions:
            try:
                written = insertion.write(json_text, max_lines=None)
                if written is None:
                    return ""
                if not written.is_complete:
                    return written.text.rpartition("\n")[0].rstrip("\n").replace("\n", newline)
                value = read_workflow(_with_newlines(self.text) + written.text)
            except (Unwritable, DocumentError):
                continue
            if to_json(value) == to_json(json.loads(json_text)):
                return written.text.replace("\n", newline)
        return None


def read_prompt(prompt: str) -> tuple[str | bytes, str]:
    """Return the text of `--prompt` and a name for it: a file's, stdin's ("-"), or the argument itself.

    Raises:
        UserError: the argument looks like the name of a file that does not exist, or cannot be read.
    """
    if prompt == "-":
        return sys.stdin.buffer.read(), "stdin"
    path = Path(prompt)
    try:
        exists = bool(prompt.strip()) and path.exists()
    except (OSError, ValueError):  # too long for a file name, or a character that no file name has
        exists = False
    if exists:
        try:
            return path.read_bytes(), prompt
        except OSError as error:
            raise UserError(f"cannot read the prompt {prompt}: {error.strerror}") from None
    # A file name has a suffix or folders; the beginning of a workflow with these also has a colon or a brace.
    has_marks = re.search(r"[\s:{\"]", prompt) is not None
    if re.fullmatch(r"[^\s\"]*\.(ya?ml|json)", prompt) or (not has_marks and re.search(r"[./\\~]", prompt)):
        raise UserError(
            f"no file {prompt}: --prompt takes a file, or the beginning of a workflow such as 'name: CI'"
        )
    if re.fullmatch(r"\w[\w-]*", prompt):
        return prompt, f"no file {prompt}, and the prompt"
    return prompt, "the prompt"


def encode_prompt(
    text: str | bytes, tokenizer: Tokenizer, name: str = "the prompt", may_drop: bool = True
) -> Prompt:
    """Return the tokens of the unfinished document that a text begins, and what may follow them.

    The text may be cut off anywhere: in the middle of a character, a word, a string or a list. What it closes stays
    closed, what is open at its end continues there, and required keys may be missing.

    Args:
        may_drop: if the end of the text is not valid, as little as possible is dropped from it.

    Raises:
        UserError: the text is not the beginning of a workflow; with `may_drop`, no part of it is.
    """
    text = decode(text, name) if isinstance(text, bytes) else _without_half(text, name)
    original = text.removeprefix("\ufeff")
    text = _with_newlines(original)
    size = len(text.encode("utf-8"))
    if size > DEFAULT_LIMITS.max_bytes:
        raise UserError(f"{name} has {size} bytes, more than the limit of {DEFAULT_LIMITS.max_bytes}")
    whole = CutText(text)
    if whole.says_nothing:
        return Prompt(text=original)
    errors: list[UserError] = []

    def attempt(cut: CutText) -> Prompt | None:
        if cut.says_nothing:
            return None
        try:
            tokens, endings, readings = _encode(cut, tokenizer)
        except UserError as error:
            errors.append(error)
            return None
        dropped = text[len(cut.text) :].strip()
        is_whole = all(reading.cut is None for group in cut.readings for reading in group)
        reason = str(errors[0]) if errors else ""
        return Prompt(tokens, endings, dropped, reason, is_whole, readings, _as_written(original, cut.text))

    found = attempt(whole)
    if found is None and may_drop:
        if text.endswith("\n"):  # an invalid last line may be the beginning of a valid one
            found = attempt(CutText(text.rstrip()))
        found = found or _longest(text, _ends(whole), attempt)
    if found is None:
        raise UserError(f"{name} is not the beginning of a workflow: {errors[0]}")
    return found


def _with_newlines(text: str) -> str:
    """A text whose lines all end with "\\n"."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _as_written(original: str, beginning: str) -> str:
    """What of a text makes up a beginning of it `_with_newlines`."""
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n|\Z)", original)
    *whole, last = beginning.split("\n")
    return "".join(lines[: len(whole)]) + last


def _ends(whole: CutText) -> list[int]:
    """Return earlier offsets at which the text could end: before each line (YAML), or around each value (JSON)."""
    text = whole.text
    if text.lstrip().startswith("{"):
        # keep at least the first value, so that a prompt with content is not reduced to an empty one
        return whole.breaks[1:] if ":" in text else whole.breaks
    ends = itertools.accumulate(len(line) for line in text.splitlines(keepends=True))
    return [end for end in ends if text[:end].strip() and end < len(text)]


def _longest(text: str, ends: list[int], attempt: Callable[[CutText], Prompt | None]) -> Prompt | None:
    """Return the longest prompt that a text cut at one of these offsets gives."""
    for end in reversed(ends[-NEAR:]):
        if found := attempt(CutText(text[:end])):
            return found
    # Further back, an error stays an error whatever follows it, so bisection finds the longest prompt.
    longest, low, high = None, 0, len(ends) - NEAR
    while low < high:
        middle = (low + high) // 2
        cut = CutText(text[: ends[middle]])
        if found := attempt(cut):
            longest = found
        if found or cut.says_nothing:
            low = middle + 1
        else:
            high = middle
    return longest


def decode(content: bytes, name: str) -> str:
    """Decode a file in the encoding that its beginning tells, as `documents.decoded` does, without half a character at
    its end.

    Raises:
        UserError: the content is not text in that encoding.
    """
    encoding = json.detect_encoding(content)
    try:
        return codecs.getincrementaldecoder(encoding)().decode(content)
    except UnicodeDecodeError as error:
        at = len(content) - len(error.object) + error.start
        raise UserError(
            f"{name} is not {encoding[:6].rstrip('-').upper()} text: byte {at} is not valid"
        ) from None


def _without_half(text: str, name: str) -> str:
    """Return the text without half a character at its end (of the command line, or of a surrogate pair)."""
    if text and "\ud800" <= text[-1] < "\udc00":
        text = text[:-1]
    try:
        # Python represents bytes of the command line that are not UTF-8 in this form
        return decode(text.encode("utf-8", "surrogateescape"), name)
    except UnicodeEncodeError:
        raise UserError(f"{name} is not Unicode text: it has a lone surrogate") from None


def _encode(
    cut: CutText, tokenizer: Tokenizer
) -> tuple[list[int], tuple[str, ...], tuple[tuple[Reading, Any], ...]]:
    first_error: UserError | None = None
    for readings in cut.readings:
        found = []
        for reading in readings:
            try:
                found.append((reading, cut.value_of(reading, read_workflow(reading.text))))
            except UserError as error:
                first_error = first_error or error
        if found:
            try:
                tokens, endings = tokenizer.encode_cut([value for _, value in found])
                return tokens, endings, tuple(found)
            except UserError as error:
                first_error = first_error or error
    assert first_error is not None
    raise first_error
