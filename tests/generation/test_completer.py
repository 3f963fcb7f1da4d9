"""Completions: edits that keep the user's text, with probabilities that mean something, quick while one types."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from nanochat_tct.documents import read_workflow
from nanochat_tct.errors import UserError
from nanochat_tct.generation import Completer
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.engine import continue_prompts
from nanochat_tct.generation.prompt import encode_prompt
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.cutting import leads_to
from tests.support.models import model_that_knows, save, untrained_model, workflow

TOKENIZER = load_tokenizer()

HEAD = "name: build 1\non:\n  push:\n    branches:\n    - main\n"
JOB = HEAD + "jobs:\n  build:\n    runs-on: ubuntu-latest\n"


@pytest.fixture(scope="module")
def completer() -> Completer:
    """Of a model that knows three workflows by heart."""
    model = model_that_knows([workflow(index) for index in range(3)], TOKENIZER)
    return Completer.from_model(model, TOKENIZER)


@pytest.fixture(scope="module")
def half_trained() -> GPT:
    return model_that_knows([workflow(index) for index in range(3)], TOKENIZER, iters=30)


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ("name: build 1\n", "on:"),
        ("name: build 1\non:\n", "  push:"),
        ("name: build 1\non:\n  ", "push:"),
        ("name: build 1\non:", "\n  push:"),
        ("name: build 1\non:\n  push:\n    branches:\n", "      - main"),
        ("name: build 1\non:\n  push:\n    branches:\n    - ma", "in"),
        ("name: build 1\non:\n  push:\n    branches:\n    -", " main"),
        ("name: build 1\non:\n  push:\n    branches: [ma", "in]"),
        ("name: build 1\non:\n  push:\n    branches: ['ma", "in']"),
        ('name: build 1\non:\n  push:\n    branches: [ "ma', 'in"]'),
        ("name: build 1\non: {push: {branches: [main", "]}}"),
        (HEAD, "jobs:"),
        (HEAD + "jobs:\n   build:\n", "      runs-on: ubuntu-latest"),
        (JOB.replace("-latest\n", ""), "-latest"),
        (JOB, "    steps:"),
        (JOB + "    st", "eps:"),
        (JOB + "    steps: # all of them\n", "    - run: |"),
        (JOB + "    steps:\n    - ", "run: |"),
        (JOB + "    steps:\n    - run: |\n        make", " 1"),
        (JOB + "    steps:\n    - run: |\n        make 1\n", "    - run: |"),
        (JOB + "    steps:\n    - run: |\n        make 1\n\n    ", "- run: |"),
        ('{"name": "build 1", "on": {"push": {"branches": ["ma', 'in"'),
        ('{"name": "build 1", "on": {"push": {"branches": ["main"', "]"),
        ('{"name": "build 1", "on": {"push"', ': {"branches": ["main"'),
    ],
)
def test_the_best_completion_goes_on_as_the_file_is(completer: Completer, text: str, best: str) -> None:
    found = completer.complete(text)
    assert found[0].text == best
    assert encode_prompt(text + best, TOKENIZER).dropped == ""


def test_completions_are_the_most_probable_first(completer: Completer) -> None:
    found = completer.complete("name: bu")
    assert {each.text for each in found} == {"ild 0", "ild 1", "ild 2"}
    assert [each.probability for each in found] == sorted((each.probability for each in found), reverse=True)
    assert 0.8 < sum(each.probability for each in found) <= 1
    assert completer.complete("name: bu", n=1) == found[:1]
    between = (found[0].probability + found[1].probability) / 2
    assert [each.text for each in completer.complete("name: bu", least=between)] == [found[0].text]


def test_several_lines(completer: Completer) -> None:
    (found,) = completer.complete("name: build 1\n", n=1, max_lines=6)
    assert found.text == "on:\n  push:\n    branches:\n      - main\njobs:\n  build:"
    assert found.probability > 0.5


def test_what_stands_behind_the_position_does_not_count(completer: Completer) -> None:
    text = "# what it is\r\nname: bu"
    assert completer.complete(text + "zzz: [\r\n", len(text)) == completer.complete(text)
    (found,) = completer.complete("# what it is\r\nname: build 1\r\non:", n=1)
    assert found.text == "\r\n  push:"


@pytest.mark.parametrize(
    "text",
    [
        "name: [",
        "jobs: 5",
        "runs-on: x\n",
        "name: a\nname: b\n",
        "a: &x",
        '{"on":"push","jobs":{"a":{"uses":"./a/b.yml"}}}',
    ],
)
def test_nothing_follows_what_begins_no_workflow_or_is_a_whole_one(completer: Completer, text: str) -> None:
    assert completer.complete(text) == []


def test_impossible_arguments_are_refused(completer: Completer) -> None:
    for arguments in ({"position": 5}, {"position": -1}, {"n": 0}, {"max_lines": 0}):
        with pytest.raises(UserError):
            completer.complete("name", **arguments)


def test_a_key_typed_costs_a_few_tokens(completer: Completer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = JOB + "    steps:\n    - run: |\n        make 1\n"
    documents: list[int] = []
    extend = completer.decoder.extend

    def counting(chunks: list[tuple[int, list[int]]]) -> Tensor:
        documents.extend(len(tokens) for row, tokens in chunks if row == 0)
        return extend(chunks)

    monkeypatch.setattr(completer.decoder, "extend", counting)
    for end in range(len(HEAD), len(text)):
        documents.clear()
        completer.complete(text[:end])
        if end > len(HEAD):
            assert documents[0] <= 12, text[:end]  # tokens at the end that longer ones replace


def test_completions_do_not_depend_on_what_was_completed_before(completer: Completer) -> None:
    text = JOB + "    steps:\n    - run: |\n        make 1\n"
    ends = [*range(0, len(text), 9), *range(len(text), 0, -17)]
    warm = [completer.complete(text[:end]) for end in ends]
    cold = [Completer.from_model(completer.model, TOKENIZER).complete(text[:end]) for end in ends]
    assert warm == cold


@pytest.mark.parametrize("text", ["name: bu", HEAD + "jobs:\n  build:\n    runs-on: ubuntu-latest\n    "])
def test_probabilities_are_those_of_samples(half_trained: GPT, text: str) -> None:
    """As many samples go on with a completion as its probability says, within three standard deviations."""
    found = Completer.from_model(half_trained, TOKENIZER).complete(text, n=3)
    found = [each for each in found if not each.text.endswith("|")]  # of which the text below is any
    assert found
    prompt = encode_prompt(text, TOKENIZER)
    count = 150
    sampling = SamplingConfig(max_tokens=150)
    counts: Counter[str] = Counter()
    longer = {each.text: encode_prompt(text + each.text + "\n", TOKENIZER) for each in found}
    for _, generated in continue_prompts(half_trained, TOKENIZER, [prompt] * count, sampling):
        value = TOKENIZER.decode_value(generated.tokens)
        for each in found:
            counts[each.text] += leads_to(longer[each.text], value, TOKENIZER)
    for each in found:
        deviation = math.sqrt(each.probability * (1 - each.probability) / count)
        assert counts[each.text] / count == pytest.approx(each.probability, abs=3 * deviation + 0.02)


def many_names(index: int) -> dict[str, Any]:
    """A workflow whose job and script begin differently in each, two of three scripts with a second line."""
    name = "".join(chr(ord("a") + (index * step) % 26) for step in (7, 3, 11, 5))
    permissions = {"permissions": "read-all"} if index % 4 == 0 else {}
    script = f"{name[::-1]} {index}" + "\nmake\n" * (index % 3 > 0)
    job = {"runs-on": "ubuntu-latest", "steps": [{"run": script}]}
    return {"on": "push", **permissions, "jobs": {f"{name}-{index}": job}}


@pytest.fixture(scope="module")
def knows_many_names() -> GPT:
    return model_that_knows([many_names(index) for index in range(40)], TOKENIZER, iters=40)


@pytest.mark.parametrize(
    ("text", "line", "is_so"),
    [
        ("on: push\n", "jobs:", lambda value: next(iter(value)) == "on" and list(value)[1] == "jobs"),
        (
            "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - ",
            "run: |",
            lambda value: "\n" in value["jobs"]["a"]["steps"][0].get("run", ""),
        ),
    ],
)
def test_a_line_is_as_probable_as_all_that_may_stand_below_it(
    knows_many_names: GPT, text: str, line: str, is_so: Callable[[Any], bool]
) -> None:
    """Each of the ways in which the model may go on below the line, or in a header's text, is improbable."""
    model = knows_many_names
    found = {each.text: each.probability for each in Completer.from_model(model, TOKENIZER).complete(text)}
    prompt = encode_prompt(text, TOKENIZER)
    count, sampling = 150, SamplingConfig(max_tokens=40)
    samples = continue_prompts(model, TOKENIZER, [prompt] * count, sampling)
    share = sum(is_so(json.loads(TOKENIZER.decode_prefix(each.tokens)[0])) for _, each in samples) / count
    assert share > 0.3
    assert found[line] == pytest.approx(share, abs=0.12)


def needs_a_later_job(index: int) -> dict[str, Any]:
    """A workflow whose first job needs one that stands below it."""
    first = {"needs": ["second"], "runs-on": "ubuntu-latest", "steps": [{"run": f"make {index}"}]}
    second = {"runs-on": "ubuntu-latest", "steps": [{"run": "make second"}]}
    return {"on": "push", "jobs": {"first": first, "second": second}}


def test_what_the_model_does_not_want_is_not_probable_where_little_else_may_be_suggested() -> None:
    """Only a job that stands above can be needed in a suggestion: in a first job `needs: []` is all that is left."""
    model = model_that_knows([needs_a_later_job(index) for index in range(3)], TOKENIZER)
    completer = Completer.from_model(model, TOKENIZER)
    text = "on: push\njobs:\n  first:\n"
    for begun in ("", "    ne", "    needs:", "    needs: ["):
        assert all(each.probability < 0.1 for each in completer.complete(text + begun)), begun
    assert completer.complete(text + "    needs: [second]\n")[0].probability > 0.8, "what it wants behind it"


def test_what_may_stand_below_a_header_counts_though_it_could_not_be_suggested() -> None:
    """The script of a step has a step's output that no suggestion may have; its header shows nothing of that."""

    def reads_an_output(index: int) -> dict[str, Any]:
        script = f"echo ${{{{ steps.a{index}.outputs.b }}}}\nmake\n"
        return {"on": "push", "jobs": {"a": {"runs-on": "ubuntu-latest", "steps": [{"run": script}]}}}

    model = model_that_knows([reads_an_output(index) for index in range(3)], TOKENIZER)
    text = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - "
    (found, *_) = Completer.from_model(model, TOKENIZER).complete(text)
    assert found.text == "run: |" and found.probability > 0.3


def test_a_checkpoint_is_opened(tmp_path: Path) -> None:
    checkpoint = save(untrained_model(), tmp_path)
    by_path = Completer(checkpoint)
    assert by_path.complete("name: a\non") == Completer.from_model(by_path.model, TOKENIZER).complete(
        "name: a\non"
    )
    with pytest.raises(UserError):
        Completer(tmp_path / "none")


def check_text(completer: Completer, text: str, ends: range) -> int:
    """Complete a text at some positions; each completion must begin a workflow. Returns how many there were."""
    count = 0
    for end in ends:
        try:
            prompt = encode_prompt(text[:end], TOKENIZER)
        except UserError:
            continue
        found = completer.complete(text, end)
        count += len(found)
        assert sum(each.probability for each in found) <= 1 + 1e-4
        for each in found:
            applied = encode_prompt(text[:end] + each.text, TOKENIZER)
            problem = f"{text[max(0, end - 80) : end]!r} + {each.text!r}: {applied.reason}"
            assert not applied.dropped and not applied.reason, problem
            assert each.text.strip(), problem
            base, before = (TOKENIZER.segmenter.decode(each.tokens) for each in (applied, prompt))
            assert base.startswith(before) or before.startswith(base), problem
    return count


@pytest.mark.parametrize("step", [31, pytest.param(17, marks=pytest.mark.slow)])
def test_this_projects_own_workflow_cut_at_every_line_and_in_between(completer: Completer, step: int) -> None:
    text = (Path(__file__).parents[2] / ".github/workflows/ci.yml").read_text()
    assert check_text(completer, text, range(0, len(text), step)) > 35
    compact = json.dumps(read_workflow(text))
    assert check_text(completer, compact, range(1, len(compact), 53)) > 10


@pytest.mark.parametrize("step", [193, pytest.param(97, marks=pytest.mark.slow)])
def test_real_workflows_cut_at_many_positions(completer: Completer, corpus: Any, step: int) -> None:
    texts = corpus["text"]
    count = 0
    for index in range(0, len(texts), len(texts) // 6):
        text = texts[index].as_py().replace("\r\n", "\n")
        count += check_text(completer, text, range(index % 13, min(len(text), 3000), step))
    assert count > 50
