"""What a GPU machine has: versions of packages, what compiling needs, and the card as its driver describes it."""

import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from harness import devices, provenance
from harness.bench.gpu.record import Row
from harness.bench.gpu.setting import Case, Setting

PACKAGES = ("torch", "torchvision", "triton", "numpy", "scipy", "scikit-learn", "pandas", "jax", "optax")
RECORDS = ("mlflow", "optuna", "sqlalchemy")  # what a study needs beside
QUERY = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit"


def cases(setting: Setting) -> Iterator[Case]:
    """Yield what is asked."""
    yield "versions", _versions
    yield "compiling", lambda: _compiling(setting)
    yield "card", lambda: _card(setting)


def missing() -> list[str]:
    """Return the packages that a study needs and that are not installed."""
    return [package for package in RECORDS if find_spec(package) is None]


def _versions() -> list[Row]:
    """Return the versions of Python and of all packages."""
    named = ", ".join(f"{package} {provenance.version(package)}" for package in (*PACKAGES, *RECORDS))
    return [Row("versions", f"Python {platform.python_version()}, CUDA {devices.cuda_version() or 'absent'}, {named}")]


def _compiling(setting: Setting) -> list[Row]:
    """Return what the compilers of torch and Triton need: Python's headers, a compiler for C, and the assembler for the card."""
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    compiler = devices.compiler(setting.device)
    rows = [
        Row("Python.h", str(header) if header.exists() else "absent", "present", header.exists()),
        Row("C compiler", compiler or "absent", "present", compiler is not None),
    ]
    if devices.can_capture(setting.device):
        triton = find_spec("triton")
        places = list(triton.submodule_search_locations or []) if triton else []
        found = any(any(Path(place).rglob("ptxas*")) for place in places) or shutil.which("ptxas") is not None
        rows.append(Row("ptxas", "present" if found else "absent", "present", found))
    return rows


def _card(setting: Setting) -> list[Row]:
    """Return the device in words, the driver's description of the card, cores and memory."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    rows = [Row("device", f"{devices.describe(setting.device)}; {devices.cores()} cores, {pages * size / 2**30:.0f} GiB of memory")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [*rows, Row("nvidia-smi", "absent")]
    command = [tool, f"--query-gpu={QUERY}", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return [*rows, Row("nvidia-smi", (said.stdout or said.stderr).strip().replace("\n", "; "))]
