"""Run the reader of documents on yaml-test-suite, the official tests of YAML 1.2.

    git clone --branch data https://github.com/yaml/yaml-test-suite
    python benchmarks/yaml_suite.py yaml-test-suite

A case of the suite is a folder with `in.yaml`, and with `in.json` (the value as JSON) or `error` (the text is not
valid). The reader is for cases with one document and its JSON; of the others only the errors are counted. The exit code
is 1 if a value is read as another one, or if a valid document is refused as a syntax error.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from nanochat_tct.documents import DocumentError, read_document


def expected_values(text: str) -> list[Any]:
    """The JSON values in a text, one behind the other."""
    decoder = json.JSONDecoder()
    values, position = [], 0
    while text := text[position:].lstrip():
        value, position = decoder.raw_decode(text)
        values.append(value)
    return values


def judge(folder: Path) -> tuple[str, str]:
    """The row of the table that counts a case, and the reason."""
    try:
        value = read_document((folder / "in.yaml").read_bytes(), "yaml")
        refused = None
    except DocumentError as error:
        refused = error
    if (folder / "error").exists():
        return ("invalid and refused", "") if refused else ("invalid but accepted", "")
    if not (folder / "in.json").exists():
        return "no JSON is given", ""
    expected = expected_values((folder / "in.json").read_text("utf-8"))
    if len(expected) != 1:
        return "not one document", ""
    if refused is not None:
        row = "valid but refused" if refused.reason == "yaml-syntax" else "refused for a stated reason"
        return row, refused.reason
    # Texts of JSON differ where values do, and also where 1 and 1.0, or 1 and true, do.
    is_right = json.dumps(value, sort_keys=True) == json.dumps(expected[0], sort_keys=True)
    return ("read right" if is_right else "read as another value"), ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="checkout of yaml-test-suite, branch data")
    folder = parser.parse_args().folder
    # `name` and `tags` hold links to the same cases.
    cases = [
        path.parent
        for path in folder.rglob("in.yaml")
        if path.relative_to(folder).parts[0] not in ("name", "tags")
    ]
    if not cases:
        parser.error(f"{folder} holds no in.yaml: is it the branch `data`?")
    rows: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for case in sorted(cases):
        row, reason = judge(case)
        rows[row][reason].append(str(case.relative_to(folder)))
    print(f"{len(cases)} cases\n")
    silent = ("read right", "invalid and refused", "no JSON is given", "not one document")
    for row, reasons in sorted(rows.items()):
        print(f"{sum(map(len, reasons.values())):4} {row}")
        for reason, names in sorted(reasons.items()):
            if row not in silent:
                print(f"       {reason or 'cases'}: {' '.join(names)}")
    return 1 if "read as another value" in rows or "valid but refused" in rows else 0


if __name__ == "__main__":
    sys.exit(main())
