"""Which JSON Schemas compile, how fast, and whether documents drawn from them are valid.

    python benchmarks/schemas.py --walks 1000
    python benchmarks/schemas.py my-schema.json

Without files it uses the schemas that check-jsonschema contains. Each one is compiled; then documents are drawn by
random walks over its base tokens: a random choice among tokens that the grammar allows, up to a random length, then
the shortest way to the end. Each document is read, written again and compared, and validated by the jsonschema
package with the validator of its ``$schema`` and patterns read as ECMA-262, as check-jsonschema reads them.
Formats (``"format": "email"``) are annotations in JSON Schema, and are not checked.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import regress
from check_jsonschema.regex_variants import RegexImplementation, RegexVariantName
from jsonschema import validators
from jsonschema.exceptions import ValidationError, best_match

from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer.automaton import Automaton
from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.grammar import ARRAY, ARRAY_END, END, NUMBER, OBJECT, OBJECT_END, Grammar, Node
from nanochat_tct.tokenizer.matcher import (
    AdditionalKey,
    Array,
    GrammarMatcher,
    Illegal,
    Object,
    Scalar,
    Value,
)

MAX_WALK = 160  # base tokens before the shortest way to the end is taken
CANDIDATES = 8  # keys or literals that are tried at one position


@dataclass
class Result:
    """The result for one schema."""

    name: str
    seconds: float = 0.0
    nodes: int = 0
    unenforced: list[str] = field(default_factory=list)
    walks: int = 0
    same: int = 0
    valid: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    refused: str = ""


def bundled_schemas() -> list[Path]:
    """The schema files that the check-jsonschema package carries."""
    folder = Path(str(files("check_jsonschema") / "builtin_schemas/vendor"))
    return sorted(folder.glob("*.json"))


def validator_of(schema: Any) -> Any:
    """The jsonschema validator of a schema, with patterns as ECMA-262 has them."""
    variant = RegexVariantName.default
    try:
        for pattern in _patterns_of(schema):
            regress.Regex(pattern, flags="u")
    except regress.RegressError:
        variant = RegexVariantName.nonunicode  # it has escapes that only patterns without the flag u allow
    patterns = RegexImplementation(variant)
    keywords = {
        "pattern": patterns.pattern_keyword,
        "patternProperties": patterns.patternProperties_keyword,
    }
    return validators.extend(validators.validator_for(schema), keywords)(schema)


def _patterns_of(schema: Any) -> list[str]:
    """All that may be a pattern in a schema."""
    if isinstance(schema, list):
        return [pattern for part in schema for pattern in _patterns_of(part)]
    if not isinstance(schema, dict):
        return []
    found = [pattern for part in schema.values() for pattern in _patterns_of(part)]
    found += [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
    named = schema.get("patternProperties")
    return found + list(named if isinstance(named, dict) else ())


def draw(matcher: GrammarMatcher, choose: random.Random, length: int) -> str:
    """The base tokens of a random document: at most length chosen ones, then the shortest way to the end."""
    state: Any = matcher.start
    taken: list[str] = []
    while state is not None and len(taken) < length:
        for token in _candidates(matcher.grammar, state, choose):
            try:
                state = matcher.step(state, token)
            except Illegal:
                continue
            taken.append(token)
            break
        else:
            break  # none of the few that were tried is allowed here
    return "".join(taken) + matcher.complete(state)


def _candidates(grammar: Grammar, state: Any, choose: random.Random) -> list[str]:
    """Some base tokens that may be legal at a state, in the order in which to try them."""
    if type(state) is Scalar:
        return _bytes_or_end([(automaton, here) for _, automaton, here in state.automata], choose)
    if type(state) is AdditionalKey:
        return _bytes_or_end([(automaton, here) for _, automaton, here in state.classes], choose)
    if type(state) is Object:
        names = list(state.node.known)
        names = choose.sample(names, min(CANDIDATES, len(names)))
        known = [grammar.literals[name] for name in names]
        free = [chr(choose.randrange(97, 123)), "A", "0", "_", "/", "-"] if state.node.free else []
        first = free + known if choose.random() < 0.2 else known + free
        return [OBJECT_END, *first] if choose.random() < 0.12 else [*first, OBJECT_END]
    if type(state) is Array:
        assert state.node.item is not None
        items = _beginnings(grammar, state.node.item, choose)
        return [ARRAY_END, *items] if choose.random() < 0.3 else [*items, ARRAY_END]
    assert type(state) is Value
    return _beginnings(grammar, state.node, choose)


def _beginnings(grammar: Grammar, node: Node, choose: random.Random) -> list[str]:
    """Base tokens that a value of a node may begin with."""
    if not node.opens and node.objects:
        return _candidates(grammar, Object(node, 0, frozenset(), 1, None), choose)
    if not node.opens and node.arrays:
        assert node.item is not None
        return [ARRAY_END, *_beginnings(grammar, node.item, choose)]
    if not node.opens and node.numbers:
        return _bytes_or_end([(automaton, 0) for _, automaton in node.numbers], choose)
    found = [OBJECT] * bool(node.objects) + [ARRAY] * bool(node.arrays) + [NUMBER] * bool(node.numbers)
    found += node.constants
    names = list(node.literals)
    found += [grammar.literals[name] for name in choose.sample(names, min(CANDIDATES, len(names)))]
    for _, automaton in node.texts:
        found += _bytes_or_end([(automaton, 0)], choose)
    choose.shuffle(found)
    return found


def _bytes_or_end(automata: list[tuple[Automaton, int]], choose: random.Random) -> list[str]:
    """Bytes that go on in one of the automata, ASCII more often than not, and the end of the text."""
    automaton, here = choose.choice(automata)
    found = []
    edges = automaton.edges[here]
    plain = [edge for edge in edges if edge[0] < 128 and edge[1] > 31]
    if edges:
        for among in (plain, edges) if plain and choose.random() < 0.9 else (edges, plain):
            if among:
                low, high, _ = choose.choice(among)
                found.append(chr(choose.randrange(max(low, min(32, high)), high + 1)))
    ends = any(automaton.accepting[here] for automaton, here in automata)
    return [END, *found] if ends and choose.random() < 0.3 else [*found, END]


def measure(path: Path, walks: int, seed: int = 0) -> Result:
    """Compiles a schema and draws documents from it."""
    result = Result(path.stem)
    schema = json.loads(path.read_text(encoding="utf-8"))
    started = time.process_time()
    try:
        compiled, result.unenforced = compile_schema(schema)
        grammar = Grammar(json.loads(json.dumps(compiled)))
        matcher = GrammarMatcher(grammar)
    except UserError as error:
        result.refused = str(error)
        result.seconds = time.process_time() - started
        return result
    result.seconds = time.process_time() - started
    result.nodes = len(grammar.nodes)
    validator = validator_of(schema)
    choose = random.Random(f"{path.stem} {seed}")
    for _ in range(walks):
        base = draw(matcher, choose, choose.randrange(MAX_WALK))
        value, consumed = grammar.read(base)
        result.walks += 1
        again, _ = grammar.read(grammar.write(value))
        result.same += consumed == len(base) and json.dumps(again) == json.dumps(value)
        errors = list(validator.iter_errors(value))
        if errors:
            result.reasons[_reason(errors, result.unenforced)] += 1
        else:
            result.valid += 1
    return result


def _reason(errors: list[ValidationError], unenforced: list[str]) -> str:
    """The violated keyword: one that is listed as not enforced, if one takes part, else the best match."""
    innermost, waiting = [], list(errors)
    for error in waiting:  # grows while we walk: an alternative's errors are below that of anyOf and oneOf
        waiting += error.context
        if not error.context:
            innermost.append(error)
    named = {line.split(": ", 1)[1] for line in unenforced}
    error = next((error for error in innermost if error.validator in named), None) or best_match(errors)
    return str(error.validator)


def kinds(unenforced: list[str]) -> str:
    """The unenforced constraints, counted without their pointers."""
    counts = Counter(line.split(": ", 1)[1] for line in unenforced)
    return (
        ", ".join(f"{what} ({count})" if count > 1 else what for what, count in counts.most_common()) or "-"
    )


def row(result: Result) -> str:
    """One line of the table."""
    if result.refused:
        return f"| {result.name} | {result.seconds:.2f} | | | | | refused: {result.refused} |"
    whole = result.valid == result.walks
    why = (
        "-"
        if whole
        else ", ".join(f"{keyword} ({count})" for keyword, count in result.reasons.most_common(4))
    )
    return (
        f"| {result.name} | {result.seconds:.2f} | {result.nodes} | {kinds(result.unenforced)} "
        f"| {result.same} of {result.walks} | {result.valid} of {result.walks} | {why} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "schema", nargs="*", type=Path, help="schema files; default: those of check-jsonschema"
    )
    parser.add_argument("--walks", type=int, default=1000, help="documents drawn from each schema")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| schema | compile, CPU s | nodes | not enforced | same again | valid | why not |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for path in arguments.schema or bundled_schemas():
        result = measure(path, arguments.walks, arguments.seed)
        print(row(result), flush=True)


if __name__ == "__main__":
    main()
