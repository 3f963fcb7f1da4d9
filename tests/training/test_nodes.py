"""Machines that lack the data, or run something else, are found by all workers before the first iter."""

from pathlib import Path
from typing import Any

import pytest

from nanochat_tct.errors import UserError
from nanochat_tct.training import nodes
from nanochat_tct.training.distributed import StoppedTogether, Worker
from nanochat_tct.training.nodes import check_nodes
from tests.support.workers import on_workers, small_store

pytestmark = pytest.mark.processes


def another_package() -> str:
    return "0123456789ab"


def check_each(worker: Worker, cases: dict[str, tuple[list[Path], Any]], folder: Path) -> None:
    """One of two workers: writes down what `check_nodes` raised in each case."""
    for name, (data_dirs, package_of_second) in cases.items():
        if worker.rank == 1:
            nodes.package_digest = package_of_second
        try:
            check_nodes(str(data_dirs[worker.rank]), worker)
        except StoppedTogether as error:
            (folder / f"{name} {worker.rank}").write_text(str(error))


def test_two_machines(tmp_path: Path) -> None:
    """Both stop, for the same reason; none waits for the other."""
    store, none = small_store(tmp_path / "store", count=20), tmp_path / "none"
    cases = {
        "without the data": ([store, none], nodes.package_digest),
        "another package": ([store, store], another_package),
        "fine": ([store, store], nodes.package_digest),
    }
    (tmp_path / "told").mkdir()
    on_workers(2, check_each, cases, tmp_path / "told")
    told = {path.name: path.read_text() for path in (tmp_path / "told").iterdir()}
    reasons = {
        "without the data": f"there is no folder {none}",
        "another package": "has nanochat-tct 0123456789ab, and machine",
    }
    assert len(told) == 2 * len(reasons)
    for name, reason in reasons.items():
        assert told[f"{name} 0"] == told[f"{name} 1"] and reason in told[f"{name} 0"]


def test_a_machine_is_compared_with_the_head(tmp_path: Path) -> None:
    """As each trial of a sweep is."""
    store, same = str(small_store(tmp_path / "store", count=20)), nodes.software()
    nodes.check_node(store, ("head", same))
    with pytest.raises(UserError, match=r"on machine .*there is no folder .*Every machine must see the data"):
        nodes.check_node(str(tmp_path / "none"), ("head", same))
    for name in same:
        with pytest.raises(UserError, match=rf"has {name} .*, and machine head has 0: install the same"):
            nodes.check_node(store, ("head", {**same, name: "0"}))


def test_the_digest_is_of_the_source() -> None:
    assert nodes.package_digest() == nodes.package_digest()
    assert len(nodes.software()["nanochat-tct"]) == 12
