"""Throws broken and hostile input at everything that reads what others wrote: result, or one clear error.

    python -m tests.fuzz --count 100000 --seed 1
    python -m tests.fuzz --seconds 60 --target yaml

Targets: `encode`, `decode`, `decode_prefix` (tokenizer), `yaml` (the reader of documents) and `vocabulary` (the loader
of vocabulary files, and the use of what it lets through). An input that ends in another error than a UserError, takes
longer than 10 seconds, or gives a result that contradicts itself is printed, and the exit code is 1. Every input
follows from the seed, the target and its number.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from nanochat_tct.documents import DocumentError, read_workflow, to_json, to_yaml
from nanochat_tct.errors import UserError
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer.errors import TokenizerError
from nanochat_tct.tokenizer.tokenizer import Tokenizer
from nanochat_tct.tokenizer.train import train_vocabulary

MAX_SECONDS = 10
# of 307 inputs so many are of each target: those that take longer have fewer
SHARES = {"encode": 60, "decode": 60, "decode_prefix": 6, "yaml": 60, "vocabulary": 1}


class Contradiction(Exception):
    """A result that cannot be right."""


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer()


@cache
def documents() -> list[dict[str, Any]]:
    """Short ones: what can go wrong does not need long ones, and more inputs fit into the time."""
    return sorted((synthesize(index, 0) for index in range(150)), key=lambda value: len(to_json(value)))[:20]


@cache
def token_lists() -> list[list[int]]:
    return [tokenizer().encode_value(value) for value in documents()]


@cache
def yaml_texts() -> list[str]:
    return [to_yaml(value) for value in documents()]


# ---- inputs ----

# Pieces of texts; ¦ separates those that hold blanks.
SCALARS: list[Any] = [None, True, False, 0, -1, 1.5, 1e308, -0.0, 10**20, 10**308, 10**309, 10**400, 5e-324]
SCALARS += [*"¦a¦on¦jobs¦push¦ubuntu-latest¦${{ x }}¦\ud800¦\x00¦é😀¦\u2028".split("¦"), "a" * 300]
JSON_PIECES = [
    *'{ } [ ] : , " \\ "\\ud800" NaN -Infinity 1e999'.split(),
    "1" * 5000,
    "[" * 2000,
    '{"a":' * 500,
]
JSON_PIECES += 'null¦true¦"on"¦"jobs"¦-¦.¦\x00¦\ufeff¦\ud800'.split("¦")
YAML_PIECES = "on: push\n¦jobs:\n¦  a:\n¦    steps:\n¦- ¦? ¦: ¦&a ¦*a¦*b¦<<: ¦!!str ".split("¦")
YAML_PIECES += "!!python/object:os.system ¦!x ¦|\n¦>-\n¦|9\n¦---\n¦...\n¦%YAML 1.1\n¦'¦\"".split("¦")
YAML_PIECES += "[¦]¦{¦}¦,¦#¦\t¦\n¦  ¦\x00¦\x85¦\u2028¦\ufeff¦\ud800¦\\x".split("¦")
YAML_PIECES += [*"0o777 0xff .inf .NaN 1e999".split(), "9" * 2000, *"1_000 12:30 ~ yes << = @ `".split()]
YAML_PIECES += ["[" * 200, "a: {" * 150, "- " * 300, ", ".join(["*a"] * 8), "[&b [*a, *a], *b, *b, *b]", "é"]


def value_of(choose: random.Random, depth: int = 0) -> Any:
    """A random JSON value that has something of a workflow."""
    kind = choose.randrange(8)
    if kind < 4 or depth > 6:
        return choose.choice(SCALARS)
    if kind == 4:
        return [value_of(choose, depth + 1) for _ in range(choose.randrange(4))]
    if kind == 5 and depth == 0:
        deep: Any = 1
        for _ in range(choose.choice([5, 100, 127, 128, 129, 400])):
            deep = [deep] if choose.random() < 0.5 else {"a": deep}
        return deep
    keys = ["on", "jobs", "name", "steps", "runs-on", "env", "with", "a", "", "\ud800", "0"]
    return {choose.choice(keys): value_of(choose, depth + 1) for _ in range(choose.randrange(5))}


def places(value: Any) -> list[tuple[Any, Any]]:
    """(collection, key or index) of everything inside a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        here = waiting.pop()
        inner = here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
        for key, item in inner:
            found.append((here, key))
            waiting.append(item)
    return found


def mutate_value(value: Any, choose: random.Random, replacement: Callable[[], Any]) -> Any:
    """Changes a few places of a JSON value, in place."""
    for _ in range(choose.randrange(1, 4)):
        found = places(value)
        if not found:
            return value
        owner, key = choose.choice(found)
        action = choose.randrange(6)
        if action == 0:
            del owner[key]
        elif action == 1:
            source, name = choose.choice(found)
            owner[key] = json.loads(json.dumps(source[name]))
        elif action == 2 and isinstance(owner, list):
            owner.insert(key, json.loads(json.dumps(choose.choice(owner))))
        elif action == 3 and isinstance(owner, dict):
            owner[choose.choice(["x", "on", "steps", "", "0", "1", "999"])] = owner.pop(key)
        elif action == 4 and type(owner[key]) is int:
            number = owner[key]
            owner[key] = choose.choice([number + 1, number - 1, -number, number * 2, 10**9, 10**30])
        else:
            owner[key] = replacement()
    return value


def mutate_text(text: str, choose: random.Random, pieces: list[str]) -> str:
    """Cuts, doubles, moves and overwrites parts of a text."""
    for _ in range(choose.randrange(1, 5)):
        start = choose.randrange(len(text) + 1)
        stop = min(len(text), start + choose.randrange(20))
        action = choose.randrange(5)
        if action == 0:
            text = text[:start] + text[stop:]
        elif action == 1:
            text = text[:start] + choose.choice(pieces) + text[start:]
        elif action == 2:
            text = text[:start] + text[start:stop] * 2 + text[stop:]
        elif action == 3:
            odd = chr(choose.choice([0, 9, 10, 34, 39, 92, 127, 0x85, 0xD800, 0x1F600]))
            text = text[:start] + odd + text[stop:]
        else:
            text = text[:stop]
    return text


def json_input(choose: random.Random) -> str:
    kind = choose.randrange(4)
    if kind == 0:
        return "".join(choose.choice(JSON_PIECES) for _ in range(choose.randrange(12)))
    if kind == 1:
        return json.dumps(value_of(choose))
    value = json.loads(to_json(choose.choice(documents())))
    if kind == 2:
        return mutate_text(to_json(value), choose, JSON_PIECES)
    return json.dumps(mutate_value(value, choose, lambda: value_of(choose, 3)))


def tokens_input(choose: random.Random) -> list[int]:
    size = tokenizer().vocab_size()
    kind = choose.randrange(5)
    if kind == 0:
        return [choose.randrange(size) for _ in range(choose.randrange(40))]
    if kind == 1:
        odd = [-1, 0, size - 1, size, 2**31, -(2**63), 10**30]
        return [choose.choice(odd) for _ in range(choose.randrange(5))]
    tokens = list(choose.choice(token_lists()))
    for _ in range(choose.randrange(4)):
        start = choose.randrange(len(tokens) + 1)
        action = choose.randrange(5)
        if action == 0:
            tokens = tokens[:start]
        elif action == 1:
            tokens = tokens[:start] + tokens[start + choose.randrange(5) :]
        elif action == 2:
            other = choose.choice(token_lists())
            cut = choose.randrange(len(other) + 1)
            tokens = tokens[:start] + other[cut : cut + choose.randrange(60)] + tokens[start:]
        elif action == 3:
            tokens[start : start + 1] = [choose.randrange(size)]
        else:
            tokens.insert(start, choose.choice([*range(256, 266), -1, size, choose.randrange(size)]))
    return tokens


def yaml_input(choose: random.Random) -> tuple[str | bytes, str]:
    kind = choose.randrange(4)
    if kind == 0:
        text = "".join(choose.choice(YAML_PIECES) for _ in range(choose.randrange(14)))
    elif kind == 1:
        text = json_input(choose)
    else:
        text = mutate_text(choose.choice(yaml_texts()), choose, YAML_PIECES)
    form = choose.choice(["yaml", "yaml", "auto", "json"])
    if choose.random() < 0.1:
        return choose.randbytes(choose.randrange(60)), form
    return (text.encode("utf-8", "surrogatepass") if choose.random() < 0.3 else text), form


SMALL_SCHEMA = {
    "type": "object",
    "properties": {
        "run": {"type": "string", "pattern": "^[a-z ]+$"},
        "kind": {"enum": ["x", "yes", None, 3]},
        "needs": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        },
        "inner": {"$ref": "#"},
    },
    "patternProperties": {"^x-": {"type": ["integer", "boolean"]}},
    "oneOf": [{"required": ["run"]}, {"required": ["needs"]}],
    "additionalProperties": False,
}
SMALL_DOCUMENTS: list[Any] = [
    {"run": "echo a", "kind": "x", "x-a": 1},
    {"needs": ["a", "b"], "inner": {"run": "b"}},
    {"needs": "a", "kind": 3, "x-b": True},
]


@cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


@cache
def small_vocabulary() -> str:
    path = folder() / "small.json"
    samples = [(str(index), value) for index in range(9) for value in SMALL_DOCUMENTS]
    train_vocabulary(samples, SMALL_SCHEMA, 285, path)
    return path.read_text(encoding="utf-8")


def vocabulary_input(choose: random.Random) -> str:
    if choose.random() < 0.1:
        return mutate_text(small_vocabulary(), choose, JSON_PIECES)
    content = json.loads(small_vocabulary())
    grammar = content["grammar"]  # of its automata there is far more than of its nodes
    nodes = grammar["nodes"]
    target = choose.choice([content, grammar["automata"][:3], nodes, nodes, nodes])
    others = [*SCALARS, [], {}, [[]], [0, 255, 0], [0, 255, 10**6], "0", -5, 2**70, ["text", 0]]
    others += [
        ["array", 10**9, None, 1],
        ["array", 40, None, 1],
        ["object", [], 9, None],
        ["null"],
        ["number", 0],
    ]
    if choose.random() < 0.5:  # one number among its like: such a file may well be let through
        owner, key = choose.choice([place for place in places(target) if type(place[0][place[1]]) is int])
        owner[key] = choose.randrange(12)
    else:
        mutate_value(target, choose, lambda: choose.choice(others))
    if choose.random() < 0.5 and isinstance(content.get("tokens"), list):
        literals = content.get("grammar")
        literals = literals.get("literals") if isinstance(literals, dict) else None
        if isinstance(literals, list):
            content["vocab_size"] = 266 + len(literals) + len(content["tokens"])
    return json.dumps(content)


# ---- what must hold ----


def check_encode(text: str) -> None:
    tokens = tokenizer().encode(text)
    again, consumed, total = tokenizer().decode(tokens)
    if json.dumps(json.loads(again)) != json.dumps(json.loads(text)) or not consumed == total == len(tokens):
        raise Contradiction(f"decoded as {again}")


def check_decode(tokens: list[int]) -> None:
    try:
        text, consumed, total = tokenizer().decode(tokens)
    except TokenizerError as error:
        if not re.match(r"/", str(error)):
            raise Contradiction(f"the error names no place: {error}") from error
        raise
    if total != len(tokens) or not 0 < consumed <= total:
        raise Contradiction(f"{consumed} of {total} tokens consumed")
    check_encode(text)


def check_decode_prefix(tokens: list[int]) -> None:
    text, fields, is_complete = tokenizer().decode_prefix(tokens)
    if fields < 0 or (is_complete and not tokens):
        raise Contradiction(f"{fields} fields, complete: {is_complete}")
    try:
        check_encode(text)
    except UserError as error:
        raise Contradiction(f"completed to an invalid document: {text}: {error}") from error


def check_yaml(item: tuple[str | bytes, str]) -> None:
    text, form = item
    try:
        value = read_workflow(text, form)  # type: ignore[arg-type]
    except DocumentError as error:
        if not error.reason or not str(error):
            raise Contradiction("an error without a reason") from error
        raise
    if not isinstance(value, dict):
        raise Contradiction(f"not a mapping: {value!r}")
    written = to_json(value)
    if to_json(read_workflow(written, "json")) != written:
        raise Contradiction(f"another value after writing: {written}")


def check_vocabulary(text: str) -> None:
    path = folder() / "tampered.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        loaded = Tokenizer(path)
    except UserError as error:
        if "\n" in str(error) or not str(error):
            raise Contradiction(f"not one line: {error}") from error
        raise
    # what is let through is a vocabulary, if another one: it must work like any other
    for value in SMALL_DOCUMENTS:
        try:
            tokens = loaded.encode_value(value)
        except TokenizerError:
            continue
        if loaded.decode_value(tokens) != value:
            raise Contradiction(f"{value} decoded as {loaded.decode_value(tokens)}")
    choose = random.Random(text)
    for length in (0, 3, 12):
        tokens = [choose.randrange(loaded.vocab_size()) for _ in range(length)]
        completed, _, _ = loaded.decode_prefix(tokens)
        loaded.decode(loaded.encode(completed))
        try:
            loaded.decode(tokens)
        except TokenizerError:
            continue


TARGETS: dict[str, tuple[Callable[[random.Random], Any], Callable[[Any], None]]] = {
    "encode": (json_input, check_encode),
    "decode": (tokens_input, check_decode),
    "decode_prefix": (tokens_input, check_decode_prefix),
    "yaml": (yaml_input, check_yaml),
    "vocabulary": (vocabulary_input, check_vocabulary),
}


def run_one(target: str, item: Any) -> bool:
    """Whether an input gave a result (else it was refused by a UserError); any other outcome is raised."""
    try:
        TARGETS[target][1](item)
    except UserError:
        return False
    return True


class TooLong(BaseException):
    """An input that takes longer than MAX_SECONDS; not an Exception, so that nothing on the way catches it."""


def _interrupt(signum: int, frame: Any) -> None:
    raise TooLong(f"longer than {MAX_SECONDS} seconds")


def fuzz(
    names: list[str], seed: int, count: int | None, seconds: float | None
) -> tuple[dict[str, Counter[str]], list[str]]:
    """Runs random inputs.

    Returns:
        For each target how many inputs gave a result and how many were refused; and a report of each failure.
    """
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    failures: list[str] = []
    order = [name for name in names for _ in range(SHARES[name] if len(names) > 1 else 1)]
    started = time.monotonic()
    previous = signal.signal(signal.SIGALRM, _interrupt)
    number = 0
    try:
        while (count is None or number < count) and (seconds is None or time.monotonic() - started < seconds):
            target = order[number % len(order)]
            item = TARGETS[target][0](random.Random(f"{seed} {target} {number}"))
            signal.alarm(MAX_SECONDS)
            try:
                counts[target]["results" if run_one(target, item) else "refused"] += 1
            except (Exception, TooLong) as error:
                counts[target]["failed"] += 1
                place = traceback.extract_tb(error.__traceback__)[-1]
                failures.append(
                    f"FAILED: target {target}, seed {seed}, number {number}: {type(error).__name__}: "
                    f"{str(error)[:300]!r} at {Path(place.filename).name}:{place.lineno}\n  input: {item!r}"
                )
                if len(failures) >= 20:
                    break
            finally:
                signal.alarm(0)
            number += 1
            if number % 50_000 == 0:
                print(f"{number} inputs, {len(failures)} failures", file=sys.stderr, flush=True)
    finally:
        signal.signal(signal.SIGALRM, previous)
    return counts, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", choices=list(TARGETS), help="only this one; default: all")
    parser.add_argument("--count", type=int, help="number of inputs")
    parser.add_argument("--seconds", type=float, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.count is None and given.seconds is None:
        parser.error("--count or --seconds says when to stop")
    started = time.monotonic()
    counts, failures = fuzz(
        [given.target] if given.target else list(TARGETS), given.seed, given.count, given.seconds
    )
    for name, counter in counts.items():
        results = ", ".join(f"{counter[kind]} {kind}" for kind in ("results", "refused", "failed"))
        print(f"{name}: {counter.total()} inputs, {results}")
    total = sum(counter.total() for counter in counts.values())
    print(
        f"{total} inputs in {time.monotonic() - started:.0f} s, seed {given.seed}, {len(failures)} failures"
    )
    print(*failures, sep="\n", end="\n" * bool(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
