"""The native elementwise functions, compiled once for each set of instructions that this processor has."""

import ctypes
import subprocess
from pathlib import Path

import pytest
import torch

from harness import devices, paths

SETS = {
    "portable": ("-DWIDTH=4",),
    "avx2": ("-DWIDTH=8", "-mavx2", "-mfma"),
    "avx512": ("-DWIDTH=16", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
}
CAPABILITY = torch.backends.cpu.get_cpu_capability().lower()
HERE = list(SETS)[: (list(SETS).index(CAPABILITY) if CAPABILITY in SETS else 0) + 1]


# The widest set is what runs here; the others take seconds to compile.
PARAMETERS = [pytest.param(name, marks=() if name == HERE[-1] else pytest.mark.slow) for name in HERE]


@pytest.fixture(scope="session", params=PARAMETERS)
def elementwise(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The library of one set of instructions; the functions take addresses."""
    compiler = devices.compiler(torch.device("cpu"))
    if compiler is None:
        pytest.skip("no compiler here")
    built = Path(tmp_path_factory.mktemp("native"), f"{request.param}.so")
    source = Path(__file__).parents[1] / "helpers" / "native_math.cpp"
    flags = ("-std=c++20", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", *SETS[request.param])
    include = f"-I{paths.PROJECT / 'harness' / 'kernels' / 'native'}"
    subprocess.run((compiler, *flags, include, str(source), "-o", str(built)), check=True)
    return ctypes.CDLL(str(built))
