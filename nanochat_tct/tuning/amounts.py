"""How amounts of money and numbers are written."""

import math

from nanochat_tct.tuning.ledger import Terms
from nanochat_tct.tuning.records import Unit


def unit_name(unit: Unit, use_gpu: bool) -> str:
    """The budget's unit, as people write it; without GPUs there are no hours of GPUs."""
    return {"usd": "dollars", "flops": "FLOPs"}.get(unit) or ("GPU-hours" if use_gpu else "worker-hours")


def show_amount(value: float, unit: Unit, use_gpu: bool) -> str:
    """An amount of the budget's unit, with the unit's name."""
    if unit == "usd":
        return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.2g}"
    return f"{value:.3g} {unit_name(unit, use_gpu)}"


def money(terms: Terms, quanta: float) -> str:
    """Quanta, briefly, as for a column of a table."""
    amount = terms.amount(int(quanta))
    if terms.unit == "usd":
        return f"${amount:.2f}" if terms.budget >= 10 else f"${amount:.4f}"
    if terms.unit == "gpu_hours":
        return f"{amount:.2f} h" if terms.budget >= 1 else f"{amount:.3g} h"
    return f"{amount:.3g}"


def of_budget(terms: Terms, quanta: int) -> str:
    """Quanta beside the budget, as in `1.7e+10 of 2e+12 FLOPs (0.8%)`."""
    unit = "" if terms.is_timed else " FLOPs"
    return f"{money(terms, quanta)} of {money(terms, terms.capacity)}{unit} ({quanta / terms.capacity:.1%})"


def rounded_up(terms: Terms, quanta: float) -> str:
    """The least budget with two digits that has as many quanta."""
    amount = terms.amount(math.ceil(quanta))
    digit = 10 ** (math.floor(math.log10(amount)) - 1)
    return f"{math.ceil(amount / digit) * digit:.3g}"


def count(number: float) -> str:
    """1234567 as 1.23M; small numbers as they are, with three digits."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            return f"{number / size:.3g}{letter}" if number < 1e15 else f"{number:.2e}"
    return f"{number:.3g}"
