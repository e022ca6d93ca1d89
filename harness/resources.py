"""Names of executors and devices and numbers of workers, judged before torch is imported. What a machine has is in devices/."""

import json
import os
import platform
import re
import shutil
from importlib.metadata import version
from pathlib import Path

from harness.errors import MachineError, UserError, cut, look_up, nearest

DEVICES = ("auto", "cpu", "cuda")  # kinds; the last may be followed by the number of one, as in cuda:1
EXECUTORS = ("local", "processes", "ray", "slurm")
ON_THIS_MACHINE = ("local", "processes")  # executors whose workers share this machine
CPU_BUILD = "+cpu"  # the end of the version of a torch that is built without CUDA
MOST_WORKERS = 1_000  # of one driver on a cluster
LIMIT = Path("/sys/fs/cgroup/memory.max")  # bytes that a container may use, or "max"
PROCESS_BYTES = 500 * 2**20  # of a process that trains, before it has a model: torch, its own data and code
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
        MachineError: a GPU of this machine, by a torch that is built without CUDA.
    """
    kernels()
    look_up(dict.fromkeys(EXECUTORS), executor, "executor")
    local, kind = executor in ON_THIS_MACHINE, kind_of(device)
    surely_cpu = kind == "cpu" or (local and only_cpu(device))
    if per_gpu < 1 or (surely_cpu and per_gpu > 1):
        raise wrong_per_gpu(per_gpu, local, cpu() if surely_cpu else device)
    if local and kind == "cuda" and (build := version("torch")).endswith(CPU_BUILD):
        raise no_gpu(device, f"torch {build} has no CUDA")
    if workers is not None:
        here = local and only_cpu(device)
        check_workers(workers, cores() if here else MOST_WORKERS, cpu() if here else f"device {device}" if local else "a cluster")


def kernels() -> str:
    """Return the set of native kernels that HARNESS_KERNELS names, or OFF; empty if it is not set.

    Raises:
        UserError: it names neither.
    """
    asked, known = os.environ.get(KERNELS, ""), (*(name for name in KERNEL_FLAGS if name != "every"), OFF)
    if asked and asked not in known:
        raise UserError(f"{KERNELS} is {asked!r}\nset it to one of {', '.join(known)}, or leave it unset")
    return asked


def grace_s() -> float:
    """Return the seconds that HARNESS_GRACE_S says, after which a driver without a heartbeat is taken for dead.

    Raises:
        UserError: it says no number of seconds.
    """
    asked = os.environ.get("HARNESS_GRACE_S") or "60"
    seconds = float(asked) if re.fullmatch(r"[0-9]{1,6}([.][0-9]+)?", asked) else 0.0
    if not seconds:
        raise UserError(f"HARNESS_GRACE_S={cut(asked)}: write seconds, such as 60, or leave it unset")
    return seconds


def kind_of(device: str) -> str:
    """Return the kind of a device by its name: `auto`, `cpu` or `cuda`, which may be followed by `:N`.

    Raises:
        UserError: the name has another form.

    >>> kind_of("cuda:1")
    'cuda'
    """
    kind, _, index = device.partition(":")
    if kind not in DEVICES or (":" in device and (kind != "cuda" or not index.isdecimal())):
        near = nearest("cuda" if kind.lower() in ("gpu", "nvidia") else kind, DEVICES)
        raise UserError(f"unknown device {cut(device)!r}{near}\nknown: auto, cpu, cuda, cuda:0, cuda:1, ...")
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


def no_gpu(device: str, why: str) -> MachineError:
    """Return the error for a GPU that is asked for where there is none; `why` is in words."""
    return MachineError(f"DEVICE={device}: no CUDA GPU here ({why})\nhere: cpu. To train on it: DEVICE=cpu")


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_of_machine() -> int:
    """Return the bytes of memory that this machine has for all processes, or that this container may use."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = LIMIT.read_text().strip() if LIMIT.exists() else ""
    return min(physical, int(limit)) if limit.isdecimal() else physical


def size(count: int) -> str:
    """Return a number of bytes in words.

    >>> size(3_500_000_000_000), size(900_000), size(2**70)
    ('3.2 TiB', '878.9 KiB', '1,024 EiB')
    """
    value, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:,.0f} {units[0]}" if value >= 1000 or units[0] == "bytes" else f"{value:.1f} {units[0]}"


def fitting(need: int, wanted: int | None, most: int, made_of: str) -> int:
    """Return how many trainings of `need` bytes each to run at a time on this machine's CPU.

    Args:
        need: bytes that a training takes beside its process.
        wanted: how many were asked for; None for as many as fit, up to `most`.
        most: how many there would be if memory were no matter.
        made_of: what the bytes are for, in words.

    Raises:
        MachineError: one does not fit, or not as many as were asked for; the message has the estimate and the machine's memory.
    """
    memory, each = memory_of_machine(), need + PROCESS_BYTES
    holds = memory // each
    if holds >= (wanted or 1):
        return wanted or min(most, holds)
    if not holds:
        raise too_large(made_of, memory, "this machine")
    raise MachineError(
        f"WORKERS={wanted}: a training takes about {size(each)} with its process, and this machine has {size(memory)}\n"
        f"{made_of}\nWORKERS={holds} would fit"
    )


def too_large(made_of: str, memory: int, where: str) -> MachineError:
    """Return the error for a trial that does not fit into so many bytes of memory; `made_of` says what it takes, in words."""
    return MachineError(
        f"a trial does not fit into memory: {where} has {size(memory)}\n{made_of}\n"
        "make it smaller: latent, hidden or widths, batch_size, num_samples, or a likelihood of fewer outputs"
    )


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
