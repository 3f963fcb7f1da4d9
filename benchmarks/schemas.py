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

import numpy as np
import regress
from check_jsonschema.regex_variants import RegexImplementation, RegexVariantName
from jsonschema import validators
from jsonschema.exceptions import ValidationError, best_match

from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.engine import ARRAY_END, END, OBJECT_END
from tests.support.grammars import Grammar

MAX_WALK = 160  # base tokens before the shortest way to the end is taken


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


def draw(grammar: Grammar, choose: random.Random, length: int) -> str:
    """The base tokens of a random document: at most length chosen ones, then the shortest way to the end."""
    matcher = grammar.engine.matcher()
    taken: list[str] = []
    while not matcher.is_complete and len(taken) < length:
        legal = list(map(chr, np.flatnonzero(matcher.legal())))
        closing = [token for token in legal if token in (END, OBJECT_END, ARRAY_END)]
        others = [token for token in legal if token not in closing]
        plain = [token for token in others if " " <= token <= "~"]
        structure = [token for token in others if token > "\xff"]
        groups = [group for group in (structure, plain, others) if group]
        weights = [4, 5, 1][-len(groups) :] if len(groups) < 3 else [4, 5, 1]
        if closing and (not groups or choose.random() < 0.2):
            taken.append(choose.choice(closing))
        else:
            taken.append(choose.choice(choose.choices(groups, weights)[0]))
        assert matcher.advance(taken[-1])
    return "".join(taken) + matcher.complete()


def measure(path: Path, walks: int, seed: int = 0) -> Result:
    """Compiles a schema and draws documents from it."""
    result = Result(path.stem)
    schema = json.loads(path.read_text(encoding="utf-8"))
    started = time.process_time()
    try:
        compiled, result.unenforced = compile_schema(schema)
        grammar = Grammar(compiled)
    except UserError as error:
        result.refused = str(error)
        result.seconds = time.process_time() - started
        return result
    result.seconds = time.process_time() - started
    result.nodes = len(compiled["nodes"])
    validator = validator_of(schema)
    choose = random.Random(f"{path.stem} {seed}")
    for _ in range(walks):
        base = draw(grammar, choose, choose.randrange(MAX_WALK))
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
