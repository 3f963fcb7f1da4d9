"""Limits for documents, and the error that refuses a document."""

import re
from dataclasses import dataclass
from typing import Any

from nanochat_tct.errors import UserError


class DocumentError(UserError):
    """A document that cannot be used.

    Attributes:
        reason: a short code for counting, one of: too-large, not-utf8, yaml-syntax, json-syntax, empty,
            several-documents, not-a-mapping, duplicate-key, bad-key, bad-merge, bad-alias, unknown-tag,
            bad-number, too-deep, too-many-nodes, alias-expansion, not-yaml (to_yaml only).
        problem: the message without line and column.
        line, column: counted from 1.
    """

    def __init__(self, reason: str, problem: str, line: int = 0, column: int = 0) -> None:
        where = f"line {line}, column {column}: " if column else f"line {line}: " if line else ""
        super().__init__(where + problem)
        self.reason = reason
        self.problem = problem
        self.line, self.column = max(line, 1), max(column, 1)


@dataclass(frozen=True)
class Limits:
    """Limits for one document. The largest real workflows have about 200 kB, 15 levels and 10,000 nodes."""

    max_bytes: int = 1 << 20  # of the source file
    max_depth: int = 100  # nested mappings and lists
    max_nodes: int = 200_000  # values after anchors are resolved
    max_expanded_characters: int = 4 << 20  # of all strings and keys after anchors are resolved


DEFAULT_LIMITS = Limits()
MAX_NUMBER_CHARACTERS = 1000  # longer numbers are mistakes; Python refuses integers of more than 4300 digits
SURROGATE = re.compile("[\ud800-\udfff]")


def shortened(text: str) -> str:
    """The repr of a text, cut to 60 characters, for messages."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def kind_of(value: Any) -> str:
    """The type of a JSON value, for messages."""
    if value is None:
        return "null"
    names = {dict: "mapping", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names[type(value)]
