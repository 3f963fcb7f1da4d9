"""A parser of YAML 1.2 (revision 1.2.2): text in, events out.

It reads a text from left to right, with regular expressions that never backtrack (possessive quantifiers), so the time
is linear in the length of the text. It recurses once or twice for each level of nesting; the receiver of events bounds
the depth by refusing to start another collection.

One rule of the specification is relaxed, because real workflows break it and GitHub accepts that: the closing bracket
of a flow collection may have any indentation.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn, Protocol
from urllib.parse import unquote

CORE_TAG = "tag:yaml.org,2002:"


class YamlError(Exception):
    """The text is not valid; `position` is an index into the parser's text, `reason` that of a DocumentError."""

    def __init__(self, position: int, message: str, reason: str = "yaml-syntax") -> None:
        super().__init__(message)
        self.position = position
        self.reason = reason


class Properties(NamedTuple):
    """The tag and the anchor before a node."""

    tag: str | None = None
    anchor: str | None = None


NO_PROPERTIES = Properties()


class Events(Protocol):
    """Receives the content of a text in order. A position is an index into the parser's text."""

    def start_document(self, position: int) -> None: ...

    def scalar(self, text: str, is_plain: bool, properties: Properties, position: int) -> None: ...

    def alias(self, name: str, position: int) -> None: ...

    def start(
        self, collection: dict[str, Any] | list[Any], properties: Properties, position: int
    ) -> None: ...

    def end(self) -> None: ...


# Characters that are allowed only in quotes: byte-order marks, and others that cannot be printed.
_UNPRINTABLE = "\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_NOT_PRINTABLE = re.compile(f"[{_UNPRINTABLE}]")
_USUAL = re.compile(r"[\t\n -~]*+")  # a fast check that most texts pass
UNUSUAL = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f{_UNPRINTABLE}]")  # only double quotes can say all of these


def _plain_patterns(ends: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a plain scalar on one line: from its first character, and from any later one.

    A colon is part of it unless a blank follows, a `#` unless a blank precedes. The characters `ends` end it too.
    """
    first = rf"(?:[^-?:,\[\]{{}}#&*!|>'\"%@` \t\n{_UNPRINTABLE}]|[-?:](?=[^ \t\n{ends}]))"
    rest = rf"(?:[^\n:#{ends}{_UNPRINTABLE}]++|:(?=[^ \t\n{ends}])|(?<=[^ \t\n])#)*+"
    return re.compile(first + rest), re.compile(rest)


_PLAIN, _PLAIN_REST = _plain_patterns("")
_FLOW_PLAIN, _FLOW_PLAIN_REST = _plain_patterns(r",\[\]{}")
# Most entries of mappings, for speed: a key with a plain value or none, and the indentation of the next line; or a key
# and the blanks before a value of another kind. Other entries are read step by step.
_SIMPLE_ENTRY = re.compile(
    rf"([A-Za-z_][-\w./]*+):(?:(?: ++({_PLAIN.pattern}))?\n( *+)(?=[^ \t\n#])(?!(?<=\n)[-.])| ++(?=[^ \t\n#]))",
    re.ASCII,
)
_SIMPLE_KEY = re.compile(r"[A-Za-z_][-\w./]*+:(?=[ \n])", re.ASCII)
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_SINGLE_QUOTED = re.compile(r"'((?:[^']++|'')*+)'")
_NAME = re.compile(r"[^ \t\n,\[\]{}\ufeff]++")  # of an anchor
_TAG = re.compile(
    r"!<(?P<verbatim>[^\s<>]++)>"
    r"|(?P<handle>![-0-9A-Za-z]*+!|!)(?P<suffix>(?:%[0-9A-Fa-f]{2}|[-0-9A-Za-z#;/?:@&=+$_.~*'()])*+)"
)
# Blanks, comments and line ends between two tokens. A comment follows a blank or begins a line.
_SEPARATION = re.compile(r"(?:[ \t]++(?:#[^\n]*+)?+)?+(?:\n[ \t]*+(?:#[^\n]*+)?+)*+")
_BLANKS = re.compile(r"[ \t]*+")
_COLON = re.compile(r"[ \t]*+:(?=[ \t\n])")
_DOCUMENT_MARKER = re.compile(r"(?:---|\.\.\.)(?=[ \t\n])")
_MARKER_INSIDE = re.compile(r"\n(?:---|\.\.\.)(?=[ \t\n])")
_BLOCK_HEADER = re.compile(r"[|>](?:([1-9])([-+])?|([-+])([1-9])?)?(?:[ \t]++(?:#[^\n]*+)?+)?+\n")
_BLANK_LINES = re.compile(r"(?: *+\n)*+")
_SPACES = re.compile(r" *+")
_ESCAPE = re.compile(
    r"\\(?:u([Dd][89ABab][0-9A-Fa-f]{2})\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})"  # two halves of one character
    r"|x([0-9A-Fa-f]{2})|u((?![Dd][89A-Fa-f])[0-9A-Fa-f]{4})|U((?:000(?!0[Dd][89A-Fa-f])[0-9A-Fa-f]|0010)[0-9A-Fa-f]{4})"
    r"|([0abtnvfre \"/\\N_LP\t]))"
)
# Without groups: in Python 3.11 to 3.13.0 those in a possessive repeat may raise SystemError (cpython#101955).
_VALID_ESCAPES = re.compile(r"(?:[^\\]++|{}|\\\n)*+".format(re.sub(r"\((?!\?)", "(?:", _ESCAPE.pattern)))
ESCAPED = dict(zip('0abtnvfre "/\\N_LP\t', '\0\a\b\t\n\v\f\r\x1b "/\\\x85\xa0\u2028\u2029\t', strict=True))
# The line ends in quotes with the blanks around them. Other blanks match too, so that each is read only once.
_LINE_ENDS = re.compile(r"[ \t]*+\n[ \t\n]*+|[ \t]++")
_ESCAPES_AND_LINE_ENDS = re.compile(rf"{_ESCAPE.pattern}|\\\n[ \t\n]*+|{_LINE_ENDS.pattern}")
# A line of a folded block scalar whose line end is folded, as neither it nor the next line is indented further.
_FOLDED_LINE = re.compile(r"^([^ \t\n][^\n]*+)(\n++)(?=[^ \t\n])", re.MULTILINE)
_BLANK = " \t\n"
_FLOW_ENDS = " \t\n,[]{}"
_MAX_KEY = 1024  # characters before the colon of a key without `?`


class YamlParser:
    """Parses one text; see `parse`.

    Attributes:
        text: the text with "\\n" as line ends, one more line end before it, and one at its end. Positions refer to it.
    """

    def __init__(self, text: str, events: Events) -> None:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.lacks_line_end = not text.endswith("\n")
        self.text = f"\n{text}\n" if self.lacks_line_end else f"\n{text}"
        self.events = events
        self.handles: dict[str, str] = {}  # of tags
        self.has_unprintable = False
        # The next token: its position, whether it is the first of its line, the indentation of the line in spaces (-1:
        # the document ends here), and whether a tab precedes the token.
        self.position = 0
        self.begins_line = True
        self.indent = -1
        self.after_tab = False
        self.parent_indent = -1  # of the block collection around a flow collection or a scalar

    def line_and_column(self, position: int) -> tuple[int, int]:
        """The line and column of a position, both counted from 1."""
        return self.text.count("\n", 0, position), position - self.text.rfind("\n", 0, position)

    def parse(self) -> None:
        """Send the events of all documents.

        Raises:
            YamlError: the text is not valid YAML.
        """
        text = self.text
        if _USUAL.match(text).end() < len(text) and (unusual := UNUSUAL.search(text)):  # type: ignore[union-attr]
            if control := _CONTROL.search(text, unusual.start()):
                self._fail(f"the control character {control[0]!r} is not allowed", control.start())
            self.has_unprintable = True
        position = 0  # of a line end
        while True:
            position = self._directives(position)
            if position == len(text):
                return
            self.events.start_document(position)
            if self._at_marker("---"):
                self._advance(position + 3)
            self._block_node(-1)
            if self.indent >= 0:
                self._fail("this text follows the end of the document's value")
            ended = self._at_marker("...")
            position = self._after_end_marker() if ended else text.rfind("\n", 0, self.position)

    def _fail(self, message: str, position: int | None = None, reason: str = "yaml-syntax") -> NoReturn:
        raise YamlError(self.position if position is None else position, message, reason)

    # ---- between the tokens ----

    def _advance(self, position: int) -> None:
        """Move from a position to the next token."""
        text = self.text
        self.position = end = _SEPARATION.match(text, position).end()  # type: ignore[union-attr]
        line = text.rfind("\n", position, end) + 1
        if not line:
            self.begins_line = False
            self.after_tab = text.find("\t", position, end) >= 0
            return
        self.begins_line = True
        tab = text.find("\t", line, end)
        self.after_tab = tab >= 0
        self.indent = (tab if tab >= 0 else end) - line
        if end == len(text) or (end == line and _DOCUMENT_MARKER.match(text, end)):
            self.indent = -1

    def _skip(self, position: int) -> int:
        """The next token inside a flow collection."""
        text = self.text
        end = _SEPARATION.match(text, position).end()  # type: ignore[union-attr]
        line = text.rfind("\n", position, end) + 1
        if line:
            if end == len(text) or (end == line and _DOCUMENT_MARKER.match(text, end)):
                self._fail("the document ends inside brackets that are not closed", end)
            indent = _SPACES.match(text, line, end).end() - line  # type: ignore[union-attr]
            if indent <= self.parent_indent and text[end] not in "]}":
                self._fail("a line inside brackets must be indented more than the line that opens them", end)
        return end

    def _at_marker(self, marker: str) -> bool:
        return self.indent < 0 and self.text.startswith(marker, self.position)

    def _directives(self, position: int) -> int:
        """Read the directives before a document, from a line end on; return where the document begins."""
        self.handles = {"!": "!", "!!": CORE_TAG}
        seen: set[str] = set()
        text = self.text
        while True:
            self._advance(position)
            position = self.position
            if self._at_marker("...") and not seen:
                position = self._after_end_marker()
                continue
            if position == len(text) or text[position] != "%" or self.indent > 0 or self.after_tab:
                break
            end = text.index("\n", position)
            name, *words = re.split(r"[ \t]+", text[position:end].partition(" #")[0].rstrip(" \t"))
            what = " ".join([name, *words[:1]]) if name == "%TAG" else name
            if name == "%YAML" and not (len(words) == 1 and re.fullmatch(r"1\.[0-9]+", words[0], re.ASCII)):
                self._fail("the directive '%YAML' takes a version, which must be 1.2 or another 1")
            if name == "%TAG":
                if len(words) != 2 or not re.fullmatch(r"!|!!|![-0-9A-Za-z]+!", words[0]):
                    self._fail("the directive '%TAG' takes a handle, as in '!e!', and a prefix")
                self.handles[words[0]] = words[1]
            if what in seen and name in ("%YAML", "%TAG"):
                self._fail(f"the directive {what!r} is repeated")
            seen.add(what)
            position = end
        if seen and not self._at_marker("---"):
            self._fail("'---' must follow the directives")
        return position

    def _after_end_marker(self) -> int:
        """The line end behind '...', which is the next token."""
        self._advance(self.position + 3)
        if not self.begins_line:
            self._fail("only a comment may follow '...'")
        return self.text.rfind("\n", 0, self.position)

    # ---- block style ----

    def _block_node(self, parent: int, *, is_entry: bool = False, compact: bool = False) -> None:
        """Parse the next node, and move to the token behind it.

        Args:
            parent: the indentation of the collection around it; -1 for the document's value.
            is_entry: it is the value (or key) of a mapping, so a list may have the mapping's indentation.
            compact: a collection may begin on the same line, as after `- `.
        """
        text = self.text
        outer = NO_PROPERTIES  # properties on lines before the node
        start = self.position
        while True:
            first = self.position
            if self.begins_line:
                column = self.indent
                if column <= parent:
                    if is_entry and column == parent and text[first] == "-" and text[first + 1] in _BLANK:
                        self._block_list(column, outer, inside_mapping=True)
                    else:
                        self.events.scalar("", True, outer, start)
                    return
                if self.after_tab:
                    column = -1
                elif _SIMPLE_KEY.match(text, first):
                    self._block_mapping(column, outer, first)
                    return
            else:
                column = first - text.rfind("\n", 0, first) - 1 if compact else -1
            own = NO_PROPERTIES
            if text[first] in "&!":
                own, end = self._properties(first)
                self._advance(end)
                if self.begins_line:  # the node is on one of the next lines
                    outer = self._merged(outer, own, first)
                    compact = False
                    continue
            self._node_on_line(parent, column, first, outer, own)
            return

    def _node_on_line(self, parent: int, column: int, first: int, outer: Properties, own: Properties) -> None:
        """Parse the node at the next token, and move to the token behind it.

        Args:
            parent: the indentation of the collection around it.
            column: the node's first column; -1: a block collection cannot begin here.
            first: the position of the node's properties, or else of the node.
            outer: properties on lines before.
            own: properties on the same line. They belong to its first key if the node is a mapping.
        """
        text, position = self.text, self.position
        character = text[position]
        is_indicator = character in "-?:" and text[position + 1] in _BLANK
        if is_indicator and not (character == ":" and position > first):
            if column < 0 or position > first or self.after_tab:
                self._fail(self._no_collection(repr(character)))
            if character == "-":
                self._block_list(column, outer, inside_mapping=False)
            else:
                self._block_mapping(column, outer, first)
        elif character in "|>":
            self._block_scalar(position, parent, self._merged(outer, own, first))
        elif character in "[{":
            self.parent_indent = parent
            end = self._flow_collection(position, self._merged(outer, own, first))
            if column >= 0 and _COLON.match(text, end):
                self._fail_collection_as_key(position)
            self._advance(end)
            self._check_line_end()
        else:
            self.parent_indent = parent
            value, is_plain, end = ("", True, position) if is_indicator else self._scalar(position)
            if colon := _COLON.match(text, end):
                if column < 0:
                    self._fail(self._no_collection("a key with ':'"), colon.end() - 1)
                self._block_mapping(column, outer, first)
                return
            properties = self._merged(outer, own, first)
            if is_plain:
                self._advance(end)
                if self.begins_line and self.indent > parent:
                    value = self._continued(value, end, parent)
            self._send(value, is_plain, properties, position)
            if not is_plain:
                self._advance(end)
            self._check_line_end()

    def _send(self, value: str, is_plain: bool, properties: Properties, position: int) -> None:
        """Send a scalar or an alias."""
        if self.text[position] != "*":
            self.events.scalar(value, is_plain, properties, position)
            return
        if properties != NO_PROPERTIES:
            self._fail("an alias cannot have a tag or an anchor")
        self.events.alias(value, position)

    def _fail_collection_as_key(self, position: int) -> NoReturn:
        self._fail("a key is a list or a mapping, not text", position, "bad-key")

    def _no_collection(self, what: str) -> str:
        if self.after_tab:
            return f"{what} is not allowed behind a tab: only spaces may stand before it"
        return f"{what} is not allowed here: write it on a line of its own, or quote the text"

    def _check_line_end(self) -> None:
        if not self.begins_line:
            self._check_printable(self.position)
            self._fail("this text follows the end of a value; quote the whole, or remove it")

    def _check_printable(self, position: int) -> None:
        if self.has_unprintable and _NOT_PRINTABLE.match(self.text, position):
            self._fail(f"the character {self.text[position]!r} is allowed in quotes only", position)

    def _block_mapping(self, column: int, properties: Properties, position: int) -> None:
        """Parse a mapping whose first key, with its properties, is at `position`."""
        text, events = self.text, self.events
        events.start({}, properties, position)
        self.position = position
        while True:
            position = self.position
            entry = _SIMPLE_ENTRY.match(text, position)
            if entry is None:
                self._block_entry(column)
            else:
                key, value, indentation = entry.groups()
                indent = column if indentation is None else len(indentation)
                if (value is not None and indent > column) or len(key) > _MAX_KEY:
                    self._block_entry(column)
                else:
                    events.scalar(key, True, NO_PROPERTIES, position)
                    self.position, self.after_tab = entry.end(), False
                    self.begins_line, self.indent = indentation is not None, indent
                    if value is None:
                        self._block_node(column, is_entry=True)
                    else:
                        events.scalar(value.rstrip(" \t"), True, NO_PROPERTIES, entry.start(2))
            if self.indent < column:
                break
            if self.indent > column or self.after_tab:
                self._check_entry(column)
        events.end()

    def _block_entry(self, column: int) -> None:
        """Parse a key and its value."""
        text, events = self.text, self.events
        first = position = self.position
        character = text[position]
        if character == "?" and text[position + 1] in _BLANK:
            self._advance(position + 1)
            self._block_node(column, is_entry=True, compact=True)
            position = self.position
            if self.indent == column and text[position] == ":" and text[position + 1] in _BLANK:
                self._check_entry(column)
                self._advance(position + 1)
                self._block_node(column, is_entry=True, compact=True)
            else:
                events.scalar("", True, NO_PROPERTIES, position)
            return
        properties = NO_PROPERTIES
        if character in "&!":
            properties, position = self._properties(position)
            position = _BLANKS.match(text, position).end()  # type: ignore[union-attr]
            character = text[position]
        is_empty = character == ":" and text[position + 1] in _BLANK
        value, is_plain, end = ("", True, position) if is_empty else self._scalar(position)
        colon = _COLON.match(text, end)
        if colon is None:
            self._fail("':' is missing after a key", end)
        if character in "'\"" and text.find("\n", position, end) >= 0:
            self._fail("a key of several lines needs '? ' before it")
        if end - first > _MAX_KEY:
            self._fail(f"a key of more than {_MAX_KEY} characters needs '? ' before it")
        self._send(value, is_plain, properties, position)
        self._advance(colon.end())
        self._block_node(column, is_entry=True)

    def _block_list(self, column: int, properties: Properties, *, inside_mapping: bool) -> None:
        """Parse a list.

        Args:
            inside_mapping: the list is a value of a mapping with the same indentation.
        """
        text = self.text
        self.events.start([], properties, self.position)
        while True:
            position = self.position
            if text[position + 1] == " " and _SIMPLE_KEY.match(text, position + 2):
                self._block_mapping(column + 2, NO_PROPERTIES, position + 2)
            else:
                self._advance(position + 1)
                self._block_node(column, compact=True)
            if self.indent < column:
                break
            self._check_entry(column)
            position = self.position
            if not (text[position] == "-" and text[position + 1] in _BLANK):
                if inside_mapping:
                    break
                self._fail("'- ' is missing before an item of the list")
        self.events.end()

    def _check_entry(self, column: int) -> None:
        if self.after_tab:
            self._fail("a tab indents this line: YAML is indented with spaces")
        if self.indent > column:
            self._fail(
                f"wrong indentation: {self.indent} spaces, where the entries before it have {column}, "
                "or the value before it has ended"
            )

    def _block_scalar(self, position: int, parent: int, properties: Properties) -> None:
        text = self.text
        header = _BLOCK_HEADER.match(text, position)
        if header is None:
            self._fail(f"after {text[position]!r} only an indentation from 1 to 9, '+' or '-' may follow")
        start = header.end()
        digit = header[1] or header[4]
        chomping = header[2] or header[3]
        end = _BLANK_LINES.match(text, start).end()  # type: ignore[union-attr]
        indent = max(parent, 0) + int(digit) if digit else self._block_indent(start, end, parent)
        if indent < 0:  # there are only empty lines
            content, breaks = "", "\n" * text.count("\n", start, end)
        else:
            end = _block_lines(indent).match(text, start).end()  # type: ignore[union-attr]
            if indent == 0 and (marker := _MARKER_INSIDE.search(text, start - 1, end)):
                end = marker.start() + 1
            body = text[start:end]
            if self.has_unprintable and (unprintable := _NOT_PRINTABLE.search(body)):
                self._check_printable(start + unprintable.start())
            if indent:
                body = _indentation(indent).sub("", body)
            content = body.rstrip("\n")
            breaks = body[len(content) :]
            if self.lacks_line_end and end == len(text) and content.rpartition("\n")[2].strip():
                breaks = breaks[:-1]  # the last line of the file has no line end, unless it is blank
            if text[position] == ">":
                content = _FOLDED_LINE.sub(lambda line: line[1] + _folded_breaks(len(line[2])), content)
        if not chomping:
            breaks = breaks[:1] if content else ""
        elif chomping == "-":
            breaks = ""
        self.events.scalar(content + breaks, False, properties, position)
        self._advance(end - 1)

    def _block_indent(self, start: int, blank_end: int, parent: int) -> int:
        """The indentation of a block scalar, that of its first line that is not empty; -1 if there is none."""
        text = self.text
        indent = _SPACES.match(text, blank_end).end() - blank_end  # type: ignore[union-attr]
        if indent <= parent or blank_end == len(text):
            if text.startswith("\t", blank_end + indent):
                message = "a tab indents the text of a block scalar: YAML is indented with spaces"
                self._fail(message, blank_end + indent)
            return -1
        if text.find("\n" + " " * (indent + 1), start - 1, blank_end) >= 0:
            self._fail("an empty line before the text of a block scalar has more spaces than the text", start)
        return indent

    def _continued(self, value: str, end: int, parent: int) -> str:
        """Read the further lines of a plain scalar, and move behind them. Returns the whole text."""
        text = self.text
        parts = [value]
        while self.begins_line and self.indent > parent:
            gap = text[end : self.position]
            if "#" in gap:
                self._fail("a comment ended the text before it, but this line is indented like more of it")
            line = _PLAIN_REST.match(text, self.position)[0].rstrip(" \t")  # type: ignore[index]
            end = self.position + len(line)
            if not line or _COLON.match(text, end):
                self._fail(
                    "this line continues the text before it, so ':' is not allowed; is it indented right?"
                )
            parts += [_folded_breaks(gap.count("\n")), line]
            self._advance(end)
        return "".join(parts)

    # ---- scalars ----

    def _scalar(self, position: int) -> tuple[str, bool, int]:
        """Read a quoted scalar, an alias, or the first line of a plain one. Returns text, whether plain, and end."""
        plain = _PLAIN.match(self.text, position)
        if plain is not None:
            value = plain[0].rstrip(" \t")
            return value, True, position + len(value)
        value, end = self._quoted_or_alias(position)
        return value, False, end

    def _quoted_or_alias(self, position: int) -> tuple[str, int]:
        """Read a quoted scalar or an alias. Returns its text or name, and its end."""
        text = self.text
        character = text[position]
        if character == "*":
            name = _NAME.match(text, position + 1)
            if name is None:
                self._fail("a name must follow '*'; quote a text that begins with it", position)
            return name[0], name.end()
        if character not in "'\"":
            self._check_printable(position)
            shown = "a line end" if character == "\n" else repr(character)
            self._fail(f"{shown} cannot begin a value; quote a text that begins with it", position)
        quoted = (_SINGLE_QUOTED if character == "'" else _DOUBLE_QUOTED).match(text, position)
        if quoted is None:
            self._fail("the quote that begins here is not closed", position)
        value = quoted[1]
        has_line_ends = "\n" in value
        if has_line_ends and (marker := _MARKER_INSIDE.search(text, position, quoted.end())):
            self._fail("the document ends inside quotes that are not closed", marker.start() + 1)
        if has_line_ends and (line := _outdented(self.parent_indent).search(text, position, quoted.end())):
            self._fail("a line inside quotes must be indented more than the line that opens them", line.end())
        if character == "'":
            if has_line_ends:
                value = _LINE_ENDS.sub(_fold, value)
            return value.replace("''", "'"), quoted.end()
        if "\\" in value:
            end = _VALID_ESCAPES.match(value).end()  # type: ignore[union-attr]
            if end < len(value):
                half = re.match(r"\\u[Dd][89A-Fa-f]", value[end:])
                what = "half of a surrogate pair" if half else repr(value[end : end + 2])
                self._fail(f"{what} is not an escape in double quotes", quoted.start(1) + end)
            value = _ESCAPES_AND_LINE_ENDS.sub(_unescape, value)
        elif has_line_ends:
            value = _LINE_ENDS.sub(_fold, value)
        return value, quoted.end()

    def _properties(self, position: int) -> tuple[Properties, int]:
        """Read a tag and an anchor in either order on one line. Returns both, and the end of the last one."""
        text = self.text
        tag = anchor = None
        while True:
            if text[position] == "&" and anchor is None:
                name = _NAME.match(text, position + 1)
                if name is None:
                    self._fail("a name must follow '&'; quote a text that begins with it", position)
                anchor, end = name[0], name.end()
            elif text[position] == "!" and tag is None:
                found = _TAG.match(text, position)
                if found is None:
                    self._fail("a tag is not complete; quote a text that begins with '!'", position)
                tag, end = self._tag(found), found.end()
            else:
                self._fail("a value cannot have two tags or two anchors", position)
            if text[end] not in _FLOW_ENDS:
                self._fail(f"{text[end]!r} is not allowed in a tag or in the name of an anchor", end)
            position = _BLANKS.match(text, end).end()  # type: ignore[union-attr]
            if position == end or text[position] not in "&!":
                return Properties(tag, anchor), end

    def _tag(self, found: re.Match[str]) -> str:
        if found["verbatim"]:
            return found["verbatim"]
        handle, suffix = found["handle"], found["suffix"]
        if handle not in self.handles:
            self._fail(f"no %TAG directive defines the handle {handle!r}", found.start())
        if handle != "!" and not suffix:
            self._fail(f"a name must follow {handle!r}", found.start())
        return "!" if found[0] == "!" else self.handles[handle] + unquote(suffix)

    def _merged(self, outer: Properties, own: Properties, position: int) -> Properties:
        """Merge the properties of a node with those on lines before it."""
        if outer is NO_PROPERTIES:
            return own
        if any(before is not None and after is not None for before, after in zip(outer, own, strict=True)):
            self._fail("a value cannot have two tags or two anchors", position)
        return Properties(own.tag or outer.tag, own.anchor or outer.anchor)

    # ---- flow style ----

    def _flow_collection(self, start: int, properties: Properties) -> int:
        """Parse the content of brackets or braces; return the end."""
        text = self.text
        is_mapping = text[start] == "{"
        close = "}" if is_mapping else "]"
        self.events.start({} if is_mapping else [], properties, start)
        position = self._skip(start + 1)
        while text[position] != close:
            position = self._flow_entry(position) if is_mapping else self._flow_item(position)
            position = self._skip(position)
            if text[position] == ",":
                position = self._skip(position + 1)
            elif text[position] != close:
                line, _ = self.line_and_column(start)
                self._fail(f"',' or {close!r} is missing (the bracket is on line {line})", position)
        self.events.end()
        return position + 1

    def _is_empty_flow_node(self, position: int) -> bool:
        return self.text[position] in ",]}" or self._is_flow_colon(position)

    def _is_flow_colon(self, position: int) -> bool:
        return self.text[position] == ":" and self.text[position + 1] in _FLOW_ENDS

    def _flow_entry(self, position: int) -> int:
        """Parse a key and its value, if any; return the end."""
        text, events = self.text, self.events
        is_quoted = False
        explicit = text[position] == "?" and text[position + 1] in _BLANK
        if explicit:
            position = self._skip(position + 1)
        if self._is_empty_flow_node(position):
            if text[position] == "," and not explicit:
                self._fail("an entry is missing before ','", position)
            events.scalar("", True, NO_PROPERTIES, position)
        else:
            position, is_quoted = self._flow_node(position)
        end = position
        position = self._skip(position)
        if self._is_flow_colon(position) or (is_quoted and text[position] == ":"):
            end = position + 1
            position = self._skip(end)
            if text[position] not in ",]}":
                return self._flow_node(position)[0]
        events.scalar("", True, NO_PROPERTIES, end)
        return end

    def _flow_item(self, position: int) -> int:
        """Parse an item of a list: a node, or a key with its value, which is a mapping of one entry."""
        text = self.text
        character = text[position]
        if (character == "?" and text[position + 1] in _BLANK) or self._is_pair(position):
            self.events.start({}, NO_PROPERTIES, position)
            position = self._flow_entry(position)
            self.events.end()
            return position
        end, is_quoted = self._flow_node(position)
        if is_quoted and character in "[{" and text[_BLANKS.match(text, end).end()] == ":":  # type: ignore[union-attr]
            self._fail_collection_as_key(position)
        return end

    def _is_pair(self, position: int) -> bool:
        """Whether the next tokens are a scalar or alias on one line, and a colon."""
        text = self.text
        start = position
        if text[position] in "&!":
            position = self._properties(position)[1]
            position = _BLANKS.match(text, position).end()  # type: ignore[union-attr]
        character = text[position]
        if character in "[{":
            return False
        if not self._is_flow_colon(position):
            plain = _FLOW_PLAIN.match(text, position)
            if plain is not None:
                position = plain.end()
            elif character in "'\"*":
                position = self._quoted_or_alias(position)[1]
            else:
                return False
        if text.find("\n", start, position) >= 0:
            return False
        position = _BLANKS.match(text, position).end()  # type: ignore[union-attr]
        if not (self._is_flow_colon(position) or (character in "'\"" and text[position] == ":")):
            return False
        if position - start > _MAX_KEY:
            self._fail(f"a key of more than {_MAX_KEY} characters needs '? ' before it", start)
        return True

    def _flow_node(self, position: int) -> tuple[int, bool]:
        """Parse one node; return its end, and whether a colon right behind it begins a value."""
        text = self.text
        properties = NO_PROPERTIES
        start = position
        while text[position] in "&!":
            own, end = self._properties(position)
            properties = self._merged(properties, own, position)
            position = self._skip(end)
            if self._is_empty_flow_node(position):
                self.events.scalar("", True, properties, start)
                return end, False
        character = text[position]
        if character in "[{":
            return self._flow_collection(position, properties), True
        plain = _FLOW_PLAIN.match(text, position)
        if plain is None:
            value, end = self._quoted_or_alias(position)
            self._send(value, False, properties, position)
            return end, character != "*"
        parts = [plain[0].rstrip(" \t")]
        end = position + len(parts[0])
        while True:
            following = self._skip(end)
            breaks = text.count("\n", end, following)
            rest = _FLOW_PLAIN_REST.match(text, following)[0]  # type: ignore[index]
            if not breaks or not rest or "#" in text[end:following]:
                break
            parts += [_folded_breaks(breaks), rest.rstrip(" \t")]
            end = following + len(parts[-1])
        self.events.scalar("".join(parts), True, properties, position)
        return end, False


# ---- the text of scalars ----


@lru_cache(maxsize=64)
def _block_lines(indent: int) -> re.Pattern[str]:
    """The lines of a block scalar: those with enough indentation, and empty ones."""
    if indent == 0:
        return re.compile(r"(?:[^\n]*+\n)*+")
    return re.compile(rf"(?: {{{indent}}}[^\n]*+\n| {{0,{indent - 1}}}+\n)*+")


@lru_cache(maxsize=64)
def _indentation(indent: int) -> re.Pattern[str]:
    return re.compile(rf"^ {{1,{indent}}}+", re.MULTILINE)


@lru_cache(maxsize=64)
def _outdented(parent: int) -> re.Pattern[str]:
    """A line that is not empty, and not indented further than the collection around it."""
    return re.compile(rf"\n {{0,{parent}}}+(?=[^ \n])" if parent >= 0 else r"(?!)")


def _folded_breaks(count: int) -> str:
    """The text for line ends between two texts: a blank for one, one line end less for several."""
    return "\n" * (count - 1) or " "


def _fold(found: re.Match[str]) -> str:
    """The text for a match of _LINE_ENDS."""
    breaks = found[0].count("\n")
    return _folded_breaks(breaks) if breaks else found[0]


def double_quoted_units(text: str, position: int) -> Iterator[tuple[int, int]]:
    """Split a text in double quotes, from a position to its closing quote, into units.

    Yields: the position of each character, escape or run of blanks, and the number of characters that it stands for.
    """
    while True:
        found = _ESCAPES_AND_LINE_ENDS.match(text, position)
        yield position, len(_unescape(found)) if found else 1
        position = found.end() if found else position + 1


def _unescape(found: re.Match[str]) -> str:
    """The text for a match of _ESCAPES_AND_LINE_ENDS."""
    high, low, byte, short, long, letter = found.groups()
    if letter:
        return ESCAPED[letter]
    if high:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    if code := byte or short or long:
        return chr(int(code, 16))
    return "\n" * (found[0].count("\n") - 1) if found[0].startswith("\\") else _fold(found)
