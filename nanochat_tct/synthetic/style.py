"""The style of an author, which a whole workflow shares: what has a name, the form of conditions, the order of keys."""

from typing import Any

from nanochat_tct.synthetic.template import LEXICON
from nanochat_tct.synthetic.writer import Writer


def measure(value: Any) -> int:
    """Return about the number of characters of the value as compact JSON: Python's own notation is much like it."""
    return len(str(value))


def styled(writer: Writer, part: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return a workflow, job, call or step as the author of this workflow would write it (see style.yaml)."""
    value = dict(value)
    if "name" in value:
        what = part if part != "step" else "action" if "uses" in value else "script"
        likes = writer.random() ** writer.detail * 1000
        if likes >= LEXICON.word(writer, f"named {what}"):
            del value["name"]
        elif likes < LEXICON.word(writer, "emoji share"):
            value["name"] = f"{LEXICON.word(writer, 'emoji')} {value['name']}"
    condition = value.get("if", "${{")
    if "${{" not in condition and (
        condition.startswith("!") or writer.random() * 1000 < LEXICON.word(writer, "wrapped condition")
    ):
        value["if"] = "${{ " + condition + " }}"
    order = LEXICON.word(writer, f"{part} order")
    keys = sorted(value, key=order.index)
    return {key: value[key] for key in keys if value[key] != {} or key == "permissions"}
