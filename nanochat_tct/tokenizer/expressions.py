"""GitHub's expression language as automata that call one another.

Every rule is an ECMA-262 pattern in which a character above ``FIRST_SYMBOL`` stands for the text of another rule. A
rule has two patterns: the texts that GitHub's parser accepts (lenient), and those of them about which its language
service does not complain (strict). The depth of GitHub's parser is the sum of the depths of all calls around a
position of the text.

A ``Scope`` is the set of contexts and functions that an expression may use, which depends on its position in the
workflow; most rules exist once for each scope. The syntax is that of ``@actions/expressions``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nanochat_tct.tokenizer import automaton
from nanochat_tct.tokenizer.automaton import Automaton

Name = tuple[Any, ...]  # of a rule: what it is, and its scope
Scope = frozenset[str]  # "github", "hashFiles(1,255)", ...

FIRST_SYMBOL = 0xF0000  # private use: no pattern here has these characters as text
STRICT = chr(FIRST_SYMBOL)  # the end of a text that strict mode accepts
# Two more members of scopes: the expression has no ${{ }} (and no ${{ in its strings), and it is a condition.
BARE, CONDITION = "/bare", "/condition"

SPACES = r"[ \t\r\n]*"  # between the parts of an expression; around an expression JavaScript trims \s
IDENTIFIER = "[A-Za-z_][A-Za-z0-9_-]*"
STRING = "'(?:[^']|'')*'"
BARE_STRING = r"'(?:[^$']|''|\$+(?:\{\$+)*(?:[^${']|''|\{[^{$']|\{''))*(?:\$+(?:\{\$+)*\{?)?'"
NUMBER = (
    r"(?:[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?Infinity|NaN"
    r"|0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+)"
)
PLAIN_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"
COMPARISON = r"(?:==|!=|<=?|>=?)"
# Text without ${{, which may be empty or not
_CHARACTER = r"(?:[^$]|\$+(?:\{\$+)*(?:[^${]|\{[^{$]))"
_DOLLARS = r"\$+(?:\{\$+)*\{?"
TEXT = f"{_CHARACTER}*(?:{_DOLLARS})?"
SOME_TEXT = f"(?:{_CHARACTER}+(?:{_DOLLARS})?|{_DOLLARS})"
OPEN, CLOSE = r"\$\{\{\s*", r"\s*\}\}"
MAX_FORMAT_ARGUMENTS = 5  # of format() in strict mode
# GitHub's parser limits the depth of expressions, which operands of && and || and dereferences add to. It reads a
# condition as success() && (condition).
_DEPTHS = dict.fromkeys("expression proper filled not and or dot close format_arguments".split(), 1)
_DEPTHS |= dict.fromkeys("condition bare_condition quoted_condition".split(), 2)


@dataclass(frozen=True)
class Rule:
    """An automaton of texts with symbols for other rules. Rules with the same name are equal.

    Attributes:
        automaton: an edge of 256 is the end of a text that strict mode accepts; edges from 257 on are ``callees``.
        depth: that GitHub's parser adds to the caller's.
        names: the kind of names that it spells, which must be in scope in strict mode; "" for none.
    """

    name: Name
    automaton: Automaton = field(compare=False, repr=False)
    callees: tuple[Name, ...] = field(compare=False, repr=False, default=())
    depth: int = field(compare=False, default=0)
    names: str = field(compare=False, default="")

    def accepts(self, text: bytes) -> bool:
        """Whether the automaton accepts a text without calls."""
        return self.automaton.accepts(text)


def ignoring_case(text: str) -> str:
    """A pattern of a word that ignores case."""
    return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else re.escape(c) for c in text)


def one_of(words: list[str]) -> str:
    return "(?:" + "|".join(map(re.escape, words)) + ")"


class Expressions:
    """The rules of expressions, which are made on demand.

    Args:
        functions: for functions that are offered everywhere, the least and most arguments; None: no limit.
        keys: the keys of the contexts that do not depend on the workflow.
    """

    def __init__(self, functions: dict[str, Any], keys: dict[str, list[str]]) -> None:
        self.functions = functions
        self.keys = {
            **keys,
            "one step": ["outputs", "outcome", "conclusion"],
            "every step": ["outcome", "conclusion"],
            "one job": ["outputs", "result"],
            "every job": ["result"],
        }
        self.rules: dict[Name, Rule] = {}
        self.symbols: dict[Name, str] = {}

    def rule(self, name: Name) -> Rule:
        """The rule with a name: the name of a method of this class with its arguments, or that of a rule from `add`."""
        if name not in self.rules:
            what, *details = name
            if what == "name":
                return self.add(name, IDENTIFIER, names=details[0])
            make: Callable[..., str] = getattr(self, "_" + what)
            self.add(name, make(*details, strict=False), make(*details, strict=True), _DEPTHS.get(what, 0))
        return self.rules[name]

    def add(
        self, name: Name, lenient: str, strict: str | None = None, depth: int = 0, names: str = ""
    ) -> Rule:
        """Compile a rule from its patterns, and keep it."""
        strict = lenient if strict is None else strict
        used = [callee for callee, symbol in self.symbols.items() if symbol in lenient or symbol in strict]
        symbols = STRICT + "".join(self.symbols[callee] for callee in used)
        spelled = automaton.from_pattern(f"^(?:(?:{lenient})|(?:{strict}){STRICT})$", symbols)
        self.rules[name] = Rule(name, spelled, tuple(used), depth, names)
        return self.rules[name]

    def call(self, *name: Any) -> str:
        """The character that stands for a rule in other patterns."""
        return self.symbols.setdefault(name, chr(FIRST_SYMBOL + 1 + len(self.symbols)))

    # ---- one method for each kind of rule, which returns its lenient or strict pattern ----

    def _expression(self, scope: Scope, strict: bool) -> str:
        return f"{self._compared(scope)}{self.call('and', scope)}?{self.call('or', scope)}?"

    _argument = _expression  # in an argument list that has counted the depth already

    def _proper(self, scope: Scope, strict: bool) -> str:
        """An expression that is not just one string."""
        longer = self._longer(scope)
        return f"{self.call('operand', scope)}{SPACES}{longer}?|{self._string(scope)}{SPACES}{longer}"

    def _filled(self, scope: Scope, strict: bool) -> str:
        """An expression that is not just an empty string."""
        longer = self._longer(scope)
        filled = f"(?:{self.call('operand', scope)}|'(?:[^']|'')+')"
        return f"{filled}{SPACES}{longer}?|''{SPACES}{longer}"

    def _longer(self, scope: Scope) -> str:
        """The rest of an expression behind its first operand, if there is more."""
        compared = f"(?:{COMPARISON}{SPACES}{self._operand_pattern(scope)}{SPACES})"
        logical, also = self.call("and", scope), self.call("or", scope)
        return f"(?:{compared}+{logical}?{also}?|{logical}{also}?|{also})"

    def _string(self, scope: Scope) -> str:
        return BARE_STRING if BARE in scope else STRING

    def _operand_pattern(self, scope: Scope) -> str:
        return f"(?:{self._string(scope)}|{self.call('operand', scope)})"

    def _compared(self, scope: Scope) -> str:
        operand = self._operand_pattern(scope)
        return f"{operand}{SPACES}(?:{COMPARISON}{SPACES}{operand}{SPACES})*"

    def _and(self, scope: Scope, strict: bool) -> str:
        return f"(?:&&{SPACES}{self._compared(scope)})+"

    def _or(self, scope: Scope, strict: bool) -> str:
        return rf"(?:\|\|{SPACES}{self._compared(scope)}{self.call('and', scope)}?)+"

    def _not(self, scope: Scope, strict: bool) -> str:
        return f"!{SPACES}{self._operand_pattern(scope)}{SPACES}"

    def _operand(self, scope: Scope, strict: bool) -> str:
        """Any operand except a string: a group, a number, a constant, a context or a function, with dereferences."""
        dereference = self._dereference(scope)
        parts = [
            self.call("not", scope),
            rf"\({SPACES}{self.call('expression', scope)}\){SPACES}{dereference}?",
            PLAIN_NUMBER if strict else NUMBER,
            "true|false|null",
        ]
        functions = dict(self.functions)
        for offered in sorted(scope - {BARE, CONDITION}):
            function = re.fullmatch(r"(\w+)\((\d+),(\d+|MAX)\)", offered)
            if function:
                most = None if function[3] == "MAX" else int(function[3])
                functions[function[1]] = [int(function[2]), most]
            else:
                parts.append(f"{ignoring_case(offered)}{SPACES}{self._context(offered, scope, strict)}?")
        for name, (least, most) in functions.items():
            if strict and name == "format" and CONDITION in scope:
                continue  # its text would make the condition always true
            kind = name if name in ("case", "format") else "arguments"
            arguments = self.call(kind, scope, *([least, most] if kind == "arguments" else []))
            parts.append(f"{ignoring_case(name)}{SPACES}{arguments}{SPACES}{dereference}?")
        return "|".join(parts)

    def _arguments(self, scope: Scope, least: int, most: int | None, strict: bool) -> str:
        # GitHub allows at most 255 arguments of some functions; that limit is not enforced here.
        one = self.call("expression", scope)
        if most == 0:
            return rf"\({SPACES}\)"
        more = f"{{{max(least - 1, 0)},{'' if most is None or most == 255 else most - 1}}}"
        comma = "" if strict else f"(?:,{SPACES})?"
        return rf"\({SPACES}(?:{one}(?:,{SPACES}{one}){more}{comma}){'?' if least == 0 else ''}\)"

    def _case(self, scope: Scope, strict: bool) -> str:
        one = self.call("expression", scope)
        comma = "" if strict else f"(?:,{SPACES})?"
        return rf"\({SPACES}{one}(?:,{SPACES}{one},{SPACES}{one})+{comma}\)"

    def _format(self, scope: Scope, strict: bool) -> str:
        return rf"\({SPACES}{self.call('format_arguments', scope)}\)"

    def _format_arguments(self, scope: Scope, strict: bool) -> str:
        """A format and its arguments. In strict mode the format is a string, and there is an argument for each hole."""
        one = self.call("argument", scope)
        if not strict or BARE in scope:  # strict mode has no format in a condition
            first = f"(?:{self._string(scope)}|{self.call('operand', scope)}){SPACES}{self._longer(scope)}?"
            return f"{first}(?:,{SPACES}{one})*(?:,{SPACES})?"
        forms = []
        for count in range(MAX_FORMAT_ARGUMENTS + 1):
            hole = rf"|\{{[0-{count - 1}]\}}" if count else ""
            string = rf"'(?:[^'{{}}]|''|\{{\{{|\}}\}}{hole})*'"
            forms.append(rf"{string}{SPACES}(?:,{SPACES}{one}){{{count}}}")
        return "|".join(forms)

    # ---- dereferences: .name, ['name'] ----

    def _dereference(self, scope: Scope) -> str:
        return f"(?:{self.call('dot', 'value', scope)}|{self.call('bracket', scope)})"

    def _context(self, context: str, scope: Scope, strict: bool) -> str:
        dot = self.call("dot", context, scope)
        return (
            dot
            if strict and context not in ("secrets", "vars")
            else f"(?:{dot}|{self.call('bracket', scope)})"
        )

    def _bracket(self, scope: Scope, strict: bool) -> str:
        return rf"\[{SPACES}(?:\*{SPACES}|{self.call('expression', scope)}){self.call('close', scope)}"

    def _close(self, scope: Scope, strict: bool) -> str:
        return rf"\]{SPACES}{self._dereference(scope)}?"

    def _dot(self, of: str, scope: Scope, strict: bool) -> str:
        """A dot and a name behind a context, or behind another kind of dereference."""

        def then(following: str) -> str:
            return self.call("dot", following, scope)

        named = {"steps": "step", "needs": "need", "jobs": "job", "inputs": "input", "matrix": "matrix"}
        named |= {"env": "env", "outputs": "output", "event": "payload"}
        follows = {"steps": "one step", "needs": "one job", "jobs": "one job"}
        follows |= {"one job": "outputs", "github": "event"}
        following = then(follows.get(of, "value"))
        follows_all = then({"steps": "every step", "needs": "every job"}.get(of, "value"))
        bracket = self.call("bracket", scope)
        if of in named:
            name = self.call("name", named[of])
        elif of in self.keys:
            name = self.call("key", of)
        else:
            name = IDENTIFIER
        if strict:
            free = f"|{bracket}" if of in ("one step", "matrix", "value") else ""
            all_of_them = rf"|\*(?:{follows_all}{free})?" if of in ("steps", "needs", "value") else ""
            return rf"\.(?:{name}(?:{following}{free})?{all_of_them})"
        return (
            rf"\.{SPACES}(?:{name}{SPACES}(?:{following}|{bracket})?|\*{SPACES}(?:{follows_all}|{bracket})?)"
        )

    def _key(self, of: str, strict: bool) -> str:
        return one_of(self.keys[of]) if strict else IDENTIFIER

    # ---- whole texts ----

    def _text(self, scope: Scope, strict: bool) -> str:
        """Any text, with or without expressions."""
        return f"{TEXT}(?:{OPEN}{self.call('expression', scope)}{CLOSE}{TEXT})*"

    def _some_text(self, scope: Scope, strict: bool) -> str:
        one, filled = (f"{OPEN}{self.call(kind, scope)}{CLOSE}" for kind in ("expression", "filled"))
        return f"(?:{SOME_TEXT}{one}{TEXT}|{SOME_TEXT}|{filled}{TEXT})(?:{one}{TEXT})*"

    def _template(self, scope: Scope, strict: bool) -> str:
        """A text with an expression, which GitHub accepts instead of any value. A lone string counts as that string."""
        one, proper = (f"{OPEN}{self.call(kind, scope)}{CLOSE}" for kind in ("expression", "proper"))
        if strict:
            return proper
        return f"(?:{proper}{TEXT}|{SOME_TEXT}{one}{TEXT})(?:{one}{TEXT})*"

    def _condition(self, scope: Scope, strict: bool) -> str:
        return self._template(scope, strict)

    def _quoted_condition(self, scope: Scope, strict: bool) -> str:
        """A template that begins with a string in ${{ }}. The string alone counts as a condition without ${{ }}."""
        one = f"{OPEN}{self.call('expression', scope)}{CLOSE}"
        alone = "(?:true|false|null|[0-9]*)"
        return f"{OPEN}(?:'{alone}'{CLOSE}|{STRING}{CLOSE}(?:{SOME_TEXT}|{one}{TEXT})(?:{one}{TEXT})*)"

    def _bare_condition(self, scope: Scope, strict: bool) -> str:
        return rf"\s*(?:{self.call('expression', scope | {BARE})}\s*)?"

    def _literal(self, least: int, strict: bool) -> str:
        """A text without expressions, except that a string in ${{ }} counts as that string."""
        text = SOME_TEXT if least else TEXT
        return text if strict else rf"{text}|{OPEN}'(?:[^']|''){'+' if least else '*'}'{CLOSE}"


def marked(name: Name, lenient: Automaton, strict: Automaton) -> Rule:
    """A rule with the texts of `lenient`, of which strict mode accepts those that `strict` accepts too."""
    dead = [-1] * 256

    def successors(state: tuple[int, int] | None) -> list[tuple[int, int, tuple[int, int] | None]]:
        if state is None:
            return []
        here, there = state
        edges = [*lenient.edges[here], *(strict.edges[there] if there >= 0 else ())]
        borders = sorted({low for low, _, _ in edges} | {high + 1 for _, high, _ in edges})
        row: list[tuple[int, int, tuple[int, int] | None]] = []
        for low, upper in itertools.pairwise(borders):
            target = (lenient.tables[here][low], (strict.tables[there] if there >= 0 else dead)[low])
            if target[0] >= 0:
                row.append((low, upper - 1, target))
        if there >= 0 and strict.accepting[there] and lenient.accepting[here]:
            row.append((256, 256, None))
        return row

    def accepts(state: tuple[int, int] | None) -> bool:
        return state is None or lenient.accepting[state[0]]

    return Rule(name, automaton.build((0, 0), successors, accepts))


def described_rules(numbers: dict[Automaton | Rule, int]) -> list[dict[str, Any]]:
    """Rules as automata of a grammar (see compile.py), in the order of their numbers."""
    by_name = {rule.name: number for rule, number in numbers.items() if isinstance(rule, Rule)}
    machines = [_Machine(rule, by_name) for rule in numbers]
    firsts = _fixpoint_firsts(machines)
    # The states from which strict mode reaches an end: with names of all kinds, and with those of one kind missing.
    kinds = sorted({machine.names for machine in machines if machine.names})
    alive = _ending(machines, "")
    without = {kind: _ending(machines, kind) for kind in kinds}
    result = []
    for number, machine in enumerate(machines):
        states = range(len(machine.edges))
        described: dict[str, Any] = {
            "accepting": machine.accepting,
            "edges": [list(sum(row, ())) for row in machine.edges],
        }
        if any(machine.calls):
            described["calls"] = [machine.described_calls(state, firsts) for state in states]
        if machine.depth:
            described["depth"] = machine.depth
        if machine.names:
            described["names"] = machine.names
        if machine.strict != machine.accepting:
            described["strict"] = machine.strict
        lenient = [state for state in states if not alive[number][state]]
        if lenient:
            described["lenient"] = lenient
        requires = [
            [state, kind]
            for state in states
            for kind in kinds
            if alive[number][state] > without[kind][number][state]
        ]
        if requires:
            described["requires"] = requires
        result.append(described)
    return result


class _Machine:
    """A rule with resolved symbols: accepting states of both modes, edges on bytes, and calls by number."""

    def __init__(self, rule: Automaton | Rule, by_name: dict[Name, int]) -> None:
        spelled = rule.automaton if isinstance(rule, Rule) else rule
        self.name = rule.name if isinstance(rule, Rule) else ()
        self.depth, self.names = (rule.depth, rule.names) if isinstance(rule, Rule) else (0, "")
        callees = rule.callees if isinstance(rule, Rule) else ()
        reached = {0: 0}  # without the state behind the symbol for the end in strict mode
        order = [0]
        for state in order:
            for low, _, target in spelled.edges[state]:
                if low != 256 and target not in reached:
                    reached[target] = len(order)
                    order.append(target)
        self.accepting = [spelled.accepting[state] for state in order]
        self.strict = [
            any(edge[0] == 256 for edge in spelled.edges[state])
            if isinstance(rule, Rule)
            else spelled.accepting[state]
            for state in order
        ]
        self.edges = [
            [(low, high, reached[t]) for low, high, t in spelled.edges[state] if high < 256]
            for state in order
        ]
        self.calls = [
            [
                (by_name[callees[symbol - 257]], reached[t])
                for low, high, t in spelled.edges[state]
                if high > 256
                for symbol in range(max(low, 257), high + 1)
            ]
            for state in order
        ]

    def described_calls(self, state: int, firsts: list[int]) -> list[int]:
        """The calls of a state by their first bytes, which no other call or edge of the state has."""
        taken = _bytes_of(self.edges[state])
        row: list[tuple[int, int, int, int]] = []
        for callee, target in self.calls[state]:
            assert not taken & firsts[callee], f"{self.name}: two ways to go on from state {state}"
            taken |= firsts[callee]
            byte = 0
            while firsts[callee] >> byte:
                if firsts[callee] >> byte & 1:
                    low = byte
                    while firsts[callee] >> byte & 1:
                        byte += 1
                    row.append((low, byte - 1, callee, target))
                byte += 1
        return list(sum(sorted(row), ()))


def _bytes_of(edges: list[tuple[int, int, int]]) -> int:
    return sum(1 << byte for low, high, _ in edges for byte in range(low, high + 1))


def _fixpoint_firsts(machines: list[_Machine]) -> list[int]:
    """The bytes with which the texts of each automaton may begin, as bits."""
    firsts = [_bytes_of(machine.edges[0]) for machine in machines]
    changed = True
    while changed:
        changed = False
        for number, machine in enumerate(machines):
            for callee, _ in machine.calls[0]:
                changed |= bool(firsts[callee] & ~firsts[number])
                firsts[number] |= firsts[callee]
    return firsts


def _ending(machines: list[_Machine], missing: str) -> list[list[bool]]:
    """The states that lead to an end in strict mode if no name of the kind `missing` is in scope."""
    ending = [
        [flag and not (machine.names and machine.names == missing) for flag in machine.strict]
        for machine in machines
    ]
    changed = True
    while changed:
        changed = False
        for number, machine in enumerate(machines):
            if machine.names and machine.names == missing:
                continue
            flags = ending[number]
            for state in reversed(range(len(flags))):
                if not flags[state] and (
                    any(flags[target] for _, _, target in machine.edges[state])
                    or any(flags[target] and ending[callee][0] for callee, target in machine.calls[state])
                ):
                    flags[state] = changed = True
    return ending
