"""Start Ray, or join a Ray that runs already, before anything else of Ray is used; and wait for its resources."""

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nanochat_tct import ray_compat
from nanochat_tct.errors import StorageError, UserError

CONNECT_SECONDS = 15  # for an address to answer as Ray does
ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: Ray takes 127.0.0.1 as this machine's address
SOCKET_PATH_BYTES = 107 if sys.platform.startswith("linux") else 103
# What Ray puts between its temporary folder and the end of its longest socket path
SESSION_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/dash_MetricsHead")
START_TRIES = 3
WAIT_POLL_SECONDS = 2.0
WAIT_LINE_SECONDS = 30.0  # between lines while nothing changes
LACK_SECONDS = 10.0  # of waiting for resources that the cluster lacks, before a line says so
START_SECONDS = 60.0  # the same when it lacks nothing: Ray Train starts slowly on a busy machine
MAX_CAUSES = 10  # how deep to look into the causes of an error
OBJECT_STORE_BYTES = 2 * 2**30  # at most; Ray alone would take 30% of memory


def start_ray(num_cpus: int | None = None, with_dashboard: bool = False) -> str | None:
    """Join the cluster of the running job or of ``RAY_ADDRESS``, else start Ray here, on loopback only.

    Does nothing when this process has Ray already.

    Args:
        num_cpus: of a Ray started here; None for all of the machine. A joined cluster keeps its own.
        with_dashboard: give a Ray that is started here a dashboard, with the jobs and state APIs. These are two more
            processes, and only people and Ray Tune ask them.

    Returns:
        The address (host:port) of the dashboard of a Ray that was started now; None where there is none.

    Raises:
        UserError: no Ray that accepts us answers at ``RAY_ADDRESS``; Ray cannot start here, because of its temporary
            folder, or because this machine is too busy.
    """
    address = os.environ.get("RAY_ADDRESS", "")  # `ray job submit` sets it too
    is_local = address in ("", "local")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    if is_local:
        # Despite its name, this keeps Ray on 127.0.0.1. Ray reads it when it is imported.
        os.environ.setdefault(ON_LOOPBACK, "0")
        # Any free port: the fixed ones are left to a cluster of `ray start`.
        os.environ.setdefault("DASHBOARD_METRIC_PORT", "0")
        os.environ.setdefault("AUTOSCALER_METRIC_PORT", "0")
        # By default Ray runs workers at niceness 15, behind every other process; but waiting workers cost money too.
        os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        return None
    # Otherwise it warns that a token guards this Ray, as it should.
    logging.getLogger(ray_compat.AUTHENTICATION_LOGGER).setLevel(logging.ERROR)
    if is_local:
        with _timed("starting Ray"):
            return _start(num_cpus, with_dashboard)
    with _same_sigterm_handler():
        _join(address)
    return None


@contextmanager
def _timed(what: str) -> Iterator[None]:
    """Print on stderr what begins, and behind it at the end how many seconds it took: "starting Ray ... 5.2 s"."""
    begin = time.monotonic()
    print(f"{what} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
        print(f" {time.monotonic() - begin:.1f} s", end="", file=sys.stderr)
    finally:
        print(file=sys.stderr, flush=True)


def _start(num_cpus: int | None, with_dashboard: bool) -> str | None:
    """Start Ray on this machine, and return the address of its dashboard, if it has one.

    Raises: UserError when it cannot start.
    """
    import ray

    _check_temporary_folder()
    if "RAY_AUTH_TOKEN" not in os.environ:
        ensure_token()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for attempt in range(1, START_TRIES + 1):
        # From a fixed range of ports, two Rays that start at once would take the same one.
        port = _free_port()
        # All processes of this Ray ask here about workers. Otherwise Ray Train and Tune would ask the cluster that the
        # shell submits jobs to, or whichever Ray of this machine they find first.
        os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
        try:
            with _address_for_workers(), ray_compat.local_processes(with_dashboard), _without_sigterm():
                context = ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    object_store_memory=min(OBJECT_STORE_BYTES, memory // 4),
                    include_dashboard=with_dashboard,
                    dashboard_host="127.0.0.1",
                    dashboard_port=port,
                    logging_level=logging.WARNING,
                )
            return context.dashboard_url or None
        except Exception as error:  # Ray has no narrower type for it
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            ray_compat.end_half_started(error)
            if attempt == START_TRIES:
                raise UserError(
                    f"Ray did not start {attempt} times, within the 30 s that it gives itself: this machine is "
                    "too busy; run again when it is not"
                ) from error
            print("\nRay did not start within its 30 s: this machine is busy; once more", file=sys.stderr)
    raise AssertionError("the last try returns or raises")


def _join(address: str) -> None:
    """Join the Ray at `address`, and pass the address to all processes of this job.

    Raises: UserError when no Ray answers there, or it refuses us. Ray itself would try again for minutes.
    """
    import ray

    try:
        if address.startswith("ray://"):
            _connect(address.removeprefix("ray://"))
            ray.init(address=address, logging_level=logging.WARNING)
            return
        gcs_address = ray_compat.bootstrap_address(address)
        _ask(gcs_address)
        # Otherwise parts of Ray Train look for "the" Ray of this machine, and complain when there are two.
        environment = {"env_vars": {"RAY_ADDRESS": gcs_address}}
        ray.init(address=gcs_address, runtime_env=environment, logging_level=logging.WARNING)
    # These are the kinds that Ray raises.
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot join Ray at RAY_ADDRESS={address}: {reason}; unset it to run locally"
        ) from error


def _connect(address: str) -> None:
    """Raise OSError unless a server of gRPC, as Ray's are, listens at ``host:port``."""
    import grpc  # type: ignore[import-untyped]

    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    with ray_compat.open_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(CONNECT_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise OSError(f"no Ray answers there within {CONNECT_SECONDS} s") from error


def _ask(address: str) -> None:
    """Raise OSError unless the Ray at ``host:port`` answers, accepts our token and has our version."""
    import grpc
    import ray

    with ray_compat.open_channel(address) as channel:
        try:
            version = ray_compat.ask_version(channel, CONNECT_SECONDS)
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
    if version != ray.__version__:
        raise OSError(f"Ray {version} answers there, and this is Ray {ray.__version__}; make them the same")


def wait_for_gpus(count: int, minutes: float, say: Callable[[str], None]) -> None:
    """Wait until the joined cluster has `count` GPUs, and request them from its autoscaler.

    Args:
        count: GPUs, one for each worker.
        minutes: the longest wait.
        say: prints a line at the start, whenever the number changes, and every WAIT_LINE_SECONDS.

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
            request_resources(bundles=[])  # from now on the workers reserve them


def watch_workers(
    count: int,
    resources: dict[str, float],
    minutes: float,
    say: Callable[[str], None],
    is_over: Callable[[float], bool],
) -> None:
    """Until a run is over, report which of its machines are lost, and when its workers wait for resources.

    Ray Train would wait forever in silence. Workers have their resources as soon as a placement group of this job is
    complete, however long they then take to start, and for as long as they work.

    Args:
        count: the fewest workers.
        resources: what each worker reserves.
        minutes: the longest wait for resources.
        say: prints a line for a lost machine, one when a wait is longer than usual, and one every WAIT_LINE_SECONDS.
        is_over: waits for the given number of seconds, and returns whether the run is over.

    Raises:
        UserError: the resources did not come in time.
    """
    import ray

    begin, last_line = time.monotonic(), -WAIT_LINE_SECONDS
    machines: dict[str, str] = {}  # that workers run on: node id, address
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
            continue  # if Ray is going down, it reports that itself
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
    """The placement groups of this job that are not removed: their ids end with the job's id."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    groups = ray.util.placement_group_table().values()
    return [
        group for group in groups if group["placement_group_id"].endswith(job) and group["state"] != "REMOVED"
    ]


def _why_not_placed(groups: list[dict[str, Any]]) -> str:
    """Why workers wait although enough is free in total, as far as Ray's state shows."""
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
    """Raise the UserError that a Ray task ended with, instead of Ray's error around it; or a StorageError if Ray has
    no space left for objects."""
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
def _without_sigterm() -> Iterator[None]:
    """Make the Ray that is started in this context ignore SIGTERM, as Ray itself makes it ignore Ctrl-C.

    Slurm, systemd and `timeout` send it to all processes of a job at once. Saving a checkpoint then needs Ray for as
    long as this process runs, whose end ends Ray too. This process receives the signal all the while.
    """
    is_over = threading.Event()
    threading.Thread(target=is_over.wait, daemon=True).start()  # takes the signal while this thread blocks it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with _same_sigterm_handler():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        is_over.set()


@contextmanager
def _same_sigterm_handler() -> Iterator[None]:
    """Keep this process's answer to SIGTERM: `ray.init` puts `sys.exit` in its place, also where it joins a Ray."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _address_for_workers() -> Iterator[None]:
    """Choose the port of the Ray that is started in this context, and pass it to its processes as ``RAY_ADDRESS``.

    Parts of Ray Train look for "the" Ray of this machine, and fail when there is a second one.
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
    """The file with the token by which Ray's processes and clients authenticate; made if there is none.

    Ray would make it readable for everybody on this machine.

    Args:
        path: None for the path where Ray looks for it.
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
    """Raise UserError unless Ray can keep its files and sockets in its temporary folder."""
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    folder = ray_compat.temporary_folder()
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
    """A free port of loopback; the system picks another one at each call."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
