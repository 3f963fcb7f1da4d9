"""The template language of the synthetic workflows: workflows, or parts of them, with open choices.

A template is YAML. `compile_value` compiles it once to a `Generator`, a function of a `Writer` that makes all choices
and returns a JSON value. Everything special is in single guillemets:

=============================  ==============================================================================
in text                        is replaced by
=============================  ==============================================================================
``‹name›``                     a word of the lexicon, see `Lexicon`
``‹a|b›``                      ``a`` or ``b``, which are text templates themselves; ``‹a|›`` is an optional ``a``
``‹3..9›``                     a whole number from 3 to 9
``owner/action@‹pin›``         a reference to an action, pinned as the author of this workflow pins
``‹30%› make``                 a line of a script that is there in 30% of cases
``¦``                          a vertical bar, which between guillemets would end the choice
=============================  ==============================================================================

=============================  ==============================================================================
as a key                       means
=============================  ==============================================================================
``key ‹30%›: value``           the key is there in 30% of cases
``key ‹30% over 600›: value``  the same, but never in a part that is planned for less than 600 characters
``- ‹30%›: value``             an item of a list that is there in 30% of cases
``‹one of›: [a, b]``           one of the members; a member ``‹5×›: a`` counts five times
``‹2.5 of›: [a, b]``           some of the members, 2.5 on average, joined to one list or mapping
``‹per 75 of›: [a, b]``        the same, one for every 75 characters that are planned
=============================  ==============================================================================

An expression that refers to something that the workflow does not have (see `Scope`) is never written: its value is
drawn again, and left out if that does not help. A mapping that loses a key without a percentage is left out too.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from nanochat_tct.synthetic.scope import INNER
from nanochat_tct.synthetic.writer import Writer

Generator = Callable[[Writer], Any]

LEFT_OUT = object()
_TRIES = 4
_REFERS = ("‹", "${{", ".", "(")  # a text that may refer to something has one of these
_TOKEN = re.compile(r"([‹›|])")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MARK = re.compile(r"(?:(?P<key>.*) )?‹(?P<percent>\d+)%(?: over (?P<size>\d+))?›")
_LINE = re.compile(r"^‹(\d+)%› ?(.*\n)", re.M)
_TIMES = re.compile(r"‹(\d+)×›")
_SOME_OF = re.compile(r"‹(?:(per) )?([\d.]+) of›")
_PIN = "@‹pin›"
_NO_NAME = re.compile(r"\W")


class Lexicon:
    """Named templates. Facts are chosen once for each workflow (a language version), phrases at each use (a task).

    A name in capitals, or with a capital first letter, writes the word of that name in the same way: `‹PROJECT›`,
    `‹Verb›`.
    """

    def __init__(self) -> None:
        self._templates: dict[str, Any] = {}
        self._facts: set[str] = set()
        self._compiled: dict[str, Generator] = {}

    def add(self, words: dict[str, Any], *, facts: bool = False) -> None:
        """Add words: names with their templates, or with functions of a writer. Add all words before any is used."""
        for name, template in words.items():
            assert name not in self._templates, f"word defined twice: {name}"
            self._templates[name] = template
        if facts:
            self._facts.update(words)

    def word(self, writer: Writer, name: str) -> Any:
        """Return a word: the fact of this workflow, or a new choice of a phrase."""
        return (self._compiled.get(name) or self.use(name))(writer)

    def use(self, name: str) -> Generator:
        """Return the generator of a word."""
        if name not in self._compiled:
            self._compiled[name] = self._compile(name)
        return self._compiled[name]

    def _compile(self, name: str) -> Generator:
        if name not in self._templates:
            return self._with_capitals(name)
        template = self._templates[name]
        generator: Generator = template if callable(template) else compile_value(template)
        if name not in self._facts:
            return generator

        def fact(writer: Writer) -> Any:
            try:
                return writer.facts[name]
            except KeyError:
                value = writer.facts[name] = generator(writer)
                return value

        return fact

    def _with_capitals(self, name: str) -> Generator:
        assert name != name.lower(), f"word not defined: {name}"
        word = self.use(name.lower())
        if name.isupper():
            return lambda writer: _NO_NAME.sub("_", str(word(writer))).upper()
        return lambda writer: " ".join([part[:1].upper() + part[1:] for part in str(word(writer)).split("-")])


LEXICON = Lexicon()


def compile_value(template: Any, *, part: bool = False) -> Generator:
    """Compile a template (see the table above) to a function of a writer.

    The mapping of a part of a workflow is never left out, and each of its keys may refer to those before it.
    """
    if isinstance(template, str):
        return compile_text(template)
    if isinstance(template, list):
        items = [compile_member(item) for item in template]
        return lambda writer: [value for item in items if (value := item(writer)) is not LEFT_OUT]
    if not isinstance(template, dict):
        return _constant(template)
    if len(template) == 1:
        ((key, value),) = template.items()
        if key == "‹one of›":
            return _one_of([compile_value(member) for member in _members(value)])
        some_of, (name, chance, least) = _SOME_OF.fullmatch(key), _parse_mark(key)
        if some_of:
            return _some_of([compile_member(member) for member in _members(value)], some_of)
        if name is None:
            return _perhaps(compile_value(value), LEFT_OUT, chance, least)
    return _compile_dict(template, part)


def compile_member(template: Any) -> Generator:
    """Compile a value of a mapping or an item of a list: all that its text refers to exists, or it is left out."""
    generator = compile_value(template)
    is_choice = isinstance(template, dict) and "‹one of›" in template
    if not is_choice and not (isinstance(template, str) and any(mark in template for mark in _REFERS)):
        return generator

    def draw(writer: Writer) -> Any:
        scope = writer.scope
        for _ in range(_TRIES):
            value = generator(writer)
            has_expressions = type(value) is str and ("${{" in value or scope.place[-3:] == ".if")
            if not has_expressions or scope.holds(value):
                return value
        return LEFT_OUT

    return draw


def compile_text(template: str) -> Generator:
    """Compile a text template to a function that returns a string."""
    if template.endswith(_PIN):
        action = compile_text(template.removesuffix(_PIN))
        return lambda writer: LEXICON.word(writer, action(writer))
    start, *others = _LINE.split(template)
    parts = [_parse(start)]
    for percent, line, following in zip(others[::3], others[1::3], others[2::3], strict=True):
        parts += [_perhaps(compile_text(line), "", int(percent) / 100), _parse(following)]
    text = _join(parts)
    return _constant(text) if isinstance(text, str) else text


def _parse_mark(key: str) -> tuple[str | None, float, int]:
    """Return a key without its mark, how often it is there, and the least size of a part that it is there for."""
    mark = _MARK.fullmatch(key)
    return (mark["key"], int(mark["percent"]) / 100, int(mark["size"] or 0)) if mark else (key, 1.0, 0)


def _members(members: list[Any]) -> list[Any]:
    """Return the members of a choice, each repeated by its weight."""
    repeated: list[Any] = []
    for member in members:
        key = next(iter(member), "") if isinstance(member, dict) and len(member) == 1 else ""
        times = _TIMES.fullmatch(key)
        repeated += [member[key]] * int(times[1]) if times else [member]
    return repeated


def _one_of(members: list[Generator]) -> Generator:
    """Return the generator of one of the members; of the next one if that member is left out."""
    count = len(members)

    def write(writer: Writer) -> Any:
        first = int(writer.random() * count)
        value = members[first](writer)
        if value is not LEFT_OUT:
            return value
        others = (members[(first + following) % count](writer) for following in range(1, count))
        return next((value for value in others if value is not LEFT_OUT), LEFT_OUT)

    return write


def _some_of(members: list[Generator], some_of: re.Match[str]) -> Generator:
    number = float(some_of[2])

    def write(writer: Writer) -> Any:
        mean = writer.size / number if some_of[1] else number
        topic = writer.facts.pop("it", None)
        named: dict[str, tuple[str, Any]] = {}  # by lower case: GitHub takes names of any case as the same
        items: list[Any] = []
        for _ in range(writer.several(mean, int(4 * mean) + 1)):
            value = writer.pick(members)(writer)
            writer.forget("it")
            if isinstance(value, dict):
                for name, item in value.items():
                    named.setdefault(name.lower(), (name, item))
            elif value is not LEFT_OUT:
                values = value if isinstance(value, list) else [value]
                items += [item for item in values if item not in items]
        if topic is not None:
            writer.facts["it"] = topic
        return dict(named.values()) or items or LEFT_OUT

    return write


def _compile_dict(template: dict[str, Any], part: bool) -> Generator:
    items = []
    for key, value in template.items():
        name, chance, least = _parse_mark(key)
        assert name is not None, f"a mark without a key: {key}"
        make_name = compile_text(name) if "‹" in name else None
        items.append((name, make_name, compile_member(value), name == key, chance, least, name in INNER))

    def write(writer: Writer) -> Any:
        filled: dict[str, Any] = {}
        scope, place, random = writer.scope, writer.scope.place, writer.random
        for name, make_name, make_value, is_required, chance, least, is_place in items:
            if not is_required and (writer.size < least or random() ** writer.detail >= chance):
                continue
            if is_place:
                scope.enter(place, name)
            value = make_value(writer)
            scope.place = place
            if value is LEFT_OUT:
                if is_required and not part:
                    return LEFT_OUT
                continue
            if make_name:
                name = make_name(writer)
                if name.lower() in map(str.lower, filled):
                    continue
            filled[name] = value
            if part:
                scope.define(name, value)
        return filled

    return write


def _perhaps(generator: Generator, otherwise: Any, chance: float, least: int = 0) -> Generator:
    return lambda writer: (
        generator(writer) if writer.size >= least and writer.random() < chance else otherwise
    )


def _parse(template: str) -> str | Generator:
    """Parse a template without optional lines: to a text if there is no choice in it, else to a generator."""
    return _parse_tokens(iter(_TOKEN.split(template)), template)


def _parse_tokens(tokens: Iterator[str], template: str, *, inside: bool = False) -> str | Generator:
    """Parse to the end or, inside guillemets, to the one that closes."""
    members: list[list[str | Generator]] = [[]]
    for token in tokens:
        if token == "‹":
            members[-1].append(_parse_tokens(tokens, template, inside=True))
        elif inside and token == "|":
            members.append([])
        elif token == "›":
            assert inside, f"unbalanced guillemets in {template!r}"
            return _choose([_join(parts) for parts in members])
        elif token:
            members[-1].append(token.replace("¦", "|"))
    assert not inside, f"unbalanced guillemets in {template!r}"
    return _join(members[0])


def _choose(members: list[str | Generator]) -> Generator:
    """Compile what is between guillemets: a name, a range of numbers, or a choice."""
    count = len(members)
    texts = [member for member in members if isinstance(member, str)]
    if count == 1 and texts:
        numbers = _RANGE.fullmatch(texts[0])
        if not numbers:
            return LEXICON.use(texts[0])
        low, high = int(numbers[1]), int(numbers[2])
        return lambda writer: str(writer.number(low, high))
    if len(texts) == count:
        return lambda writer: texts[int(writer.random() * count)]
    generators = [_constant(member) if isinstance(member, str) else member for member in members]
    return lambda writer: generators[int(writer.random() * count)](writer)


def _constant(value: Any) -> Generator:
    return lambda writer: value


def _join(parts: list[str | Generator]) -> str | Generator:
    """Join the parts: to a text if all are texts, else to a generator that fills a format."""
    generators = [part for part in parts if not isinstance(part, str)]
    if not generators:
        return "".join(map(str, parts))
    if len(parts) == 1:
        return generators[0]
    form = "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in parts)
    first, *others = generators
    if not others:
        return lambda writer: form % first(writer)
    return lambda writer: form % tuple([generator(writer) for generator in generators])
