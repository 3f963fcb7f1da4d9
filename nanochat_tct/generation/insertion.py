"""Where a text that is cut off goes on, and what to insert there for JSON that follows.

A model writes documents, not texts: comments, quotes and indentation are the user's. So what it writes is turned into
an edit of the text: the columns of the arrays and objects that are open at the cut are those that the text has, and new
ones are indented as the file is.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from nanochat_tct.documents import DocumentError, read_workflow, to_yaml
from nanochat_tct.documents.positions import Positions
from nanochat_tct.documents.yaml_parser import UNUSUAL
from nanochat_tct.generation.cut import Reading
from nanochat_tct.tokenizer.prefix import Cut

_TOKEN = re.compile(r'[{}\[\]:,]|"(?:[^"\\]|\\.)*+(?:"|\Z|\\\Z)|[^{}\[\]:,"]+', re.DOTALL)
_HALF_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*+(\\(?:u[0-9a-fA-F]{0,3})?)\Z")
_LONE_HALF = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")
_KEY_AND_DASH = re.compile(r"^( *)(?:- +)?[^\s#-][^\n]*:[ \t]*\n( *)- ", re.MULTILINE)
_INDENTED = re.compile(r"^[^\s#][^\n]*:[ \t]*\n( +)[^\s#-]", re.MULTILINE)
_decoder = json.JSONDecoder()
LONGEST = 1000  # characters of a key; YAML allows 1024

# Whether it is an array; the complete children, those of objects with their keys
_Part = tuple[bool, list[Any]]


class Written(NamedTuple):
    """What to insert for a document.

    Attributes:
        text: the insertion, as far as the document goes.
        is_complete: whether its lines are complete; if all lines are written, whether the document is.
        is_hidden: it is complete, and its last line is the header of a block scalar, which shows nothing of the text;
            or, as long as it is not complete, that may come to be so.
    """

    text: str
    is_complete: bool
    is_hidden: bool


class Unwritable(Exception):
    """What follows cannot be written here without a change of the text before."""


class _Done(Exception):
    """The lines that were asked for are complete."""


@dataclass
class _Level:
    """An open array or object: the column of its keys or dashes, and whether it is in brackets."""

    is_sequence: bool
    column: int
    is_flow: bool
    has_children: bool = True


class Insertion:
    """The position at the end of a text, by one reading of that end.

    Args:
        text: what stands before the position, with newlines as "\\n".
        reading: of the text, by `CutText`.
        value: of the reading's text, with its `Cut`.

    Raises:
        Unwritable: nothing can be inserted there.
    """

    def __init__(self, text: str, reading: Reading | None, value: Any) -> None:
        self.line = text[text.rfind("\n") + 1 :]
        step = _INDENTED.search(text)
        self.step = len(step[1]) if step else 2
        dash = _KEY_AND_DASH.search(text)
        self.dash_offset = max(0, len(dash[2]) - len(dash[1])) if dash else 2
        if not self.line.strip() and "\t" in self.line:
            raise Unwritable
        self.path: list[_Part] = []
        self.before = ""  # JSON up to what comes next, and one character of that
        self.levels: list[_Level] = []
        self.style, self.block_column, self.header = "", 0, ""
        self.missing = ""  # what has to stand between the text and what follows: a colon, or a line break
        self.is_on_line = True  # the value goes on where the text ends, with no comment between
        if reading is None:  # the text says nothing
            self.cut = Cut("value")
            self.is_on_line = False
            return
        if reading.cut is None:
            raise Unwritable
        self.cut = _path_to_cut(value, self.path)
        positions = Positions(reading.text)
        whole = positions.text
        outer = part = positions.root
        for is_sequence, children in self.path:  # each ends with what the cut is in
            column = part.position - (whole.rfind("\n", 0, part.position) + 1)
            self.levels.append(_Level(is_sequence, column, whole[part.position] in "[{", bool(children)))
            outer, part = part, next(reversed(part.children.values()))
        # The innermost mapping says best how the file is indented.
        for above, below in itertools.pairwise(self.levels):
            if not (above.is_sequence or below.is_sequence or below.is_flow) and below.column > above.column:
                self.step = below.column - above.column
        if reading.cut.text == "" and self.cut.kind in ("text", "key"):
            begin = next(reversed(outer.keys.values())) if self.cut.kind == "key" else part.position
            self.style = whole[begin]
            if self.style in "|>":
                end = whole.index("\n", begin)
                self.header = whole[begin:end].split("#")[0].strip()
                content = next(line for line in whole[end + 1 :].split("\n") if line.strip())
                self.block_column = len(content) - len(content.lstrip(" "))
                self.missing = "\n" * (reading.text.count("\n") - text.count("\n"))
        self.is_on_line = reading.text.startswith(text) or self.cut.kind in ("plain", "literal", "key")
        if self.cut.kind == "value" and reading.text.startswith(text + ":"):
            self.missing = ":"
        if not self.line.strip() and self.levels and self.cut.kind == "value":
            self.is_on_line = len(self.line) > self.levels[-1].column

    def write(self, json_text: str, max_lines: int | None) -> Written | None:
        """Return what to insert for a document that begins with the text; None: it does not reach so far yet.

        Args:
            json_text: compact JSON of the document, which may be cut off.
            max_lines: after so many lines with text the insertion ends, or with the header of a block scalar. None: it
                has all lines, and ends with a line break if the document is whole.

        Raises:
            Unwritable: see the class.
        """
        at = self.offset(json_text)
        if at is None:
            return None
        writer = _Writer(self, max_lines)
        try:
            writer.write(_TOKEN.findall(json_text[at:]))
        except _Done:
            return Written(writer.out, True, writer.is_hidden)
        is_complete = not writer.levels
        if max_lines is not None:
            is_complete = is_complete and bool(writer.out.strip())
        elif is_complete and (writer.out or self.line):
            writer.out += "\n"
        return Written(writer.out, is_complete, writer.is_hidden)

    def offset(self, json_text: str) -> int | None:
        """See `_offset`. Documents that begin alike have it at the same position."""
        if not self.before or not json_text.startswith(self.before):
            at = _offset(json_text, self.path, self.cut.kind in ("value", "text", "plain", "literal"))
            if at is None or at >= len(json_text):
                return at
            self.before = json_text[: at + 1]
        return len(self.before) - 1


class _Writer:
    """Writes JSON tokens at an insertion, until the lines are complete or the tokens end."""

    def __init__(self, insertion: Insertion, max_lines: int | None) -> None:
        self.at = insertion
        self.max_lines = max_lines
        self.levels = [_Level(*vars(level).values()) for level in insertion.levels]
        self.out = insertion.missing
        self.is_inline = False  # the next key or item goes on this line, behind a dash or a bracket
        self.is_json = bool(self.levels) and self.levels[0].is_flow
        self.is_hidden = False  # see `Written`

    def write(self, tokens: list[str]) -> None:
        tokens = [token for token in tokens if token not in (",", ":")]
        cut, index = self.at.cut, 0
        is_value = cut.kind not in ("collection", "key")
        if cut.kind == "collection" and self.levels and self.levels[-1].is_flow:
            self.is_inline = cut.goes_on or not self.levels[-1].has_children
        elif self.levels:
            self.levels[-1].has_children = True  # the one that the cut is in
        if cut.kind in ("key", "text", "plain", "literal") and tokens:
            if tokens[0] in "{}[]":
                raise Unwritable
            self.finish(tokens[0], cut, len(tokens) > 1)
            index, is_value = 1, cut.kind == "key"
        while index < len(tokens):
            token = tokens[index]
            if is_value:
                following = tokens[index + 1] if index + 1 < len(tokens) else ""
                if token in "{[":
                    if not following:
                        return
                    if following == ("}" if token == "{" else "]"):
                        self.scalar(token + following)
                        index += 1
                    else:
                        self.open(token)
                else:
                    self.scalar(token, bool(following))
                is_value = False
                index += 1
            elif token in "}]":
                self.close()
                index += 1
            elif self.levels[-1].is_sequence:
                self.item()
                is_value = True
            else:
                self.key(token)
                is_value = True
                index += 1
        if is_value and self.is_block:
            self.is_hidden = True

    @property
    def is_block(self) -> bool:
        """Whether the innermost array or object is in block style."""
        return bool(self.levels) and not self.levels[-1].is_flow

    @property
    def is_flow(self) -> bool:
        """Whether the innermost array or object is in brackets."""
        return bool(self.levels) and self.levels[-1].is_flow

    @property
    def current_line(self) -> str:
        """The line that is written, with what the text has of it."""
        return (self.at.line + self.out).rpartition("\n")[2]

    @property
    def num_lines(self) -> int:
        """The lines with text that are written."""
        return sum(bool(line.strip()) for line in self.out.split("\n"))

    def break_line(self, column: int) -> None:
        """Go to a column of a new line, or of this one if it is blank."""
        is_blank = not self.out and not self.at.line.strip()
        if is_blank and column >= len(self.at.line):
            self.out = " " * (column - len(self.at.line))
        elif is_blank and self.max_lines is not None:
            raise Unwritable  # an insertion of lines leaves no blanks behind
        else:
            self.new_line()
            self.out += " " * column

    def new_line(self) -> None:
        """Begin a new line, unless those that were asked for are complete."""
        if self.max_lines is not None and self.num_lines >= self.max_lines:
            raise _Done
        self.out += "\n"

    def end_of_line(self) -> None:
        """After a whole value in block style: this is the end of a line."""
        if self.max_lines == 1 and self.out.strip():
            raise _Done

    def finish(self, token: str, cut: Cut, is_whole: bool) -> None:
        """Write the rest of a scalar, or of a key, that the text has begun."""
        content, is_closed = _scalar_of(token)
        is_closed = is_closed or is_whole
        text = content if isinstance(content, str) else token
        if not text.startswith(cut.text):
            if not is_closed and cut.text.startswith(text):
                return  # the model has not come to the end of what is there
            raise Unwritable
        rest, style = text[len(cut.text) :], self.at.style
        if style != '"' and UNUSUAL.search(rest):
            raise Unwritable
        if style and style in "|>":
            self.block_text(text, rest, is_closed)
            return
        if "\n" in text and style != '"':
            raise Unwritable
        if style in ("'", '"'):
            rest = rest.replace("'", "''") if style == "'" else json.dumps(rest, ensure_ascii=False)[1:-1]
            self.out += rest + (style if is_closed else "")
        else:
            if is_closed and not self.reads_back(text, content):
                raise Unwritable
            self.out += rest
        if is_closed and cut.kind == "key":
            self.out += ":"
        elif is_closed:
            self.after_value()

    def block_text(self, text: str, rest: str, is_closed: bool) -> None:
        """Write the rest of a block scalar."""
        if is_closed:
            newlines = len(text) - len(text.rstrip("\n"))
            if newlines != (0 if "-" in self.at.header else 1) or "+" in self.at.header:
                raise Unwritable
            rest = rest.removesuffix("\n") if newlines else rest
        above = text[: len(text) - len(rest)].rpartition("\n")[2]
        for number, line in enumerate(rest.split("\n")):
            if number:
                self.new_line()
            if line:
                if number and self.at.style == ">" and " " not in (above[:1], line[:1]):
                    self.out += "\n"  # one line break alone would be read as a blank
                self.out += " " * max(0, self.at.block_column - len(self.current_line)) + line
                above = line if number else above + line
        if is_closed:
            self.end_of_line()

    def begin_child(self) -> _Level:
        """Go to where the next key or item of the innermost array or object begins."""
        level = self.levels[-1]
        if level.is_flow:
            self.out += ", " if level.has_children and not self.is_inline else ""
        elif not self.is_inline:
            self.break_line(level.column)
        level.has_children = True
        return level

    def key(self, token: str) -> None:
        self.begin_child()
        self.is_inline = False
        name, is_closed = _scalar_of(token)
        is_on = name == "on" and len(self.levels) == 1
        if is_closed:
            text = name if is_on and not self.is_json else self.written(name)
            if "\n" in text:
                text = json.dumps(name, ensure_ascii=False)  # keys are not block scalars
            if len(text) > LONGEST:
                raise Unwritable
            self.out += f"{text}:"

    def item(self) -> None:
        level = self.begin_child()
        self.out += "" if level.is_flow else "- "
        self.is_inline = True

    def scalar(self, token: str, is_whole: bool = True) -> None:
        content, is_closed = _scalar_of(token) if token not in ("{}", "[]") else (token, True)
        is_closed = is_closed or is_whole
        if not self.at.is_on_line and not self.out:
            if token == "null" and self.is_block:
                return  # nothing stands for it
            if self.max_lines is not None or not self.is_block:
                raise Unwritable
            self.break_line(self.levels[-1].column + self.at.step)
        self.space()
        self.is_inline = False
        if isinstance(content, str) and "\n" in content and not self.is_flow:
            self.new_block(content if is_closed else content.rstrip("\n") + "\n")  # most end so
        elif content is None and not self.is_json:
            self.out = self.out.removesuffix(" ") if not self.levels[-1].is_sequence else self.out + "null"
        elif token in ("{}", "[]"):
            self.out += token
        elif not is_closed:
            self.out += str(content)
            self.is_hidden = self.is_block and isinstance(content, str)
            return
        else:
            self.out += self.written(content)
        self.after_value()

    def new_block(self, content: str) -> None:
        """Write a text of several lines."""
        if self.max_lines is not None:
            self.out += "|"
            self.is_hidden = True
            raise _Done  # the text is in the lines below
        indent = min(self.at.step, 9)  # a header can say one digit
        header, *lines = self.written(content).split("\n")
        self.out += header.replace("2", str(indent)) if lines else header
        pad = " " * (self.levels[-1].column + indent)
        self.out += "".join(f"\n{pad}{line[2:]}" if line else "\n" for line in lines)

    def space(self) -> None:
        """A blank behind the colon or dash."""
        before = (self.at.line + self.out)[-1:]
        if before in (":", "-", ","):
            self.out += " "

    def after_value(self) -> None:
        if self.is_json or not self.is_flow:
            self.end_of_line()

    def open(self, token: str) -> None:
        """Begin an array or object that is not empty."""
        is_sequence = token == "["
        parent = self.levels[-1] if self.levels else None
        if parent and parent.is_flow:
            self.space()
            self.out += token
            self.levels.append(_Level(is_sequence, 0, True, False))
            self.is_inline = True
            return
        line = self.current_line
        is_behind_dash = parent is not None and parent.is_sequence and line.rstrip().endswith("-")
        if is_behind_dash and (self.at.is_on_line or self.out):
            self.space()
            column, self.is_inline = len(self.current_line), True
        else:
            least = parent.column if parent else -1
            step = self.at.dash_offset if is_sequence else self.at.step
            column = least + (step if parent else 1)
            if not self.out and not self.at.line.strip() and len(self.at.line) > least:
                column = len(self.at.line)
            self.is_inline = False
        self.levels.append(_Level(is_sequence, column, False, False))
        if not self.is_inline:
            self.end_of_line()

    def close(self) -> None:
        level = self.levels.pop()
        self.is_inline = False
        if level.is_flow:
            self.out += "]" if level.is_sequence else "}"
            self.after_value()

    def written(self, value: Any) -> str:
        """A scalar or key; on one line, unless it is a text of several lines in block style."""
        in_json = json.dumps(value, ensure_ascii=False)
        if self.is_json:
            return in_json
        text = to_yaml({"": value}).removesuffix("\n").partition(": ")[2]
        return in_json if self.is_flow and not self.reads_back(text, value) else text

    def reads_back(self, text: str, content: Any) -> bool:
        """Whether a scalar as it is written means that value here."""
        try:
            found = read_workflow(f"x: [{text}]" if self.is_flow else f"x: {text}")
        except DocumentError:
            return False
        return found == {"x": [content] if self.is_flow else content}


def _path_to_cut(value: Any, path: list[_Part]) -> Cut:
    """Return the cut in a value, and append the parts around it."""
    if isinstance(value, Cut):
        return value
    is_array = isinstance(value, list)
    *complete, (name, child) = enumerate(value) if is_array else value.items()
    path.append((is_array, [each if is_array else (key, each) for key, each in complete]))
    return name if isinstance(name, Cut) else _path_to_cut(child, path)


def _offset(json_text: str, path: list[_Part], is_value: bool) -> int | None:
    """Return where in a document's JSON that begins which the text has not, behind the complete children on the way.

    None: the JSON does not reach so far.

    Raises:
        Unwritable: the JSON has other children, so the end of the text is read in another way.
    """
    at = 0
    try:
        for depth, (is_array, children) in enumerate(path):
            if at < len(json_text) and json_text[at] != ("[" if is_array else "{"):
                raise Unwritable
            at += 1
            for child in children:
                found: Any = None
                if not is_array:
                    key, at = _decoder.raw_decode(json_text, at)
                found, at = _decoder.raw_decode(json_text, at if is_array else at + 1)
                if (found if is_array else (key, found)) != child:
                    raise Unwritable
                if json_text[at : at + 1] == ",":
                    at += 1
            if not is_array and (depth + 1 < len(path) or is_value):
                at = _decoder.raw_decode(json_text, at)[1] + 1
    except json.JSONDecodeError:
        return None
    return at


def _scalar_of(token: str) -> tuple[Any, bool]:
    """Return the value of a JSON scalar, as far as it is there, and whether it is whole."""
    if not token.startswith('"'):
        is_constant = token in ("true", "false", "null")
        try:
            return json.loads(token), is_constant
        except json.JSONDecodeError:
            return token, False
    if len(token) > 1 and token.endswith('"') and not _HALF_ESCAPE.search(token[:-1]):
        return json.loads(token), True
    half = _HALF_ESCAPE.search(token)
    open_text = token[: half.start(1)] if half else token
    open_text = _LONE_HALF.sub("", open_text)
    return json.loads(open_text + '"'), False
