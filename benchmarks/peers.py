"""Other engines for constrained decoding, as the benchmarks run them: llguidance and xgrammar.

    pip install llguidance==1.9.1 xgrammar==0.2.9 tokenizers

Both read compact JSON in tokens of one byte-level BPE vocabulary, without whitespace between tokens of JSON, and do not
demand that keys are those that the schema lists.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

STOP = 0  # the token that ends a document


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def byte_level_bpe(texts: Iterable[str], size: int = 8192) -> Any:
    """A byte-level BPE tokenizer that is trained on texts; its token 0 ends a document."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    assert bpe.token_to_id("<end>") == STOP
    return bpe


def vocabulary(bpe: Any) -> list[str]:
    """The tokens of a BPE vocabulary by their ids, as the library spells them."""
    return [text for text, _ in sorted(bpe.get_vocab().items(), key=lambda item: item[1])]


class Llguidance:
    """llguidance; ``lenient`` ignores keywords that it does not enforce instead of refusing the schema."""

    def __init__(self, bpe: Any, lenient: bool = False) -> None:
        import llguidance
        import llguidance.numpy

        self._library, self._bpe, self._lenient = llguidance, bpe, lenient
        self._tokenizer = llguidance.LLTokenizer(bpe.to_str(), eos_token=STOP)
        self._mask = llguidance.numpy.allocate_token_bitmask(1, self._tokenizer.vocab_size)

    def compile_schema(self, schema: Any) -> Any:
        """Returns a matcher before the first token.

        Raises:
            ValueError: llguidance does not compile the schema.
        """
        options = {"whitespace_flexible": False, "lenient": self._lenient}
        return self.compile(self._library.LLMatcher.grammar_from_json_schema(compact(schema), options))

    def compile(self, grammar: str) -> Any:
        matcher = self._library.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def walk(self, start: Any, value: Any) -> tuple[bool, list[float]]:
        """Whether a value is accepted, and the CPU seconds that each mask took."""
        matcher = start.deep_copy()
        seconds: list[float] = []
        for token in self._bpe.encode(compact(value)).ids:
            before = time.thread_time()
            self._library.numpy.fill_next_token_bitmask(matcher, self._mask)
            seconds.append(time.thread_time() - before)
            if not matcher.consume_token(token):
                return False, seconds
        return bool(matcher.is_accepting()), seconds


class Xgrammar:
    """xgrammar; ``any_order`` lets keys stand in any order, and then does not ask for required ones."""

    def __init__(self, bpe: Any, any_order: bool = False) -> None:
        import xgrammar

        self._library, self._bpe, self._any_order = xgrammar, bpe, any_order
        info = xgrammar.TokenizerInfo(
            vocabulary(bpe), vocab_type=xgrammar.VocabType.BYTE_LEVEL, stop_token_ids=[STOP]
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self._mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)

    def compile_schema(self, schema: Any) -> Any:
        """Returns a compiled grammar.

        Raises:
            RuntimeError: xgrammar does not compile the schema.
        """
        return self._compiler.compile_json_schema(
            compact(schema),
            any_whitespace=False,
            separators=(",", ":"),
            strict_mode=False,
            any_order=self._any_order,
        )

    def walk(self, compiled: Any, value: Any) -> tuple[bool, list[float]]:
        """Whether a value is accepted, and the CPU seconds that each mask took."""
        matcher = self._library.GrammarMatcher(compiled)
        seconds: list[float] = []
        for token in self._bpe.encode(compact(value)).ids:
            before = time.thread_time()
            matcher.fill_next_token_bitmask(self._mask)
            seconds.append(time.thread_time() - before)
            if not matcher.accept_token(token):
                return False, seconds
        return bool(matcher.accept_token(STOP)), seconds


def spread(seconds: list[float]) -> tuple[float, float, float]:
    """Mean, median and 99th percentile in microseconds."""
    micro = np.array(seconds) * 1e6
    return float(micro.mean()), float(np.median(micro)), float(np.percentile(micro, 99))
