"""Trains a vocabulary: compiles a grammar and learns tokens from documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import learn
from nanochat_tct.tokenizer.compile import compile_github, compile_schema
from nanochat_tct.tokenizer.engine import Engine
from nanochat_tct.tokenizer.errors import TokenizerError
from nanochat_tct.tokenizer.explain import Explainer
from nanochat_tct.tokenizer.vocabulary import save_vocabulary


def train_vocabulary(
    documents: Iterable[tuple[str, Any]], schema: Any | None, vocab_size: int, output: Path
) -> dict[str, Any]:
    """Learn a vocabulary and write it.

    Args:
        documents: (group, value): values that belong together, such as those of one owner, share a group,
            which counts less the more it repeats itself (see ``learn.learn_tokens``).
        schema: a JSON Schema document; None: GitHub's workflow language.
        vocab_size: number of ids.
        output: the vocabulary file.

    Returns:
        documents: their number; refused: numbers by problem; tokens: the number learned; unenforced: lines about the
        schema.

    Raises:
        UserError: there is nothing to learn from, the size is too small, or the file cannot be written.
    """
    compiled, unenforced = (compile_github(), []) if schema is None else compile_schema(schema)
    grammar = Engine(compiled)
    explainer = Explainer(grammar)
    if vocab_size <= grammar.base_size:
        raise UserError(
            f"--vocab-size {vocab_size}: this schema has {grammar.base_size} base tokens; ask for more"
        )
    written: list[tuple[str, str]] = []
    refused: Counter[str] = Counter()
    for group, value in documents:
        try:
            written.append((group, explainer.write(value)))
        except TokenizerError as error:
            refused[error.problem] += 1
    if not written:
        raise UserError("--input: no document there is valid under the schema; nothing to learn from")
    tokens = learn.learn_tokens(written, grammar.base_size, vocab_size)
    if grammar.base_size + len(tokens) != vocab_size:
        raise UserError(
            f"--vocab-size {vocab_size}: the input only yields {grammar.base_size + len(tokens)} tokens; "
            "give more documents or ask for fewer"
        )
    save_vocabulary(output, compiled, tokens)
    return {"documents": len(written), "refused": refused, "tokens": len(tokens), "unenforced": unenforced}
