"""The vocabulary file: a compiled grammar and its tokens, which together define all token ids."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer.engine import FIRST_LITERAL, PAD
from nanochat_tct.tokenizer.soundness import GITHUB_KEYS, SCHEMA_KEYS, grammar_problem

SCHEMA_FORMAT, GITHUB_FORMAT = 1, 2  # of a JSON Schema's grammar, and of GitHub's language
BUILTIN = Path(__file__).with_name("github_workflow.json")
# Fingerprints of earlier built-in vocabularies by name. Stores and checkpoints of their time call them "builtin".
EARLIER = {"builtin-1": "dff9085014d8d80ee2ba32a47db90dd2fb7d46af0ddd904fcb193805767e48cc"}
MAX_FILE_BYTES = 16 * 2**20
MAX_IDS = 2**16
# The SHA-256 of the automaton of numbers in earlier files, which lacked floats of 1.7e308 and more.
_EARLIER_NUMBERS = "918e7b113db6dd31c8a62fd69bec15ff8299c5de8a736608a9859e5166b6817c"
MAX_TOKEN = 160  # base tokens; the pattern of all tokens nests at most as deep


def save_vocabulary(path: Path, grammar: dict[str, Any], tokens: list[str]) -> None:
    """Write a vocabulary file atomically."""
    content = {
        "format": SCHEMA_FORMAT if set(grammar) == SCHEMA_KEYS else GITHUB_FORMAT,
        "vocab_size": FIRST_LITERAL + len(grammar["literals"]) + len(tokens),
        "grammar": grammar,
        "tokens": tokens,
    }
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(
            json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8"
        )
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path}: the vocabulary cannot be written: {error.strerror}") from error


def load_vocabulary(path: Path) -> tuple[dict[str, Any], str]:
    """Read and check a vocabulary file.

    Returns:
        The content as in ``save_vocabulary``, and its fingerprint: equal ones mean equal token ids. It is the SHA-256
        (hex) of the content, or what the file names as ``same_ids_as``: the fingerprint of an earlier file whose
        grammar allows more or less to be generated, but which has the same tokens.

    Raises:
        UserError: the file is missing, or is not a vocabulary that this version reads.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path}: larger than {MAX_FILE_BYTES} bytes; this is not a vocabulary file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such vocabulary file; make one with `nanochat-tct train-tokenizer`"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a vocabulary file: {error}") from error
    # The package's own files are checked by its tests.
    problem = "" if path.parent == BUILTIN.parent else _problem(content)
    if problem:
        raise UserError(f"{path}: not a vocabulary file of format 1 or 2: {problem}")
    fingerprint = content.pop("same_ids_as", None) or _sha256(content)
    automata = content["grammar"]["automata"]
    for index, automaton in enumerate(automata):
        if _sha256(automaton) == _EARLIER_NUMBERS:  # token ids do not depend on it
            from nanochat_tct.tokenizer.schema import NUMBER_TEXT  # patterns are compiled at this import

            automata[index] = {
                "accepting": list(NUMBER_TEXT.accepting),
                "edges": [list(sum(row, ())) for row in NUMBER_TEXT.edges],
            }
    return content, fingerprint


def builtin_path(name: str) -> Path | None:
    """The file of a built-in vocabulary; None for any other name."""
    if name in EARLIER:
        return BUILTIN.with_name(f"{BUILTIN.stem}{name.removeprefix('builtin')}.json")
    return BUILTIN if name == "builtin" else None


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _problem(content: Any) -> str:
    """What is wrong with the content of a vocabulary file; "" if it is right."""
    keys = {SCHEMA_FORMAT: SCHEMA_KEYS, GITHUB_FORMAT: SCHEMA_KEYS | GITHUB_KEYS}
    if (
        not isinstance(content, dict)
        or type(content.get("format")) is not int
        or content["format"] not in keys
    ):
        return "the format number is missing or another"
    tokens, grammar = content.get("tokens"), content.get("grammar")
    if not isinstance(grammar, dict) or set(grammar) != keys[content["format"]]:
        return "the grammar is missing"
    literals = grammar["literals"]
    if not isinstance(literals, list) or not all(isinstance(text, str) for text in literals):
        return "literals are not strings"
    base = FIRST_LITERAL + len(literals)
    if not isinstance(tokens, list) or not all(
        isinstance(text, str) and 1 < len(text) <= MAX_TOKEN for text in tokens
    ):
        return f"tokens are not strings of 2 to {MAX_TOKEN} base tokens"
    if not re.fullmatch("[0-9a-f]{64}", str(content.get("same_ids_as", "0" * 64))):
        return "same_ids_as is not a SHA-256"
    if content.get("vocab_size") != base + len(tokens) or content["vocab_size"] > MAX_IDS or base >= 0xD800:
        return "vocab_size is not the number of base tokens and further tokens"
    if len(set(tokens)) != len(tokens):
        return "a token stands twice"
    if any(ord(character) >= base or ord(character) == PAD for text in tokens for character in text):
        return "a token has a character that is no base token"
    return grammar_problem(grammar)
