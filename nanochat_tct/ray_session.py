"""Starts Ray, or joins the one that is there. The jobs that use Ray call this before anything else of it."""

import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nanochat_tct.errors import StorageError, UserError

CONNECT_SECONDS = 10
START_TRIES = 3
WAIT_POLL_SECONDS = 2.0
WAIT_LINE_SECONDS = 30.0  # between lines while nothing changes
LACK_SECONDS = 10.0  # without a place before a run says that something is lacking
START_SECONDS = 60.0  # and before it does when nothing is: Ray Train takes its time on a busy machine
MAX_CAUSES = 10  # of an error that are looked at
OBJECT_STORE_BYTES = 2 * 2**30  # at most; Ray alone would take 30% of memory


def start_ray(num_cpus: int | None = None) -> None:
    """Joins the cluster of the running job or of ``RAY_ADDRESS``, else starts Ray here, on loopback only.

    Does nothing when this process has Ray already.

    Args:
        num_cpus: of a Ray started here; None for those of the machine. A joined cluster keeps its own.

    Raises:
        UserError: nothing answers at ``RAY_ADDRESS``; this machine is too busy to start Ray.
    """
    address = os.environ.get("RAY_ADDRESS", "")  # `ray job submit` sets it too
    is_local = address in ("", "local")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    if is_local:
        # Whatever its name says, this keeps Ray on 127.0.0.1. It is read when ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        return
    # It would warn that a token guards this Ray, as it should.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if is_local:
        if "RAY_AUTH_TOKEN" not in os.environ:
            ensure_token()
        for attempt in range(1, START_TRIES + 1):
            try:
                with _address_for_workers():
                    ray.init(
                        address="local",
                        num_cpus=num_cpus,
                        object_store_memory=_object_store_bytes(),
                        dashboard_host="127.0.0.1",
                        logging_level=logging.WARNING,
                    )
                break
            except Exception as error:  # Ray has no narrower type for it
                if "timed out during startup" not in str(error):
                    raise
                ray.shutdown()
                if attempt == START_TRIES:
                    raise UserError(
                        f"Ray did not start {attempt} times, within the 30 s that it gives itself: this machine is "
                        "too busy; run again when it is not"
                    ) from error
                print("Ray did not start within its 30 s: this machine is busy; once more", file=sys.stderr)
        return
    try:
        _knock(address)
        ray.init(address=address, logging_level=logging.WARNING)
    except (OSError, ValueError) as error:  # Ray's own are of these kinds
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot join Ray at RAY_ADDRESS={address}: {reason}; unset it to run locally"
        ) from error


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
    """Tells, until a run is over, when Ray has no place for its workers: at the start, or after some were lost.

    Ray Train would try again for ever, and says nothing of it. Workers have their place as soon as a placement
    group of this job is complete, however long they then take to start, and for as long as they work.

    Args:
        count: workers, at least.
        resources: what each of them reserves.
        minutes: the longest wait for a place.
        say: gets a line when the wait is longer than usual, and every WAIT_LINE_SECONDS.
        is_over: waits for so many seconds, and tells whether the run is over.

    Raises:
        UserError: there was no place in time.
    """
    import ray

    begin, last_line = time.monotonic(), -WAIT_LINE_SECONDS
    while not is_over(WAIT_POLL_SECONDS):
        try:
            if _has_place():
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
        has += " free" if lacks else " free, perhaps in pieces or promised to another run"
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


def _has_place() -> bool:
    """Whether a placement group of this job is complete: its id ends with that of the job."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    groups = ray.util.placement_group_table().values()
    return any(group["state"] == "CREATED" and group["placement_group_id"].endswith(job) for group in groups)


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
def _address_for_workers() -> Iterator[None]:
    """Chooses the port of the Ray that is started in this context, and tells its processes by ``RAY_ADDRESS``.

    Parts of Ray Train look for "the" Ray of this machine, and would stumble over a second one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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


def _knock(address: str) -> None:
    """Raises OSError when nothing listens at ``host:port`` or ``ray://host:port``: Ray would try for minutes."""
    host, _, port = address.split("://")[-1].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _object_store_bytes() -> int:
    """A quarter of the memory of this machine, OBJECT_STORE_BYTES at most."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(OBJECT_STORE_BYTES, memory // 4)
