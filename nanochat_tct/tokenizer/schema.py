"""JSON Schema to types: every combination of keywords brought to one form, a list of alternatives of one kind each.

A type is a tuple of alternatives; a value belongs to it when it belongs to one of them:

- ``Constant``: null, true or false;
- ``Number``: any JSON number (or integers only);
- ``Text``: an enumeration, or the strings of an automaton;
- ``Items``: an array shape;
- ``Fields``: an object shape.

Some keywords cannot be said in these terms (``uniqueItems``, ``contains``, some patterns). So an alternative has two
bounds: the values that it allows, which include all that the schema allows, and those that surely belong to it.
Numbers and strings have an automaton for each; constants, arrays and objects are either exact or none of their values
surely belongs to them. A negation takes away only what surely belongs to the other side.

``allOf`` intersects, ``anyOf`` unites, ``oneOf``, ``not`` and ``if`` subtract, kind by kind: exactly for constants,
numbers and strings, and for objects as far as the presence of keys and the types of named keys tell alternatives apart.
What is not enforced exactly is named in ``Compiler.unenforced``, never dropped silently.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from nanochat_tct.tokenizer import automaton, numbers
from nanochat_tct.tokenizer.automaton import ANY_STRING, Automaton
from nanochat_tct.tokenizer.errors import SchemaError
from nanochat_tct.tokenizer.expressions import Rule
from nanochat_tct.tokenizer.references import Draft, References, escape

MAX_FINITE_PATTERN = 16  # a pattern of keys with at most so many strings is read as that many named keys
MAX_ALTERNATIVES = 512
MAX_PIECES = 64  # alternatives that one alternative may fall into when others are taken away from it
MAX_NESTING = (
    12  # levels of arrays and objects down to which a negation is exact; recursive types have no last one
)
MAX_KEY_STATES = 256  # of an automaton of keys: every byte of a key asks whether one can go on from there
# What a schema may cost: pairs of alternatives that are compared, and the states of the automata in them. The largest
# schemas in use take a hundredth of it; combinations that multiply out reach it in well under a minute.
MAX_STEPS = 3_000_000
MAX_NEGATION_STEPS = 100_000  # of these for one oneOf, not or if, which is approximated where it needs more

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
PLAIN_INTEGER_TEXT = automaton.from_pattern(f"^({_INTEGER})$")


@dataclass(frozen=True)
class Names:
    """Names that texts or keys define: references to a name of the kind are legal from then on.

    Attributes:
        unique: whether a name must not be defined twice: "always", or "strict" for strict mode only.
        late: whether they count from the end of the object that the text is in, or of the key's value, on.
        opens: whether any name of the kind is legal from then on.
    """

    kind: str
    unique: str = ""
    late: bool = False
    opens: bool = False


@dataclass(frozen=True)
class Constant:
    value: bool | None
    exact: bool = True
    lenient: bool = False  # here and below: strict mode does not offer it (see compile.py)


@dataclass(frozen=True)
class Number:
    """Numbers by their JSON texts; ``certain`` are those that surely belong, None: all of them."""

    text: Automaton = NUMBER_TEXT
    certain: Automaton | None = None
    lenient: bool = False

    @property
    def exact(self) -> bool:
        return self.certain is None

    @property
    def lower(self) -> Automaton:
        return self.text if self.certain is None else self.certain


@dataclass(frozen=True)
class Text:
    """Strings: the listed ones in order, or when ``values`` is None all that the automaton accepts.

    ``certain`` are those that surely belong, None: all of them. Instead of an automaton, GitHub's language has rules
    that call one another, and texts that define names.
    """

    values: tuple[str, ...] | None = None
    pattern: Automaton | Rule = ANY_STRING
    certain: Automaton | None = None
    lenient: bool = False
    defines: Names | None = None
    implies: str = ""  # the kind of names that come with its values

    @cached_property
    def language(self) -> Automaton:
        assert isinstance(self.pattern, Automaton)
        return self.pattern if self.values is None else automaton.from_strings(self.values)

    @property
    def exact(self) -> bool:
        return self.certain is None

    @property
    def lower(self) -> Automaton:
        return self.language if self.certain is None else self.certain


# A type that is not worked out yet: ("schema", pointer), ("all", frozenset of types), ("any", tuple of types), or
# ("type", ...) of one that was made on the way. It names a set of values: equal names are equal sets, even where the
# alternatives only approximate them.
Lazy = tuple[str, Any]
ANY: Lazy = ("all", frozenset())
NEVER: Lazy = ("any", ())


@dataclass(frozen=True)
class Items:
    """An array shape; ``contains`` are types that some item must have each, which a grammar cannot ask for."""

    item: Lazy = ANY
    minimum: int = 0
    maximum: int | None = None
    complete: bool = True  # whether nothing else is asked of an array
    contains: frozenset[Lazy] = frozenset()
    scope: tuple[str, ...] = ()  # kinds of names that are forgotten where it ends
    closes: tuple[
        str, ...
    ] = ()  # kinds whose names must be defined before they are used, from its beginning on

    @property
    def exact(self) -> bool:
        return self.complete and not self.contains


@dataclass(frozen=True)
class Fields:
    """An object shape. A key's type: all of its own and its patterns' types, or ``additional`` when it has none."""

    known: tuple[tuple[str, Lazy], ...] = ()
    patterns: tuple[tuple[Automaton, Lazy], ...] = ()
    additional: Lazy = ANY
    names: Automaton | Rule | None = None  # what keys may look like; None: anything
    required: frozenset[str] = frozenset()
    minimum: int = 0
    maximum: int | None = None
    exact: bool = True
    lenient: bool = False
    defines: Names | None = None  # by its additional keys
    scope: tuple[str, ...] = ()  # as of Items
    closes: tuple[str, ...] = ()
    implies: str = ""  # the kind of names that come with its known keys

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
NOT_AN_OBJECT: Type = tuple(a for a in EVERYTHING if not isinstance(a, Fields))


def all_of(types: Iterable[Lazy]) -> Lazy:
    flat: set[Lazy] = set()
    for lazy in types:
        flat |= lazy[1] if lazy[0] == "all" else {lazy}
    if NEVER in flat:
        return NEVER
    return next(iter(flat)) if len(flat) == 1 else ("all", frozenset(flat))


def _implies(narrow: Lazy, wide: Lazy) -> bool:
    """Whether the names alone say that every value of one type is one of the other."""
    if wide == ANY or narrow in (wide, NEVER):
        return True
    parts: frozenset[Lazy] = narrow[1] if narrow[0] == "all" else frozenset([narrow])
    return (wide[1] if wide[0] == "all" else {wide}) <= parts


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
    "deprecated", "readOnly", "writeOnly", "format", "contentMediaType", "contentEncoding", "contentSchema",
    "markdownDescription", "enumDescriptions", "markdownEnumDescriptions", "$anchor", "id", "$dynamicAnchor",
    "$recursiveAnchor", "$vocabulary",
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
    "unevaluatedProperties", "unevaluatedItems", "contains", "minContains", "maxContains", "$dynamicRef",
    "$recursiveRef",
])
# Annotations that some validators check all the same: a negation must not rest on their being true of every string.
CHECKED_ANNOTATIONS = frozenset(["format", "contentMediaType", "contentEncoding", "contentSchema"])
KINDS = ("null", "boolean", "number", "integer", "string", "array", "object")
COUNTS = (
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains",
)
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
        demand(_is_number(schema.get(keyword, 1)), keyword, "a number")
    demand(schema.get("multipleOf", 1) > 0, "multipleOf", "above 0")
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


class _TooCostly(SchemaError):
    """More steps than a schema, or one of its negations, may take."""


class _Circular(SchemaError):
    """A type that is asked for while it is being worked out."""


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
        self._allowed: dict[Lazy, Type] = {}
        self._steps, self._limit = 0, MAX_STEPS
        self._nesting = 0  # of arrays and objects in a subtraction
        self._reported: set[str] = set()
        self._known_keywords = set(KEYWORDS | ANNOTATIONS)
        self._references = References(schema)
        self.draft: Draft = self._references.draft
        if self.draft.remark:
            self._note("", self.draft.remark)

    def allowed(self, lazy: Lazy) -> Type:
        """The alternatives of a type as a grammar has them: all that they allow, exact or not.

        Raises:
            SchemaError: as ``resolve`` does.
        """
        if lazy not in self._allowed:
            types = self.resolve(lazy)
            if not all(a.exact for a in types):
                types = self._unite([(_as_exact(a),) for a in types])
            self._allowed[lazy] = types
        return self._allowed[lazy]

    def resolve(self, lazy: Lazy) -> Type:
        """The alternatives of a type.

        Raises:
            SchemaError: the schema refers to itself without anything in between, or is not a schema.
        """
        if lazy in self._resolved:
            return self._resolved[lazy]
        if lazy in self._working:
            raise _Circular(f"{_place(lazy)}: refers to itself without a property or item in between")
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

    def _attempt(self, lazy: Lazy) -> Type | None:
        """The alternatives of a type; None where that is asked while the type is being worked out."""
        try:
            return self.resolve(lazy)
        except _Circular:
            return None

    def _named(self, types: Type) -> Lazy:
        """A name for alternatives that no schema has; of its own where they only approximate a set."""
        exact = all(a.exact for a in types)
        lazy: Lazy = ("type", types if exact else (types, len(self._resolved)))
        self._resolved[lazy] = types
        return lazy

    # ---- one schema ----

    def _schema_at(self, pointer: str) -> Any:
        """A schema without the keywords that its draft does not have."""
        schema = self._references.lookup(pointer)
        if not isinstance(schema, dict):
            return schema
        foreign = self.draft.foreign(schema)
        for keyword in foreign:
            self._note(pointer, f"{keyword} is ignored: {self.draft.name} does not have it")
        return {keyword: value for keyword, value in schema.items() if keyword not in foreign}

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > self._limit:
            raise _TooCostly(
                "the combinations of this schema multiply out to more than can be compiled; simplify it"
            )

    def _compile(self, pointer: str) -> Type:
        schema = self._schema_at(pointer)
        if schema is True:
            return EVERYTHING
        if schema is False:
            return ()
        if not isinstance(schema, dict):
            raise SchemaError(f"{pointer or '/'}: a schema is an object, true or false")
        self._spend(1)
        check_keywords(schema, pointer)
        referred = EVERYTHING
        if "$ref" in schema:
            referred = self.resolve(self._target(schema["$ref"], pointer))
            if not self.draft.ref_has_siblings:
                return referred
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if keyword in schema:
                referred = self._intersect(referred, self._dynamic(schema[keyword], keyword, pointer))
        known = self._known_keywords
        for keyword in schema:
            if keyword not in known and not keyword.startswith("x-"):
                known.add(keyword)  # reported once: some schemas have an annotation of their own everywhere
                self._note(pointer, f"unknown keyword {keyword!r}")

        result = self._intersect(referred, self._own_keywords(schema, pointer))
        result = self._combined(result, schema, pointer)
        result = self._conditional(result, schema, pointer)
        if schema.get("unevaluatedProperties", True) is not True:
            evaluated = self._evaluated(pointer, set())
            if not evaluated.exact:
                self._note(pointer, "unevaluatedProperties beside alternatives that evaluate properties")
            rest = self._lazy(schema["unevaluatedProperties"], f"{pointer}/unevaluatedProperties")
            result = self._intersect(result, (*NOT_AN_OBJECT, replace(evaluated, additional=rest)))
        return result

    def _combined(self, result: Type, schema: dict[str, Any], pointer: str) -> Type:
        """What of a type allOf, anyOf, oneOf and not leave."""
        subschemas = {
            name: [("schema", f"{pointer}/{name}/{i}") for i in range(len(schema[name]))]
            for name in ("allOf", "anyOf", "oneOf")
            if name in schema
        }
        choices: list[tuple[str, list[Lazy]]] = []
        for index, member in enumerate(subschemas.get("allOf", [])):
            inner = schema["allOf"][index]
            if isinstance(inner, dict) and set(inner) - (ANNOTATIONS - CHECKED_ANNOTATIONS) == {"oneOf"}:
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
            result = self._affordable(members, place, partial(self._exactly_one, members, place))
        if "not" in schema:
            place = f"{pointer}/not"
            unwanted = self.resolve(("schema", place))
            result = self._affordable([result], place, partial(self._subtract, result, unwanted, place))
        return result

    def _conditional(self, result: Type, schema: dict[str, Any], pointer: str) -> Type:
        """What of a type if, then and else leave, and keys that demand something of the object around them."""
        if "if" in schema and not {"then", "else"}.isdisjoint(schema):
            condition = self.resolve(("schema", f"{pointer}/if"))
            then = self.resolve(("schema", f"{pointer}/then")) if "then" in schema else EVERYTHING
            otherwise = self.resolve(("schema", f"{pointer}/else")) if "else" in schema else EVERYTHING
            met = self._intersect(self._intersect(result, condition), then)
            place = f"{pointer}/if"
            unmet = self._affordable([result], place, partial(self._subtract, result, condition, place))
            result = self._unite([met, self._intersect(unmet, otherwise)])
        for keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
            for key, needed in schema.get(keyword, {}).items():
                if isinstance(needed, list):
                    demanded: Type = (Fields(required=frozenset(needed)),)
                else:
                    demanded = self.resolve(("schema", f"{pointer}/{keyword}/{escape(key)}"))
                absent = Fields(known=((key, NEVER),))
                result = self._intersect(result, self._unite([(*NOT_AN_OBJECT, *demanded), (absent,)]))
        return result

    def _target(self, reference: Any, pointer: str) -> Lazy:
        return ("schema", self._references.target(reference, pointer))

    def _dynamic(self, reference: Any, keyword: str, pointer: str) -> Type:
        """The type of a $dynamicRef or $recursiveRef: approximated where the way that leads to it decides."""
        targets = self._references.dynamic_targets(reference, keyword, pointer)
        if len(targets) == 1:
            return self.resolve(("schema", targets[0]))
        self._note(pointer, f"{keyword} with several anchors that it may mean")
        types = [self._attempt(("schema", target)) for target in targets]
        return tuple(_as_doubtful(a) for a in self._unite([EVERYTHING if t is None else t for t in types]))

    def _evaluated(self, pointer: str, visited: set[str]) -> Fields:
        """A shape with the keys that a schema may evaluate; not exact where that depends on the value."""
        schema = self._schema_at(pointer)
        if not isinstance(schema, dict) or pointer in visited:
            return Fields()
        known = dict.fromkeys(schema.get("properties", {}), ANY)
        patterns: list[tuple[Automaton, Lazy]] = []
        exact = True
        for text in schema.get("patternProperties", {}):
            try:
                patterns.append((automaton.from_pattern(text), ANY))
            except SchemaError:
                patterns.append((ANY_STRING, ANY))
                exact = False
        if "additionalProperties" in schema or (visited and "unevaluatedProperties" in schema):
            patterns.append((ANY_STRING, ANY))
        visited = visited | {pointer}
        always = [f"{pointer}/allOf/{index}" for index in range(len(schema.get("allOf", [])))]
        if "$ref" in schema:
            always.append(self._references.target(schema["$ref"], pointer))
        depends = [
            f"{pointer}/{name}" for name in ("if", "then", "else") if name in schema and "if" in schema
        ]
        for name in ("$dynamicRef", "$recursiveRef"):
            if name in schema:
                targets = self._references.dynamic_targets(schema[name], name, pointer)
                (always if len(targets) == 1 else depends).extend(targets)
        for name in ("anyOf", "oneOf"):
            depends += [f"{pointer}/{name}/{index}" for index in range(len(schema.get(name, [])))]
        for name in ("dependentSchemas", "dependencies"):
            depends += [f"{pointer}/{name}/{escape(key)}" for key in schema.get(name, {})]
        for place in (*always, *depends):
            found = self._evaluated(place, visited)
            fresh = [item for item in found.patterns if item not in patterns]
            exact &= found.exact
            if place in depends and (ANY_STRING, ANY) not in patterns:
                exact &= not fresh and set(found.types) <= set(known)
            known |= found.types
            patterns += fresh
        if (ANY_STRING, ANY) in patterns:
            return Fields(patterns=((ANY_STRING, ANY),), exact=exact)
        return Fields(known=tuple(known.items()), patterns=tuple(patterns), exact=exact)

    def _own_keywords(self, schema: dict[str, Any], pointer: str) -> Type:
        kinds = schema.get("type", ["null", "boolean", "number", "string", "array", "object"])
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        result: list[Alternative] = []
        if "null" in kinds:
            result.append(Constant(None))
        if "boolean" in kinds:
            result += [Constant(True), Constant(False)]
        if "number" in kinds or "integer" in kinds:
            whole = INTEGER_TEXT if self.draft.whole_floats_are_integers else PLAIN_INTEGER_TEXT
            number = self._number(schema, pointer, NUMBER_TEXT if "number" in kinds else whole)
            if not number.text.is_empty:
                result.append(number)
        if "string" in kinds:
            text = self._text(schema, pointer)
            if text is not None:
                result.append(text)
        if "array" in kinds:
            items = self._items(schema, pointer)
            if items.maximum is None or items.minimum <= items.maximum:
                result.append(items)
        if "object" in kinds:
            fields = self._fields(schema, pointer)
            most = fields.maximum is None or max(fields.minimum, len(fields.required)) <= fields.maximum
            if most and not any(fields.type_of(key) == NEVER for key in fields.required):
                result.append(fields)
        types = tuple(result)
        if "enum" in schema:
            types = self._intersect(types, self._literals(schema["enum"], pointer, "enum"))
        if "const" in schema:
            types = self._intersect(types, self._literals([schema["const"]], pointer, "const"))
        return types

    def _number(self, schema: dict[str, Any], pointer: str, text: Automaton) -> Number:
        certain = text
        factor = schema.get("multipleOf")
        if factor is not None:
            if factor == int(factor):
                text = certain = automaton.intersection(text, INTEGER_TEXT)
            if factor != 1:
                self._note(pointer, "multipleOf")
                certain = automaton.EMPTY
        for keyword, exclusive, bounded in (
            ("minimum", "exclusiveMinimum", numbers.at_least),
            ("maximum", "exclusiveMaximum", numbers.at_most),
        ):
            limits = [(keyword, schema[keyword], schema.get(exclusive) is True)] if keyword in schema else []
            if exclusive in schema and not isinstance(schema[exclusive], bool):
                limits.append((exclusive, schema[exclusive], True))  # draft 4 had a boolean here
            for name, limit, strictly in limits:
                allowed = bounded(limit, strictly)
                sure = allowed
                if allowed is None:
                    self._note(pointer, f"{name} {limit}")
                    allowed, sure = numbers.around(limit, bounded)
                text = text if allowed is None else automaton.intersection(text, allowed)
                certain = automaton.EMPTY if sure is None else automaton.intersection(certain, sure)
        return _number(text, certain)

    def _text(self, schema: dict[str, Any], pointer: str) -> Text | None:
        """The strings that a schema allows; None: there are none."""
        pattern = ANY_STRING
        checked = sorted(CHECKED_ANNOTATIONS & schema.keys())
        for keyword in checked:
            self._note(pointer, f"{keyword} is an annotation")
        exact = not checked
        if "pattern" in schema:
            try:
                pattern = automaton.from_pattern(schema["pattern"])
            except SchemaError as error:
                self._note(pointer, str(error))
                exact = False
        least, most = int(schema.get("minLength", 0)), _count(schema, "maxLength")
        for keyword, limit in (("minLength", least), ("maxLength", most)):
            if limit is not None and limit > automaton.MAX_LENGTH:
                self._note(
                    pointer, f"{keyword}: a length limit above {automaton.MAX_LENGTH} cannot be enforced"
                )
                exact = False
        least = min(least, automaton.MAX_LENGTH)
        most = None if most is None or most > automaton.MAX_LENGTH else most
        if most is not None and least > most:
            return None
        if least or most is not None:
            try:
                pattern = automaton.intersection(pattern, automaton.from_length(least, most))
            except SchemaError as error:
                for keyword in ("minLength", "maxLength"):
                    if keyword in schema:
                        self._note(pointer, f"{keyword}: {error}")
                exact = False
        return None if pattern.is_empty else Text(pattern=pattern, certain=None if exact else automaton.EMPTY)

    def _items(self, schema: dict[str, Any], pointer: str) -> Items:
        minimum, maximum = int(schema.get("minItems", 0)), _count(schema, "maxItems")
        complete = True
        wanted: frozenset[Lazy] = frozenset()
        first = "items" if isinstance(schema.get("items"), list) else "prefixItems"
        rest = "additionalItems" if first == "items" else "items"
        positions = [self._lazy(s, f"{pointer}/{first}/{i}") for i, s in enumerate(schema.get(first, []))]
        others = self._lazy(schema.get(rest, True), f"{pointer}/{rest}")
        if first == "items" and "prefixItems" in schema:
            self._note(pointer, "prefixItems beside a list of items")
            complete = False
        # no item can stand where none is allowed, nor after it
        reach = next((i for i, lazy in enumerate([*positions, others]) if lazy == NEVER), None)
        maximum = _least(maximum, reach)
        reached = [*positions, others] if maximum is None else [*positions, others][:maximum]
        item = any_of(reached) if reached else NEVER
        if any(lazy != item for lazy in reached):
            what = "items of different types by position"
            what += ", with additionalItems" if rest == "additionalItems" and rest in schema else ""
            self._note(pointer, what if first == "items" else f"prefixItems: {what}")
            complete = False
        if "contains" in schema:
            lazy = self._lazy(schema["contains"], f"{pointer}/contains")
            least, most = int(schema.get("minContains", 1)), _count(schema, "maxContains")
            minimum = max(minimum, least)
            if lazy == ANY:
                maximum = _least(maximum, most)
            elif lazy == NEVER:
                maximum = _least(maximum, -1) if least else maximum
            elif least or most is not None:
                for keyword in ("contains", "minContains", "maxContains"):
                    if keyword in schema:
                        self._note(pointer, keyword)
                wanted = frozenset([lazy] if least else [])
                complete &= least <= 1 and most is None
        if schema.get("unevaluatedItems", True) is not True and (maximum is None or maximum > 0):
            self._note(pointer, "unevaluatedItems")
            complete = False
        if schema.get("uniqueItems", False) is not False and (maximum is None or maximum > 1):
            self._note(pointer, "uniqueItems")
            complete = False
        return _items(item, minimum, maximum, complete, wanted)

    def _fields(self, schema: dict[str, Any], pointer: str) -> Fields:
        known = {
            key: self._lazy(value, f"{pointer}/properties/{escape(key)}")
            for key, value in schema.get("properties", {}).items()
        }
        exact = True
        patterns: list[tuple[Automaton, Lazy]] = []
        for text, value in schema.get("patternProperties", {}).items():
            lazy = self._lazy(value, f"{pointer}/patternProperties/{escape(text)}")
            try:
                pattern = automaton.from_pattern(text)
                if len(pattern.edges) > MAX_KEY_STATES:
                    raise SchemaError(f"pattern {text!r}: is too long for keys")
            except SchemaError as error:
                # keys that it may mean would fall to additionalProperties and be refused: let them be anything
                beside = ", nor is additionalProperties enforced" if "additionalProperties" in schema else ""
                self._note(pointer, f"patternProperties: {error}{beside}")
                pattern, lazy, exact = ANY_STRING, ANY, False
            finite = pattern.strings(MAX_FINITE_PATTERN)
            if finite is None:
                patterns.append((pattern, lazy))
            for key in finite or []:
                known[key] = all_of([known[key], lazy]) if key in known else lazy
        additional = self._lazy(schema.get("additionalProperties", True), f"{pointer}/additionalProperties")
        names = None
        if "propertyNames" in schema:
            found = self._attempt(("schema", f"{pointer}/propertyNames"))
            texts = [a for a in found or () if isinstance(a, Text)]
            names = texts[0].language if texts else automaton.EMPTY
            exact &= all(a.exact for a in texts)
            if found is None or len(names.edges) > MAX_KEY_STATES:
                self._note(
                    pointer, "propertyNames that may be long" if found is not None else "propertyNames"
                )
                names, exact = None, False
        required = schema.get("required", [])
        if isinstance(required, bool) and required:
            self._note(pointer, "required: true, which only draft 3 has")
        return Fields(
            known=tuple(known.items()),
            patterns=tuple(patterns),
            additional=additional,
            names=names,
            required=frozenset(required if isinstance(required, list) else []),
            minimum=int(schema.get("minProperties", 0)),
            maximum=_count(schema, "maxProperties"),
            exact=exact,
        )

    def _lazy(self, schema: Any, pointer: str) -> Lazy:
        if schema is True or schema == {}:
            return ANY
        if schema is False:
            return NEVER
        if (
            isinstance(schema, dict)
            and set(schema) - (ANNOTATIONS - CHECKED_ANNOTATIONS) == {"$ref"}
            and str(schema["$ref"]).startswith("#")
        ):
            return self._target(schema["$ref"], pointer)  # one name for one type, wherever it is used
        return ("schema", pointer)

    def _literals(self, values: list[Any], pointer: str, keyword: str) -> Type:
        """The alternatives that just these values belong to; where the types cannot say that, it is noted."""
        spelled = sorted({text for value in values if _is_number(value) for text in _spellings(value)})
        literals: list[Alternative] = [Number(automaton.from_strings(spelled))] if spelled else []
        for value in values:
            if value is None or isinstance(value, bool):
                literals.append(Constant(value))
            elif isinstance(value, str):
                literals.append(Text(values=(value,)))
            elif isinstance(value, dict):
                known = {key: self._named(self._literals([v], pointer, keyword)) for key, v in value.items()}
                literals.append(Fields(tuple(known.items()), additional=NEVER, required=frozenset(value)))
            elif isinstance(value, list):
                items = [self._named(self._literals([item], pointer, keyword)) for item in value]
                same = len(set(items)) < 2
                if not same:
                    self._note(pointer, f"{keyword}: an enumeration of arrays or objects")
                literals.append(Items(any_of(items), len(items), len(items), same))
        return self._unite([(literal,) for literal in literals])

    # ---- algebra of types ----

    def _unite(self, types: list[Type]) -> Type:
        """One text and one number alternative, and the shapes that no other shape contains."""
        constants: dict[bool | None, Constant] = {}
        for a in (a for t in types for a in t if isinstance(a, Constant)):
            constants[a.value] = Constant(
                a.value, a.exact or (a.value in constants and constants[a.value].exact)
            )
        result: list[Alternative] = [constants[value] for value in (None, True, False) if value in constants]
        found = dict.fromkeys(a for t in types for a in t if isinstance(a, Number))
        if found:
            text = _join([a.text for a in found], NUMBER_TEXT)
            exact = all(a.exact for a in found)
            result.append(_number(text, text if exact else _join([a.lower for a in found], NUMBER_TEXT)))
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
            if not any(_covers(other, alternative) for other in shapes):
                shapes = [other for other in shapes if not _covers(alternative, other)] + [alternative]
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
        if isinstance(a, Constant) and isinstance(b, Constant):
            return Constant(a.value, a.exact and b.exact) if a.value is b.value else None
        if isinstance(a, Number) and isinstance(b, Number):
            text = automaton.intersection(a.text, b.text)
            if text.is_empty:
                return None
            exact = a.exact and b.exact
            return _number(text, text if exact else automaton.intersection(a.lower, b.lower))
        if isinstance(a, Text) and isinstance(b, Text):
            if b.values is not None and a.values is None:
                a, b = b, a
            certain = None if a.exact and b.exact else automaton.intersection(a.lower, b.lower)
            if a.values is not None:
                kept = tuple(v for v in a.values if b.language.accepts(v.encode()))
                return _text(kept, ANY_STRING, certain) if kept else None
            both = automaton.intersection(a.pattern, b.pattern)
            return None if both.is_empty else _text(None, both, certain)
        if isinstance(a, Items) and isinstance(b, Items):
            maximum = _least(a.maximum, b.maximum)
            minimum = max(a.minimum, b.minimum)
            if maximum is not None and minimum > maximum:
                return None
            complete, contains = a.complete and b.complete, a.contains | b.contains
            return _items(all_of([a.item, b.item]), minimum, maximum, complete, contains)
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
            a.exact and b.exact,
        )
        impossible = any(result.type_of(key) == NEVER for key in required) or any(
            # without this, a list of conditions on one key would have all combinations of them as alternatives
            key in b.types
            and key in required
            and lazy != b.types[key]
            and self._attempt(result.type_of(key)) == ()
            for key, lazy in a.known
        )
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

    def _affordable(self, types: list[Type], pointer: str, negate: Callable[[], Type]) -> Type:
        """What a negation leaves of types; all of them, in doubt, where it takes too many steps."""
        outer = self._limit
        self._limit = min(outer, self._steps + MAX_NEGATION_STEPS)
        try:
            return negate()
        except _TooCostly:
            if self._limit == outer:
                raise
        finally:
            self._limit = outer
        self._note(pointer, "alternatives that overlap in too many ways")
        return self._unite([tuple(map(_as_doubtful, members)) for members in types])

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
        self._nesting += 1
        try:
            for a in left:
                remaining: list[Alternative] = [a]
                for b in right:
                    if type(a) is type(b):
                        self._spend(len(remaining) * (_size(a) + _size(b)))
                        remaining = [piece for r in remaining for piece in self._subtract_pair(r, b, pointer)]
                        if len(remaining) > MAX_PIECES:
                            self._note(pointer, "object alternatives that overlap in too many ways")
                            remaining = [_as_doubtful(a)]
                result += [(piece,) for piece in remaining]
        finally:
            self._nesting -= 1
        return self._unite(result)

    def _subtract_pair(self, a: Alternative, b: Alternative, pointer: str) -> list[Alternative]:
        if b.exact and _contains(b, a):
            return []
        if isinstance(a, Number) and isinstance(b, Number):
            self._note_doubt(a.text, b, pointer)
            text = automaton.intersection(automaton.difference(a.text, b.lower), numbers.WRITTEN)
            certain = automaton.intersection(automaton.difference(a.lower, b.text), numbers.WRITTEN)
            return [] if text.is_empty else [_number(text, certain)]
        if isinstance(a, Text) and isinstance(b, Text):
            self._note_doubt(a.language, b, pointer)
            sure = None if a.exact and b.exact else automaton.difference(a.lower, b.language)
            if a.values is not None:
                kept = tuple(v for v in a.values if not b.lower.accepts(v.encode()))
                return [_text(kept, ANY_STRING, sure)] if kept else []
            rest = automaton.difference(a.pattern, b.lower)
            return [] if rest.is_empty else [_text(None, rest, sure)]
        if isinstance(a, Items | Fields) and self._nesting > MAX_NESTING:
            return [self._in_doubt(a, pointer, "alternatives that nest too deeply")]
        if isinstance(a, Items) and isinstance(b, Items):
            return self._subtract_items(a, b, pointer)
        if isinstance(a, Fields) and isinstance(b, Fields):
            return self._subtract_fields(a, b, pointer)
        assert isinstance(a, Constant) and isinstance(b, Constant)
        return [a if a.value is not b.value else self._in_doubt(a, pointer)]

    def _note_doubt(self, a: Automaton, b: Number | Text, pointer: str) -> None:
        """Notes where a string that may belong to both sides does not surely belong to the second."""
        other = b.text if isinstance(b, Number) else b.language
        if not b.exact and not automaton.difference(automaton.intersection(a, other), b.lower).is_empty:
            self._note(pointer, "rests on what is not enforced")

    def _in_doubt(
        self, a: Alternative, pointer: str, reason: str = "rests on what is not enforced"
    ) -> Alternative:
        """An alternative of which nothing was taken away, though some of it should have been."""
        self._note(pointer, reason)
        return _as_doubtful(a)

    def _subtract_items(self, a: Items, b: Items, pointer: str) -> list[Alternative]:
        shared = self._intersect_pair(a, b)
        if shared is None:
            return [a]
        assert isinstance(shared, Items)
        if shared.minimum and self._attempt(shared.item) == ():
            return [a]
        if not b.complete:
            return [self._in_doubt(a, pointer)]
        result: list[Alternative] = []
        if b.minimum > a.minimum:
            result.append(replace(a, maximum=_least(a.maximum, b.minimum - 1)))
        if b.maximum is not None and (a.maximum is None or a.maximum > b.maximum):
            result.append(replace(a, minimum=max(a.minimum, b.maximum + 1)))
        if shared.maximum == 0:
            return result
        inner = None if b.contains <= a.contains and _implies(a.item, b.item) else self._attempt(a.item)
        for lazy in sorted(b.contains - a.contains, key=repr):  # arrays without such an item are not in b
            unwanted = self._attempt(lazy)
            if inner is None or unwanted is None:
                return [self._in_doubt(a, pointer)]
            other = self._subtract(inner, unwanted, pointer)
            if other or not a.minimum:
                result.append(_items(self._named(other), a.minimum, a.maximum, a.complete, a.contains))
        if _implies(a.item, b.item):
            return result
        outer = self._attempt(b.item)
        if inner is not None and outer is not None:
            if all(any(wide.exact and _contains(wide, narrow) for wide in outer) for narrow in inner):
                return result
            if shared.maximum == 1:
                other = self._subtract(inner, outer, pointer)
                return [*result, replace(a, item=self._named(other), minimum=1, maximum=1)]
        return [self._in_doubt(a, pointer, "two array alternatives that overlap")]

    def _subtract_fields(self, a: Fields, b: Fields, pointer: str) -> list[Alternative]:
        if self._disjoint(a, b):
            return [a]
        if not b.exact:
            return [self._in_doubt(a, pointer)]
        if not _free_keys_within(a, b):
            return [self._in_doubt(a, pointer, "two object alternatives that overlap")]
        result: list[Alternative] = []
        for key in sorted(b.required - a.required):
            result.append(a.with_key(key, NEVER))  # lacks what b demands
        for key in dict.fromkeys([*b.types, *a.types]):
            mine, other = a.type_of(key), b.type_of(key)
            if _implies(mine, other):
                continue
            inner, outer = self._attempt(mine), self._attempt(other)
            if inner is None or outer is None:
                return [self._in_doubt(a, pointer, "two object alternatives that overlap")]
            outside = self._subtract(inner, outer, pointer)
            if outside:
                result.append(replace(a.with_key(key, self._named(outside)), required=a.required | {key}))
        if b.minimum > a.minimum:
            result.append(replace(a, maximum=_least(a.maximum, b.minimum - 1)))
        if b.maximum is not None and (a.maximum is None or a.maximum > b.maximum):
            result.append(replace(a, minimum=max(a.minimum, b.maximum + 1)))
        return result

    def _disjoint(self, a: Fields, b: Fields) -> bool:
        for key in a.required | b.required:
            both = all_of([a.type_of(key), b.type_of(key)])
            if both == NEVER:
                return True
            if key in a.required and key in b.required and self._attempt(both) == ():
                return True
        return False

    def _note(self, pointer: str, what: str) -> None:
        note = f"{pointer or '/'}: {what}"
        if note not in self._reported:
            self._reported.add(note)
            self.unenforced.append(note)


def _number(text: Automaton, certain: Automaton) -> Number:
    return Number(text) if certain == text else Number(text, certain)


def _text(values: tuple[str, ...] | None, pattern: Automaton, certain: Automaton | None) -> Text:
    exact = Text(values, pattern)
    return exact if certain is None or certain == exact.language else Text(values, pattern, certain)


def _items(
    item: Lazy, minimum: int, maximum: int | None, complete: bool, contains: frozenset[Lazy] = frozenset()
) -> Items:
    """An array shape; what a single item must be is said of all items."""
    if maximum == 1 and contains:
        return Items(all_of([item, *contains]), minimum, maximum, complete)
    return Items(item, minimum, maximum, complete, contains)


def _as_exact(a: Alternative) -> Alternative:
    """The alternative with all that it allows taken to belong to it."""
    if isinstance(a, Items):
        return replace(a, complete=True, contains=frozenset())
    return replace(a, certain=None) if isinstance(a, Number | Text) else replace(a, exact=True)


def _as_doubtful(a: Alternative) -> Alternative:
    """The alternative with none of its values surely belonging to it."""
    if isinstance(a, Items):
        return replace(a, complete=False)
    return replace(a, certain=automaton.EMPTY) if isinstance(a, Number | Text) else replace(a, exact=False)


def _join(languages: list[Automaton], everything: Automaton) -> Automaton:
    """The union, found at once where one of them is everything."""
    if everything in languages:
        return everything
    joined = automaton.EMPTY
    for language in dict.fromkeys(languages):
        joined = automaton.union(joined, language)
    return joined


def _join_texts(texts: list[Text]) -> Text:
    exact = all(text.exact for text in texts)
    certain = None if exact else _join([text.lower for text in texts], ANY_STRING)
    if all(text.values is not None for text in texts):
        return _text(
            tuple(dict.fromkeys(v for text in texts for v in text.values or ())), ANY_STRING, certain
        )
    return _text(None, _join([text.language for text in texts], ANY_STRING), certain)


def _free_keys_within(a: Fields, b: Fields) -> bool:
    """Whether keys that neither shape names have in a only values that b takes too, as far as names tell."""
    if a.additional == NEVER and not a.patterns:
        return True
    if b.names not in (None, a.names):
        return False
    if a.patterns == b.patterns:
        return _implies(a.additional, b.additional)
    mine = [a.additional, *(lazy for _, lazy in a.patterns)]
    others = [b.additional, *(lazy for _, lazy in b.patterns)]
    return all(_implies(narrow, wide) for narrow in mine for wide in others)


def _covers(a: Alternative, b: Alternative) -> bool:
    """Whether a shape makes another one superfluous beside it."""
    if isinstance(a, Items) and isinstance(b, Items):
        return _contains(a, b) and (a.complete or not b.complete) and a.contains <= b.contains
    return _contains(a, b) and (a.exact or not b.exact)


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
        return 1 + (
            len(alternative.language.edges) if alternative.values is None else len(alternative.values)
        )
    return 1 + len(alternative.known) if isinstance(alternative, Fields) else 1


def _spellings(value: int | float) -> set[str]:
    """The JSON texts of a number: 1 and 1.0 are equal, and 0 and -0.0 are."""
    spelled = {json.dumps(value)}
    if value == int(value):
        spelled.add(str(int(value)))
    if abs(value) < 10**308 and float(value) == value:
        spelled.add(json.dumps(float(value)))
    return spelled | ({"-0", "-0.0", "0", "0.0"} if value == 0 else set())


def _count(schema: dict[str, Any], keyword: str) -> int | None:
    return int(schema[keyword]) if keyword in schema else None


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _place(lazy: Lazy) -> str:
    return lazy[1] or "/" if lazy[0] == "schema" else "a combination of schemas"
