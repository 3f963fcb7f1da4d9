"""``nanochat-tct tokenize FILE``: the tokens of a workflow in readable form, with counts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nanochat_tct.documents import read_workflow, to_json
from nanochat_tct.errors import UserError
from nanochat_tct.evaluation.config import TokenizeConfig
from nanochat_tct.tokenizer import Tokenizer, load_tokenizer

TIKTOKEN_ENCODING = "o200k_base"


def tokenize(config: TokenizeConfig) -> None:
    """Print the tokens of a workflow."""
    if not config.file:
        raise UserError("tokenize: name a workflow file, or - for standard input")
    try:
        text = sys.stdin.buffer.read() if config.file == "-" else Path(config.file).read_bytes()
    except OSError as error:
        raise UserError(f"{config.file}: cannot be read: {error.strerror}") from error
    value = read_workflow(text, "json" if config.file.endswith(".json") else "auto")
    tokenizer = load_tokenizer(config.tokenizer)
    tokens = tokenizer.encode_value(value)
    print("\n".join(render(tokenizer, tokens, config.ids)))
    compact = to_json(value)
    size = len(compact.encode("utf-8"))
    print()
    print(f"{tokenizer.name}: {len(tokens)} tokens, {size / len(tokens):.2f} bytes of compact JSON a token")
    print(compare_with_tiktoken(compact, text.decode("utf-8", "replace"), len(tokens)))


def render(tokenizer: Tokenizer, tokens: Sequence[int], ids: bool = False, width: int = 110) -> list[str]:
    """Lines of tokens in brackets. A line begins before a token that opens a key, and ends after a line break."""
    lines: list[str] = []
    line = ""
    for token in tokens:
        text = tokenizer.describe(token)
        shown = f"[{token} {text}]" if ids else f"[{text}]"
        if line and (len(line) + len(shown) > width or text.startswith("‹")):
            lines.append(line)
            line = ""
        line += shown
        if "↵" in text:
            lines.append(line)
            line = ""
    return [*lines, line] if line else lines


def compare_with_tiktoken(compact: str, original: str, tokens: int) -> str:
    """A line with the counts of o200k_base on the compact JSON and on the original text, or why there are none."""
    try:
        import tiktoken
    except ImportError:
        return "tiktoken is not installed, so there is no comparison (pip install tiktoken)"
    try:
        encoding = tiktoken.get_encoding(TIKTOKEN_ENCODING)
    except Exception as error:  # its download raises whatever the HTTP library raises
        return f"tiktoken has no ranks of {TIKTOKEN_ENCODING} here, so there is no comparison ({type(error).__name__})"
    json_count, text_count = len(encoding.encode_ordinary(compact)), len(encoding.encode_ordinary(original))
    return (
        f"tiktoken {TIKTOKEN_ENCODING}: {json_count} tokens on compact JSON ({1 - tokens / json_count:+.1%} saved), "
        f"{text_count} on the text as given ({1 - tokens / text_count:+.1%} saved)"
    )
