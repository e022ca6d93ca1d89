"""Names of executors and devices and numbers of workers, judged before torch is imported. What a machine has is in devices/."""

import json
import os
import platform
import shutil
from pathlib import Path

from harness.errors import UserError, look_up

EXECUTORS = ("local", "processes", "ray", "slurm")
ON_THIS_MACHINE = ("local", "processes")  # executors whose workers share this machine
MOST_WORKERS = 1_000  # of one driver on a cluster
KERNELS = "HARNESS_KERNELS"  # the variable that names a set of native kernels, or OFF
OFF = "off"
# The compiler's flags: those of every library of native kernels (`every`) and those of each set of instructions, the widest first.
KERNEL_FLAGS: dict[str, list[str]] = json.loads(Path(__file__).with_name("kernels").joinpath("native", "flags.json").read_text())


def check(device: str, executor: str, workers: int | None, per_gpu: int) -> None:
    """Raise an error for names and numbers that are wrong on any machine or, for the CPU, on this one.

    Args:
        device: the name of a device.
        executor: the name of an executor.
        workers: how many train at a time; None for what the devices give.
        per_gpu: how many of them may share a GPU.

    Raises:
        UserError: an unknown name, or a number that is out of range.
    """
    kernels()
    look_up(dict.fromkeys(EXECUTORS), executor, "executor")
    local, kind = executor in ON_THIS_MACHINE, kind_of(device)
    if per_gpu < 1 or (kind == "cpu" and per_gpu > 1):
        raise wrong_per_gpu(per_gpu, local, cpu() if kind == "cpu" else device)
    if workers is not None:
        most = cores() if local and kind == "cpu" else MOST_WORKERS
        check_workers(workers, most, (cpu() if kind == "cpu" else f"device {device}") if local else "a cluster")


def kernels() -> str:
    """Return the set of native kernels that HARNESS_KERNELS names, or OFF; empty if it is not set.

    Raises:
        UserError: it names neither.
    """
    asked, known = os.environ.get(KERNELS, ""), (*(name for name in KERNEL_FLAGS if name != "every"), OFF)
    if asked and asked not in known:
        raise UserError(f"{KERNELS} is {asked!r}\nset it to one of {', '.join(known)}, or leave it unset")
    return asked


def kind_of(device: str) -> str:
    """Return the kind of a device by its name: `auto`, `cpu` or `cuda`, which may be followed by `:N`.

    Raises:
        UserError: the name has another form.

    >>> kind_of("cuda:1")
    'cuda'
    """
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (":" in device and (kind != "cuda" or not index.isdecimal())):
        raise UserError(f"unknown device {device!r}\nknown: auto, cpu, cuda, cuda:0, cuda:1, ...")
    return kind


def only_cpu(device: str) -> bool:
    """Return whether a device of this name is surely this machine's CPU, without asking torch."""
    kind = kind_of(device)
    return kind == "cpu" or (kind == "auto" and shutil.which("nvidia-smi") is None)


def check_workers(count: int, most: int, what: str, hint: str = "") -> None:
    """Raise an error unless a number of workers is from 1 to `most`, which is for `what`; `hint` is a further line."""
    if not 1 <= count <= most:
        raise UserError(f"WORKERS={count}: from 1 to {most} for {what}{hint}")


def wrong_per_gpu(per_gpu: int, local: bool, device: str) -> UserError:
    """Return the error for workers that are to share a GPU where that cannot be; `device` is in words."""
    where = "a GPU of this machine" + ("" if local else "; on a cluster WORKERS alone says how many share the GPUs")
    return UserError(f"WORKERS_PER_GPU={per_gpu}: a number from 1 on, for {where}; got {device}")


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's model name, as the operating system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu() -> str:
    """Return the processor in words: its name and its number of cores."""
    return f"{cpu_name()}, {cores()} cores"
