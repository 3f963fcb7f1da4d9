"""The tokenizer of this package: JSON values to token ids, guided by a grammar, and back."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from nanochat_tct.tokenizer.engine import (
    DONE,
    END,
    LENIENT,
    PAD,
    PROMPT,
    STRICT,
    Engine,
    Matcher,
    base_name,
    library,
)
from nanochat_tct.tokenizer.errors import Problem, TokenizerError, pointer_of
from nanochat_tct.tokenizer.explain import Explainer
from nanochat_tct.tokenizer.json_text import Pairs
from nanochat_tct.tokenizer.prefix import beginnings, cut_at_end
from nanochat_tct.tokenizer.token_trie import TokenTrie
from nanochat_tct.tokenizer.vocabulary import GITHUB_FORMAT, builtin_path, load_vocabulary


class Tokenizer:
    """Type-constrained tokens of one vocabulary file.

    Args:
        name: of a built-in vocabulary, or the path of a vocabulary file.

    Attributes:
        name: the same.
        fingerprint: SHA-256 (hex) of the vocabulary. Equal fingerprints mean equal token ids.
        expansions: the base tokens of each token.
        longest: base tokens of a token.
    """

    def __init__(self, name: str = "builtin") -> None:
        path = builtin_path(name) or Path(name)
        content, self.fingerprint = load_vocabulary(path)
        self.name = name
        library()  # A missing library is no fault of the file.
        try:
            self.engine = Engine(content["grammar"], content["tokens"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise TokenizerError(
                "", f"{path}: the grammar in this vocabulary file is damaged ({error})"
            ) from error
        self.is_github = content["format"] == GITHUB_FORMAT
        self.segmenter = self.engine.segmenter
        self.expansions = self.segmenter.expansions
        self.longest = max(map(len, self.expansions))
        self.explainer = Explainer(self.engine)

    def vocab_size(self) -> int:
        return len(self.expansions)

    def pad_token(self) -> int:
        """The id that pads rows, which no document has."""
        return PAD

    def encode(self, json_str: str) -> list[int]:
        """Token ids of a document given as JSON text.

        Raises:
            TokenizerError: the text is not JSON, or its value is not valid; then it has the JSON pointer.
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
            TokenizerError: the value is not valid; the error has its JSON pointer.
        """
        return self.explainer.write(value)

    def problems(self, value: Any) -> list[Problem]:
        """The problems of a document given as a parsed JSON value.

        Returns: errors, for which GitHub or the schema refuses it, then warnings of GitHub's language service.
        """
        return self.explainer.problems(value)

    def encode_prefix(self, value: Any, open_scalar: bool = True) -> list[int]:
        """Token ids of a half-written document, which is open at its end.

        The last array or object of each level is open, and so is the last text or number, unless ``open_scalar`` is
        False. A last key with a null that its value cannot be waits for its value.

        Raises:
            TokenizerError: no valid document begins like this; the error has the JSON pointer.
        """
        return self.encode_cut([cut_at_end(value, open_scalar)])[0]

    def encode_cut(self, readings: Sequence[Any]) -> tuple[list[int], tuple[str, ...]]:
        """Token ids of a document that is cut off, and what may come next.

        Args:
            readings: possible meanings of the document, each a value with a ``Cut`` (prefix.py); or one whole value.

        Returns:
            The token ids that are certain, and strings of base tokens, one of which must follow (see
            ``TokenMatcher.expect``), or none if anything may follow. The first leads to the shortest document.

        Raises:
            TokenizerError: no valid document begins like any of them; the error has the JSON pointer in the first.
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
        for base in found:  # a string that another one begins is allowed by that
            if not base.startswith(shortest[-1]):
                shortest.append(base)
        first, last = shortest[0], shortest[-1]  # they are sorted, so all have what these two have in common
        lengths = range(1, len(first) + 1)
        length = bisect_left(lengths, True, key=lambda length: not last.startswith(first[:length]))
        certain = first[:length]
        if len(shortest) == 1:
            return self.segmenter.encode(certain), ()
        matcher = self.engine.matcher()
        assert matcher.advance(certain)

        def order(ending: str) -> tuple[int, bool]:
            after = matcher.copy()
            assert after.advance(ending)
            # Of equally short ones, prefer those that a person might write.
            length = len(ending) + len(after.complete())
            return length, ord(ending[-1]) < 256 and not ending[-1].isalnum()

        return self.segmenter.encode(certain), tuple(
            sorted((base[len(certain) :] for base in shortest), key=order)
        )

    def heal(self, tokens: Sequence[int]) -> tuple[list[int], str]:
        """Remove the last tokens of an open prefix that might be other tokens in a whole document.

        A longer token may begin inside the prefix and reach beyond its end. In training the model never saw a prefix
        that ends inside such a token, so it should choose that token itself: see ``TokenMatcher.expect``.

        Returns:
            The tokens that remain, whatever follows, and the base tokens of the rest.
        """
        remaining, rest, index = len(tokens), "", len(tokens)
        taken_back = ""
        while index > 0 and len(rest) < self.longest:
            index -= 1
            rest = self.expansions[tokens[index]] + rest
            if self.segmenter.begins_longer_token(rest):
                remaining, taken_back = index, rest
        return list(tokens[:remaining]), taken_back

    def decode(self, tokens: Sequence[int]) -> tuple[str, int, int]:
        """Decode the document with which tokens begin.

        Returns:
            Its compact JSON, the number of tokens that it took, and the number of tokens given.

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
        """Complete a cut-off sequence to the shortest valid document.

        Reading stops at the first token that no valid document has at its position. A character that is cut in the
        middle is left out.

        Returns:
            Compact JSON, the number of fields (keys with the beginning of a value) in the tokens, and whether they were
            a complete document.
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
        """Return ``[start] + tokens[start:end]``: a position token, then content.

        Raises:
            TokenizerError: start and end are not a range of the tokens.
        """
        if not 0 <= start <= end <= len(tokens):
            raise TokenizerError("", f"no window from {start} to {end} in {len(tokens)} tokens")
        return [start, *tokens[start:end]]

    def matcher(self, tokens: Sequence[int] = ()) -> TokenMatcher:
        """Return a matcher behind the first tokens of a document.

        Raises:
            TokenizerError: no valid document begins with them.
        """
        return TokenMatcher(self, tokens)

    @cached_property
    def trie(self) -> TokenTrie:
        """The base tokens of all tokens."""
        return TokenTrie(self.expansions)

    @cached_property
    def stays_in_text(self) -> np.ndarray:
        """The tokens that do not go on behind the end of a text: bool (vocab_size,)."""
        return np.array([max(text[:-1], default="") <= "\xff" for text in self.expansions])

    def complaint(self, tokens: Sequence[int]) -> str | None:
        """The JSON pointer of the first part of a document's beginning of which GitHub's language service complains.

        Returns None if there is none, or if the vocabulary is of another language.
        """
        matcher = self.engine.matcher_in(STRICT if self.is_github else LENIENT)
        if matcher.advance_tokens(array("I", tokens)) == len(tokens):
            return None
        frames = matcher.frames()
        return pointer_of(detail for kind, _, detail in frames[:-1] if kind in ("array", "object"))

    def masks_of(self, tokens: Sequence[int]) -> list[bytes]:
        """The mask of legal tokens at the position of each token of a document.

        Returns: masks of ceil(vocab_size / 8) bytes, a bit for each token, the first token in the highest bit.
        """
        return self.engine.masks_of(tokens)

    def describe(self, token: int) -> str:
        """A token in readable form."""
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
            # A token may have a part of a character, whose bytes are shown as codes.
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
    """Follows a document token by token, as generation does.

    With a vocabulary of GitHub's language, GitHub's language service has no complaint about the generated part. It may
    complain about the prompt; a text that the prompt has begun is ended first.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._matcher: Matcher = tokenizer.engine.matcher_in(PROMPT if tokenizer.is_github else LENIENT)
        legal = self._matcher.advance_tokens(array("I", tokens))
        if legal < len(tokens):
            raise TokenizerError("", f"no valid workflow has the token {tokens[legal]} at this place")
        self._expected = self._allowed = _Expected(tokenizer, ())  # allowed: what of it can be generated
        self._is_waiting = False  # for the end of a text that cannot end in strict mode

    def expect(self, *beginnings: str) -> None:
        """Begin the generated part, which must begin with one of some strings of base tokens.

        Each string must be legal here, and the first must lead to the shortest document. The last token may reach
        beyond the string. An empty string, or no string, allows anything.
        """
        self._is_waiting = self._tokenizer.is_github
        self._expect(beginnings if all(beginnings) else ())

    def _expect(self, expected: tuple[str, ...]) -> None:
        """Note what must come next; switch to strict mode if this and the text that the prompt has begun allow it."""
        if self._is_waiting:
            strict = self._matcher.copy()
            if strict.generate() and (not expected or any(map(strict.allows, expected))):
                self._matcher, self._is_waiting = strict, False
        if expected or self._expected.strings:
            self._expected = self._allowed = _Expected(self._tokenizer, expected)
            allowed = tuple(filter(self._matcher.allows, expected))
            if allowed != expected:
                self._allowed = _Expected(self._tokenizer, allowed)

    @property
    def is_complete(self) -> bool:
        """Whether the document is complete, so that no token may follow."""
        return self._matcher.is_complete

    def fitting(self) -> np.ndarray:
        """The tokens that a document may have where it goes on as is expected: bool (vocab_size,)."""
        return self._expected.fitting

    def legal(self) -> np.ndarray:
        """The tokens with which what is expected can be generated, and the rest of a document: bool (vocab_size,)."""
        mask = self._matcher.legal()
        if self._is_waiting:
            mask &= self._allowed.while_waiting
        return mask & self._allowed.fitting if self._expected.strings else mask

    def unfinished(self) -> list[int]:
        """The legal tokens behind which something is still expected."""
        expansions, strings = self._tokenizer.expansions, self._allowed.strings
        found = [token for token in self._allowed.firsts if not expansions[token].startswith(strings)]
        return [token for token in found if self.allows(token)]

    def allows(self, token: int) -> bool:
        """Whether some valid document continues with this token."""
        if not self._fits(token) or not self._matcher.advance_token(token, is_trial=True):
            return False
        return not self._is_waiting or bool(self._allowed.while_waiting[token])

    def advance(self, token: int) -> None:
        """Accept a token.

        Raises:
            TokenizerError: no valid document continues with it.
        """
        if not (self._fits(token) and self._matcher.advance_token(token)):
            raise TokenizerError("", f"no valid workflow has the token {token} at this place")
        expected, text = self._expected.strings, self._tokenizer.expansions[token]
        if expected or self._is_waiting:
            rests = tuple(each[len(text) :] for each in expected if each.startswith(text))
            self._expect(() if text.startswith(expected) else rests)

    def copy(self) -> Self:
        """A new matcher that has accepted the same tokens."""
        matcher = self.__class__.__new__(self.__class__)  # which is much faster than copy.copy
        matcher.__dict__ |= self.__dict__
        matcher._matcher = self._matcher.copy()
        return matcher

    def after(self, token: int) -> Self:
        """A new matcher that has also accepted a token; see ``advance``."""
        matcher = self.copy()
        matcher.advance(token)
        return matcher

    def closing(self) -> list[int]:
        """The tokens that complete the document with the fewest base tokens."""
        if not self._expected.strings and not self._is_waiting:
            return self._matcher.closing()
        written = self._allowed.strings[0] if self._expected.strings else ""
        matcher = self._matcher.copy()
        assert matcher.advance(written)
        rest = _strict_end(matcher) if self._is_waiting else matcher.complete()
        return self._tokenizer.segmenter.encode(written + rest)

    def _fits(self, token: int) -> bool:
        """Whether a token fits one of the expected strings."""
        if not self._expected.strings or not 0 <= token < self._tokenizer.vocab_size():
            return not self._expected.strings
        return bool(self._allowed.fitting[token])


class _Expected:
    """Strings of base tokens, one of which must come next; anything may if there are none."""

    def __init__(self, tokenizer: Tokenizer, strings: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self.strings = strings

    @cached_property
    def firsts(self) -> set[int]:
        """The tokens that a document has where it goes on as is expected, unless it has one that covers all of that.

        They are the longest ones: a model has never seen a shorter one there, so it says nothing about what follows.
        """
        encode = self._tokenizer.segmenter.encode
        return {encode(each)[0] for each in self.strings}

    @cached_property
    def fitting(self) -> np.ndarray:
        """The tokens that fit one of the strings: bool (vocab_size,)."""
        mask = np.full(self._tokenizer.vocab_size(), not self.strings)
        mask[list(self.firsts)] = True
        for each in self.strings:
            mask[self._tokenizer.trie.beginning_with(each)] = True
        return mask

    @cached_property
    def while_waiting(self) -> np.ndarray:
        """The tokens that may come before the text of the prompt has ended: bool (vocab_size,).

        What is generated does not go on behind that text yet; what the prompt has itself may.
        """
        mask = self._tokenizer.stays_in_text.copy()
        mask[list(self.firsts)] = True
        return mask


def _strict_end(matcher: Matcher) -> str:
    """The base tokens that complete a document in strict mode, after the end of a text that cannot end in it."""
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
    """The number of bytes at the end that belong to an incomplete UTF-8 character."""
    for back in range(1, min(4, len(base)) + 1):
        code = ord(base[-back])
        if code >= 0x100 or code < 0x80:
            return 0
        if code >= 0xC0:
            needed = 2 if code < 0xE0 else 3 if code < 0xF0 else 4
            return back if back < needed else 0
    return 0
