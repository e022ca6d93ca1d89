"""Devices: the only file that knows them. Which one, how many threads, how long a step took, how much memory."""

import os
import platform
import resource
import time
from pathlib import Path

import torch

from harness.errors import MachineError, UserError

MEBI = 2**20


def device(name: str) -> torch.device:
    """The device called `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        UserError: a name of another form. MachineError: a GPU that is not here; never a silent fallback.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdigit())):
        raise UserError(f"unknown device {name!r}\nknown: auto, cpu, cuda, cuda:0, cuda:1, ...")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        build = (torch.version.cuda and f"torch {torch.__version__} sees no GPU") or f"torch {torch.__version__} has no CUDA"
        raise MachineError(f"DEVICE={name}: no CUDA GPU here ({build})\nhere: cpu. To train on it: DEVICE=cpu")
    if int(index or 0) >= torch.cuda.device_count():
        here = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        raise MachineError(f"DEVICE={name}: no such GPU\nhere: {here}, cpu")
    return torch.device("cuda", int(index or 0))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(where: torch.device) -> str:
    """The device in words, as results should quote it."""
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    return f"{cpu_name()}, {cores()} cores"


def cpu_name() -> str:
    """The processor's model name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def one_thread() -> None:
    """Pin this process's torch to one thread: results do not depend on the machine's core count, workers do not fight."""
    torch.set_num_threads(1)


def lanes_that_fit(where: torch.device, bytes_per_lane: int) -> int:
    """How many trials train together: one on a CPU (lanes there only amortise dispatch), as many as memory holds on a GPU.

    At most 64: by estimate the step is bound by memory traffic from there on (docs/log.md; not yet measured on a GPU).
    """
    if where.type == "cpu":
        return 1
    free, _ = torch.cuda.mem_get_info(where)
    return max(1, min(64, int(0.7 * free) // bytes_per_lane))


class StepTimer:
    """Marks in time between the steps of an epoch, without waiting for the device. `seconds` reads the gaps, once."""

    def __init__(self, where: torch.device) -> None:
        self.cuda = where.type == "cuda"
        self.marks: list = []
        self.mark()

    def mark(self) -> None:
        """Note the time now, on the device's own clock."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Time between successive marks."""
        if self.cuda:
            self.marks[-1].synchronize()
            return [a.elapsed_time(b) / 1e3 for a, b in zip(self.marks, self.marks[1:], strict=False)]
        return [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]


def peak_memory_mib(where: torch.device) -> float:
    """Most memory held so far: by this process on a CPU, by its tensors on a GPU. MiB."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / MEBI
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024) / MEBI
