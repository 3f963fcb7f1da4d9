"""Readings of a YAML or JSON text that is cut off anywhere.

A text that ends inside a string or a list cannot be parsed. So a mark is written at its end and everything open is
closed after it; the parsed value then holds the mark where the document continues. This module finds out how to write
the mark. It only tracks where quotes, brackets, block scalars and comments begin and end, and leaves everything else
to the parser. Where the end of the text is ambiguous, there are several readings.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer.prefix import Cut

_PROPERTY = re.compile(r"[^\s]*")
_FLOW_PROPERTY = re.compile(r"[^\s,\[\]{}]*")
_PLAIN_END = re.compile(r"\n|[ \t]#|:(?=[ \t\n])")
_KEY_END = re.compile(r"\n|[ \t]#|:(?=[ \t\n]|\Z)")
_FLOW_PLAIN_END = re.compile(r"[,\[\]{}]|\s#|:(?=[\s,\[\]{}])")
_FLOW_KEY_END = re.compile(r"[,\[\]{}]|\s#|:(?=[\s,\[\]{}]|\Z)")
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[^xuU])", re.DOTALL)
_HALF_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]?|u[0-9a-fA-F]{0,3}|U[0-9a-fA-F]{0,7})?\Z")
_HALF_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")
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
        self.readings = self._read()
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

    # ---- block style ----

    def _read(self) -> list[list[Reading]]:
        at = 0
        while True:
            found = self._read_line(at)
            if not isinstance(found, int):
                return found
            at = found

    def _read_line(self, start: int) -> int | list[list[Reading]]:
        """Read from the start of a line to the start of a later line or the end of the text."""
        text = self.text
        self._line = start
        at = _skip(text, start, " \t")
        rest_of_line = text[at : _end_of_line(text, at)]
        starts_document = not self._has_node
        is_marker = at == start and re.match(r"(---|\.\.\.)(\s|\Z)", text[at : at + 4])
        is_half_marker = (
            starts_document
            and at == start
            and rest_of_line in ("-", "--")
            and at + len(rest_of_line) == len(text)
        )
        is_directive = starts_document and at == start and rest_of_line.startswith("%")
        if not rest_of_line or rest_of_line.startswith("#") or is_half_marker or is_directive:
            end = _end_of_line(text, at)
            return end + 1 if end < len(text) else self._at_line_start(start)
        return self._read_nodes(at + 3 if is_marker else at)

    def _read_nodes(self, at: int) -> int | list[list[Reading]]:
        text, size = self.text, len(self.text)
        after_key = False  # on the same line as a key, where no mapping can begin
        node = -1  # offset of the node, including its properties
        while True:
            at = _skip(text, at, " \t")
            node = at if node < 0 else node
            if at == size:
                return self._value(text) if self._pending else self._complete(text)
            character = text[at]
            if character == "\n":
                return at + 1
            if character == "#" and text[at - 1 : at] in ("", " ", "\t", "\n"):
                end = _end_of_line(text, at)
                if end < size:
                    return end + 1
                return self._at_line_start(at) if self._pending else self._complete(text[:at])
            if character in "-?:" and not after_key and text[at + 1 : at + 2] in ("", " ", "\t", "\n"):
                self._column, self._is_list, self._pending = at - self._line, character == "-", True
                at, node = at + 1, -1
                continue
            if character == ":" and after_key and text[at + 1 : at + 2] in (" ", "\t", "\n"):
                return [[Reading(text, None)]]  # a second key on a line: the parser reports it
            may_be_key = not after_key
            self._has_node = True
            if character in "&!":
                end = _end(_PROPERTY, text, at)
                if end == size:
                    return self._value(text[:at])
                at = end
                continue
            if character == "*":
                end = _end(_PROPERTY, text, at)
                if end == size:
                    self._pending = False
                    return [*self._complete(text), *self._value(text[:at])]
            elif character in "\"'":
                end = _end_of_quote(text, at)
                if end < 0:
                    return self._quoted(at, "", may_be_key)
                if end == size:
                    self._pending = False
                    is_key = [Reading(f'{text}: "{self.mark}"', Cut("value"))] if may_be_key else []
                    return [[*self._complete(text)[0], *is_key]]
            elif character in "[{":
                flow = self._read_flow(at)
                if not isinstance(flow, int):
                    return flow
                end = flow
            elif character in "|>":
                block = self._read_block(at)
                if isinstance(block, int):
                    self._pending = False
                return block
            else:
                plain = self._read_plain(at, may_be_key)
                if not isinstance(plain, int):
                    return plain
                end = plain
            at = _skip(text, end, " \t")
            self._pending = False
            if may_be_key and text[at : at + 1] == ":" and text[at + 1 : at + 2] in ("", " ", "\t", "\n"):
                self._column, self._is_list, self._pending = node - self._line, False, True
                at, after_key = at + 1, True
            node = -1

    def _at_line_start(self, start: int) -> list[list[Reading]]:
        """The text ends between two lines; the content of the last one does not count."""
        before = self.text[:start]
        if before and not before.endswith("\n"):
            before += "\n"
        if self._pending and self._column >= 0:
            return self._value(before + " " * (self._column + 1))
        return self._complete(before.removesuffix("\n"))

    def _complete(self, text: str) -> list[list[Reading]]:
        """The text ends after a node in block style."""
        if self._column < 0:  # whole, in brackets; or nothing that the parser accepts
            return [[Reading(text, None)]] if self._has_node else []
        item = f'- "{self.mark}"' if self._is_list else f'"{self.mark}": null'
        return [[Reading(f"{text}\n{' ' * self._column}{item}", Cut("collection"))]]

    def _value(self, text: str, closers: str = "") -> list[list[Reading]]:
        """The text ends before a value."""
        return [[Reading(f'{text} "{self.mark}"{closers}', Cut("value"))]]

    def _read_plain(self, start: int, may_be_key: bool) -> int | list[list[Reading]]:
        text, size = self.text, len(self.text)
        at = start + 1  # a colon here does not end the scalar
        while True:
            found = (_KEY_END if may_be_key else _PLAIN_END).search(text, at)
            if found is None:
                break
            if found[0] == ":" and found.end() == size:  # a key, or the text continues
                more = Reading(f'{text[:start]}"{self.mark}"', Cut("plain", _folded(text[start:])))
                return [[*self._value(text)[0], more]]
            if found[0] != "\n":
                return found.start()
            after = _skip(text, found.end(), " \t\n")
            line = text.rfind("\n", 0, after) + 1
            if after == size or text[after] == "#" or after - line <= self._column:
                return found.start()
            at = after
        return self._plain(start, may_be_key)

    def _plain(self, start: int, may_be_key: bool) -> list[list[Reading]]:
        """The text ends in a scalar without quotes."""
        written = self.text[start:]
        content = _folded(written.rstrip(" \t"))
        blanks = written[len(written.rstrip(" \t")) :]
        before = self.text[:start]
        readings = []
        if self._column >= 0:
            cut = Cut("plain", content + blanks, bool(blanks))
            readings += [Reading(f'{before}"{self.mark}"', cut), *self._complete(self.text)[0]]
        if may_be_key and "\n" not in written:
            readings.append(Reading(f'{before}"{self.mark}": null', Cut("key", content)))
        return [readings or [Reading(self.text, None)]]  # the parser reports what is wrong with it

    def _quoted(self, start: int, closers: str, may_be_key: bool) -> list[list[Reading]]:
        """The text ends in a quoted scalar."""
        text, quote = self.text, self.text[start]
        if quote == '"':
            at = start + 1
            while (at := text.find("\\", at)) >= 0 and (escape := _ESCAPE.match(text, at)):
                at = escape.end()
            if at >= 0:  # drop an incomplete escape
                half = _HALF_ESCAPE.match(text, at)
                text = text[:at] if half else text
            text = text[: pair.start()] if (pair := _odd_pair(text, start)) else text
        last_line = text[text.rfind("\n") + 1 :]
        if "\n" in text[start:] and not last_line.strip(" \t"):
            text = text[: len(text) - len(last_line)] + " " * (self._column + 2)
        marked = f"{text}{self.mark}{quote}"
        readings = [Reading(marked + closers, Cut("text"))]
        if may_be_key:
            readings.append(Reading(f"{marked}: null{closers}", Cut("key")))
        return [readings]

    def _read_block(self, start: int) -> int | list[list[Reading]]:
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
                return [[Reading(text, None)]]  # text behind a header: the parser reports it
            pad = " " * (indent if indent is not None else parent + 2)
            return [[Reading(f"{text[: header.end()]}\n{pad}{self.mark}", Cut("text", goes_on=True))]]
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
                    more = [Reading(text + self.mark, Cut("text", goes_on=True))]
                    return [[*more, *self._complete(text)[0]]]
            elif at == size:
                if indent is None:
                    indent = at - line if at - line > parent else parent + 2
                before = text[:line] + " " * max(indent, at - line)
                more = [Reading(before + self.mark, Cut("text", goes_on=True))]
                if not has_content:
                    return [more]
                if header[0][0] == ">":  # a line break folds to a space, or stays if an empty line follows
                    blank_line = f"{text[:line]}\n{' ' * indent}{self.mark}"
                    more.append(Reading(blank_line, Cut("text", goes_on=True)))
                return [[*more, *self._complete(text[:line].removesuffix("\n"))[0]]]
            line = end + 1

    # ---- flow style, and JSON ----

    def _read_flow(self, at: int) -> int | list[list[Reading]]:
        text, size = self.text, len(self.text)
        closers: list[str] = []
        last = ""  # an opening bracket, a comma, a colon, or "node"
        was_quoted = is_key = False
        while True:
            at = _skip(text, at, " \t\n")
            if at == size:
                return self._in_flow(text, closers, last, is_key)
            character = text[at]
            next_one = text[at + 1 : at + 2]
            if character == "#" and text[at - 1] in " \t\n":
                end = _end_of_line(text, at)
                if end == size:
                    return self._in_flow(text[:at], closers, last, is_key)
                at = end
                continue
            if character == ":" and (was_quoted or next_one in ("", *" \t\n,[]{}")):
                at, last, is_key, was_quoted = at + 1, ":", False, False
                continue
            if character in ",]}":
                self._break(at)
                if character == ",":
                    last = ","
                else:
                    closers.pop()
                    last = "node"
                at, is_key, was_quoted = at + 1, False, False
                if not closers:
                    return at
                continue
            if character == "?" and next_one in ("", *" \t\n"):
                at += 1
                continue
            is_key = bool(closers) and closers[-1] == "}" and last in ("{", ",")
            rest = "".join(reversed(closers))
            was_quoted = character in "\"'"
            self._is_json = self._is_json and character != "'"
            if character in "[{":
                closers.append("]" if character == "[" else "}")
                at += 1
                self._break(at)
                last, is_key = character, False
                continue
            if was_quoted:
                end = _end_of_quote(text, at)
                if end < 0:
                    (readings,) = self._quoted(at, rest, is_key)
                    return [readings[is_key:]]
            elif character in "&!*":
                self._is_json = False
                end = _end(_FLOW_PROPERTY, text, at)
                if end == size and character == "*":
                    return [
                        *self._in_flow(text, closers, "node", is_key),
                        *self._in_flow(text[:at], closers, last, is_key),
                    ]
                if end == size:
                    return self._in_flow(text[:at], closers, last, is_key)
                if character != "*":
                    at = end
                    continue
            else:
                self._is_json = self._is_json and not is_key
                found = (_FLOW_KEY_END if is_key else _FLOW_PLAIN_END).search(text, at)
                if found is None:
                    return self._plain_in_flow(at, closers, is_key)
                end = max(found.start(), at + 1)
                self._is_json = self._is_json and text[at] in JSON_LITERALS
            at, last = end, "node"

    def _break(self, at: int) -> None:
        if self._column < 0:
            self.breaks.append(at)

    def _in_flow(self, text: str, closers: list[str], last: str, is_key: bool) -> list[list[Reading]]:
        """The text ends between the nodes of a collection in brackets."""
        rest = "".join(reversed(closers))
        item = f'"{self.mark}"' + (": null" if closers[-1] == "}" else "")
        if text.endswith("\n"):
            text += " " * (self._column + 1)
        if last == ":" or (last == "node" and is_key):
            return self._value(text + (":" if last == "node" else ""), rest)
        separator = "," if last == "node" else ""
        return [[Reading(f"{text}{separator} {item}{rest}", Cut("collection", goes_on=last == ","))]]

    def _plain_in_flow(self, start: int, closers: list[str], is_key: bool) -> list[list[Reading]]:
        rest = "".join(reversed(closers))
        written = self.text[start:]
        content = _folded(written.rstrip())
        before = self.text[:start]
        if is_key:
            return [[Reading(f'{before}"{self.mark}": null{rest}', Cut("key", content))]]
        blanks = " " if written[-1].isspace() else ""
        is_json = self._column < 0 and self._is_json and written[0] in JSON_LITERALS
        cut = Cut("literal" if is_json else "plain", content + blanks, bool(blanks))
        readings = [Reading(f'{before}"{self.mark}"{rest}', cut)]
        if not is_json or JSON_LITERAL.fullmatch(content):
            readings += self._in_flow(self.text, closers, "node", False)[0]
        return [readings]


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


def _end_of_quote(text: str, start: int) -> int:
    """Return the offset after a quoted scalar, or -1 if the text ends inside it."""
    quote = text[start]
    at = start + 1
    while at < len(text):
        if text[at] == "\\" and quote == '"':
            at += 2
        elif text[at] != quote:
            at += 1
        elif quote == "'" and text[at + 1 : at + 2] == "'":
            at += 2
        else:
            return at + 1
    return -1


def _odd_pair(text: str, start: int) -> re.Match[str] | None:
    """Return the escaped first half of a surrogate pair at the end of a text if its second half is missing."""
    found = _HALF_PAIR.search(text, start)
    if found is None:
        return None
    backslashes = len(text[: found.start()]) - len(text[: found.start()].rstrip("\\"))
    return found if backslashes % 2 == 0 else None


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
            if mark in name:
                kind: Literal["collection", "key"] = "collection" if cut.kind == "collection" else "key"
                key = Cut(kind, cut.text or name[: name.index(mark)], cut.goes_on)
                return {**{each: value[each] for each in value if each != name}, key: None}
            found = _replaced(value[name], mark, cut)
            if found is not None:
                return {**{each: value[each] for each in value if each != name}, name: found}
    if isinstance(value, list):
        for index in range(len(value) - 1, -1, -1):
            found = _replaced(value[index], mark, cut)
            if found is not None:
                return [*value[:index], found]
    return None
