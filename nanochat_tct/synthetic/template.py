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
from collections.abc import Callable
from typing import Any

from nanochat_tct.synthetic.writer import Writer

Generator = Callable[[Writer], Any]

LEFT_OUT = object()
_TRIES = 4
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MARK = re.compile(r"(?:(?P<key>.*) |^)‹(?P<percent>\d+)%(?: over (?P<size>\d+))?›(?: (?P<rest>.*))?", re.S)
_TIMES = re.compile(r"‹(\d+)×›")
_SOME_OF = re.compile(r"‹(?:(per) )?([\d.]+) of›")
_NO_NAME = re.compile(r"\W")
_TOPIC = ("it",)


class Lexicon:
    """Named templates. Facts are chosen once for each workflow (a language version), phrases at each use (a task).

    A name in capitals, or with a capital first letter, writes the word of that name in the same way: `‹PROJECT›`,
    `‹Verb›`.
    """

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}
        self._phrases: dict[str, Any] = {}
        self._compiled: dict[str, Generator] = {}

    def add(self, facts: dict[str, Any], phrases: dict[str, Any]) -> None:
        """Add words: names with their templates, or with functions of a writer. Add all words before any is used."""
        for table, words in ((self._facts, facts), (self._phrases, phrases)):
            for name, template in words.items():
                assert name not in self._facts and name not in self._phrases, f"word defined twice: {name}"
                table[name] = template

    def word(self, writer: Writer, name: str) -> Any:
        """Return a word: the fact of this workflow, or a new choice of a phrase."""
        return self.use(name)(writer)

    def use(self, name: str) -> Generator:
        """Return the generator of a word."""
        if name not in self._compiled:
            self._compiled[name] = self._compile(name)
        return self._compiled[name]

    def _compile(self, name: str) -> Generator:
        template = self._phrases.get(name, self._facts.get(name))
        if name not in self._phrases and name not in self._facts:
            return self._with_capitals(name)
        generator: Generator = template if callable(template) else compile_word(template)
        if name in self._phrases:
            return generator

        def fact(writer: Writer) -> Any:
            if name not in writer.facts:
                writer.facts[name] = generator(writer)
            return writer.facts[name]

        return fact

    def _with_capitals(self, name: str) -> Generator:
        assert name != name.lower(), f"word not defined: {name}"
        word = self.use(name.lower())
        if name.isupper():
            return lambda writer: _NO_NAME.sub("_", str(word(writer))).upper()
        return lambda writer: " ".join([part[:1].upper() + part[1:] for part in str(word(writer)).split("-")])


LEXICON = Lexicon()


def compile_value(template: Any, is_condition: bool = False) -> Generator:
    """Compile a template (see the table above) to a function of a writer."""
    if isinstance(template, str):
        return _compile_checked(template, is_condition)
    if isinstance(template, dict):
        if len(template) == 1:
            ((key, value),) = template.items()
            if key == "‹one of›":
                return _pick([compile_value(member, is_condition) for member in _members(value)])
            some_of = _SOME_OF.fullmatch(key)
            if some_of:
                return _compile_some_of([compile_value(member) for member in _members(value)], some_of)
            mark = _MARK.fullmatch(key)
            if mark and mark["key"] is None:
                return _compile_mark(compile_value(value), mark)
        return _compile_dict(template)
    if isinstance(template, list):
        return _compile_list([compile_value(item) for item in template])
    return lambda writer: template


def compile_word(template: Any) -> Generator:
    """Compile a template for use inside a text, where nothing can be left out, so texts are not checked."""
    if isinstance(template, str):
        return compile_text(template)
    if isinstance(template, dict) and list(template) == ["‹one of›"]:
        return _pick([compile_word(member) for member in _members(template["‹one of›"])])
    return compile_value(template)


def compile_text(template: str) -> Generator:
    """Compile a text template to a function that returns a string."""
    if template.endswith("@‹pin›"):
        action = compile_text(template.removesuffix("@‹pin›"))
        pin = LEXICON.use("pin")
        return lambda writer: pin(writer)(action(writer))
    if any(_MARK.fullmatch(line) for line in template.split("\n")):
        return _compile_lines(template)
    text, end = _parse_text(template, 0)
    assert end == len(template), f"unbalanced guillemets in {template!r}"
    return _generator(text)


def _compile_checked(template: str, is_condition: bool) -> Generator:
    generator = compile_text(template)
    if "‹" not in template and "${{" not in template and not is_condition:
        return generator

    def write(writer: Writer) -> Any:
        for _ in range(_TRIES):
            text = generator(writer)
            if (not is_condition and (type(text) is not str or "${{" not in text)) or writer.scope.holds(
                text, is_condition
            ):
                return text
        return LEFT_OUT

    return write


def _members(members: list[Any]) -> list[Any]:
    """Return the members of a choice, each repeated by its weight."""
    repeated: list[Any] = []
    for member in members:
        key = next(iter(member), "") if isinstance(member, dict) and len(member) == 1 else ""
        times = _TIMES.fullmatch(key) if isinstance(key, str) else None
        repeated += [member[key]] * int(times[1]) if times else [member]
    return repeated


def _pick(members: list[Generator]) -> Generator:
    count = len(members)

    def write(writer: Writer) -> Any:
        first = int(writer.random() * count)
        value = members[first](writer)
        for following in range(1, count):
            if value is not LEFT_OUT:
                break
            value = members[(first + following) % count](writer)
        return value

    return write


def _compile_mark(value: Generator, mark: re.Match[str]) -> Generator:
    chance, least = int(mark["percent"]) / 100, int(mark["size"] or 0)
    return lambda writer: value(writer) if writer.size >= least and writer.random() < chance else LEFT_OUT


def _compile_some_of(members: list[Generator], some_of: re.Match[str]) -> Generator:
    number = float(some_of[2])

    def write(writer: Writer) -> Any:
        mean = writer.size / number if some_of[1] else number
        topic = writer.facts.get("it")
        joined: Any = None
        for _ in range(writer.several(mean, int(4 * mean) + 1)):
            writer.forget(_TOPIC)
            value = writer.pick(members)(writer)
            if value is LEFT_OUT:
                continue
            if isinstance(value, dict):
                joined = joined or {}
                names = {name.lower() for name in joined}  # GitHub takes names of any case as the same
                joined.update({name: item for name, item in value.items() if name.lower() not in names})
            else:
                values = value if isinstance(value, list) else [value]
                joined = [*(joined or []), *[item for item in values if item not in (joined or ())]]
        writer.forget(_TOPIC)
        if topic is not None:
            writer.facts["it"] = topic
        return LEFT_OUT if joined is None else joined

    return write


def compile_key(key: str, template: Any) -> tuple[str, Generator]:
    """Compile a key and its value: the key without its mark, and the generator of the value."""
    mark = _MARK.fullmatch(key)
    name = mark["key"] if mark else key
    generator = compile_value(template, is_condition=name == "if")
    return name, _compile_mark(generator, mark) if mark else generator


def _compile_dict(template: dict[str, Any]) -> Generator:
    items = []
    for key, value in template.items():
        name, generator = compile_key(key, value)
        items.append((name, compile_text(name) if "‹" in name else None, generator, name == key))

    def write(writer: Writer) -> Any:
        filled: dict[str, Any] = {}
        for name, make_name, make_value, is_required in items:
            value = make_value(writer)
            if value is not LEFT_OUT:
                name = make_name(writer) if make_name else name
                if not make_name or name.lower() not in map(str.lower, filled):
                    filled[name] = value
            elif is_required:
                return LEFT_OUT
        return filled

    return write


def _compile_list(items: list[Generator]) -> Generator:
    return lambda writer: [value for item in items if (value := item(writer)) is not LEFT_OUT]


def _compile_lines(template: str) -> Generator:
    """Compile a script of which some lines are optional."""
    lines = []
    for line in template.split("\n"):
        mark = _MARK.fullmatch(line)
        chance = int(mark["percent"]) / 100 if mark else 1.0
        lines.append((chance, compile_text((mark["rest"] or "") if mark else line)))

    def write(writer: Writer) -> str:
        return "\n".join(
            [line(writer) for chance, line in lines if chance == 1.0 or writer.random() < chance]
        )

    return write


def _parse_text(template: str, start: int, inside: bool = False) -> tuple[str | Generator, int]:
    """Parse from start to the end or, inside guillemets, to the `|` or `›` that ends the text.

    Returns: the text, or its generator if it has choices; and where it ended.
    """
    parts: list[str | Generator] = []
    position = start
    while position < len(template):
        character = template[position]
        if character == "‹":
            part, position = _parse_choice(template, position + 1)
            parts.append(part)
        elif inside and character in "|›":
            break
        else:
            end = position + 1
            while end < len(template) and template[end] != "‹" and not (inside and template[end] in "|›"):
                end += 1
            text = template[position:end].replace("¦", "|")
            assert "›" not in text, f"unbalanced guillemets in {template!r}"
            parts.append(text)
            position = end
    return _join(parts), position


def _parse_choice(template: str, start: int) -> tuple[Generator, int]:
    """Parse from behind an opening guillemet to behind its closing one."""
    members = []
    position = start
    while True:
        member, end = _parse_text(template, position, inside=True)
        members.append(member)
        assert end < len(template), f"unbalanced guillemets in {template!r}"
        if template[end] == "›":
            break
        position = end + 1
    return (_choose(members) if len(members) > 1 else _compile_name(template[start:end])), end + 1


def _choose(members: list[str | Generator]) -> Generator:
    count = len(members)
    texts = [member for member in members if isinstance(member, str)]
    if len(texts) == count:
        return lambda writer: texts[int(writer.random() * count)]
    generators = [_generator(member) for member in members]
    return lambda writer: generators[int(writer.random() * count)](writer)


def _generator(text: str | Generator) -> Generator:
    return (lambda writer: text) if isinstance(text, str) else text


def _join(parts: list[str | Generator]) -> str | Generator:
    """Join the parts: to a text if all are texts, else to a generator that fills a format."""
    generators = [part for part in parts if not isinstance(part, str)]
    if not generators:
        return "".join(str(part) for part in parts)
    if len(parts) == 1:
        return generators[0]
    form = "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in parts)
    if len(generators) == 1:
        only = generators[0]
        return lambda writer: form % (only(writer),)
    if len(generators) == 2:
        first, second = generators
        return lambda writer: form % (first(writer), second(writer))
    return lambda writer: form % tuple([generator(writer) for generator in generators])


def _compile_name(name: str) -> Generator:
    numbers = _RANGE.fullmatch(name)
    if numbers:
        low, high = int(numbers[1]), int(numbers[2])
        return lambda writer: str(writer.number(low, high))
    return LEXICON.use(name)
