"""The training loop on one of Ray Train's workers: how it reports to the driver, and what makes it stop."""

import logging
import os
import threading
import time
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.torch import TorchConfig

from nanochat_tct import ray_compat
from nanochat_tct.tracking.tracker import QUALITY
from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.training.distributed import StoppedTogether, Worker, set_up_device
from nanochat_tct.training.nodes import check_nodes
from nanochat_tct.training.ray_metrics import RayGauges
from nanochat_tct.training.ray_process import (
    handle_sigterm,
    preemption_reason,
    serve_store,
    stay_on_loopback,
)
from nanochat_tct.training.signals import PREEMPTED

POLL_SECONDS = 0.2  # how often the driver is asked whether it wants to stop
RESERVED_SECONDS = 60  # for how long CPUs or GPUs stay reserved for a run whose driver was killed


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
        return reasons[0] if reasons else preemption_reason(worker.rank, ray_compat.is_preempted())

    put = channel.put.remote
    gauges = RayGauges(config.run_name)

    def progress(metrics: dict[str, Any]) -> None:
        put(metrics)
        gauges.set(metrics)

    def report(metrics: dict[str, Any]) -> None:
        ray.train.report(metrics)
        if worker.is_first:
            gauges.set({QUALITY: metrics[QUALITY]})  # the loss among its metrics is that of validation

    try:
        check_nodes(config.data_dir, worker)
        reporter = Reporter(
            say=put,
            report=report,
            progress=progress,
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


def use_served_store() -> None:
    """Make torch connect to the store of `serve_store`, also on the worker that serves it."""
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"


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
