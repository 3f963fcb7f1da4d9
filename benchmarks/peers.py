"""Other engines for constrained decoding, as the benchmarks run them: llguidance and xgrammar.

    pip install llguidance==1.9.1 xgrammar==0.2.9 tokenizers

Both read compact JSON in tokens of one byte-level BPE vocabulary, without whitespace between tokens of JSON, and do not
demand that keys are those that the schema lists.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

import numpy as np

STOP = 0  # the token that ends a document


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def byte_level_bpe(texts: Iterable[str], size: int = 8192) -> Any:
    """A byte-level BPE tokenizer that is trained on texts; its token 0 ends a document."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    assert bpe.token_to_id("<end>") == STOP
    return bpe


def vocabulary(bpe: Any) -> list[str]:
    """The tokens of a BPE vocabulary by their ids, as the library spells them."""
    return [text for text, _ in sorted(bpe.get_vocab().items(), key=lambda item: item[1])]


class Peer(Protocol):
    """What the engines have in common."""

    def compile_schema(self, schema: Any) -> Any: ...

    def walk(self, compiled: Any, value: Any) -> tuple[bool, list[float]]: ...


class Llguidance:
    """llguidance; ``lenient`` ignores keywords that it does not enforce instead of refusing the schema."""

    def __init__(self, bpe: Any, lenient: bool = False) -> None:
        import llguidance
        import llguidance.numpy

        self._library, self._bpe, self._lenient = llguidance, bpe, lenient
        self._tokenizer = llguidance.LLTokenizer(bpe.to_str(), eos_token=STOP)
        self._mask = llguidance.numpy.allocate_token_bitmask(1, self._tokenizer.vocab_size)

    def compile_schema(self, schema: Any) -> Any:
        """Returns a matcher before the first token.

        Raises:
            ValueError: llguidance does not compile the schema.
        """
        options = {"whitespace_flexible": False, "lenient": self._lenient}
        return self._compile(self._library.LLMatcher.grammar_from_json_schema(compact(schema), options))

    def compile_lark(self, grammar: str) -> Any:
        """The same for a grammar in llguidance's own language."""
        return self._compile(self._library.LLMatcher.grammar_from_lark(grammar))

    def _compile(self, grammar: str) -> Any:
        matcher = self._library.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def walk(self, start: Any, value: Any) -> tuple[bool, list[float]]:
        """Whether a value is accepted, and the CPU seconds that each mask took."""
        matcher = start.deep_copy()
        seconds: list[float] = []
        for token in self._bpe.encode(compact(value)).ids:
            before = time.thread_time()
            self._library.numpy.fill_next_token_bitmask(matcher, self._mask)
            seconds.append(time.thread_time() - before)
            if not matcher.consume_token(token):
                return False, seconds
        return bool(matcher.is_accepting()), seconds


class Xgrammar:
    """xgrammar; ``any_order`` lets keys stand in any order, and then does not ask for required ones."""

    def __init__(self, bpe: Any, any_order: bool = False) -> None:
        import xgrammar

        self._library, self._bpe, self._any_order = xgrammar, bpe, any_order
        info = xgrammar.TokenizerInfo(
            vocabulary(bpe), vocab_type=xgrammar.VocabType.BYTE_LEVEL, stop_token_ids=[STOP]
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self._mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)

    def compile_schema(self, schema: Any) -> Any:
        """Returns a compiled grammar.

        Raises:
            RuntimeError: xgrammar does not compile the schema.
        """
        return self._compiler.compile_json_schema(
            compact(schema),
            any_whitespace=False,
            separators=(",", ":"),
            strict_mode=False,
            any_order=self._any_order,
        )

    def compile_ebnf(self, grammar: str) -> Any:
        """The same for a grammar in xgrammar's own language."""
        return self._compiler.compile_grammar(grammar)

    def walk(self, compiled: Any, value: Any) -> tuple[bool, list[float]]:
        """Whether a value is accepted, and the CPU seconds that each mask took."""
        matcher = self._library.GrammarMatcher(compiled)
        seconds: list[float] = []
        for token in self._bpe.encode(compact(value)).ids:
            before = time.thread_time()
            matcher.fill_next_token_bitmask(self._mask)
            seconds.append(time.thread_time() - before)
            if not matcher.accept_token(token):
                return False, seconds
        return bool(matcher.accept_token(STOP)), seconds


def spread(seconds: list[float]) -> tuple[float, float, float]:
    """Mean, median and 99th percentile in microseconds."""
    micro = np.array(seconds) * 1e6
    return float(micro.mean()), float(np.median(micro)), float(np.percentile(micro, 99))


class AnyOrder:
    """A JSON Schema as a grammar of llguidance in which keys stand in any order, each one at most once.

    It follows docs/parametric.md there: the parameter of a rule has a bit for each key. What a rule cannot say is left
    out, so the grammar allows more than the schema does: keys that are not listed may stand twice, and alternatives of
    an object differ only in the keys that they require.
    """

    start, becomes = "start", ":"
    basis = (r'STRING: /"([^"\\\x00-\x1f]|\\(["\\\/bfnrt]|u[0-9a-fA-F]{4}))*"/',)

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._names: dict[str, str] = {}
        self._lines: list[str] = []
        start = self._rule(schema)
        self.text = "\n".join([f"{self.start}{self.becomes} {start}", *self.basis, *self._lines])

    def _rule(self, schema: Any) -> str:
        """The name of a rule."""
        while isinstance(schema, dict) and "$ref" in schema:
            here = self._schema
            for part in schema["$ref"].split("/")[1:]:
                here = here[part]
            schema = here
        key = compact(schema)
        if key not in self._names:
            name = self._names[key] = f"r{len(self._names)}"
            self._lines.append(f"{name}{self.becomes} {self._body(schema, name)}")
        return self._names[key]

    def _body(self, schema: Any, name: str) -> str:
        if not isinstance(schema, dict):
            return self._scalar({} if schema else {"enum": []})
        if "allOf" in schema:  # one object, and conditions on its keys
            shape = next(part for part in schema["allOf"] if "properties" in part)
            conditions = [
                _condition(part, list(shape["properties"])) for part in schema["allOf"] if part is not shape
            ]
            return self._object(shape, name, conditions)
        if "properties" in schema or "patternProperties" in schema or schema.get("type") == "object":
            return self._object(schema, name, [])
        for keyword in ("oneOf", "anyOf"):
            if keyword in schema:
                return " | ".join(map(self._rule, schema[keyword]))
        if schema.get("type") == "array":
            item = self._rule(schema.get("items", {}))
            some = f'"[" {item} ("," {item})* "]"'
            return some if schema.get("minItems") else f'"[" "]" | {some}'
        if isinstance(schema.get("type"), list):
            return " | ".join(self._rule({**schema, "type": kind}) for kind in schema["type"])
        return self._scalar(schema)

    def _scalar(self, schema: dict[str, Any]) -> str:
        return "%json " + compact({**schema, "x-guidance": {"whitespace_flexible": False, "lenient": True}})

    def _object(self, schema: dict[str, Any], name: str, conditions: list[str]) -> str:
        keys = list(schema.get("properties", {}))
        conditions += [_condition({k: v}, keys) for k, v in schema.items() if k in CONDITIONS]
        end = "and(" * len(conditions) + "true" + "".join(f",{each})" for each in conditions)
        members = [
            (
                json.dumps(json.dumps(key) + ":"),
                self._rule(schema["properties"][key]),
                f"set_bit({i})",
                f"bit_clear({i})",
            )
            for i, key in enumerate(keys)
        ]
        taken = "".join(f" | {json.dumps(json.dumps(key))}" for key in keys).removeprefix(" | ")
        for index, (pattern, value) in enumerate(schema.get("patternProperties", {}).items()):
            inner = pattern.removeprefix("^").removesuffix("$").replace("/", r"\/")
            self._lines.append(f'{name.upper()}_{index}: /"({inner})"/' + (f" & ~({taken})" if taken else ""))
            members.append((f'{name.upper()}_{index} ":"', self._rule(value), "_", "true"))
        additional = schema.get("additionalProperties", True)
        if additional is not False:
            self._lines.append(f"{name.upper()}: STRING" + (f" & ~({taken})" if taken else ""))
            members.append((f'{name.upper()} ":"', self._rule(additional), "_", "true"))
        more = [f'"," {key} {value} {name}m::{step} %if {test}' for key, value, step, test in members]
        first = [f"{key} {value} {name}m::{step}" for key, value, step, _ in members]
        self._lines.append(f"{name}m::_: " + "\n | ".join([f'"" %if {end}', *more]))
        self._lines.append(
            f"{name}f::_: " + "\n | ".join(([] if schema.get("minProperties") else [f'"" %if {end}']) + first)
        )
        return f'"{{" {name}f::0x0 "}}"'


class Repeating(AnyOrder):
    """The same as a grammar of xgrammar (EBNF), which cannot count: a key may stand twice, and none is required.

    It has no difference of languages either, so that a key that the schema lists may also stand as one that it does
    not list, with any value. Patterns of texts are left out.
    """

    start, becomes = "root", " ::="
    basis = (
        r'string ::= "\"" ([^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\""',
        r'number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [+-]? [0-9]+)?',
        r'any ::= string | number | "true" | "false" | "null" | "[" (any ("," any)*)? "]"'
        r' | "{" (string ":" any ("," string ":" any)*)? "}"',
    )
    kinds: ClassVar = {"string": "string", "number": "number", "integer": "number", "null": '"null"'}

    def _scalar(self, schema: dict[str, Any]) -> str:
        if "enum" in schema or "const" in schema:
            return " | ".join(json.dumps(compact(each)) for each in schema.get("enum", [schema.get("const")]))
        if schema.get("type") == "boolean":
            return '"true" | "false"'
        return self.kinds.get(schema.get("type", ""), "any")

    def _object(self, schema: dict[str, Any], name: str, conditions: list[str]) -> str:
        members = [
            f"{json.dumps(json.dumps(key) + ':')} {self._rule(value)}"
            for key, value in schema.get("properties", {}).items()
        ]
        others = list(schema.get("patternProperties", {}).values())
        if schema.get("additionalProperties", True) is not False:
            others.append(schema.get("additionalProperties", True))
        members += [f'string ":" {self._rule(value)}' for value in others]
        self._lines.append(f"{name}m{self.becomes} {' | '.join(members)}")
        some = f'"{{" {name}m ("," {name}m)* "}}"'
        return some if schema.get("minProperties") else f'"{{" "}}" | {some}'


CONDITIONS = ("required", "not", "oneOf", "anyOf", "dependencies")


def _condition(schema: dict[str, Any], keys: list[str]) -> str:
    """Which keys an object has, as a condition on a rule's parameter; what is said of their values is left out."""
    parts = [f"bit_set({keys.index(key)})" for key in schema.get("required", []) if key in keys]
    if "not" in schema:
        parts.append(f"not({_condition(schema['not'], keys)})")
    for keyword in ("oneOf", "anyOf"):
        options = [_condition(each, keys) for each in schema.get(keyword, [])]
        if options:
            parts.append(
                "or(" * (len(options) - 1) + options[0] + "".join(f",{each})" for each in options[1:])
            )
    for key, needed in schema.get("dependencies", {}).items():
        parts.append(f"or(bit_clear({keys.index(key)}),{_condition({'required': needed}, keys)})")
    return "and(" * len(parts) + "true" + "".join(f",{part})" for part in parts)
