"""Workflow documents: YAML 1.2 or JSON in, JSON values out, and back."""

from nanochat_tct.documents.limits import DEFAULT_LIMITS, DocumentError, Limits
from nanochat_tct.documents.reader import decoded, json_bytes, read_document, read_workflow, to_json
from nanochat_tct.documents.yaml_writer import to_yaml

__all__ = [
    "DEFAULT_LIMITS",
    "DocumentError",
    "Limits",
    "decoded",
    "json_bytes",
    "read_document",
    "read_workflow",
    "to_json",
    "to_yaml",
]
