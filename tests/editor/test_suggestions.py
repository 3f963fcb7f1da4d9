"""Suggestions of a checkpoint: a small model that knows some workflows by heart, in a session with an editor."""

import asyncio
from pathlib import Path

import pytest
from lsprotocol import types

from nanochat_tct.documents import to_yaml
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.editor import asynchronous, editor
from tests.support.models import model_that_knows, save, workflow

pytestmark = pytest.mark.processes
TEXT = to_yaml(workflow(0)).replace("build 0", "😀")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = model_that_knows([workflow(index) for index in range(3)], load_tokenizer(), iters=80)
    return save(model, tmp_path_factory.mktemp("run"))


@asynchronous
async def test_the_rest_of_the_line_and_the_next_lines_are_suggested(checkpoint: Path) -> None:
    line = next(i for i, each in enumerate(TEXT.split("\n")) if "runs-on" in each)
    begun = TEXT[: TEXT.index("runs-on") + len("runs-on: ub")]
    async with editor("--checkpoint", str(checkpoint), "--threshold", "0.3", inline=True) as client:
        assert client.capabilities.inline_completion_provider
        client.open(begun)
        (found,) = await client.suggest(line, len(begun.split("\n")[-1]))
        assert found.insert_text == "untu-latest"
        here = types.Position(line, len(begun.split("\n")[-1]))
        assert found.range == types.Range(here, here), "what the user has written stays to the letter"
        client.change(begun + "untu-latest\n", 2)
        (by_hand, *_) = await client.suggest(line + 1, 0, by_hand=True)
        assert isinstance(by_hand.insert_text, str) and by_hand.insert_text.startswith("    steps:\n")
        labels = [each.label for each in await client.complete(line + 1, 0)]
        assert "jobs" not in labels and not any("\n" in label for label in labels)
        await client.problems(2)


@asynchronous
async def test_they_are_completion_items_where_an_editor_shows_none_inline(checkpoint: Path) -> None:
    begun = TEXT[: TEXT.index("runs-on") + len("runs-on: ub")]
    line, column = begun.count("\n"), len(begun.split("\n")[-1])
    async with editor("--checkpoint", str(checkpoint), "--threshold", "0.3") as client:
        client.open(begun)
        items: list[types.CompletionItem] = []
        while not items:  # until the checkpoint is loaded, which these do not wait for
            found = await client.complete(line, column)
            items = [each for each in found if each.kind == types.CompletionItemKind.Text]
        (item,) = items
        assert item.label == "ubuntu-latest" and item.detail and item.detail.endswith("%")
        start = types.Position(line, column - len("ub"))
        assert item.text_edit == types.TextEdit(
            types.Range(start, types.Position(line, column)), "ubuntu-latest"
        )


@asynchronous
async def test_it_is_silent_below_the_threshold_and_where_no_workflow_begins(checkpoint: Path) -> None:
    begun = TEXT[: TEXT.index("runs-on") + len("runs-on: ub")]
    async with editor("--checkpoint", str(checkpoint), "--threshold", "1", inline=True) as client:
        client.open(begun)
        assert await client.suggest(begun.count("\n"), len(begun.split("\n")[-1])) == []
        client.change("on: {nonsense: ", 2)
        assert await client.suggest(0, 15) == []
        assert not client.messages


@asynchronous
async def test_of_many_questions_the_last_one_is_answered_and_problems_do_not_wait(checkpoint: Path) -> None:
    begun = TEXT[: TEXT.index("runs-on") + len("runs-on: ub")]
    line, column = begun.count("\n"), len(begun.split("\n")[-1])
    async with editor("--checkpoint", str(checkpoint), "--threshold", "0.3", inline=True) as client:
        client.open(begun)
        questions = [asyncio.ensure_future(client.suggest(line, column)) for _ in range(8)]
        await client.problems()
        answers = await asyncio.gather(*questions, return_exceptions=True)
        assert isinstance(answers[-1], list) and answers[-1][0].insert_text == "untu-latest"
        assert any(isinstance(each, Exception) for each in answers[:-1])
