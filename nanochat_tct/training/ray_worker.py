"""The training loop on one of Ray Train's workers: how it reports to the driver, and what makes it stop."""

import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.util
import torch
import torch.distributed
from ray.train.torch import TorchConfig

from nanochat_tct import ray_compat
from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.training.distributed import StoppedTogether, Worker, set_up_device
from nanochat_tct.training.nodes import check_nodes
from nanochat_tct.training.signals import PREEMPTED

POLL_SECONDS = 0.2  # how often the driver is asked whether it wants to stop
RESERVED_SECONDS = 60  # for how long CPUs or GPUs stay reserved for a run whose driver was killed

# A SIGTERM that reached the driver too is the driver's to answer: its stop request comes within this time.
DRIVER_FIRST_SECONDS = 2.0
LOOPBACK = "lo" if sys.platform.startswith("linux") else "lo0"

_sigterm_at: float | None = None  # when this process received SIGTERM, by time.monotonic()
_store: torch.distributed.TCPStore | None = None  # by which workers find each other, where it is served


class Preempted(Exception):
    """The workers saved a checkpoint because one of their machines goes away; Ray is to start them again."""


def train_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """Train as `settings["config"]` says; `settings["channel"]`, an actor of DriverChannel, leads to the driver.

    Raises: Preempted, on all workers.
    """
    # Train's controller imports this module too, and has no use for the loop.
    from nanochat_tct.training.trainer import Reporter, Trainer

    logging.getLogger().setLevel(logging.WARNING)  # not a line for each report
    config = ResolvedConfig(**settings["config"])
    channel = settings["channel"]
    worker = this_worker(config.use_gpu)
    reasons: list[str] = []  # the driver's stop request
    if worker.is_first:
        threading.Thread(target=poll_driver, args=(channel, reasons), daemon=True).start()

    def stop_reason() -> str | None:
        return reasons[0] if reasons else preemption(worker)

    put = channel.put.remote
    try:
        check_nodes(config.data_dir, worker)
        reporter = Reporter(
            say=put,
            report=ray.train.report,
            progress=put,
            stop_reason=stop_reason,
            is_restart=worker.is_first and ray.get(channel.count_start.remote()) > 0,
        )
        result = Trainer(config, worker, reporter).run()
    except StoppedTogether as error:  # an end, not a failure: starting again would not help
        return {"error": str(error)}
    stopped = result["stopped"]
    if stopped is not None and stopped.startswith(PREEMPTED):
        if worker.is_first:
            ray.get(put(f"{stopped}; saved at iter {result['step']}, starting again with who is left"))
        raise Preempted(stopped)
    return result


def this_worker(use_gpu: bool) -> Worker:
    """This process as Ray Train sees it, with its device ready."""
    context = ray.train.get_context()
    device = ray.train.torch.get_device() if use_gpu else torch.device("cpu")
    set_up_device(device, context.get_local_world_size())
    return Worker(context.get_world_rank(), context.get_world_size(), device)


def preemption(worker: Worker) -> str | None:
    """Why this worker should save and leave, for Ray to start it elsewhere; None while nothing asks for that."""
    if _sigterm_at is not None and time.monotonic() - _sigterm_at > DRIVER_FIRST_SECONDS:
        return f"{PREEMPTED}: SIGTERM at worker {worker.rank}"
    return f"{PREEMPTED}: a machine is to go" if ray_compat.is_preempted() else None


def poll_driver(channel: Any, reasons: list[str]) -> None:
    """Ask the driver for a stop request until there is one, which goes into `reasons`, or the driver is gone."""
    while not reasons:
        try:
            reason = ray.get(channel.stop_reason.remote())
        except ray.exceptions.RayError:
            return
        if reason is not None:
            reasons.append(reason)
        time.sleep(POLL_SECONDS)


def handle_sigterm() -> None:
    """Make SIGTERM a stop request; the second one ends the process as Ray has it. For the main thread.

    Otherwise processes of a Ray that was started here ignore it (`ray_session`).
    """
    before = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        global _sigterm_at
        if _sigterm_at is not None and callable(before):
            before(number, frame)
        _sigterm_at = time.monotonic()

    signal.signal(signal.SIGTERM, handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def stay_on_loopback() -> None:
    """Keep gloo and NCCL to the loopback interface, where Ray is on it: they choose another one if they can."""
    if ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, LOOPBACK)


def use_served_store() -> None:
    """Make torch connect to the store of `serve_store`, also on the worker that serves it."""
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"


def serve_store() -> tuple[str, int]:
    """Serve the store by which workers find each other, on this machine's address only; torch's own would listen on
    all of them. Returns: address and port.
    """
    global _store
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
        _store = torch.distributed.TCPStore(
            host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )
    return host, port


class StoppableTorchConfig(TorchConfig):
    """Ray Train's own set-up of torch.distributed, on workers that handle SIGTERM and listen on Ray's address only.

    Python handles signals in the main thread. There Ray Train runs what a backend asks for; the loop has another one.
    """

    @property
    def backend_cls(self) -> type:
        return StoppableTorchBackend


class StoppableTorchBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    """See StoppableTorchConfig."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        # This runs in Train's controller.
        ray_compat.reserve_for(RESERVED_SECONDS)
        worker_group.execute(stay_on_loopback)
        worker_group.execute(use_served_store)
        ray_compat.use_address_of(serve_store)
        super().on_start(worker_group, backend_config)
        worker_group.execute(handle_sigterm)
