"""Bounds on numbers as automata over their JSON texts.

Texts are compared digit by digit. That decides the numbers too: turning a text into a float never changes the order
of two texts, and a bound is a text like any other (the shortest one of its float).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal

from nanochat_tct.tokenizer import automaton
from nanochat_tct.tokenizer.automaton import Automaton

# Python writes floats from 1e16 on, and those below 1e-4, with an exponent; bounds in between never need to be
# compared with one. Up to 1e15 the next float is nearer than the next integer.
LARGEST_BOUND = 10**15
SMALLEST_BOUND = 1e-4

_ANY = r"(0|[1-9][0-9]*)(\.[0-9]+)?"
_POSITIVE = r"0\.[0-9]*[1-9][0-9]*|[1-9][0-9]*(\.[0-9]+)?"
_LARGE = r"(1[6-9]|[2-9][0-9]|[12][0-9]{2}|30[0-8])"
_SMALL = r"(0[5-9]|[1-9][0-9]|[12][0-9]{2}|3[01][0-9]|32[0-3])"
_HUGE = rf"[1-9](\.[0-9]+)?e\+{_LARGE}"
_TINY = rf"[1-9](\.[0-9]+)?e-{_SMALL}|5e-324"
# As Python writes a number, each in one way. Bounds and constants know of no other texts, so what is left of all
# numbers when those are taken away is to have no other either: 0e+00 is neither at least 0 nor at most 0 by its text,
# and 1.00 is 1 by another text.
_LAST = r"[0-9]*[1-9]"
WRITTEN = automaton.from_pattern(
    rf"^(0|-?([1-9][0-9]*|[1-9][0-9]{{0,15}}\.(0|{_LAST})|0\.(0|0{{0,3}}[1-9]({_LAST})?)"
    rf"|[1-9](\.{_LAST})?e(\+{_LARGE}|-{_SMALL})|5e-324))$"
)


def at_least(bound: int | float, exclusive: bool) -> Automaton | None:
    """The texts of the numbers that are not below a bound (above it, when exclusive); None where it is out of reach."""
    return _one_sided(bound, exclusive, "", "-")


def at_most(bound: int | float, exclusive: bool) -> Automaton | None:
    """The texts of the numbers that are not above a bound (below it, when exclusive); None where it is out of reach."""
    return _one_sided(-bound, exclusive, "-", "")


Bounded = Callable[[int | float, bool], Automaton | None]


def around(bound: int | float, bounded: Bounded) -> tuple[Automaton | None, Automaton | None]:
    """For a bound out of reach: texts that include all numbers within it, and texts that are surely within it.

    None stands for all numbers in the first place, for none of them in the second.

    Args:
        bounded: ``at_least`` or ``at_most``, the side that the bound is of.
    """
    if abs(bound) > LARGEST_BOUND:
        nearest = bounded(math.copysign(LARGEST_BOUND, bound), False)
        wider = (bound < 0) == (bounded is at_least)  # the nearest bound that is in reach excludes more
        return (None, nearest) if wider else (nearest, None)
    smallest = bounded(math.copysign(SMALLEST_BOUND, bound), False)
    if (bound < 0) == (bounded is at_least):
        return smallest, bounded(0, False)
    return bounded(0, True), smallest


def _one_sided(bound: int | float, exclusive: bool, above: str, below: str) -> Automaton | None:
    """At least the bound, where a text with the sign ``above`` is read as positive, with ``below`` as negative."""
    if abs(bound) > LARGEST_BOUND or 0 < abs(bound) < SMALLEST_BOUND:
        return None
    if exclusive and bound == 0:
        return automaton.from_pattern(f"^{above}({_POSITIVE}|{_HUGE}|{_TINY})$")
    if exclusive:
        bound = math.nextafter(bound, math.inf)
        if 0 < abs(bound) < SMALLEST_BOUND:
            return None
    whole, fraction = _digits(abs(bound))
    if bound > 0:
        return automaton.from_pattern(f"^{above}({_not_below(whole, fraction)}|{_HUGE})$")
    small = _not_above(whole, fraction) + ("|" + _TINY if bound else "")
    return automaton.from_pattern(f"^({above}({_ANY}|{_HUGE}|{_TINY})|{below}({small}))$")


def _digits(number: int | float) -> tuple[str, str]:
    """Digits before and after the point, without zeros at the end."""
    whole, _, fraction = format(Decimal(repr(number)), "f").partition(".")
    return whole, fraction.rstrip("0")


def _not_below(whole: str, fraction: str) -> str:
    options = [f"[1-9][0-9]{{{len(whole)},}}(\\.[0-9]+)?"]
    for index, digit in enumerate(whole):
        if digit < "9":
            rest = len(whole) - index - 1
            options.append(f"{whole[:index]}[{int(digit) + 1}-9][0-9]{{{rest}}}(\\.[0-9]+)?")
    if fraction:
        options.append(f"{whole}\\.{fraction}[0-9]*")
        for index, digit in enumerate(fraction):
            if digit < "9":
                options.append(f"{whole}\\.{fraction[:index]}[{int(digit) + 1}-9][0-9]*")
    else:
        options.append(f"{whole}(\\.[0-9]+)?")
    return "|".join(options)


def _not_above(whole: str, fraction: str) -> str:
    options = [f"{whole}(\\.{fraction}0*)?" if fraction else f"{whole}(\\.0+)?"]
    if len(whole) > 1:
        options.append(f"([0-9]|[1-9][0-9]{{0,{len(whole) - 2}}})(\\.[0-9]+)?")
    for index, digit in enumerate(whole):
        least = "1" if index == 0 and len(whole) > 1 else "0"
        if digit > least:
            rest = len(whole) - index - 1
            options.append(f"{whole[:index]}[{least}-{int(digit) - 1}][0-9]{{{rest}}}(\\.[0-9]+)?")
    for index, digit in enumerate(fraction):
        if index:
            options.append(f"{whole}\\.{fraction[:index]}")
        if digit > "0":
            options.append(f"{whole}\\.{fraction[:index]}[0-{int(digit) - 1}][0-9]*")
    return "|".join(options)
