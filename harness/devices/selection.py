"""The choice of devices by name, for a process and for workers, and what there is: GPUs, cores, compilers."""

import os
import shutil
import subprocess
from functools import cache

import torch

from harness import resources
from harness.errors import MachineError
from harness.resources import cores

OF_TORCH = ("name", "uuid", "total_memory", "major", "minor")  # of a GPU: its memory in bytes, its compute capability in two parts
ASKED = ("driver_version", "clocks.sm", "clocks.max.sm", "power.limit", "temperature.gpu", "mig.mode.current")  # of nvidia-smi


def named(name: str) -> torch.device:
    """Return the device called `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU, or the CPU of a machine without one.

    Raises:
        UserError: the name has another form.
        MachineError: the GPU is not available. Nothing falls back to the CPU silently.
    """
    kind, index = resources.kind_of(name), name.partition(":")[2]
    if kind == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        build = (torch.version.cuda and f"torch {torch.__version__} sees no GPU") or f"torch {torch.__version__} has no CUDA"
        raise resources.no_gpu(name, build)
    if int(index or 0) >= torch.cuda.device_count():
        available = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        raise MachineError(f"DEVICE={name}: no such GPU\nhere: {available}, cpu")
    return torch.device("cuda", int(index or 0))


def is_gpu(name: str) -> bool:
    """Return whether this is the name of a GPU, whether or not this machine has one."""
    return name.partition(":")[0] == "cuda"


def worker_devices(name: str, workers: int | None, local: bool, per_gpu: int = 1) -> list[str]:
    """Return the name of the device of each worker: every core of a CPU or every GPU, or as many as `workers` asks for.

    Args:
        name: `cuda` and `auto` take all GPUs of the machine in turn, `cuda:1` takes that one.
        workers: the number of workers; None for one per core, or `per_gpu` per GPU.
        local: True if the workers run on this machine; False if on others, whose cores and GPUs are not known here.
        per_gpu: the most workers of a GPU of this machine.

    Raises:
        UserError: fewer than one worker, or more than this machine has cores or room on GPUs (on a cluster: more than 1,000); or
            `per_gpu` other than 1 where there is no GPU of this machine to share.
    """
    device = named(name)
    if per_gpu < 1 or (per_gpu > 1 and not (local and device.type == "cuda")):
        raise resources.wrong_per_gpu(per_gpu, local, describe(device))
    if device.type == "cuda":
        all_gpus = name in ("auto", "cuda")
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if all_gpus else [str(device)]
        available = gpus * per_gpu  # each GPU gets its first worker before any gets a second
    else:
        available = ["cpu"] * cores()
    count = len(available) if workers is None else workers
    most = len(available) if local else resources.MOST_WORKERS
    hint = "\nfor several on each GPU: WORKERS_PER_GPU=2" if device.type == "cuda" and local and count > most else ""
    resources.check_workers(count, most, describe(device) if local else "a cluster", hint)
    return available[:count] if local else [device.type] * count


def describe(device: torch.device) -> str:
    """Return the device in words, as results should quote it: the GPU's name, or the processor's name and its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return resources.cpu()


@cache
def gpu_facts(device: torch.device) -> str | dict[str, str]:
    """Return what can be told of a GPU by name: memory, driver, clocks, limits; `none` for a CPU.

    What only `nvidia-smi` tells says so where that is not installed.
    """
    if device.type != "cuda":
        return "none"
    known = torch.cuda.get_device_properties(device)
    facts = {
        **{
            name: str(getattr(known, name, "not told by this torch")) for name in ("name", "uuid", "total_memory", "major", "minor")
        },
        "cuda": cuda_version(),
        "cudnn": str(torch.backends.cudnn.version()),
    }
    try:
        asked = ["nvidia-smi", f"--id=GPU-{facts['uuid']}", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader"]
        told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip().split(", ")
        return facts | dict(zip(ASKED, told, strict=True))
    except (
        OSError,
        ValueError,
        subprocess.SubprocessError,
    ) as fault:  # not installed, not allowed, or too new or old to know a field
        return facts | dict.fromkeys(ASKED, f"not told by nvidia-smi ({type(fault).__name__})")


def cuda_version() -> str:
    """Return the version of CUDA that torch was built for; empty for a build without it."""
    return torch.version.cuda or ""


def one_thread() -> None:
    """Make torch use one thread in this process.

    Results then do not depend on the number of cores, and workers do not compete for them.
    """
    torch.set_num_threads(1)


def compiler(device: torch.device) -> str | None:
    """Return the name of the compiler that compiled steps need, or None if it is not installed.

    A CPU needs a C++ compiler. For a GPU torch brings its own compiler, which needs a C compiler beside it.
    """
    names = (os.environ.get("CXX"), "g++", "clang++") if device.type == "cpu" else (os.environ.get("CC"), "gcc", "clang")
    return next((name for name in names if name and shutil.which(name)), None)
