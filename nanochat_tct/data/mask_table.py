"""What is legal at each place of a store: the different masks, each once, and for every token the number of its mask.

A task of the preparation sees the documents of its part only. So it names masks by a digest of their bits, and sends
the bits along the first time; the store numbers them in the order of its documents, whatever task they came from.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

MAX_MASKS = 2**16  # numbers are stored in 16 bits
DIGEST_BYTES = 16


class DocumentMasks(NamedTuple):
    """What is legal at the places of one document.

    Attributes:
        ids: for each token, the place of its mask in `digests`, uint16 little-endian.
        digests: of the document's different masks, one after the other, DIGEST_BYTES each.
        bits: of those among them that came up for the first time in this part of the input, one after the other.
    """

    ids: bytes
    digests: bytes
    bits: bytes


class MaskSender:
    """The side of the task. One for each part of the input, so that what it sends does not depend on the others."""

    def __init__(self) -> None:
        self._digests: dict[bytes, bytes] = {}  # of masks that were sent

    def send(self, masks: Iterable[bytes]) -> DocumentMasks:
        """Args: masks: packed, one for each token of a document."""
        numbers: dict[bytes, int] = {}
        ids, new = [], []
        for mask in masks:
            if mask not in self._digests:
                self._digests[mask] = _digest(mask)
                new.append(mask)
            ids.append(numbers.setdefault(self._digests[mask], len(numbers)))
        return DocumentMasks(np.array(ids, dtype="<u2").tobytes(), b"".join(numbers), b"".join(new))


class MaskNumbers:
    """The side of the store. Number 0 allows every token; it also stands for masks beyond MAX_MASKS.

    Args:
        vocab_size: bits of a mask; packed, the last byte is filled up.
    """

    def __init__(self, vocab_size: int) -> None:
        self.mask_bytes = -(-vocab_size // 8)
        self.anything = b"\xff" * self.mask_bytes
        self._numbers: dict[bytes, int] = {}  # by digest
        self._bits: dict[bytes, bytes] = {}  # by digest, of those that have no number yet

    def receive(self, masks: DocumentMasks) -> None:
        """Learns the bits that came with a document, also with one that the store does not take."""
        for start in range(0, len(masks.bits), self.mask_bytes):
            bits = masks.bits[start : start + self.mask_bytes]
            digest = _digest(bits)
            if digest not in self._numbers and len(self._numbers) < MAX_MASKS - 1:
                self._bits[digest] = bits

    def number(self, masks: DocumentMasks) -> tuple[bytes, bytes]:
        """Numbers the masks of a document.

        Returns: for each token the number of its mask, uint16 little-endian; and the bits of newly numbered masks.
        """
        new = []
        numbers = []
        for start in range(0, len(masks.digests), DIGEST_BYTES):
            digest = masks.digests[start : start + DIGEST_BYTES]
            if digest not in self._numbers and len(self._numbers) < MAX_MASKS - 1:
                self._numbers[digest] = 1 + len(self._numbers)
                new.append(self._bits.pop(digest))
            numbers.append(self._numbers.get(digest, 0))
        ids = np.array(numbers, dtype="<u2")[np.frombuffer(masks.ids, dtype="<u2")]
        return ids.tobytes(), b"".join(new)

    @property
    def is_full(self) -> bool:
        """Whether some masks may have found no number."""
        return len(self._numbers) == MAX_MASKS - 1


def _digest(mask: bytes) -> bytes:
    return hashlib.blake2b(mask, digest_size=DIGEST_BYTES).digest()
