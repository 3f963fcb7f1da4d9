"""A short run of the fuzzer, and any text."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_tct.tokenizer.errors import TokenizerError
from tests import fuzz

COUNTS = {"encode": 1500, "decode": 1200, "decode_prefix": 250, "yaml": 1500, "vocabulary": 120}


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_random_inputs_end_in_a_result_or_one_clear_error(target: str) -> None:
    counts, failures = fuzz.fuzz([target], seed=7, count=COUNTS[target], seconds=None)
    assert failures == []
    assert counts[target].total() == COUNTS[target]
    assert min(counts[target]["results"], counts[target]["refused"]) > 5  # both occurred


@given(st.text(max_size=60) | st.binary(max_size=60), st.sampled_from(["yaml", "json", "auto"]))
@settings(max_examples=200, deadline=None)
def test_any_text(text: str | bytes, form: str) -> None:
    fuzz.run_one("yaml", (text, form))
    if isinstance(text, str):
        fuzz.run_one("encode", text)


@pytest.mark.parametrize("tokens", [[8192], [-1], [10, 2**63]])
def test_an_id_out_of_range_is_named_with_its_index(tokens: list[int]) -> None:
    for read in (fuzz.tokenizer().decode, fuzz.tokenizer().decode_prefix):
        with pytest.raises(TokenizerError, match=rf"token {len(tokens) - 1} is {tokens[-1]}, not an id"):
            read(tokens)


def test_a_failure_is_told_with_its_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(item: Any) -> None:
        raise KeyError("surprise")

    monkeypatch.setitem(fuzz.TARGETS, "yaml", (lambda choose: "a: b", fail))
    monkeypatch.setattr("sys.argv", ["fuzz", "--target", "yaml", "--count", "3"])
    assert fuzz.main() == 1
    captured = capsys.readouterr()
    assert "3 inputs" in captured.out and "3 failures" in captured.out
    assert (
        "FAILED: target yaml, seed 0, number 0: KeyError" in captured.err and "input: 'a: b'" in captured.err
    )
