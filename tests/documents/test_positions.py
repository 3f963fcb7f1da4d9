"""The lines and columns of a document's parts."""

from __future__ import annotations

from typing import Any

import pytest

from nanochat_tct.documents import read_workflow
from nanochat_tct.documents.positions import Positions

TEXT = r"""double: "x\ty\u00e4\U0001F600 ${{ z }}
   more \
   q"
literal: |

  line one
    two ${{ z }}
  漢字 é 😀 three
folded: >-
  folded ${{ a }}
  more z

  x
single: 'it''s
  ok z'
plain: plain text
  and z more
anchor: &an {k: [1, "z"]}
alias: *an
"quoted key z": z
'? explicit':
- z
-   - y
tagged: !!str z
"""


def characters(value: Any, path: tuple[str | int, ...] = ()) -> Any:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from characters(child, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from characters(item, (*path, index))
    elif isinstance(value, str):
        yield from ((path, offset, character) for offset, character in enumerate(value))


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_character_is_where_it_is_written(line_end: str, mark: str) -> None:
    text = mark + TEXT.replace("\n", line_end)
    positions = Positions(text)
    lines = TEXT.split("\n")
    seen = 0
    for path, offset, character in characters(read_workflow(text, "yaml")):
        line, column = positions.locate(path, offset=offset)
        if not character.isspace():
            assert lines[line - 1][column - 1] in (character, "\\"), (path, offset)
            seen += 1
    assert seen == 88


def test_keys_values_and_what_is_not_there() -> None:
    positions = Positions(TEXT)
    assert positions.locate(["quoted key z"], of_key=True) == (20, 1)
    assert positions.locate(["quoted key z"], of_key=True, offset=7) == (20, 9)
    assert positions.locate(["quoted key z"]) == (20, 17)
    assert positions.locate(["alias", "k", 1]) == positions.locate(["anchor", "k", 1]) == (18, 21)
    assert positions.locate(["? explicit", 1, 0]) == (23, 7)
    assert positions.locate(["single"], offset=len("it's ok z")) == (15, 7)
    assert positions.locate(["folded", "nothing", 3]) == positions.locate(["folded"])
    assert Positions("a:\nb: 1\n").locate(["a"]) == (1, 1)
    assert Positions("a:\n- \n\nb:").locate(["a", 0]) == (2, 2)
    assert Positions("a:\n- \n\nb:").locate(["b"]) == (4, 1)
    assert Positions("a: ''").locate(["a"], offset=0) == (1, 4)
