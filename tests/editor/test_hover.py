"""What is said of the key or name under the cursor."""

import pytest

from nanochat_tct.editor.hover import hover
from nanochat_tct.editor.language import Language
from nanochat_tct.tokenizer import load_tokenizer

TEXT = """\
on:
  push: {branches: [main]}
permissions: {contents: read}
jobs:
  build:
    runs-on: ubuntu-latest
    if: always() && github.ref == 'x'
    steps:
      - uses: a/b@v1  # of an action
      - run: echo ${{ hashFiles('x') }} ${{ github.nothing }}
"""


@pytest.fixture(scope="module")
def language() -> Language:
    return Language(load_tokenizer())


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("on:", "start this workflow"),
        ("push", "pushed"),
        ("branches", "patterns"),
        ("contents", "branches and releases"),
        ("read", "Values: `read`, `write`, `none`"),
        ("runs-on", "Expressions may use: `github`"),
        ("ubuntu", "runs-on"),
        ("always", "takes 0 arguments"),
        ("github.ref", "The run, the event"),
        ("ref ", "**github.ref**"),
        ("if", "skipped unless"),
        ("uses", "owner/repository"),
        ("uses", "No expression may stand here"),
        ("hashFiles", "takes 1 to 255 arguments"),
        ("nothing", "nothing here defines it"),
    ],
)
def test_hover(language: Language, word: str, expected: str) -> None:
    found = hover(language, TEXT, TEXT.index(word) + 1)
    assert found is not None
    assert expected in found


def test_nothing_is_said_of_comments_and_blank_places(language: Language) -> None:
    assert hover(language, TEXT, TEXT.index("of an action")) is None
    assert hover(language, "", 0) is None
    assert hover(language, "{{{", 2) is None


def test_a_document_with_an_unfinished_line_is_explained_too(language: Language) -> None:
    text = TEXT.replace("    if:", "    broken\n    if:")
    assert "runs-on" in (hover(language, text, text.index("runs-on") + 2) or "")
    assert "skipped unless" in (hover(language, text, text.index("if:")) or "")
