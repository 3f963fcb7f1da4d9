"""JSON Schema to types: every combination of keywords brought to one form, a list of alternatives of one kind each.

A type is a tuple of alternatives; a value belongs to it when it belongs to one of them:

- ``Constant``: null, true or false;
- ``Number``: any JSON number (or integers only);
- ``Text``: an enumeration, or the strings of an automaton;
- ``Items``: an array shape;
- ``Fields``: an object shape.

``allOf`` intersects, ``anyOf`` unites, ``oneOf`` and ``not`` are worked out per kind: exactly for constants, numbers
and strings, and for objects as far as the presence of keys and the types of named keys tell alternatives apart. What
cannot be enforced exactly is named in ``Compiler.unenforced``, never dropped silently.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from nanochat_tct.tokenizer import automaton, numbers
from nanochat_tct.tokenizer.automaton import ANY_STRING, Automaton
from nanochat_tct.tokenizer.errors import SchemaError

MAX_FINITE_PATTERN = 16  # a pattern of keys with at most so many strings is read as that many named keys
MAX_ALTERNATIVES = 512
MAX_KEY_STATES = 256  # of an automaton of keys: every byte of a key asks whether one can go on from there
# What a schema may cost: pairs of alternatives that are compared, and the states of the automata in them. The largest
# schemas in use take a hundredth of it; combinations that multiply out reach it in well under a minute.
MAX_STEPS = 3_000_000

# An integer has at most 309 digits and a fraction's text is one that Python's repr can write: then every text of the
# language is a finite number.
_INTEGER = r"-?(0|[1-9][0-9]{0,308})"
_FRACTION = r"-?(0|[1-9][0-9]{0,16})\.[0-9]{1,22}"
_UP_TO_LARGEST = (
    ""  # a pattern of decimals that are not more than those of the largest float, 1.7976931348623157e+308
)
for _digit in reversed("7976931348623157"):
    _less = rf"[0-{int(_digit) - 1}][0-9]{{0,16}}|" if _digit != "0" else ""
    _UP_TO_LARGEST = rf"({_less}{_digit}{_UP_TO_LARGEST})?"
_LARGEST = rf"-?1(\.{_UP_TO_LARGEST.removesuffix('?')})?e\+308"
_EXPONENT = rf"-?[0-9](\.[0-9]{{1,17}})?e(-[0-9]{{2,3}}|\+[0-9]{{2}}|\+[12][0-9]{{2}}|\+30[0-7])|{_LARGEST}"
NUMBER_TEXT = automaton.from_pattern(f"^({_INTEGER}|{_FRACTION}|{_EXPONENT})$")
# a float at or above 1e16, which repr writes with an exponent, is always whole; JSON Schema counts it as an integer
_WHOLE_FLOAT = (
    r"-?(0|[1-9][0-9]{0,16})\.0|-?[0-9](\.[0-9]{1,17})?e\+(1[6-9]|[2-9][0-9]|[12][0-9]{2}|30[0-7])"
    rf"|{_LARGEST}"
)
INTEGER_TEXT = automaton.from_pattern(f"^({_INTEGER}|{_WHOLE_FLOAT})$")


@dataclass(frozen=True)
class Constant:
    value: bool | None


@dataclass(frozen=True)
class Number:
    text: Automaton = NUMBER_TEXT


@dataclass(frozen=True)
class Text:
    """Strings: the listed ones in order, or when ``values`` is None all that the automaton accepts."""

    values: tuple[str, ...] | None = None
    pattern: Automaton = ANY_STRING

    @cached_property
    def language(self) -> Automaton:
        return self.pattern if self.values is None else automaton.from_strings(self.values)


# A type that is not worked out yet: ("schema", pointer), ("all", frozenset of types) or ("any", tuple of types).
Lazy = tuple[str, Any]
ANY: Lazy = ("all", frozenset())
NEVER: Lazy = ("any", ())


@dataclass(frozen=True)
class Items:
    item: Lazy = ANY
    minimum: int = 0
    maximum: int | None = None


@dataclass(frozen=True)
class Fields:
    """An object shape. A key's type: all of its own and its patterns' types, or ``additional`` when it has none."""

    known: tuple[tuple[str, Lazy], ...] = ()
    patterns: tuple[tuple[Automaton, Lazy], ...] = ()
    additional: Lazy = ANY
    names: Automaton | None = None  # what keys may look like; None: anything
    required: frozenset[str] = frozenset()
    minimum: int = 0
    maximum: int | None = None

    @cached_property
    def types(self) -> dict[str, Lazy]:
        return dict(self.known)

    def type_of(self, key: str) -> Lazy:
        if not self.patterns and self.names is None:
            return self.types.get(key, self.additional)
        encoded = key.encode("utf-8")
        if self.names is not None and not self.names.accepts(encoded):
            return NEVER
        found = [self.types[key]] if key in self.types else []
        found += [lazy for pattern, lazy in self.patterns if pattern.accepts(encoded)]
        return all_of(found) if found else self.additional

    def with_key(self, key: str, lazy: Lazy) -> Fields:
        return replace(self, known=tuple({**self.types, key: lazy}.items()))


Alternative = Constant | Number | Text | Items | Fields
Type = tuple[Alternative, ...]
EVERYTHING: Type = (Constant(None), Constant(True), Constant(False), Number(), Text(), Items(), Fields())


def all_of(types: Iterable[Lazy]) -> Lazy:
    flat: set[Lazy] = set()
    for lazy in types:
        flat |= lazy[1] if lazy[0] == "all" else {lazy}
    if NEVER in flat:
        return NEVER
    return next(iter(flat)) if len(flat) == 1 else ("all", frozenset(flat))


def any_of(types: Iterable[Lazy]) -> Lazy:
    flat: list[Lazy] = []
    for lazy in types:
        for member in lazy[1] if lazy[0] == "any" else (lazy,):
            if member not in flat:
                flat.append(member)
    if ANY in flat:
        return ANY
    return flat[0] if len(flat) == 1 else ("any", tuple(flat))


# fmt: off
ANNOTATIONS = frozenset([
    "$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples",
    "deprecated", "readOnly", "writeOnly", "format", "contentMediaType", "contentEncoding",
    "markdownDescription", "enumDescriptions", "markdownEnumDescriptions", "$anchor", "id",
    # of editors
    "markdownEnumDescriptions", "defaultSnippets", "deprecationMessage", "doNotSuggest", "errorMessage",
    "patternErrorMessage", "suggestSortText", "allowComments", "allowTrailingCommas", "tsType", "example",
])
KEYWORDS = frozenset([
    "$ref", "type", "enum", "const", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "pattern",
    "minLength", "maxLength", "items", "additionalItems", "minItems", "maxItems", "properties",
    "patternProperties", "additionalProperties", "propertyNames", "required", "minProperties",
    "maxProperties", "dependencies", "dependentRequired", "dependentSchemas",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems", "prefixItems",
    "unevaluatedProperties",
])
UNENFORCED = frozenset([
    "contains", "unevaluatedItems", "minContains", "maxContains", "$dynamicRef", "$recursiveRef",
])
KINDS = ("null", "boolean", "number", "integer", "string", "array", "object")
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
MAPPINGS = ("properties", "patternProperties", "dependencies", "dependentRequired", "dependentSchemas")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "enum")
# fmt: on


def check_keywords(schema: dict[str, Any], pointer: str) -> None:
    """Refuses keywords whose values are not of the kind that JSON Schema gives them.

    Raises:
        SchemaError: names the first one.
    """

    def demand(condition: bool, keyword: str, what: str) -> None:
        if not condition:
            raise SchemaError(f"{pointer or '/'}: {keyword} must be {what}")

    for keyword in COUNTS:
        count = schema.get(keyword, 0)
        demand(_is_number(count) and count >= 0 and count == int(count), keyword, "a whole number from 0 on")
    for keyword in MAPPINGS:
        demand(isinstance(schema.get(keyword, {}), dict), keyword, "an object")
    for keyword in LISTS:
        demand(isinstance(schema.get(keyword, []), list), keyword, "an array")
    for keyword in ("minimum", "maximum", "multipleOf"):
        demand(_is_number(schema.get(keyword, 0)), keyword, "a number")
    for keyword in ("exclusiveMinimum", "exclusiveMaximum"):
        limit = schema.get(keyword, 0)
        demand(isinstance(limit, bool) or _is_number(limit), keyword, "a number")
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    demand(
        isinstance(kinds, list) and all(isinstance(kind, str) and kind in KINDS for kind in kinds),
        "type",
        f"one or more of {', '.join(KINDS)}",
    )
    patterns = [schema.get("pattern", ""), *schema.get("patternProperties", {})]
    demand(all(isinstance(pattern, str) for pattern in patterns), "pattern", "a string")
    needed = [schema.get("required", [])]
    needed += list(schema.get("dependentRequired", {}).values())
    needed += [value for value in schema.get("dependencies", {}).values() if isinstance(value, list)]
    # draft 3 had a required of its own, true or false; it is left aside where a draft 4 schema still carries one
    demand(
        all(
            isinstance(names, bool)
            or (isinstance(names, list) and all(isinstance(name, str) for name in names))
            for names in needed
        ),
        "required",
        "an array of strings",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Compiler:
    """Works out the types of one schema document.

    Attributes:
        unenforced: "pointer: keyword ..." for everything that the types do not state exactly.
    """

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.unenforced: list[str] = []
        self._resolved: dict[Lazy, Type] = {}
        self._working: set[Lazy] = set()
        self._steps = 0
        self._anchors: dict[str, str] | None = None
        self._reported: set[str] = set()
        self._known_keywords = set(KEYWORDS | ANNOTATIONS)
        draft = str(schema.get("$schema", "")) if isinstance(schema, dict) else ""
        # since draft 2019-09 keywords beside $ref count; before, and in draft 7, they are ignored
        self.ref_has_siblings = "2019-09" in draft or "2020-12" in draft

    def resolve(self, lazy: Lazy) -> Type:
        """The alternatives of a type.

        Raises:
            SchemaError: the schema refers to itself without anything in between, or is not a schema.
        """
        if lazy in self._resolved:
            return self._resolved[lazy]
        if lazy in self._working:
            raise SchemaError(f"{_place(lazy)}: refers to itself without a property or item in between")
        self._working.add(lazy)
        try:
            if lazy[0] == "schema":
                result = self._compile(lazy[1])
            elif lazy[0] == "all":
                result = EVERYTHING
                for member in sorted(lazy[1], key=repr):
                    result = self._intersect(result, self.resolve(member))
            else:
                result = self._unite([self.resolve(member) for member in lazy[1]])
        finally:
            self._working.discard(lazy)
        self._resolved[lazy] = result
        return result

    # ---- one schema ----

    def _lookup(self, pointer: str) -> Any:
        here = self.schema
        for part in pointer.split("/")[1:]:
            part = unquote(part).replace("~1", "/").replace("~0", "~")
            try:
                here = here[int(part)] if isinstance(here, list) else here[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise SchemaError(f"{pointer}: $ref points to nothing in this schema") from None
        return here

    def _target(self, reference: Any, pointer: str) -> Lazy:
        """What a $ref refers to: a pointer or an anchor in this document, with or without the document's own $id."""
        inside = reference if isinstance(reference, str) else ""
        own = self.schema.get("$id", self.schema.get("id", "")) if isinstance(self.schema, dict) else ""
        if isinstance(own, str) and own.rstrip("#") and inside.startswith(own.rstrip("#")):
            inside = inside.removeprefix(own.rstrip("#")) or "#"
        if inside == "#" or inside.startswith("#/"):
            return ("schema", inside[1:])
        if self._anchors is None:
            self._anchors = {}
            waiting = [("", self.schema)]
            for place, schema in waiting:  # grows while we walk
                if isinstance(schema, dict):
                    for name in ("$anchor", "$id", "id"):
                        if isinstance(schema.get(name), str):
                            anchor = schema[name]
                            self._anchors.setdefault("#" + anchor if name == "$anchor" else anchor, place)
                    waiting += [(f"{place}/{_escape(str(key))}", value) for key, value in schema.items()]
                elif isinstance(schema, list):
                    waiting += [(f"{place}/{index}", value) for index, value in enumerate(schema)]
        if inside and inside in self._anchors:
            return ("schema", self._anchors[inside])
        raise SchemaError(
            f"{pointer or '/'}: only references inside the document can be compiled, not {reference!r}"
        )

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise SchemaError(
                "the combinations of this schema multiply out to more than can be compiled; simplify it"
            )

    def _compile(self, pointer: str) -> Type:
        schema = self._lookup(pointer)
        if schema is True:
            return EVERYTHING
        if schema is False:
            return ()
        if not isinstance(schema, dict):
            raise SchemaError(f"{pointer or '/'}: a schema is an object, true or false")
        self._spend(1)
        check_keywords(schema, pointer)
        if "$ref" in schema:
            referred = self.resolve(self._target(schema["$ref"], pointer))
            if not self.ref_has_siblings:
                return referred
        else:
            referred = EVERYTHING
        known = self._known_keywords
        for keyword in schema:
            if keyword in UNENFORCED:
                self._note(pointer, keyword)
            elif keyword not in known and not keyword.startswith("x-"):
                known.add(keyword)  # told once: some schemas have an annotation of their own everywhere
                self._note(pointer, f"unknown keyword {keyword!r}")

        result = self._intersect(referred, self._own_keywords(schema, pointer))
        subschemas = {
            name: [("schema", f"{pointer}/{name}/{i}") for i in range(len(schema[name]))]
            for name in ("allOf", "anyOf", "oneOf")
            if name in schema
        }
        choices: list[tuple[str, list[Lazy]]] = []
        for index, member in enumerate(subschemas.get("allOf", [])):
            inner = schema["allOf"][index]
            if isinstance(inner, dict) and set(inner) - ANNOTATIONS == {"oneOf"}:
                # a oneOf that stands alone is worked out below, where all else that must hold is known: then fewer
                # of its alternatives overlap
                check_keywords(inner, f"{pointer}/allOf/{index}")
                place = f"{pointer}/allOf/{index}/oneOf"
                choices.append((place, [("schema", f"{place}/{i}") for i in range(len(inner["oneOf"]))]))
            else:
                result = self._intersect(result, self.resolve(member))
        if "anyOf" in schema:
            result = self._intersect(result, self._unite([self.resolve(m) for m in subschemas["anyOf"]]))
        if "oneOf" in schema:
            choices.append((f"{pointer}/oneOf", subschemas["oneOf"]))
        for place, alternatives in choices:
            members = [self._intersect(result, self.resolve(m)) for m in alternatives]
            result = self._exactly_one(members, place)
        if "not" in schema:
            result = self._subtract(result, self.resolve(("schema", f"{pointer}/not")), f"{pointer}/not")
        if "if" in schema:
            condition = self.resolve(("schema", f"{pointer}/if"))
            then = self.resolve(("schema", f"{pointer}/then")) if "then" in schema else EVERYTHING
            otherwise = self.resolve(("schema", f"{pointer}/else")) if "else" in schema else EVERYTHING
            met = self._intersect(self._intersect(result, condition), then)
            unmet = self._intersect(self._subtract(result, condition, f"{pointer}/if"), otherwise)
            result = self._unite([met, unmet])
        for keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
            for key, needed in schema.get(keyword, {}).items():
                if isinstance(needed, list):
                    demanded: Type = (Fields(required=frozenset(needed)),)
                else:
                    demanded = self.resolve(("schema", f"{pointer}/{keyword}/{_escape(key)}"))
                absent = Fields(known=((key, NEVER),))
                others = tuple(a for a in EVERYTHING if not isinstance(a, Fields))
                result = self._intersect(result, self._unite([(*others, *demanded), (absent,)]))
        if schema.get("unevaluatedProperties", True) is not True:
            evaluated = self._evaluated(pointer, set())
            if evaluated is None:
                self._note(pointer, "unevaluatedProperties beside alternatives that evaluate properties")
            else:
                rest = self._lazy(schema["unevaluatedProperties"], f"{pointer}/unevaluatedProperties")
                others = tuple(a for a in EVERYTHING if not isinstance(a, Fields))
                result = self._intersect(result, (*others, replace(evaluated, additional=rest)))
        return result

    def _evaluated(self, pointer: str, visited: set[str]) -> Fields | None:
        """A shape with the keys that a schema evaluates; None where that depends on the value."""
        schema = self._lookup(pointer)
        if not isinstance(schema, dict) or pointer in visited:
            return Fields()
        visited = visited | {pointer}
        inner = [f"{pointer}/allOf/{index}" for index in range(len(schema.get("allOf", [])))]
        if "$ref" in schema:
            inner.append(self._target(schema["$ref"], pointer)[1])
        known = dict.fromkeys(schema.get("properties", {}), ANY)
        patterns = [(automaton.from_pattern(text), ANY) for text in schema.get("patternProperties", {})]
        if "additionalProperties" in schema:
            patterns.append((ANY_STRING, ANY))
        for place in inner:
            found = self._evaluated(place, visited)
            if found is None:
                return None
            known |= found.types
            patterns += [item for item in found.patterns if item not in patterns]
        depends = [f"{pointer}/{name}" for name in ("if", "then", "else") if name in schema]
        for name in ("anyOf", "oneOf"):
            depends += [f"{pointer}/{name}/{index}" for index in range(len(schema.get(name, [])))]
        for name in ("dependentSchemas", "dependencies"):
            depends += [f"{pointer}/{name}/{_escape(key)}" for key in schema.get(name, {})]
        for place in depends:
            found = self._evaluated(place, visited)
            if found is None or set(found.types) - set(known) or set(found.patterns) - set(patterns):
                return None
        return Fields(known=tuple(known.items()), patterns=tuple(patterns))

    def _own_keywords(self, schema: dict[str, Any], pointer: str) -> Type:
        kinds = schema.get("type", ["null", "boolean", "number", "string", "array", "object"])
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        result: list[Alternative] = []
        if "null" in kinds:
            result.append(Constant(None))
        if "boolean" in kinds:
            result += [Constant(True), Constant(False)]
        if "number" in kinds or "integer" in kinds:
            text = self._number(schema, pointer, NUMBER_TEXT if "number" in kinds else INTEGER_TEXT)
            if not text.is_empty:
                result.append(Number(text))
        if "string" in kinds:
            result.append(self._text(schema, pointer))
        if "array" in kinds:
            items = self._items(schema, pointer)
            if items.maximum is None or items.minimum <= items.maximum:
                result.append(items)
        if "object" in kinds:
            fields = self._fields(schema, pointer)
            most = fields.maximum is None or max(fields.minimum, len(fields.required)) <= fields.maximum
            if most and not any(fields.type_of(key) == NEVER for key in fields.required):
                result.append(fields)
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        return tuple(result) if values is None else self._only(tuple(result), values, pointer)

    def _number(self, schema: dict[str, Any], pointer: str, text: Automaton) -> Automaton:
        if schema.get("multipleOf", 1) == 1:
            text = INTEGER_TEXT if "multipleOf" in schema else text
        else:
            self._note(pointer, "multipleOf")
        for keyword, exclusive, bounded in (
            ("minimum", "exclusiveMinimum", numbers.at_least),
            ("maximum", "exclusiveMaximum", numbers.at_most),
        ):
            limits = [(keyword, schema[keyword], schema.get(exclusive) is True)] if keyword in schema else []
            if exclusive in schema and not isinstance(schema[exclusive], bool):
                limits.append((exclusive, schema[exclusive], True))  # draft 4 had a boolean here
            for name, limit, strictly in limits:
                allowed = bounded(limit, strictly)
                if allowed is None:
                    self._note(pointer, f"{name} {limit}")
                else:
                    text = automaton.intersection(text, allowed)
        return text

    def _text(self, schema: dict[str, Any], pointer: str) -> Text:
        pattern = ANY_STRING
        try:
            if "pattern" in schema:
                pattern = automaton.from_pattern(schema["pattern"])
            if schema.get("minLength", 0) or "maxLength" in schema:
                limit = automaton.from_length(int(schema.get("minLength", 0)), _count(schema, "maxLength"))
                pattern = automaton.intersection(pattern, limit)
        except SchemaError as error:
            self._note(pointer, str(error))
        return Text(pattern=pattern)

    def _items(self, schema: dict[str, Any], pointer: str) -> Items:
        item: Lazy = ANY
        minimum, maximum = int(schema.get("minItems", 0)), _count(schema, "maxItems")
        first = "items" if isinstance(schema.get("items"), list) else "prefixItems"
        rest = "additionalItems" if first == "items" else "items"
        if schema.get(first):
            by_position = [self._lazy(s, f"{pointer}/{first}/{i}") for i, s in enumerate(schema[first])]
            item = any_of([*by_position, self._lazy(schema.get(rest, True), f"{pointer}/{rest}")])
            if schema.get(rest) is False:
                maximum = _least(maximum, len(by_position))
            if maximum == 0 or len({*by_position[:maximum]}) > 1 or item != by_position[0]:
                self._note(pointer, "items of different types by position")
        elif "items" in schema and not isinstance(schema["items"], list):
            item = self._lazy(schema["items"], f"{pointer}/items")
        if schema.get("uniqueItems", False) is not False and (maximum is None or maximum > 1):
            self._note(pointer, "uniqueItems")
        return Items(item, minimum, maximum)

    def _fields(self, schema: dict[str, Any], pointer: str) -> Fields:
        known = {
            key: self._lazy(value, f"{pointer}/properties/{_escape(key)}")
            for key, value in schema.get("properties", {}).items()
        }
        patterns: list[tuple[Automaton, Lazy]] = []
        for text, value in schema.get("patternProperties", {}).items():
            lazy = self._lazy(value, f"{pointer}/patternProperties/{_escape(text)}")
            try:
                pattern = automaton.from_pattern(text)
                if len(pattern.edges) > MAX_KEY_STATES:
                    raise SchemaError(f"pattern {text!r}: is too long for keys")
            except SchemaError as error:
                # keys that it may mean would fall to additionalProperties and be refused: let them be anything
                self._note(pointer, str(error))
                pattern, lazy = ANY_STRING, ANY
            finite = pattern.strings(MAX_FINITE_PATTERN)
            if finite is None:
                patterns.append((pattern, lazy))
            for key in finite or []:
                known[key] = all_of([known[key], lazy]) if key in known else lazy
        additional = self._lazy(schema.get("additionalProperties", True), f"{pointer}/additionalProperties")
        names = None
        if "propertyNames" in schema:
            texts = [a for a in self.resolve(("schema", f"{pointer}/propertyNames")) if isinstance(a, Text)]
            names = texts[0].language if texts else automaton.EMPTY
            if len(names.edges) > MAX_KEY_STATES:
                self._note(pointer, "propertyNames that may be long")
                names = None
        required = schema.get("required", [])
        return Fields(
            known=tuple(known.items()),
            patterns=tuple(patterns),
            additional=additional,
            names=names,
            required=frozenset(required if isinstance(required, list) else []),
            minimum=int(schema.get("minProperties", 0)),
            maximum=_count(schema, "maxProperties"),
        )

    def _lazy(self, schema: Any, pointer: str) -> Lazy:
        if schema is True or schema == {}:
            return ANY
        if schema is False:
            return NEVER
        if (
            isinstance(schema, dict)
            and set(schema) - ANNOTATIONS == {"$ref"}
            and str(schema["$ref"]).startswith("#")
        ):
            return self._target(schema["$ref"], pointer)  # one name for one type, wherever it is used
        return ("schema", pointer)

    def _only(self, alternatives: Type, values: list[Any], pointer: str) -> Type:
        result: list[Alternative] = []
        texts = [a for a in alternatives if isinstance(a, Text)]
        strings = [
            v for v in values if isinstance(v, str) and any(t.language.accepts(v.encode()) for t in texts)
        ]
        if strings:
            result.append(Text(values=tuple(dict.fromkeys(strings))))
        result += [a for a in alternatives if isinstance(a, Constant) and any(v is a.value for v in values)]
        spelled = [
            text
            for text in sorted({text for value in values if _is_number(value) for text in _spellings(value)})
            if any(isinstance(a, Number) and a.text.accepts(text.encode()) for a in alternatives)
        ]
        if spelled:
            result.append(Number(automaton.from_strings(spelled)))
        shapes = [
            shape for value in values if isinstance(value, list | dict) if (shape := self._literal(value))
        ]
        if len(shapes) < sum(isinstance(value, list | dict) for value in values):
            self._note(pointer, "an enumeration of arrays or objects")
            result += [a for a in alternatives if isinstance(a, Items | Fields)]
            return tuple(result)
        return self._unite(
            [tuple(result), self._intersect(alternatives, self._unite([(s,) for s in shapes]))]
        )

    def _literal(self, value: Any) -> Alternative | None:
        """The alternative that just one value belongs to; None where the types cannot say that."""
        if value is None or isinstance(value, bool):
            return Constant(value)
        if isinstance(value, str):
            return Text(values=(value,))
        if _is_number(value):
            return Number(automaton.from_strings(sorted(_spellings(value))))
        inner = value if isinstance(value, list) else list(value.values())
        members: list[Lazy] = []
        for item in inner:
            alternative = self._literal(item)
            if alternative is None:
                return None
            lazy: Lazy = ("type", (alternative,))
            self._resolved[lazy] = (alternative,)
            members.append(lazy)
        if isinstance(value, dict):
            return Fields(tuple(zip(value, members, strict=True)), (), NEVER, None, frozenset(value))
        if len(set(members)) > 1:
            return None
        return Items(members[0] if members else NEVER, len(members), len(members))

    # ---- algebra of types ----

    def _unite(self, types: list[Type]) -> Type:
        """One text and one number alternative, and the shapes that no other shape contains."""
        constants = [c for c in EVERYTHING if isinstance(c, Constant) and any(c in t for t in types)]
        result: list[Alternative] = list(constants)
        texts_of_numbers = dict.fromkeys(a.text for t in types for a in t if isinstance(a, Number))
        if texts_of_numbers:
            joined = NUMBER_TEXT if NUMBER_TEXT in texts_of_numbers else automaton.EMPTY
            for text in texts_of_numbers if joined is automaton.EMPTY else ():
                joined = automaton.union(joined, text)
            result.append(Number(joined))
        texts = [a for t in types for a in t if isinstance(a, Text)]
        if texts:
            result.append(_join_texts(texts))
        shapes: list[Alternative] = []
        seen: set[Alternative] = set()
        for alternative in (a for t in types for a in t if isinstance(a, Items | Fields)):
            if alternative in seen:
                continue
            seen.add(alternative)
            self._spend(len(shapes) * _size(alternative))
            if not any(_contains(other, alternative) for other in shapes):
                shapes = [other for other in shapes if not _contains(alternative, other)] + [alternative]
        if len(shapes) > MAX_ALTERNATIVES:
            raise SchemaError(
                f"a type has {len(shapes)} alternatives, more than {MAX_ALTERNATIVES}; simplify it"
            )
        return (*result, *shapes)

    def _intersect(self, left: Type, right: Type) -> Type:
        if left is EVERYTHING or right is EVERYTHING:
            return right if left is EVERYTHING else left
        result: list[Type] = []
        for a in left:
            for b in right:
                if type(a) is type(b):
                    self._spend(_size(a) + _size(b))
                    both = self._intersect_pair(a, b)
                    if both is not None:
                        result.append((both,))
        return self._unite(result)

    def _intersect_pair(self, a: Alternative, b: Alternative) -> Alternative | None:
        if a == b:
            return a
        if isinstance(a, Number) and isinstance(b, Number):
            text = automaton.intersection(a.text, b.text)
            return None if text.is_empty else Number(text)
        if isinstance(a, Text) and isinstance(b, Text):
            if b.values is not None and a.values is None:
                a, b = b, a
            if a.values is not None:
                kept = tuple(v for v in a.values if b.language.accepts(v.encode()))
                return Text(values=kept) if kept else None
            both = automaton.intersection(a.pattern, b.pattern)
            return None if both.is_empty else Text(pattern=both)
        if isinstance(a, Items) and isinstance(b, Items):
            maximum = _least(a.maximum, b.maximum)
            minimum = max(a.minimum, b.minimum)
            if maximum is not None and minimum > maximum:
                return None
            return Items(all_of([a.item, b.item]), minimum, maximum)
        if isinstance(a, Fields) and isinstance(b, Fields):
            return self._intersect_fields(a, b)
        return None

    def _intersect_fields(self, a: Fields, b: Fields) -> Fields | None:
        if (
            (a.patterns or b.patterns)
            and a.patterns != b.patterns
            and not (a.additional == b.additional == ANY)
        ):
            # a key that matches a pattern of one side takes the other side's additional type: split by pattern
            return self._intersect_patterned(a, b)
        keys = list(dict.fromkeys([key for key, _ in a.known] + [key for key, _ in b.known]))
        known = tuple((key, all_of([a.type_of(key), b.type_of(key)])) for key in keys)
        patterns = a.patterns if a.patterns == b.patterns else a.patterns + b.patterns
        names = a.names if b.names is None else b.names
        if a.names is not None and b.names is not None:
            names = automaton.intersection(a.names, b.names)
        required = a.required | b.required
        result = Fields(
            known,
            patterns,
            all_of([a.additional, b.additional]),
            names,
            required,
            max(a.minimum, b.minimum),
            _least(a.maximum, b.maximum),
        )
        impossible = any(result.type_of(key) == NEVER for key in required)
        impossible |= result.maximum is not None and result.maximum < max(result.minimum, len(required))
        return None if impossible else result

    def _intersect_patterned(self, a: Fields, b: Fields) -> Fields | None:
        """Both sides rewritten over patterns that exclude each other, so that types can be intersected one by one."""
        distinct = list(dict.fromkeys([p for p, _ in a.patterns] + [p for p, _ in b.patterns]))
        cells: list[tuple[Automaton, frozenset[int]]] = [(ANY_STRING, frozenset())]
        for index, pattern in enumerate(distinct):
            cells = [
                cell
                for part, members in cells
                for cell in (
                    (automaton.intersection(part, pattern), members | {index}),
                    (automaton.difference(part, pattern), members),
                )
                if not cell[0].is_empty
            ]

        def cell_type(side: Fields, members: frozenset[int]) -> Lazy:
            found = [lazy for pattern, lazy in side.patterns if distinct.index(pattern) in members]
            return all_of(found) if found else side.additional

        keys = list(dict.fromkeys([key for key, _ in a.known] + [key for key, _ in b.known]))
        known = tuple((key, all_of([a.type_of(key), b.type_of(key)])) for key in keys)
        own = automaton.from_strings(keys)
        patterns = tuple(
            (automaton.difference(part, own), all_of([cell_type(a, members), cell_type(b, members)]))
            for part, members in cells
            if members
        )
        merged = self._intersect_fields(
            replace(a, known=(), patterns=(), required=frozenset()),
            replace(b, known=(), patterns=(), required=frozenset()),
        )
        assert merged is not None
        merged = replace(merged, required=a.required | b.required)
        result = replace(merged, known=known, patterns=patterns)
        return None if any(result.type_of(key) == NEVER for key in result.required) else result

    def _exactly_one(self, members: list[Type], pointer: str) -> Type:
        kept: list[Type] = []
        for index, member in enumerate(members):
            for j, other in enumerate(members):
                if j != index:
                    member = self._subtract(member, other, pointer)
            kept.append(member)
        return self._unite(kept)

    def _subtract(self, left: Type, right: Type, pointer: str) -> Type:
        """The values of left that are not in right; what cannot be taken away exactly is noted and kept."""
        result: list[Type] = []
        for a in left:
            remaining: list[Alternative] = [a]
            for b in right:
                if type(a) is type(b):
                    self._spend(len(remaining) * (_size(a) + _size(b)))
                    remaining = [piece for r in remaining for piece in self._subtract_pair(r, b, pointer)]
            result += [(piece,) for piece in remaining]
        return self._unite(result)

    def _subtract_pair(self, a: Alternative, b: Alternative, pointer: str) -> list[Alternative]:
        if _contains(b, a):
            return []
        if isinstance(a, Constant):
            return [a]
        if isinstance(a, Number) and isinstance(b, Number):
            text = automaton.intersection(automaton.difference(a.text, b.text), numbers.WRITTEN)
            return [] if text.is_empty else [Number(text)]
        if isinstance(a, Text) and isinstance(b, Text):
            if a.values is not None:
                kept = tuple(v for v in a.values if not b.language.accepts(v.encode()))
                return [Text(values=kept)] if kept else []
            rest = automaton.difference(a.pattern, b.language)
            return [] if rest.is_empty else [Text(pattern=rest)]
        if isinstance(a, Items) and isinstance(b, Items):
            return self._subtract_items(a, b, pointer)
        assert isinstance(a, Fields) and isinstance(b, Fields)
        return self._subtract_fields(a, b, pointer)

    def _subtract_items(self, a: Items, b: Items, pointer: str) -> list[Alternative]:
        result: list[Alternative] = []
        if b.minimum > a.minimum:
            result.append(replace(a, maximum=_least(a.maximum, b.minimum - 1)))
        if b.maximum is not None and (a.maximum is None or a.maximum > b.maximum):
            result.append(replace(a, minimum=max(a.minimum, b.maximum + 1)))
        if b.item in (ANY, a.item):
            return result
        try:
            outer, inner = self.resolve(a.item), self.resolve(b.item)
            if all(any(_contains(wider, item) for wider in inner) for item in outer):
                return result
        except SchemaError:
            pass  # an item type that is just being worked out: it is compared by its name only
        if min(a.minimum, 1) and min(b.minimum, 1) and not self.resolve(all_of([a.item, b.item])):
            return [a]  # no array is in both
        self._note(pointer, "two array alternatives that overlap")
        return [a]

    def _subtract_fields(self, a: Fields, b: Fields, pointer: str) -> list[Alternative]:
        if self._disjoint(a, b):
            return [a]
        open_ended = b.patterns or b.additional not in (ANY, a.additional) or b.names not in (None, a.names)
        if open_ended:
            self._note(pointer, "two object alternatives that overlap")
            return [a]
        result: list[Fields] = []
        for key in sorted(b.required - a.required):
            result.append(a.with_key(key, NEVER))  # lacks what b demands
        for key, lazy in b.known:
            if lazy not in (ANY, a.type_of(key)):
                outside = self._subtract(self.resolve(a.type_of(key)), self.resolve(lazy), pointer)
                if outside:
                    fresh: Lazy = ("type", outside)
                    self._resolved[fresh] = outside
                    shape = replace(a.with_key(key, fresh), required=a.required | {key})
                    result.append(shape)
        if b.minimum > a.minimum:
            result.append(replace(a, maximum=_least(a.maximum, b.minimum - 1)))
        if b.maximum is not None and (a.maximum is None or a.maximum > b.maximum):
            result.append(replace(a, minimum=max(a.minimum, b.maximum + 1)))
        return list(result)

    def _disjoint(self, a: Fields, b: Fields) -> bool:
        for key in a.required | b.required:
            both = all_of([a.type_of(key), b.type_of(key)])
            if both == NEVER:
                return True
            if (
                key in a.required
                and key in b.required
                and both not in self._working
                and not self.resolve(both)
            ):
                return True
        return False

    def _note(self, pointer: str, what: str) -> None:
        note = f"{pointer or '/'}: {what}"
        if note not in self._reported:
            self._reported.add(note)
            self.unenforced.append(note)


def _join_texts(texts: list[Text]) -> Text:
    if all(text.values is not None for text in texts):
        return Text(values=tuple(dict.fromkeys(v for text in texts for v in text.values or ())))
    joined = automaton.EMPTY
    for language in dict.fromkeys(text.language for text in texts):
        if language == ANY_STRING:
            return Text()
        joined = automaton.union(joined, language)
    return Text(pattern=joined)


def _contains(a: Alternative, b: Alternative) -> bool:
    """Whether every value of b is surely one of a (False where it is not obvious)."""
    if a == b:
        return True
    if isinstance(a, Items) and isinstance(b, Items):
        return (
            a.item in (ANY, b.item)
            and a.minimum <= b.minimum
            and (a.maximum is None or (b.maximum is not None and b.maximum <= a.maximum))
        )
    if isinstance(a, Fields) and isinstance(b, Fields):
        if not a.required <= b.required or a.minimum > b.minimum or a.names not in (None, b.names):
            return False
        if a.maximum is not None and (b.maximum is None or b.maximum > a.maximum):
            return False
        if a.additional not in (ANY, b.additional) and b.additional != NEVER:
            return False
        if a.patterns and a.patterns != b.patterns:
            return False
        if not a.patterns and b.patterns and a.additional != ANY:
            return False
        keys = set(a.types) | set(b.types)
        return all(a.type_of(key) in (ANY, b.type_of(key)) or b.type_of(key) == NEVER for key in keys)
    return False


def _size(alternative: Alternative) -> int:
    """About how long it takes to combine an alternative with another one."""
    if isinstance(alternative, Number):
        return 1 + len(alternative.text.edges)
    if isinstance(alternative, Text):
        return 1 + (len(alternative.pattern.edges) if alternative.values is None else len(alternative.values))
    return 1 + len(alternative.known) if isinstance(alternative, Fields) else 1


def _spellings(value: int | float) -> set[str]:
    """The JSON texts of a number: 1 and 1.0 are equal."""
    spelled = {json.dumps(value)}
    if value == int(value):
        spelled.add(str(int(value)) if abs(value) < 10**309 else "")
    if abs(value) < 10**308:
        spelled.add(json.dumps(float(value)))
    return spelled - {""}


def _count(schema: dict[str, Any], keyword: str) -> int | None:
    return int(schema[keyword]) if keyword in schema else None


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1").replace("%", "%25")


def _place(lazy: Lazy) -> str:
    return lazy[1] or "/" if lazy[0] == "schema" else "a combination of schemas"
