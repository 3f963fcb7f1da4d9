"""Read one document (YAML 1.2 or JSON) into a JSON value, and write values as compact JSON.

Everything that is not exactly one JSON value is refused with a reason, see `DocumentError`. Documents come from
strangers, so `Limits` bounds every step.
"""

import json
import math
from typing import Any, Literal

from nanochat_tct.documents.limits import (
    DEFAULT_LIMITS,
    MAX_NUMBER_CHARACTERS,
    DocumentError,
    Limits,
    kind_of,
    shortened,
)
from nanochat_tct.documents.yaml_reader import read_yaml

Format = Literal["yaml", "json", "auto"]


def to_json(value: Any) -> str:
    """The compact JSON of a value, with keys in their order: the form for hashes and sizes."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def json_bytes(value: Any) -> bytes:
    """The compact JSON as UTF-8; lone surrogates, which JSON permits, are passed through."""
    return to_json(value).encode("utf-8", "surrogatepass")


def read_workflow(
    text: str | bytes,
    format: Format = "auto",
    limits: Limits = DEFAULT_LIMITS,
    complaints: list[DocumentError] | None = None,
) -> dict[str, Any]:
    """Parse one document as GitHub reads a workflow; see `read_document`.

    The value must be a mapping, all keys must be texts, and `<<` is an ordinary key.

    Args:
        complaints: receives the errors about keys of YAML, which are raised otherwise.

    Raises:
        DocumentError: the document is not one JSON object, or exceeds a limit.
    """
    value = read_document(text, format, limits, True, complaints)
    if not isinstance(value, dict):
        raise DocumentError("not-a-mapping", f"the document is a {kind_of(value)}, not a mapping")
    return value


def read_document(
    text: str | bytes,
    format: Format = "auto",
    limits: Limits = DEFAULT_LIMITS,
    as_github: bool = False,
    complaints: list[DocumentError] | None = None,
) -> Any:
    """Parse one document.

    Args:
        text: the file's content.
        format: "yaml", "json", or "auto" (JSON if it starts with a brace and parses as JSON, otherwise YAML).
        limits: for the document.
        as_github, complaints: of YAML, see `read_yaml`.

    Returns:
        Its value. Aliases of a YAML anchor are the same Python object: treat it as read-only.

    Raises:
        DocumentError: the document is not one JSON value, or exceeds a limit.
    """
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > limits.max_bytes:
        raise DocumentError("too-large", f"{size} bytes, more than the limit of {limits.max_bytes}")
    text = decoded(text)
    if format == "auto" and text.lstrip().startswith("{"):
        try:
            return _read_json(text, limits)
        except DocumentError as error:
            if error.reason != "json-syntax":
                raise
    if format == "json":
        return _read_json(text, limits)
    return read_yaml(text, limits, as_github, complaints)


def decoded(text: str | bytes) -> str:
    """Decode a file, without its byte-order mark.

    Raises:
        DocumentError: it is not in UTF-8, UTF-16 or UTF-32.
    """
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    encoding = json.detect_encoding(text)  # YAML and JSON have the same rule
    try:
        return text.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        name, line = encoding.upper().removesuffix("-SIG"), text.count(b"\n", 0, error.start) + 1
        raise DocumentError("not-utf8", f"byte {error.start} is not valid {name}", line) from None


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DocumentError("duplicate-key", f"the key {shortened(key)} stands twice in one mapping")
            seen.add(key)
    return result


def _refuse_constant(name: str) -> Any:
    raise DocumentError("bad-number", f"{name} is not a number that JSON knows")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise DocumentError("bad-number", f"{shortened(text)} is too large for a float")
    return number


def _bounded_integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise DocumentError("bad-number", "an integer has too many digits")
    return int(text)


_JSON_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_without_duplicates,
    parse_constant=_refuse_constant,
    parse_float=_finite_float,
    parse_int=_bounded_integer,
)


def _read_json(text: str, limits: Limits) -> Any:
    if not text.strip():
        raise DocumentError("empty", "the file is empty")
    try:
        value = _JSON_DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise DocumentError("json-syntax", error.msg, error.lineno, error.colno) from None
    except RecursionError:
        raise DocumentError("too-deep", "nested too deep to be read") from None
    opened = text.count("{") + text.count("[")  # no fewer than the levels
    if opened > limits.max_depth or opened + text.count(",") >= limits.max_nodes:
        _check_limits(value, limits)
    return value


def _check_limits(value: Any, limits: Limits) -> None:
    """Check the depth and the number of nodes of a JSON value, without recursion."""
    nodes = 0
    level, depth = [value], 0  # all values at this depth
    while level:
        nodes += len(level)
        collections = [item for item in level if isinstance(item, dict | list)]
        level = [
            item for inner in collections for item in (inner.values() if isinstance(inner, dict) else inner)
        ]
        depth += 1
        if collections and depth > limits.max_depth:
            raise DocumentError("too-deep", f"nested deeper than {limits.max_depth} levels")
    if nodes > limits.max_nodes:
        raise DocumentError("too-many-nodes", f"more than {limits.max_nodes} values")
