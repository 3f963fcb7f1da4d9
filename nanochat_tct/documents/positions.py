"""The lines and columns of the parts of a YAML document, for messages about its values."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nanochat_tct.documents.yaml_parser import Properties, YamlParser, double_quoted_units

_NO_BLANK = re.compile(r"[^ \t\n]")
_SINGLE_QUOTED_UNIT = re.compile(r"''|[^ \t\n]")


@dataclass(slots=True)
class Part:
    """A value: its position, its text if it is a scalar, the positions of its keys, and the values inside, in order."""

    position: int
    text: str | None = None
    keys: dict[str, int] = field(default_factory=dict)
    children: dict[str | int, Part] = field(default_factory=dict)


class Positions:
    """The lines and columns of the parts of one document.

    Attributes:
        text: the document as the parser has it; positions are indices of it.
        root: the document's value.

    Args:
        text: a text that `read_document` reads as YAML.
    """

    def __init__(self, text: str) -> None:
        recorder = _Recorder()
        parser = YamlParser(text.removeprefix("\ufeff"), recorder)
        parser.parse()
        self.text = parser.text
        self._line_ends = [found.start() for found in re.finditer("\n", parser.text)]
        assert recorder.root is not None
        self.root = recorder.root

    def locate(
        self, path: Sequence[str | int], of_key: bool = False, offset: int | None = None
    ) -> tuple[int, int]:
        """The line and column, counted from 1, of a value or of its key. The value of an alias is that at its anchor.

        Args:
            path: keys and indices, from the document inwards; where a part is missing, the value around it counts.
            offset: of a character in the value, or in the key, if it is a text.
        """
        part, position = self.root, self.root.position
        for index, step in enumerate(path):
            child = part.children.get(step)
            key = part.keys.get(step, -1) if isinstance(step, str) else -1
            if child is None:
                break
            is_last = index == len(path) - 1
            position = key if is_last and of_key and key >= 0 else self._start(child, key)
            if is_last and offset is not None:
                text = str(step) if of_key else child.text
                if text:
                    position = _inside(self.text, position, text, offset)
            part = child
        line = bisect.bisect_left(self._line_ends, position)
        return line, position - self._line_ends[line - 1]

    def _start(self, part: Part, key: int) -> int:
        """The position of a value; for an empty one that of its key or of the text before it."""
        position = part.position
        if part.text != "" or self.text.startswith(("'", '"', "|", ">"), position):
            return position
        if key >= 0:
            return key
        while position > 0 and self.text[position - 1] in " \t\n":
            position -= 1
        return position


class _Recorder:
    """Builds the tree of parts from the parser's events, for a document without errors."""

    def __init__(self) -> None:
        self.root: Part | None = None
        self.anchors: dict[str, Part] = {}
        self.open: list[tuple[Part, bool]] = []  # collections, and whether they are mappings
        self.keys: list[str | None] = []  # for each open mapping the key whose value comes next

    def start_document(self, position: int) -> None:
        pass

    def scalar(self, text: str, is_plain: bool, properties: Properties, position: int) -> None:
        self._add(Part(position, text), properties.anchor)

    def alias(self, name: str, position: int) -> None:
        self._add(self.anchors[name], None)

    def start(self, collection: dict[str, Any] | list[Any], properties: Properties, position: int) -> None:
        part = Part(position)
        self._add(part, properties.anchor)
        self.open.append((part, isinstance(collection, dict)))
        self.keys.append(None)

    def end(self) -> None:
        self.open.pop()
        self.keys.pop()

    def _add(self, part: Part, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = part
        if not self.open:
            self.root = part
            return
        parent, is_mapping = self.open[-1]
        if not is_mapping:
            parent.children[len(parent.children)] = part
        elif self.keys[-1] is None:
            assert part.text is not None
            self.keys[-1] = part.text
            parent.keys[part.text] = part.position
        else:
            parent.children[self.keys[-1]] = part
            self.keys[-1] = None


def _inside(source: str, position: int, text: str, offset: int) -> int:
    """The position of the character at an offset of a scalar, which begins at a position."""
    style = source[position]
    if style == '"':
        for at, length in double_quoted_units(source, position + 1):
            if offset < length or source[at] == '"':
                return at
            offset -= length
    start = position
    if style in "|>":
        start = source.index("\n", position)
    elif style == "'":
        start += 1
    # Reading changes line ends and indentation only, so count the other characters.
    units = (_SINGLE_QUOTED_UNIT if style == "'" else _NO_BLANK).finditer(source, start)
    before = len(_NO_BLANK.findall(text[:offset]))
    if offset < len(text) and _NO_BLANK.match(text[offset]):
        return next(itertools.islice(units, before, None)).start()
    last = next(itertools.islice(units, before - 1, None), None) if before else None
    return last.end() if last else start
