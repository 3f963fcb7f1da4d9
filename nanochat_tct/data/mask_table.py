"""The masks of a store: each different mask once, and for every token the id of its mask.

A mask says which tokens are legal at one position. A task of `prepare` sees only its own part of the input, so it
numbers the masks of that part, and sends the bits of each mask with the first document that has it. The store numbers
them again in the order of its documents, so that the ids do not depend on the parts.
"""

import hashlib
import itertools
from collections.abc import Iterable

import numpy as np

MAX_MASKS = 2**16  # ids are stored in 16 bits
HASH_BYTES = 16


class MaskSender:
    """Numbers the masks of one part of the input."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def send(self, masks: Iterable[bytes]) -> tuple[bytes, bytes]:
        """Number the masks of a document.

        Args:
            masks: packed bits, one mask for each token.

        Returns: for each token the number of its mask, uint32 little-endian; and of the masks that are new in this
            part, one after the other, a hash and the bits.
        """
        sent = len(self._numbers)
        numbers = [self._numbers.setdefault(mask, len(self._numbers)) for mask in masks]
        new = (_hash(mask) + mask for mask in itertools.islice(self._numbers, sent, None))
        return np.array(numbers, dtype="<u4").tobytes(), b"".join(new)


def _hash(mask: bytes) -> bytes:
    return hashlib.blake2b(mask, digest_size=HASH_BYTES).digest()


class MaskTable:
    """Numbers the masks of a store. Mask 0 allows every token, and replaces masks beyond MAX_MASKS.

    Args:
        vocab_size: bits of a mask, which is packed into whole bytes.
    """

    def __init__(self, vocab_size: int) -> None:
        self.mask_bytes = -(-vocab_size // 8)
        self.anything = b"\xff" * self.mask_bytes
        self._ids: dict[bytes, int] = {}  # by the hash of a mask

    def assign_ids(self, masks: bytes | memoryview) -> tuple[np.ndarray, bytes]:
        """Give ids to the masks of the next part.

        A document that the store leaves out as a duplicate does not matter: its masks came with the earlier one.

        Args:
            masks: hash and bits of the part's masks, in the order of their numbers there.

        Returns: the id of each number, uint16 (masks of the part,); and the bits of masks with a new id.
        """
        ids, new = [], []
        size = HASH_BYTES + self.mask_bytes
        for start in range(0, len(masks), size):
            key = bytes(masks[start : start + HASH_BYTES])
            if key not in self._ids and len(self._ids) < MAX_MASKS - 1:
                self._ids[key] = 1 + len(self._ids)
                new.append(masks[start + HASH_BYTES : start + size])
            ids.append(self._ids.get(key, 0))
        return np.array(ids, dtype="<u2"), b"".join(new)
