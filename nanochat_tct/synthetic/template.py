"""The template language of the synthetic workflows: JSON trees and text with choices left open.

A *template* is a Python literal; `compile_value` turns it, once at import, into a `Generator`: a function of a
`Writer` that returns a JSON value with every choice made.

======================  =====================================================================================
template                value
======================  =====================================================================================
``dict``, ``list``      the same with its values filled in; `Maybe` values are left out with their chance
``tuple``               one of its members
`Maybe`                 the value, or nothing
a function              whatever it returns for the writer
``str``                 text, in which these are replaced (the quotes are single guillemets):
``‹name›``              a word of the lexicon, see `Lexicon`
``‹a|b›``               ``a`` or ``b``, which are text templates themselves; ``‹a|›`` is an optional ``a``
``‹3..9›``              a whole number from 3 to 9
``‹hex 8›``             8 hexadecimal digits
``‹@owner/action›``     a reference to an action, pinned as the author of this workflow pins
``¦``                   a vertical bar, which between guillemets would end the choice
other                   itself
======================  =====================================================================================
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nanochat_tct.synthetic.writer import Writer

Generator = Callable[[Writer], Any]

_LEFT_OUT = object()
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True)
class Maybe:
    """A value that is there with the given chance, else its key or list item is left out."""

    value: Any
    chance: float = 0.5


def maybe(value: Any, chance: float = 0.5) -> Maybe:
    """Shorthand for `Maybe`."""
    return Maybe(value, chance)


class Lexicon:
    """Named words. Facts are chosen once a workflow (its language version), phrases anew at each use (a task)."""

    def __init__(self) -> None:
        self._facts: dict[str, Generator] = {}
        self._phrases: dict[str, Generator] = {}
        self._used: set[str] = set()

    def facts(self, **templates: Any) -> None:
        """Add words that keep their value through a workflow."""
        self._add(self._facts, templates)

    def phrases(self, **templates: Any) -> None:
        """Add words that are chosen at each use."""
        self._add(self._phrases, templates)

    def _add(self, table: dict[str, Generator], templates: dict[str, Any]) -> None:
        for name, template in templates.items():
            assert name not in self._facts and name not in self._phrases, f"word defined twice: {name}"
            table[name] = compile_value(template)

    def use(self, name: str) -> Generator:
        """Return the generator of a word, which may be defined later."""
        self._used.add(name)
        phrase = self._phrases.get(name)
        if phrase is not None:
            return phrase  # saves a look-up at every use
        return lambda writer: self.word(writer, name)

    def undefined(self) -> list[str]:
        """Return the words that templates use and nothing defines."""
        return sorted(self._used - self._facts.keys() - self._phrases.keys())

    def word(self, writer: Writer, name: str) -> Any:
        """Return the named word: the fact settled for this workflow, or a new choice."""
        known = writer.known.get(name)
        if known is not None:
            return known
        phrase = self._phrases.get(name)
        if phrase is not None:
            return phrase(writer)
        value = writer.known[name] = self._facts[name](writer)
        return value


LEXICON = Lexicon()


def compile_value(template: Any) -> Generator:
    """Compile a template (see the table above) to a function of a writer."""
    if isinstance(template, str):
        return compile_text(template)
    if isinstance(template, Maybe):
        return _compile_maybe(template)
    if isinstance(template, tuple):
        return _compile_alternatives([compile_value(member) for member in template])
    if isinstance(template, dict):
        return _compile_dict(template)
    if isinstance(template, list):
        items = [compile_value(item) for item in template]
        return lambda writer: [value for item in items if (value := item(writer)) is not _LEFT_OUT]
    if callable(template):
        return template
    return lambda writer: template


def _compile_maybe(template: Maybe) -> Generator:
    value, chance = compile_value(template.value), template.chance
    return lambda writer: value(writer) if writer.random() < chance else _LEFT_OUT


def _compile_alternatives(members: list[Generator]) -> Generator:
    count = len(members)
    return lambda writer: members[int(writer.random() * count)](writer)


def _compile_dict(template: dict[str, Any]) -> Generator:
    items = [(key, "‹" in key, compile_text(key), compile_value(value)) for key, value in template.items()]

    def fill(writer: Writer) -> dict[str, Any]:
        filled = {}
        for key, is_template, make_key, make_value in items:
            value = make_value(writer)
            if value is not _LEFT_OUT:
                filled[make_key(writer) if is_template else key] = value
        return filled

    return fill


def compile_text(template: str) -> Generator:
    """Compile a text template to a function that returns a string."""
    text, end = _parse_text(template, 0)
    assert end == len(template), f"unbalanced guillemets in {template!r}"
    return _generator(text)


def compile_script(lines: Any) -> Generator:
    """Compile a script: one line of text, a list of lines (joined, with a line end), or a tuple of scripts."""
    if isinstance(lines, tuple):
        return _compile_alternatives([compile_script(member) for member in lines])
    if not isinstance(lines, list):
        return compile_value(lines)  # a line of text, or a function
    make_lines = compile_value(lines)

    def write(writer: Writer) -> str:
        script = "\n".join(make_lines(writer))
        return script + "\n" if "\n" in script else script

    return write


def _parse_text(template: str, start: int, inside: bool = False) -> tuple[str | Generator, int]:
    """Parse from start to the end, or, inside guillemets, to the `|` or `›` that ends the text there.

    Returns: the text, if it is the same always, or its generator; and where it ended.
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
    """Parse what follows an opening guillemet, up to and with its closing one."""
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
    texts = [member for member in members if isinstance(member, str)]
    if len(texts) == len(members):
        count = len(texts)
        return lambda writer: texts[int(writer.random() * count)]
    return _compile_alternatives([_generator(member) for member in members])


def _generator(text: str | Generator) -> Generator:
    return (lambda writer: text) if isinstance(text, str) else text


def _join(parts: list[str | Generator]) -> str | Generator:
    """Return the parts in one: a text if all are, else a generator that fills a format with what they make."""
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
    if name.startswith("@"):
        action = compile_text(name[1:])
        return lambda writer: writer.pins.reference(action(writer))
    if name.startswith("hex "):
        digits = int(name[4:])
        return lambda writer: writer.hexadecimal(digits)
    numbers = _RANGE.fullmatch(name)
    if numbers:
        low, high = int(numbers[1]), int(numbers[2])
        return lambda writer: str(writer.number(low, high))
    return LEXICON.use(name)
