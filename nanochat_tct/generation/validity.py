"""Is a document valid? A workflow is, if GitHub accepts it; a document of another schema, if that does."""

from typing import Any

from nanochat_tct.tokenizer import Tokenizer, TokenizerError, load_tokenizer


def document_problem(value: Any, tokenizer: Tokenizer) -> str | None:
    """What is wrong with a document that a model of this tokenizer wrote, with its JSON pointer; None: it is valid."""
    if tokenizer.name == "wheel" or tokenizer.name.startswith("builtin"):
        tokenizer = load_tokenizer()
    try:
        tokenizer.encode_value(value)
    except TokenizerError as error:
        return str(error)
    return None
