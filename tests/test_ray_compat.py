"""Each private name of Ray that the package uses is there, and does what the package uses it for.

Those that start or join a Ray are in tests/test_ray_session.py.
"""

import dataclasses
import inspect
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import nanochat_tct
from nanochat_tct import ray_compat

PRIVATE = re.compile(r"\bray(\.\w+)*\._\w+|\bray\.core\.generated|\bget_address_and_port\b")


def test_private_names_are_in_one_file() -> None:
    package = Path(nanochat_tct.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if PRIVATE.search(re.sub(r"\bray\.__version__", "", path.read_text()))
    }
    assert found == {"ray_compat.py"}


def names_in(function: Callable[..., Any]) -> set[str]:
    """Names that a function looks up in its module and in objects, those of functions inside it too."""
    codes, names = [inspect.unwrap(function).__code__], set()
    for code in codes:
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return names


def test_processes_are_left_out_by_names_that_init_looks_up() -> None:
    """`ray.init` looks them up in their modules when it is called, and takes no parameters that are not known."""
    import ray
    from ray._private import node, parameter, services

    parameters, dashboard = parameter.RayParams, services.start_api_server
    with ray_compat.local_processes(with_dashboard=False):
        assert parameter.RayParams().dashboard_agent_listen_port == 0 and parameter.RayParams().no_monitor
        assert services.start_api_server is not dashboard
    assert parameter.RayParams is parameters and services.start_api_server is dashboard
    assert parameters().dashboard_agent_listen_port != 0 and not parameters().no_monitor
    with ray_compat.local_processes(with_dashboard=True):
        assert services.start_api_server is dashboard
    assert "RayParams" in names_in(ray.init)
    assert "start_api_server" in names_in(node.Node.start_api_server)


def test_the_node_in_a_traceback_is_ended() -> None:
    from ray._private.node import Node

    ended: list[dict[str, bool]] = []

    class HalfStarted(Node):
        def __init__(self) -> None:
            raise RuntimeError("timed out during startup")

        def kill_all_processes(self, **options: bool) -> None:
            inspect.signature(Node.kill_all_processes).bind(self, **options)
            ended.append(options)

    with pytest.raises(RuntimeError) as caught:
        HalfStarted()
    ray_compat.end_half_started(caught.value)
    assert ended == [{"check_alive": False, "allow_graceful": False}]


def test_what_ray_up_refuses_is_refused() -> None:
    from jsonschema import ValidationError

    cluster = {"cluster_name": "a", "provider": {"type": "local", "head_ip": "h", "worker_ips": []}}
    assert ray_compat.validated_cluster(cluster | {"auth": {"ssh_user": "me"}})["max_workers"] == 0
    with pytest.raises(ValidationError):
        ray_compat.validated_cluster(cluster | {"auth": {"ssh_user": "me"}, "no_such_key": 1})


def test_a_lost_worker_is_told_from_a_mistake() -> None:
    import ray
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

    died = ray.exceptions.ActorDiedError()
    for lost in (died, WorkerHealthCheckFailedError("rank 0", died), WorkerHealthCheckTimeoutError("rank 0")):
        assert ray_compat.is_lost_worker(lost)
    for mistake in (ValueError("a"), WorkerHealthCheckFailedError("rank 0", ValueError("a"))):
        assert not ray_compat.is_lost_worker(mistake)


def test_a_worker_knows_that_its_machine_is_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train.v2._internal.execution import context
    from ray.train.v2._internal.execution.preemption import PreemptionContext

    [field] = [each for each in dataclasses.fields(context.TrainContext) if each.name == "preemption_context"]
    assert field.type in (PreemptionContext, "PreemptionContext")
    here = context.TrainContext.__new__(context.TrainContext)
    here.preemption_context = PreemptionContext()
    monkeypatch.setattr(context, "get_train_context", lambda: here)
    assert not ray_compat.is_preempted()
    here.preemption_context.preemption_info = object()  # as the worker's main thread sets it
    assert ray_compat.is_preempted()
    import ray.train

    assert "preemption_info" in PreemptionContext.__dataclass_fields__ and ray.train.get_preemption_info


def test_nodes_that_are_to_go_can_be_asked_for() -> None:
    """Ray Train's own watcher asks the same; test_killed_node.py shows what a worker makes of it."""
    from ray._private.state import GlobalState, state
    from ray.train.v2._internal.execution import preemption

    assert isinstance(state, GlobalState) and not inspect.signature(state.get_draining_nodes).parameters
    assert "get_draining_nodes" in names_in(preemption._get_draining_nodes)


def test_how_long_a_reservation_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client looks the number up at each request."""
    from ray.train.v2._internal.execution.scaling_policy import autoscaling_coordinator_client as client

    monkeypatch.setattr(client, "AUTOSCALING_REQUESTS_EXPIRE_TIME_S", 180)
    ray_compat.reserve_for(60)
    assert client.AUTOSCALING_REQUESTS_EXPIRE_TIME_S == 60
    methods = [
        method
        for _, each in inspect.getmembers(client, inspect.isclass)
        if each.__module__ == client.__name__
        for _, method in inspect.getmembers(each, inspect.isfunction)
    ]
    assert any("AUTOSCALING_REQUESTS_EXPIRE_TIME_S" in names_in(method) for method in methods)


def test_a_local_trainer_overrides_methods_that_there_are() -> None:
    """With the same arguments. tests/training/test_launch.py shows which actors a run has."""
    trainer = ray_compat.local_trainer()
    controller = trainer.controller_cls
    for ours in (trainer, controller, controller.worker_group_cls, trainer.scaling_policy_cls):
        (theirs,) = ours.__bases__
        for name, method in inspect.getmembers(ours, inspect.isfunction):
            if method.__module__ == ray_compat.__name__:
                assert arguments(method) == arguments(getattr(theirs, name)), name
    assert "worker_group_cls" in names_in(controller._start_worker_group)
    assert "_initialize_and_run_controller" in names_in(trainer.fit)


def arguments(method: Callable[..., Any]) -> list[str]:
    """The names of a method's arguments, with the asterisks of those that stand for several."""
    return [str(each).partition(":")[0] for each in inspect.signature(method).parameters.values()]


def test_rank_0_is_asked_for_the_address_by_our_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train's backend looks the function up in its module when workers start."""
    import ray.train.torch.config as module

    monkeypatch.setattr(module, "get_address_and_port", module.get_address_and_port)

    def serve() -> tuple[str, int]:
        return "127.0.0.1", 1

    ray_compat.use_address_of(serve)
    assert module.get_address_and_port is serve
    assert "get_address_and_port" in names_in(module.TorchConfig().backend_cls.on_start)


@pytest.mark.parametrize("name", [ray_compat.AUTHENTICATION_LOGGER, ray_compat.PROGRESS_LOGGER])
def test_loggers_are_named_after_modules_that_log(name: str) -> None:
    package = import_module(name)
    modules = [
        package,
        *(import_module(f"{name}.{each.name}") for each in pkgutil.iter_modules(package.__path__)),
    ]
    assert any(getattr(module, "logger", None) is not None for module in modules)
