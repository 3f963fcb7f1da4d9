"""The vocabulary file: a compiled grammar and its merges, which fix every token id for good."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer.grammar import FIRST_LITERAL

FORMAT = 1
BUILTIN = Path(__file__).with_name("github_workflow.json")
MAX_FILE_BYTES = 16 * 2**20


def save_vocabulary(
    path: Path, grammar: dict[str, Any], merges: list[tuple[int, int]], word_merges: int
) -> None:
    """Writes a vocabulary file, whole or not at all."""
    content = {
        "format": FORMAT,
        "vocab_size": FIRST_LITERAL + len(grammar["literals"]) + len(merges),
        "word_merges": word_merges,
        "grammar": grammar,
        "merges": [token for pair in merges for token in pair],
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
    """Reads and checks a vocabulary file.

    Returns:
        The content as in ``save_vocabulary``, and its fingerprint: the SHA-256 (hex) of all that decides token ids.

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
    problem = _problem(content)
    if problem:
        raise UserError(f"{path}: not a vocabulary file of format {FORMAT}: {problem}")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return content, hashlib.sha256(canonical).hexdigest()


def _problem(content: Any) -> str:
    """What is wrong with the content of a vocabulary file; "" when nothing is."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return "the format number is missing or another"
    merges, word_merges, grammar = content.get("merges"), content.get("word_merges"), content.get("grammar")
    if not isinstance(merges, list) or len(merges) % 2 or not all(type(token) is int for token in merges):
        return "merges are not pairs of ids"
    if type(word_merges) is not int or not 0 <= word_merges <= len(merges) // 2:
        return "word_merges is not a number of merges"
    if not isinstance(grammar, dict) or set(grammar) != {"nodes", "automata", "literals"}:
        return "the grammar is missing"
    literals = grammar["literals"]
    if not isinstance(literals, list) or not all(isinstance(text, str) for text in literals):
        return "literals are not strings"
    base = FIRST_LITERAL + len(literals)
    if content.get("vocab_size") != base + len(merges) // 2 or base >= 0xD800:
        return "vocab_size is not the number of base tokens and merges"
    for rank in range(len(merges) // 2):
        if not (0 <= merges[2 * rank] < base + rank and 0 <= merges[2 * rank + 1] < base + rank):
            return f"merge {rank} joins a token that comes after it"
    return ""
