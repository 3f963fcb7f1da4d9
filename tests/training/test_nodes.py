"""Machines that lack the data, or run something else, are found by all workers before the first iter."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
import torch.multiprocessing

from nanochat_tct.errors import UserError
from nanochat_tct.training import nodes
from nanochat_tct.training.distributed import StoppedTogether, Worker
from nanochat_tct.training.nodes import check_nodes
from tests.support.commands import free_port
from tests.support.workers import CPU, small_store

pytestmark = pytest.mark.processes


def told(rank: int, port: int, data_dirs: list[str], other: Callable[[], Any] | None, folder: Path) -> None:
    """One of two workers: writes down what `check_nodes` raised."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    if rank == 1 and other is not None:
        nodes.package_digest = other  # type: ignore[assignment]
    try:
        check_nodes(data_dirs[rank], Worker(rank, 2, CPU))
    except StoppedTogether as error:
        (folder / str(rank)).write_text(str(error))
    finally:
        dist.destroy_process_group()


def another_package() -> str:
    return "0123456789ab"


@pytest.mark.parametrize("case", ["without the data", "another package", "fine"])
def test_two_machines(case: str, tmp_path: Path) -> None:
    store = str(small_store(tmp_path / "store", count=20))
    data_dirs = [store, str(tmp_path / "none")] if case == "without the data" else [store, store]
    other = another_package if case == "another package" else None
    torch.multiprocessing.spawn(told, args=(free_port(), data_dirs, other, tmp_path), nprocs=2, join=True)
    errors = [(tmp_path / str(rank)).read_text() for rank in range(2) if (tmp_path / str(rank)).exists()]
    if case == "fine":
        assert errors == []
        return
    assert len(errors) == 2, "both stop, none waits for the other"
    assert errors[0] == errors[1]
    expected = {
        "without the data": f"there is no folder {tmp_path / 'none'}",
        "another package": "has nanochat-tct 0123456789ab, and machine",
    }
    assert expected[case] in errors[0]


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
