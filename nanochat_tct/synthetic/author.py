"""Habits of an author, which a whole workflow shares: what has a name, the order of keys, the form of conditions."""

import json
from typing import Any

from nanochat_tct.synthetic.template import LEXICON
from nanochat_tct.synthetic.writer import Writer

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def measure(value: Any) -> int:
    """Return the number of characters of the value as compact JSON."""
    return len(_encode(value))


class Author:
    """The habits of one author, which are chosen once, by `writer`."""

    def __init__(self, writer: Writer) -> None:
        self._orders = {
            part: LEXICON.word(writer, f"{part} order").split()
            for part in ("workflow", "job", "call", "step")
        }
        self._named_actions = writer.pick((0.1, 0.4, 0.9, 1.0, 1.0, 1.0))
        self._named_runs = writer.pick((0.5, 0.9, 1.0, 1.0, 1.0, 1.0))
        self._wraps = writer.pick((0.0, 0.0, 0.1, 0.5, 1.0, 1.0))
        self._emoji = 0.5 if writer.chance(0.05) else 0.004
        self.named_jobs = writer.pick((0.0, 0.0, 0.1, 0.6, 0.9, 1.0, 1.0))

    def condition(self, writer: Writer, condition: Any) -> Any:
        """Return the condition, with or without `${{ }}`."""
        if "${{" in condition or not (condition.startswith("!") or writer.chance(self._wraps)):
            return condition
        return "${{ " + condition + " }}"

    def title(self, writer: Writer, name: str) -> str:
        """Return the name, with an emoji before it if the author likes that."""
        return f"{LEXICON.word(writer, 'emoji')} {name}" if writer.chance(self._emoji) else name

    def step(self, writer: Writer, step: dict[str, Any]) -> dict[str, Any]:
        """Return the step with its keys in this author's order, and without a name if the author leaves it out."""
        named = writer.chance(self._named_actions if "uses" in step else self._named_runs)
        if "name" in step:
            step["name"] = self.title(writer, step["name"])
        step = {key: value for key, value in step.items() if value != {} and (named or key != "name")}
        return self.ordered(writer, "step", step)

    def ordered(self, writer: Writer, part: str, value: dict[str, Any]) -> dict[str, Any]:
        """Return a workflow, job, call or step with its condition and the order of its keys in this author's style."""
        if "if" in value:
            value["if"] = self.condition(writer, value["if"])
        return {key: value[key] for key in self._orders[part] if key in value}
