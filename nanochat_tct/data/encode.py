"""What a task of the preparation does: one part of the input in, a table of encoded documents out."""

import functools
import pickle
import socket
from typing import Any

import pyarrow as pa

from nanochat_tct.data.mask_table import MaskSender
from nanochat_tct.data.parts import LINE_OVERHEAD, RawDocument, read_part
from nanochat_tct.data.store_writer import EncodedDocument, RejectedDocument, encode_document
from nanochat_tct.documents import DocumentError, Limits, read_document, read_workflow
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer import TokenizerError, load_tokenizer

ENDS_JOB = "ends the job"  # a reason that is none of a document's
# One row a document. A rejected one has a reason and a message, the others content_hash and tokens.
ENCODED_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("repo", pa.string()),
        ("content_hash", pa.binary()),
        ("json_bytes", pa.int64()),
        ("tokens", pa.large_binary()),
        ("mask_ids", pa.large_binary()),  # null where there are no masks; see DocumentMasks
        ("mask_digests", pa.large_binary()),
        ("mask_bits", pa.large_binary()),
        ("normal_hash", pa.binary()),  # see split.normal_hash
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)


def encode_parts(
    batch: pa.Table, tokenizer_name: str, fingerprint: str, limits: Limits, with_masks: bool
) -> pa.Table:
    """The function that Ray Data maps over the parts: reads, parses, checks and encodes their documents.

    Args:
        batch: a column `part` of pickled Part.
        fingerprint: of the tokenizer that the driver has; that of this machine must be the same.
        with_masks: also work out what is legal in the place of each token.

    Returns:
        A table of ENCODED_SCHEMA, in the order of the input; or of one row with the reason ENDS_JOB and the message of
        a UserError: exceptions come back from Ray without what caused them.
    """
    try:
        return _encode_parts(batch, tokenizer_name, fingerprint, limits, with_masks)
    except UserError as error:
        empty = dict.fromkeys(ENCODED_SCHEMA.names)
        return pa.Table.from_pylist([{**empty, "reason": ENDS_JOB, "message": str(error)}], ENCODED_SCHEMA)


def _encode_parts(
    batch: pa.Table, tokenizer_name: str, fingerprint: str, limits: Limits, with_masks: bool
) -> pa.Table:
    """Reads, parses, checks and encodes the documents of parts.

    Raises:
        UserError: this machine lacks the input, or has another tokenizer; StorageError.
    """
    tokenizer = _tokenizer(tokenizer_name)
    if tokenizer.fingerprint != fingerprint:
        raise UserError(
            f"machine {socket.gethostname()} has another tokenizer {tokenizer_name}: install the same package "
            "everywhere (pip install -c constraints.txt), and submit with --working-dir"
        )
    columns: dict[str, list[Any]] = {name: [] for name in ENCODED_SCHEMA.names}
    for pickled in batch.column("part").to_pylist():
        sender = MaskSender() if with_masks else None
        for raw in read_part(pickle.loads(pickled), limits):  # noqa: S301  (what `prepare` itself put into the task)
            document = encode_raw(raw, tokenizer, limits, sender)
            masks = getattr(document, "masks", None)
            for name, values in columns.items():
                if name.startswith("mask_"):
                    values.append(masks and getattr(masks, name.removeprefix("mask_")))
                else:
                    values.append(getattr(document, name, None))
    return pa.table(columns, schema=ENCODED_SCHEMA)


def encode_raw(
    raw: RawDocument, tokenizer: Any, limits: Limits, sender: MaskSender | None = None
) -> EncodedDocument | RejectedDocument:
    """Parses, checks and encodes one document; what is wrong with it comes back as a RejectedDocument."""
    repo = raw.repo
    try:
        value, repo = parse_raw(raw, limits)
        return encode_document(raw.source, repo, value, tokenizer, sender)
    except DocumentError as error:
        return RejectedDocument(raw.source, repo, error.reason, _storable(error))
    except TokenizerError as error:
        return RejectedDocument(raw.source, repo, "schema", _storable(error))


def parse_raw(raw: RawDocument, limits: Limits, any_value: bool = False) -> tuple[Any, str | None]:
    """The value of a document and its repository, where it is known.

    Args:
        any_value: take documents that are no mapping too, as other schemas than that of workflows may allow them.

    Raises:
        DocumentError: it cannot be read, or is not a workflow document.
    """
    if raw.error is not None:
        raise raw.error
    if raw.format == "json-line":
        return _read_line(raw.text, limits, any_value)
    return (read_document if any_value else read_workflow)(raw.text, raw.format, limits), raw.repo


def _read_line(line: str | bytes, limits: Limits, any_value: bool) -> tuple[Any, str | None]:
    """A line holds a document, or an object with its `text` and perhaps its `repo`."""
    read = read_document if any_value else read_workflow
    wide = Limits(
        limits.max_bytes * LINE_OVERHEAD, limits.max_depth, limits.max_nodes, limits.max_expanded_characters
    )
    value = read(line, "json", wide)
    if isinstance(value, dict) and isinstance(value.get("text"), str) and "jobs" not in value:
        repo = value.get("repo")
        return read(value["text"], "auto", limits), repo if isinstance(repo, str) and repo else None
    if len(line) > limits.max_bytes:
        raise DocumentError("too-large", f"{len(line)} bytes, more than the limit of {limits.max_bytes}")
    return value, None


def _storable(error: Exception) -> str:
    """A message as one line of text that Arrow takes: it may quote the document, lone surrogates included."""
    return " ".join(str(error).split()).encode("utf-8", "backslashreplace").decode()[:500]


@functools.cache
def _tokenizer(name: str) -> Any:
    return load_tokenizer(name)
