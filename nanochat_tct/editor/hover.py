"""Explain the key, value or name under the cursor in Markdown."""

from __future__ import annotations

import re

from nanochat_tct.editor.cursor import Cursor, find_cursor
from nanochat_tct.editor.descriptions import CONTEXTS, FUNCTIONS, KEYS, longest_match
from nanochat_tct.editor.expressions import expression_at, names_after
from nanochat_tct.editor.language import Language
from nanochat_tct.tokenizer.explain import Node
from nanochat_tct.tokenizer.facts import facts
from nanochat_tct.tokenizer.wording import listed

_REST_OF_WORD = re.compile(r"[\w-]*")
MAX_VALUES = 40


def hover(language: Language, text: str, offset: int) -> str | None:
    """Explain what stands at an offset of a text; None if there is nothing to say."""
    cursor = find_cursor(text, offset)
    if cursor is None or not cursor.path:
        return None
    expression = expression_at(cursor)
    if expression is not None:
        rest = _REST_OF_WORD.match(cursor.after)
        word = expression.word + (rest[0] if rest else "")
        if word:
            return _of_word(word, expression.chain, cursor, text)
    return _of_path(language, cursor)


def _of_word(word: str, chain: tuple[str, ...], cursor: Cursor, text: str) -> str | None:
    """Explain a name in an expression."""
    if chain:
        known = names_after(chain, cursor.path, cursor.document, text)
        name = ".".join((*chain, word))
        return f"**{name}**" + ("" if word.lower() in map(str.lower, known) else ": nothing here defines it")
    for name, (least, most) in facts().functions.items():
        if name.lower() == word.lower():
            count = (
                f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
            )
            arguments = f"{count} argument{'s' * (count != '1')}"
            return f"**{name}()** takes {arguments}. {FUNCTIONS.get(name, '')}"
    known_context = next((each for each in facts().contexts if each.lower() == word.lower()), None)
    return f"**{known_context}** {CONTEXTS.get(known_context, '')}" if known_context else None


def _of_path(language: Language, cursor: Cursor) -> str | None:
    """Explain a key, the key of a value, or a value that has a meaning of its own."""
    node, pattern = language.find(cursor.path)
    if node is None or not pattern:
        return None
    written = cursor.before + cursor.after
    last = pattern if cursor.is_key else (*pattern, written)
    of_value = longest_match(KEYS, last) if not cursor.is_key and pattern == ("on",) else None
    name = written if of_value else next(part for part in reversed(cursor.path) if isinstance(part, str))
    parts = [f"**{name}** {of_value or longest_match(KEYS, pattern) or ''}".rstrip()]
    if not of_value:
        parts += _what_is_allowed(language, node, cursor)
    return "\n\n".join(parts)


def _what_is_allowed(language: Language, node: Node, cursor: Cursor) -> list[str]:
    parts = []
    if values := language.values(node):
        parts.append(f"Values: {listed((f'`{value}`' for value in values), MAX_VALUES)}")
    contexts, functions = language.words(node, "${{ ")
    if contexts or functions:
        words = ", ".join([*(f"`{name}`" for name in contexts), *(f"`{name}()`" for name in functions)])
        parts.append(f"Expressions may use: {words}")
    elif cursor.path[-1:] != ("jobs",) and node.has_texts:
        parts.append("No expression may stand here.")
    return parts
