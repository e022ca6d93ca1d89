"""What torch keeps of compiled graphs on disk is right for whoever finds it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

GRAPH = """
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from harness.kernels.torch_internals import compile_graph

torch.set_num_threads(1)
x = torch.linspace(-3, 3, 4096).view(64, 64)
graph = make_fx(lambda x: [(torch.tanh(x) * x).exp() + 1])(x)
(found,) = compile_graph(graph, [x])(x)
torch.testing.assert_close(found, graph(x)[0])
print(torch.backends.cpu.get_cpu_capability())
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="takes a processor with vectors of two widths")
def test_vectors_of_one_width_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    for capability in ("avx512", "avx2"):
        own = {"ATEN_CPU_CAPABILITY": capability, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", GRAPH], env=os.environ | own, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.strip().lower() == capability
