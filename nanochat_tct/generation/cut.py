"""Readings of a YAML or JSON text that is cut off anywhere.

A text that ends inside a string or a list cannot be parsed. So a mark is written at its end and everything open is
closed after it; the parsed value then holds the mark where the document continues. This module finds out how to write
the mark. It only tracks where quotes, brackets, block scalars and comments begin and end, and leaves everything else
to the parser. Where the end of the text is ambiguous, there are several readings.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer.prefix import Cut

_PROPERTY = re.compile(r"[^\s]*")
_FLOW_PROPERTY = re.compile(r"[^\s,\[\]{}]*")
_PLAIN_END = re.compile(r"\n|[ \t]#|:(?=[ \t\n])")
_KEY_END = re.compile(r"\n|[ \t]#|:(?=[ \t\n]|\Z)")
_FLOW_PLAIN_END = re.compile(r"[,\[\]{}]|\s#|:(?=[\s,\[\]{}])")
_FLOW_KEY_END = re.compile(r"[,\[\]{}]|\s#|:(?=[\s,\[\]{}]|\Z)")
_QUOTED = re.compile(r"\"(?:[^\"\\]++|\\.)*+\"|'(?:[^']++|'')*+'", re.DOTALL)
_WHOLE_ESCAPES = re.compile(
    r"(?:[^\\]++|\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[^xuU]))*+", re.DOTALL
)
_HALF_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]?|u[0-9a-fA-F]{0,3}|U[0-9a-fA-F]{0,7})?\Z")
_HALF_PAIR = re.compile(r"(?<!\\)(?:\\\\)*+(\\u[dD][89abAB][0-9a-fA-F]{2})\Z")  # behind whole escapes
JSON_LITERALS = "-0123456789tfn"  # their first characters
JSON_LITERAL = re.compile(r"true|false|null|-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*")
_HEADER_END = re.compile(r"[ \t]*\Z|[ \t]+#")


@dataclass(frozen=True)
class Reading:
    """One way to read the end of a text.

    Attributes:
        text: a whole document that contains the mark.
        cut: what the mark stands for; of a "text", its beginning is what the value holds before the mark. None: the
            document is whole and has no mark.
    """

    text: str
    cut: Cut | None


class _TextEnds(Exception):
    """The end of the text is reached, and `readings` says how it can be read."""

    def __init__(self, *readings: list[Reading]) -> None:
        self.readings = list(readings)


class CutText:
    """A text and the readings of its end.

    Attributes:
        says_nothing: the text holds only comments, blank lines and document markers.
        readings: readings in order of preference; a later list counts only if no reading of an earlier one parses.
        breaks: if the document is in brackets, the offsets after which its outermost content can be dropped.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.mark = next(mark for i in range(len(text) + 1) if (mark := f"cut{i}here") not in text)
        self.breaks: list[int] = []
        self._column = -1  # of the innermost collection in block style, on the last line that has one
        self._is_list = False
        self._pending = False  # an indicator in block style waits for its node
        self._has_node = False
        self._is_json = True  # until something in the outermost brackets says otherwise
        self._line = 0  # offset of the current line
        try:
            while True:
                self._line = self._read_line(self._line)
        except _TextEnds as end:
            self.readings = [readings for readings in end.readings if readings]
        self.says_nothing = not self.readings

    def value_of(self, reading: Reading, value: Any) -> Any:
        """Return the parsed value of a reading's text, with its ``Cut`` in place of the mark.

        Raises:
            UserError: the value does not hold the mark, so the end of the text means something else.
        """
        if reading.cut is None:
            return value
        found = _replaced(value, self.mark, reading.cut)
        if found is None:
            raise UserError("the end of the text cannot be read")
        return found

    # ---- block style: each function returns where to read on, or raises _TextEnds ----

    def _read_line(self, start: int) -> int:
        """Read from the start of a line to the start of a later line."""
        text = self.text
        at = _skip(text, start, " \t")
        rest_of_line = text[at : _end_of_line(text, at)]
        begins_line = at == start
        may_start = begins_line and not self._has_node
        is_marker = begins_line and re.match(r"(---|\.\.\.)(\s|\Z)", text[at : at + 4])
        is_half_marker = may_start and rest_of_line in ("-", "--") and at + len(rest_of_line) == len(text)
        is_directive = may_start and rest_of_line.startswith("%")
        if not rest_of_line or rest_of_line.startswith("#") or is_half_marker or is_directive:
            end = _end_of_line(text, at)
            if end == len(text):
                self._end_at_line_start(start)
            return end + 1
        return self._read_nodes(at + 3 if is_marker else at)

    def _read_nodes(self, at: int) -> int:
        """Read the nodes of a line, and of further lines where one of them goes on."""
        text, size = self.text, len(self.text)
        after_key = False  # on the same line as a key, where no mapping can begin
        node = -1  # offset of the node, including its properties
        while True:
            at = _skip(text, at, " \t")
            node = at if node < 0 else node
            if at == size:
                raise _TextEnds([self._value(text)] if self._pending else self._complete(text))
            character = text[at]
            if character == "\n":
                return at + 1
            if character == "#" and text[at - 1 : at] in ("", " ", "\t", "\n"):
                end = _end_of_line(text, at)
                if end < size:
                    return end + 1
                if self._pending:
                    self._end_at_line_start(at)
                raise _TextEnds(self._complete(text[:at]))
            if character in "-?:" and not after_key and text[at + 1 : at + 2] in ("", " ", "\t", "\n"):
                self._column, self._is_list, self._pending = at - self._line, character == "-", True
                at, node = at + 1, -1
                continue
            if character == ":" and after_key and text[at + 1 : at + 2] in (" ", "\t", "\n"):
                raise _TextEnds([Reading(text, None)])  # a second key on a line: the parser reports it
            self._has_node = True
            if character in "&!":
                end = _end(_PROPERTY, text, at)
                if end == size:
                    raise _TextEnds([self._value(text[:at])])
                at = end
                continue
            if character in "|>":
                end = self._read_block(at)
                self._pending = False
                return end
            at = _skip(text, self._read_node(at, may_be_key=not after_key), " \t")
            self._pending = False
            if not after_key and text[at : at + 1] == ":" and text[at + 1 : at + 2] in ("", " ", "\t", "\n"):
                self._column, self._is_list, self._pending = node - self._line, False, True
                at, after_key = at + 1, True
            node = -1

    def _read_node(self, start: int, may_be_key: bool) -> int:
        """Read a node that is not a block scalar, without its properties."""
        text, size = self.text, len(self.text)
        character = text[start]
        if character in "[{":
            return self._read_flow(start)
        if character == "*":
            end = _end(_PROPERTY, text, start)
            if end == size:
                self._pending = False
                raise _TextEnds(self._complete(text), [self._value(text[:start])])
            return end
        if character in "\"'":
            quoted = _QUOTED.match(text, start)
            if quoted is None:
                raise _TextEnds(self._quoted(start, "", may_be_key))
            if quoted.end() == size:
                self._pending = False
                is_key = [Reading(f'{text}: "{self.mark}"', Cut("value"))] if may_be_key else []
                raise _TextEnds([*self._complete(text), *is_key])
            return quoted.end()
        return self._read_plain(start, may_be_key)

    def _end_at_line_start(self, start: int) -> NoReturn:
        """The text ends between two lines; the content of the last one does not count."""
        before = self.text[:start]
        if before and not before.endswith("\n"):
            before += "\n"
        if self._pending and self._column >= 0:
            raise _TextEnds([self._value(before + " " * (self._column + 1))])
        raise _TextEnds(self._complete(before.removesuffix("\n")))

    def _complete(self, text: str) -> list[Reading]:
        """The text ends after a node in block style."""
        if self._column < 0:  # whole, in brackets; or nothing that the parser accepts
            return [Reading(text, None)] if self._has_node else []
        item = f'- "{self.mark}"' if self._is_list else f'"{self.mark}": null'
        return [Reading(f"{text}\n{' ' * self._column}{item}", Cut("collection"))]

    def _value(self, text: str, closers: str = "") -> Reading:
        """The text ends before a value."""
        return Reading(f'{text} "{self.mark}"{closers}', Cut("value"))

    def _read_plain(self, start: int, may_be_key: bool) -> int:
        text, size = self.text, len(self.text)
        at = start + 1  # a colon here does not end the scalar
        while found := (_KEY_END if may_be_key else _PLAIN_END).search(text, at):
            if found[0] == ":" and found.end() == size:  # a key, or the text continues
                more = Reading(f'{text[:start]}"{self.mark}"', Cut("plain", _folded(text[start:])))
                raise _TextEnds([self._value(text), more])
            if found[0] != "\n":
                return found.start()
            after = _skip(text, found.end(), " \t\n")
            line = text.rfind("\n", 0, after) + 1
            if after == size or text[after] == "#" or after - line <= self._column:
                return found.start()
            at = after
        written = text[start:]
        content = _folded(written.rstrip(" \t"))
        blanks = written[len(written.rstrip(" \t")) :]
        before = text[:start]
        readings = []
        if self._column >= 0:
            cut = Cut("plain", content + blanks, bool(blanks))
            readings += [Reading(f'{before}"{self.mark}"', cut), *self._complete(text)]
        if may_be_key and "\n" not in written:
            readings.append(Reading(f'{before}"{self.mark}": null', Cut("key", content)))
        raise _TextEnds(readings or [Reading(text, None)])  # the parser reports what is wrong with it

    def _quoted(self, start: int, closers: str, may_be_key: bool) -> list[Reading]:
        """The text ends in a quoted scalar."""
        text, quote = self.text, self.text[start]
        if quote == '"':
            whole = _end(_WHOLE_ESCAPES, text, start + 1)
            if _HALF_ESCAPE.match(text, whole):
                text = text[:whole]
            if pair := _HALF_PAIR.search(text, start):
                text = text[: pair.start(1)]
        last_line = text[text.rfind("\n") + 1 :]
        if "\n" in text[start:] and not last_line.strip(" \t"):
            text = text[: len(text) - len(last_line)] + " " * (self._column + 2)
        marked = f"{text}{self.mark}{quote}"
        is_key = [Reading(f"{marked}: null{closers}", Cut("key"))] if may_be_key else []
        return [Reading(marked + closers, Cut("text")), *is_key]

    def _read_block(self, start: int) -> int:
        """A block scalar."""
        text, size = self.text, len(self.text)
        header = _BLOCK_HEADER.match(text, start)
        assert header is not None
        parent = self._column
        digit = re.search(r"[1-9]", header[0])
        indent = max(parent, 0) + int(digit[0]) if digit else None
        line = _end_of_line(text, header.end()) + 1
        if line > size:
            if not _HEADER_END.match(text, header.end()):
                raise _TextEnds([Reading(text, None)])  # text behind a header: the parser reports it
            pad = " " * (indent if indent is not None else parent + 2)
            raise _TextEnds([self._more_text(f"{text[: header.end()]}\n{pad}")])
        has_content = False
        while True:
            at = _skip(text, line, " ")
            end = _end_of_line(text, at)
            if at < end:  # not blank
                if at - line <= parent or (indent is not None and at - line < indent):
                    return line
                indent = at - line if indent is None else indent
                has_content = True
                if end == size:
                    raise _TextEnds([self._more_text(text), *self._complete(text)])
            elif at == size:
                if indent is None:
                    indent = at - line if at - line > parent else parent + 2
                more = [self._more_text(text[:line] + " " * max(indent, at - line))]
                if not has_content:
                    raise _TextEnds(more)
                if header[0][0] == ">":  # a line break folds to a space, or stays if an empty line follows
                    more.append(self._more_text(f"{text[:line]}\n{' ' * indent}"))
                raise _TextEnds([*more, *self._complete(text[:line].removesuffix("\n"))])
            line = end + 1

    def _more_text(self, before: str) -> Reading:
        """The text ends in a block scalar."""
        return Reading(before + self.mark, Cut("text", goes_on=True))

    # ---- flow style, and JSON ----

    def _read_flow(self, at: int) -> int:
        """A collection in brackets or braces, with everything in it."""
        text, size = self.text, len(self.text)
        closers: list[str] = []
        last = ""  # an opening bracket, a comma, a colon, or "node"
        was_quoted = is_key = False
        while True:
            at = _skip(text, at, " \t\n")
            if at == size:
                raise _TextEnds([self._in_flow(text, closers, last, is_key)])
            character = text[at]
            next_one = text[at + 1 : at + 2]
            if character == "#" and text[at - 1] in " \t\n":
                end = _end_of_line(text, at)
                if end == size:
                    raise _TextEnds([self._in_flow(text[:at], closers, last, is_key)])
                at = end
            elif character == ":" and (was_quoted or next_one in ("", *" \t\n,[]{}")):
                at, last, is_key, was_quoted = at + 1, ":", False, False
            elif character in ",]}":
                self._break(at)
                last = ","
                if character != ",":
                    closers.pop()
                    last = "node"
                at, is_key, was_quoted = at + 1, False, False
                if not closers:
                    return at
            elif character == "?" and next_one in ("", *" \t\n"):
                at += 1
            elif character in "[{":
                closers.append("]" if character == "[" else "}")
                at, last, is_key, was_quoted = at + 1, character, False, False
                self._break(at)
            elif character in "&!":
                self._is_json = was_quoted = False
                is_key = closers[-1:] == ["}"] and last in ("{", ",")
                end = _end(_FLOW_PROPERTY, text, at)
                if end == size:
                    raise _TextEnds([self._in_flow(text[:at], closers, last, is_key)])
                at = end
            else:
                is_key = closers[-1:] == ["}"] and last in ("{", ",")
                was_quoted = character in "\"'"
                at, last = self._read_flow_scalar(at, closers, last, is_key), "node"

    def _read_flow_scalar(self, at: int, closers: list[str], last: str, is_key: bool) -> int:
        """A scalar or an alias in brackets."""
        text, size = self.text, len(self.text)
        character = text[at]
        if character in "\"'":
            self._is_json = self._is_json and character == '"'
            quoted = _QUOTED.match(text, at)
            if quoted is None:
                raise _TextEnds(self._quoted(at, _joined(closers), is_key)[is_key:])
            return quoted.end()
        if character == "*":
            self._is_json = False
            end = _end(_FLOW_PROPERTY, text, at)
            if end == size:
                whole = self._in_flow(text, closers, "node", is_key)
                raise _TextEnds([whole], [self._in_flow(text[:at], closers, last, is_key)])
            return end
        self._is_json = self._is_json and not is_key
        found = (_FLOW_KEY_END if is_key else _FLOW_PLAIN_END).search(text, at)
        if found is None:
            raise _TextEnds(self._plain_in_flow(at, closers, is_key))
        self._is_json = self._is_json and character in JSON_LITERALS
        return max(found.start(), at + 1)

    def _break(self, at: int) -> None:
        if self._column < 0:
            self.breaks.append(at)

    def _in_flow(self, text: str, closers: list[str], last: str, is_key: bool) -> Reading:
        """The text ends between the nodes of a collection in brackets."""
        item = f'"{self.mark}"' + (": null" if closers[-1] == "}" else "")
        if text.endswith("\n"):
            text += " " * (self._column + 1)
        if last == ":" or (last == "node" and is_key):
            return self._value(text + (":" if last == "node" else ""), _joined(closers))
        separator = "," if last == "node" else ""
        return Reading(f"{text}{separator} {item}{_joined(closers)}", Cut("collection", goes_on=last == ","))

    def _plain_in_flow(self, start: int, closers: list[str], is_key: bool) -> list[Reading]:
        """The text ends in a scalar without quotes in brackets."""
        written = self.text[start:]
        content = _folded(written.rstrip())
        before = self.text[:start]
        if is_key:
            return [Reading(f'{before}"{self.mark}": null{_joined(closers)}', Cut("key", content))]
        blanks = " " if written[-1].isspace() else ""
        is_json = self._column < 0 and self._is_json and written[0] in JSON_LITERALS
        cut = Cut("literal" if is_json else "plain", content + blanks, bool(blanks))
        readings = [Reading(f'{before}"{self.mark}"{_joined(closers)}', cut)]
        if not is_json or JSON_LITERAL.fullmatch(content):
            readings.append(self._in_flow(self.text, closers, "node", False))
        return readings


def _joined(closers: list[str]) -> str:
    return "".join(reversed(closers))


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None
    return found.end()


def _folded(plain: str) -> str:
    """Return the value of a plain scalar that spans several lines."""
    return re.sub(r"[ \t]*\n\s*", lambda breaks: "\n" * (breaks[0].count("\n") - 1) or " ", plain)


def _replaced(value: Any, mark: str, cut: Cut) -> Any:
    """Return the value with the cut in place of the mark, last in its collection; None if there is no mark."""
    if isinstance(value, str):
        if mark not in value:
            return None
        return Cut(cut.kind, cut.text or value[: value.index(mark)], cut.goes_on)
    if isinstance(value, dict):
        for name in reversed(value):
            key, item = name, _replaced(value[name], mark, cut)
            if mark in name:
                kind: Literal["collection", "key"] = "collection" if cut.kind == "collection" else "key"
                key, item = Cut(kind, cut.text or name[: name.index(mark)], cut.goes_on), None
            elif item is None:
                continue
            return {each: value[each] for each in value if each != name} | {key: item}
    if isinstance(value, list):
        for index in range(len(value) - 1, -1, -1):
            found = _replaced(value[index], mark, cut)
            if found is not None:
                return [*value[:index], found]
    return None
