"""What is wrong with a text that GitHub refuses: an expression, a schedule, a reference, an identifier.

The engine decides how far a text is right, and what may stand there instead; here the words are found for it.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from nanochat_tct.tokenizer.engine import END, Matcher
from nanochat_tct.tokenizer.github import FACTS, MIN_INTERVAL

Path = tuple[str | int, ...]  # keys and numbers of items, from the document inwards
MAX_COMPARED = 200  # names that one may be meant for
MAX_PROBLEMS = 10  # of one text
MAX_LISTED = 12  # names that a message lists
MAX_DEPTH = 40  # of brackets, from which on an expression that is refused may be too deep
_TOKEN = re.compile(
    r"\s++|'(?:[^']|'')*+'?|[A-Za-z_][\w-]*+|[-+]?(?:\d[\w.]*+|\.\d[\w.]*+)|&&|\|\||[!=<>]=|.", re.DOTALL
)
_EXPRESSION = re.compile(r"\$\{\{((?:[^'}]++|'[^']*+'|\}(?!\}))*+)(\}\})?")
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_OPERATORS = ("&&", "||", "==", "!=", "<=", ">=", "<", ">", "!")
_INCOMPLETE = "the arguments are not complete"
_ID = "has letters, digits, '-' and '_' only, begins with a letter or '_', and has at most 100 characters"


class Facts(NamedTuple):
    """Words of GitHub's expressions, as they are usually spelled."""

    contexts: list[str]
    functions: dict[str, tuple[int, int | None]]  # the least and most arguments
    keys: dict[str, list[str]]  # of contexts
    payloads: dict[str, list[str] | None]  # keys of `github.event`, by event; None: any
    cron: list[tuple[int, int, dict[str, int]]]


@cache
def facts() -> Facts:
    content = json.loads(FACTS.read_text(encoding="utf-8"))
    offered = {word for definition in content["definitions"].values() for word in definition[2]}
    functions = {name: (least, most) for name, (least, most) in content["functions"].items()}
    for word in sorted(offered):
        if found := re.fullmatch(r"(\w+)\((\d+),(\d+|MAX)\)", word):
            functions[found[1]] = (int(found[2]), None if found[3] == "MAX" else int(found[3]))
    contexts = sorted(word for word in offered if "(" not in word)
    return Facts(contexts, functions, content["contexts"], content["payloads"], content["cron"])


def near(names: Iterable[str], name: str) -> list[str]:
    """The name that is most like another one, if any is."""
    by_folded = {each.lower(): each for each in itertools.islice(names, MAX_COMPARED)}
    found = difflib.get_close_matches(name.lower().replace("_", "-"), by_folded, n=1, cutoff=0.7)
    found = found or difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=0.7)
    return [by_folded[each] for each in found]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message: the name that may be meant, if there is one."""
    return "".join(f"; did you mean {meant!r}?" for meant in near(names, name))


def listed(names: Iterable[str], most: int = MAX_LISTED) -> str:
    """Names for a message, those that are too many left out."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def expressions_in(text: str, is_bare: bool) -> Iterator[tuple[int, int]]:
    """Where the expressions of a text begin and end, ${{ }} left out.

    Args:
        is_bare: a text without ${{ is one as a whole, as a condition is.
    """
    if is_bare and "${{" not in text:
        yield 0, len(text)
        return
    for found in _EXPRESSION.finditer(text):
        if found[2] is None:  # it has no end
            yield found.start(1), len(text)
            return
        yield found.span(1)


def text_problems(
    text: str, path: Path, start: Callable[[], Matcher], is_key: bool = False, is_strict: bool = False
) -> list[tuple[int, str]]:
    """What is wrong with a text that the engine refuses, as offsets in it and messages.

    Args:
        start: makes a matcher where the text is to be written.
        is_strict: it is the language service that complains of the text.
    """
    if not is_key and path[-1:] == ("if",) and "${{" not in text:
        # with ${{ }} it can be nothing but an expression, and the place where it goes wrong is certain
        found = _text_problems(f"${{{{{text}}}}}", path, start, is_key, is_strict)
        if found:
            return [(max(offset - len("${{"), 0), message) for offset, message in found]
    return _text_problems(text, path, start, is_key, is_strict)


def _text_problems(
    text: str, path: Path, start: Callable[[], Matcher], is_key: bool, is_strict: bool
) -> list[tuple[int, str]]:
    problems: list[tuple[int, str]] = []
    written, last = text, -1
    while len(problems) < MAX_PROBLEMS:
        at = _legal_length(start(), written)
        if at is None or at <= last:
            break
        last = at
        offset, message, repaired = _problem(written, at, path, start, is_key, is_strict)
        problems.append((offset, message))
        if repaired is None:
            break
        written = repaired
    return [(offset, message) for offset, message in problems if message]


def _legal_length(matcher: Matcher, text: str) -> int | None:
    """How many characters of a text are right; None: all, and it may end there."""
    base = _base(text)
    if matcher.allows(base + END):
        return None
    right, wrong = 0, len(base) + 1
    while wrong - right > 1:
        middle = (right + wrong) // 2
        if matcher.allows(base[:middle]):
            right = middle
        else:
            wrong = middle
    return len(base[:right].encode("latin-1").decode("utf-8", "ignore"))


def _base(text: str) -> str:
    return text.encode("utf-8").decode("latin-1")


def _problem(
    text: str, at: int, path: Path, start: Callable[[], Matcher], is_key: bool, is_strict: bool
) -> tuple[int, str, str | None]:
    """The problem at an offset, and the text with something else there, for what comes after it."""
    is_condition = not is_key and path[-1:] == ("if",)
    for begin, end in expressions_in(text, is_condition):
        if at > end:
            continue
        if at < begin - 3:
            break
        before = text[: max(begin - 3, 0)]
        is_whole = begin == 0
        if not is_whole and not start().allows(_base(before + "${{ 0")):
            if is_condition:
                break
            message = "" if is_strict else "no expression may stand here: write the text itself"
            return begin - 3, message, None
        found = _in_expression(
            text, begin, end, max(at, begin), before if not is_whole else None, start, is_condition, is_strict
        )
        offset, message, span = found
        if span is None:
            is_open = is_whole or end == len(text)
            repaired = None if is_open else _blanked(text, begin, end, " 0")
        else:
            repaired = _blanked(text, *span, "(0)")
        return offset, message, repaired
    return (*_plain_problem(text, at, path, is_key), None)


def _blanked(text: str, begin: int, end: int, by: str) -> str | None:
    """A text of the same length with something else in a part of it."""
    if end - begin < len(by):
        return None
    return text[:begin] + by.ljust(end - begin) + text[end:]


# ---- expressions ----


def _in_expression(
    text: str,
    begin: int,
    end: int,
    at: int,
    before: str | None,
    start: Callable[[], Matcher],
    is_condition: bool,
    is_strict: bool,
) -> tuple[int, str, tuple[int, int] | None]:
    """The problem at an offset of an expression: where, what, and the part that may be another value instead."""
    tokens = [(m.start(), m[0]) for m in _TOKEN.finditer(text, begin, end) if not m[0].isspace()]
    if not tokens:
        return begin, "the expression is empty", None
    index = next((i for i, (where, token) in enumerate(tokens) if where + len(token) > at), len(tokens))
    if before is not None and text[end : end + 2] != "}}" and index == len(tokens):
        unclosed = tokens[-1][1]
        if unclosed.count("'") % 2:
            return tokens[-1][0], "the text that begins with this quote is not closed", None
        return begin - 3, "the expression has no end: '}}' is missing", None
    if index == len(tokens):
        return end, _incomplete(tokens), None
    where, token = tokens[index]
    previous = tokens[index - 1][1] if index else ""
    function = _function_around(tokens, index)
    called = index if function is None or token.lower() == "format" else function[0]
    if is_strict and tokens[called][1].lower() == "format":
        return (*_format_problem(tokens, called, is_condition), None)
    if previous in ("=", "&", "|"):
        return tokens[index - 1][0], f"{previous!r} is not an operator; did you mean {previous * 2!r}?", None
    if _is_unknown(previous) and (index < 2 or tokens[index - 2][1] != "."):
        index -= 1  # a context's name was begun, and not finished
        where, token = tokens[index]
        previous = tokens[index - 1][1] if index else ""
    following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
    if token[0] == '"':
        return where, "a text in an expression has single quotes, 'like this'", None
    if token == "'" or (token[0] == "'" and at >= where + len(token) and not token.endswith("'")):
        return where, "the text that begins with this quote is not closed", None
    is_operand = (
        _NAME.fullmatch(token) or (token[0] in "'+-.0123456789" and len(token) > 1) or token.isdigit()
    )
    if is_operand and previous not in ("", ".", "(", "[", ",", *_OPERATORS):
        hint = " (a quote inside a text is written twice: '')" if previous.startswith("'") else ""
        return where, f"an operator is missing between {_shown(previous)} and {_shown(token)}{hint}", None
    if _NAME.fullmatch(token):
        if previous == ".":
            return _unknown_key(tokens, index)
        if following == "(":
            return where, _wrong_function(token, text[:where], start), None
        span = (where, _chain_end(tokens, index))
        return where, _wrong_context(token, text[:where], start), span
    if token in (")", ",") and function:
        return where, _wrong_arguments(tokens[function[0]][1], function[1]), None
    if sum(each in "([!" for _, each in tokens[:index]) > MAX_DEPTH:
        return where, "the expression nests deeper than 50 levels", None
    if token == ")" and _balance(tokens[: index + 1]) < 0:
        return where, "')' closes a bracket that is not open", None
    if token in ("+", "-", "/", "%") or (token[0] in "+-" and previous):
        return where, f"{token[0]!r} is not an operator: expressions cannot calculate", None
    if is_strict and token == "[":
        return where, "", None  # what is there is known only when it runs
    if previous == "," and function and _wrong_arguments(tokens[function[0]][1], function[1]) != _INCOMPLETE:
        return where, _wrong_arguments(tokens[function[0]][1], function[1]), None
    if previous in _OPERATORS or previous in ("(", ",", "["):
        return where, f"a value is missing between {previous!r} and {_shown(token)}", None
    after = f" after {_shown(previous)}" if previous else ""
    return where, f"{_shown(token)} is not expected{after}", None


def _is_unknown(token: str) -> bool:
    words = {
        *facts().contexts,
        *(name.lower() for name in facts().functions),
        "true",
        "false",
        "null",
        "nan",
        "infinity",
    }
    return _NAME.fullmatch(token) is not None and token.lower() not in words


def _shown(token: str) -> str:
    return token if token.startswith("'") else f"'{token}'"


def _balance(tokens: Sequence[tuple[int, str]]) -> int:
    return sum((token == "(") - (token == ")") for _, token in tokens)


def _incomplete(tokens: list[tuple[int, str]]) -> str:
    last = tokens[-1][1]
    if last.startswith("'") and (len(last) == 1 or last.count("'") % 2):
        return "the text that begins with ' is not closed"
    if last in _OPERATORS or last in (",", "(", "[", "."):
        return f"the expression is not complete: something must follow {last!r}"
    if _balance(tokens) > 0:
        return "the expression is not complete: ')' is missing"
    if sum((token == "[") - (token == "]") for _, token in tokens) > 0:
        return "the expression is not complete: ']' is missing"
    if len(tokens) == 1 and last.startswith("'"):
        return "a text alone is not expected here"
    return "the expression may not end here"


def _chain_end(tokens: list[tuple[int, str]], index: int) -> int:
    """Where the names that follow a context with dots end."""
    while (
        index + 2 < len(tokens) and tokens[index + 1][1] == "." and re.match(r"[\w*]", tokens[index + 2][1])
    ):
        index += 2
    return tokens[index][0] + len(tokens[index][1])


def _unknown_key(tokens: list[tuple[int, str]], index: int) -> tuple[int, str, tuple[int, int] | None]:
    """A name behind a dot that strict mode refuses."""
    first = index
    while first >= 2 and tokens[first - 1][1] == ".":
        first -= 2
    chain = "".join(token for _, token in tokens[first : index - 1])
    where, token = tokens[index]
    names = facts().keys.get(chain.lower(), ["outcome", "conclusion", "outputs"])
    if chain.lower().startswith("needs.") or chain.lower().startswith("jobs."):
        names = ["result", "outputs"]
    span = (tokens[first][0], _chain_end(tokens, index))
    return where, f"{chain} has no {token!r}{did_you_mean(token, names) or f': it has {listed(names)}'}", span


def allowed_words(before: str, start: Callable[[], Matcher]) -> tuple[list[str], list[str]]:
    """The contexts and functions that may follow the beginning of a text."""
    matcher = start()
    base = _base(before)
    if not matcher.advance(base):
        return [], []
    return (
        [name for name in facts().contexts if matcher.allows(name + ".")],
        [name for name in facts().functions if matcher.allows(name + "(")],
    )


def _wrong_function(name: str, before: str, start: Callable[[], Matcher]) -> str:
    _, allowed = allowed_words(before, start)
    known = {each.lower(): each for each in facts().functions}
    if name.lower() in known:
        return f"{known[name.lower()]}() is not offered here: {listed(sorted(allowed), 20)} are"
    return f"there is no function {name!r}{did_you_mean(name, allowed) or f': here are {listed(sorted(allowed), 20)}'}"


def _wrong_context(name: str, before: str, start: Callable[[], Matcher]) -> str:
    contexts, functions = allowed_words(before, start)
    if name.lower() in ("true", "false", "null"):
        return f"{name!r} is written {name.lower()!r}"
    offered = f": {listed(contexts, 20)} are" if contexts else ""
    if name.lower() in facts().contexts:
        return f"the context {name!r} is not offered here{offered}"
    known = {each.lower(): each for each in facts().functions}
    if name.lower() in known:
        return f"{known[name.lower()]!r} is a function: '(' must follow"
    hint = did_you_mean(name, [*contexts, *functions])
    return f"there is no context {name!r}" + (
        hint or f", and a text has single quotes{offered and '; here ' + offered[2:]}"
    )


def _function_around(tokens: list[tuple[int, str]], index: int) -> tuple[int, int] | None:
    """The token of the function whose arguments a token is among, and how many of these end before it."""
    depth, commas = 0, 0
    has_some = index > 0 and tokens[index - 1][1] != "("
    for at in range(index - 1, -1, -1):
        token = tokens[at][1]
        depth += (token == ")") - (token == "(")
        commas += token == "," and depth == 0
        if depth < 0:
            return (at - 1, commas + has_some) if at and _NAME.fullmatch(tokens[at - 1][1]) else None
    return None


def _format_problem(tokens: list[tuple[int, str]], index: int, is_condition: bool) -> tuple[int, str]:
    """What the language service says of a call of format(); "" if strict mode is only simpler than that."""
    arguments, depth = 0, 0
    for end in range(index + 1, len(tokens)):
        depth += (tokens[end][1] in "([") - (tokens[end][1] in ")]")
        arguments += tokens[end][1] == "," and depth == 1
        if depth == 0:
            break
    where, text = tokens[index + 2] if index + 2 < len(tokens) else tokens[index]
    if not text.startswith("'") or (tokens[index + 3 : index + 4] and tokens[index + 3][1] not in (",", ")")):
        return where, ""  # a text that only the run knows
    rest = re.sub(r"\{\{|\}\}", "", text)
    holes = [int(number) for number in re.findall(r"\{(\d{1,9})\}", rest)]
    if re.search(r"[{}]", re.sub(r"\{\d+\}", "", rest)):
        return where, "a brace in the text of format() is doubled, or has a number in it: {0}"
    if holes and max(holes) >= arguments:
        return where, f"the text of format() has {{{max(holes)}}}, and {arguments} arguments to fill in"
    is_all = is_condition and index == 0 and end == len(tokens) - 1
    if is_all and len(re.sub(r"\{\d+\}", "", text)) > len("''"):
        return where, "the text that format() makes is always true as a condition"
    return where, ""


def _wrong_arguments(name: str, count: int) -> str:
    known = {each.lower(): each for each in facts().functions}
    if name.lower() not in known:
        return f"{name!r} takes no arguments"
    name = known[name.lower()]
    least, most = facts().functions[name]
    wanted = f"{least}" if most == least else f"at least {least}"
    wanted = wanted if most in (least, None, 255) else f"{least} to {most}"
    if count < least or (most is not None and count >= most):
        return f"{name}() takes {wanted} argument{'s' * (not wanted.endswith('1'))}"
    return _INCOMPLETE


# ---- texts of other forms ----


def _plain_problem(text: str, at: int, path: Path, is_key: bool) -> tuple[int, str]:
    shape = "/".join("#" if isinstance(part, int) else part for part in path)
    if is_key and path[:-1] == ("jobs",):
        return 0, f"{text!r} cannot be the id of a job, which {_ID}"
    if is_key:
        return 0, f"a key may not be {text!r}"
    if shape.endswith("steps/#/id"):
        return 0, f"{text!r} cannot be the id of a step, which {_ID}"
    if shape.endswith("schedule/#/cron"):
        return _cron_problem(text)
    if path[-1:] == ("uses",):
        return _uses_problem(text, is_step="steps" in path)
    if path[-1:] == ("if",):
        if re.sub(_EXPRESSION, "", text, count=1).isspace():
            return 0, ""  # there is only one expression after all
        return 0, "text around ${{ }} makes a condition that is always true: put all of it inside ${{ }}"
    if not text:
        return 0, "the text must not be empty"
    if "${{" in text:
        return at, "here stands one ${{ }} with nothing around it, or a text without any"
    return at, f"{_short(text)} does not have the form that is asked for here"


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")


_CRON_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")


def _cron_problem(text: str) -> tuple[int, str]:
    fields = [(m.start(), m[0]) for m in re.finditer(r"[^ ]+", text)]
    if len(fields) != 5:
        return 0, f"a schedule has 5 fields, {', '.join(_CRON_FIELDS)}: here are {len(fields)}"
    for (where, shown), what, (low, high, names) in zip(fields, _CRON_FIELDS, facts().cron, strict=True):
        for item in shown.split(","):
            span, _, step = item.partition("/")
            bounds = [names.get(b.lower(), int(b) if b.isdecimal() else -1) for b in span.split("-")]
            is_right = span == "*" or (len(bounds) <= 2 and all(low <= b <= high for b in bounds))
            is_right = is_right and bounds == sorted(bounds)
            if "/" in item and not (step.isdecimal() and max(low, 1) <= int(step) <= high):
                is_right = False
            if not is_right:
                words = f" or {listed(names, 3)}" if names else ""
                return (
                    where,
                    f"{shown!r} is not right for the {what}: {low} to {high}{words}, with , - * and /",
                )
    minutes = [int(item) for item in fields[0][1].split(",") if item.isdecimal()]
    if "," in fields[0][1] and len(minutes) == fields[0][1].count(",") + 1:
        gaps = [(after - before) % 60 for before, after in itertools.pairwise([*minutes, minutes[0]])]
        if min(gaps) >= MIN_INTERVAL:
            return fields[0][0], ""
    return fields[0][0], f"GitHub starts a schedule every {MIN_INTERVAL} minutes at most"


def _uses_problem(text: str, is_step: bool) -> tuple[int, str]:
    if not text.strip():
        return 0, "the name of what is used is missing"
    what = "an action, 'owner/repository@version', './folder' or 'docker://image'"
    if not is_step:
        what = "a workflow, './.github/workflows/file.yml' or 'owner/repository/.github/workflows/file.yml@version'"
    name, at, version = text.partition("@")
    if (
        is_step
        and re.fullmatch(r"[^/@]+/[^@]+@(?![0-9a-fA-F]{7,8}$)[^@]+", text)
        and "/.github/workflows" not in text
    ):
        return 0, ""  # strict mode is only simpler than what GitHub takes
    if "${{" in text:
        return 0, "no expression may stand here: GitHub reads it before anything runs"
    if is_step and re.match(r"[^/]*/[^/]*/\.github/workflows", text):
        return 0, "a workflow is used by a job, not by a step: move 'uses' to the job"
    if at and re.fullmatch("[0-9a-fA-F]{7,8}", version):
        return len(name) + 1, "GitHub takes whole hashes only, of 40 digits"
    if not at and "/" in name and not name.startswith((".", "docker:")):
        return len(name), f"a version must follow, such as {name}@v1"
    return 0, f"{_short(text)} does not name {what}"
