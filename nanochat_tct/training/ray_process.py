"""What every process of Ray that trains does about signals and its network; without Ray Train, whose import is slow."""

import ipaddress
import os
import signal
import socket
import sys
import time
from types import FrameType

import ray.util
import torch.distributed

from nanochat_tct.training.signals import PREEMPTED

# A SIGTERM that reached the driver too is the driver's to answer: its stop request comes within this time.
DRIVER_FIRST_SECONDS = 2.0
LOOPBACK = "lo" if sys.platform.startswith("linux") else "lo0"

_sigterm_at: float | None = None  # when this process received SIGTERM, by time.monotonic()
_store: torch.distributed.TCPStore | None = None  # by which workers find each other, where it is served


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


def preemption_reason(rank: int, is_to_go: bool) -> str | None:
    """Why this worker should save and leave, for Ray to start it elsewhere; None while nothing asks for that.

    Args:
        is_to_go: whether Ray says that a machine of the run is about to go.
    """
    if _sigterm_at is not None and time.monotonic() - _sigterm_at > DRIVER_FIRST_SECONDS:
        return f"{PREEMPTED}: SIGTERM at worker {rank}"
    return f"{PREEMPTED}: a machine is to go" if is_to_go else None


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


def join_group(backend: str, rank: int, world_size: int, address: tuple[str, int]) -> None:
    """Make this process one of several that torch.distributed joins, on the store that rank 0 serves."""
    store = _store if rank == 0 else torch.distributed.TCPStore(*address, is_master=False)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
