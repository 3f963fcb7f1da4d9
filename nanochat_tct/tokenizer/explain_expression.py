"""What is wrong with a GitHub expression that the engine refuses.

The engine decides how much of the text is right and what may follow; this file finds the words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from nanochat_tct.tokenizer.engine import Matcher
from nanochat_tct.tokenizer.facts import facts, function_names
from nanochat_tct.tokenizer.wording import did_you_mean, listed

MAX_DEPTH = (
    40  # open brackets from which on a refused expression may simply be too deep; GitHub allows 50 levels
)
MANY_LISTED = 20  # contexts or functions in one message
_TOKEN = re.compile(
    r"\s++|'(?:[^']|'')*+'?|[A-Za-z_][\w-]*+|[-+]?(?:\d[\w.]*+|\.\d[\w.]*+)|&&|\|\||[!=<>]=|.", re.DOTALL
)
_EXPRESSION = re.compile(r"\$\{\{((?:[^'}]++|'[^']*+'|\}(?!\}))*+)(\}\})?")
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_OPERATORS = ("&&", "||", "==", "!=", "<=", ">=", "<", ">", "!")
_INCOMPLETE = "the arguments are not complete"

# Offset in the text, message, and the span that a further search may replace by another value.
Found = tuple[int, str, tuple[int, int] | None]


def expressions_in(text: str, is_bare: bool) -> Iterator[tuple[int, int]]:
    """Where the expressions of a text begin and end, without their ${{ }}.

    Args:
        is_bare: a text without ${{ is itself an expression, as a condition is.
    """
    if is_bare and "${{" not in text:
        yield 0, len(text)
        return
    for found in _EXPRESSION.finditer(text):
        if found[2] is None:  # not closed
            yield found.start(1), len(text)
            return
        yield found.span(1)


def without_expression(text: str) -> str:
    """A text without its first expression."""
    return _EXPRESSION.sub("", text, count=1)


def base_tokens(text: str) -> str:
    """A text as the engine's base tokens: its bytes, a character each."""
    return text.encode("utf-8").decode("latin-1")


def allowed_words(before: str, start: Callable[[], Matcher]) -> tuple[list[str], list[str]]:
    """The contexts and the functions that may follow the beginning of a text."""
    matcher = start()
    if not matcher.advance(base_tokens(before)):
        return [], []
    return (
        [name for name in facts().contexts if matcher.allows(name + ".")],
        [name for name in facts().functions if matcher.allows(name + "(")],
    )


class Expression:
    """One expression of a text.

    Args:
        begin, end: of the expression in the text, without its ${{ }}; it has none if `begin` is 0.
        start: makes a matcher at the beginning of the text.
        is_condition: the expression is the value of an `if`.
        is_strict: GitHub's language service complains, not its parser.
    """

    def __init__(
        self,
        text: str,
        begin: int,
        end: int,
        start: Callable[[], Matcher],
        is_condition: bool,
        is_strict: bool,
    ) -> None:
        self.text, self.begin, self.end = text, begin, end
        self.start, self.is_condition, self.is_strict = start, is_condition, is_strict
        found = [match for match in _TOKEN.finditer(text, begin, end) if not match[0].isspace()]
        self.starts, self.tokens = [match.start() for match in found], [match[0] for match in found]

    def problem(self, at: int) -> Found:
        """The problem at an offset of the text, which the engine has found."""
        if not self.tokens:
            return self.begin, "the expression is empty", None
        ends = (start + len(token) for start, token in zip(self.starts, self.tokens, strict=True))
        index = next((i for i, end in enumerate(ends) if end > at), len(self.tokens))
        if index == len(self.tokens):
            return (*self._unfinished(), None)
        function = self._function_around(index)
        called = function[0] if function and self.tokens[index].lower() != "format" else index
        if self.is_strict and self.tokens[called].lower() == "format":
            return (*self._format_problem(called), None)
        previous = self._token(index - 1)
        if previous in ("=", "&", "|"):
            hint = f"{previous!r} is not an operator; did you mean {previous * 2!r}?"
            return self.starts[index - 1], hint, None
        if _is_unknown(previous) and self._token(index - 2) != ".":
            index -= 1  # the name of a context, begun and not finished
        if problem := self._operand_problem(index, at):
            return problem
        return self.starts[index], self._sign_problem(index, function), None

    def _token(self, index: int) -> str:
        """A token; "" before the first and behind the last one."""
        return self.tokens[index] if 0 <= index < len(self.tokens) else ""

    def _unfinished(self) -> tuple[int, str]:
        """The problem of an expression that is right as far as it goes."""
        last = self.tokens[-1]
        is_quote_open = last.startswith("'") and (len(last) == 1 or last.count("'") % 2 == 1)
        if self.begin and self.text[self.end : self.end + 2] != "}}":
            if last.count("'") % 2:
                return self.starts[-1], "the text that begins with this quote is not closed"
            return self.begin - len("${{"), "the expression has no end: '}}' is missing"
        message = "the expression may not end here"
        if is_quote_open:
            message = "the text that begins with ' is not closed"
        elif last in (*_OPERATORS, ",", "(", "[", "."):
            message = f"the expression is not complete: something must follow {last!r}"
        elif self.tokens.count("(") > self.tokens.count(")"):
            message = "the expression is not complete: ')' is missing"
        elif self.tokens.count("[") > self.tokens.count("]"):
            message = "the expression is not complete: ']' is missing"
        elif len(self.tokens) == 1 and last.startswith("'"):
            message = "a text alone is not expected here"
        return self.end, message

    def _operand_problem(self, index: int, at: int) -> Found | None:
        """What is wrong with a text, a number or a name; None if the token is something else, or right itself."""
        where, token, previous = self.starts[index], self.tokens[index], self._token(index - 1)
        if token[0] == '"':
            return where, "a text in an expression has single quotes, 'like this'", None
        if token == "'" or (token[0] == "'" and at >= where + len(token) and not token.endswith("'")):
            return where, "the text that begins with this quote is not closed", None
        is_name = _NAME.fullmatch(token) is not None
        is_operand = is_name or (token[0] in "'+-.0123456789" and len(token) > 1) or token.isdigit()
        if is_operand and previous not in ("", ".", "(", "[", ",", *_OPERATORS):
            hint = " (a quote inside a text is written twice: '')" if previous.startswith("'") else ""
            return where, f"an operator is missing between {_shown(previous)} and {_shown(token)}{hint}", None
        if not is_name:
            return None
        if previous == ".":
            return self._unknown_key(index)
        if self._token(index + 1) == "(":
            return where, self._wrong_function(index), None
        return where, self._wrong_context(index), (where, self._chain_end(index))

    def _sign_problem(self, index: int, function: tuple[int, int] | None) -> str:
        """What is wrong with an operator, a bracket, a comma, or another token that cannot follow the one before it.

        Returns: "" if strict mode only knows less than GitHub does.
        """
        token, previous = self.tokens[index], self._token(index - 1)
        if token in (")", ",") and function:
            return self._wrong_arguments(*function)
        if sum(each in "([!" for each in self.tokens[:index]) > MAX_DEPTH:
            return "the expression nests deeper than 50 levels"
        opened = self.tokens[:index].count("(") - self.tokens[:index].count(")")
        if token == ")" and opened <= 0:
            return "')' closes a bracket that is not open"
        if token in ("+", "-", "/", "%") or (token[0] in "+-" and previous):
            return f"{token[0]!r} is not an operator: expressions cannot calculate"
        if self.is_strict and token == "[":
            return ""  # the value in brackets is known only when the workflow runs
        if previous == "," and function and (wrong := self._wrong_arguments(*function)) != _INCOMPLETE:
            return wrong
        if previous in (*_OPERATORS, "(", ",", "["):
            return f"a value is missing between {previous!r} and {_shown(token)}"
        return f"{_shown(token)} is not expected" + (f" after {_shown(previous)}" if previous else "")

    # ---- names ----

    def _chain_end(self, index: int) -> int:
        """Where the chain of names and dots ends that begins with a token."""
        while self._token(index + 1) == "." and re.match(r"[\w*]", self._token(index + 2)):
            index += 2
        return self.starts[index] + len(self.tokens[index])

    def _unknown_key(self, index: int) -> Found:
        """The problem of a name behind a dot, which strict mode refuses."""
        first = index
        while first >= 2 and self.tokens[first - 1] == ".":
            first -= 2
        chain, token = "".join(self.tokens[first : index - 1]), self.tokens[index]
        names = facts().keys.get(chain.lower(), ["outcome", "conclusion", "outputs"])
        if chain.lower().startswith(("needs.", "jobs.")):
            names = ["result", "outputs"]
        hint = did_you_mean(token, names) or f": it has {listed(names)}"
        return (
            self.starts[index],
            f"{chain} has no {token!r}{hint}",
            (self.starts[first], self._chain_end(index)),
        )

    def _offered(self, index: int) -> tuple[list[str], list[str]]:
        """The contexts and the functions that may stand in place of a token."""
        return allowed_words(self.text[: self.starts[index]], self.start)

    def _wrong_function(self, index: int) -> str:
        name, (_, offered) = self.tokens[index], self._offered(index)
        shown = listed(sorted(offered), MANY_LISTED)
        if name.lower() in function_names():
            return f"{function_names()[name.lower()]}() is not offered here: {shown} are"
        return f"there is no function {name!r}{did_you_mean(name, offered) or f': here are {shown}'}"

    def _wrong_context(self, index: int) -> str:
        name, (contexts, functions) = self.tokens[index], self._offered(index)
        if name.lower() in ("true", "false", "null"):
            return f"{name!r} is written {name.lower()!r}"
        shown = f"{listed(contexts, MANY_LISTED)} are" if contexts else ""
        if name.lower() in facts().contexts:
            return f"the context {name!r} is not offered here" + (f": {shown}" if shown else "")
        if name.lower() in function_names():
            return f"{function_names()[name.lower()]!r} is a function: '(' must follow"
        hint = did_you_mean(name, [*contexts, *functions])
        hint = hint or ", and a text has single quotes" + (f"; here {shown}" if shown else "")
        return f"there is no context {name!r}{hint}"

    # ---- calls ----

    def _function_around(self, index: int) -> tuple[int, int] | None:
        """The token of the function whose arguments a token is among, and how many of them end before it."""
        depth, commas = 0, 0
        has_some = index > 0 and self.tokens[index - 1] != "("
        for at in range(index - 1, -1, -1):
            token = self.tokens[at]
            depth += (token == ")") - (token == "(")
            commas += token == "," and depth == 0
            if depth < 0:
                return (at - 1, commas + has_some) if _NAME.fullmatch(self._token(at - 1)) else None
        return None

    def _wrong_arguments(self, function: int, count: int) -> str:
        """What is wrong with the number of a function's arguments."""
        name = function_names().get(self.tokens[function].lower())
        if name is None:
            return f"{self.tokens[function]!r} takes no arguments"
        least, most = facts().functions[name]
        if count >= least and (most is None or count < most):
            return _INCOMPLETE
        wanted = f"{least}" if most == least else f"at least {least}"
        wanted = wanted if most in (least, None, 255) else f"{least} to {most}"
        return f"{name}() takes {wanted} argument{'s' * (not wanted.endswith('1'))}"

    def _format_problem(self, index: int) -> tuple[int, str]:
        """What the language service says of a call of format(); "" if strict mode only knows less than the service."""
        tokens, arguments, depth = self.tokens, 0, 0
        for end in range(index + 1, len(tokens)):
            depth += (tokens[end] in "([") - (tokens[end] in ")]")
            arguments += tokens[end] == "," and depth == 1
            if depth == 0:
                break
        first = index + 2 if index + 2 < len(tokens) else index
        where, text = self.starts[first], tokens[first]
        if not text.startswith("'") or self._token(index + 3) not in ("", ",", ")"):
            return where, ""  # only the run knows the text
        rest = re.sub(r"\{\{|\}\}", "", text)
        holes = [int(number) for number in re.findall(r"\{(\d{1,9})\}", rest)]
        if re.search(r"[{}]", re.sub(r"\{\d+\}", "", rest)):
            return where, "a brace in the text of format() is doubled, or has a number in it: {0}"
        if holes and max(holes) >= arguments:
            return where, f"the text of format() has {{{max(holes)}}}, and {arguments} arguments to fill in"
        is_whole = self.is_condition and index == 0 and end == len(tokens) - 1
        if is_whole and len(re.sub(r"\{\d+\}", "", text)) > len("''"):
            return where, "the text that format() makes is always true as a condition"
        return where, ""


def _is_unknown(token: str) -> bool:
    """Whether a token is a name that no expression has."""
    words = {*facts().contexts, *function_names(), "true", "false", "null", "nan", "infinity"}
    return _NAME.fullmatch(token) is not None and token.lower() not in words


def _shown(token: str) -> str:
    return token if token.startswith("'") else f"'{token}'"
