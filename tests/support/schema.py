"""Is a document a valid workflow? As check-jsonschema judges, by its own copy of the schema."""

import functools
import json
from importlib.resources import files
from typing import Any

from check_jsonschema.formats import FormatOptions
from check_jsonschema.regex_variants import RegexImplementation, RegexVariantName
from check_jsonschema.schema_loader import BuiltinSchemaLoader

SCHEMA = "vendor.github-workflows"


def workflow_schema() -> Any:
    """The GitHub workflow schema that the check-jsonschema package carries."""
    path = files("check_jsonschema") / "builtin_schemas/vendor/github-workflows.json"
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def _validator() -> Any:
    """What `check-jsonschema --builtin-schema vendor.github-workflows` validates with."""
    regex = RegexImplementation(RegexVariantName.default)
    options = FormatOptions(regex_impl=regex)
    loader = BuiltinSchemaLoader(SCHEMA)
    return loader.get_validator("", {}, options, regex, fill_defaults=False)


def schema_problem(value: Any) -> str | None:
    """What is wrong with a workflow, with its JSON pointer, or None if it is valid."""
    try:
        error = next(_validator().iter_errors(value), None)
    except UnicodeEncodeError:  # from the regular expressions, which take UTF-8
        return "/: a key or string has a lone surrogate, which is not Unicode text"
    if error is None:
        return None
    pointer = "".join(f"/{part}" for part in error.absolute_path)
    return f"{pointer or '/'}: {error.message}"


def is_valid_workflow(value: Any) -> bool:
    return schema_problem(value) is None
