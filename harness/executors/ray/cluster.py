"""The Ray cluster that workers run on, which is the one at RAY_ADDRESS or one of this machine alone, and its capacity."""

import logging
import math
import os
import secrets
import socket
from pathlib import Path

from harness import devices
from harness.errors import MachineError, UserError

CONNECT_S = 5.0
# For objects that are being sent: a checkpoint of 16 lanes of the reference model takes about 150 MiB. Ray puts more on disk.
OBJECTS_BYTES = 200 * 2**20


def connect(workers: int) -> Path | None:
    """Join the cluster at RAY_ADDRESS, or start one on this machine with a CPU per worker.

    Return the session folder of a cluster that was started, None for one that was joined.

    Raises:
        UserError: RAY_ADDRESS is no address to join.
        MachineError: no cluster answers there, or it refuses.
    """
    address = os.environ.get("RAY_ADDRESS", "local")
    if address != "local":
        _check_address(address)
    else:
        _isolate()
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if address == "local":
        context = ray.init("local", num_cpus=workers, include_dashboard=False, object_store_memory=OBJECTS_BYTES, **quiet)
        return Path(context.address_info["session_dir"])
    try:
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as fault:  # Ray refuses in each of these ways
        raise MachineError(f"cannot join the Ray cluster at RAY_ADDRESS={address}: {fault}") from None
    return None


def _isolate() -> None:
    """Set up Ray for a cluster of this machine alone: loopback only, commands only with a secret token, no reports of usage."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # so Ray calls a cluster of one node, which listens on loopback
    if "RAY_AUTH_MODE" not in os.environ:  # without a token Ray would write one into the user's home
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def _check_address(address: str) -> None:
    """Raise UserError or MachineError unless something answers at an address; Ray itself would wait for minutes."""
    if "://" in address:
        raise UserError(f"RAY_ADDRESS={address}: start the study on a node of the cluster, with RAY_ADDRESS=auto or host:port")
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), CONNECT_S).close()
        except OSError as fault:
            raise MachineError(
                f"no Ray cluster answers at RAY_ADDRESS={address}: {fault}\nunset it to use this machine alone"
            ) from None


def gpu_share(workers: int, device: str) -> float:
    """Return the share of a GPU that each worker takes: equal for all, with as many on each GPU as must be; 0 to run on CPUs.

    Raises:
        MachineError: there is no GPU though `device` names one, or there is no room for so many workers.
    """
    import ray

    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    cpus, gpus = ([int(n.get(kind, 0)) for n in nodes] for kind in ("CPU", "GPU"))
    if devices.is_gpu(device) and not any(gpus):
        raise MachineError("DEVICE=cuda: no node of the Ray cluster has a GPU\nto train on CPUs: DEVICE=cpu")
    per_gpu = math.ceil(workers / sum(gpus)) if device != "cpu" and any(gpus) else 0
    room = sum(min(c, g * per_gpu) if per_gpu else c for c, g in zip(cpus, gpus, strict=True))
    if workers > room:
        resources = f"{sum(cpus)} CPUs" + (f" and {sum(gpus)} GPUs" if per_gpu else "")
        raise MachineError(f"WORKERS={workers}: the Ray cluster has room for {room}, a worker takes a CPU, and it has {resources}")
    return math.floor(1e4 / per_gpu) / 1e4 if per_gpu else 0.0
