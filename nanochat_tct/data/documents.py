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
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

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
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DocumentError("not-utf8", f"byte {error.start} is not valid UTF-8") from None
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
        raise DocumentError("too-deep", f"nested deeper than {limits.max_depth} levels") from None
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
_PLAIN_SPECIAL = re.compile(
    r"[-+.0-9~nNtTfF]|$"
)  # first characters of the plain scalars that are not strings
_CORE = "tag:yaml.org,2002:"
# libyaml follows YAML 1.1, where these break lines; in YAML 1.2 they are ordinary characters.
_OLD_BREAKS = "\x85\u2028\u2029"


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
    nodes_before: int
    characters_before: int
    height: int = 1
    key: str | None = None  # the key whose value comes next; None: a key comes next
    merging: bool = False  # the key was `<<`: the value is merged
    has_merged: bool = False
    merged_keys: set[str] = field(default_factory=set)  # keys that came from a merge: the mapping's own win


def _read_yaml(text: str, limits: Limits) -> Any:
    restore: dict[int, str] = {}
    if any(character in text for character in _OLD_BREAKS):
        spare = (code for code in range(0xE000, 0xF8FF) if chr(code) not in text)
        hide = {ord(character): next(spare) for character in _OLD_BREAKS}
        restore = {code: chr(original) for original, code in hide.items()}
        text = text.translate(hide)
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        raise DocumentError("not-utf8", "a lone surrogate cannot stand in a YAML file") from None
    loader = yaml.CSafeLoader(encoded)
    try:
        return _YamlReader(loader, limits, restore).read()
    except yaml.YAMLError as error:
        raise DocumentError("yaml-syntax", _describe(error)) from None
    finally:
        loader.dispose()


class _YamlReader:
    """Builds the value from libyaml's events: no recursion, and limits hold before anything is expanded."""

    def __init__(self, loader: Any, limits: Limits, restore: dict[int, str]) -> None:
        self.loader = loader
        self.limits = limits
        self.restore = restore
        self.nodes = 0  # values so far, aliases counted with all that they stand for
        self.characters = 0  # of strings and keys, likewise
        self.anchors: dict[str, _Anchored | None] = {}  # None: still being read
        self.stack: list[_Collection] = []
        self.root: Any = None
        self.documents = 0

    def read(self) -> Any:
        get_event = self.loader.get_event
        while True:
            event = get_event()
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self.scalar(event)
            elif kind is yaml.MappingStartEvent:
                self.start(event, {})
            elif kind is yaml.SequenceStartEvent:
                self.start(event, [])
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self.end()
            elif kind is yaml.AliasEvent:
                self.alias(event)
            elif kind is yaml.DocumentStartEvent:
                self.documents += 1
                if self.documents > 1:
                    raise DocumentError("several-documents", f"{_at(event)}a second document begins")
            elif kind is yaml.StreamEndEvent:
                break
        if self.documents == 0 or self.root is None:
            raise DocumentError("empty", "the file holds no value")
        return self.root

    def scalar(self, event: Any) -> None:
        text = event.value
        if self.restore:
            text = text.translate(self.restore)
        parent = self.stack[-1] if self.stack else None
        if parent is not None and type(parent.value) is dict and parent.key is None:
            if event.anchor is not None:
                self.anchors[event.anchor] = _Anchored(_scalar_value(event, text), text, 1, len(text), 0)
            if event.tag is None and event.implicit[0] and text == "<<":
                if parent.has_merged:
                    raise DocumentError(
                        "duplicate-key", f"{_at(event)}the merge key '<<' stands twice in one mapping"
                    )
                parent.merging = parent.has_merged = True
                parent.key = text
                return
            _scalar_value(event, text)  # refuses unknown tags
            if text == "" and event.implicit[0]:
                raise DocumentError("bad-key", f"{_at(event)}a key is empty")
            self.key(parent, text, event)
            return
        value = _scalar_value(event, text)
        self.count(1, len(text), event)
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(value, text, 1, len(text), 0)
        self.add(value, event)

    def key(self, parent: _Collection, text: str, event: Any) -> None:
        """A key is its text, whatever a value of that text would mean: JSON's keys are strings."""
        if text in parent.value and text not in parent.merged_keys:
            raise DocumentError(
                "duplicate-key", f"{_at(event)}the key {_short(text)} stands twice in one mapping"
            )
        self.count(0, len(text), event)
        parent.key = text

    def start(self, event: Any, value: Any) -> None:
        expected = "map" if type(value) is dict else "seq"
        if event.tag not in (None, "!", _CORE + expected):
            raise DocumentError("unknown-tag", f"{_at(event)}the tag {_short(event.tag)} is not known here")
        if self.stack and type(self.stack[-1].value) is dict and self.stack[-1].key is None:
            raise DocumentError("bad-key", f"{_at(event)}a key is a {_kind(value)}, not text")
        if len(self.stack) >= self.limits.max_depth:
            raise DocumentError("too-deep", f"{_at(event)}nested deeper than {self.limits.max_depth} levels")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append(_Collection(value, event.anchor, self.nodes, self.characters))
        self.count(1, 0, event)

    def end(self) -> None:
        done = self.stack.pop()
        if done.anchor is not None:
            nodes, characters = self.nodes - done.nodes_before, self.characters - done.characters_before
            self.anchors[done.anchor] = _Anchored(done.value, None, nodes, characters, done.height)
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, done.height + 1)
        self.add(done.value, None)

    def alias(self, event: Any) -> None:
        name = event.anchor
        if name not in self.anchors:
            raise DocumentError("bad-alias", f"{_at(event)}the alias *{name} has no anchor before it")
        anchored = self.anchors[name]
        if anchored is None:
            raise DocumentError("bad-alias", f"{_at(event)}the alias *{name} stands inside what it names")
        parent = self.stack[-1]
        if type(parent.value) is dict and parent.key is None:
            if anchored.text is None:
                raise DocumentError("bad-key", f"{_at(event)}a key is a {_kind(anchored.value)}, not text")
            self.key(parent, anchored.text, event)
            return
        if len(self.stack) + anchored.height > self.limits.max_depth:
            raise DocumentError("too-deep", f"{_at(event)}nested deeper than {self.limits.max_depth} levels")
        self.count(anchored.nodes, anchored.characters, event, alias=True)
        parent.height = max(parent.height, anchored.height + 1)
        self.add(anchored.value, event)

    def add(self, value: Any, event: Any) -> None:
        if not self.stack:
            self.root = value
            return
        parent = self.stack[-1]
        if type(parent.value) is list:
            parent.value.append(value)
            return
        assert parent.key is not None
        if parent.merging:
            parent.merging = False
            for source in value if type(value) is list else [value]:
                if type(source) is not dict:
                    where = _at(event) if event is not None else ""
                    raise DocumentError("bad-merge", f"{where}'<<' merges a {_kind(source)}, not a mapping")
                for key, item in source.items():
                    if key not in parent.value:
                        parent.value[key] = item
                        parent.merged_keys.add(key)
        else:
            parent.value[parent.key] = value
            parent.merged_keys.discard(parent.key)
        parent.key = None

    def count(self, nodes: int, characters: int, event: Any, alias: bool = False) -> None:
        self.nodes += nodes
        self.characters += characters
        if self.nodes > self.limits.max_nodes:
            reason = "alias-expansion" if alias else "too-many-nodes"
            raise DocumentError(
                reason, f"{_at(event)}more than {self.limits.max_nodes} values, aliases resolved"
            )
        if self.characters > self.limits.max_expanded_characters:
            limit = self.limits.max_expanded_characters
            reason = "alias-expansion" if alias else "too-large"
            raise DocumentError(reason, f"{_at(event)}more than {limit} characters, aliases resolved")


def _scalar_value(event: Any, text: str) -> Any:
    tag = event.tag
    if tag is None:
        return _resolve(text, event) if event.implicit[0] else text
    if tag in ("!", _CORE + "str"):
        return text
    kinds = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
    kind = tag.removeprefix(_CORE)
    if not tag.startswith(_CORE) or kind not in kinds:
        raise DocumentError("unknown-tag", f"{_at(event)}the tag {_short(tag)} is not known here")
    value = _resolve(text, event)
    if type(value) not in kinds[kind]:
        raise DocumentError("unknown-tag", f"{_at(event)}{_short(text)} is not of the type !!{kind}")
    return float(value) if kind == "float" else value


def _resolve(text: str, event: Any) -> Any:
    """The value of a plain scalar by the core schema of YAML 1.2."""
    if not _PLAIN_SPECIAL.match(text):
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > MAX_NUMBER_CHARACTERS:
            raise DocumentError("bad-number", f"{_at(event)}an integer has too many digits")
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise DocumentError("bad-number", f"{_at(event)}{_short(text)} is too large for a float")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise DocumentError("bad-number", f"{_at(event)}{text} is not a number that JSON knows")
    return text


def _at(event: Any) -> str:
    return f"line {event.start_mark.line + 1}, column {event.start_mark.column + 1}: "


def _describe(error: yaml.YAMLError) -> str:
    """One line for what libyaml reports over several."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return where + " ".join(str(problem).split())


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
