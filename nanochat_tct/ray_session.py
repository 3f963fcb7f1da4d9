"""Starts Ray, or joins the one that is there. The jobs that use Ray call this before anything else of it."""

import functools
import logging
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nanochat_tct.errors import StorageError, UserError

CONNECT_SECONDS = 15  # for an address to answer as Ray does
ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: this machine is 127.0.0.1 to Ray
SOCKET_PATH_BYTES = 107 if sys.platform.startswith("linux") else 103
# What Ray puts between its temporary folder and the end of its longest socket path
SESSION_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/dash_MetricsHead")
START_TRIES = 3
WAIT_POLL_SECONDS = 2.0
WAIT_LINE_SECONDS = 30.0  # between lines while nothing changes
LACK_SECONDS = 10.0  # without a place before a run says that something is lacking
START_SECONDS = 60.0  # and before it does when nothing is: Ray Train takes its time on a busy machine
MAX_CAUSES = 10  # of an error that are looked at
OBJECT_STORE_BYTES = 2 * 2**30  # at most; Ray alone would take 30% of memory


def start_ray(num_cpus: int | None = None) -> str | None:
    """Join the cluster of the running job or of ``RAY_ADDRESS``, else start Ray here, on loopback only.

    Does nothing when this process has Ray already.

    Args:
        num_cpus: of a Ray started here; None for those of the machine. A joined cluster keeps its own.

    Returns:
        The address (host:port) of the dashboard of a Ray that was started now; None for one that was there.

    Raises:
        UserError: no Ray that takes us answers at ``RAY_ADDRESS``; Ray cannot start here, because of its temporary
            folder, or because this machine is too busy.
    """
    address = os.environ.get("RAY_ADDRESS", "")  # `ray job submit` sets it too
    is_local = address in ("", "local")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    if is_local:
        # Whatever its name says, this keeps Ray on 127.0.0.1. It is read when ray is imported.
        os.environ.setdefault(ON_LOOPBACK, "0")
        # Any free port: the fixed ones are left to a cluster of `ray start`.
        os.environ.setdefault("DASHBOARD_METRIC_PORT", "0")
        os.environ.setdefault("AUTOSCALER_METRIC_PORT", "0")
    import ray

    if ray.is_initialized():
        return None
    # It would warn that a token guards this Ray, as it should.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if is_local:
        return _start(num_cpus)
    _join(address)
    return None


def _start(num_cpus: int | None) -> str:
    """Start Ray on this machine, and return its dashboard's address. Raises: UserError when it cannot start."""
    import ray

    _check_temporary_folder()
    if "RAY_AUTH_TOKEN" not in os.environ:
        ensure_token()
    for attempt in range(1, START_TRIES + 1):
        # Of a fixed range of ports two Rays that start at once would take the same one.
        port = _free_port()
        # All processes of this Ray ask here about workers. Otherwise Ray Train and Tune would ask the cluster that the
        # shell submits jobs to, or whichever Ray of this machine they find first.
        os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
        try:
            with _address_for_workers(), _free_agent_port(), _deaf_to_sigterm():
                context = ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    object_store_memory=_object_store_bytes(),
                    dashboard_host="127.0.0.1",
                    dashboard_port=port,
                    logging_level=logging.WARNING,
                )
            return str(context.dashboard_url)
        except Exception as error:  # Ray has no narrower type for it
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            _end_half_started(error)
            if attempt == START_TRIES:
                raise UserError(
                    f"Ray did not start {attempt} times, within the 30 s that it gives itself: this machine is "
                    "too busy; run again when it is not"
                ) from error
            print("Ray did not start within its 30 s: this machine is busy; once more", file=sys.stderr)
    raise AssertionError("the last try returns or raises")


def _end_half_started(error: Exception) -> None:
    """End the processes of a Ray whose start ended in `error`; otherwise they would slow down the next one."""
    from ray._private.node import Node

    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):  # nothing else leads to it
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            return


def _join(address: str) -> None:
    """Join the Ray at `address`, and give the address to all processes of this job.

    Raises: UserError when no Ray answers there, or it does not take us. Ray itself would try again for minutes.
    """
    import ray

    try:
        if address.startswith("ray://"):
            _connect(address.removeprefix("ray://"))
            ray.init(address=address, logging_level=logging.WARNING)
            return
        from ray._private.services import canonicalize_bootstrap_address

        gcs_address = canonicalize_bootstrap_address(address)  # of "auto", too
        assert gcs_address is not None
        _ask(gcs_address)
        # Otherwise parts of Ray Train look for "the" Ray of this machine, and complain when there are two.
        environment = {"env_vars": {"RAY_ADDRESS": gcs_address}}
        ray.init(address=gcs_address, runtime_env=environment, logging_level=logging.WARNING)
    # Ray's own are of these kinds.
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot join Ray at RAY_ADDRESS={address}: {reason}; unset it to run locally"
        ) from error


def _connect(address: str) -> None:
    """Raise OSError unless a server of gRPC, as Ray's are, listens at ``host:port``."""
    import grpc  # type: ignore[import-untyped]
    from ray._private.grpc_utils import init_grpc_channel

    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(CONNECT_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise OSError(f"no Ray answers there within {CONNECT_SECONDS} s") from error


def _ask(address: str) -> None:
    """Raise OSError unless the Ray at ``host:port`` answers, takes our token and has our version."""
    import grpc
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        alive = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).CheckAlive
        try:
            answer = alive(gcs_service_pb2.CheckAliveRequest(), timeout=CONNECT_SECONDS)  # type: ignore[attr-defined]
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            if code == grpc.StatusCode.UNAUTHENTICATED:
                raise OSError(
                    "it requires a token, and got none or another one: export RAY_AUTH_MODE=token, with the token "
                    "that it was started with in ~/.ray/auth_token"
                ) from error
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                reason = f"no Ray answers there within {CONNECT_SECONDS} s"
            elif code == grpc.StatusCode.UNIMPLEMENTED or "HTTP/2" in details:
                reason = "what answers there is not Ray"
            elif details.startswith("errors resolving"):
                reason = "its name cannot be resolved"
            else:
                reason = re.sub(r"^[A-Z_]+: ", "", details.rpartition("last error: ")[2])
                if "refused" in reason and os.environ.get(ON_LOOPBACK) != "0":
                    reason += f" (a Ray that is on loopback only is joined with {ON_LOOPBACK}=0)"
            raise OSError(reason) from error
    if answer.ray_version != ray.__version__:
        raise OSError(
            f"Ray {answer.ray_version} answers there, and this is Ray {ray.__version__}; make them the same"
        )


def wait_for_gpus(count: int, minutes: float, say: Callable[[str], None]) -> None:
    """Waits until the joined cluster has so many GPUs, and lets an autoscaler know that they are wanted.

    Args:
        count: GPUs, one for each worker.
        minutes: the longest wait.
        say: gets a line at the start, whenever there are more or fewer, and every WAIT_LINE_SECONDS.

    Raises:
        UserError: they did not come in time.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    begin = last_line = time.monotonic()
    seen = None
    try:
        while (there := int(ray.cluster_resources().get("GPU", 0))) < count:
            now = time.monotonic()
            if now - begin > 60 * minutes:
                raise UserError(
                    f"waited {minutes:g} minutes for {count} GPUs; the cluster has {there} of {count}. Take a smaller "
                    "--num-workers, or raise max_workers in the cluster file, or see in `ray status` what the cloud "
                    "refuses (quota, no spot machines), or wait longer with --wait-minutes"
                )
            if seen is None:
                request_resources(bundles=[{"GPU": 1}] * count)
            if there != seen or now - last_line > WAIT_LINE_SECONDS:
                seen, last_line = there, now
                say(
                    f"waiting for {count} GPUs; cluster has {there} of {count} ({(now - begin) / 60:.0f} min)"
                )
            time.sleep(WAIT_POLL_SECONDS)
    finally:
        if seen is not None:
            request_resources(bundles=[])  # from here on the workers themselves keep them


def watch_workers(
    count: int,
    resources: dict[str, float],
    minutes: float,
    say: Callable[[str], None],
    is_over: Callable[[float], bool],
) -> None:
    """Say, until a run is over, which of its machines were lost, and when its workers have no place.

    Ray Train would try again for ever, and says nothing of it. Workers have their place as soon as a placement
    group of this job is complete, however long they then take to start, and for as long as they work.

    Args:
        count: workers, at least.
        resources: what each of them reserves.
        minutes: the longest wait for a place.
        say: gets a line for a lost machine, one when a wait is longer than usual, and one every WAIT_LINE_SECONDS.
        is_over: waits for so many seconds, and tells whether the run is over.

    Raises:
        UserError: there was no place in time.
    """
    import ray

    begin, last_line = time.monotonic(), -WAIT_LINE_SECONDS
    machines: dict[str, str] = {}  # those that workers are on: node id, address
    while not is_over(WAIT_POLL_SECONDS):
        try:
            nodes, groups = {node["NodeID"]: node for node in ray.nodes()}, _placement_groups()
            for node_id in [each for each in machines if not nodes.get(each, {}).get("Alive")]:
                say(f"lost machine {machines.pop(node_id)}")
            placed = [group for group in groups if group["state"] == "CREATED"]
            if placed:
                used = {node_id for group in placed for node_id in group["bundles_to_node_id"].values()}
                alive = {each for each in used if nodes.get(each, {}).get("Alive")}
                machines = {each: nodes[each]["NodeManagerAddress"] for each in alive}
                begin, last_line = time.monotonic(), -WAIT_LINE_SECONDS
                continue
            there, free = ray.cluster_resources(), ray.available_resources()
        except ray.exceptions.RayError:
            continue  # if Ray is going down, it says so itself
        lacks = any(free.get(name, 0) + 1e-6 < count * amount for name, amount in resources.items())
        now = time.monotonic()
        if now - begin < (LACK_SECONDS if lacks else START_SECONDS):
            continue
        each = " and ".join(f"{amount:g} {name}" for name, amount in resources.items())
        has = " and ".join(f"{free.get(name, 0):g} of {there.get(name, 0):g} {name}s" for name in resources)
        has += " free" + ("" if lacks else f", and {_why_not_placed(groups)}")
        if now - last_line > WAIT_LINE_SECONDS:
            last_line = now
            say(
                f"waiting for {count} workers with {each} each; the cluster has {has} "
                f"({(now - begin) / 60:.0f} min)"
            )
        if now - begin > 60 * minutes:
            raise UserError(
                f"waited {minutes:g} minutes for {count} workers with {each} each; the cluster has {has}. Take a "
                "smaller --num-workers, or end what else runs there, or add machines (max_workers in the cluster "
                "file), or wait longer with --wait-minutes"
            )


def _placement_groups() -> list[dict[str, Any]]:
    """Those of this job that are not removed: their ids end with that of the job."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    groups = ray.util.placement_group_table().values()
    return [
        group for group in groups if group["placement_group_id"].endswith(job) and group["state"] != "REMOVED"
    ]


def _why_not_placed(groups: list[dict[str, Any]]) -> str:
    """Why workers have no place though enough is free in sum, as far as Ray's state tells."""
    states = {group["stats"]["scheduling_state"] for group in groups}
    if states & {"NO_RESOURCES", "INFEASIBLE", "FAILED_TO_COMMIT_RESOURCES"}:
        return "no single machine has enough of it for one worker"
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    busy = f"; this machine is busy (load {load:.0f} on {cores} cores)" if load > cores else ""
    if states:
        return f"Ray is placing the workers{busy}"
    return f"Ray Train has not asked for them yet{busy}"


@contextmanager
def user_errors() -> Iterator[None]:
    """Raises the UserError that a task of Ray's ended with, in place of Ray's own error around it; a StorageError
    where Ray has no place left for objects."""
    import ray.exceptions

    try:
        yield
    except Exception as error:  # Ray Data wraps them in several ways
        inner: BaseException | None = error
        for _ in range(MAX_CAUSES):
            if isinstance(inner, ray.exceptions.OutOfDiskError | ray.exceptions.ObjectStoreFullError):
                raise StorageError(
                    "Ray's object store is full, and so is the disk that it spills to (above 95%): free some there, "
                    "or take a smaller --concurrency"
                ) from error
            if isinstance(inner, UserError) and not isinstance(inner, ray.exceptions.RayError):
                raise inner from error
            inner = getattr(inner, "cause", None) or getattr(inner, "__cause__", None)
        raise


@contextmanager
def _deaf_to_sigterm() -> Iterator[None]:
    """Make the Ray that is started in this context deaf to SIGTERM, as Ray itself makes it deaf to Ctrl-C.

    Slurm, systemd and `timeout` send it to all processes of a job at once. What is to be saved then needs Ray for as
    long as this process does; its end ends Ray too. This process hears the signal all the while.
    """
    is_over = threading.Event()
    threading.Thread(target=is_over.wait, daemon=True).start()  # takes the signal while this thread blocks it
    handler = signal.getsignal(signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        if callable(handler):
            signal.signal(signal.SIGTERM, handler)  # ray.init puts its own there
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        is_over.set()


@contextmanager
def _address_for_workers() -> Iterator[None]:
    """Chooses the port of the Ray that is started in this context, and tells its processes by ``RAY_ADDRESS``.

    Parts of Ray Train look for "the" Ray of this machine, and would stumble over a second one.
    """
    port = _free_port()
    before = dict(os.environ)
    os.environ.update({"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"127.0.0.1:{port}"})
    try:
        yield
    finally:
        for name in ("RAY_GCS_SERVER_PORT", "RAY_ADDRESS"):
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


def ensure_token(path: Path | None = None) -> Path:
    """The file with the token that Ray's processes and clients show each other; made if there is none.

    Ray would make it itself, but readable for everybody on this machine.

    Args:
        path: None for where Ray looks for it.
    """
    path = path or Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        suppress(FileExistsError),
        open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file,
    ):
        file.write(secrets.token_hex(32))
    return path


def _check_temporary_folder() -> None:
    """Raise UserError unless Ray can keep its files and sockets where it will."""
    from ray._common.utils import get_default_system_temp_dir

    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    folder = get_default_system_temp_dir()
    given = f"{name}={folder}" if name else folder
    too_long = len(os.fsencode(folder)) + SESSION_BYTES - SOCKET_PATH_BYTES
    if too_long > 0:
        raise UserError(
            f"{given} is {too_long} bytes too long for the sockets that Ray makes there; set RAY_TMPDIR to a shorter "
            "one, as /tmp"
        )
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (
            "it is a file" if isinstance(error, FileExistsError) else (error.strerror or str(error)).lower()
        )
        raise UserError(
            f"Ray cannot keep its files in {given} ({reason}); set RAY_TMPDIR to a folder that can be written"
        ) from error


def _free_port() -> int:
    """A port of loopback that nobody listens on; the system gives another one at each call."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _free_agent_port() -> Iterator[None]:
    """Let a Ray that is started in this context choose the port of its dashboard agent.

    A cluster of `ray start` wants the fixed one, and never takes a job without it. `ray.init` has no argument for it.
    """
    from ray._private import parameter

    original = parameter.RayParams
    parameter.RayParams = functools.partial(original, dashboard_agent_listen_port=0)  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        parameter.RayParams = original  # type: ignore[misc]


def _object_store_bytes() -> int:
    """A quarter of the memory of this machine, OBJECT_STORE_BYTES at most."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(OBJECT_STORE_BYTES, memory // 4)
