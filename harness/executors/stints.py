"""What a process knows of how it trained a trial: stretches of training, evaluation, machine. The trial's manifest keeps it.

A stint is a stretch of training in one process, from an epoch to an epoch; a trial that went on from a checkpoint has several.
"""

import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from harness import devices
from harness.provenance import now
from harness.spec import TrialSpec
from harness.training.batches import STREAMS, seed_of

PRESSURE = Path("/proc/pressure/cpu")
# Variables of the environment by which a library chooses how it computes.
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MKL_CBWR",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "HARNESS_KERNELS",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "CUDA_VISIBLE_DEVICES",
    "PYTHONHASHSEED",
)


def load_of_machine() -> dict[str, Any]:
    """Return how busy the machine is: the load averages over 1, 5 and 15 minutes, and the pressure on the CPU as Linux words it."""
    pressure = "not offered by this kernel"
    with suppress(OSError):  # no such file, or switched off, which is an error on reading
        pressure = PRESSURE.read_text().partition("\n")[0] or pressure
    return {"load": [round(x, 2) for x in os.getloadavg()], "pressure": pressure}


@cache
def machine(device: torch.device) -> Mapping[str, Any]:
    """Return what is computed with: processor, GPU, versions, and the settings of torch in this process."""
    return {
        "host": socket.gethostname(),
        "cpu": devices.cpu_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": devices.cores(),
        "ram_bytes": devices.memory_of_machine(),
        "gpu": devices.gpu_facts(device),
        "os": platform.platform(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torch_build": "\n".join(line for line in torch.__config__.show().splitlines() if "capability" not in line),
        "variables": {name: os.environ.get(name, "unset") for name in VARIABLES},
    }


def flags() -> dict[str, Any]:
    """Return the settings of torch that bear on the last bits of a result."""
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def begun(specs: Sequence[TrialSpec], device: torch.device, execution: str, epoch: int) -> dict[str, Any]:
    """Return the facts of a stint that begins now, after `epoch` epochs, without those of its end."""
    return {
        "device": str(device),
        "on": devices.describe(device),
        "host": socket.gethostname(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "execution": execution,
        "lanes": [s.id for s in specs],
        "from_epoch": epoch,
        "begun": now(),
        "before": load_of_machine(),
    }


def ended(stint: Mapping[str, Any], epoch: int, *, compiled: bool) -> dict[str, Any]:
    """Return a stint with the facts of its end, after `epoch` epochs."""
    return {**stint, "to_epoch": epoch, "compiled": compiled, "ended": now(), "after": load_of_machine()}


class Stopwatch:
    """A measurement of an evaluation, from its making to `facts`."""

    def __init__(self) -> None:
        self.begun, self.started = now(), time.perf_counter()

    def facts(self, device: torch.device) -> dict[str, Any]:
        """Return the times of the evaluation that ends now, and where it was made."""
        return {
            "device": str(device),
            "threads": torch.get_num_threads(),
            "begun": self.begun,
            "ended": now(),
            "seconds": time.perf_counter() - self.started,
        }


def facts_of(
    spec: TrialSpec, stints: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any], trained_s: float, device: torch.device
) -> dict[str, Any]:
    """Return all that this process knows of a finished trial, as JSON values."""
    return {
        "stints": list(stints),
        "evaluation": dict(evaluation),
        "train_s": trained_s,
        "machine": dict(machine(device)),
        "seeds": {stream: seed_of(spec.seed, stream, 0) for stream in STREAMS},
        "flags": flags(),
    }
