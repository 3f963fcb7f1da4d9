"""Matchers of GitHub's language behind a prompt: what is generated, and what a prompt may have all the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_tct.generation.prompt import encode_prompt
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tokenizer.engine import GENERATING, PROMPT
from nanochat_tct.tokenizer.tokenizer import TokenMatcher

TOKENIZER: Any = load_tokenizer()
STEPS = "    runs-on: ubuntu-latest\n    steps:\n      - run: make\n"


def behind(text: str) -> tuple[list[int], TokenMatcher]:
    """The tokens of a prompt, and a matcher of what is generated behind it."""
    prompt = encode_prompt(text, TOKENIZER)
    assert not prompt.dropped
    tokens, rest = TOKENIZER.heal(prompt.tokens)
    matcher = TOKENIZER.matcher()
    for token in tokens:
        matcher.advance(token)
    matcher.expect(*(rest + ending for ending in prompt.endings or ("",)))
    return tokens, matcher


def random_end(tokens: list[int], matcher: TokenMatcher, seed: int, limit: int) -> list[int]:
    """Random legal tokens up to the end of the document, as generation draws them."""
    choose = np.random.default_rng(seed)
    tokens, closing = list(tokens), matcher.closing()
    while not matcher.is_complete:
        legal = np.flatnonzero(matcher.legal())
        assert len(legal)
        left = limit - len(tokens)
        for token in choose.permutation(legal)[: 8 if left > len(closing) else 0].tolist():
            assert matcher.allows(token)
            after = matcher.after(token)
            if len(after.closing()) < left:
                matcher, closing = after, after.closing()
                tokens.append(token)
                break
        else:
            token, *closing = closing
            matcher.advance(token)
            tokens.append(token)
    return tokens


def is_strict(value: Any) -> bool:
    """Whether GitHub's language service has no complaint, by the engine."""
    return bool(TOKENIZER.engine.matcher(is_strict=True).advance(TOKENIZER.write(value)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 150))
def test_whatever_is_generated_is_accepted_without_a_complaint(seed: int, limit: int) -> None:
    tokens, matcher = behind("")
    tokens = random_end(tokens, matcher, seed, limit)
    assert len(tokens) <= limit
    assert is_strict(TOKENIZER.decode_value(tokens))


PROMPTS = [  # and whether strict mode has no complaint about it
    ("on: push\njobs:\n  b:\n    if: ${{ github.event.head_commit.", True),
    ("on: push\njobs:\n  b:\n    if: ${{ github.event.pull_request.", False),
    ("on: push\njobs:\n  b:\n    if: on ${{ github.ref }} only", False),
    ("on: push\njobs:\n  b:\n    needs: [a, c]\n" + STEPS, False),
    ("on: push\njobs:\n  b:\n    needs: c\n" + STEPS + "  c:\n    needs: [", False),
    ("on: push\njobs:\n  b:\n" + STEPS + "      - run: echo ${{ steps.no.outputs.x }} ${{ ", False),
    ("on: push\njobs:\n  b:\n    name: ${{ matrix.os }}\n", True),
    ("on: push\njobs:\n  b:\n    strategy:\n      matrix:\n        os: [a]\n    name: ${{ matrix.", True),
    ("run-name: ${{ inputs.x }}\non: push\njobs:\n", True),
]


@pytest.mark.parametrize(("prompt", "fits"), PROMPTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_prompt_is_kept_and_completed_to_what_github_accepts(prompt: str, fits: bool, seed: int) -> None:
    tokens, matcher = behind(prompt)
    assert (TOKENIZER.complaint(encode_prompt(prompt, TOKENIZER).tokens) is None) == fits
    whole = random_end(tokens, matcher, seed, len(tokens) + 60)
    value = TOKENIZER.decode_value(whole)
    written = json.dumps(value, ensure_ascii=False)
    for part in prompt.replace("\n", " ").split("${{")[1:]:
        assert "${{" + part.split("}}")[0].rstrip() in written
    TOKENIZER.encode_value(value)  # the graph of jobs included


def test_jobs_that_others_need_are_written_and_do_not_need_those() -> None:
    tokens, matcher = behind("on: push\njobs:\n  b:\n    needs: [a, c]\n" + STEPS + "  a:\n    needs: [")
    shortest = TOKENIZER.decode_value(tokens + matcher.closing())
    assert list(shortest["jobs"]) == ["b", "a", "c"]
    engine = TOKENIZER.engine
    base = TOKENIZER.segmenter.decode(tokens)
    machine = engine.matcher_in(PROMPT)
    assert machine.advance(base) and machine.generate()
    assert not machine.allows("b")  # it needs this one
    assert machine.complete()


def test_names_are_those_that_stand_already() -> None:
    machine = TOKENIZER.engine.matcher_in(GENERATING)
    prefix = TOKENIZER.write(
        {
            "on": {"pull_request": None, "workflow_dispatch": {"inputs": {"level": {"type": "string"}}}},
            "env": {"ONE": "1"},
            "jobs": {"a": {"runs-on": "x", "steps": [{"id": "first", "run": "${{ github.actor }}"}]}},
        }
    )
    start = prefix.index("github.actor")
    assert machine.advance(prefix[:start])
    for text, is_legal in {
        "inputs.level": True,
        "inputs.levels": False,
        "env.ONE": True,
        "env.TWO": False,
        "secrets.ANY": True,
        "vars.ANY": True,
        "needs.x": False,
        "matrix.": False,
        "steps.f": False,  # a step cannot read itself
        "github.event.pull_request.title": True,
        "github.event.issue": False,
        "github.event.workflow": True,
    }.items():
        assert machine.allows(text) == is_legal, text


def test_masks_are_what_can_be_read() -> None:
    choose = np.random.default_rng(1)
    for prompt, _ in PROMPTS[:6]:
        tokens, matcher = behind(prompt)
        for _ in range(12):
            if matcher.is_complete:
                break
            legal = matcher.legal()
            for token in choose.integers(0, TOKENIZER.vocab_size(), 400).tolist():
                assert legal[token] == matcher.allows(token), (prompt, tokens, token)
            token = int(choose.choice(np.flatnonzero(legal)))
            matcher.advance(token)
            tokens.append(token)


@pytest.mark.parametrize("cut", range(0, 160, 7))
def test_decode_prefix_is_accepted(cut: int) -> None:
    jobs = {"a": {"needs": ["b"], "runs-on": "x", "steps": [{"run": "make"}]}, "b": {"runs-on": "x"}}
    tokens = TOKENIZER.encode_value({"on": "push", "run-name": "${{ github.ref }}", "jobs": jobs})
    text, _, _ = TOKENIZER.decode_prefix(tokens[: cut % (len(tokens) + 1)])
    TOKENIZER.encode(text)


@pytest.mark.parametrize(
    ("prompt", "end"),
    [
        ("on: push\nconcurrency: a\njobs:\n  b:\n    concurrency: a", {"concurrency": "aa", "runs-on": True}),
        (
            "on: push\njobs:\n  b:\n    runs-on: x\n    steps:\n      - id: a\n        run: a\n      - id: a",
            {"runs-on": "x", "steps": [{"id": "a", "run": "a"}, {"id": "aa", "run": None}]},
        ),
    ],
)
def test_a_name_that_must_be_unique_goes_on(prompt: str, end: Any) -> None:
    tokens, matcher = behind(prompt)
    assert TOKENIZER.decode_value(tokens + matcher.closing())["jobs"]["b"] == end


def test_a_key_with_a_reference_goes_on_behind_it_if_it_is_there_already() -> None:
    prompt = """on: push
jobs:
  b:
    runs-on: x
    steps:
      - id: c
        run: a
      - uses: a/b@v1
        with:
          ${{ steps.c}}: x
          ${{ steps."""
    tokens, matcher = behind(prompt)
    value = TOKENIZER.decode_value(tokens + matcher.closing())
    assert value["jobs"]["b"]["steps"][1]["with"] == {"${{ steps.c}}": "x", "${{ steps.c}}a": None}


def test_local_references_begin_at_the_root() -> None:
    # GitHub takes the first "/.github/workflows/" that it finds for the folder, also where an owner's name ends so.
    for uses, is_fine in {
        "./.github/workflows/a.yml": True,
        "./a/.github/workflows/b.yml@v1": False,
        "a.github/workflows/.github/workflows/b.yml@v1": False,
        "a.github/workflows-lab/.github/workflows/b.yml@v1": False,
        "a.github/b.github/.github/workflows/workflows.yml@v1": True,
    }.items():
        value = {"on": "push", "jobs": {"a": {"uses": uses}}}
        assert is_strict(value) == is_fine
