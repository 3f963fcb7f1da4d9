"""What a user begins to write, as tokens to go on from: a file or a text, YAML or JSON, cut off anywhere."""

import codecs
import itertools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nanochat_tct.documents import DEFAULT_LIMITS, read_workflow
from nanochat_tct.errors import UserError
from nanochat_tct.generation.cut import CutText
from nanochat_tct.tokenizer import Tokenizer

NEAR = 20  # lines (YAML) or values (JSON) from the end that are dropped one by one
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass(frozen=True)
class Prompt:
    """The beginning of a document."""

    tokens: list[int]  # content tokens, without a position token; the document is left open at their end
    endings: tuple[
        str, ...
    ]  # base tokens, one string of which follows (``Tokenizer.encode_cut``); (): anything
    dropped: str  # the end of the text, which they leave out; "" if nothing
    reason: str  # why; "" if nothing. Without `dropped`: why the end of the last line does not count
    is_whole: bool = False  # a whole document, to which nothing can be added


def read_prompt(prompt: str) -> tuple[str | bytes, str]:
    """The text that `--prompt` means, and a name for it: of a file, of stdin ("-"), or the argument itself.

    Raises:
        UserError: it looks like the name of a file, and there is none, or it cannot be read.
    """
    if prompt == "-":
        return sys.stdin.buffer.read(), "stdin"
    path = Path(prompt)
    try:
        is_there = bool(prompt.strip()) and path.exists()
    except (OSError, ValueError):  # too long for a name, or a character that no name has
        is_there = False
    if is_there:
        try:
            return path.read_bytes(), prompt
        except OSError as error:
            raise UserError(f"cannot read the prompt {prompt}: {error.strerror}") from None
    # A name of a file has an ending, or folders; the beginning of a workflow with these has a colon or a brace too.
    has_marks = re.search(r"[\s:{\"]", prompt) is not None
    if re.fullmatch(r"[^\s\"]*\.(ya?ml|json)", prompt) or (not has_marks and re.search(r"[./\\~]", prompt)):
        raise UserError(
            f"no file {prompt}: --prompt takes a file, or the beginning of a workflow such as 'name: CI'"
        )
    if re.fullmatch(r"\w[\w-]*", prompt):
        return prompt, f"no file {prompt}, and the prompt"
    return prompt, "the prompt"


def encode_prompt(text: str | bytes, tokenizer: Tokenizer, name: str = "the prompt") -> Prompt:
    """Tokens of the open document that a text begins, and what may come next.

    The text may be cut off anywhere: in the middle of a character, a word, a string or a list. What it closes stays
    closed, what is open at its end goes on from there, and keys that a workflow must have may be missing. If its end
    is not valid, as little is dropped from there as lets the rest be read and encoded.

    Raises:
        UserError: no part of the text is the beginning of a workflow.
    """
    text = decode(text, name) if isinstance(text, bytes) else _without_half(text, name)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    size = len(text.encode("utf-8"))
    if size > DEFAULT_LIMITS.max_bytes:
        raise UserError(f"{name} has {size} bytes, more than the limit of {DEFAULT_LIMITS.max_bytes}")
    whole = CutText(text)
    if whole.says_nothing:
        return Prompt([], (), "", "")
    errors: list[UserError] = []

    def attempt(cut: CutText) -> Prompt | None:
        if cut.says_nothing:
            return None
        try:
            tokens, endings = _encode(cut, tokenizer)
        except UserError as error:
            errors.append(error)
            return None
        dropped = text[len(cut.text) :].strip()
        is_whole = all(reading.cut is None for readings in cut.readings for reading in readings)
        return Prompt(tokens, endings, dropped, str(errors[0]) if errors else "", is_whole)

    found = attempt(whole)
    if found is None and text.endswith(
        "\n"
    ):  # what is not valid in a whole line may be the beginning of something
        found = attempt(CutText(text.rstrip()))
    if found is None:
        found = _longest(text, _places(whole), attempt)
    if found is None:
        raise UserError(f"{name} is not the beginning of a workflow: {errors[0]}")
    return found


def _places(whole: CutText) -> list[int]:
    """Where a text can end instead: before each line (YAML), or where a value begins or ends (in brackets, as JSON)."""
    text = whole.text
    if text.lstrip().startswith("{"):
        # a prompt that says something is not taken for one that says nothing
        return whole.breaks[1:] if ":" in text else whole.breaks
    ends = itertools.accumulate(len(line) for line in text.splitlines(keepends=True))
    return [end for end in ends if text[:end].strip() and end < len(text)]


def _longest(text: str, places: list[int], attempt: Callable[[CutText], Prompt | None]) -> Prompt | None:
    """The longest beginning of a text, of those that end in these places, that can be gone on with."""
    for place in reversed(places[-NEAR:]):
        if found := attempt(CutText(text[:place])):
            return found
    # Farther away, what is wrong stays so whatever follows it: the longest one is found by halves.
    longest, low, high = None, 0, len(places) - NEAR
    while low < high:
        middle = (low + high) // 2
        cut = CutText(text[: places[middle]])
        if found := attempt(cut):
            longest = found
        if found or cut.says_nothing:
            low = middle + 1
        else:
            high = middle
    return longest


def decode(content: bytes, name: str) -> str:
    """The text of a file: UTF-8, or what a byte-order mark says; a last character that is cut off is left out.

    Raises:
        UserError: it is no such text.
    """
    mark = next((mark for mark in BYTE_ORDER_MARKS if content.startswith(mark)), b"")
    encoding = BYTE_ORDER_MARKS.get(mark, "utf-8")
    try:
        return codecs.getincrementaldecoder(encoding)().decode(content[len(mark) :])
    except UnicodeDecodeError as error:
        at = error.start + len(mark)
        raise UserError(
            f"{name} is not {encoding[:6].rstrip('-').upper()} text: byte {at} is not valid"
        ) from None


def _without_half(text: str, name: str) -> str:
    """A text without the half of a character at its end: of the command line, or of a surrogate pair."""
    if text and "\ud800" <= text[-1] < "\udc00":
        text = text[:-1]
    try:
        # Python hands over what is not UTF-8 on the command line in this form
        return decode(text.encode("utf-8", "surrogateescape"), name)
    except UnicodeEncodeError:
        raise UserError(f"{name} is not Unicode text: it has a lone surrogate") from None


def _encode(cut: CutText, tokenizer: Tokenizer) -> tuple[list[int], tuple[str, ...]]:
    first_error: UserError | None = None
    for readings in cut.readings:
        values = []
        for reading in readings:
            try:
                values.append(cut.value_of(reading, read_workflow(reading.text)))
            except UserError as error:
                first_error = first_error or error
        if values:
            try:
                return tokenizer.encode_cut(values)
            except UserError as error:
                first_error = first_error or error
    assert first_error is not None
    raise first_error
