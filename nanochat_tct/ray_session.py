"""Starts Ray, or joins the one that is there. The jobs that use Ray call this before anything else of it."""

import logging
import os

from nanochat_tct.errors import UserError

OBJECT_STORE_BYTES = 2 * 2**30  # at most; Ray alone would take 30% of memory


def start_ray(num_cpus: int | None = None) -> None:
    """Joins the cluster of the running job or of ``RAY_ADDRESS``, else starts Ray here, on loopback only.

    Does nothing when this process has Ray already.

    Args:
        num_cpus: of a Ray started here; None for those of the machine. A joined cluster keeps its own.

    Raises:
        UserError: nothing answers at ``RAY_ADDRESS``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")  # `ray job submit` sets it too
    if address and address != "local":
        try:
            ray.init(address=address, logging_level=logging.WARNING)
        except (ConnectionError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"cannot join Ray at RAY_ADDRESS={address}: {reason}; unset it to run locally"
            ) from error
        return
    # It would warn that a token guards this Ray, as it should.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    ray.init(
        address="local",
        num_cpus=num_cpus,
        object_store_memory=_object_store_bytes(),
        dashboard_host="127.0.0.1",
        logging_level=logging.WARNING,
        _node_ip_address="127.0.0.1",
    )


def _object_store_bytes() -> int:
    """A quarter of the memory of this machine, OBJECT_STORE_BYTES at most."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(OBJECT_STORE_BYTES, memory // 4)
