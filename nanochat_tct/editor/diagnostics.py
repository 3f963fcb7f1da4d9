"""The problems that `check` finds, as an editor shows them."""

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
_BEFORE_EXPRESSION = re.compile(r"\$\{\{|^[ ]*(?:- +)*if:")


def diagnostics(tokenizer: Tokenizer, document: EditorText) -> list[Diagnostic]:
    """All problems of a document, each with the range of the word or quoted text that it is about."""
    found = []
    for finding in check_text("", document.text.encode("utf-8", "surrogatepass"), tokenizer):
        line = min(finding.line, len(document.lines)) - 1
        begin = finding.column - 1
        end = _end_of_word(document.lines[line], begin)
        found.append(
            Diagnostic(
                range=document.range(line, begin, end),
                message=finding.message,
                severity=SEVERITIES[finding.severity],
                code=CODES[finding.severity],
                source=SOURCE,
            )
        )
    return found


def _end_of_word(line: str, begin: int) -> int:
    pattern = _IN_EXPRESSION if _BEFORE_EXPRESSION.search(line, 0, begin) else _PLAIN
    found = pattern.match(line, begin)
    return found.end() if found else begin + 1
