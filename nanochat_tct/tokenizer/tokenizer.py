"""The tokenizer that ships with the package: JSON values to token ids and back, along the workflow schema."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nanochat_tct.tokenizer.engine import DONE, END, LENIENT, PAD, PROMPT, STRICT, Engine, Matcher, base_name
from nanochat_tct.tokenizer.errors import Problem, TokenizerError
from nanochat_tct.tokenizer.explain import Explainer, Pairs
from nanochat_tct.tokenizer.prefix import beginnings, cut_at_end
from nanochat_tct.tokenizer.vocabulary import GITHUB_FORMAT, builtin_path, load_vocabulary


class Tokenizer:
    """Type-constrained tokens of one vocabulary file.

    Args:
        name: that of a built-in vocabulary, or the path of a vocabulary file.

    Attributes:
        name: the same.
        fingerprint: SHA-256 (hex) of the vocabulary; equal fingerprints mean equal token ids.
        expansions: the base tokens of each token.
    """

    def __init__(self, name: str = "builtin") -> None:
        path = builtin_path(name) or Path(name)
        content, self.fingerprint = load_vocabulary(path)
        self.name = name
        try:
            self.engine = Engine(content["grammar"], content["tokens"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise TokenizerError(
                "", f"{path}: the grammar in this vocabulary file is damaged ({error})"
            ) from error
        self.is_github = content["format"] == GITHUB_FORMAT
        self.segmenter = self.engine.segmenter
        self.expansions = self.segmenter.expansions
        self.explainer = Explainer(self.engine)

    def vocab_size(self) -> int:
        return len(self.expansions)

    def pad_token(self) -> int:
        """The id that fills rows; it never stands in a document."""
        return PAD

    def encode(self, json_str: str) -> list[int]:
        """Token ids of a document given as JSON text.

        Raises:
            TokenizerError: the text is not JSON, or its value is not valid under the schema (with the JSON pointer).
        """
        try:
            ids = self.engine.encode(json_str.encode("utf-8"))
        except UnicodeEncodeError:
            ids = None
        if ids is not None:
            return ids
        try:
            value = _read_json(json_str)
        except TokenizerError:
            raise
        except (ValueError, RecursionError) as error:
            raise TokenizerError("", f"not JSON: {error}") from None
        self.explainer.write(value)
        raise AssertionError("the value is valid, but its text is not")

    def encode_value(self, value: Any) -> list[int]:
        """Token ids of a document given as a parsed JSON value; see ``encode``."""
        return self.segmenter.encode(self.write(value))

    def write(self, value: Any) -> str:
        """The base tokens of a document given as a parsed JSON value.

        Raises:
            TokenizerError: the value is not valid under the schema; it names the place.
        """
        return self.explainer.write(value)

    def problems(self, value: Any) -> list[Problem]:
        """All that is wrong with a document given as a parsed JSON value.

        Returns: errors, for which GitHub (or the schema) refuses it, then warnings of GitHub's language service.
        """
        return self.explainer.problems(value)

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
                found += beginnings(self.explainer, value)
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
        matcher = self.engine.matcher()
        assert matcher.advance(certain)

        def order(ending: str) -> tuple[int, bool]:
            after = matcher.copy()
            assert after.advance(ending)
            # of equally short ones, those that a person might write come first
            length = len(ending) + len(after.complete())
            return length, ord(ending[-1]) < 256 and not ending[-1].isalnum()

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
        texts = [self.expansions[token] for token in tokens]
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
        result, text, consumed = self.engine.decode(tokens)
        if result == DONE:
            return text, consumed, len(tokens)
        self._check_range(tokens)
        base = self.segmenter.decode(tokens)
        result, _, length = self.engine.read(base)
        if result == DONE:
            raise TokenizerError("", "a token reaches beyond the end of the document")
        raise self.explainer.read_error(base, length, result)

    def decode_value(self, tokens: Sequence[int]) -> Any:
        """The value of exactly one whole document; see ``decode``."""
        text, consumed, _ = self.decode(tokens)
        if consumed != len(tokens):
            raise TokenizerError("", f"the document ends after {consumed} of {len(tokens)} tokens")
        return json.loads(text)

    def decode_prefix(self, tokens: Sequence[int]) -> tuple[str, int, bool]:
        """A cut-off sequence, completed to the shortest valid document.

        Reading stops at the first token that no valid document has at its place; a character cut in the middle is
        left out.

        Returns:
            Compact JSON, the number of fields (keys with the beginning of a value) that the tokens gave, and whether
            they were a complete document by themselves.
        """
        self._check_range(tokens)
        mode = PROMPT if self.is_github else LENIENT
        matcher = self.engine.matcher_in(mode)
        legal = matcher.advance_tokens(array("I", tokens))
        base, fields, is_complete = self.segmenter.decode(tokens[:legal]), matcher.fields, matcher.is_complete
        if not is_complete:
            cut = _incomplete_character(base)
            if cut:
                base = base[:-cut]
                matcher = self.engine.matcher_in(mode)
                assert matcher.advance(base)
            base += _strict_end(matcher) if self.is_github else matcher.complete()
        result, text, _ = self.engine.read(base, checks_graph=False)
        assert result == DONE
        return text, fields, is_complete

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

    @cached_property
    def stays_in_text(self) -> np.ndarray:
        """Tokens of which nothing stands behind the end of a text: bool (vocab_size,)."""
        return np.array([max(text[:-1], default="") <= "\xff" for text in self.expansions])

    def complaint(self, tokens: Sequence[int]) -> str | None:
        """The place (JSON pointer) up to which the beginning of a document has nothing that GitHub accepts and its
        language service complains of; None: it has nothing of that at all, or the vocabulary is of another language."""
        matcher = self.engine.matcher_in(STRICT if self.is_github else LENIENT)
        if matcher.advance_tokens(array("I", tokens)) == len(tokens):
            return None
        frames = matcher.frames()
        parts = [str(detail) for kind, _, detail in frames[:-1] if kind in ("array", "object")]
        return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in parts)

    def masks_of(self, tokens: Sequence[int]) -> list[bytes]:
        """Which tokens are legal in the place of each token of a document, itself among them.

        Returns: a mask for each, ceil(vocab_size / 8) bytes: a bit a token, the first one in the highest bit.
        """
        return self.engine.masks_of(tokens)

    def describe(self, token: int) -> str:
        """A token as a person reads it."""
        parts: list[str] = []
        for character in self.expansions[token]:
            if character == END:
                parts.append("⏎")
            elif ord(character) > 255:
                parts.append(f"‹{base_name(self.engine.grammar, character)}›")
            else:
                parts.append(character)
        text = "".join(parts)
        if max(map(ord, text)) < 256:
            # the bytes of a character cut in two are shown by their codes
            text = text.encode("latin-1").decode("utf-8", "backslashreplace")
        return text.replace("\n", "↵").replace(" ", "·").replace("\t", "→")

    def _check_range(self, tokens: Sequence[int]) -> None:
        size = len(self.expansions)
        if len(tokens) == 0 or (min(tokens) >= 0 and max(tokens) < size):
            return
        for index, token in enumerate(tokens):
            if not 0 <= token < size:
                raise TokenizerError("", f"token {index} is {token}, not an id from 0 to {size - 1}")


class TokenMatcher:
    """Walks through a document token by token, as generation does.

    What is generated has nothing that GitHub's language service complains of, where the vocabulary is of GitHub's
    language. What stands before may have: then the text that it is in the middle of ends as it can.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._matcher: Matcher = tokenizer.engine.matcher_in(PROMPT if tokenizer.is_github else LENIENT)
        self._expected: tuple[str, ...] = ()
        self._is_waiting = False  # for the end of a text that has no strict one

    def expect(self, *beginnings: str) -> None:
        """From here on tokens are generated, first those that write one of some strings of base tokens.

        Each string must be legal here, and the first one lead to the shortest document; the last token may go on
        beyond it. An empty string, or none at all, allows anything.
        """
        self._expected = beginnings if all(beginnings) else ()
        self._is_waiting = self._tokenizer.is_github
        self._end_waiting()

    def _end_waiting(self) -> None:
        """Goes over to strict mode where that can be."""
        if not self._is_waiting:
            return
        strict = self._matcher.copy()
        if not strict.generate():
            return
        allowed = tuple(beginning for beginning in self._expected if strict.allows(beginning))
        if allowed or not self._expected:
            self._matcher, self._expected, self._is_waiting = strict, allowed, False

    @property
    def is_complete(self) -> bool:
        """Whether the document is complete, so that no token may follow."""
        return self._matcher.is_complete

    def legal(self) -> np.ndarray:
        """Which tokens some valid document goes on with: bool (vocab_size,)."""
        mask = self._matcher.legal()
        if self._is_waiting:
            mask &= self._tokenizer.stays_in_text
        if not self._expected:
            return mask
        expansions = self._tokenizer.expansions
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
        if not self._fits(token) or not self._matcher.advance_token(token, is_trial=True):
            return False
        return not self._is_waiting or bool(self._tokenizer.stays_in_text[token])

    def advance(self, token: int) -> None:
        """Reads a token.

        Raises:
            TokenizerError: no valid document goes on with it.
        """
        if not (self._fits(token) and self._matcher.advance_token(token)):
            raise TokenizerError("", f"no valid workflow has the token {token} at this place")
        if self._expected:
            text = self._tokenizer.expansions[token]
            is_written = any(text.startswith(expected) for expected in self._expected)
            rests = [each[len(text) :] for each in self._expected if each.startswith(text)]
            self._expected = () if is_written else tuple(rests)
        self._end_waiting()

    def after(self, token: int) -> TokenMatcher:
        """Return a new matcher that has also accepted a token; see ``advance``."""
        matcher = copy(self)
        matcher._matcher = self._matcher.copy()
        matcher.advance(token)
        return matcher

    def closing(self) -> list[int]:
        """Tokens that end the document: the shortest way in base tokens."""
        if not self._expected and not self._is_waiting:
            return self._matcher.closing()
        written = self._expected[0] if self._expected else ""
        matcher = self._matcher.copy()
        assert matcher.advance(written)
        rest = _strict_end(matcher) if self._is_waiting else matcher.complete()
        return self._tokenizer.segmenter.encode(written + rest)

    def _fits(self, token: int) -> bool:
        """Whether a token is one of what is expected."""
        if not self._expected or not 0 <= token < self._tokenizer.vocab_size():
            return not self._expected
        text = self._tokenizer.expansions[token]
        return any(text.startswith(each) or each.startswith(text) for each in self._expected)


def _strict_end(matcher: Matcher) -> str:
    """The base tokens that end a document in strict mode, but for the text on top where it has no strict end."""
    written = ""
    while not matcher.is_complete and not matcher.generate():
        rest = matcher.complete()
        end = next(index for index, character in enumerate(rest) if character > "\xff") + 1
        assert matcher.advance(rest[:end])
        written += rest[:end]
    return written + matcher.complete()


def _refuse_constant(text: str) -> Any:
    raise TokenizerError("", f"{text} is not a JSON number")


_read_json = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=Pairs).decode


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
