"""Turn the problems that `check` finds into diagnostics of the protocol."""

from __future__ import annotations

import re

from lsprotocol.types import Diagnostic, DiagnosticSeverity

from nanochat_tct.check import check_text
from nanochat_tct.editor.text import EditorText
from nanochat_tct.tokenizer.tokenizer import Tokenizer

SOURCE = "nanochat-tct"
SEVERITIES = {"error": DiagnosticSeverity.Error, "warning": DiagnosticSeverity.Warning}
CODES = {"error": "refused", "warning": "language-service"}
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"?|'(?:[^']|'')*'?"
_IN_EXPRESSION = re.compile(rf"{_QUOTED}|\$\{{\{{|[=!<>&|]+|[\w-]+|.")
_PLAIN = re.compile(rf"{_QUOTED}|\$\{{\{{|[^\s,\[\]{{}}\"'#:]+(?::[^\s,\[\]{{}}\"'#:]+)*|.")
_WORD_BEFORE = re.compile(r"([^\s\"']+)\s*\Z")
_BEFORE_EXPRESSION = re.compile(r"\$\{\{|^[ ]*(?:- +)*if:")


def diagnostics(tokenizer: Tokenizer, document: EditorText) -> list[Diagnostic]:
    """Return all problems of a document, each with the range of the word or quoted text that it is about."""
    found = []
    for finding in check_text("", document.text.encode("utf-8", "surrogatepass"), tokenizer):
        line = min(finding.line, len(document.lines)) - 1
        found.append(
            Diagnostic(
                range=document.range(line, *_word_at(document.lines[line], finding.column - 1)),
                message=finding.message,
                severity=SEVERITIES[finding.severity],
                code=CODES[finding.severity],
                source=SOURCE,
            )
        )
    return found


def _word_at(line: str, column: int) -> tuple[int, int]:
    """Return where the word at a column begins and ends, or the word before it if something is missing behind that."""
    pattern = _IN_EXPRESSION if _BEFORE_EXPRESSION.search(line, 0, column) else _PLAIN
    found = pattern.match(line, column)
    if found is None or found[0].isspace() or found[0] in ("'", '"'):
        before = _WORD_BEFORE.search(line, 0, column)
        if before is not None:
            return before.span(1)
    return column, found.end() if found else column + 1
