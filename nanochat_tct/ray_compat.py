"""The private names of Ray that this package needs, each with the reason why nothing public does.

tests/test_ray_compat.py fails when Ray changes one of them. Nothing of Ray is imported before a function is called:
`ray_session` first sets variables that Ray reads when it is imported.
"""

import functools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Loggers that no setting of Ray silences: the first warns that a token guards a Ray, as it should; the second that
# Ray Data's progress bars are off.
AUTHENTICATION_LOGGER = "ray._private.authentication"
PROGRESS_LOGGER = "ray.data._internal.progress"


# -- starting and joining Ray


@contextmanager
def local_processes(with_dashboard: bool) -> Iterator[None]:
    """Let a Ray that is started in this context have no more processes than one machine needs.

    - It chooses the port of its dashboard agent: a cluster of `ray start` wants the fixed one, and never takes a job
      without it.
    - It has no autoscaler.
    - Without a dashboard it has no process for one either, for which `ray.init` would wait before it starts the others.

    `ray.init` has no arguments for these.
    """
    from ray._private import parameter, services

    parameters, dashboard = parameter.RayParams, services.start_api_server
    parameter.RayParams = functools.partial(parameters, dashboard_agent_listen_port=0, no_monitor=True)  # type: ignore[misc,assignment]
    if not with_dashboard:
        services.start_api_server = lambda *args, **kwargs: ("", None)
    try:
        yield
    finally:
        parameter.RayParams = parameters  # type: ignore[misc]
        services.start_api_server = dashboard


def end_half_started(error: Exception) -> None:
    """End the processes of a Ray whose start ended in `error`; otherwise they would slow down the next one.

    `ray.shutdown` does not know of them yet: only the traceback leads to the node that started them.
    """
    from ray._private.node import Node

    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            return


def temporary_folder() -> str:
    """Where Ray keeps its files and sockets. `ray.init` makes it at once, and fails with a traceback if it cannot."""
    from ray._common.utils import get_default_system_temp_dir

    return get_default_system_temp_dir()


def bootstrap_address(address: str) -> str:
    """The host:port of the cluster's control store that `ray.init(address)` would join; of "auto", too.

    `ray.init` itself would try to join it for minutes before it fails.
    """
    from ray._private.services import canonicalize_bootstrap_address

    found = canonicalize_bootstrap_address(address)
    assert found is not None
    return found


def open_channel(address: str) -> Any:
    """A gRPC channel to a Ray, with the encryption and the token that `ray.init` would use."""
    from ray._private.grpc_utils import init_grpc_channel

    return init_grpc_channel(address, [("grpc.enable_http_proxy", 0)])


def ask_version(channel: Any, timeout: float) -> str:
    """The version of the Ray at the other end of a channel. Nothing public asks within a time limit.

    Raises: grpc.RpcError when it is not a Ray, does not take our token or does not answer in `timeout` seconds.
    """
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    request = gcs_service_pb2.CheckAliveRequest()  # type: ignore[attr-defined]
    answer = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).CheckAlive(request, timeout=timeout)
    return str(answer.ray_version)


def validated_cluster(content: dict[str, Any]) -> dict[str, Any]:
    """A cluster file as `ray up` would complete it; the command line has no way to only look at one.

    Raises: jsonschema.ValidationError, ValueError or AssertionError for one that `ray up` would refuse.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(content)
    validate_config(prepared)
    return prepared


# -- Ray Train


@functools.cache
def local_trainer() -> type[Any]:
    """Ray's TorchTrainer for the Ray that this process has started, with fewer processes than on a cluster.

    Each process imports pandas, Ray Data and Ray Train, and no setting leaves one out. On one machine these are of no
    use: the controller as a process of its own, which would also start the workers with variables that they inherit
    anyway, for which Ray starts Python twice; and the actors that ask an autoscaler for machines, serve data sets of
    Ray Data, and free the workers' resources when only the controller has died.
    """
    import asyncio

    import ray
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
    from ray.train.v2._internal.execution.worker_group import WorkerGroup

    class LocalWorkers(WorkerGroup):
        """Workers without an actor that controls them, and without variables of their own."""

        @staticmethod
        def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
            return custom_runtime_env

        def _init_train_context_on_workers(
            self, workers: Any, sync_actor: Any, train_context_args: Any
        ) -> None:
            begun = [
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,
                    **{name: values[index] for name, values in train_context_args.items()},
                )
                for index, worker in enumerate(workers)
            ]
            ray.get(begun)
            self._decorate_worker_log_file_paths(workers)

    class LocalController(TrainController):
        worker_group_cls = LocalWorkers

    class SameWorkers(FixedScalingPolicy):
        """A fixed number of workers, for which no autoscaler is asked."""

        def after_controller_start(self, train_run_context: Any) -> None:
            pass

        def _maybe_send_resource_request(self) -> None:
            pass

    class LocalTrainer(TorchTrainer):
        controller_cls, scaling_policy_cls = LocalController, SameWorkers

        def _create_default_callbacks(self) -> list[Any]:
            useless = (DatasetsCallback, PlacementGroupCleanerCallback)
            callbacks = super()._create_default_callbacks()  # type: ignore[misc]
            return [each for each in callbacks if not isinstance(each, useless)]

        def _initialize_and_run_controller(self, **controller_init_kwargs: Any) -> Any:
            scaling: Any = self.scaling_config
            if not scaling.elasticity_enabled:
                controller_init_kwargs["scaling_policy"] = self.scaling_policy_cls(scaling)
            controller = self.controller_cls(**controller_init_kwargs)
            asyncio.run(controller.run())
            return controller.get_result()

    return LocalTrainer


def is_lost_worker(error: Exception) -> bool:
    """Whether a worker's process is gone or hangs, as Ray Train's controller finds when it polls it.

    `WorkerGroupError` hands on the controller's own exceptions, which are not public.
    """
    from ray.exceptions import RayError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

    if isinstance(error, WorkerHealthCheckFailedError):
        error = error.health_check_failure
    return isinstance(error, RayError | WorkerHealthCheckTimeoutError)


def is_preempted() -> bool:
    """Whether a machine of this worker's run is about to go; on a worker of Ray Train.

    `ray.train.get_preemption_info` starts from the same, but makes all workers wait for each other.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None


def draining_nodes() -> set[str]:
    """Ids of the nodes that are about to go; for processes that are not Ray Train's, which nobody tells."""
    from ray._private.state import state

    return set(state.get_draining_nodes())


def reserve_for(seconds: int) -> None:
    """In Ray Train's controller: how long an elastic run's CPUs or GPUs stay reserved after its driver was killed.

    The controller renews the reservation every 20 s, for 180 s at a time. After a kill of the driver the same command
    has to wait until that is over; there is no setting for it.
    """
    from ray.train.v2._internal.execution.scaling_policy import autoscaling_coordinator_client

    autoscaling_coordinator_client.AUTOSCALING_REQUESTS_EXPIRE_TIME_S = seconds


def use_address_of(serve: Callable[[], tuple[str, int]]) -> None:
    """In Ray Train's controller: let rank 0 run `serve` where it would only look for a free port.

    The workers meet at the address and port that it returns. Without this, torch serves the store of
    torch.distributed on all interfaces.
    """
    import ray.train.torch.config

    ray.train.torch.config.get_address_and_port = serve
