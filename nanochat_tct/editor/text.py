"""Convert between offsets of a text and the positions that an editor counts."""

from __future__ import annotations

import re

from lsprotocol.types import Position, Range
from pygls.workspace import PositionCodec


class EditorText:
    r"""A document's text with ``\n`` as the only line end.

    Args:
        source: the text as the editor has sent it. Only ``\n``, ``\r\n`` and ``\r`` end a line, as in YAML; Python's
            ``splitlines`` would break more of them.
        codec: of the units in which the editor counts columns, UTF-16 as a rule.
    """

    def __init__(self, source: str, codec: PositionCodec) -> None:
        self.text = re.sub("\r\n?", "\n", source)
        self.lines = self.text.split("\n")
        self._units = codec.client_num_units

    def offset(self, position: Position) -> int:
        """Return the offset of a position; one beyond the end of its line or of the text is moved to that end."""
        number = min(position.line, len(self.lines) - 1)
        line = self.lines[number]
        column = min(position.character, len(line))  # a character is one unit or more
        if not line.isascii():
            column = units = 0
            while column < len(line) and units + (more := self._units(line[column])) <= position.character:
                column, units = column + 1, units + more
        return sum(len(each) + 1 for each in self.lines[:number]) + column

    def position(self, line: int, column: int) -> Position:
        """Return the editor's position of a line and a column in characters, both from 0."""
        line = min(line, len(self.lines) - 1)
        before = self.lines[line][:column]
        return Position(line, len(before) if before.isascii() else self._units(before))

    def position_at(self, offset: int) -> Position:
        before = self.text[:offset]
        return self.position(before.count("\n"), offset - before.rfind("\n") - 1)

    def range(self, line: int, begin: int, end: int) -> Range:
        """Return the editor's range of a part of one line."""
        return Range(self.position(line, begin), self.position(line, end))

    def rest_of_line(self, offset: int) -> str:
        return self.text[offset:].partition("\n")[0]
