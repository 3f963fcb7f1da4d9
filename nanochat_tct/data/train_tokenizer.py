"""``nanochat-tct train-tokenizer``: a vocabulary learned from workflows, or from documents of another schema."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanochat_tct.data.config import TrainTokenizerConfig
from nanochat_tct.data.parts import parse_raw, plan_parts, read_part
from nanochat_tct.data.repository import owner_of
from nanochat_tct.data.sources import find_sources
from nanochat_tct.documents import DocumentError, Limits
from nanochat_tct.errors import UserError
from nanochat_tct.limits import refuse_folder
from nanochat_tct.tokenizer import SchemaError
from nanochat_tct.tokenizer.train import train_vocabulary


def train_tokenizer(config: TrainTokenizerConfig) -> None:
    """Learn a vocabulary and write it to `config.output`."""
    if not config.input:
        raise UserError("--input: name the documents to learn from (a folder, a glob, .jsonl or .parquet)")
    schema = None
    if config.schema:
        try:
            schema = json.loads(Path(config.schema).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise SchemaError(f"--schema {config.schema}: cannot be read as JSON: {error}") from error
        if schema is None:
            raise SchemaError(f"--schema {config.schema}: null is not a JSON Schema")
    output = Path(config.output)
    if output.is_dir():
        raise UserError(f"--output {output} is a folder: name a file")
    refuse_folder(str(output.absolute().parent), "--output")
    started = time.monotonic()
    unreadable: Counter[str] = Counter()
    summary = train_vocabulary(
        _read_documents(config.input, unreadable, any_value=bool(config.schema)),
        schema,
        config.vocab_size,
        output,
    )
    for line in summary["unenforced"]:
        print(f"not enforced: {line}", file=sys.stderr)
    refused = summary["refused"]
    print(
        f"{config.output}: {config.vocab_size} ids, {summary['tokens']} learned from {summary['documents']} "
        f"documents in {time.monotonic() - started:.0f} s; {refused.total()} refused by the schema"
    )
    for reason, count in unreadable.most_common():
        print(f"  {count} could not be read: {reason}")
    for problem, count in refused.most_common(5):
        print(f"  {count} x {problem}")


def _read_documents(
    inputs: list[str], unreadable: Counter[str], any_value: bool
) -> Iterator[tuple[str, Any]]:
    """Yield each document with its owner, or its source if that is unknown; count those that cannot be read."""
    limits = Limits()
    for part in plan_parts(find_sources(inputs)):
        for raw in read_part(part, limits):
            try:
                value, repo = parse_raw(raw, limits, any_value)
            except DocumentError as error:
                unreadable[error.reason] += 1
                continue
            yield owner_of(repo) if repo else raw.source, value
