"""Matrices: what a job runs over, and the words that stand for its values in that job."""

from typing import Any

from nanochat_tct.synthetic.ecosystems import Ecosystem
from nanochat_tct.synthetic.job_templates import INCLUDES
from nanochat_tct.synthetic.template import LEXICON
from nanochat_tct.synthetic.writer import Writer


def strategy_of(
    writer: Writer, outputs: dict[str, list[str]], ecosystem: Ecosystem, size: int
) -> dict[str, Any]:
    """Return a strategy with a matrix of one to three dimensions."""
    matrix: Any = {}
    if outputs and writer.chance(0.25):
        source = writer.pick(list(outputs))
        expression = f"${{{{ fromJSON(needs.{source}.outputs.{writer.pick(outputs[source])}) }}}}"
        matrix = expression if writer.chance(0.5) else {"include": expression}
    else:
        for axis in writer.sample(ecosystem.axes, 1 if size < 150 else writer.pick((1, 1, 2, 2, 3))):
            values = axis.values
            count = min(len(values), writer.pick((1, 2, 2, 3, 3, 4, 5, 7)))
            if axis.word == "component":
                matrix[axis.key] = writer.sample(LEXICON.word(writer, "components"), count)
            elif writer.chance(0.7):
                start = writer.number(0, len(values) - count)
                matrix[axis.key] = values[start : start + count]
            else:
                matrix[axis.key] = writer.sample(values, count)
        if size > 150 and writer.chance(0.3):
            first = next(iter(matrix))
            matrix["include"] = [
                {first: value, **INCLUDES(writer)}
                for value in writer.sample(matrix[first] * 4, writer.several(1.5 + size / 250, 14))
            ]
        if len(matrix) > 1 and "include" not in matrix and writer.chance(0.2):
            matrix["exclude"] = [{key: writer.pick(values) for key, values in matrix.items()}]
        elif "include" in matrix and size > 200 and writer.chance(0.3):
            matrix = {
                "include": [
                    {**item, "os": writer.pick(("ubuntu-latest", "macos-latest", "windows-latest"))}
                    for item in matrix["include"]
                ]
            }
    strategy = {"fail-fast": writer.chance(0.06), "matrix": matrix}
    if writer.chance(0.3):
        del strategy["fail-fast"]
    elif writer.chance(0.1):
        strategy = {"matrix": matrix, "fail-fast": False}
    if writer.chance(0.05):
        strategy["max-parallel"] = writer.pick((1, 2, 3, 4, 5))
    return strategy


def use_matrix(writer: Writer, ecosystem: Ecosystem, work: dict[str, Any]) -> list[str]:
    """Let the words that the matrix sets stand for its values in this job; return them."""
    matrix = work["strategy"]["matrix"]
    keys = matrix if isinstance(matrix, dict) else {}
    used = []
    for axis in ecosystem.axes:
        word = axis.word if axis.word not in ("coined", "component") else ""
        if axis.key in keys and word and word not in used:
            writer.known[word] = "${{ matrix." + axis.key + " }}"
            used.append(word)
    first = next(iter(keys), "")
    if first == "include":
        first = next(iter(matrix["include"][0])) if isinstance(matrix["include"], list) else ""
    if first:
        writer.known["in_matrix"] = "${{ matrix." + first + " }}"
    if "ubuntu" in used:
        work["runs-on"] = writer.known["ubuntu"]
    return used
