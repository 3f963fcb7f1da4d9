"""Complete names inside an expression: contexts, functions, and what the document defines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nanochat_tct.editor.cursor import Cursor, Path
from nanochat_tct.tokenizer.facts import facts
from nanochat_tct.tokenizer.names import WorkflowNames, is_condition

# The end of the text before the cursor: names with dots, and the one that is being written.
_CHAIN = re.compile(r"(?<![\w.\])-])((?:[A-Za-z_][\w-]*\s*\.\s*)*)([A-Za-z_][\w-]*)?\Z")
_STRINGS = re.compile(r"'[^']*+'?")
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_WORKFLOW_OUTPUT = re.compile(
    r"([A-Za-z_][\w-]*)(?:=|<<)[^\n]*GITHUB_OUTPUT"  # echo "name=value" >> "$GITHUB_OUTPUT"
    r"|echo\s+[\"']?([A-Za-z_][\w-]*)(?:=|<<)"  # several of them in braces
    r"|setOutput\(\s*[\"']([\w-]+)"
)


class Expression(NamedTuple):
    """The expression at the cursor.

    Attributes:
        before: its text up to the word at the cursor, with everything that stands before it in the value.
        chain: the names with dots before that word, outermost first.
        word: the part of the word that is written.
    """

    before: str
    chain: tuple[str, ...]
    word: str


def expression_at(cursor: Cursor) -> Expression | None:
    """Return the expression that the cursor is in; None outside of one, inside quotes, or behind an operand."""
    before = cursor.before
    opened = before.rfind("${{")
    if opened < 0 and not cursor.is_key and is_condition(cursor.path) and "${{" not in cursor.after:
        before, opened = "${{ " + before, 0  # a condition is an expression without ${{ }} too
    inside = before[opened + 3 :]
    without_strings = _STRINGS.sub(lambda found: "0" * len(found[0]), inside)
    if opened < 0 or "}}" in without_strings or inside.count("'") % 2:
        return None
    found = _CHAIN.search(without_strings)
    if found is None:
        return None
    chain = tuple(re.findall(_NAME, found[1]))
    return Expression(before[: opened + 3 + found.start()], chain, found[2] or "")


def names_after(chain: Sequence[str], path: Path, document: Any, text: str) -> list[str]:
    """Return the names that may follow others after a dot.

    Args:
        chain: a context, and names of its parts.
        path: of the value that the expression stands in.
        text: of the document, for names that nothing defines, but that are used elsewhere.
    """
    names = WorkflowNames(document)
    job_name = path[1] if path[:1] == ("jobs",) and len(path) > 1 else None
    job = names.job(job_name)
    step = path[3] if path[2:3] == ("steps",) and len(path) > 3 else None
    context, *rest = (name.lower() for name in chain)
    found: Iterable[str] = ()
    if context == "github" and rest == ["event"]:
        found = [*names.payload.names, *(["inputs"] if names.dispatched.names else [])]
    elif context == "github" and rest == ["event", "inputs"]:
        found = names.dispatched.names
    elif context in ("secrets", "vars") and not rest:
        called = document.get("on", {}) if isinstance(document, dict) else {}
        called = called.get("workflow_call") if isinstance(called, dict) else {}
        secrets = called.get("secrets") if isinstance(called, dict) else {}
        defined = ["GITHUB_TOKEN", *(secrets if isinstance(secrets, dict) else ())]
        found = [*(defined if context == "secrets" else ()), *_used(rf"\b{context}\.([A-Za-z_]\w*)", text)]
    elif context == "steps" and not rest:
        found = job.steps_before(step) if isinstance(step, int) else job.step_names
    elif context == "steps" and len(rest) == 1:
        found = ("outputs", "outcome", "conclusion")
    elif context == "steps" and rest[1:] == ["outputs"]:
        found = [*_outputs_of_step(document, job_name, rest[0]), *_used(_output_of(chain), text)]
    elif context in ("needs", "jobs") and len(rest) == 1:
        found = ("outputs", "result")
    elif context in ("needs", "jobs") and rest[1:] == ["outputs"]:
        other = names.job(names.by_folded.get(rest[0]))
        found = [*other.outputs.names, *_used(_output_of(chain), text)]
    elif not rest and context == "job":
        found = job.context.names
    elif not rest and context in facts().keys:
        found = facts().keys[context]
    elif not rest and context in ("needs", "jobs", "inputs", "matrix", "env"):
        known = names.names_in(context, job, path)[0]
        found = [*known.names, *(_used(rf"\b{context}\.([A-Za-z_][\w-]*)", text) if known.is_any else ())]
    return [name for name in dict.fromkeys(found) if _NAME.fullmatch(name)]


def _used(pattern: str, text: str) -> list[str]:
    return sorted(set(re.findall(pattern, text)))


def _output_of(chain: Sequence[str]) -> str:
    return rf"\b{chain[0]}\.{re.escape(chain[1])}\.outputs\.([A-Za-z_][\w-]*)"


def _outputs_of_step(document: Any, job: Any, step: str) -> list[str]:
    """Return the outputs that the script of a step writes, as far as its text shows them."""
    for each in document["jobs"][job]["steps"]:
        if isinstance(each, dict) and str(each.get("id")).lower() == step:
            script = str(each.get("run") or each.get("with") or "")
            if "GITHUB_OUTPUT" in script or "setOutput" in script:
                return [next(filter(None, names)) for names in _WORKFLOW_OUTPUT.findall(script)]
    return []
