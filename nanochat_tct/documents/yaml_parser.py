"""A parser of YAML 1.2 (revision 1.2.2): text in, events out.

It reads a text from left to right, by regular expressions that never backtrack (possessive quantifiers), so the time
is linear in the length of any text. It recurses once or twice a level of nesting; the receiver of the events bounds the
depth by refusing to start another collection.

One rule of the specification is relaxed, because real workflows break it and GitHub reads them: the lines of a
quoted scalar, and the closing bracket of a flow collection, may have any indentation.
"""

import re
from functools import lru_cache
from typing import NoReturn, Protocol
from urllib.parse import unquote

CORE_TAG = "tag:yaml.org,2002:"


class YamlSyntaxError(Exception):
    """A text that is not valid YAML; `position` is the index into it."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


class Events(Protocol):
    """Receives what a text holds, in order. A position is an index into the parser's text."""

    def start_document(self, position: int) -> None: ...

    def scalar(
        self, text: str, is_plain: bool, tag: str | None, anchor: str | None, position: int
    ) -> None: ...

    def alias(self, name: str, position: int) -> None: ...

    def start_mapping(self, tag: str | None, anchor: str | None, position: int) -> None: ...

    def start_list(self, tag: str | None, anchor: str | None, position: int) -> None: ...

    def end_collection(self) -> None: ...

    def collection_as_key(self, position: int) -> NoReturn:
        """A list or mapping that was already reported turns out to be the key of a mapping."""
        ...


# Characters that a scalar without quotes must not hold: byte-order marks, and what does not print.
_UNPRINTABLE = "\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_NOT_PRINTABLE = re.compile(f"[{_UNPRINTABLE}]")
_USUAL = re.compile(r"[\t\n -~]*+")  # the most common characters, for speed
_UNUSUAL = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f{_UNPRINTABLE}]")


def _plain_patterns(ends: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a plain scalar on one line: from its first character on, and from any later one.

    A colon inside it is text unless a blank follows, a `#` unless a blank precedes. The characters `ends` end it too.
    """
    first = rf"(?:[^-?:,\[\]{{}}#&*!|>'\"%@` \t\n{_UNPRINTABLE}]|[-?:](?=[^ \t\n{ends}]))"
    rest = rf"(?:[^\n:#{ends}{_UNPRINTABLE}]++|:(?=[^ \t\n{ends}])|(?<=[^ \t\n])#)*+"
    return re.compile(first + rest), re.compile(rest)


_PLAIN, _PLAIN_REST = _plain_patterns("")
_FLOW_PLAIN, _FLOW_PLAIN_REST = _plain_patterns(r",\[\]{}")
# Most entries of mappings: a key and either all of its line, with a plain value or none, and the next line's
# indentation, or what precedes a value of another kind. What does not match is read step by step.
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
_ESCAPED = dict(zip('0abtnvfre "/\\N_LP\t', '\0\a\b\t\n\v\f\r\x1b "/\\\x85\xa0\u2028\u2029\t', strict=True))
_BLANK = " \t\n"
_FLOW_ENDS = " \t\n,[]{}"
_MAX_KEY = 1024  # characters before the colon of a key that no `?` announces


class YamlParser:
    """Parses one text; see `parse`.

    Attributes:
        text: what positions refer to: the text with line ends as "\\n", one line end before and one behind it.
    """

    def __init__(self, text: str, events: Events) -> None:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.lacks_line_end = not text.endswith("\n")
        self.text = f"\n{text}\n" if self.lacks_line_end else f"\n{text}"
        self.events = events
        self.handles: dict[str, str] = {}  # of tags
        self.has_unprintable = False
        # The next token: its position, whether it is the first of its line, how many spaces indent this line (-1: the
        # document ends here), and whether a tab precedes it.
        self.position = 0
        self.begins_line = True
        self.indent = -1
        self.after_tab = False
        self.parent_indent = -1  # of the block collection around a flow collection

    def line_and_column(self, position: int) -> tuple[int, int]:
        """The line and column of a position, both counted from 1."""
        return self.text.count("\n", 0, position), position - self.text.rfind("\n", 0, position)

    def parse(self) -> None:
        """Sends the events of all documents.

        Raises:
            YamlSyntaxError: the text is not valid YAML.
        """
        text = self.text
        if _USUAL.match(text).end() < len(text) and (unusual := _UNUSUAL.search(text)):  # type: ignore[union-attr]
            if control := _CONTROL.search(text, unusual.start()):
                raise YamlSyntaxError(control.start(), f"the control character {control[0]!r} is not allowed")
            self.has_unprintable = True
        position = 0  # of a line end
        while True:
            position = self._directives(position)
            if position == len(text):
                return
            if self._at_marker("---"):
                self.events.start_document(position)
                self._advance(position + 3)
            else:
                self.events.start_document(position)
            self._block_node(-1, out=False, compact=False)
            if self.indent >= 0:
                self._fail("this text follows the end of the document's value")
            ended = self._at_marker("...")
            position = self._after_end_marker() if ended else text.rfind("\n", 0, self.position)

    # ---- between the tokens ----

    def _advance(self, position: int) -> None:
        """Move to the next token."""
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
                raise YamlSyntaxError(end, "the document ends inside brackets that are not closed")
            indent = _SPACES.match(text, line, end).end() - line  # type: ignore[union-attr]
            if indent <= self.parent_indent and text[end] not in "]}":
                message = "a line inside brackets must be indented more than the line that opens them"
                raise YamlSyntaxError(end, message)
        return end

    def _at_marker(self, marker: str) -> bool:
        return self.indent < 0 and self.text.startswith(marker, self.position)

    def _fail(self, message: str) -> NoReturn:
        raise YamlSyntaxError(self.position, message)

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

    def _block_node(self, parent: int, *, out: bool, compact: bool) -> None:
        """Parse the next node, and move to the token behind it.

        Args:
            parent: the indentation of the collection around it; -1 for the document's value.
            out: whether it is the value (or key) of a mapping: then a list may have the indentation of the mapping.
            compact: whether a collection may begin on the same line, as after `- `.
        """
        text = self.text
        tag = anchor = None
        start = self.position
        while True:
            first = self.position
            if self.begins_line:
                column = self.indent
                if column <= parent:
                    if out and column == parent and text[first] == "-" and text[first + 1] in _BLANK:
                        self._block_list(column, tag, anchor, inside_mapping=True)
                    else:
                        self.events.scalar("", True, tag, anchor, start)
                    return
                if self.after_tab:
                    column = -1
                elif _SIMPLE_KEY.match(text, first):
                    self.events.start_mapping(tag, anchor, first)
                    self._block_mapping(column)
                    return
            else:
                column = first - text.rfind("\n", 0, first) - 1 if compact else -1
            own_tag = own_anchor = None
            position = first
            if text[first] in "&!":
                own_tag, own_anchor, position = self._properties(first)
                self._advance(position)
                position = self.position
                if self.begins_line:  # the properties of what the next lines hold
                    tag, anchor = self._merged(tag, anchor, own_tag, own_anchor, first)
                    compact = False
                    continue
            break
        character = text[position]
        is_indicator = character in "-?:" and text[position + 1] in _BLANK
        if is_indicator and not (character == ":" and position > first):
            if column < 0 or position > first or self.after_tab:
                self._fail(self._no_collection(repr(character)))
            if character == "-":
                self._block_list(column, tag, anchor, inside_mapping=False)
            else:
                self.events.start_mapping(tag, anchor, first)
                self._block_mapping(column)
            return
        if character in "|>":
            tag, anchor = self._merged(tag, anchor, own_tag, own_anchor, first)
            self._block_scalar(position, parent, tag, anchor)
            return
        if character in "[{":
            tag, anchor = self._merged(tag, anchor, own_tag, own_anchor, first)
            self.parent_indent = parent
            end = self._flow_collection(position, tag, anchor)
            if column >= 0 and _COLON.match(text, end):
                self.events.collection_as_key(position)
            self._advance(end)
            self._check_line_end()
            return
        value, is_plain, end = ("", True, position) if is_indicator else self._scalar(position)
        colon = _COLON.match(text, end)
        if colon is not None:
            if column < 0:
                self.position = colon.end() - 1
                self._fail(self._no_collection("a key with ':'"))
            self.events.start_mapping(tag, anchor, first)
            self.position = first
            self._block_mapping(column)
            return
        tag, anchor = self._merged(tag, anchor, own_tag, own_anchor, first)
        if is_plain:
            self._advance(end)
            if self.begins_line and self.indent > parent:
                value = self._continued(value, end, parent)
            self.events.scalar(value, True, tag, anchor, position)
            self._check_line_end()
            return
        if character != "*":
            self.events.scalar(value, False, tag, anchor, position)
        else:
            self._check_alias(tag, anchor)
            self.events.alias(value, position)
        self._advance(end)
        self._check_line_end()

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
            character = self.text[position]
            raise YamlSyntaxError(position, f"the character {character!r} is allowed in quotes only")

    def _block_mapping(self, column: int) -> None:
        """Parse the entries of a mapping whose start was sent, from its first key on."""
        text, events = self.text, self.events
        while True:
            first = position = self.position
            entry = _SIMPLE_ENTRY.match(text, position)
            if entry is not None:
                key, value, indentation = entry.groups()
                self.begins_line = indentation is not None
                self.indent = indent = len(indentation) if indentation is not None else column
                if (value is None or indent <= column) and len(key) <= _MAX_KEY:
                    events.scalar(key, True, None, None, position)
                    self.position, self.after_tab = entry.end(), False
                    if value is None:
                        self._block_node(column, out=True, compact=False)
                    else:
                        events.scalar(value.rstrip(" \t"), True, None, None, entry.start(2))
                    if self.indent < column:
                        break
                    if self.indent > column or self.after_tab:
                        self._check_entry(column)
                    continue
            character = text[position]
            if character in "?:" and text[position + 1] in _BLANK:
                if character == "?":
                    self._advance(position + 1)
                    self._block_node(column, out=True, compact=True)
                    position = self.position
                    if self.indent == column and text[position] == ":" and text[position + 1] in _BLANK:
                        self._check_entry(column)
                        self._advance(position + 1)
                        self._block_node(column, out=True, compact=True)
                    else:
                        events.scalar("", True, None, None, position)
                else:
                    events.scalar("", True, None, None, position)
                    self._advance(position + 1)
                    self._block_node(column, out=True, compact=False)
            else:
                tag = anchor = None
                if character in "&!":
                    tag, anchor, position = self._properties(position)
                    position = _BLANKS.match(text, position).end()  # type: ignore[union-attr]
                    character = text[position]
                is_empty = character == ":" and text[position + 1] in _BLANK
                value, is_plain, end = ("", True, position) if is_empty else self._scalar(position)
                colon = _COLON.match(text, end)
                if colon is None:
                    self.position = end
                    self._fail("':' is missing after a key")
                if character in "'\"" and text.find("\n", position, end) >= 0:
                    self._fail("a key of several lines needs '? ' before it")
                if end - first > _MAX_KEY:
                    self._fail(f"a key of more than {_MAX_KEY} characters needs '? ' before it")
                if character != "*":
                    events.scalar(value, is_plain, tag, anchor, position)
                else:
                    self._check_alias(tag, anchor)
                    events.alias(value, position)
                self._advance(colon.end())
                self._block_node(column, out=True, compact=False)
            if self.indent < column:
                break
            self._check_entry(column)
        events.end_collection()

    def _block_list(self, column: int, tag: str | None, anchor: str | None, *, inside_mapping: bool) -> None:
        """Parse a list.

        Args:
            inside_mapping: whether it has the indentation of the mapping that it is a value of.
        """
        text = self.text
        self.events.start_list(tag, anchor, self.position)
        while True:
            position = self.position
            if text[position + 1] == " " and _SIMPLE_KEY.match(text, position + 2):
                self.position = position + 2
                self.events.start_mapping(None, None, position + 2)
                self._block_mapping(column + 2)
            else:
                self._advance(position + 1)
                self._block_node(column, out=False, compact=True)
            if self.indent < column:
                break
            self._check_entry(column)
            position = self.position
            if not (text[position] == "-" and text[position + 1] in _BLANK):
                if inside_mapping:
                    break
                self._fail("'- ' is missing before an item of the list")
        self.events.end_collection()

    def _check_entry(self, column: int) -> None:
        if self.after_tab:
            self._fail("a tab indents this line: YAML is indented with spaces")
        if self.indent > column:
            self._fail(
                f"wrong indentation: {self.indent} spaces, where the entries before it have {column}, "
                "or the value before it has ended"
            )

    def _block_scalar(self, position: int, parent: int, tag: str | None, anchor: str | None) -> None:
        text = self.text
        header = _BLOCK_HEADER.match(text, position)
        if header is None:
            self._fail(f"after {text[position]!r} only an indentation from 1 to 9, '+' or '-' may follow")
        start = header.end()
        digit = header[1] or header[4]
        chomping = header[2] or header[3]
        blank_end = _BLANK_LINES.match(text, start).end()  # type: ignore[union-attr]
        if digit:
            indent = max(parent, 0) + int(digit)
        else:
            indent = _SPACES.match(text, blank_end).end() - blank_end  # type: ignore[union-attr]
            if indent <= parent or blank_end == len(text):
                if text.startswith("\t", blank_end + indent):
                    self.position = blank_end + indent
                    self._fail("a tab indents the text of a block scalar: YAML is indented with spaces")
                indent = -1  # it holds empty lines only
            elif text.find("\n" + " " * (indent + 1), start - 1, blank_end) >= 0:
                self.position = start
                self._fail("an empty line before the text of a block scalar has more spaces than the text")
        if indent < 0:
            end = blank_end
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
                breaks = breaks[:-1]  # a line of text that ends the file has no line end; one of blanks has
            if text[position] == ">":
                content = _folded(content)
        if not chomping:
            breaks = breaks[:1] if content else ""
        elif chomping == "-":
            breaks = ""
        self.events.scalar(content + breaks, False, tag, anchor, position)
        self._advance(end - 1)

    def _continued(self, value: str, end: int, parent: int) -> str:
        """The text of a plain scalar whose first line ended, with its further lines; moves behind it."""
        text = self.text
        parts = [value]
        while self.begins_line and self.indent > parent:
            gap = text[end : self.position]
            if "#" in gap:
                self._fail("a comment ended the text before it, but this line is indented like more of it")
            rest = _PLAIN_REST.match(text, self.position)
            assert rest is not None
            line = rest[0].rstrip(" \t")
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
        """Read a quoted scalar, an alias, or the first line of a plain scalar: its text, whether plain, the end."""
        text = self.text
        plain = _PLAIN.match(text, position)
        if plain is not None:
            value = plain[0].rstrip(" \t")
            return value, True, position + len(value)
        return self._quoted_or_alias(position)

    def _quoted_or_alias(self, position: int) -> tuple[str, bool, int]:
        text = self.text
        character = text[position]
        if character == "'":
            quoted = _SINGLE_QUOTED.match(text, position)
            if quoted is not None:
                value = quoted[1]
                if "\n" in value:
                    self._check_no_marker(quoted)
                    value = _folded_quotes(value, has_escapes=False)
                return value.replace("''", "'"), False, quoted.end()
        elif character == '"':
            quoted = _DOUBLE_QUOTED.match(text, position)
            if quoted is not None:
                return self._unescaped(quoted), False, quoted.end()
        elif character == "*":
            name = _NAME.match(text, position + 1)
            if name is not None:
                return name[0], False, name.end()
            raise YamlSyntaxError(position, "a name must follow '*'; quote a text that begins with it")
        else:
            self._check_printable(position)
            shown = "a line end" if character == "\n" else repr(character)
            raise YamlSyntaxError(position, f"{shown} cannot begin a value; quote a text that begins with it")
        raise YamlSyntaxError(position, "the quote that begins here is not closed")

    def _check_alias(self, tag: str | None, anchor: str | None) -> None:
        if tag is not None or anchor is not None:
            self._fail("an alias cannot have a tag or an anchor")

    def _check_no_marker(self, quoted: re.Match[str]) -> None:
        marker = _MARKER_INSIDE.search(self.text, quoted.start(), quoted.end())
        if marker is not None:
            raise YamlSyntaxError(marker.start() + 1, "the document ends inside quotes that are not closed")

    def _unescaped(self, quoted: re.Match[str]) -> str:
        """The text of a double-quoted scalar."""
        value = quoted[1]
        if "\n" in value:
            self._check_no_marker(quoted)
        has_escapes = "\\" in value
        if has_escapes:
            end = _VALID_ESCAPES.match(value).end()  # type: ignore[union-attr]
            if end < len(value):
                half = re.match(r"\\u[Dd][89A-Fa-f]", value[end:])
                what = "half of a surrogate pair" if half else repr(value[end : end + 2])
                raise YamlSyntaxError(quoted.start(1) + end, f"{what} is not an escape in double quotes")
        if "\n" in value:
            return _folded_quotes(value, has_escapes)
        return _ESCAPE.sub(_unescape, value) if has_escapes else value

    def _properties(self, position: int) -> tuple[str | None, str | None, int]:
        """Read a tag and an anchor, in either order, on one line; the end is behind the last one."""
        text = self.text
        tag = anchor = None
        while True:
            if text[position] == "&" and anchor is None:
                name = _NAME.match(text, position + 1)
                if name is None:
                    raise YamlSyntaxError(
                        position, "a name must follow '&'; quote a text that begins with it"
                    )
                anchor, end = name[0], name.end()
            elif text[position] == "!" and tag is None:
                found = _TAG.match(text, position)
                if found is None:
                    raise YamlSyntaxError(
                        position, "a tag is not complete; quote a text that begins with '!'"
                    )
                tag, end = self._tag(found), found.end()
            else:
                raise YamlSyntaxError(position, "a value cannot have two tags or two anchors")
            if text[end] not in _FLOW_ENDS:
                raise YamlSyntaxError(
                    end, f"{text[end]!r} is not allowed in a tag or in the name of an anchor"
                )
            position = _BLANKS.match(text, end).end()  # type: ignore[union-attr]
            if position == end or text[position] not in "&!":
                return tag, anchor, end

    def _tag(self, found: re.Match[str]) -> str:
        if found["verbatim"]:
            return found["verbatim"]
        handle, suffix = found["handle"], found["suffix"]
        if handle not in self.handles:
            raise YamlSyntaxError(found.start(), f"no %TAG directive defines the handle {handle!r}")
        if handle != "!" and not suffix:
            raise YamlSyntaxError(found.start(), f"a name must follow {handle!r}")
        return "!" if found[0] == "!" else self.handles[handle] + unquote(suffix)

    def _merged(
        self, tag: str | None, anchor: str | None, own_tag: str | None, own_anchor: str | None, position: int
    ) -> tuple[str | None, str | None]:
        """The properties of a node, if some are on the line before."""
        if (tag is not None and own_tag is not None) or (anchor is not None and own_anchor is not None):
            raise YamlSyntaxError(position, "a value cannot have two tags or two anchors")
        return (
            own_tag if own_tag is not None else tag,
            own_anchor if own_anchor is not None else anchor,
        )

    # ---- flow style ----

    def _flow_collection(self, start: int, tag: str | None, anchor: str | None) -> int:
        """Parse the content of brackets or braces; return the end."""
        text = self.text
        is_mapping = text[start] == "{"
        close = "}" if is_mapping else "]"
        (self.events.start_mapping if is_mapping else self.events.start_list)(tag, anchor, start)
        position = self._skip(start + 1)
        while text[position] != close:
            position = self._flow_entry(position) if is_mapping else self._flow_item(position)
            position = self._skip(position)
            if text[position] == ",":
                position = self._skip(position + 1)
            elif text[position] != close:
                raise YamlSyntaxError(
                    position, f"',' or {close!r} is missing (the bracket is on line {self._line(start)})"
                )
        self.events.end_collection()
        return position + 1

    def _line(self, position: int) -> int:
        return self.line_and_column(position)[0]

    def _flow_entry(self, position: int) -> int:
        """Parse a key and its value, if any; return the end."""
        text, events = self.text, self.events
        is_quoted = False
        explicit = text[position] == "?" and text[position + 1] in _BLANK
        if explicit:
            position = self._skip(position + 1)
        if text[position] in ",]}" or (text[position] == ":" and text[position + 1] in _FLOW_ENDS):
            if text[position] == "," and not explicit:
                raise YamlSyntaxError(position, "an entry is missing before ','")
            events.scalar("", True, None, None, position)
        else:
            position, is_quoted = self._flow_node(position)
        end = position
        position = self._skip(position)
        if text[position] == ":" and (is_quoted or text[position + 1] in _FLOW_ENDS):
            end = position + 1
            position = self._skip(end)
            if text[position] not in ",]}":
                return self._flow_node(position)[0]
        events.scalar("", True, None, None, end)
        return end

    def _flow_item(self, position: int) -> int:
        """Parse an item of a list: a node, or a key with its value, which is a mapping of one entry."""
        text = self.text
        character = text[position]
        if (character == "?" and text[position + 1] in _BLANK) or self._is_pair(position):
            self.events.start_mapping(None, None, position)
            position = self._flow_entry(position)
            self.events.end_collection()
            return position
        end, is_quoted = self._flow_node(position)
        if is_quoted and character in "[{" and text[_BLANKS.match(text, end).end()] == ":":  # type: ignore[union-attr]
            self.events.collection_as_key(position)
        return end

    def _is_pair(self, position: int) -> bool:
        """Whether the next tokens are a scalar or alias on one line, and a colon."""
        text = self.text
        start = position
        if text[position] in "&!":
            position = self._properties(position)[2]
            position = _BLANKS.match(text, position).end()  # type: ignore[union-attr]
        character = text[position]
        if character in "[{":
            return False
        if character != ":" or text[position + 1] not in _FLOW_ENDS:
            plain = _FLOW_PLAIN.match(text, position)
            if plain is not None:
                position = plain.end()
            elif character in "'\"*":
                position = self._quoted_or_alias(position)[2]
            else:
                return False
        if text.find("\n", start, position) >= 0:
            return False
        position = _BLANKS.match(text, position).end()  # type: ignore[union-attr]
        if text[position] != ":" or (character not in "'\"" and text[position + 1] not in _FLOW_ENDS):
            return False
        if position - start > _MAX_KEY:
            raise YamlSyntaxError(start, f"a key of more than {_MAX_KEY} characters needs '? ' before it")
        return True

    def _flow_node(self, position: int) -> tuple[int, bool]:
        """Parse one node; return its end, and whether a colon right behind it begins a value."""
        text, events = self.text, self.events
        tag = anchor = None
        start = position
        while text[position] in "&!":
            own_tag, own_anchor, end = self._properties(position)
            tag, anchor = self._merged(tag, anchor, own_tag, own_anchor, position)
            position = self._skip(end)
            if text[position] in ",]}" or (text[position] == ":" and text[position + 1] in _FLOW_ENDS):
                events.scalar("", True, tag, anchor, start)
                return end, False
        character = text[position]
        if character in "[{":
            return self._flow_collection(position, tag, anchor), True
        plain = _FLOW_PLAIN.match(text, position)
        if plain is None:
            value, _, end = self._quoted_or_alias(position)
            if character != "*":
                events.scalar(value, False, tag, anchor, position)
                return end, True
            self._check_alias(tag, anchor)
            events.alias(value, position)
            return end, False
        parts = [plain[0].rstrip(" \t")]
        end = position + len(parts[0])
        while True:
            following = self._skip(end)
            breaks = text.count("\n", end, following)
            rest = _FLOW_PLAIN_REST.match(text, following)
            assert rest is not None
            if not breaks or rest.end() == following or "#" in text[end:following]:
                break
            parts += [_folded_breaks(breaks), rest[0].rstrip(" \t")]
            end = following + len(parts[-1])
        events.scalar("".join(parts), True, tag, anchor, position)
        return end, False


# ---- the text of scalars ----


@lru_cache(maxsize=64)
def _block_lines(indent: int) -> re.Pattern[str]:
    """The lines of a block scalar: those that are indented far enough, and empty ones."""
    if indent == 0:
        return re.compile(r"(?:[^\n]*+\n)*+")
    return re.compile(rf"(?: {{{indent}}}[^\n]*+\n| {{0,{indent - 1}}}+\n)*+")


@lru_cache(maxsize=64)
def _indentation(indent: int) -> re.Pattern[str]:
    return re.compile(rf"^ {{1,{indent}}}+", re.MULTILINE)


def _folded(content: str) -> str:
    """The text of a folded block scalar, without the line ends behind it."""
    parts: list[str] = []
    breaks = 0
    was_text = False  # a line that is neither empty nor indented more came before
    for line in content.split("\n"):
        if not line:
            breaks += 1
            continue
        is_text = line[0] not in " \t"
        if parts:
            both = was_text and is_text
            parts.append(" " if both and not breaks else "\n" * (breaks if both else breaks + 1))
        else:
            parts.append("\n" * breaks)
        parts.append(line)
        was_text, breaks = is_text, 0
    return "".join(parts)


def _folded_breaks(count: int) -> str:
    """The text for line ends between two texts: one is a blank, further ones are line ends."""
    return "\n" * (count - 1) or " "


def _folded_quotes(value: str, has_escapes: bool) -> str:
    """The text of a quoted scalar of several lines."""
    parts: list[str] = []
    breaks = 0  # line ends since the last text
    end_is_escaped = False  # the line end behind that
    lines = value.split("\n")
    for number, line in enumerate(lines):
        is_first, is_last = number == 0, number == len(lines) - 1
        inside = line if is_first else line.lstrip(" \t")
        escapes_end = has_escapes and not is_last and _ends_in_backslash(inside)
        if escapes_end:
            inside = inside[:-1]
        elif not is_last:
            kept = len(inside.rstrip(" \t"))
            if has_escapes and kept < len(inside) and _ends_in_backslash(inside[:kept]):
                kept += 1  # the blank that the backslash escapes
            inside = inside[:kept]
        if inside or is_first or is_last or escapes_end:
            if breaks:
                parts.append("\n" * (breaks - 1) if end_is_escaped else _folded_breaks(breaks))
            parts.append(_ESCAPE.sub(_unescape, inside) if has_escapes else inside)
            breaks, end_is_escaped = 0, escapes_end
        breaks += 1
    return "".join(parts)


def _ends_in_backslash(text: str) -> bool:
    """Whether a backslash at the end escapes what follows."""
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _unescape(escape: re.Match[str]) -> str:
    high, low, byte, short, long, letter = escape.groups()
    if letter:
        return _ESCAPED[letter]
    if high:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    return chr(int(byte or short or long, 16))
