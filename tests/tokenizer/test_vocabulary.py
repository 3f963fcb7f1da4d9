import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tokenizer.train import train_vocabulary
from nanochat_tct.tokenizer.vocabulary import BUILTIN, EARLIER, builtin_path, load_vocabulary, save_vocabulary
from tests.support.commands import REPOSITORY, run_cli
from tests.support.grammars import NAMED

SCHEMA = {
    "type": "object",
    "properties": {"run": {"type": "string"}},
    "required": ["run"],
    "additionalProperties": False,
}
DOCUMENTS = [("a", {"run": f"echo hello {i % 7}"}) for i in range(50)]


def test_builtin_file_is_small_and_has_exactly_8192_ids() -> None:
    content, fingerprint = load_vocabulary(BUILTIN)
    assert BUILTIN.stat().st_size <= 1_000_000
    assert content["vocab_size"] == 8192
    assert fingerprint == load_tokenizer().fingerprint


def test_a_grammar_that_is_mended_keeps_the_fingerprint_of_its_ids(tmp_path: Path) -> None:
    content, fingerprint = load_vocabulary(BUILTIN)
    ids = hashlib.sha256(json.dumps([content["grammar"]["literals"], content["tokens"]]).encode()).hexdigest()
    assert (fingerprint[:16], ids[:16]) == ("50ab21d362c736c2", "ac6285b5dac88048")
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps({**content, "same_ids_as": "0" * 64}))
    assert load_tokenizer(str(mended)).fingerprint == "0" * 64
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({**content, "same_ids_as": "0" * 63}))
    with pytest.raises(UserError, match="same_ids_as is not a SHA-256"):
        load_tokenizer(str(wrong))


def test_stores_and_checkpoints_of_earlier_versions_find_their_vocabulary() -> None:
    for name, fingerprint in EARLIER.items():
        earlier = load_tokenizer("builtin", fingerprint)
        assert earlier is load_tokenizer(name)
        assert (earlier.name, earlier.fingerprint, earlier.vocab_size()) == (name, fingerprint, 8192)
    assert load_tokenizer("builtin", load_tokenizer().fingerprint) is load_tokenizer()
    assert load_tokenizer("builtin", "0" * 64) is load_tokenizer()
    ids = load_tokenizer("builtin-1").encode(
        '{"on":"push","jobs":{"a":{"uses":"./.github/workflows/b.yml"}}}'
    )
    assert hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16] == "8b78c6f670019535"


def test_train_save_load(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    summary = train_vocabulary([*DOCUMENTS, ("b", {"walk": 1})], SCHEMA, 290, path)
    ((problem, count),) = summary["refused"].items()
    assert (summary["documents"], count) == (50, 1) and problem.startswith("unknown key 'walk'")
    tokenizer = load_tokenizer(str(path))
    assert tokenizer.vocab_size() == 290 and tokenizer.name == str(path)
    tokens = tokenizer.encode('{"run":"echo hello 3"}')
    assert tokenizer.decode(tokens)[0] == '{"run":"echo hello 3"}' and len(tokens) < 6
    again = tmp_path / "again.json"
    train_vocabulary(list(reversed(DOCUMENTS)), SCHEMA, 290, again)
    assert again.read_bytes() == path.read_bytes()  # the order of documents does not matter


@pytest.mark.parametrize(
    ("documents", "vocab_size", "message"),
    [
        (DOCUMENTS, 100, "has 267 base tokens; ask for more"),
        (DOCUMENTS, 5000, "only yields"),
        ([], 300, "nothing to learn from"),
        ([("a", {"walk": 1})], 300, "nothing to learn from"),
    ],
)
def test_training_that_cannot_be_done(tmp_path: Path, documents: Any, vocab_size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_vocabulary(documents, SCHEMA, vocab_size, tmp_path / "v.json")
    assert list(tmp_path.iterdir()) == []


EARLIER_FILE = builtin_path("builtin-1") or BUILTIN


def tampered(change: str, value: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(EARLIER_FILE.read_text())
    if change.startswith("grammar."):
        content["grammar"][change.removeprefix("grammar.")] = value
    else:
        content[change] = value
    return content


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("format", 99),
        ("tokens", [1, 2, 3]),
        ("tokens", ["a"]),
        ("tokens", ["ab", "ab"]),
        ("tokens", ["a\uffff"]),
        ("tokens", ["a\u0100"]),
        ("tokens", ["a" * 161]),
        ("tokens", ["a" * length for length in range(2, 161)]),
        ("vocab_size", 8193),
        ("grammar", {}),
        ("grammar.literals", [1]),
        ("grammar.nodes", []),
        ("grammar.nodes", [{"alternatives": [["text", 99]]}]),
        (
            "grammar.nodes",
            [{"alternatives": [["object", ["x"], 0, None]], "known": {}, "patterns": [], "free": {}}],
        ),
        ("grammar.automata", [{"accepting": [True], "edges": [[0, 255, 7]]}]),
        ("grammar.automata", [{"accepting": [True], "edges": [[0, 900, 0]]}]),
    ],
)
def test_a_tampered_file_is_refused_in_one_line(tmp_path: Path, change: str, value: Any) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps(tampered(change, value)))
    with pytest.raises(UserError) as caught:
        load_tokenizer(str(path))
    assert "v.json" in str(caught.value) and "\n" not in str(caught.value)


def change(here: Any, place: list[Any], value: Any) -> None:
    """Puts something else into one position of a grammar."""
    for part in place[:-1]:
        here = here[part]
    here[place[-1]] = value


# (place in the grammar of the built-in file, what is put there, what the message says)
TAMPERED: list[tuple[list[Any], Any, str]] = [
    (["automata", 0, "edges", 0], [10, 5, 0], "bytes are out of order"),
    (["automata", 0, "edges", 0], [0, 5, 0, 5, 9, 0], "bytes are out of order"),
    (["automata", 0, "edges", 0], [0, 256, 0], "bytes are out of order or range"),
    (["automata", 0, "edges", 0], [0, 5, -1], "leads to no state"),
    (["automata", 0, "edges", 0], [0, 5, 10**6], "leads to no state"),
    (["automata", 0, "edges", 0], [0, 5], "an edge is cut"),
    (["automata", 0, "edges", 0], [0, 5, 0.0], "whole numbers"),
    (["automata", 0, "edges", 0], [0, 255, 0], "not one of Unicode text"),
    (["automata", 0, "accepting"], [1], "is cut|not true or false"),
    (["automata", 0], {"accepting": [False], "edges": [[0, 5, 0]]}, "a state leads nowhere"),
    (["automata", 0], [], "not complete"),
    (["nodes", 0, "alternatives"], [["object", [], 10**9, None]], "a minimum"),
    (["nodes", 0, "alternatives"], [["object", [], 3, 2]], "a maximum"),
    (["nodes", 0, "alternatives"], [["object", ["jobs", "jobs"], 0, None]], "required twice"),
    (["nodes", 0, "alternatives"], [["object", ["no such key"], 0, None]], "is not known"),
    (["nodes", 0, "alternatives"], [["object", [[]], 0, None]], "no list of keys"),
    (["nodes", 0, "alternatives"], [["text", True]], "no automaton"),
    (["nodes", 0, "alternatives"], [["number", 0]], "does not spell numbers"),
    (["nodes", 0, "alternatives"], [["enum", []]], "without values"),
    (["nodes", 0, "alternatives"], [["enum", ["no such literal"]]], "is no literal"),
    (["nodes", 0, "alternatives"], [["enum", ["\ud800"]]], "no text"),
    (["nodes", 0, "alternatives"], [["array", 0, None, 1]], "no node of its items"),
    (["nodes", 0, "alternatives"], [[{}]], "not an alternative"),
    (["nodes", 0, "alternatives"], {}, "no alternatives"),
    (["nodes", 0, "known", "jobs"], [10**6, [1]], "no such node"),
    (["nodes", 0, "known", "jobs"], [0, []], "one mask for each shape"),
    (["nodes", 0, "known", "jobs"], [0, [1 << 70]], "a mask is too wide"),
    (["nodes", 0, "known", "jobs"], [0, [-1]], "a mask is too wide"),
    (["nodes", 0, "known", "no such literal"], [0, [1]], "a key is no literal"),
    (["nodes", 0, "free"], {"1000": [0, [1]]}, "keys of no pattern"),
    (["nodes", 0, "free"], {"x": [0, [1]]}, "keys of no pattern"),
    (["nodes", 0, "patterns"], [999], "no such automaton"),
    (["nodes", 0, "patterns"], None, "keys are missing"),
    (["nodes"], [], "no nodes"),
    (["literals", 0], "\ud800", "not Unicode text"),
]


@pytest.mark.parametrize(("place", "value", "message"), TAMPERED)
def test_a_changed_grammar_is_refused_with_its_place(
    tmp_path: Path, place: list[Any], value: Any, message: str
) -> None:
    content = json.loads(EARLIER_FILE.read_text())
    change(content["grammar"], place, value)
    path = tmp_path / "v.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"v\.json: not a vocabulary file.*({message})") as caught:
        load_tokenizer(str(path))
    assert "\n" not in str(caught.value)


# the same for a small grammar of that format; CALLS is an automaton with calls, NAMES one of names
CALLS, NAMES = 2, 1
TAMPERED_GITHUB: list[tuple[list[Any], Any, str]] = [
    (["automata", CALLS, "calls", 0], [97, 97, 10**6, 0], "a call leads to no state"),
    (["automata", CALLS, "calls", 0], [97, 97, 0, 10**6], "a call leads to no state"),
    (["automata", CALLS, "calls", 0], [97, 97, 0], "a call is cut"),
    (["automata", CALLS, "calls", 0], [0, 255, 0, 0], "bytes are out of order"),
    (["automata", CALLS, "calls"], [], "calls are cut"),
    (["automata", CALLS, "calls", 0], [97, 97, CALLS, 0], "calls itself"),
    (["automata", CALLS, "calls", 0], [100, 100, 0, 0], "reads nothing"),
    (["automata", CALLS, "calls", 3], [97, 99, 4, 1, 100, 100, 4, 2], "reads nothing"),
    (["automata", 3], {"accepting": [], "edges": []}, "reads nothing"),  # what CALLS calls
    (["automata", CALLS, "depth"], 5, "depth"),
    (["automata", CALLS, "strict"], [True], "is cut"),
    (["automata", CALLS, "strict"], [True] * 5, "strict mode accepts more"),
    (["automata", CALLS, "accepting"], [False] * 5, "a state leads nowhere"),
    (["automata", CALLS, "lenient"], [10**6], "lenient states"),
    (["automata", CALLS, "requires"], [[0]], "kinds of names"),
    (["automata", NAMES, "names"], 3, "kinds of names"),
    (["automata", NAMES, "accepting", 0], True, ""),
    (["nodes", 0, "lenient"], [99], "lenient alternatives"),
    (["nodes", 0, "scope"], ["\ud800"], "kinds of names"),
    (["nodes", 0, "scope"], 3, "kinds of names"),
    (["nodes", 0, "implies"], 3, "kinds of names"),
    (["nodes", 0, "defines"], {"keys": {"kind": "job"}}, "what it defines"),
    (["nodes", 0, "defines"], {"values": {}}, "what it defines"),
    (["nodes", 0, "closes"], [f"k{index}" for index in range(61)], "too many kinds"),
    (["graph"], ["job"], "graph"),
    (["implied"], {"payload": {"push": [1]}}, "implied"),
    (["implied"], [], "implied"),
    (["while_open"], [], "while_open"),
    (["ignore_key_case"], 1, "ignore_key_case"),
    (["max_call_depth"], 201, "limits of calls"),
    (["max_call_units"], -1, "limits of calls"),
]


@pytest.mark.parametrize(("place", "value", "message"), TAMPERED_GITHUB)
def test_a_changed_grammar_of_github_is_refused_with_its_place(
    tmp_path: Path, place: list[Any], value: Any, message: str
) -> None:
    path, own = tmp_path / "v.json", tmp_path / "own.json"
    save_vocabulary(own, NAMED, [])
    content = json.loads(own.read_text())
    change(content["grammar"], place, value)
    path.write_text(json.dumps(content))
    if not message:  # a name may be empty: that is another language, but no harm
        assert load_tokenizer(str(path)).fingerprint != load_tokenizer(str(own)).fingerprint
        return
    with pytest.raises(UserError, match=rf"v\.json: not a vocabulary file.*({message})") as caught:
        load_tokenizer(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_not_a_vocabulary_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "v.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"v\.json: not a vocabulary file"):
        load_tokenizer(str(path))
    with pytest.raises(UserError, match="no such vocabulary file"):
        load_tokenizer(str(tmp_path / "missing.json"))


def test_a_library_of_another_version_is_not_taken_for_a_damaged_file(tmp_path: Path) -> None:
    package = shutil.copytree(REPOSITORY / "nanochat_tct", tmp_path / "nanochat_tct")
    with (package / "tokenizer" / "engine.c").open("a") as source:
        source.write("/* changed */\n")
    found = run_cli("check", REPOSITORY / ".github", env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert found.code == 2
    assert found.stderr.startswith("error: the compiled part of engine.c is missing: "), found.stderr


@pytest.mark.parametrize("name", ["builtin", "builtin-1"])
def test_the_files_of_the_package_pass_the_checks_of_others(name: str, tmp_path: Path) -> None:
    own = builtin_path(name)
    assert own is not None
    assert load_vocabulary(Path(shutil.copy(own, tmp_path))) == load_vocabulary(own)
