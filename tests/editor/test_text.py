"""Columns as an editor counts them, and its lines."""

import pytest
from lsprotocol.types import Position
from pygls.workspace import PositionCodec

from nanochat_tct.editor.text import EditorText

LINES = "name: 😀é x\r\nrun: a\x0bb\x85c\u2028d\ron: push"


@pytest.mark.parametrize(("encoding", "column"), [("utf-16", 10), ("utf-8", 13), ("utf-32", 9)])
def test_columns_count_units_of_the_encoding(encoding: str, column: int) -> None:
    text = EditorText(LINES, PositionCodec(encoding))
    offset = text.text.index("x")
    assert text.position_at(offset) == Position(0, column)
    assert text.offset(Position(0, column)) == offset
    assert (
        text.range(0, 6, 7).end.character - text.range(0, 6, 7).start.character
        == {
            "utf-16": 2,
            "utf-8": 4,
            "utf-32": 1,
        }[encoding]
    )


def test_only_line_breaks_of_yaml_end_a_line() -> None:
    text = EditorText(LINES, PositionCodec())
    assert len(text.lines) == 3
    assert text.text[text.offset(Position(2, 4)) :] == "push"
    assert text.position_at(text.text.index("d")) == Position(1, 11)


def test_positions_beyond_the_text_are_moved_into_it() -> None:
    text = EditorText("a: 😀\nb", PositionCodec())
    assert text.offset(Position(0, 99)) == 4
    assert text.offset(Position(99, 0)) == 5
    assert text.offset(Position(0, 4)) == 3, "inside a pair of surrogates"
    assert EditorText("", PositionCodec()).offset(Position(3, 3)) == 0
