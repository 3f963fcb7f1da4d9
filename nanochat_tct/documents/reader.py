"""Read workflow documents (YAML 1.2 or JSON) into JSON values; write them as compact JSON or clean YAML.

YAML is read by the core schema of YAML 1.2: `on` and `yes` are strings, `3.10` is a float unless it is
quoted, there are no dates and no base-60 numbers. Anchors and merge keys (`<<`) are resolved. What is not
one clean JSON object is refused with a reason: see DocumentError. Documents come from strangers, so each
step is bounded by Limits.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from nanochat_tct.documents.yaml_parser import CORE_TAG, YamlParser, YamlSyntaxError
from nanochat_tct.errors import UserError

Format = Literal["yaml", "json", "auto"]


class DocumentError(UserError):
    """A document that cannot be used.

    Attributes:
        reason: a short code for counting, one of: too-large, not-utf8, yaml-syntax, json-syntax, empty,
            several-documents, not-a-mapping, duplicate-key, bad-key, bad-merge, bad-alias, unknown-tag,
            bad-number, too-deep, too-many-nodes, alias-expansion, not-yaml (to_yaml only).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """What a document may cost. The largest real workflows are about 200 kB, 15 levels and 10,000 nodes."""

    max_bytes: int = 1 << 20  # of the source file
    max_depth: int = 100  # nested mappings and lists
    max_nodes: int = 200_000  # values after anchors are resolved
    max_expanded_characters: int = 4 << 20  # of all strings and keys after anchors are resolved


DEFAULT_LIMITS = Limits()
MAX_NUMBER_CHARACTERS = 1000  # Python refuses integers of more than 4300 digits; nobody means one that long


def to_json(value: Any) -> str:
    """Returns the compact JSON of a value, key order kept: the form that is hashed and measured."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def json_bytes(value: Any) -> bytes:
    """Returns the compact JSON as UTF-8; lone surrogates, which JSON permits, are passed through."""
    return to_json(value).encode("utf-8", "surrogatepass")


def read_workflow(
    text: str | bytes, format: Format = "auto", limits: Limits = DEFAULT_LIMITS
) -> dict[str, Any]:
    """Parses one document whose value is a mapping, as a workflow's is; see ``read_document``.

    Raises:
        DocumentError: the document is not one JSON object, or exceeds a limit.
    """
    value = read_document(text, format, limits)
    if not isinstance(value, dict):
        raise DocumentError("not-a-mapping", f"the document is a {_kind(value)}, not a mapping")
    return value


def read_document(text: str | bytes, format: Format = "auto", limits: Limits = DEFAULT_LIMITS) -> Any:
    """Parses one document.

    Args:
        text: the file's content.
        format: "yaml", "json", or "auto" (JSON if it starts with a brace and parses as JSON, otherwise YAML).
        limits: what the document may cost.

    Returns:
        Its value. Places that share a YAML anchor share one Python object: treat it as read-only.

    Raises:
        DocumentError: the document is not one JSON value, or exceeds a limit.
    """
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > limits.max_bytes:
        raise DocumentError("too-large", f"{size} bytes, more than the limit of {limits.max_bytes}")
    if isinstance(text, bytes):
        encoding = json.detect_encoding(text)  # UTF-8, UTF-16 or UTF-32, as YAML and JSON tell them apart
        try:
            text = text.decode(encoding)
        except UnicodeDecodeError as error:
            name = encoding.upper().removesuffix("-SIG")
            raise DocumentError("not-utf8", f"byte {error.start} is not valid {name}") from None
    text = text.removeprefix("\ufeff")
    if format == "auto" and text.lstrip().startswith("{"):
        try:
            return _read_json(text, limits)
        except DocumentError as error:
            if error.reason != "json-syntax":
                raise
    if format == "json":
        return _read_json(text, limits)
    return _read_yaml(text, limits)


# ----------------------------------------------------------------------------------------------------
# JSON


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DocumentError("duplicate-key", f"the key {_short(key)} stands twice in one mapping")
            seen.add(key)
    return result


def _refuse_constant(name: str) -> Any:
    raise DocumentError("bad-number", f"{name} is not a number that JSON knows")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise DocumentError("bad-number", f"{_short(text)} is too large for a float")
    return number


def _bounded_integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise DocumentError("bad-number", "an integer has too many digits")
    return int(text)


_JSON_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_without_duplicates,
    parse_constant=_refuse_constant,
    parse_float=_finite_float,
    parse_int=_bounded_integer,
)


def _read_json(text: str, limits: Limits) -> Any:
    if not text.strip():
        raise DocumentError("empty", "the file is empty")
    try:
        value = _JSON_DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise DocumentError(
            "json-syntax", f"line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except RecursionError:
        raise DocumentError("too-deep", "nested too deep to be read") from None
    opened = text.count("{") + text.count("[")  # no fewer than the levels
    if opened > limits.max_depth or opened + text.count(",") >= limits.max_nodes:
        _check_limits(value, limits)
    return value


def _check_limits(value: Any, limits: Limits) -> None:
    """Walks a parsed JSON value without recursion: depth and number of nodes."""
    nodes = 0
    level, depth = [value], 0  # all values inside that many collections
    while level:
        nodes += len(level)
        collections = [item for item in level if isinstance(item, dict | list)]
        level = [
            item for inner in collections for item in (inner.values() if isinstance(inner, dict) else inner)
        ]
        depth += 1
        if collections and depth > limits.max_depth:
            raise DocumentError("too-deep", f"nested deeper than {limits.max_depth} levels")
    if nodes > limits.max_nodes:
        raise DocumentError("too-many-nodes", f"more than {limits.max_nodes} values")


# ----------------------------------------------------------------------------------------------------
# YAML

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_PLAIN_SPECIAL = re.compile(r"[-+.0-9~nNtTfF]|$")  # begins the plain scalars that are not strings


@dataclass(slots=True)
class _Anchored:
    """What an alias stands for, and what it costs."""

    value: Any
    text: str | None  # of a scalar, as it stands in the file: needed if the alias is used as a key
    nodes: int
    characters: int
    height: int


@dataclass(slots=True)
class _Collection:
    """A mapping or list that is being read."""

    value: Any
    anchor: str | None
    position: int
    nodes_before: int
    characters_before: int
    wants_key: bool  # a key of this mapping comes next
    key: str = ""  # whose value comes next, otherwise
    height: int = 1
    merging: bool = False  # the key was `<<`: the value is merged
    has_merged: bool = False
    merged_keys: set[str] | tuple[()] = ()  # keys that came from a merge: the mapping's own win


def _read_yaml(text: str, limits: Limits) -> Any:
    if not text.isascii() and (surrogate := _SURROGATE.search(text)):
        where = f"line {text.count(chr(10), 0, surrogate.start()) + 1}: "
        raise DocumentError(
            "not-utf8", f"{where}a lone surrogate is not a character, so it cannot stand in YAML"
        )
    return _YamlReader(text, limits).read()


class _YamlReader:
    """Builds the value from the parser's events; limits hold before anything is expanded."""

    def __init__(self, text: str, limits: Limits) -> None:
        self.parser = YamlParser(text, self)
        self.limits = limits
        self.max_nodes, self.max_characters = limits.max_nodes, limits.max_expanded_characters
        self.nodes = 0  # values so far, aliases counted with all that they stand for
        self.characters = 0  # of strings and keys, likewise
        self.anchors: dict[str, _Anchored | None] = {}  # None: still being read
        self.stack: list[_Collection] = []
        self.root: Any = None
        self.documents = 0

    def read(self) -> Any:
        try:
            self.parser.parse()
        except YamlSyntaxError as error:
            self.fail("yaml-syntax", str(error), error.position)
        except RecursionError:
            raise DocumentError("too-deep", "nested too deep to be read") from None
        if self.documents == 0 or self.root is None:
            raise DocumentError("empty", "the file holds no value")
        return self.root

    def fail(self, reason: str, message: str, position: int) -> NoReturn:
        line, column = self.parser.line_and_column(position)
        raise DocumentError(reason, f"line {line}, column {column}: {message}")

    # ---- the parser's events ----

    def start_document(self, position: int) -> None:
        self.documents += 1
        if self.documents > 1:
            self.fail("several-documents", "a second document begins", position)

    def scalar(self, text: str, is_plain: bool, tag: str | None, anchor: str | None, position: int) -> None:
        parent = self.stack[-1] if self.stack else None
        is_untagged = is_plain and tag is None
        if parent is not None and parent.wants_key:
            if tag is not None:
                self.tagged(text, tag, position)  # refuses unknown tags
            if anchor is not None:
                value = self.scalar_value(text, is_plain, tag, position)
                self.anchors[anchor] = _Anchored(value, text, 1, len(text), 0)
            if is_untagged and text == "<<":
                if parent.has_merged:
                    self.fail("duplicate-key", "the merge key '<<' stands twice in one mapping", position)
                parent.merging = parent.has_merged = True
                parent.key, parent.wants_key = text, False
                return
            if is_untagged and text == "":
                self.fail("bad-key", "a key is empty", position)
            self.key(parent, text, position)
            return
        value = self.scalar_value(text, is_plain, tag, position)
        if anchor is not None:
            self.anchors[anchor] = _Anchored(value, text, 1, len(text), 0)
        self.nodes += 1
        self.characters += len(text)
        if self.nodes > self.max_nodes or self.characters > self.max_characters:
            self.check_limits(position)
        self.add(value, position)

    def start_mapping(self, tag: str | None, anchor: str | None, position: int) -> None:
        self.start({}, CORE_TAG + "map", tag, anchor, position)

    def start_list(self, tag: str | None, anchor: str | None, position: int) -> None:
        self.start([], CORE_TAG + "seq", tag, anchor, position)

    def end_collection(self) -> None:
        done = self.stack.pop()
        if done.anchor is not None:
            nodes, characters = self.nodes - done.nodes_before, self.characters - done.characters_before
            self.anchors[done.anchor] = _Anchored(done.value, None, nodes, characters, done.height)
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, done.height + 1)
        self.add(done.value, done.position)

    def collection_as_key(self, position: int) -> NoReturn:
        self.fail("bad-key", "a key is a list or a mapping, not text", position)

    def alias(self, name: str, position: int) -> None:
        if name not in self.anchors:
            self.fail("bad-alias", f"the alias *{name} has no anchor before it", position)
        anchored = self.anchors[name]
        if anchored is None:
            self.fail("bad-alias", f"the alias *{name} stands inside what it names", position)
        parent = self.stack[-1]
        if parent.wants_key:
            if anchored.text is None:
                self.fail("bad-key", f"a key is a {_kind(anchored.value)}, not text", position)
            self.key(parent, anchored.text, position)
            return
        if len(self.stack) + anchored.height > self.limits.max_depth:
            self.fail("too-deep", f"nested deeper than {self.limits.max_depth} levels", position)
        self.nodes += anchored.nodes
        self.characters += anchored.characters
        self.check_limits(position, is_alias=True)
        parent.height = max(parent.height, anchored.height + 1)
        self.add(anchored.value, position)

    # ---- what they do to the value ----

    def key(self, parent: _Collection, text: str, position: int) -> None:
        """A key is its text, whatever a value of that text would mean: JSON's keys are strings."""
        if text in parent.value and text not in parent.merged_keys:
            self.fail("duplicate-key", f"the key {_short(text)} stands twice in one mapping", position)
        self.characters += len(text)
        parent.key, parent.wants_key = text, False

    def start(self, value: Any, expected: str, tag: str | None, anchor: str | None, position: int) -> None:
        if tag not in (None, "!", expected):
            self.fail("unknown-tag", f"the tag {_short(tag)} is not known here", position)
        if self.stack and self.stack[-1].wants_key:
            self.fail("bad-key", f"a key is a {_kind(value)}, not text", position)
        if len(self.stack) >= self.limits.max_depth:
            self.fail("too-deep", f"nested deeper than {self.limits.max_depth} levels", position)
        if anchor is not None:
            self.anchors[anchor] = None
        is_mapping = type(value) is dict
        self.stack.append(_Collection(value, anchor, position, self.nodes, self.characters, is_mapping))
        self.nodes += 1
        self.check_limits(position)

    def add(self, value: Any, position: int) -> None:
        if not self.stack:
            self.root = value
            return
        parent = self.stack[-1]
        if type(parent.value) is list:
            parent.value.append(value)
            return
        parent.wants_key = True
        if parent.merging:
            parent.merging = False
            self.merge(parent, value, position)
        else:
            parent.value[parent.key] = value
            if parent.merged_keys:
                parent.merged_keys.discard(parent.key)

    def merge(self, parent: _Collection, value: Any, position: int) -> None:
        merged_keys: set[str] = set()
        for source in value if type(value) is list else [value]:
            if type(source) is not dict:
                self.fail("bad-merge", f"'<<' merges a {_kind(source)}, not a mapping", position)
            for key, item in source.items():
                if key not in parent.value:
                    parent.value[key] = item
                    merged_keys.add(key)
        parent.merged_keys = merged_keys

    def check_limits(self, position: int, is_alias: bool = False) -> None:
        if self.nodes > self.max_nodes:
            reason = "alias-expansion" if is_alias else "too-many-nodes"
            self.fail(reason, f"more than {self.max_nodes} values, aliases resolved", position)
        if self.characters > self.max_characters:
            reason = "alias-expansion" if is_alias else "too-large"
            self.fail(reason, f"more than {self.max_characters} characters, aliases resolved", position)

    def scalar_value(self, text: str, is_plain: bool, tag: str | None, position: int) -> Any:
        if tag is not None:
            return self.tagged(text, tag, position)
        return self.resolved(text, position) if is_plain and _PLAIN_SPECIAL.match(text) else text

    def tagged(self, text: str, tag: str, position: int) -> Any:
        if tag in ("!", CORE_TAG + "str"):
            return text
        kinds = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
        kind = tag.removeprefix(CORE_TAG)
        if not tag.startswith(CORE_TAG) or kind not in kinds:
            self.fail("unknown-tag", f"the tag {_short(tag)} is not known here", position)
        value = self.resolved(text, position)
        if type(value) not in kinds[kind]:
            self.fail("unknown-tag", f"{_short(text)} is not of the type !!{kind}", position)
        return float(value) if kind == "float" else value

    def resolved(self, text: str, position: int) -> Any:
        """The value of a plain scalar by the core schema of YAML 1.2."""
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > MAX_NUMBER_CHARACTERS:
                self.fail("bad-number", "an integer has too many digits", position)
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return int(text, base)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                self.fail("bad-number", f"{_short(text)} is too large for a float", position)
            return number
        if _NOT_FINITE.fullmatch(text):
            self.fail("bad-number", f"{text} is not a number that JSON knows", position)
        return text


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "mapping", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names[type(value)]


# ----------------------------------------------------------------------------------------------------
# Writing YAML

# Plain scalars that a reader of YAML 1.1 or 1.2 takes for something other than a string.
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
# A first character that starts something else, or `- `, `? `, `: `; `: ` or ` #` or a final colon anywhere.
_NOT_PLAIN = re.compile(r"[,\[\]{}#&*!|>'\"%@`]|[-?:](?:[ \t]|$)|---|\.\.\.|.*(?::(?:[ \t]|$)|[ \t]#)")
# Characters that need an escape: not printable in YAML, or a line break to some reader, or a byte-order mark.
_NEEDS_ESCAPE = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_SIMPLE_KEY = 1000  # YAML allows 1024 characters on one line before the colon
_ESCAPES = {
    "\0": "\\0",
    "\a": "\\a",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\v": "\\v",
    "\f": "\\f",
    "\r": "\\r",
}
_ESCAPES |= {"\x1b": "\\e", '"': '\\"', "\\": "\\\\", "\x85": "\\N", "\u2028": "\\L", "\u2029": "\\P"}


def to_yaml(value: Any) -> str:
    """Returns clean YAML that reads back as an equal value, also in YAML 1.1 readers (but for the key `on`).

    Lists and mappings are in block style, strings of several lines are block scalars where YAML allows it,
    quotes stand only where they are needed, lines are never wrapped, key order is kept, the top-level key
    `on` is bare.

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
    """Yields a value's lines; the first is what follows its key or dash there (empty, or " text")."""
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
        # Without an indicator the first line that is not empty tells the indentation: no blank may lead it.
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
    if _SURROGATE.search(text):
        raise DocumentError("not-yaml", f"{_short(text)} holds a lone surrogate, which YAML cannot write")
    return '"' + "".join(_ESCAPES.get(c) or (_escape(c) if _NEEDS_ESCAPE.match(c) else c) for c in text) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
