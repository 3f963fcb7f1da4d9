"""What the tests of training share: a small store, a small config, several workers without Ray."""

import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from nanochat_tct.data.sampler import WindowSampler, batch_hash
from nanochat_tct.data.store import MANIFEST, TokenStore, manifest_sha256
from nanochat_tct.data.store_writer import write_store
from nanochat_tct.data.windows import Windows
from nanochat_tct.model.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from nanochat_tct.storage.files import file_sha256
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training.config import ResolvedConfig, TrainConfig
from nanochat_tct.training.distributed import Worker
from nanochat_tct.training.plan import make_plan
from nanochat_tct.training.trainer import Reporter, Trainer
from tests.support.commands import flags, free_port

CPU = torch.device("cpu")
# Processes are forked from one that has imported everything, once for all tests.
PRELOADED = ["tests.support.preloaded"]


def small_workflows(count: int, seed: int = 0) -> list[Any]:
    """Valid workflows of a few steps."""
    rng = random.Random(seed)
    workflows = []
    for _ in range(count):
        steps = [{"run": f"echo {rng.randrange(1000)}"} for _ in range(rng.randrange(1, 9))]
        job = {"runs-on": rng.choice(["ubuntu-latest", "windows-latest", "macos-latest"]), "steps": steps}
        workflows.append(
            {"on": rng.choice(["push", "pull_request"]), "jobs": {f"job{rng.randrange(9)}": job}}
        )
    return workflows


def small_store(folder: Path, count: int = 120, seed: int = 0) -> Path:
    """A finished token store of small workflows, a copy of one that is made once in a process."""
    return Path(shutil.copytree(Path(_folder_of_store(count, seed).name) / "store", folder))


@functools.cache
def _folder_of_store(count: int, seed: int) -> "tempfile.TemporaryDirectory[str]":
    folder = tempfile.TemporaryDirectory()  # gone when the process ends
    write_store(Path(folder.name) / "store", small_workflows(count, seed), load_tokenizer())
    return folder


def sign(store: Path, **changes: Any) -> None:
    """Makes a store's manifest right again after changes, as somebody who means harm would. None removes an entry."""
    manifest = _merged(json.loads((store / MANIFEST).read_text()), changes)
    for name, expected in manifest["files"].items():
        if (store / name).is_file():
            expected.update(size=(store / name).stat().st_size, sha256=file_sha256(store / name))
    manifest["sha256"] = manifest_sha256(manifest)
    (store / MANIFEST).write_text(json.dumps(manifest))


def _merged(old: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    new = {**old, **changes}
    for name, value in changes.items():
        if isinstance(value, dict):
            new[name] = _merged(old.get(name, {}), value)
    return {name: value for name, value in new.items() if value is not None}


SMALL: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_size": 32, "batch_size": 4}
SMALL |= {"run_name": "run", "wandb": "off", "tensorboard": False}


def places(data_dir: Path | str, folder: Path) -> dict[str, str]:
    """The settings for what a run reads and writes, the latter in `folder`."""
    return {
        "data_dir": str(data_dir),
        "checkpoint_dir": str(folder / "checkpoints"),
        "log_dir": str(folder / "logs"),
    }


def small_config(data_dir: Path | str, folder: Path, **changes: Any) -> ResolvedConfig:
    """The config of a model that trains in a second."""
    length = {"max_iters": 12, "eval_interval": 6, "save_interval": 4, "log_interval": 1, "eval_iters": 2}
    settings = {**SMALL, **length, "num_workers": 1, "learning_rate": 0.01, **places(data_dir, folder)}
    return make_plan(TrainConfig(**{**settings, **changes})).config


def small_run(data_dir: Path, folder: Path, **changes: object) -> list[str]:
    """The command `train` for such a model; what it writes is in `folder`."""
    settings = {**SMALL, "eval_iters": 1, "num_samples": 0, **places(data_dir, folder)}
    return ["train", *flags(**{**settings, **changes})]


def train_alone(config: ResolvedConfig, lines: list[str] | None = None, **reporter: Any) -> dict[str, Any]:
    """The loop on one worker in this process, with a fixed number of threads; `reporter` as Reporter takes it."""
    torch.set_num_threads(1)
    say = (lines if lines is not None else []).append
    device = torch.device("cuda", 0) if config.use_gpu else CPU
    return Trainer(config, Worker(0, 1, device), Reporter(say=say, **reporter)).run()


Job = tuple[ResolvedConfig, Callable[[int], Reporter | None] | None]


def train_together(jobs: list[Job], world_size: int) -> None:
    """The loop on several workers, for one config after the other; the function that comes with a config is called
    first, with the rank, in each worker, and may give a Reporter."""
    on_workers(world_size, _train_jobs, jobs)


def _train_jobs(worker: Worker, jobs: list[Job]) -> None:
    for config, prepare in jobs:
        reporter = prepare(worker.rank) if prepare is not None else None
        Trainer(config, worker, reporter or Reporter(say=lambda line: None)).run()


def on_workers(world_size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(worker, *arguments)` on several workers over gloo."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    torch.multiprocessing.start_processes(
        _work, args=(world_size, free_port(), work, arguments), nprocs=world_size, start_method="forkserver"
    )


def _work(
    rank: int, world_size: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        work(Worker(rank, world_size, CPU), *arguments)
    finally:
        dist.destroy_process_group()


class ForkedProcess:
    """A function in a process that is forked from a server which has imported everything: a start costs nothing.

    Looks like subprocess.Popen.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        multiprocessing.set_forkserver_preload(PRELOADED)
        self.child = multiprocessing.get_context("forkserver").Process(target=function, args=arguments)
        self.child.start()
        self.pid = int(self.child.pid or 0)

    @property
    def returncode(self) -> int | None:
        return self.child.exitcode

    def poll(self) -> int | None:
        return self.child.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.child.join(timeout)
        return self.child.exitcode

    def kill(self) -> None:
        self.child.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def logged(config: ResolvedConfig, name: str) -> list[Any]:
    """What the log of a run says of each iter it trained."""
    return [entry[name] for entry in read_metrics(Path(config.run_place)) if entry["kind"] == "train"]


def losses(config: ResolvedConfig) -> list[float]:
    return logged(config, "loss")


def batches(config: ResolvedConfig) -> list[str]:
    """Hash of all global batches up to each iter."""
    return logged(config, "batches")


def checkpoint_of(config: ResolvedConfig) -> Checkpoint:
    """The last one of a run."""
    path = latest_checkpoint(Path(config.run_place))
    assert path is not None
    return load_checkpoint(path)


def changed(config: ResolvedConfig, **changes: Any) -> ResolvedConfig:
    """The config with other values."""
    return dataclasses.replace(config, **changes)


def expected_batches(data_dir: Path, context_size: int, global_batch: int, iters: int) -> list[str]:
    """What the log of a run with seed 0 says of its batches, worked out without any training."""
    windows = Windows(TokenStore.open(data_dir), "train", context_size)
    sampler = WindowSampler(len(windows), seed=0)
    history, found = "", []
    for step in range(iters):
        batch = batch_hash(windows.get(sampler.indices(step, global_batch)))
        history = hashlib.sha256(f"{history}/{batch}".encode()).hexdigest()[:16]
        found.append(history)
    return found


def descendants(pid: int) -> list[int]:
    """Process ids of children, their children and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for known in found:
        found += children.get(known, [])
    return found[1:]
