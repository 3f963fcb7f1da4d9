"""Suggestions of a checkpoint: a small model that knows some workflows by heart, in a session with an editor."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from lsprotocol import types

from nanochat_tct.documents import to_yaml
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.editor import Editor, Session, open_session
from tests.support.models import model_that_knows, save, workflow

pytestmark = pytest.mark.processes
TEXT = to_yaml(workflow(0)).replace("build 0", "😀")
BEGUN = TEXT[: TEXT.index("runs-on") + len("runs-on: ub")]
LINE, COLUMN = BEGUN.count("\n"), len(BEGUN.split("\n")[-1])
THRESHOLD = ("--threshold", "0.5")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = model_that_knows([workflow(index) for index in range(3)], load_tokenizer(), iters=80)
    return save(model, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def shared(checkpoint: Path) -> Iterator[Session]:
    with open_session("--checkpoint", str(checkpoint), *THRESHOLD, inline=True) as session:
        yield session


@pytest.fixture
def session(shared: Session) -> Iterator[Session]:
    yield shared
    shared.run(Editor.close_all)


def test_the_rest_of_the_line_and_the_next_lines_are_suggested(session: Session) -> None:
    async def test(client: Editor) -> None:
        assert client.capabilities.inline_completion_provider
        client.open(BEGUN)
        (found,) = await client.suggest(LINE, COLUMN)
        assert found.insert_text == "untu-latest"
        here = types.Position(LINE, COLUMN)
        assert found.range == types.Range(here, here), "what the user has written stays to the letter"
        client.change(BEGUN + "untu-latest\n", 2)
        (by_hand, *_) = await client.suggest(LINE + 1, 0, by_hand=True)
        assert isinstance(by_hand.insert_text, str) and by_hand.insert_text.startswith("    steps:\n")
        labels = [each.label for each in await client.complete(LINE + 1, 0)]
        assert "jobs" not in labels and not any("\n" in label for label in labels)
        await client.problems(2)

    session.run(test)


def test_they_are_completion_items_where_an_editor_shows_none_inline(checkpoint: Path) -> None:
    async def test(client: Editor) -> None:
        client.open(BEGUN)
        items: list[types.CompletionItem] = []
        while not items:  # until the checkpoint is loaded, which these do not wait for
            found = await client.complete(LINE, COLUMN)
            items = [each for each in found if each.kind == types.CompletionItemKind.Text]
            await asyncio.sleep(0.1)
        (item,) = items
        assert item.label == "ubuntu-latest" and item.detail and item.detail.endswith("%")
        start = types.Position(LINE, COLUMN - len("ub"))
        assert item.text_edit == types.TextEdit(
            types.Range(start, types.Position(LINE, COLUMN)), "ubuntu-latest"
        )

    with open_session("--checkpoint", str(checkpoint), *THRESHOLD) as session:
        session.run(test)


def test_it_is_silent_below_the_threshold_and_where_no_workflow_begins(session: Session) -> None:
    async def test(client: Editor) -> None:
        client.open("name: bu")  # three names go on from here, and none has half of the probability
        assert await client.suggest(0, 8) == []
        client.change("on: {nonsense: ", 2)
        assert await client.suggest(0, 15) == []
        client.change(BEGUN, 3)
        assert await client.suggest(LINE, COLUMN) != []
        assert not client.messages

    session.run(test)


def test_of_many_questions_the_last_one_is_answered_and_problems_do_not_wait(session: Session) -> None:
    async def test(client: Editor) -> None:
        client.open(BEGUN.replace("😀", "none of this has been read before"))
        questions = [asyncio.ensure_future(client.suggest(LINE, COLUMN)) for _ in range(8)]
        await client.problems()
        answers = await asyncio.gather(*questions, return_exceptions=True)
        assert isinstance(answers[-1], list) and answers[-1][0].insert_text == "untu-latest"
        assert any(isinstance(each, Exception) for each in answers[:-1])

    session.run(test)


JOB = "on: push\njobs:\n  a:\n    runs-on: x\n"
HOSTILE = {
    "nesting": "on: push\njobs: " + "{a: " * 3000,
    "sequences": "on: " + "- " * 20_000,
    "a script of 100,000 lines": JOB + "    steps:\n      - run: |\n" + "          make\n" * 100_000,
    "anchors": "a: &a [x]\n"
    + "".join(f"a{i}: &a [{', '.join(['*a'] * 9)}]\n" for i in range(12))
    + "on: *a\n",
    "half characters": "on: push\nname: \ud800 ${{ a\njobs:\n  a: \udfff\n",
    "an expression without an end": JOB + "    if: ${{ " + "github.ref == 'a' && (" * 20_000,
    "parentheses": JOB + "    if: ${{ " + "(" * 50_000,
    "a key of 1 MB": "on: push\njobs:\n  " + "k" * 1_000_000 + ":\n    runs-on: x\n",
    "a text of 1 MB": 'on: push\nname: "' + "v\\n" * 340_000,
    "a line of 1 MB": "on: [" + "push, " * 160_000,
    "60,000 keys": JOB + "".join(f"    key{index}: x\n" for index in range(60_000)),
    "3,000 jobs": "on: push\njobs:\n"
    + "".join(f"  j{i}: {{runs-on: x, needs: [j{i // 2}], steps: [run: x]}}\n" for i in range(3000)),
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_document_is_answered_and_so_is_the_next_one(session: Session, text: str) -> None:
    async def test(client: Editor) -> None:
        uri = "file:///repository/.github/workflows/hostile.yml"
        client.open(text, uri)
        assert await client.problems()
        line = text.count("\n")
        for position in ((line, len(text.rpartition("\n")[2])), (line // 2, 3)):
            await client.complete(*position, uri)
            await client.hover(*position, uri)
            await client.suggest(*position, uri=uri)
        client.open(BEGUN)
        await client.problems()
        assert await client.suggest(LINE, COLUMN)

    session.run(test)
