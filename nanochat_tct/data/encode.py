"""The work of one task of `prepare`: from a part of the input to a table of encoded documents."""

import hashlib
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from nanochat_tct.data.mask_table import MaskSender
from nanochat_tct.data.parts import Part, RawDocument, parse_raw, read_part
from nanochat_tct.data.split import normal_hash
from nanochat_tct.documents import DocumentError, Limits, json_bytes
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import TokenizerError, load_tokenizer

ENCODED_VERSION = 3  # of the tables; tables of another version are thrown away


class EncodedDocument(NamedTuple):
    """A document for the store or, with a `reason`, a rejected one."""

    source: str
    repo: str | None
    content_hash: bytes | None = None  # SHA-256 of the compact JSON
    json_bytes: int | None = None  # of the compact JSON
    tokens: bytes | None = None  # uint16 little-endian
    mask_numbers: bytes | None = None  # for this and `new_masks` see MaskSender; None: every token is legal
    new_masks: bytes | None = None
    normal_hash: bytes = b""  # see split.normal_hash
    reason: str | None = None  # a short code for counting
    message: str | None = None


ENCODED_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("repo", pa.string()),
        ("content_hash", pa.binary()),
        ("json_bytes", pa.int64()),
        ("tokens", pa.large_binary()),
        ("mask_numbers", pa.large_binary()),
        ("new_masks", pa.large_binary()),
        ("normal_hash", pa.binary()),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)


def encode_part(
    part: Part, tokenizer_name: str, fingerprint: str, limits: Limits, with_masks: bool
) -> pa.Table:
    """Read, parse, check and encode the documents of a part.

    Args:
        fingerprint: of the driver's tokenizer, which this machine's must equal.
        with_masks: also find which tokens are legal at each position.

    Returns:
        A table of ENCODED_SCHEMA, in the order of the input.

    Raises:
        UserError: a reason to end the job.
    """
    tokenizer = load_tokenizer(tokenizer_name)
    if tokenizer.fingerprint != fingerprint:
        raise UserError(
            f"machine {socket.gethostname()} has another tokenizer {tokenizer_name}: install the same package "
            "everywhere (pip install -c constraints.txt), and submit with --working-dir"
        )
    sender = MaskSender() if with_masks else None
    return table_of(encode_raw(raw, tokenizer, limits, sender) for raw in read_part(part, limits))


def table_of(documents: Iterable[EncodedDocument]) -> pa.Table:
    """A table of ENCODED_SCHEMA."""
    return pa.Table.from_pylist([document._asdict() for document in documents], ENCODED_SCHEMA)


def encode_raw(
    raw: RawDocument, tokenizer: Any, limits: Limits, sender: MaskSender | None = None
) -> EncodedDocument:
    """Parse, check and encode one document. A document that the store cannot take is returned with the reason."""
    repo = raw.repo
    try:
        # The language of another vocabulary may allow numbers as keys, merge keys, and values other than mappings.
        value, repo = parse_raw(raw, limits, any_value=not tokenizer.is_github)
        return encode_document(raw.source, repo, value, tokenizer, sender)
    except (DocumentError, TokenizerError) as error:
        reason = error.reason if isinstance(error, DocumentError) else "schema"
        # The message may quote the document, with its line breaks and lone surrogates, which Arrow refuses.
        message = " ".join(str(error).split()).encode("utf-8", "backslashreplace").decode()[:500]
        return EncodedDocument(raw.source, repo, reason=reason, message=message)


def encode_document(
    source: str, repo: str | None, value: Any, tokenizer: Any, sender: MaskSender | None = None
) -> EncodedDocument:
    """Encode a document and, if there is a sender, find the mask of legal tokens at each position.

    Raises TokenizerError if the tokenizer refuses the value.
    """
    try:
        compact = json_bytes(value)
    except RecursionError:
        raise TokenizerError("", "nested too deep") from None
    # The hash needs the text anyway, and the tokenizer reads text in C.
    ids = tokenizer.encode(compact.decode("utf-8", "surrogatepass"))
    masks = tokenizer.masks_of(ids) if sender is not None else None
    mask_numbers, new_masks = (None, None) if sender is None or masks is None else sender.send(masks)
    return EncodedDocument(
        source,
        repo,
        hashlib.sha256(compact).digest(),
        len(compact),
        np.array(ids, dtype="<u2").tobytes(),
        mask_numbers,
        new_masks,
        normal_hash(compact),
    )
