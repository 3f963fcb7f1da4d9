"""Run the schema compiler on JSON-Schema-Test-Suite.

    python benchmarks/json_schema_suite.py path/to/JSON-Schema-Test-Suite/tests
    python benchmarks/json_schema_suite.py path/to/JSON-Schema-Test-Suite/tests --optional

Each schema is compiled, and each instance is encoded with the resulting grammar; the suite knows whether the instance
is valid. An invalid instance that the grammar accepts counts as named only if the compiler reports the violated keyword
at its own position as not enforced. Schemas that refer to other documents, or whose ``$schema`` is a document of the
suite, are set aside.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonschema.exceptions import ValidationError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.schemas import validator_of
from nanochat_tct.tokenizer.compile import compile_schema
from nanochat_tct.tokenizer.errors import SchemaError, TokenizerError
from nanochat_tct.tokenizer.references import References, escape
from tests.support.grammars import Grammar

DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
RIGHT = "judged right"
NAMED = "accepted wrongly, named"
UNNAMED = "accepted wrongly, not named"
REFUSED = "refused wrongly"
EMPTY = "falsely empty"
NOT_COMPILED = "schema refused"
ASIDE = "other documents"
VERDICTS = (RIGHT, NAMED, UNNAMED, REFUSED, EMPTY, NOT_COMPILED, ASIDE)
# what the optional tests ask for and the compiler does not promise: formats are annotations
LEFT_OUT = ("format/", "format-assertion", "content", "format.json")
# a line about one of these keywords is about what the others of its row say as well
FAMILIES = (
    {"items", "prefixItems", "additionalItems"},
    {"contains", "minContains", "maxContains"},
    {"patternProperties", "additionalProperties"},
    {"if", "then", "else"},
)
# keywords whose errors do not say which part of their schema decides: for oneOf where more than one part is valid
WITHOUT_CONTEXT = ("not", "oneOf", "unevaluatedProperties", "unevaluatedItems")


@dataclass(frozen=True)
class Note:
    """One line of what is not enforced: the schema that it is about, and what it says of it."""

    about: Any
    text: str

    def names(self, keyword: str) -> bool:
        words = set(re.findall(r"[$\w]+", self.text))
        return bool(words & {keyword}.union(*(family for family in FAMILIES if keyword in family)))


def notes_of(schema: Any, unenforced: list[str]) -> list[Note]:
    """The compiler's lines about what it does not enforce."""
    references = References(schema)
    notes = []
    for line in unenforced:
        pointer, _, text = line.partition(": ")
        notes.append(Note(references.lookup("" if pointer == "/" else pointer), text))
    return notes


def is_named(schema: Any, instance: Any, unenforced: list[str]) -> bool:
    """Whether everything that is wrong with an instance is something that the compiler says it does not enforce."""
    references, notes = References(schema), notes_of(schema, unenforced)
    try:
        errors = list(validator_of(schema).iter_errors(instance))
    except re.error:  # jsonschema reads the patterns beside additionalProperties as Python's
        return any(note.names("additionalProperties") for note in notes)
    return bool(errors) and all(_explained(references, error, notes) for error in errors)


def _explained(references: References, error: ValidationError, notes: list[Note]) -> bool:
    way = _way(references, "", list(error.absolute_schema_path), error.schema, frozenset()) or []
    for owner, keyword in (*way, (error.schema, error.validator)):
        if any(note.about is owner and note.names(str(keyword)) for note in notes):
            return True
        # what if says is approximated where then or else refuses
        if keyword in ("if", "then", "else") and any(
            _inside(n.about, owner.get("if"), references) for n in notes
        ):
            return True
    if error.validator in WITHOUT_CONTEXT and not error.context:
        # what is evaluated depends on whether the keywords beside it are satisfied
        beside = str(error.validator).startswith("unevaluated")
        decides = error.schema if beside else error.schema[error.validator]
        return any(_inside(note.about, decides, references) for note in notes)
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        # a branch that is the schema false has no path
        branches.setdefault(inner.schema_path[0] if inner.schema_path else None, []).append(inner)
    return any(all(_explained(references, inner, notes) for inner in inners) for inners in branches.values())


def _way(
    references: References, pointer: str, path: list[Any], goal: Any, visited: frozenset[str]
) -> list[tuple[Any, str]] | None:
    """The schemas on the path to an error, each with the next keyword of the path.

    A validator may leave references out of the path.
    """
    here = references.lookup(pointer)
    # a path to the schema false ends with the keyword that has it
    if len(path) <= 1 and (
        here is goal or (goal is False and isinstance(here, dict) and set(path) <= here.keys())
    ):
        return [(here, str(step)) for step in path]
    if path and isinstance(here, dict | list):
        step = path[0]
        if not str(step).endswith("Ref") and (
            step in here if isinstance(here, dict) else step in range(len(here))
        ):
            inner = _way(references, f"{pointer}/{escape(str(step))}", path[1:], goal, frozenset())
            if inner is not None:
                return [(here, str(step)), *inner]
    for keyword in ("$ref", "$dynamicRef", "$recursiveRef") if pointer not in visited else ():
        if isinstance(here, dict) and keyword in here:
            rest = path[1:] if path[:1] == [keyword] else path
            for target in references.dynamic_targets(here[keyword], keyword, pointer):
                inner = _way(references, target, rest, goal, visited | {pointer})
                if inner is not None:
                    return [(here, keyword), *inner]
    return None


def _inside(part: Any, whole: Any, references: References) -> bool:
    """Whether a schema is a part of another one, or of what it refers to."""
    waiting, seen = [whole], set[int]()
    for here in waiting:  # grows while we walk
        if here is part and isinstance(here, dict | list):
            return True
        if id(here) in seen or not isinstance(here, dict | list):
            continue
        seen.add(id(here))
        waiting += here.values() if isinstance(here, dict) else here
        if isinstance(here, dict) and str(here.get("$ref", "")).startswith("#/"):
            waiting.append(references.lookup(here["$ref"][1:]))
    return False


@dataclass
class Tally:
    """The verdicts on one draft's tests, and the tests that are judged wrongly."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, verdict: str, where: str, number: int = 1) -> None:
        self.counts[verdict] += number
        if verdict in (UNNAMED, REFUSED, EMPTY, NOT_COMPILED):
            self.wrong.append(f"{verdict}: {where}")


def judge(group: dict[str, Any], dialect: str, where: str, tally: Tally) -> None:
    """Judges the tests of one schema."""
    schema = group["schema"]
    if isinstance(schema, dict):
        schema = {"$schema": dialect, **schema}
    tests = group["tests"]
    if isinstance(schema, dict) and schema["$schema"] not in DRAFTS.values():
        return tally.add(ASIDE, f"{where}: {schema['$schema']}", len(tests))
    try:
        compiled, unenforced = compile_schema(schema)
        grammar = Grammar(compiled)
    except SchemaError as error:
        if "other documents" in str(error) or "inside the document" in str(error):
            return tally.add(ASIDE, f"{where}: {error}", len(tests))
        valid = sum(test["valid"] for test in tests)
        if "value is valid" not in str(error):
            return tally.add(NOT_COMPILED, f"{where}: {error}", len(tests))
        tally.add(RIGHT, where, len(tests) - valid)
        if valid:
            tally.add(EMPTY, f"{where}: {error}", valid)
        return None
    for test in tests:
        shown = f"{where} / {test['description']}: {json.dumps(test['data'])[:80]}"
        try:
            base = grammar.write(test["data"])
        except TokenizerError as error:
            tally.add(REFUSED if test["valid"] else RIGHT, f"{shown} ({error})")
            continue
        assert json.dumps(grammar.read(base)[0]) == json.dumps(test["data"])
        if test["valid"]:
            tally.add(RIGHT, shown)
        else:
            named = is_named(schema, test["data"], unenforced)
            tally.add(NAMED if named else UNNAMED, f"{shown} {unenforced}")
    return None


def run(folder: Path, draft: str, optional: bool) -> Tally:
    """Judges the tests of one draft: the required ones, or the optional ones that concern what is promised."""
    tally = Tally()
    under = folder / draft / "optional" if optional else folder / draft
    for path in sorted(under.glob("*.json")):
        if optional and path.name.startswith(LEFT_OUT):
            continue
        for group in json.loads(path.read_text(encoding="utf-8")):
            judge(group, DRAFTS[draft], f"{draft}/{path.stem}: {group['description']}", tally)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tests", type=Path, help="the suite's folder tests")
    parser.add_argument(
        "--optional", action="store_true", help="the optional tests instead of the required ones"
    )
    arguments = parser.parse_args()
    tallies = {draft: run(arguments.tests, draft, arguments.optional) for draft in DRAFTS}
    print("| draft | " + " | ".join(VERDICTS) + " |")
    print("| --- |" + " --- |" * len(VERDICTS))
    total: Counter[str] = Counter()
    for draft, tally in tallies.items():
        print(f"| {draft} | " + " | ".join(str(tally.counts[verdict]) for verdict in VERDICTS) + " |")
        total.update(tally.counts)
    print("| all | " + " | ".join(str(total[verdict]) for verdict in VERDICTS) + " |")
    for tally in tallies.values():
        for case in tally.wrong:
            print(case)


if __name__ == "__main__":
    main()
