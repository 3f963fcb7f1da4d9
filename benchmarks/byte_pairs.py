"""The peers of our tokenizer, from Hugging Face `tokenizers`: byte-level BPE and superword BPE on compact JSON."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nanochat_tct.errors import UserError

END = 1  # ends a document; 0 is padding
NUM_SPECIAL = 2
SLICE = 64  # tokens; merges across words are learned inside slices of a document, which is many times faster
FIRST_LETTER = 0x4E00  # the second stage reads the first one's tokens as letters; 20,992 follow from here


class BytePairs:
    """Byte-level BPE as in GPT-2, or superword BPE, whose later merges may cross words.

    Superword BPE learns in two stages, as SuperBPE does (Liu et al., 2025, arXiv:2503.13423): merges inside words
    first, then merges of the resulting tokens anywhere in a document.

    Args:
        words: merges inside words.
        superwords: merges of their tokens across words; None: plain BPE.
    """

    def __init__(self, words: Any, superwords: Any | None = None) -> None:
        self.words, self.superwords = words, superwords

    @classmethod
    def learn(
        cls, texts: Callable[[], Iterable[str]], vocab_size: int, word_share: float = 1.0
    ) -> "BytePairs":
        """Learns a vocabulary.

        Args:
            texts: returns the documents to learn from at each call.
            vocab_size: number of ids, padding and end included.
            word_share: the share of merges inside words; the others may cross words.

        Raises: UserError where `tokenizers` is not installed.
        """
        library = hugging_face()
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        num_merges = vocab_size - NUM_SPECIAL - len(alphabet)
        num_words = len(alphabet) + round(word_share * num_merges)
        words = library.Tokenizer(library.models.BPE())
        words.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        _train(words, texts(), num_words, alphabet)
        if word_share == 1:
            return cls(words)
        superwords = library.Tokenizer(library.models.BPE())
        spelled = (_letters(words.encode(text).ids) for text in texts())
        slices = (text[at : at + SLICE] for text in spelled for at in range(0, len(text), SLICE))
        _train(superwords, slices, vocab_size - NUM_SPECIAL, _letters(range(num_words)))
        return cls(words, superwords)

    @classmethod
    def load(cls, folder: Path) -> "BytePairs":
        """Reads what `save` wrote."""
        files = [folder / "words.json", folder / "superwords.json"]
        return cls(*(hugging_face().Tokenizer.from_file(str(path)) for path in files if path.exists()))

    def save(self, folder: Path) -> None:
        """Writes the vocabulary into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.superwords is not None:
            self.superwords.save(str(folder / "superwords.json"))
        self.words.save(str(folder / "words.json"))

    def encode(self, text: str) -> list[int]:
        """The tokens of a document, without the end token."""
        ids = self.words.encode(text).ids
        if self.superwords is not None:
            ids = self.superwords.encode(_letters(ids)).ids
        return [token + NUM_SPECIAL for token in ids]

    def expansions(self) -> list[str]:
        """The bytes of each id, one character a byte; padding and end stand for themselves."""
        words = _by_id(self.words)
        tokens = words
        if self.superwords is not None:
            tokens = [
                "".join(words[ord(letter) - FIRST_LETTER] for letter in letters)
                for letters in _by_id(self.superwords)
            ]
        return ["\0", "\1", *tokens]  # byte-level BPE writes every byte as one printable character


def hugging_face() -> Any:
    """The library, which the project does not install."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        import tokenizers
    except ImportError:
        raise UserError("BPE needs Hugging Face tokenizers: pip install tokenizers==0.23.3") from None
    return tokenizers


def _train(tokenizer: Any, texts: Iterable[str], size: int, alphabet: Iterable[str]) -> None:
    trainer = hugging_face().trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=list(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    assert tokenizer.get_vocab_size() == size


def _letters(ids: Iterable[int]) -> str:
    return "".join(chr(FIRST_LETTER + token) for token in ids)


def _by_id(tokenizer: Any) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)
