"""GitHub's workflow language as types (see schema.py), from the facts in ``github_facts.json``.

The facts list for each definition its keys, kinds and values, and the contexts and functions that its expressions may
use; a definition inherits those of the definitions around it. GitHub checks more when it converts a document: the
functions below add this to the definitions. Where GitHub reads a string, it also accepts numbers, booleans and nulls;
where it offers any expressions, it accepts a text with an expression instead of any value.

Lenient alternatives, and lenient parts of a rule's language, are those that GitHub's parser accepts but of which its
language service complains; strict mode leaves them out.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from nanochat_tct.tokenizer.automaton import Automaton, difference, from_pattern, union
from nanochat_tct.tokenizer.expressions import (
    CONDITION,
    SOME_TEXT,
    Expressions,
    Rule,
    Scope,
    ignoring_case,
    marked,
)
from nanochat_tct.tokenizer.facts import FACTS, MIN_INTERVAL
from nanochat_tct.tokenizer.schema import (
    NEVER,
    Alternative,
    Constant,
    Fields,
    Items,
    Lazy,
    Names,
    Number,
    Text,
    Type,
)

# Keys of steps in parallel that GitHub's parser still refuses.
NOT_YET = frozenset(["background", "wait", "wait-all", "cancel"])
# An identifier of a job or step has at most 99 characters; two underscores at its start are GitHub's own.
IDENTIFIER = "(?:[A-Za-z][A-Za-z0-9_-]{0,98}|_(?:[A-Za-z0-9-][A-Za-z0-9_-]{0,97})?)"
SOME_PLAIN_TEXT = from_pattern(f"^(?:{SOME_TEXT})$")
BOOLEANS: Type = (Constant(True), Constant(False))
NULL = Constant(None)


class Language:
    """The types of GitHub's language, with the interface of a ``schema.Compiler`` for compile.py."""

    def __init__(self, facts: Any = None) -> None:
        facts = json.loads(FACTS.read_text(encoding="utf-8")) if facts is None else facts
        self.definitions: dict[str, Any] = facts["definitions"]
        self.cron: list[Any] = facts["cron"]
        self.limits = {"max_call_depth": facts["max_depth"], "max_call_units": facts["max_length"]}
        self.names = {"implied": {"payload": facts["payloads"]}}
        self.expressions = Expressions(facts["functions"], facts["contexts"])
        self.root = self.at(facts["root"], frozenset())
        self.unenforced: list[str] = []
        self._types: dict[Lazy, Type] = {}

    @staticmethod
    def at(name: str, scope: Scope) -> Lazy:
        """The type of a definition inside a scope."""
        return ("github", (name, scope))

    def allowed(self, lazy: Lazy) -> Type:
        if lazy == NEVER:
            return ()
        if lazy[0] == "type":
            return lazy[1]
        if lazy not in self._types:
            self._types[lazy] = self._alternatives(*lazy[1])
        return self._types[lazy]

    def text(self, *name: Any, **attributes: Any) -> Text:
        return Text(pattern=self.expressions.rule(name), **attributes)

    def _alternatives(self, name: str, around: Scope) -> Type:
        scope = around | frozenset(self.definitions[name][2])
        types = self._of_definition(name, scope)
        anything = any(isinstance(a, Text) and isinstance(a.pattern, Rule) for a in types)
        if scope and not anything and name not in _NO_TEMPLATE:
            types += (self.text("template", scope),)
        return types

    def _of_definition(self, name: str, scope: Scope) -> Type:
        kind, details, _ = self.definitions[name]
        types = self._of_kind(kind, details, scope)
        refine = _REFINED.get(name)
        return tuple(dict.fromkeys(refine(self, types, scope) if refine else types))

    def _of_kind(self, kind: str, details: Any, scope: Scope) -> Type:
        if kind == "null":
            return (NULL,)
        if kind == "boolean":
            return BOOLEANS
        if kind == "number":
            return (Number(),)
        if kind in ("string", "text"):  # a text must not be empty, as a null would be
            some = kind == "text"
            rule = ("some_text" if some else "text", scope) if scope else ("literal", int(some))
            return (*(() if some else (NULL,)), *BOOLEANS, Number(), self.text(*rule))
        if kind == "values":
            return (Text(values=tuple(details)),)
        if kind == "sequence":
            return (Items(item=self.at(details, scope)),)
        if kind == "any":
            members = (self._of_definition(m, scope | frozenset(self.definitions[m][2])) for m in details)
            return _one_enumeration(a for types in members for a in types)
        keys, loose = details["keys"], details["loose"]
        required = frozenset(key for key, (_, is_required) in keys.items() if is_required)
        if required & NOT_YET:
            return ()
        return (
            Fields(
                known=tuple(
                    (key, self.at(value, scope)) for key, (value, _) in keys.items() if key not in NOT_YET
                ),
                required=required,
                additional=self.at(loose[1], scope) if loose else NEVER,
                names=self.keys(loose[0], scope) if loose else None,
            ),
        )

    def keys(self, name: str, scope: Scope) -> Automaton | Rule | None:
        """The texts that are allowed as further keys."""
        if self.definitions[name][0] == "string":
            return self.expressions.rule(("text", scope) if scope else ("literal", 0))
        return self.expressions.rule(("some_text", scope)) if scope else SOME_PLAIN_TEXT


def _one_enumeration(types: Iterable[Alternative]) -> Type:
    """Join the enumerations among alternatives into one."""
    types = tuple(types)
    enumerations = [a for a in types if isinstance(a, Text) and a.values]
    if len(enumerations) < 2:
        return types
    values = dict.fromkeys(value for a in enumerations for value in a.values or ())
    return (Text(values=tuple(values)), *(a for a in types if a not in enumerations))


# ---- checks beyond the definitions --------------------------------------------------------------------------------

Refinement = Callable[[Language, Type, Scope], Type]


def _shapes(change: Callable[[Language, Fields, Scope], Iterable[Fields]]) -> Refinement:
    """A refinement that changes the object alternatives of a type."""

    def refine(language: Language, types: Type, scope: Scope) -> Type:
        changed = (change(language, a, scope) if isinstance(a, Fields) else (a,) for a in types)
        return tuple(alternative for alternatives in changed for alternative in alternatives)

    return refine


def _attributes(kind: type, **attributes: Any) -> Refinement:
    """A refinement that replaces attributes of the alternatives of one kind."""
    return lambda language, types, scope: tuple(
        replace(a, **attributes) if isinstance(a, kind) else a for a in types
    )


def _typed(*types: Alternative) -> Lazy:
    return ("type", types)


def _condition(language: Language, types: Type, scope: Scope) -> Type:
    """A condition is an expression, with or without ${{ }}."""
    scope = scope | {CONDITION}
    return (
        *BOOLEANS,
        Constant(None, lenient=True),
        Number(lenient=True),
        language.text("bare_condition", scope),
        language.text("condition", scope),
        language.text("quoted_condition", scope, lenient=True),
    )


def _input(language: Language, fields: Fields, scope: Scope) -> Iterable[Fields]:
    """The default of an input has the input's type, and a choice has options."""
    types = {key: language.allowed(lazy) for key, lazy in fields.known}
    texts = tuple(a for a in types["default"] if isinstance(a, Text) or a == NULL)
    inserted = scope | frozenset(language.definitions[fields.types["default"][1][0]][2])
    booleans = (*BOOLEANS, *((language.text("template", inserted),) if inserted else ()))
    offered = [v for a in types["type"] if isinstance(a, Text) for v in a.values or ()]
    for kinds, default in (
        (("string", "environment"), texts),
        (("boolean",), booleans),
        (("number",), types["default"]),
        (("choice",), texts),
    ):
        values = tuple(value for value in offered if value in kinds)
        known = {**fields.types, "type": _typed(Text(values=values)), "default": _typed(*default)}
        required = fields.required if "string" in values else fields.required | {"type"}
        if "choice" in values:
            required |= {"options"}
            items = (replace(a, minimum=1) for a in types["options"] if isinstance(a, Items))
            known["options"] = _typed(*items)
        else:
            known.pop("options", None)
        if values:
            yield replace(fields, known=tuple(known.items()), required=required)


def _concurrency(language: Language, fields: Fields, scope: Scope) -> Iterable[Fields]:
    """A group that queues all runs must not cancel them too, or GitHub's language service complains."""
    inserted = language.text("template", scope)
    group = tuple(
        replace(a, defines=_GROUP) if isinstance(a, Text) else a
        for a in language.allowed(fields.types["group"])
    )
    fields = fields.with_key("group", _typed(*group))
    yield fields.with_key("queue", _typed(Text(values=("single",)), inserted))
    together = fields.with_key("queue", _typed(Text(values=("max",))))
    yield together.with_key("cancel-in-progress", _typed(Constant(False), inserted))
    yield replace(together.with_key("cancel-in-progress", _typed(Constant(True))), lenient=True)


def _runner_group(language: Language, fields: Fields, scope: Scope) -> Iterable[Fields]:
    """The name of a group of runners has a slash only behind the kind of its owner."""
    name = SOME_TEXT.replace("[^$]", "[^$/]").replace("[^${]", "[^${/]").replace("[^{$]", "[^{$/]")
    group = from_pattern(f"^(?:(?:org|organization|ent|enterprise)/)?(?:{name})$")
    yield fields.with_key(
        "group", _typed(*BOOLEANS, Number(), Text(pattern=group), language.text("template", scope))
    )


def _image(language: Language, fields: Fields, scope: Scope) -> Iterable[Fields]:
    yield replace(fields, required=fields.required | {"image"})


def _matrix(language: Language, fields: Fields, scope: Scope) -> Iterable[Fields]:
    """The keys of the matrix, and those of what it includes, are its names; an expression may define any name."""
    include: list[Alternative] = []
    for a in language.allowed(fields.types["include"]):
        if isinstance(a, Items):
            shapes = (
                replace(b, defines=Names("matrix"))
                if isinstance(b, Fields)
                else replace(b, defines=Names("matrix", opens=True))
                for b in language.allowed(a.item)
                if isinstance(b, Fields | Text)
            )
            include.append(replace(a, item=_typed(*shapes)))
        else:
            assert isinstance(a, Text)
            include.append(replace(a, defines=Names("matrix", opens=True)))
    fields = fields.with_key("include", _typed(*include))
    yield replace(fields, defines=Names("matrix"), closes=("matrix",))


def _strategy(language: Language, fields: Fields, scope: Scope) -> Iterable[Fields]:
    matrix = language.allowed(fields.types["matrix"])
    opened = (replace(a, defines=Names("matrix", opens=True)) if isinstance(a, Text) else a for a in matrix)
    yield fields.with_key("matrix", _typed(*opened))


def _steps_in_parallel(language: Language, types: Type, scope: Scope) -> Type:
    """Steps that run in parallel cannot have parallel steps inside."""
    (steps,) = types
    assert isinstance(steps, Items)
    flat = tuple(
        a for a in language.allowed(steps.item) if not (isinstance(a, Fields) and "parallel" in a.types)
    )
    return (Items(item=_typed(*flat), scope=("step",)),)


# ---- texts with a required form -----------------------------------------------------------------------------------


def _cron(language: Language, types: Type, scope: Scope) -> Type:
    rules = language.expressions
    for index, (low, high, names) in enumerate(language.cron):
        times = _cron_times(low, high, names)
        rules.add(("cron", index), f"{times}(?:,{times})*", None if index else _cron_minutes())
    fields = [rules.call("cron", index) for index in range(len(language.cron))]
    return (Text(pattern=rules.add(("cron",), " +".join(fields))),)


def _numbers(low: int, high: int) -> str:
    """A pattern of the numbers in a range below 100."""
    tens = range(low // 10, high // 10 + 1)
    units = ((max(low - 10 * ten, 0), min(high - 10 * ten, 9)) for ten in tens)
    return "0*(?:" + "|".join(f"{ten or ''}[{a}-{b}]" for ten, (a, b) in zip(tens, units, strict=True)) + ")"


def _cron_times(low: int, high: int, names: dict[str, int]) -> str:
    """A pattern of one item in a field: a value, a range or `*`, perhaps with a step."""

    def named(first: int, last: int) -> str:
        found = (ignoring_case(name) for name, value in names.items() if first <= value <= last)
        return "(?:" + "|".join([_numbers(first, last), *found]) + ")"

    ranges = "|".join(f"{named(v, v)}-{named(v, high)}" for v in range(low, high + 1))
    return rf"(?:\*|{named(low, high)}|{ranges})(?:/{_numbers(max(low, 1), high)})?"


def _cron_minutes() -> str:
    """A pattern of minutes that are far enough apart."""
    last = 60 - MIN_INTERVAL
    pairs = (f"{v},{_numbers(v + MIN_INTERVAL, last)}" for v in range(last - MIN_INTERVAL + 1))
    return rf"(?:{_numbers(0, 59)}|\*/{_numbers(MIN_INTERVAL, 59)}|{'|'.join(pairs)})"


_USED = union(SOME_PLAIN_TEXT, from_pattern(r"^\$\{\{\s*'(?:[^']|'')+'\s*\}\}$"))
_OWNER = "[A-Za-z0-9_.-]+"
_VERSION = "[A-Za-z0-9_+-]+(?:[./][A-Za-z0-9_+-]+)*"
_SHORT_HASH = from_pattern("@[0-9a-fA-F]{7,8}$")
_LOCAL = from_pattern(r"^\.{1,2}/")
_FILE = r"\.github/workflows(?:-lab)?/[A-Za-z0-9_.-]*[A-Za-z0-9_-]\.ya?ml"


@functools.cache
def _action() -> Rule:
    """The rule of `uses` in a step: a path, an image, or a version of an action."""
    local = r"^(?:[.$]/[^@]*|docker://[A-Za-z0-9_./:@-]+)$"
    remote = from_pattern(f"^{_OWNER}/{_OWNER}(?:/[A-Za-z0-9_.-]+)*@{_VERSION}$")
    workflow = from_pattern(r"^[^/]*/[^/]*/\.github/workflows")
    strict = difference(difference(difference(remote, workflow), _SHORT_HASH), _LOCAL)
    return marked(("action",), _USED, union(from_pattern(local), strict))


@functools.cache
def _workflow() -> Rule:
    """The rule of `uses` in a job: a workflow of the repository, or a version of a workflow elsewhere."""
    remote = from_pattern(f"^{_OWNER}/{_OWNER}/{_FILE}@{_VERSION}$")
    remote = difference(difference(remote, from_pattern(r"\.lock(?:/|$)")), _SHORT_HASH)
    # GitHub takes the first folder of workflows for the file's, even if it is the end of an owner and a repository.
    remote = difference(remote, from_pattern(r"^[^/]*\.github/workflows(?:-lab)?/"))
    remote = difference(remote, _LOCAL)
    return marked(("workflow",), _USED, union(from_pattern(rf"^[.$]/{_FILE}$"), remote))


_IDENTIFIER = Expressions({}, {}).add(("identifier",), IDENTIFIER)
# A concurrency group must not be both the workflow's and a job's, or the job would wait for itself.
_GROUP = Names("group", unique="strict")
# Values that GitHub reads as texts, though they are useless there.
_NOT_TEXTS = (Constant(True, lenient=True), Constant(False, lenient=True), Number(lenient=True))
# GitHub requires mappings here, so that an expression cannot replace them.
_NO_TEMPLATE = frozenset(["job-env", "step-env", "services"])
_NAMED_INPUTS = _attributes(Fields, defines=Names("input"))

_REFINED: dict[str, Refinement] = {
    "cron-pattern": _cron,
    "workflow-dispatch-inputs": _NAMED_INPUTS,
    "workflow-call-inputs": _NAMED_INPUTS,
    "workflow-dispatch-input": _shapes(_input),
    "workflow-call-input-definition": _shapes(_input),
    "workflow-env": _attributes(Fields, defines=Names("env")),
    "job-env": _attributes(Fields, defines=Names("env")),
    "step-env": _attributes(Fields, defines=Names("env")),
    "on-mapping-strict": _attributes(Fields, closes=("input",), implies="payload"),
    "on-string-strict": _attributes(Text, implies="payload"),
    "jobs": _attributes(
        Fields,
        minimum=1,
        names=_IDENTIFIER,
        defines=Names("job", late=True),
        closes=("job", "output"),
    ),
    "job-factory": _attributes(Fields, scope=("need", "matrix", "env", "step")),
    "workflow-job": _shapes(
        lambda language, fields, scope: (
            replace(
                fields.with_key("uses", _typed(*_NOT_TEXTS, Text(pattern=_workflow()))),
                scope=("need", "matrix"),
            ),
        )
    ),
    "needs": lambda language, types, scope: (
        Items(item=_typed(language.text("name", "job", defines=Names("need"))), closes=("need",)),
        language.text("name", "job", defines=Names("need")),
    ),
    "job-if": _condition,
    "step-if": _condition,
    "job-outputs": _attributes(Fields, defines=Names("output")),
    "workflow-concurrency": _attributes(Text, defines=_GROUP),
    "job-concurrency": _attributes(Text, defines=_GROUP),
    "concurrency-mapping": _shapes(_concurrency),
    "runs-on-mapping": _shapes(_runner_group),
    "container-mapping": _shapes(_image),
    "service-container-mapping": _shapes(_image),
    "strategy": _shapes(_strategy),
    "matrix": _shapes(_matrix),
    "services": _attributes(Fields, names=SOME_PLAIN_TEXT),
    "steps": _attributes(Items, scope=("step",), closes=("step",)),
    "run-step": _attributes(Fields, scope=("env",)),
    "regular-step": _attributes(Fields, scope=("env",)),
    "parallel-step": _attributes(Fields, lenient=True),
    "parallel-steps": _steps_in_parallel,
    "step-id": lambda language, types, scope: (
        Constant(True, lenient=True),
        Constant(False, lenient=True),
        Text(pattern=_IDENTIFIER, defines=Names("step", unique="always", late=True)),
    ),
    "step-uses": lambda language, types, scope: (*_NOT_TEXTS, Text(pattern=_action())),
}
