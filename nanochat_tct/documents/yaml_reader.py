"""Build the JSON value of a YAML document from the parser's events.

Plain scalars follow the core schema of YAML 1.2: `on` and `yes` are strings, `3.10` is a float unless it is quoted,
there are no dates and no base-60 numbers. Anchors and merge keys (`<<`) are resolved.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from nanochat_tct.documents.limits import (
    MAX_NUMBER_CHARACTERS,
    SURROGATE,
    DocumentError,
    Limits,
    kind_of,
    shortened,
)
from nanochat_tct.documents.yaml_parser import CORE_TAG, Properties, YamlError, YamlParser

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_PLAIN_SPECIAL = re.compile(r"[-+.0-9~nNtTfF]|$")  # begins the plain scalars that are not strings
MAX_COMPLAINTS = 1000
_TYPES_BY_TAG = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}


@dataclass(slots=True)
class _Anchored:
    """The value of an anchor, and its size."""

    value: Any
    text: str | None  # of a scalar, as in the file, in case an alias is used as a key
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
    wants_key: bool  # a mapping's next scalar is a key
    key: str = ""  # the key whose value comes next
    height: int = 1
    merging: bool = False  # the key was `<<`, whose value is merged
    has_merged: bool = False
    merged_keys: set[str] | tuple[()] = ()  # keys from a merge, which the mapping's own keys override


def read_yaml(
    text: str, limits: Limits, as_github: bool = False, complaints: list[DocumentError] | None = None
) -> Any:
    """Read a text with one document.

    Args:
        as_github: keys must be texts, and `<<` is an ordinary key.
        complaints: receives the errors about keys, which are raised otherwise.

    Raises:
        DocumentError: it is not one JSON value, or exceeds a limit.
    """
    if not text.isascii() and (surrogate := SURROGATE.search(text)):
        line = text.count("\n", 0, surrogate.start()) + 1
        raise DocumentError(
            "not-utf8", "a lone surrogate is not a character, so it cannot stand in YAML", line
        )
    reader = _YamlReader(limits, as_github, is_tolerant=complaints is not None)
    parser = YamlParser(text, reader)

    def located(error: YamlError) -> DocumentError:
        return DocumentError(error.reason, str(error), *parser.line_and_column(error.position))

    try:
        parser.parse()
    except YamlError as error:
        raise located(error) from None
    except RecursionError:
        raise DocumentError("too-deep", "nested too deep to be read") from None
    if reader.root is None:
        raise DocumentError("empty", "the file holds no value")
    if complaints is not None:
        complaints += map(located, reader.complaints[:MAX_COMPLAINTS])
    return reader.root


class _YamlReader:
    """Builds the value from the parser's events; checks the limits before it expands an alias."""

    def __init__(self, limits: Limits, as_github: bool, is_tolerant: bool) -> None:
        self.as_github, self.is_tolerant = as_github, is_tolerant
        self.complaints: list[YamlError] = []
        self.max_depth = limits.max_depth
        self.max_nodes, self.max_characters = limits.max_nodes, limits.max_expanded_characters
        self.nodes = 0  # values so far; an alias counts as everything inside its value
        self.characters = 0  # of strings and keys, likewise
        self.anchors: dict[str, _Anchored | None] = {}  # None while the value is being read
        self.stack: list[_Collection] = []
        self.root: Any = None
        self.has_document = False

    def fail(self, reason: str, message: str, position: int) -> NoReturn:
        raise YamlError(position, message, reason)

    def complain(self, reason: str, message: str, position: int) -> None:
        """Record an error, and raise it unless the caller wants all of them."""
        self.complaints.append(YamlError(position, message, reason))
        if not self.is_tolerant:
            raise self.complaints[0]

    # ---- the parser's events ----

    def start_document(self, position: int) -> None:
        if self.has_document:
            self.fail("several-documents", "a second document begins", position)
        self.has_document = True

    def scalar(self, text: str, is_plain: bool, properties: Properties, position: int) -> None:
        tag, anchor = properties
        parent = self.stack[-1] if self.stack else None
        if parent is not None and parent.wants_key:
            value = self.scalar_value(text, is_plain, tag, position) if tag or anchor else None
            if anchor is not None:
                self.anchors[anchor] = _Anchored(value, text, 1, len(text), 0)
            is_special = is_plain and tag is None and text in ("<<", "")
            is_constant = is_plain and tag is None and text and _PLAIN_SPECIAL.match(text)
            if self.as_github and is_constant and not isinstance(self.resolved(text, position), str):
                self.complain("bad-key", f"the key {text} is not a text for GitHub; quote it", position)
            if not is_special or (self.as_github and text):
                self.key(parent, text, position)
            elif text == "":
                self.fail("bad-key", "a key is empty", position)
            elif parent.has_merged:
                self.fail("duplicate-key", "the merge key '<<' stands twice in one mapping", position)
            else:
                parent.merging = parent.has_merged = True
                parent.key, parent.wants_key = text, False
            return
        value = self.scalar_value(text, is_plain, tag, position)
        if anchor is not None:
            self.anchors[anchor] = _Anchored(value, text, 1, len(text), 0)
        self.nodes += 1
        self.characters += len(text)
        if self.nodes > self.max_nodes or self.characters > self.max_characters:
            self.check_limits(position)
        self.add(value, position)

    def start(self, value: dict[str, Any] | list[Any], properties: Properties, position: int) -> None:
        tag, anchor = properties
        is_mapping = isinstance(value, dict)
        if tag is not None and tag not in ("!", CORE_TAG + ("map" if is_mapping else "seq")):
            self.refuse_tag(tag, position)
        if self.stack and self.stack[-1].wants_key:
            self.fail("bad-key", f"a key is a {kind_of(value)}, not text", position)
        if len(self.stack) >= self.max_depth:
            self.fail("too-deep", f"nested deeper than {self.max_depth} levels", position)
        if anchor is not None:
            self.anchors[anchor] = None
        self.stack.append(_Collection(value, anchor, position, self.nodes, self.characters, is_mapping))
        self.nodes += 1
        if self.nodes > self.max_nodes or self.characters > self.max_characters:
            self.check_limits(position)

    def end(self) -> None:
        done = self.stack.pop()
        if done.anchor is not None:
            nodes, characters = self.nodes - done.nodes_before, self.characters - done.characters_before
            self.anchors[done.anchor] = _Anchored(done.value, None, nodes, characters, done.height)
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, done.height + 1)
        self.add(done.value, done.position)

    def alias(self, name: str, position: int) -> None:
        if name not in self.anchors:
            self.fail("bad-alias", f"the alias *{name} has no anchor before it", position)
        anchored = self.anchors[name]
        if anchored is None:
            self.fail("bad-alias", f"the alias *{name} stands inside what it names", position)
        parent = self.stack[-1]
        if parent.wants_key:
            if anchored.text is None:
                self.fail("bad-key", f"a key is a {kind_of(anchored.value)}, not text", position)
            self.key(parent, anchored.text, position)
            return
        if len(self.stack) + anchored.height > self.max_depth:
            self.fail("too-deep", f"nested deeper than {self.max_depth} levels", position)
        self.nodes += anchored.nodes
        self.characters += anchored.characters
        self.check_limits(position, is_alias=True)
        parent.height = max(parent.height, anchored.height + 1)
        self.add(anchored.value, position)

    # ---- what they do to the value ----

    def key(self, parent: _Collection, text: str, position: int) -> None:
        """Read a key. It is the text itself, even where a value of that text is a number: keys of JSON are strings."""
        if text in parent.value and text not in parent.merged_keys:
            self.complain("duplicate-key", f"the key {shortened(text)} stands twice in one mapping", position)
        self.characters += len(text)
        parent.key, parent.wants_key = text, False

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
                self.fail("bad-merge", f"'<<' merges a {kind_of(source)}, not a mapping", position)
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

    def refuse_tag(self, tag: str, position: int) -> NoReturn:
        # Conditions such as `if: !cancelled()` are the usual cause.
        what = f"{shortened(tag)} is a tag that YAML does not know; put a text that begins with '!' in quotes"
        self.fail("unknown-tag", what, position)

    def tagged(self, text: str, tag: str, position: int) -> Any:
        if tag in ("!", CORE_TAG + "str"):
            return text
        kind = tag.removeprefix(CORE_TAG)
        if not tag.startswith(CORE_TAG) or kind not in _TYPES_BY_TAG:
            self.refuse_tag(tag, position)
        value = self.resolved(text, position)
        if type(value) not in _TYPES_BY_TAG[kind]:
            self.fail("unknown-tag", f"{shortened(text)} is not of the type !!{kind}", position)
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
                self.fail("bad-number", f"{shortened(text)} is too large for a float", position)
            return number
        if _NOT_FINITE.fullmatch(text):
            self.fail("bad-number", f"{text} is not a number that JSON knows", position)
        return text
