"""Write a JSON value as clean YAML that readers of YAML 1.1 and 1.2 read back as an equal value."""

import math
import re
from collections.abc import Iterator
from typing import Any

from nanochat_tct.documents.limits import DEFAULT_LIMITS, SURROGATE, DocumentError, shortened
from nanochat_tct.documents.yaml_parser import ESCAPED

# Plain scalars that a reader of YAML 1.1 or 1.2 does not read as a string.
_NOT_A_STRING = re.compile(
    r"""
    |~|null|Null|NULL|true|True|TRUE|false|False|FALSE
    |y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF
    |[-+]?[0-9][0-9_]*                                                 # integers; 1.1 has 0777 and 1_000
    |[-+]?0[bB][01_]+|[-+]?0[oO][0-7_]+|[-+]?0[xX][0-9a-fA-F_]+
    |[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?  # floats
    |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?                   # base 60
    |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)
    |[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt \t].*)?                     # dates
    |=|<<
    """,
    re.VERBOSE | re.ASCII,
)
# Texts that need quotes: they begin like something else, or have `: ` or ` #` or a final colon.
_NOT_PLAIN = re.compile(r"[,\[\]{}#&*!|>'\"%@`]|[-?:](?:[ \t]|$)|---|\.\.\.|.*(?::(?:[ \t]|$)|[ \t]#)")
# Characters that need an escape: not printable in YAML, a line break for some reader, or a byte-order mark.
_NEEDS_ESCAPE = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_LONGEST_SIMPLE_KEY = 1000  # YAML allows 1024 characters on one line before the colon
# Without the escapes of blanks, slashes and no-break spaces, which need none.
_ESCAPES = {character: f"\\{letter}" for letter, character in ESCAPED.items() if letter in '0abtnvfre"\\NLP'}


def to_yaml(value: Any) -> str:
    """Write clean YAML, which readers of YAML 1.2 and 1.1 (except for the key `on`) read back as an equal value.

    Lists and mappings are in block style, strings of several lines are block scalars where YAML allows it. There are no
    needless quotes, lines are never wrapped, keys keep their order, and the top-level key `on` has no quotes.

    Raises:
        DocumentError: YAML cannot hold the value (lone surrogates, numbers that are not finite, too deep).
    """
    lines = list(_value_lines(value, indent=0, depth=0, top=True))
    first = lines[0].removeprefix(" ")
    if first:
        lines[0] = first
    else:
        del lines[0]
    return "\n".join(lines) + "\n"


def _value_lines(value: Any, indent: int, depth: int, top: bool = False) -> Iterator[str]:
    """Yield the lines of a value. The first one, empty or " text", continues the line of its key or dash."""
    if depth > DEFAULT_LIMITS.max_depth:
        raise DocumentError("too-deep", f"nested deeper than {DEFAULT_LIMITS.max_depth} levels")
    pad = " " * indent
    if isinstance(value, dict) and value:
        yield ""
        for key, item in value.items():
            text = "on" if top and key == "on" else _quoted_if_needed(key)
            inner = iter([""]) if item is None else _value_lines(item, indent + 2, depth + 1)
            if len(text) > _LONGEST_SIMPLE_KEY:
                yield f"{pad}? {text}"
                text = ""
            yield f"{pad}{text}:{next(inner)}"
            yield from inner
    elif isinstance(value, list) and value:
        yield ""
        for item in value:
            inner = _value_lines(item, indent + 2, depth + 1)
            first = next(inner)
            if first == "":  # a collection: its first line moves up behind the dash
                first = " " + next(inner)[indent + 2 :]
            yield f"{pad}-{first}"
            yield from inner
    elif isinstance(value, str) and _fits_block_scalar(value):
        content = value.rstrip("\n")
        newlines = len(value) - len(content)
        # Without an indicator the first line that is not empty sets the indentation, so it must not begin with a blank.
        indicator = "2" if content.lstrip("\n")[0] in " \t" else ""
        yield f" |{indicator}{'-' if newlines == 0 else '+' if newlines > 1 else ''}"
        block_pad = " " * max(indent, 2)
        for line in content.split("\n"):
            yield block_pad + line if line else ""
        for _ in range(newlines - 1):
            yield ""
    else:
        yield " " + _scalar_text(value)


def _fits_block_scalar(text: str) -> bool:
    return "\n" in text and text.strip("\n\t ") != "" and not _NEEDS_ESCAPE.search(text)


def _scalar_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DocumentError("bad-number", f"{value} is not a number that JSON knows")
        text = repr(value)
        mantissa, exponent, power = text.partition("e")
        # Readers of YAML 1.1 want a point before the exponent.
        return text if not exponent or "." in mantissa else f"{mantissa}.0e{power}"
    if isinstance(value, str):
        return _quoted_if_needed(value)
    return "{}" if isinstance(value, dict) else "[]"


def _quoted_if_needed(text: str) -> str:
    if _NEEDS_ESCAPE.search(text) or "\n" in text:
        return _double_quoted(text)
    if (
        "\t" not in text
        and text.strip(" ") == text
        and not _NOT_A_STRING.fullmatch(text)
        and not _NOT_PLAIN.match(text)
    ):
        return text
    if "'" not in text:
        return f"'{text}'"
    return _double_quoted(text)


def _double_quoted(text: str) -> str:
    if SURROGATE.search(text):
        raise DocumentError("not-yaml", f"{shortened(text)} holds a lone surrogate, which YAML cannot write")
    return '"' + "".join(_ESCAPES.get(c) or (_escape(c) if _NEEDS_ESCAPE.match(c) else c) for c in text) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
