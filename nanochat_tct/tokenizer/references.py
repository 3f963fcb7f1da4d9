"""Which draft a JSON Schema is written in, and which part of the document each reference means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urljoin

from nanochat_tct.tokenizer.errors import SchemaError

# The draft that a keyword came with. A schema of an earlier draft may have it as an annotation of its own.
SINCE = {
    "const": 6,
    "contains": 6,
    "propertyNames": 6,
    "if": 7,
    "then": 7,
    "else": 7,
    "dependentRequired": 2019,
    "dependentSchemas": 2019,
    "unevaluatedItems": 2019,
    "unevaluatedProperties": 2019,
    "minContains": 2019,
    "maxContains": 2019,
    "$recursiveRef": 2019,
    "prefixItems": 2020,
    "$dynamicRef": 2020,
}
LAST = {"$recursiveRef": 2019}  # the last draft with a keyword
LATEST = 2020
OFFICIAL = re.compile(r"https?://json-schema\.org/(?:draft[-/])?(.*?)/?(?:hyper-)?schema#?")
NOT_SCHEMAS = (
    "enum",
    "const",
    "default",
    "examples",
)  # what stands in them is a value, even if it looks like a schema


@dataclass(frozen=True)
class Draft:
    """The rules that a schema is read by; without a ``$schema`` those of 2020-12, and keywords of every draft.

    Attributes:
        number: 4, 6, 7, 2019 or 2020.
        declared: whether the schema names its draft.
        remark: what to tell the author about it; "" for nothing.
    """

    number: int
    declared: bool
    remark: str = ""

    @property
    def name(self) -> str:
        return "draft " + {2019: "2019-09", 2020: "2020-12"}.get(self.number, str(self.number))

    @property
    def ref_has_siblings(self) -> bool:
        """Whether keywords beside $ref count; drafts 4 to 7 ignore them."""
        return self.number > 7

    @property
    def whole_floats_are_integers(self) -> bool:
        """Whether 1.0 is an integer; in draft 4 it is not."""
        return self.number > 4

    @property
    def id_keywords(self) -> tuple[str, ...]:
        if not self.declared:
            return ("$id", "id")
        return ("id",) if self.number == 4 else ("$id",)

    def foreign(self, schema: dict[str, Any]) -> list[str]:
        """The keywords of a schema that its draft does not have."""
        if not self.declared:
            return []
        return [k for k in schema if not SINCE.get(k, 0) <= self.number <= LAST.get(k, LATEST)]


def draft_of(schema: Any) -> Draft:
    """The draft that a document names in ``$schema``.

    Raises:
        SchemaError: it is a dialect of its own, whose keywords are defined in another document.
    """
    name = schema.get("$schema") if isinstance(schema, dict) else None
    if name is None:
        return Draft(LATEST, False)
    found = OFFICIAL.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        raise SchemaError(
            f"/: $schema {name!r} is none of the drafts 4 to 2020-12; name the draft that the schema is written in"
        )
    version = found[1]
    if version in ("01", "02", "03"):
        return Draft(4, True, f"$schema: draft {int(version)} is read as draft 4")
    numbers = {"04": 4, "06": 6, "07": 7, "2019-09": 2019, "2020-12": 2020}
    if version not in numbers:
        return Draft(LATEST, False)  # "http://json-schema.org/schema#" is the latest one
    return Draft(numbers[version], True)


def escape(key: str) -> str:
    """A key as a part of a pointer."""
    return key.replace("~", "~0").replace("/", "~1").replace("%", "%25")


class References:
    """The schemas of one document by pointer, by URI and by anchor.

    Pointers are JSON pointers with percent signs encoded, as ``escape`` writes them.
    """

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.draft = draft_of(schema)

    def lookup(self, pointer: str) -> Any:
        """What a pointer leads to.

        Raises:
            SchemaError: it leads to nothing.
        """
        here = self.schema
        for part in pointer.split("/")[1:]:
            part = unquote(part).replace("~1", "/").replace("~0", "~")
            try:
                here = here[int(part)] if isinstance(here, list) else here[part]
            except (KeyError, IndexError, ValueError, TypeError):
                raise SchemaError(f"{pointer}: $ref points to nothing in this schema") from None
        return here

    def target(self, reference: Any, pointer: str) -> str:
        """The pointer of what a $ref at a pointer refers to.

        Raises:
            SchemaError: it refers to another document, or to nothing.
        """
        found = self._find(reference, pointer)
        if found is None:
            raise SchemaError(
                f"{pointer or '/'}: only references inside the document can be compiled, not {reference!r}"
            )
        return found

    def dynamic_targets(self, reference: Any, keyword: str, pointer: str) -> list[str]:
        """The pointers of all that a $dynamicRef or $recursiveRef may refer to, depending on the way that leads there.

        Raises:
            SchemaError: as ``target`` does.
        """
        first = self.target(reference, pointer)
        schema = self.lookup(first)
        if keyword == "$recursiveRef":
            recursive = isinstance(schema, dict) and schema.get("$recursiveAnchor") is True
            return [first, *(p for p in self._recursive if p != first)] if recursive else [first]
        anchor = str(reference).partition("#")[2]
        dynamic = self._dynamic.get(anchor, [])
        if first not in dynamic:
            return [first]
        return [first, *(p for p in dynamic if p != first)]

    def _find(self, reference: Any, pointer: str) -> str | None:
        if not isinstance(reference, str):
            return None
        base = self._base_of(pointer)
        address, _, fragment = reference.partition("#")
        address = urljoin(base, address) if address else base
        resource = self._resources.get(address)
        if resource is None:
            return None
        if fragment and not fragment.startswith("/"):
            return self._anchors.get((address, unquote(fragment)))
        for start in (
            resource,
            "",
        ):  # many authors count from the document where a part of it has an $id of its own
            found = start + _normal(fragment)
            try:
                self.lookup(found)
            except SchemaError:
                continue
            return found
        raise SchemaError(f"{resource + fragment}: $ref points to nothing in this schema")

    def _base_of(self, pointer: str) -> str:
        """The URI that references at a pointer are relative to: that of the innermost schema around it with an $id."""
        parts = pointer.split("/")
        for end in range(len(parts), 0, -1):
            base = self._bases.get("/".join(parts[:end]))
            if base is not None:
                return base
        return ""

    @cached_property
    def _index(self) -> tuple[dict[str, str], dict[str, str], dict[tuple[str, str], str]]:
        """URIs by the pointers of schemas with an $id, pointers by URI, pointers by URI and anchor."""
        bases, resources, anchors = {"": ""}, {"": ""}, dict[tuple[str, str], str]()
        waiting: list[tuple[str, Any, str]] = [("", self.schema, "")]
        for pointer, schema, base in waiting:  # grows while we walk
            if isinstance(schema, list):
                waiting += [(f"{pointer}/{index}", value, base) for index, value in enumerate(schema)]
            if not isinstance(schema, dict):
                continue
            for keyword in self.draft.id_keywords:
                name = schema.get(keyword)
                if not isinstance(name, str) or ("$ref" in schema and not self.draft.ref_has_siblings):
                    continue
                address, _, anchor = name.partition("#")
                if address:
                    base = urljoin(base, address)
                    bases[pointer] = base
                    resources.setdefault(base, pointer)
                if anchor:
                    anchors.setdefault((base, anchor), pointer)
            for keyword in ("$anchor", "$dynamicAnchor"):
                if isinstance(schema.get(keyword), str):
                    anchors.setdefault((base, schema[keyword]), pointer)
            waiting += [
                (f"{pointer}/{escape(str(key))}", value, base)
                for key, value in schema.items()
                if key not in NOT_SCHEMAS or (isinstance(value, dict) and pointer.endswith("/properties"))
            ]
        return bases, resources, anchors

    @property
    def _bases(self) -> dict[str, str]:
        return self._index[0]

    @property
    def _resources(self) -> dict[str, str]:
        return self._index[1]

    @property
    def _anchors(self) -> dict[tuple[str, str], str]:
        return self._index[2]

    @cached_property
    def _dynamic(self) -> dict[str, list[str]]:
        """The pointers of the schemas with each $dynamicAnchor."""
        found: dict[str, list[str]] = {}
        for (_, anchor), pointer in self._anchors.items():
            schema = self.lookup(pointer)
            if schema.get("$dynamicAnchor") == anchor:
                found.setdefault(anchor, []).append(pointer)
        return found

    @cached_property
    def _recursive(self) -> list[str]:
        """The pointers of the resources with a $recursiveAnchor."""
        found = []
        for pointer in self._bases:
            schema = self.lookup(pointer)
            if isinstance(schema, dict) and schema.get("$recursiveAnchor") is True:
                found.append(pointer)
        return found


def _normal(fragment: str) -> str:
    """A pointer from a reference, escaped as all others are."""
    parts = (unquote(part).replace("~1", "/").replace("~0", "~") for part in fragment.split("/"))
    return "/".join(map(escape, parts))
