"""What the parts of one workflow know of each other while it is written."""

import json
from dataclasses import dataclass, field
from typing import Any

from nanochat_tct.synthetic.ecosystems import Ecosystem
from nanochat_tct.synthetic.style import Style

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def measure(value: Any) -> int:
    """Return the number of characters of the value as compact JSON."""
    return len(_encode(value))


@dataclass
class Plan:
    """What the jobs of one workflow know of each other.

    Attributes:
        main: the ecosystem that the workflow is about.
        names: job names so far, in order.
        outputs: the outputs of those jobs that have any.
        reusable: True if the workflow can be called, so that `inputs` exist.
    """

    main: Ecosystem
    style: Style
    names: list[str] = field(default_factory=list)
    outputs: dict[str, list[str]] = field(default_factory=dict)
    reusable: bool = False
