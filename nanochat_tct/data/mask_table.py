"""The masks of a store: each different mask once, and for every token the id of its mask.

A mask says which tokens are legal at the position of a token. A task of the preparation sees the documents of its part
only, so it names masks by a digest of their bits and sends the bits along the first time; the store numbers them in the
order of its documents, whatever task they came from.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

MAX_MASKS = 2**16  # ids are stored in 16 bits
DIGEST_BYTES = 16


class DocumentMasks(NamedTuple):
    """The masks of one document.

    Attributes:
        ids: for each token, the index of its mask in `digests`, uint16 little-endian.
        digests: of the document's different masks, one after the other, DIGEST_BYTES each.
        bits: of the masks that occur for the first time in this part of the input, one after the other.
    """

    ids: bytes
    digests: bytes
    bits: bytes


class MaskSender:
    """The side of the task. Each part of the input has its own, so that what it sends does not depend on others."""

    def __init__(self) -> None:
        self._digests: dict[bytes, bytes] = {}  # of the masks that were sent

    def send(self, masks: Iterable[bytes]) -> DocumentMasks:
        """Args: masks: packed bits, one mask for each token of a document."""
        indices: dict[bytes, int] = {}
        ids, new = [], []
        for mask in masks:
            if mask not in self._digests:
                self._digests[mask] = _digest(mask)
                new.append(mask)
            ids.append(indices.setdefault(self._digests[mask], len(indices)))
        return DocumentMasks(np.array(ids, dtype="<u2").tobytes(), b"".join(indices), b"".join(new))


class MaskTable:
    """The side of the store. Mask 0 allows every token, and replaces masks beyond MAX_MASKS.

    Args:
        vocab_size: bits of a mask; packed, the last byte is filled up.
    """

    def __init__(self, vocab_size: int) -> None:
        self.mask_bytes = -(-vocab_size // 8)
        self.anything = b"\xff" * self.mask_bytes
        self._ids: dict[bytes, int] = {}  # by digest
        self._bits: dict[bytes, bytes] = {}  # by digest, of the masks that have no id yet

    def receive(self, masks: DocumentMasks) -> None:
        """Keep the bits that came with a document, even if the store does not take the document in."""
        for start in range(0, len(masks.bits), self.mask_bytes):
            bits = masks.bits[start : start + self.mask_bytes]
            digest = _digest(bits)
            if digest not in self._ids and len(self._ids) < MAX_MASKS - 1:
                self._bits[digest] = bits

    def assign_ids(self, masks: DocumentMasks) -> tuple[bytes, bytes]:
        """Give ids to the masks of a document.

        Returns: for each token the id of its mask, uint16 little-endian; and the bits of masks with a new id.
        """
        new = []
        ids = []
        for start in range(0, len(masks.digests), DIGEST_BYTES):
            digest = masks.digests[start : start + DIGEST_BYTES]
            if digest not in self._ids and len(self._ids) < MAX_MASKS - 1:
                self._ids[digest] = 1 + len(self._ids)
                new.append(self._bits.pop(digest))
            ids.append(self._ids.get(digest, 0))
        of_tokens = np.array(ids, dtype="<u2")[np.frombuffer(masks.ids, dtype="<u2")]
        return of_tokens.tobytes(), b"".join(new)


def _digest(mask: bytes) -> bytes:
    return hashlib.blake2b(mask, digest_size=DIGEST_BYTES).digest()
