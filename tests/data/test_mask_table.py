"""Ids of masks, whatever parts of the input they come from."""

import numpy as np
import pytest

from nanochat_tct.data import mask_table
from nanochat_tct.data.mask_table import MaskSender, MaskTable

# Documents as lists of masks (16 tokens, 2 bytes), in two parts that share some.
A, B, C, D = (bytes([number, 255 - number]) for number in range(4))
PARTS = [[[A, B, A], [B, C]], [[B, D], [D, A, C]]]


def numbered(taken: list[bool]) -> list[list[bytes]]:
    """The masks of the documents that the store takes, looked up by the ids that it gave them."""
    mask_table = MaskTable(vocab_size=16)
    table, ids = mask_table.anything, []
    is_taken = iter(taken)
    for part in PARTS:
        sender = MaskSender()
        sent = [sender.send(masks) for masks in part]
        ids_of_part, bits = mask_table.assign_ids(b"".join(new for _, new in sent))
        table += bits
        for numbers, _ in sent:
            if next(is_taken):
                ids.append(ids_of_part[np.frombuffer(numbers, dtype="<u4")].tolist())
    assert len(table) == 2 * len({table[start : start + 2] for start in range(0, len(table), 2)})
    return [[table[2 * number : 2 * number + 2] for number in document] for document in ids]


@pytest.mark.parametrize(
    "taken", [[True, True, True, True], [False, True, True, False], [False, False, False, True]]
)
def test_every_token_keeps_its_mask(taken: list[bool]) -> None:
    """Also where the document is left out that brought the bits along."""
    all_masks = [masks for part in PARTS for masks in part]
    expected = [masks for masks, is_taken in zip(all_masks, taken, strict=True) if is_taken]
    assert numbered(taken) == expected


def test_masks_without_an_id_allow_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_table, "MAX_MASKS", 3)
    anything = b"\xff\xff"
    assert numbered([True] * 4) == [
        [A, B, A],
        [B, anything],
        [B, anything],
        [anything, A, anything],
    ]
