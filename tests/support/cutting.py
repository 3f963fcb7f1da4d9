"""What must hold of a prompt that is the beginning of a known workflow's text, judged by means of the tests' own."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import yaml

from nanochat_tct.generation.prompt import Prompt
from nanochat_tct.tokenizer.tokenizer import Tokenizer


def shortest(prompt: Prompt, tokenizer: Tokenizer) -> Any:
    """The value of the shortest workflow that goes on from a prompt."""
    matcher = tokenizer.matcher()
    for token in prompt.tokens:
        matcher.advance(token)
    matcher.expect(*prompt.endings)
    return tokenizer.decode_value([*prompt.tokens, *(matcher.closing() if not matcher.is_complete else [])])


def leads_to(prompt: Prompt, value: Any, tokenizer: Tokenizer) -> bool:
    """Whether a prompt may be gone on with to this workflow."""
    base = tokenizer.write(value)
    certain = tokenizer.segmenter.decode(prompt.tokens)
    return any(base.startswith(certain + ending) for ending in prompt.endings or ("",))


def flattened(value: Any) -> Iterator[Any]:
    """A value's parts in the order of its text: brackets, keys and scalars."""
    if isinstance(value, dict):
        yield "{"
        for key, child in value.items():
            yield ("key", key)
            yield from flattened(child)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for child in value:
            yield from flattened(child)
        yield "]"
    else:
        yield ("scalar", type(value), value)


class WrittenParts:
    """The parts of a YAML or JSON text's value, each with the places in the text from which on it is certain.

    PyYAML tells where nodes begin and end. There must be no aliases in the text.
    """

    def __init__(self, text: str, value: Any) -> None:
        self.text = text
        self.parts = list(
            zip(flattened(value), self._ends(yaml.compose(text, yaml.CSafeLoader)), strict=True)
        )

    def certain(self, cut: int) -> list[Any]:
        """The parts that the text up to `cut` has for certain."""
        return [
            part
            for part, (end, kind) in itertools.takewhile(
                lambda each: self._is_done(*each[1], cut), self.parts
            )
        ]

    def _is_done(self, end: int, kind: str, cut: int) -> bool:
        if kind == "at":  # a quote or bracket
            return cut >= end
        if kind == "dedent":
            return cut > end
        # plain, block and empty scalars go on until something else follows
        after = re.sub(r"(^|\s)#.*", "", self.text[end:cut])
        if kind == "plain":
            return after.strip(" \t") != ""
        return after.strip() != "" and "\n" in self.text[:cut][max(0, end - 1) :]

    def _ends(self, node: Any) -> Iterator[tuple[int, str]]:
        start, end = node.start_mark.index, node.end_mark.index
        if isinstance(node, yaml.ScalarNode):
            style = node.style or ("empty" if start == end else "plain")
            yield end, {"'": "at", '"': "at", "plain": "plain"}.get(style, "block")
            return
        is_mapping = isinstance(node, yaml.MappingNode)
        children = [each for pair in node.value for each in pair] if is_mapping else node.value
        ends = [list(self._ends(each)) for each in children]
        if node.flow_style:
            yield start + 1, "at"
        elif is_mapping:
            yield ends[0][0]
        else:
            yield start + 1, "dedent"
        for index, each in enumerate(ends):
            if is_mapping and index % 2 == 0 and each[0][1] == "at":
                yield each[0][0], "plain"  # a quoted key is one once its colon is there
            else:
                yield from each
        yield end, "at" if node.flow_style else "dedent"
