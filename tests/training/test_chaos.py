"""A few faults on a Ray cluster of three nodes; `python -m tests.chaos` does more of them."""

import pytest

from tests.support.commands import run_python


@pytest.mark.long
@pytest.mark.slow  # minutes on two cores: a node, its Ray and its workers start again and again
@pytest.mark.timeout(900)
def test_a_killed_worker_driver_and_node_lose_nothing() -> None:
    flags = "--faults 3 --seed 0 --kinds worker driver node".split()
    result = run_python("-m", "tests.chaos", *flags, timeout=850)
    assert result.code == 0, (result.stdout, result.stderr)
    assert "each global batch as in a run that nothing happened to" in result.stdout
