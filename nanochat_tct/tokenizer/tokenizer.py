"""The tokenizer that ships with the package: JSON values to token ids and back, along the workflow schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nanochat_tct.tokenizer.errors import TokenizerError
from nanochat_tct.tokenizer.grammar import END, OBJECT_END, PAD, Grammar, Pairs
from nanochat_tct.tokenizer.matcher import AdditionalKey, GrammarMatcher, Illegal, Object, State, segments_of
from nanochat_tct.tokenizer.native import make_codec
from nanochat_tct.tokenizer.prefix import beginnings, cut_at_end
from nanochat_tct.tokenizer.segment import Segmenter
from nanochat_tct.tokenizer.token_bitmask import TokenBitmask
from nanochat_tct.tokenizer.vocabulary import BUILTIN, load_vocabulary

if TYPE_CHECKING:
    from nanochat_tct.tokenizer._native import Codec


class Tokenizer:
    """Type-constrained tokens of one vocabulary file.

    Attributes:
        name: "builtin", or the path of the vocabulary file.
        fingerprint: SHA-256 (hex) of the vocabulary; equal fingerprints mean equal token ids.
    """

    def __init__(self, path: Path = BUILTIN) -> None:
        content, self.fingerprint = load_vocabulary(path)
        self.name = "builtin" if path == BUILTIN else str(path)
        try:
            self.grammar = Grammar(content["grammar"])
            self.grammar_matcher = GrammarMatcher(self.grammar)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise TokenizerError(
                "", f"{path}: the grammar in this vocabulary file is damaged ({error})"
            ) from error
        self.segmenter = Segmenter(self.grammar.base_size, content["tokens"])

    @cached_property
    def masks(self) -> TokenBitmask:
        """The legal tokens at any place, made when first asked for."""
        return TokenBitmask(self.grammar_matcher, self.segmenter.expansions)

    @cached_property
    def codec(self) -> Codec | None:
        """The quick way for ``encode`` and ``decode``, made when first asked for; with None they go in Python."""
        return make_codec(self.grammar, self.segmenter)

    def vocab_size(self) -> int:
        return len(self.segmenter.expansions)

    def pad_token(self) -> int:
        """The id that fills rows; it never stands in a document."""
        return PAD

    def encode(self, json_str: str) -> list[int]:
        """Token ids of a document given as JSON text.

        Raises:
            TokenizerError: the text is not JSON, or its value is not valid under the schema (with the JSON pointer).
        """
        if self.codec is not None and (ids := self.codec.encode(json_str)) is not None:
            return ids
        try:
            value = _read_json(json_str)
        except TokenizerError:
            raise
        except (ValueError, RecursionError) as error:
            raise TokenizerError("", f"not JSON: {error}") from None
        return self.encode_value(value)

    def encode_value(self, value: Any) -> list[int]:
        """Token ids of a document given as a parsed JSON value; see ``encode``."""
        return self.segmenter.encode(self.grammar.write(value))

    def encode_prefix(self, value: Any, open_scalar: bool = True) -> list[int]:
        """Token ids of a half-written document, left open at its end.

        The last array or object of each level stays open, and so does the last text or number (unless
        ``open_scalar`` is False); a last key whose value is null and may not be null waits for its value.

        Raises:
            TokenizerError: no valid document begins like this; it names the place.
        """
        return self.encode_cut([cut_at_end(value, open_scalar)])[0]

    def encode_cut(self, readings: Sequence[Any]) -> tuple[list[int], tuple[str, ...]]:
        """Token ids of a document that is cut off, and what may come next.

        Args:
            readings: values with a ``Cut`` (prefix.py) each, of which one is meant; or one value without, which is
                whole.

        Returns:
            The token ids that are certain, and strings of base tokens, one of which must follow (see
            ``TokenMatcher.expect``); none if anything may. The first one leads to the shortest document.

        Raises:
            TokenizerError: no valid document begins like any of the readings; it names the place in the first one.
        """
        found: list[str] = []
        first_error: TokenizerError | None = None
        for value in readings:
            try:
                found += beginnings(self.grammar_matcher, value)
            except TokenizerError as error:
                first_error = first_error or error
        if not found:
            assert first_error is not None
            raise first_error
        found.sort()
        shortest = [found[0]]
        for base in found:  # what goes on from another one is allowed by that
            if not base.startswith(shortest[-1]):
                shortest.append(base)
        first, last = shortest[0], shortest[-1]  # in order: what these two have in common, all have
        length = next((i for i, one in enumerate(first) if not last.startswith(one, i)), len(first))
        certain = first[:length]
        if len(shortest) == 1:
            return self.segmenter.encode(certain), ()
        advance, complete = self.grammar_matcher.advance, self.grammar_matcher.complete
        state = advance(self.grammar_matcher.start, segments_of(certain))
        assert state is not None

        def order(ending: str) -> tuple[int, bool]:
            rest = complete(advance(state, segments_of(ending)))
            # of equally short ones, those that a person might write come first
            return len(ending) + len(rest), ord(ending[-1]) < 256 and not ending[-1].isalnum()

        return self.segmenter.encode(certain), tuple(
            sorted((base[len(certain) :] for base in shortest), key=order)
        )

    def heal(self, tokens: Sequence[int]) -> tuple[list[int], str]:
        """Takes back the last tokens of an open prefix that a whole document would have cut differently.

        A longer token may begin inside the prefix and reach beyond its end. A model never saw the prefix cut off
        before it, so it should choose that token itself: see ``TokenMatcher.expect``.

        Returns:
            The tokens that stay, whatever follows, and the base tokens of the rest.
        """
        texts = [self.segmenter.expansions[token] for token in tokens]
        rest = "".join(texts)
        for index, text in enumerate(texts):
            if self.segmenter.begins_longer_token(rest):
                return list(tokens[:index]), rest
            rest = rest[len(text) :]
        return list(tokens), ""

    def decode(self, tokens: Sequence[int]) -> tuple[str, int, int]:
        """The document that tokens begin with.

        Returns:
            Its compact JSON, how many tokens it took, and how many were given.

        Raises:
            TokenizerError: the tokens are cut off, out of range, or not those of a valid document.
        """
        if self.codec is not None and (decoded := self.codec.decode(tokens)) is not None:
            return decoded
        value, consumed = self._decode(tokens)
        return _compact_json(value), consumed, len(tokens)

    def decode_value(self, tokens: Sequence[int]) -> Any:
        """The value of exactly one whole document; see ``decode``."""
        value, consumed = self._decode(tokens)
        if consumed != len(tokens):
            raise TokenizerError("", f"the document ends after {consumed} of {len(tokens)} tokens")
        return value

    def _decode(self, tokens: Sequence[int]) -> tuple[Any, int]:
        self._check_range(tokens)
        base = self.segmenter.decode(tokens)
        value, length = self.grammar.read(base)
        if length == len(base):
            return value, len(tokens)
        position = 0
        for index, token in enumerate(tokens):
            if position == length:
                return value, index
            position += len(self.segmenter.expansions[token])
        if position != length:
            raise TokenizerError("", "a token reaches beyond the end of the document")
        return value, len(tokens)

    def decode_prefix(self, tokens: Sequence[int]) -> tuple[str, int, bool]:
        """A cut-off sequence, completed to the shortest valid document.

        Reading stops at the first token that no valid document has at its place; a character cut in the middle is
        left out.

        Returns:
            Compact JSON, the number of fields (keys with the beginning of a value) that the tokens gave, and whether
            they were a complete document by themselves.
        """
        self._check_range(tokens)
        state: State | None = self.grammar_matcher.start
        kept: list[str] = []
        fields = 0
        for token in tokens:
            if state is None:
                break
            expansion = self.segmenter.expansions[token]
            moved = self._advance(state, expansion)
            if moved is None:
                break
            state, more = moved
            fields += more
            kept.append(expansion)
        base = "".join(kept)
        if state is None:
            value, _ = self.grammar.read(base)
            return _compact_json(value), fields, True
        cut = _incomplete_character(base)
        if cut:
            base = base[:-cut]
            state = self.grammar_matcher.start
            for character in base:
                assert state is not None
                state = self.grammar_matcher.step(state, character)
        value, _ = self.grammar.read(base + self.grammar_matcher.complete(state))
        return _compact_json(value), fields, False

    def _advance(self, state: State, expansion: str) -> tuple[State | None, int] | None:
        """The state after a token and the number of keys in it; None when the token is not legal."""
        fields = 0
        here: State | None = state
        try:
            for character in expansion:
                if here is None:
                    return None
                owner = self.grammar_matcher.reader_of(here, character)
                here = self.grammar_matcher.step(owner, character)
                known_key = (
                    isinstance(owner, Object)
                    and character != OBJECT_END
                    and not isinstance(here, AdditionalKey)
                )
                if known_key or (isinstance(owner, AdditionalKey) and character == END):
                    fields += 1
        except Illegal:
            return None
        return here, fields

    def extract_window(self, tokens: Sequence[int], start: int, end: int) -> list[int]:
        """``[start] + tokens[start:end]``: one position token, then content.

        Raises:
            TokenizerError: start and end are not a range of the tokens.
        """
        if not 0 <= start <= end <= len(tokens):
            raise TokenizerError("", f"no window from {start} to {end} in {len(tokens)} tokens")
        return [start, *tokens[start:end]]

    def matcher(self) -> TokenMatcher:
        """Return a matcher before the first token of a document."""
        return TokenMatcher(self)

    def masks_of(self, tokens: Sequence[int]) -> list[bytes]:
        """Which tokens are legal in the place of each token of a document, itself among them.

        Returns: a mask for each, ceil(vocab_size / 8) bytes: a bit a token, the first one in the highest bit.
        """
        advance, packed, segments = self.grammar_matcher.advance, self.masks.packed, self.masks.segments
        state: State | None = self.grammar_matcher.start
        asked, mask = None, b""
        masks = []
        for token in tokens:
            if state is not asked:  # most tokens of a text change nothing
                asked, mask = state, packed(state)
            masks.append(mask)
            assert state is not None, "a token after the end of the document"
            state = advance(state, segments[token])
        return masks

    def describe(self, token: int) -> str:
        """A token as a person reads it."""
        parts: list[str] = []
        for character in self.segmenter.expansions[token]:
            if character == END:
                parts.append("⏎")
            elif ord(character) > 255:
                parts.append(f"‹{self.grammar.name(character)}›")
            else:
                parts.append(character)
        text = "".join(parts)
        if max(map(ord, text)) < 256:
            # the bytes of a character cut in two are shown by their codes
            text = text.encode("latin-1").decode("utf-8", "backslashreplace")
        return text.replace("\n", "↵").replace(" ", "·").replace("\t", "→")

    def _check_range(self, tokens: Sequence[int]) -> None:
        size = len(self.segmenter.expansions)
        if len(tokens) == 0 or (min(tokens) >= 0 and max(tokens) < size):
            return
        for index, token in enumerate(tokens):
            if not 0 <= token < size:
                raise TokenizerError("", f"token {index} is {token}, not an id from 0 to {size - 1}")


class TokenMatcher:
    """Walks through a document token by token, as generation does."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._state: State | None = tokenizer.grammar_matcher.start
        self._expected: tuple[str, ...] = ()
        self._closing: tuple[str, list[int]] = ("", [])  # base tokens, and their ids

    def expect(self, *beginnings: str) -> None:
        """Allows only tokens that write one of these strings of base tokens first; the last may go on beyond it.

        Each must be legal here, and the first one lead to the shortest document; an empty one allows anything.
        """
        self._expected = beginnings if all(beginnings) else ()

    @property
    def is_complete(self) -> bool:
        """Whether the document is complete, so that no token may follow."""
        return self._state is None

    def legal(self) -> np.ndarray:
        """Which tokens some valid document goes on with: bool (vocab_size,). Not to be changed."""
        mask = self._tokenizer.masks.legal(self._state)[: self._tokenizer.vocab_size()]
        if not self._expected:
            return mask
        mask = mask.copy()
        expansions = self._tokenizer.segmenter.expansions
        by_first: dict[str, list[str]] = {}
        for expected in self._expected:
            by_first.setdefault(expected[0], []).append(expected)
        for token in np.flatnonzero(mask).tolist():
            text = expansions[token]
            mask[token] = any(
                text.startswith(expected) or expected.startswith(text)
                for expected in by_first.get(text[0], ())
            )
        return mask

    def allows(self, token: int) -> bool:
        """Whether some valid document goes on with this token."""
        return self._moved(token) is not None

    def advance(self, token: int) -> None:
        """Reads a token.

        Raises:
            TokenizerError: no valid document goes on with it.
        """
        moved = self._moved(token)
        if moved is None:
            raise TokenizerError("", f"no valid workflow has the token {token} at this place")
        (self._state,) = moved
        text = self._tokenizer.segmenter.expansions[token]
        if any(text.startswith(expected) for expected in self._expected):
            self._expected = ()
        else:
            self._expected = tuple(
                expected[len(text) :] for expected in self._expected if expected.startswith(text)
            )

    def after(self, token: int) -> TokenMatcher:
        """Return a new matcher that has also accepted a token; see ``advance``."""
        matcher = TokenMatcher(self._tokenizer)
        matcher._state, matcher._expected, matcher._closing = self._state, self._expected, self._closing
        matcher.advance(token)
        return matcher

    def closing(self) -> list[int]:
        """Tokens that end the document: the shortest way in base tokens."""
        matcher, segmenter = self._tokenizer.grammar_matcher, self._tokenizer.segmenter
        if self._expected:
            assert self._state is not None
            expected = self._expected[0]
            rest = matcher.complete(matcher.advance(self._state, segments_of(expected)))
            return segmenter.encode(expected + rest)
        base = matcher.complete(self._state)
        if base != self._closing[0]:
            self._closing = (base, segmenter.encode(base))
        return self._closing[1]

    def _moved(self, token: int) -> tuple[State | None] | None:
        if self._state is None or not 0 <= token < self._tokenizer.vocab_size():
            return None
        text = self._tokenizer.segmenter.expansions[token]
        if self._expected and not any(
            text.startswith(expected) or expected.startswith(text) for expected in self._expected
        ):
            return None
        try:
            return (
                self._tokenizer.grammar_matcher.advance(self._state, self._tokenizer.masks.segments[token]),
            )
        except Illegal:
            return None


def _refuse_constant(text: str) -> Any:
    raise TokenizerError("", f"{text} is not a JSON number")


# made once, not anew for each document
_read_json = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=Pairs).decode
_compact_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _incomplete_character(base: str) -> int:
    """Number of bytes at the end that begin a UTF-8 character without ending it."""
    for back in range(1, min(4, len(base)) + 1):
        code = ord(base[-back])
        if code >= 0x100 or code < 0x80:
            return 0
        if code >= 0xC0:
            needed = 2 if code < 0xE0 else 3 if code < 0xF0 else 4
            return back if back < needed else 0
    return 0
