"""What a user begins to write, as tokens to go on from: a file or a text, YAML or JSON, cut off anywhere."""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nanochat_tct.data.documents import DocumentError, read_workflow
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import Tokenizer

MAX_ATTEMPTS = 500  # each drops a line more (YAML) or a value more (JSON)


@dataclass(frozen=True)
class Prompt:
    """The beginning of a document."""

    tokens: list[int]  # content tokens, without a position token; the document is left open at their end
    dropped: str  # the end of the text, which they leave out; "" if nothing
    reason: str  # why; "" if nothing


def read_prompt(prompt: str) -> tuple[str, str]:
    """The text that `--prompt` means, and a name for it: of a file, of stdin ("-"), or the argument itself.

    Raises:
        UserError: it looks like the name of a file, and there is none, or it cannot be read.
    """
    if prompt == "-":
        return sys.stdin.read(), "stdin"
    if not prompt.strip() or any(mark in prompt for mark in ("\n", ":", "{")):
        return prompt, "the prompt"
    try:
        return Path(prompt).read_text(encoding="utf-8"), prompt
    except FileNotFoundError:
        raise UserError(
            f"no file {prompt}: --prompt takes a file, or the beginning of a workflow such as 'name: CI'"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{prompt} is not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"cannot read the prompt {prompt}: {error.strerror}") from None


def encode_prompt(text: str, tokenizer: Tokenizer, name: str = "the prompt") -> Prompt:
    """Tokens of the open document that a text begins.

    The text may be cut off in the middle of a line, a string or a list, and lack keys that a workflow must
    have: as little is dropped from its end as lets the rest be read and encoded. A last string or number
    stays open, to be gone on with, unless the text closes it by a quote or the end of the line.

    Raises:
        UserError: no part of the text is the beginning of a workflow.
    """
    if not text.strip():
        return Prompt([], "", "")
    first_error: UserError | None = None
    beginnings = _json_beginnings(text) if text.lstrip().startswith("{") else _yaml_beginnings(text)
    for kept, beginning, open_scalar in itertools.islice(beginnings, MAX_ATTEMPTS):
        try:
            tokens = tokenizer.encode_prefix(read_workflow(beginning), open_scalar)
        except UserError as error:
            if first_error is None and isinstance(error, DocumentError) and error.reason == "empty":
                return Prompt([], "", "")  # the whole text: comments and `---`, and nothing said yet
            first_error = first_error or error
            continue
        reason = str(first_error) if first_error else ""
        return Prompt(tokens, text[kept:].strip(), reason)
    raise UserError(f"{name} is not the beginning of a workflow: {first_error}")


def _yaml_beginnings(text: str) -> Iterator[tuple[int, str, bool]]:
    """The text, then with one line less each time: (characters kept, text to read, last scalar is open).

    The whole text is also tried with a quote or bracket closed, in case it ends inside one.
    """
    is_open = not text.endswith(("\n", '"', "'"))
    yield len(text), text, is_open
    for closing in ("]", "}", '"', "'", '"]', "']", '"}', "'}"):
        yield len(text), text + closing, is_open or closing[0] in "\"'"
    lines = text.splitlines(keepends=True)
    for count in range(len(lines) - 1, 0, -1):
        if lines[count - 1].strip():
            beginning = "".join(lines[:count])
            yield len(beginning), beginning, False


def _json_beginnings(text: str) -> Iterator[tuple[int, str, bool]]:
    """The text, what is open closed, then with a value less each time: as `_yaml_beginnings`."""
    closers: list[str] = []
    beginnings: list[tuple[int, str]] = []  # of the whole text that ends before a comma or after a bracket
    in_string = escaped = False
    escape = 0  # where the last escape in a string began
    for place, character in enumerate(text):
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
            escape = place if escaped else escape
        elif character == '"':
            in_string = True
        elif character in "{[":
            closers.append("}" if character == "{" else "]")
            beginnings.append((place + 1, "".join(reversed(closers))))
        elif character in "}]" and closers:
            closers.pop()
        elif character == ",":
            beginnings.append((place, "".join(reversed(closers))))
    is_cut = escaped or (text[escape : escape + 2] == "\\u" and len(text) - escape < 6)
    end = escape if in_string and is_cut else len(text)  # half an escape cannot stay
    is_open = in_string or text[-1:].isalnum()
    yield end, text[:end] + ('"' if in_string else "") + "".join(reversed(closers)), is_open
    if ":" in text:
        del beginnings[:1]  # a prompt that says something is not taken for one that says nothing
    for kept, closing in reversed(beginnings):
        yield kept, text[:kept] + closing, False
